"""`smilejobs.batch.check`: many jobs in one call, and what can be made of their outcomes."""

import itertools
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pandas as pd
import polars as pl
import pytest

import smilejobs
from smilejobs import JobRef, JobResult, JobStatus, Outcome, Progress, WaitTimeoutError
from smilejobs.batch import Batch, check
from smilejobs.batch.records import RowRecord, make_record
from smilejobs.testing import Script, complete, pending, provisional, refused

REFS = [JobRef("user-marker", f"job-{number}") for number in range(4)]
COUNTS = {"approved": 1, "UserDisabledError": 1, "WaitTimeoutError": 1, "rejected": 1}


def script() -> Script:
    """Approved, refused, not in time, rejected; they end in another order."""
    return Script(
        {
            "job-0": [pending(), pending(), complete(FullName="Ada Marker", ConfidenceValue="99.5")],
            "job-1": [refused("2307")],
            "job-2": itertools.repeat(pending()),
            "job-3": [complete("0811")],
        }
    )


async def batch_of(refs: Any = REFS, **options: Any) -> Batch:
    async with script().client() as client:
        return await check(client, refs, **{"timeout": 3.5, "pace": smilejobs.Pace(jitter=0), **options})


def approved(index: int = 0, elapsed: float = 0.0, **result: Any) -> Outcome:
    """An outcome without a client."""
    found = JobResult(result_code="0810", **result)
    status = JobStatus(user_id="u", job_id="j", job_complete=True, result=found)
    return Outcome(index=index, ref=JobRef("u", "j"), status=status, polls=1, elapsed=elapsed)


@pytest.mark.anyio
async def test_a_deadline_ends_it() -> None:
    """Each job that is pending then has an outcome with a WaitTimeoutError."""
    batch = await batch_of(timeout=None, deadline=60)
    assert batch.counts() == COUNTS
    assert "The deadline of the batch, 60 s, has come" in str(batch[2].error)


@pytest.mark.anyio
async def test_outcomes_are_in_the_order_of_the_input() -> None:
    """A batch is a sequence: it can be counted, indexed and sliced."""
    batch = await batch_of()
    assert isinstance(batch, Sequence)
    assert len(batch) == 4
    assert [outcome.ref for outcome in batch] == REFS
    assert [outcome.index for outcome in batch] == [0, 1, 2, 3]
    assert batch[-1].index == 3
    assert batch[1] in batch
    assert isinstance(batch[1:3], Batch)
    assert batch[1:3] == Batch([batch[1], batch[2]])
    with pytest.raises(IndexError):
        batch[4]


@pytest.mark.anyio
async def test_counts_tell_verdicts_and_errors() -> None:
    """By the word of the verdict, or the class of the error; the most frequent first."""
    batch = await batch_of()
    assert batch.counts() == COUNTS
    again = Batch([*batch, batch[3]])
    assert list(again.counts()) == ["rejected", "approved", "UserDisabledError", "WaitTimeoutError"]
    assert Batch([]).counts() == {}


@pytest.mark.anyio
async def test_options_are_those_of_wait_many() -> None:
    """They are passed on, and what can never be right is refused as there."""
    seen: list[Progress] = []
    review = Script({"job-0": [provisional(), complete()]})
    async with review.client() as client:
        batch = await check(
            client,
            REFS[:1],
            timeout=None,
            until="final",
            pace=smilejobs.Pace(),
            concurrency=1,
            max_pending=1,
            on_progress=seen.append,
            image_links=True,
            history=True,
        )
        assert batch[0].polls == 2
        assert seen[-1].done == 1
        for poll in review.polls["job-0"]:
            assert (poll.body["image_links"], poll.body["history"]) == (True, True)
        with pytest.raises(ValueError, match="timeout"):
            await check(client, REFS, timeout=-1)
        with pytest.raises(TypeError, match="refs must be an iterable"):
            await check(client, "job-1")  # type: ignore[arg-type]  # what mypy refuses, users without it pass
        with pytest.raises(TypeError, match="unexpected keyword"):
            await check(client, REFS, patience=3)  # type: ignore[call-arg]  # what mypy refuses, users without it pass


@pytest.mark.anyio
async def test_what_ends_the_batch_is_raised() -> None:
    """A wrong key is no outcome of a job."""
    wrong = Script({f"job-{number}": [refused("2305")] for number in range(2)})
    async with wrong.client() as client:
        with pytest.raises(smilejobs.CredentialsError):
            await check(client, REFS[:2])


@pytest.mark.anyio
async def test_a_bar_that_is_wanted_is_shown_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, up to the last job; the caller's own function is told as well."""
    seen: list[Progress] = []
    await batch_of(progress=True, on_progress=seen.append)
    printed = capsys.readouterr()
    assert "4/4" in printed.err
    assert "failed=2" in printed.err
    assert printed.out == ""
    assert seen[-1].pending == 0


@pytest.mark.anyio
async def test_a_bar_without_an_end_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """Of an input without a length nobody knows how much is left."""

    async def read() -> AsyncIterator[JobRef]:
        for ref in REFS:
            yield ref

    batch = await batch_of(read(), progress=True)
    assert batch.counts() == COUNTS
    assert "4job" in capsys.readouterr().err


@pytest.mark.anyio
@pytest.mark.parametrize("progress", [None, False])
async def test_where_nobody_watches_there_is_no_bar(progress: bool | None, capsys: pytest.CaptureFixture[str]) -> None:
    """In a file of a log it would be noise; a function of the caller's is told all the same."""
    seen: list[Progress] = []
    await batch_of(progress=progress, on_progress=seen.append)
    assert capsys.readouterr() == ("", "")
    assert seen[-1].done == 2


@pytest.mark.anyio
async def test_in_a_terminal_there_is_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is not wanted."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    await batch_of(progress=False)
    assert capsys.readouterr().err == ""
    await batch_of()
    assert "4/4" in capsys.readouterr().err


@pytest.mark.anyio
async def test_a_bar_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it there is none; who wants one is told what to install, before anything is asked."""
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert (await batch_of()).counts() == COUNTS
    async with Script({}).client() as client:
        with pytest.raises(ImportError, match=r"pip install 'smilejobs\[notebook\]'"):
            await check(client, REFS, progress=True)


@pytest.mark.anyio
async def test_a_frame_of_pandas() -> None:
    """One row per outcome, with ids to join by, and nothing personal."""
    batch = await batch_of()
    frame = batch.frame("pandas")
    assert isinstance(frame, pd.DataFrame)
    assert list(frame["index"]) == [0, 1, 2, 3]
    assert list(frame["user_id"]) == ["user-marker"] * 4
    assert list(frame["job_id"]) == [ref.job_id for ref in REFS]
    assert list(frame["outcome"]) == ["complete", "refused", "pending", "complete"]
    assert list(frame["verdict"].dropna()) == ["approved", "rejected"]
    assert list(frame[frame["is_final"]]["index"]) == [0, 3]
    assert list(frame["error"].dropna()) == ["UserDisabledError", "WaitTimeoutError"]
    assert frame["seconds"].tolist() == pytest.approx([2, 0, 3.5, 0])
    assert frame["confidence"][0] == 99.5
    assert "Ada Marker" not in frame.to_csv()


@pytest.mark.anyio
async def test_a_frame_of_polars() -> None:
    """The same, with nulls."""
    batch = await batch_of()
    frame = batch.frame("polars")
    assert isinstance(frame, pl.DataFrame)
    assert frame["outcome"].to_list() == ["complete", "refused", "pending", "complete"]
    assert frame["verdict"].to_list() == ["approved", None, None, "rejected"]
    assert frame["code"].to_list() == ["2302", "2307", "2302", "2302"]
    assert frame.filter(pl.col("is_final"))["index"].to_list() == [0, 3]
    assert "Ada Marker" not in frame.write_csv()


def test_the_columns_are_those_of_a_record() -> None:
    """A results file and a frame say the same by the same names, but for what only the command knows."""
    own = ("line", "submitted_at", "images", "images_error", "images_error_text")
    names = [field.name for field in attrs.fields(RowRecord) if field.name not in own]
    assert list(Batch([]).frame("pandas").columns) == names
    assert Batch([]).frame("polars").columns == names
    row = Batch([approved()]).frame("polars").to_dicts()[0]
    record = make_record(approved())
    assert row == {name: getattr(record, name) for name in names}


def test_records_are_flat_rows_without_a_library() -> None:
    """Unknown values are None, and personal columns are there on request, also for outcomes without an answer."""
    error = WaitTimeoutError(
        "over", ref=JobRef("u", "j"), last=None, last_error=None, polls=9, elapsed=6.0, age=6.0, timeout=6.0
    )
    failed = Outcome(index=1, ref=JobRef("u", "j"), error=error, polls=9, elapsed=6.0)
    batch = Batch([approved(full_name="Ada Marker"), failed])
    first, second = batch.records()
    assert list(first) == list(second) == Batch([]).frame("polars").columns
    assert [first[name] for name in ("index", "user_id", "outcome", "verdict", "error")] == [
        0,
        "u",
        "complete",
        "unknown",
        None,
    ]
    assert [second[name] for name in ("index", "outcome", "verdict", "error")] == [
        1,
        "pending",
        None,
        "WaitTimeoutError",
    ]
    assert [row["personal_full_name"] for row in batch.records(personal=True)] == ["Ada Marker", None]


def test_the_type_of_a_column_does_not_depend_on_what_is_in_it() -> None:
    """Frames of two batches can be put together, also when one is empty or a column is."""
    batches = [Batch([]), Batch([approved()]), Batch([approved(elapsed=1.5, confidence_value=3.5, smile_job_id="1")])]
    assert len({tuple(batch.frame("pandas").dtypes.astype(str)) for batch in batches}) == 1
    assert len({tuple(batch.frame("polars").dtypes) for batch in batches}) == 1
    assert pl.concat(batch.frame("polars") for batch in batches).height == 2
    assert len(pd.concat([batch.frame("pandas") for batch in batches])) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("library", ["pandas", "polars"])
async def test_personal_columns_are_there_on_request(library: Any) -> None:
    """What a result says about the person, and that alone; pictures are too large for a table."""
    batch = await batch_of()
    frame = batch.frame(library, personal=True)
    more = {str(name) for name in frame.columns} - set(batch.frame(library).columns)
    personal = set(JobResult().as_dict(personal=True)) - set(JobResult().as_dict())
    assert more == {f"personal_{name}" for name in personal - {"photo", "document"}}
    assert next(iter(frame["personal_full_name"])) == "Ada Marker"


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_any_text_of_the_api_fits_in_a_frame(library: Any) -> None:
    """Half a surrogate pair, which JSON can hold and UTF-8 cannot, does not cost the others their frame."""
    frame = Batch([approved(result_text="a\ud800b", full_name="\udfff")]).frame(library, personal=True)
    assert list(frame["result_text"]) == ["a?b"]
    assert list(frame["personal_full_name"]) == ["?"]


@pytest.mark.parametrize(
    ("missing", "kind"), [([], pd.DataFrame), (["polars"], pd.DataFrame), (["pandas"], pl.DataFrame)]
)
def test_the_library_is_the_one_that_is_installed(
    missing: list[str], kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pandas if both are."""
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    assert isinstance(Batch([approved()]).frame(), kind)


def test_without_a_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is a dependency."""
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install pandas, or pip install polars"):
        Batch([]).frame()
    with pytest.raises(ImportError, match="pandas"):
        Batch([]).frame("pandas")


def test_there_is_no_other_library() -> None:
    """A name that is misspelled is refused, with those that are not."""
    with pytest.raises(ValueError, match="'pandas' or 'polars'"):
        Batch([]).frame("arrow")  # type: ignore[call-overload]  # what mypy refuses, users without it pass


@pytest.mark.anyio
async def test_the_report_counts_the_batch(tmp_path: Path) -> None:
    """The page of the shell's ``--report``, of the same outcomes."""
    batch = await batch_of()
    batch.report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert "rejected" in page
    assert "WaitTimeoutError" in page
    assert "marker" not in page.lower()


@pytest.mark.anyio
async def test_a_batch_shows_its_counts() -> None:
    """In a line, or in a table; neither has ids or anything personal."""
    batch = await batch_of()
    assert repr(batch) == "<Batch: 4 jobs, 1 approved, 1 UserDisabledError, 1 WaitTimeoutError, 1 rejected>"
    assert repr(batch[:1]) == "<Batch: 1 job, 1 approved>"
    html = batch._repr_html_()
    assert "batch of 4" in html
    assert "\N{BALLOT X} rejected" in html
    assert "WaitTimeoutError" in html
    assert "marker" not in (html + repr(batch)).lower()
