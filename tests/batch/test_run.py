"""A batch from rows to rows, by script, under the virtual clock; and what is told of an outcome."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve

from smilejobs import (
    ApiError,
    BadRequestError,
    CredentialsError,
    GatewayError,
    ImageError,
    ImageReason,
    JobNotFoundError,
    JobRef,
    JobStatus,
    Outcome,
    RateLimitedError,
    SavedImages,
    SignatureError,
    SmileJobsError,
    UserDisabledError,
)
from smilejobs.batch.extra import extra_columns
from smilejobs.batch.journal import Journal, is_settled
from smilejobs.batch.records import Ending, RowRecord, add_images, classify_error, make_record
from smilejobs.batch.rows import BadRow, Row
from smilejobs.batch.run import Run
from smilejobs.testing import Reply, Script, complete, pending, provisional, refused

pytestmark = pytest.mark.anyio


def row(index: int, **carried: object) -> Row:
    return Row(index=index, line=index + 2, ref=JobRef("user-1", f"job-{index}"), carried=carried)


async def run(
    path: Path,
    script: Script,
    rows: Iterable[Row | BadRow],
    *,
    resume: bool = False,
    bad: list[BadRow] | None = None,
    told: list[RowRecord] | None = None,
    history: bool = False,
    personal: bool = False,
    blocking: bool = False,
    save_images: Path | None = None,
    deadline: float | None = None,
) -> bool:
    told = [] if told is None else told
    bad = [] if bad is None else bad
    extra = extra_columns(history=history, personal=personal)
    journal = Journal(
        path,
        columns=("note",),
        extra=extra,
        resume=resume,
        keep=partial(is_settled, until="complete", images=save_images is not None),
        on_record=told.append,
    )
    async with script.client() as client:
        with journal:
            work = Run(
                client=client,
                journal=journal,
                timeout=60,
                until="complete",
                history=history,
                personal=personal,
                save_images=save_images,
                on_record=told.append,
                on_bad_row=bad.append,
                on_progress=lambda progress: None,
                deadline=deadline,
            )
            await work.wait(rows, blocking=blocking)
            return work.is_read


def text(path: Path) -> str:
    return path.read_text()


def remove(path: Path) -> None:
    path.unlink()


def written(path: Path) -> dict[int, Mapping[str, Any]]:
    rows = [json.loads(line) for line in text(path).splitlines()]
    assert len({found["index"] for found in rows}) == len(rows)
    return {found["index"]: found for found in rows}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


async def test_every_row_is_written_once(path: Path) -> None:
    """Whatever becomes of its job, with what it brought along; bad ones too."""
    bad = BadRow(index=1, line=3, reason="user_id must not be empty")
    script = Script(
        {
            "job-0": [pending(), complete("0811", SmileJobID="0000000007", ConfidenceValue="99")],
            "job-2": [refused("2307")],
            "job-3": itertools.repeat(pending()),
        }
    )
    told: list[RowRecord] = []
    seen: list[BadRow] = []
    await run(path, script, [row(0, note="a"), bad, row(2), row(3, note="b")], told=told, bad=seen)
    rows = written(path)
    assert seen == [bad]
    assert {each.index: each.outcome for each in told} == {
        0: Ending.COMPLETE,
        1: Ending.INVALID,
        2: Ending.REFUSED,
        3: Ending.PENDING,
    }
    assert {index: found["outcome"] for index, found in rows.items()} == {
        each.index: each.outcome.value for each in told
    }
    assert (
        rows[0].items()
        >= {
            "line": 2,
            "user_id": "user-1",
            "job_id": "job-0",
            "verdict": "rejected",
            "result_code": "0811",
            "confidence": 99.0,
            "smile_job_id": "0000000007",
            "polls": 2,
            "error": None,
            "note": "a",
        }.items()
    )
    assert rows[1]["error_text"] == "user_id must not be empty"
    assert (rows[2]["error"], rows[2]["code"]) == ("UserDisabledError", "2307")
    assert (rows[3]["error"], rows[3]["seconds"], rows[3]["note"]) == ("WaitTimeoutError", 60.0, "b")


async def test_a_batch_that_meets_its_deadline(path: Path) -> None:
    """What was read and is pending is written as pending; the rest of the input is not read."""
    jobs = 300
    script = Script({"job-0": [complete()], **{f"job-{n}": itertools.repeat(pending()) for n in range(1, jobs)}})
    is_read = await run(path, script, map(row, range(jobs)), deadline=0.5)
    rows = written(path)
    assert not is_read
    assert 1 < len(rows) < jobs
    assert [found["outcome"] for found in rows.values()].count("pending") == len(rows) - 1
    assert {found["error"] for found in rows.values() if found["polls"]} == {None, "WaitTimeoutError"}


async def test_a_bad_row_is_written_with_what_could_be_read(path: Path) -> None:
    """Its ids and the columns that it has brought along; when it has been mended, it is asked for."""
    carried = {"note": "a"}
    bad = BadRow(index=0, line=2, reason="job_id must not be empty", user_id="user-1", job_id="", carried=carried)
    await run(path, Script({}), [bad])
    found = written(path)[0]
    assert [found[name] for name in ("outcome", "user_id", "job_id", "note")] == ["invalid", "user-1", "", "a"]
    await run(path, Script({"job-0": [complete()]}), [row(0, note="b")], resume=True)
    found = written(path)[0]
    assert [found[name] for name in ("outcome", "user_id", "job_id", "note")] == ["complete", "user-1", "job-0", "b"]


async def test_the_index_is_that_of_the_input(path: Path) -> None:
    """Bad rows and those that are known shift nothing; the same job may come twice."""
    await run(path, Script({"job-0": [complete()]}), [row(0)])
    twice = Row(index=3, line=5, ref=JobRef("user-1", "job-2"), carried={"note": "again"})
    bad = BadRow(index=1, line=3, reason="x")
    await run(path, Script({"job-2": [complete()]}), [row(0), bad, row(2, note="once"), twice], resume=True)
    rows = written(path)
    assert {index: found.get("note") for index, found in rows.items()} == {0: None, 1: None, 2: "once", 3: "again"}
    assert [rows[index]["polls"] for index in (0, 2, 3)] == [1, 1, 1]


async def test_resuming_asks_for_what_is_not_final(path: Path) -> None:
    """A row that was pending, failed or bad is asked for again; one that is complete or refused is not."""
    script = Script(
        {
            "job-0": [complete()],
            "job-1": [refused("2307")],
            "job-2": itertools.repeat(pending()),
            "job-3": [Reply(body={"job_complete": True, "code": "2302", "signature": "forged"})],
        }
    )
    told: list[RowRecord] = []
    rows = [row(0), row(1), row(2), row(3)]
    await run(path, script, [*rows, BadRow(index=4, line=6, reason="x")], told=told)
    endings = {each.index: each.outcome for each in told}
    assert endings == {0: "complete", 1: "refused", 2: "pending", 3: "failed", 4: "invalid"}
    again = Script({"job-2": [complete()], "job-3": [complete()], "job-4": [complete()]})
    told = []
    await run(path, again, [*rows, row(4)], resume=True, told=told)
    assert {index: found["outcome"] for index, found in written(path).items()} == {
        0: "complete",
        1: "refused",
        2: "complete",
        3: "complete",
        4: "complete",
    }
    assert [each.index for each in told][:2] == [0, 1]
    assert len(told) == 5


async def test_a_batch_that_is_cancelled(path: Path) -> None:
    """What has been asked for and not answered is written as pending; what was not read, is not."""
    script = Script({f"job-{index}": itertools.repeat(pending()) for index in range(3)})

    def rows() -> Iterator[Row]:
        yield from map(row, range(3))
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="gone"):
        await run(path, script, rows())
    assert {index: found["outcome"] for index, found in written(path).items()} == dict.fromkeys(range(3), "pending")
    remove(path)
    with anyio.move_on_after(5):
        await run(path, script, map(row, range(3)))
    assert {index: found["outcome"] for index, found in written(path).items()} == dict.fromkeys(range(3), "pending")


async def test_wrong_credentials_end_the_batch(path: Path) -> None:
    """All rows that were read are there, and none of them is final."""
    script = Script({f"job-{index}": [refused("2305")] for index in range(2)})
    with pytest.raises(CredentialsError):
        await run(path, script, map(row, range(2)))
    assert sorted(found["outcome"] for found in written(path).values()) == ["failed", "pending"]


PERSONAL: dict[str, Any] = {"FullName": "Jane Doe", "DOB": "1990-01-01", "Photo": "base64", "Country": "NG"}


async def test_personal_data_on_request_only(path: Path) -> None:
    """Without pictures, in columns of their own; not in the history either."""
    script = {"job-0": [complete(**PERSONAL)], "job-1": [refused("2307")], "job-2": [Reply(body=NO_RESULT)]}
    await run(path, Script(script), map(row, range(3)))
    assert "Jane" not in text(path)
    remove(path)
    await run(path, Script(script), map(row, range(3)), personal=True)
    rows = written(path)
    assert (rows[0]["personal_full_name"], rows[0]["personal_dob"]) == ("Jane Doe", "1990-01-01")
    assert "personal_full_name" not in rows[1].keys() | rows[2].keys()
    assert "base64" not in text(path)
    assert "personal_photo" not in extra_columns(history=False, personal=True)


NO_RESULT = {"job_complete": True, "job_success": True, "code": "2302"}


@pytest.mark.parametrize("personal", [False, True])
async def test_history_on_request_only(path: Path, personal: bool) -> None:
    """It is asked for, and written; what it says about the person only if that is asked for too."""
    answer = complete()
    assert isinstance(answer.body, Mapping)
    body = {**answer.body, "history": [{"ResultCode": "0810", "FullName": "Jane Doe"}]}
    script = Script({"job-0": [Reply(body=body)]})
    await run(path, script, [row(0)], history=True, personal=personal)
    assert script.polls["job-0"][0].body["history"] is True
    (entry,) = written(path)[0]["history"]
    assert entry["result_code"] == "0810"
    assert ("Jane Doe" in text(path)) is personal


def test_what_an_error_means_for_a_row() -> None:
    """Only what the API says about the job or its user is for good; a wrong clock (2204) is a matter of the request."""
    errors: dict[SmileJobsError, Ending] = {
        JobNotFoundError("no"): Ending.REFUSED,
        UserDisabledError("no"): Ending.REFUSED,
        ApiError("no", code="2222"): Ending.REFUSED,
        ApiError("no", transient=True): Ending.FAILED,
        BadRequestError("no", code="2204"): Ending.FAILED,
        CredentialsError("no"): Ending.FAILED,
        RateLimitedError("no"): Ending.FAILED,
        SignatureError("no"): Ending.FAILED,
        GatewayError("no", wrong_url=True): Ending.FAILED,
    }
    assert {error: classify_error(error) for error in errors} == errors
    assert classify_error(None) is Ending.COMPLETE


async def test_a_row_of_a_timeout_has_the_last_answer(path: Path) -> None:
    """A provisional result, for one."""
    script = Script({"job-0": itertools.repeat(provisional())})
    async with script.client() as client, client.wait_many([("user-1", "job-0")], timeout=5, until="final") as outcomes:
        (record,) = [make_record(outcome) async for outcome in outcomes]
    assert (record.outcome, record.verdict, record.is_final) == ("pending", "provisional", False)
    assert record.code == "2302"
    assert "user-1" not in repr(record)


def image_error(reason: ImageReason, *others: ImageError, saved: int = 0) -> ImageError:
    return ImageError(f"of {reason}", reason=reason, others=others, saved=(Path("x"),) * saved)


@pytest.mark.parametrize(
    ("paths", "error", "expected"),
    [
        (2, None, (2, None, None)),
        (1, image_error("exists", saved=1), (2, None, None)),
        (0, image_error("missing"), (0, "missing", "of missing")),
        (1, image_error("oversized", image_error("exists"), saved=1), (2, "oversized", "of oversized")),
        (0, image_error("malformed", image_error("disk")), (0, "disk", "of disk (and 1 more)")),
        (0, ImageError("no", reason="missing", text="Failed to create links"), (0, "links", "no")),
    ],
)
def test_what_is_told_of_pictures(
    paths: int, error: ImageError | None, expected: tuple[int, str | None, str | None]
) -> None:
    """How many there are, those from before among them; and why not all, first what may pass."""
    status = JobStatus(user_id="u", job_id="j", job_complete=True)
    outcome = Outcome(index=0, ref=JobRef("u", "j"), status=status, polls=1, elapsed=0)
    known = make_record(outcome)
    record = add_images(known, SavedImages(outcome=outcome, paths=(Path("x"),) * paths, error=error))
    assert (record.images, record.images_error, record.images_error_text) == expected
    assert evolve(record, images=None, images_error=None, images_error_text=None) == known


def test_nothing_is_told_of_the_pictures_of_a_job_that_has_none_yet() -> None:
    """Nobody has asked for them."""
    error = SignatureError("no")
    outcome = Outcome(index=0, ref=JobRef("u", "j"), error=error, polls=1, elapsed=0)
    known = make_record(outcome)
    assert add_images(known, SavedImages(outcome=outcome, error=error)) == known


def test_an_outcome_without_anything_known() -> None:
    """Nothing is made up."""
    outcome = Outcome(index=7, ref=JobRef("u", "j"), error=SignatureError("no"), polls=1, elapsed=0.12345)
    assert make_record(outcome) == RowRecord(
        index=7,
        user_id="u",
        job_id="j",
        outcome=Ending.FAILED,
        polls=1,
        seconds=0.123,
        error="SignatureError",
        error_text="no",
    )
    status = JobStatus(user_id="u", job_id="j", job_complete=True)
    known = make_record(Outcome(index=7, ref=JobRef("u", "j"), status=status, polls=1, elapsed=0), index=9, line=11)
    assert (known.index, known.line, known.verdict, known.code) == (9, 11, "unknown", None)
