"""A batch in one call, for notebooks and scripts: wait for many jobs, then look at them together."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from os import PathLike
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack, get_args, get_type_hints, overload

from attrs import field, fields, frozen

from smilejobs.batch.extra import extra_columns, extra_of
from smilejobs.batch.records import Record, record_of
from smilejobs.client import Client
from smilejobs.client.arguments import check_progress
from smilejobs.durations import Duration
from smilejobs.model.codes import Verdict
from smilejobs.model.tables import table, word
from smilejobs.outcomes import JobRefs, Outcome, Progress
from smilejobs.polling.pace import PaceFunction
from smilejobs.polling.rules import Until

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

Library = Literal["pandas", "polars"]

_ELSEWHERE = ("line", "submitted_at", "images", "images_error", "images_error_text")
"""What only an input file knows, and what has become of pictures that were to be saved."""
_DTYPES: Mapping[type, Literal["int64", "string", "boolean", "float64"]] = MappingProxyType(
    {int: "int64", str: "string", bool: "boolean", float: "float64"}
)
"""Those of pandas in which something can be missing, where something can."""


def _columns() -> dict[str, type]:
    """Return the columns of a data frame, by the names that they have in a results file: those of a `Record`."""
    known = get_type_hints(Record)
    hints = {column.name: known[column.name] for column in fields(Record) if column.name not in _ELSEWHERE}
    types = {name: next(iter(get_args(hint)), hint) for name, hint in hints.items()}
    return {name: str if issubclass(kind, str) else kind for name, kind in types.items()}


class CheckOptions(TypedDict, total=False):
    """The options of `Client.wait_many`, which `check` passes on."""

    timeout: Duration | None
    deadline: Duration | None
    until: Until
    pace: PaceFunction | None
    concurrency: int | None
    max_pending: int
    on_progress: Callable[[Progress], None] | None
    image_links: bool
    history: bool


def _checked(outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    found = tuple(outcomes)
    for each in found:
        if not isinstance(each, Outcome):
            raise TypeError(f"a Batch is made of Outcomes, not of {type(each).__name__}")
    return found


@frozen(repr=False)
class Batch(Sequence[Outcome]):
    """How a batch has ended: a sequence of its outcomes; a slice of it is a batch, too.

    Args:
        outcomes: One for each job. `check` gives them in the order of the input.

    Raises:
        TypeError: They are not outcomes.
    """

    _outcomes: tuple[Outcome, ...] = field(converter=_checked)

    @overload
    def __getitem__(self, place: int) -> Outcome: ...
    @overload
    def __getitem__(self, place: slice) -> "Batch": ...
    def __getitem__(self, place: int | slice) -> "Outcome | Batch":
        return Batch(self._outcomes[place]) if isinstance(place, slice) else self._outcomes[place]

    def __len__(self) -> int:
        return len(self._outcomes)

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._outcomes)

    def counts(self) -> dict[str, int]:
        """Return how many jobs have ended in which way, those that are most frequent first.

        A way is the value of a `Verdict`, such as "approved", or the name of an error's class, such as
        "WaitTimeoutError".
        """
        return dict(Counter(map(_ending, self)).most_common())

    @overload
    def frame(self, library: Literal["pandas"], *, personal: bool = False) -> "pd.DataFrame": ...
    @overload
    def frame(self, library: Literal["polars"], *, personal: bool = False) -> "pl.DataFrame": ...
    @overload
    def frame(self, library: None = None, *, personal: bool = False) -> "pd.DataFrame | pl.DataFrame": ...
    def frame(self, library: Library | None = None, *, personal: bool = False) -> "pd.DataFrame | pl.DataFrame":
        """Return a data frame with one row per outcome.

        Its columns are those of a `Record`: ``index`` (the position in the input), ``user_id`` and ``job_id``, by which
        it can be joined with what you know, ``outcome``, ``is_final``, ``code``, ``verdict``, ``result_code``,
        ``result_text``, ``confidence``, ``smile_job_id``, ``polls``, ``seconds``, ``error`` (the name of its class) and
        ``error_text``. What there is not is missing (NA, null). A notebook that shows all of it shows the ids.

        Args:
            library: "pandas" or "polars"; None for the one that is installed, pandas if both are.
            personal: Add what the ID authority has about the person, without pictures, as a results file does:
                ``personal_full_name``, ``personal_dob``, ...

        Raises:
            ImportError: The library is not installed, or neither is.
            ValueError: There is no such library.
        """
        more = extra_columns(history=False, personal=personal)
        own = _columns()
        types = {**own, **dict.fromkeys(more, str)}
        rows = [_row(outcome, own, personal=personal) for outcome in self]
        columns = {name: [row.get(name) for row in rows] for name in types}
        match library or _installed():
            case "pandas":
                with _told_how_to_install("pandas"):
                    import pandas as pd
                dtypes = {name: _DTYPES[kind] for name, kind in types.items()}
                return pd.DataFrame({name: pd.Series(values, dtype=dtypes[name]) for name, values in columns.items()})
            case "polars":
                with _told_how_to_install("polars"):
                    import polars as pl
                return pl.DataFrame(columns, schema=types)
            case _:
                raise ValueError("library must be 'pandas' or 'polars'")

    def report(self, path: str | PathLike[str]) -> None:
        """Write a page of HTML about the batch, which needs no network and no script. See `Report`.

        Args:
            path: The file; one that is there is overwritten.

        Raises:
            OSError: The file cannot be written.
        """
        from smilejobs.batch.report import Report

        report = Report()
        for outcome in self:
            report.add(outcome)
        report.write(path)

    def __repr__(self) -> str:
        endings = "".join(f", {count} {ending}" for ending, count in self.counts().items())
        return f"<Batch: {len(self)} {'job' if len(self) == 1 else 'jobs'}{endings}>"

    def _repr_html_(self) -> str:
        verdicts = {verdict.value: verdict for verdict in Verdict}
        return table(
            f"batch of {len(self)}",
            [(verdicts.get(ending, ending), str(count)) for ending, count in self.counts().items()],
        )


async def check(
    client: Client, refs: JobRefs, *, progress: bool | None = None, **options: Unpack[CheckOptions]
) -> Batch:
    """Wait for many jobs, and return when all have ended.

    ::

        batch = await check(client, refs, timeout=600)
        batch.counts()

    It holds every outcome in memory, and those that it has are lost if it is interrupted. For batches of hours, or of
    millions, there is `Client.wait_many`, which hands each outcome over as it comes.

    Args:
        client: Asks.
        refs: As for `Client.wait_many`.
        progress: Show a progress bar, on standard error or, in a notebook, as the notebook does; False for none. None
            for one where somebody may be watching, a notebook or a terminal, if the extra ``notebook`` is installed.
        options: Those of `Client.wait_many`, with its defaults.

    Returns:
        The outcomes, in the order of the input; those of the jobs that were read, if *deadline* has ended it.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An argument that can never be right.
        ImportError: A progress bar is wanted, and the extra ``notebook`` is not installed.
        TooManyFailuresError: 30 polls in a row failed without one good answer.
        CredentialsError: Two in a row: partner id, API key, clock and environment do not fit each other.
        RuntimeError: The client is closed, or belongs to another event loop.
    """
    also = options.get("on_progress")
    check_progress(also)
    with _bar(refs, progress, also) as on_progress:
        async with client.wait_many(refs, **(options | CheckOptions(on_progress=on_progress))) as outcomes:
            ended = [outcome async for outcome in outcomes]
    return Batch(sorted(ended, key=lambda outcome: outcome.index))


@contextmanager
def _bar(
    refs: JobRefs, progress: bool | None, also: Callable[[Progress], None] | None
) -> Iterator[Callable[[Progress], None] | None]:
    """Show a bar while the block runs; what it gives moves the bar, and calls *also*."""
    if progress is False:
        yield also
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        if progress:
            raise ImportError("the progress bar needs tqdm: pip install 'smilejobs[notebook]'") from None
        yield also
        return
    # None is tqdm's word for: not unless it is a notebook or a terminal.
    disable = None if progress is None else False
    with tqdm(total=len(refs) if isinstance(refs, Sized) else None, unit="job", disable=disable) as bar:

        def show(now: Progress) -> None:
            bar.n = now.done + now.failed
            bar.set_postfix(failed=now.failed, polls=now.polls, refresh=False)
            bar.refresh()
            if also is not None:
                also(now)

        yield show


def _ending(outcome: Outcome) -> str:
    return word(outcome.status.verdict) if outcome.status is not None else type(outcome.error).__name__


def _row(outcome: Outcome, own: Iterable[str], *, personal: bool) -> dict[str, object]:
    record = record_of(outcome)
    row: dict[str, object] = {name: getattr(record, name) for name in own}
    row.update(extra_of(outcome.status, history=False, personal=personal))
    # JSON may hold halves of surrogate pairs, and columns of UTF-8 cannot.
    return {
        name: value.encode(errors="replace").decode() if isinstance(value, str) else value
        for name, value in row.items()
    }


@contextmanager
def _told_how_to_install(library: Library) -> Iterator[None]:
    """Say what mends a missing library; no extra of ours brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"a data frame of {library} needs {library}: pip install {library}") from error


def _installed() -> Library:
    from importlib.util import find_spec

    for library in ("pandas", "polars"):
        if find_spec(library) is not None:
            return library
    raise ImportError("a data frame needs pandas or polars: pip install pandas, or pip install polars")
