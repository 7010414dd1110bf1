"""The demo: over real sockets, once as it is, and in a hurry."""

import io
import sys
import tempfile
import time
from pathlib import Path

import pytest
from attrs import evolve
from rich.console import Console

import smilejobs.cli
from smilejobs.cli.demo import PLANS, Plan, run

pytestmark = pytest.mark.anyio


def hurried(plan: Plan) -> Plan:
    """A quarter of all durations, so that the table is seen in a quarter of the time."""
    review = None if plan.review is None else plan.review / 4
    return evolve(plan, machine=plan.machine / 4, review=review, timeout=plan.timeout / 4)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo leaves its pictures where the test can throw them away."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_the_demo_ends_by_itself_with_every_job_as_it_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command, as a newcomer runs it, in less than 30 s; without a terminal it prints a line for each job."""
    started = time.monotonic()
    monkeypatch.setattr(sys, "argv", ["smilejobs", "demo"])
    with pytest.raises(SystemExit) as exited:
        smilejobs.cli.main()
    assert time.monotonic() - started < 30
    printed = capsys.readouterr()
    assert (exited.value.code, printed.err) == (0, "")
    for plan in PLANS:
        assert f"{plan.job_id}: {plan.meant}, polls: " in printed.out
    assert "24 of 24 jobs ended as they were meant to" in printed.out
    (folder,) = tmp_path.iterdir()
    selfies = list(folder.iterdir())
    assert len(selfies) == sum(plan.meant == "approved" for plan in PLANS)
    assert f"Selfies of approved jobs: {len(selfies)}, in {folder}\n" in printed.out
    assert "\x1b" not in printed.out


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_on_a_terminal_it_is_a_table_that_fits(size: tuple[int, int]) -> None:
    """The last picture has all jobs, and is no larger than the terminal; the ones before have shown every state."""
    width, height = size
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system=None, width=width, height=height, highlight=False)
    assert await run(console, [hurried(plan) for plan in PLANS])
    for state in ("running", "under review", "ready", "no images", "not there"):
        assert state in out.getvalue()
    last = out.getvalue().rpartition("outcome")[2].replace("\x1b[?25h", "").splitlines()
    assert len(last) < height - 3
    assert max(map(len, last)) <= width
    for plan in PLANS:
        assert sum(plan.job_id in line for line in last) == 1
    assert "24 of 24 jobs" in last[-2]


async def test_a_job_that_ends_otherwise_is_told() -> None:
    """The demo fails, and says which job did not end as it was meant to."""
    out = io.StringIO()
    late = [Plan(job_id="late-1", machine=60.0, timeout=0.3), Plan(job_id="late-2", machine=60.0, timeout=0.3)]
    assert not await run(Console(file=out, width=200), late)
    assert "0 of 2 jobs ended as they were meant to" in out.getvalue()
    assert "late-2 ended as 'timed out'; meant was 'approved'." in out.getvalue()
    assert "at the latest" not in out.getvalue()


def test_the_plans_are_of_all_kinds() -> None:
    """Twenty-four jobs with names of their own."""
    assert len({plan.job_id for plan in PLANS}) == 24
    kinds = {plan.meant for plan in PLANS}
    assert kinds == {"approved", "rejected", "error", "no zip", "not found", "failed 2307"}
    assert sum(plan.review is not None for plan in PLANS) == 4
