"""The demo of a pace that learns: over real sockets, and under the virtual clock."""

import io
import random
import sys

import pytest
from rich.console import Console

import smilejobs.cli
from smilejobs.cli.demo_learn import KINDS, Kind, LearningShow, run
from smilejobs.sandbox import Lognormal, Sandbox
from smilejobs.testing import virtual_now

pytestmark = pytest.mark.slow


@pytest.mark.sample
def test_the_command_ends_by_itself(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal it prints a line for each kind and round. How fast it is depends on the machine."""
    monkeypatch.setattr(sys, "argv", ["smilejobs", "demo", "--learn"])
    with pytest.raises(SystemExit) as exited:
        smilejobs.cli.main()
    printed = capsys.readouterr()
    for kind in KINDS:
        for title in ("Pace", "round 1", "round 4"):
            assert f"{title}, jobs that take {kind.name}: " in printed.out
    assert exited.value.code == 0
    assert printed.err == ""
    assert "\x1b" not in printed.out


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_it_runs_over_real_sockets() -> None:
    """One kind of jobs that take no time, two rounds."""
    out = io.StringIO()
    kinds = [Kind(name="no time", durations=Lognormal(0.0))]
    assert await run(Console(file=out, width=200), kinds, rounds=1)
    assert "Pace, jobs that take no time: 1.0 polls per job, " in out.getvalue()
    assert "round 1, jobs that take no time: 1.0 polls per job, " in out.getvalue()


@pytest.mark.anyio
@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.sample
async def test_polls_fall_and_the_lateness_stays(width: int) -> None:
    """On a terminal it is a table that fits; the last round polls less than the first one and is not much later.

    Trio runs tasks in a random order, and the mean lateness of 60 jobs is uncertain by 12 %. Half of the polls at
    regular intervals would double it.
    """
    random.seed(1)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system=None, width=width, height=24, highlight=False)
    sandbox = Sandbox(now=virtual_now)
    async with sandbox.client(rate=None) as client:
        show = LearningShow(console, sandbox, client, KINDS)
        await show.wait()
    assert show.is_as_expected()
    before, after = (line.split() for line in show.summary())
    polls, late = ([float(line[line.index(word) - 1]) for line in (before, after)] for word in ("polls", "s"))
    assert polls[1] < 0.75 * polls[0]
    assert late[1] < 1.5 * late[0]
    assert "20 pending" in out.getvalue()
    frame = out.getvalue().rpartition("jobs that take")[2].replace("\x1b[?25h", "").splitlines()
    assert len(frame) < 14
    assert max(map(len, frame)) <= width
    for kind in KINDS:
        assert sum(kind.name in line for line in frame) == 1


@pytest.mark.anyio
@pytest.mark.sample
async def test_waits_without_a_result_are_counted() -> None:
    """The demo fails, and says how many there were."""
    sandbox = Sandbox(now=virtual_now)
    async with sandbox.client(rate=None) as client:
        kinds = [Kind(name="ten minutes", durations=Lognormal(600.0))]
        show = LearningShow(Console(file=io.StringIO()), sandbox, client, kinds, rounds=1)
        await show.wait()
    assert not show.is_as_expected()
    assert "40 waits ended without a result." in [*show.summary()]
