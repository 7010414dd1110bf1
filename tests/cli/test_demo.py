"""The demo: over real sockets, and under the virtual clock."""

import io
import os
import sys
import tempfile
from pathlib import Path

import pytest
from rich.console import Console

import smilejobs.cli
from smilejobs.cli.demo import PLANS, Plan, Show, run
from smilejobs.sandbox import Sandbox
from smilejobs.testing import virtual_now

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo leaves its images where the test can remove them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.sample
def test_the_command_ends_by_itself(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal it prints a line for each job. How fast it is depends on the machine."""
    monkeypatch.setattr(sys, "argv", ["smilejobs", "demo"])
    with pytest.raises(SystemExit) as exited:
        smilejobs.cli.main()
    printed = capsys.readouterr()
    for plan in PLANS:
        assert f"{plan.job_id}: " in printed.out
    assert exited.value.code == (0 if "24 of 24 jobs ended as expected" in printed.out else 4)
    assert printed.err == ""
    assert "\x1b" not in printed.out


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_it_saves_the_selfies_of_approved_jobs(tmp_path: Path) -> None:
    """Over real sockets; no job here ends because of a timeout."""
    out = io.StringIO()
    plans = [
        Plan(job_id="approved", machine=0.0, timeout=600.0),
        Plan(job_id="rejected", machine=0.0, outcome="rejected", timeout=600.0),
        Plan(job_id="disabled", refusal="2307", timeout=600.0),
        Plan(job_id="review", machine=0.0, review=0.5, timeout=600.0),
    ]
    assert await run(Console(file=out, width=200), plans)
    for plan in plans:
        assert f"{plan.job_id}: {plan.expected}, polls: " in out.getvalue()
    saved = [path for folder in os.scandir(tmp_path) for path in os.scandir(folder)]
    assert len(saved) == 2
    assert f"Selfies of approved jobs: 2, in {tmp_path}" in out.getvalue()


@pytest.mark.anyio
@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
@pytest.mark.sample
async def test_on_a_terminal_it_is_a_table_that_fits(size: tuple[int, int]) -> None:
    """The last frame shows all jobs and fits the terminal; earlier frames have shown every state."""
    width, height = size
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system=None, width=width, height=height, highlight=False)
    sandbox = Sandbox(now=virtual_now)
    async with sandbox.client() as client:
        show = Show(console, sandbox, client, virtual_now, PLANS)
        await show.wait()
    assert show.is_as_expected()
    assert next(show.summary()).startswith("24 of 24 jobs ended as expected, after ")
    assert len(show.approved()) == sum(plan.expected == "approved" for plan in PLANS)
    for state in ("running", "under review", "final", "no zip", "refused", "not submitted"):
        assert state in out.getvalue()
    last = out.getvalue().rpartition("outcome")[2].replace("\x1b[?25h", "").splitlines()
    assert len(last) < height - 6
    assert max(map(len, last)) <= width
    for plan in PLANS:
        assert sum(plan.job_id in line for line in last) == 1


@pytest.mark.anyio
@pytest.mark.sample
async def test_an_unexpected_end_is_reported() -> None:
    """The demo fails, and says which wait did not end as expected."""
    out = io.StringIO()
    late = [Plan(job_id="late-1", machine=60.0, timeout=0.3), Plan(job_id="late-2", machine=60.0, timeout=0.3)]
    sandbox = Sandbox(now=virtual_now)
    async with sandbox.client() as client:
        show = Show(Console(file=out, width=200), sandbox, client, virtual_now, late)
        await show.wait()
    assert not show.is_as_expected()
    said = "\n".join(show.summary())
    assert "0 of 2 jobs ended as expected" in said
    assert "late-2 ended as 'timed out'; expected was 'approved'." in said
    assert "at the latest" not in said
    assert "late-1: timed out, polls: 2, late: -\n" in out.getvalue()


def test_the_plans_are_of_all_kinds() -> None:
    """Twenty-four jobs with names of their own."""
    assert len({plan.job_id for plan in PLANS}) == 24
    kinds = {plan.expected for plan in PLANS}
    assert kinds == {"approved", "rejected", "error", "no zip", "not found", "failed 2307"}
    assert sum(plan.review is not None for plan in PLANS) == 4
