"""Wait for many jobs in one call, for notebooks and scripts, and look at their outcomes together."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from importlib.util import find_spec
from os import PathLike
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Unpack, get_args, get_type_hints, overload

from attrs import field, fields, frozen

from smilejobs.batch.extra import extra_columns, extra_of
from smilejobs.batch.records import RowRecord, make_record
from smilejobs.batch.report import Report
from smilejobs.client import Client, WaitManyOptions
from smilejobs.client.arguments import check_progress
from smilejobs.model.codes import Verdict
from smilejobs.model.tables import table, word
from smilejobs.outcomes import JobRefs, Outcome, Progress

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

Library = Literal["pandas", "polars"]

_FILE_COLUMNS = ("line", "submitted_at", "images", "images_error", "images_error_text")
"""Columns that only results files have: about the input file, and about saved pictures."""
_DTYPES: Mapping[type, Literal["int64", "string", "boolean", "float64"]] = MappingProxyType(
    {int: "int64", str: "string", bool: "boolean", float: "float64"}
)
"""The pandas types of columns; values may be missing in all but integers."""


def _read_columns() -> dict[str, type]:
    """Return the type of each column, by its name in a results file: the attributes of a `RowRecord`."""
    known = get_type_hints(RowRecord)
    hints = {column.name: known[column.name] for column in fields(RowRecord) if column.name not in _FILE_COLUMNS}
    types = {name: next(iter(get_args(hint)), hint) for name, hint in hints.items()}
    return {name: str if issubclass(kind, str) else kind for name, kind in types.items()}


_COLUMNS = _read_columns()


def _require_outcomes(values: Iterable[Outcome]) -> tuple[Outcome, ...]:
    outcomes = tuple(values)
    for outcome in outcomes:
        if not isinstance(outcome, Outcome):
            raise TypeError(f"a Batch is made of Outcomes, not of {type(outcome).__name__}")
    return outcomes


@frozen(repr=False)
class Batch(Sequence[Outcome]):
    """The outcomes of a batch, as a sequence; a slice of a batch is a batch.

    Args:
        outcomes: One for each job. `check` gives them in the order of the input.

    Raises:
        TypeError: A value is not an `Outcome`.
    """

    _outcomes: tuple[Outcome, ...] = field(converter=_require_outcomes)

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
        """Return how many jobs ended with each verdict or error, the most frequent first.

        A key is the value of a `Verdict`, such as "approved", or the name of an error's class, such as
        "WaitTimeoutError".
        """
        return dict(Counter(map(_name_ending, self)).most_common())

    def records(self, *, personal: bool = False) -> list[dict[str, object]]:
        """Return one flat row per outcome, as `frame` shows it: the columns of a `RowRecord` by name.

        The keys are ``index`` (the position in the input), ``user_id``, ``job_id``, ``outcome``, ``is_final``,
        ``code``, ``verdict``, ``result_code``, ``result_text``, ``confidence``, ``smile_job_id``, ``polls``,
        ``seconds``, ``pending_age``, ``end_age``, ``error`` (the name of its class) and ``error_text``. Unknown values
        are None.

        Args:
            personal: Add the personal data of the ID authority, without pictures, under the names of a results file:
                ``personal_full_name``, ``personal_dob``, ...
        """
        return [_flatten(outcome, personal=personal) for outcome in self]

    @overload
    def frame(self, library: Literal["pandas"], *, personal: bool = False) -> "pd.DataFrame": ...
    @overload
    def frame(self, library: Literal["polars"], *, personal: bool = False) -> "pl.DataFrame": ...
    @overload
    def frame(self, library: None = None, *, personal: bool = False) -> "pd.DataFrame | pl.DataFrame": ...
    def frame(self, library: Library | None = None, *, personal: bool = False) -> "pd.DataFrame | pl.DataFrame":
        """Return the `records` as a data frame, whose columns have the same types in every batch.

        Unknown values are missing (NA, null). The frame has the ids, so a notebook that shows all of it shows them.

        Args:
            library: "pandas" or "polars"; None for the one that is installed, pandas if both are.
            personal: As for `records`.

        Raises:
            ImportError: The library is not installed, or neither is.
            ValueError: There is no such library.
        """
        types = {**_COLUMNS, **dict.fromkeys(extra_columns(history=False, personal=personal), str)}
        records = self.records(personal=personal)
        match library or _find_library():
            case "pandas":
                with _explain_missing("pandas"):
                    import pandas as pd
                dtypes = {name: _DTYPES[kind] for name, kind in types.items()}
                return pd.DataFrame(records, columns=list(types)).astype(dtypes)
            case "polars":
                with _explain_missing("polars"):
                    import polars as pl
                return pl.DataFrame(records, schema=types)
            case _:
                raise ValueError("library must be 'pandas' or 'polars'")

    def report(self, path: str | PathLike[str]) -> None:
        """Write a page of HTML about the batch, which needs no network and no script. See `Report`.

        Args:
            path: The file; one that exists is overwritten.

        Raises:
            OSError: The file cannot be written.
        """
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
    client: Client, refs: JobRefs, *, progress: bool | None = None, **options: Unpack[WaitManyOptions]
) -> Batch:
    """Wait for many jobs, and return when all have ended.

    ::

        batch = await check(client, refs, timeout=600)
        batch.counts()

    All outcomes are held in memory and are lost if the call is interrupted. For batches that take hours, or have
    millions of jobs, use `Client.wait_many`, which yields each outcome as its job ends.

    Args:
        client: The client that polls.
        refs: As for `Client.wait_many`.
        progress: Whether to show a progress bar, on standard error or, in a notebook, below the cell. None for a bar in
            notebooks and terminals, if the extra ``notebook`` is installed.
        options: Those of `Client.wait_many`, with its defaults.

    Returns:
        The outcomes, in the order of the input; if *deadline* ended the batch, those of the jobs that were read.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is invalid.
        ImportError: *progress* is true and the extra ``notebook`` is not installed.
        TooManyFailuresError: 30 polls in a row failed without one good answer.
        CredentialsError: Two in a row: partner id, API key, clock and environment do not fit each other.
        RuntimeError: The client is closed, or belongs to another event loop.
    """
    callback = options.get("on_progress")
    check_progress(callback)
    with _show_bar(refs, progress, callback) as on_progress:
        async with client.wait_many(refs, **(options | WaitManyOptions(on_progress=on_progress))) as outcomes:
            ended = [outcome async for outcome in outcomes]
    return Batch(sorted(ended, key=lambda outcome: outcome.index))


@contextmanager
def _show_bar(
    refs: JobRefs, progress: bool | None, callback: Callable[[Progress], None] | None
) -> Iterator[Callable[[Progress], None] | None]:
    """Show a bar while the block runs; yield a function that moves the bar and calls *callback*."""
    if progress is False:
        yield callback
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        if progress:
            raise ImportError("the progress bar needs tqdm: pip install 'smilejobs[notebook]'") from None
        yield callback
        return
    # tqdm reads None as: disabled unless in a notebook or a terminal.
    disable = None if progress is None else False
    with tqdm(total=len(refs) if isinstance(refs, Sized) else None, unit="job", disable=disable) as bar:

        def show(now: Progress) -> None:
            bar.n = now.done + now.failed
            bar.set_postfix(failed=now.failed, polls=now.polls, refresh=False)
            bar.refresh()
            if callback is not None:
                callback(now)

        yield show


def _name_ending(outcome: Outcome) -> str:
    return word(outcome.status.verdict) if outcome.status is not None else type(outcome.error).__name__


def _flatten(outcome: Outcome, *, personal: bool) -> dict[str, object]:
    record = make_record(outcome)
    row: dict[str, object] = {name: getattr(record, name) for name in _COLUMNS}
    row.update(dict.fromkeys(extra_columns(history=False, personal=personal)))
    row.update(extra_of(outcome.status, history=False, personal=personal))
    # A string of JSON may hold half a surrogate pair, which a column of UTF-8 cannot.
    return {
        name: value.encode(errors="replace").decode() if isinstance(value, str) else value
        for name, value in row.items()
    }


@contextmanager
def _explain_missing(library: Library) -> Iterator[None]:
    """Say how to install a library, which no extra of this package brings."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"a data frame of {library} needs {library}: pip install {library}") from error


def _find_library() -> Library:
    for library in ("pandas", "polars"):
        if find_spec(library) is not None:
            return library
    raise ImportError("a data frame needs pandas or polars: pip install pandas, or pip install polars")
