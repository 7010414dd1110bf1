"""``smilejobs demo --learn``: waits for jobs of three kinds, round by round, while paces learn how long they take."""

from collections.abc import Iterator, Sequence
from statistics import fmean

import anyio
from attrs import define, field, frozen
from rich import box
from rich.console import Console
from rich.table import Table

from smilejobs.cli.display import live_table
from smilejobs.client import Client
from smilejobs.clock import utcnow
from smilejobs.polling.learned_pace import LearnedPace
from smilejobs.polling.pace import Pace, PaceFunction
from smilejobs.sandbox import Lognormal, Mixture, Sandbox
from smilejobs.sandbox.distributions import Distribution, make_rng

_USER = "demo-user"
_ROUNDS = 4
_JOBS = 20
"""Of each kind in each round."""
_TIMEOUT_SECONDS = 60
_BASE = Pace(min=0.5)
"""Jobs of a demo take little time: half a second is much for them."""


@frozen(kw_only=True)
class Kind:
    """Jobs that take about as long; *name* says how long."""

    name: str
    durations: Distribution


KINDS = (
    Kind(name="1.5 s or 3.7 s", durations=Mixture((6, Lognormal(1.5, 0.08)), (4, Lognormal(3.7, 0.05)))),
    Kind(name="about 2.5 s", durations=Lognormal(2.5, 0.25)),
    Kind(name="3.2 s", durations=Lognormal(3.2, 0.02)),
)


@frozen
class Round:
    """What a round of waits has cost, as means: polls per job, and seconds from the result to the poll that saw it."""

    polls: float
    late: float


@define
class _Row:
    """The rounds of one kind: the first one by a `Pace`, the others by a pace that learns."""

    kind: Kind
    pace: LearnedPace = field(factory=lambda: LearnedPace(base=_BASE))
    rounds: list[Round] = field(factory=list)
    waiting: int = 0


async def run(console: Console, kinds: Sequence[Kind] = KINDS, rounds: int = _ROUNDS) -> bool:
    """Submit jobs to a sandbox, wait for them, show what that costs, and return whether every wait had a result.

    A terminal gets a live table, anything else a line for each round. Each kind of jobs has a pace of its own, which
    learns in so many *rounds*, after one without it.
    """
    sandbox = Sandbox(now=utcnow)
    async with (
        sandbox.serve() as base_url,
        Client(partner_id="085", api_key="sandbox-key", base_url=base_url, rate=None, now=utcnow) as client,
    ):
        console.print(
            f"Waiting for {_JOBS} jobs of each kind, {rounds + 1} times, on a sandbox at {base_url}:\n"
            "first at Pace(min=0.5), then at a pace that learns from each wait.\n"
        )
        show = LearningShow(console, sandbox, client, kinds, rounds)
        await show.wait()
    console.print()
    for line in show.summary():
        console.print(line)
    return show.is_as_expected()


class LearningShow:
    """Submits jobs to a sandbox, round by round, waits for them, and shows what that costs."""

    def __init__(
        self, console: Console, sandbox: Sandbox, client: Client, kinds: Sequence[Kind], rounds: int = _ROUNDS
    ) -> None:
        self._console = console
        self._sandbox = sandbox
        self._client = client
        self._rounds = rounds
        self._rows = [_Row(kind) for kind in kinds]
        self._failures = 0

    async def wait(self) -> None:
        """Wait for all rounds of all kinds, and show the progress."""
        await self._connect()
        async with live_table(self._console, self._table):
            for number in range(self._rounds + 1):
                async with anyio.create_task_group() as tasks:
                    for row in self._rows:
                        tasks.start_soon(self._wait, row, number)
                if not self._console.is_terminal:
                    self._print_round(number)

    def is_as_expected(self) -> bool:
        """Return whether every wait ended with a result."""
        return not self._failures

    def summary(self) -> Iterator[str]:
        """Yield the lines of the summary."""
        for number, what in ((0, "With Pace(min=0.5)"), (self._rounds, "After learning")):
            polls = fmean(row.rounds[number].polls for row in self._rows)
            late = fmean(row.rounds[number].late for row in self._rows)
            yield f"{what}: {polls:.1f} polls per job, results are seen {late:.2f} s late on average."
        if self._failures:
            yield f"{self._failures} waits ended without a result."

    async def _connect(self) -> None:
        """Open the connections: else the polls of the first round would come late."""
        count = _JOBS * len(self._rows)
        refs = [self._sandbox.submit(_USER, f"connect {place}", machine=0.0) for place in range(count)]
        async with self._client.wait_many(refs, timeout=_TIMEOUT_SECONDS) as outcomes:
            async for _ in outcomes:
                pass

    async def _wait(self, row: _Row, number: int) -> None:
        """Wait for the jobs of one round; the sandbox tells only how long each of them took."""
        rng = make_rng(0, row.kind.name, number)
        durations = [row.kind.durations.draw(rng) for _ in range(_JOBS)]
        refs = [
            self._sandbox.submit(_USER, f"{row.kind.name} {number} {place}", machine=duration)
            for place, duration in enumerate(durations)
        ]
        pace: PaceFunction = row.pace if number else _BASE
        polls: list[int] = []
        late: list[float] = []
        row.waiting = len(refs)
        async with self._client.wait_many(refs, pace=pace, timeout=_TIMEOUT_SECONDS) as outcomes:
            async for outcome in outcomes:
                row.waiting -= 1
                self._failures += outcome.error is not None
                polls.append(outcome.polls)
                late.append((outcome.end_age or 0.0) - durations[outcome.index])
        row.rounds.append(Round(fmean(polls), fmean(late)))

    def _print_round(self, number: int) -> None:
        for row in self._rows:
            last = row.rounds[-1]
            costs = f"{last.polls:.1f} polls per job, {last.late:.2f} s late"
            self._console.print(f"{self._title(number)}, jobs that take {row.kind.name}: {costs}")

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
        table.add_column("jobs that take", min_width=16)
        table.add_column("", min_width=6)
        for number in range(self._rounds + 1):
            table.add_column(self._title(number), justify="right", min_width=10)
        for row in self._rows:
            waiting = [f"{row.waiting} pending"] if len(row.rounds) <= self._rounds and row.waiting else []
            table.add_row(row.kind.name, "polls", *(f"{each.polls:.1f}" for each in row.rounds), *waiting)
            table.add_row("", "late", *(f"{each.late:.2f} s" for each in row.rounds), end_section=True)
        return table

    def _title(self, number: int) -> str:
        return f"round {number}" if number else "Pace"
