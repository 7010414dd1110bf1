"""Jobs, answers and results: what follows from an answer of the API."""

import copy
import json
import pickle
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest

from smilejobs import (
    RESULT_CODES,
    ImageLink,
    ImageLinks,
    JobRef,
    JobResult,
    JobStatus,
    NotApprovedError,
    PartnerParams,
    Verdict,
)
from tests.helpers.bodies import PERSONAL, REF, sigv4_url

THIS_JOB = PartnerParams(user_id=REF.user_id, job_id=REF.job_id, job_type=1)
CODES = [*RESULT_CODES, "0840", "9999", "", None]


def status(
    code: str | None = "0810",
    *,
    complete: bool = True,
    success: bool | None = True,
    final: bool | None = True,
    params: PartnerParams | None = THIS_JOB,
) -> JobStatus:
    outcome = JobResult(result_code=code, is_final_result=final, partner_params=params)
    return JobStatus(
        user_id=REF.user_id, job_id=REF.job_id, job_complete=complete, job_success=success, code="2302", result=outcome
    )


# The ref


def test_a_ref_is_its_two_ids() -> None:
    """Refs are equal, and have equal hashes, if their ids are equal; the time of submission does not count."""
    dated = JobRef("u", "j", datetime(2026, 1, 1, tzinfo=UTC))
    assert dated == JobRef("u", "j")
    assert len({dated, JobRef("u", "j"), JobRef("j", "u")}) == 2


def test_a_tag_stands_for_the_ids() -> None:
    """It is 8 hexadecimal characters, the same for the same ids, and all that a repr shows."""
    tag = REF.tag
    assert len(tag) == 8
    assert int(tag, 16) >= 0
    assert tag == JobRef(REF.user_id, REF.job_id).tag
    assert (
        len({tag, JobRef(REF.job_id, REF.user_id).tag, JobRef("x", REF.job_id).tag, JobRef(REF.user_id, "x").tag}) == 4
    )
    assert repr(REF) == str(REF) == f"<JobRef {tag}>"


@pytest.mark.parametrize("value", [None, 5, True, b"job", ["job"]])
def test_ids_are_strings(value: Any) -> None:
    """Any other type is a TypeError that names the argument."""
    with pytest.raises(TypeError, match="^user_id must be a string, not"):
        JobRef(value, "j")
    with pytest.raises(TypeError, match="^job_id must be a string, not"):
        JobRef("u", value)


@pytest.mark.parametrize("value", ["", " ", "\t\n"])
def test_ids_are_not_empty(value: str) -> None:
    """An empty id, or only white space, is a ValueError that names the argument."""
    with pytest.raises(ValueError, match="^user_id must not be empty"):
        JobRef(value, "j")
    with pytest.raises(ValueError, match="^job_id must not be empty"):
        JobRef("u", value)


def test_ids_can_be_sent() -> None:
    """An id may hold any character, but not half a surrogate pair; the error does not repeat the id."""
    assert JobRef("Zoë\U0001f642", "ÿ").user_id == "Zoë\U0001f642"
    with pytest.raises(ValueError, match="^job_id .*surrogate") as caught:
        JobRef("u", "marker\udc80")
    assert "marker" not in str(caught.value)


def test_the_time_of_submission_is_aware() -> None:
    """A naive datetime is a ValueError, anything else a TypeError; both name the argument."""
    assert JobRef("u", "j", datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))).submitted_at is not None
    with pytest.raises(ValueError, match="^submitted_at must be timezone-aware"):
        JobRef("u", "j", datetime(2026, 1, 1))
    for value in (date(2026, 1, 1), "2026-01-01", 1_700_000_000):
        with pytest.raises(TypeError, match=f"^submitted_at must be a datetime, not {type(value).__name__}$"):
            JobRef("u", "j", value)  # type: ignore[arg-type]  # only a datetime will do


# The verdict


@pytest.mark.parametrize("code", CODES)
def test_a_job_that_is_not_complete_has_no_verdict(code: str | None) -> None:
    """Whatever the result says, the verdict is None and the outcome not final until the job is complete."""
    assert status(code, complete=False).verdict is None
    assert not status(code, complete=False).is_final


@pytest.mark.parametrize(("code", "row"), RESULT_CODES.items())
def test_the_result_code_decides(code: str, row: Any) -> None:
    """If nothing contradicts it, the verdict is that of the table."""
    assert status(code).verdict is row.verdict


@pytest.mark.parametrize("code", ["0840", "9999", "810", " 0810", "", None])
def test_codes_that_are_in_no_table_are_unknown(code: str | None) -> None:
    """They are never approved, even if job_success is true."""
    assert status(code).verdict is Verdict.UNKNOWN


def test_complete_without_a_result_is_unknown() -> None:
    """The verdict is unknown, not None."""
    bare = JobStatus(user_id="u", job_id="j", job_complete=True, job_success=True)
    assert bare.verdict is Verdict.UNKNOWN
    assert bare.is_final


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("success", [True, False, None])
def test_what_is_not_final_is_provisional_only_where_it_would_be_approved(
    code: str | None, success: bool | None
) -> None:
    """IsFinalResult false turns an approval into a provisional one, changes no other verdict, and is never final."""
    before, after = status(code, success=success).verdict, status(code, success=success, final=False).verdict
    if before is Verdict.APPROVED:
        assert after is Verdict.PROVISIONAL
    elif success is not False:
        assert after is before
    assert after is not Verdict.APPROVED
    assert not status(code, success=success, final=False).is_final


@pytest.mark.parametrize("code", CODES)
def test_an_approval_without_success_is_unknown(code: str | None) -> None:
    """job_success false contradicts an approving code; it says nothing about any other."""
    verdict = status(code).verdict
    expected = Verdict.UNKNOWN if verdict is Verdict.APPROVED else verdict
    assert status(code, success=False).verdict is expected
    assert status(code, success=None).verdict is verdict


@pytest.mark.parametrize(
    "params",
    [
        None,
        PartnerParams(),
        PartnerParams(user_id=REF.user_id),
        PartnerParams(job_id=REF.job_id),
        PartnerParams(user_id=REF.user_id, job_id="another"),
        PartnerParams(user_id="another", job_id=REF.job_id),
        PartnerParams(user_id=REF.job_id, job_id=REF.user_id),
    ],
)
@pytest.mark.parametrize("final", [True, False, None])
@pytest.mark.parametrize("code", CODES)
def test_a_verdict_names_this_job(code: str | None, final: bool | None, params: PartnerParams | None) -> None:
    """Without PartnerParams that name the job there is no verdict but error and unknown, in either direction."""
    verdict = status(code, final=final).verdict
    expected = verdict if verdict is Verdict.ERROR else Verdict.UNKNOWN
    assert status(code, final=final, params=params).verdict is expected


@pytest.mark.parametrize("final", [True, False, None])
@pytest.mark.parametrize("code", CODES)
def test_what_is_final_does_not_hang_on_the_names(code: str | None, final: bool | None) -> None:
    """A provisional code is not final, although its verdict is unknown because the result names no job."""
    assert status(code, final=final, params=None).is_final is status(code, final=final).is_final
    assert not status("0814", final=final, params=None).is_final


def test_neither_actions_nor_history_decide() -> None:
    """All actions passed and an approved history do not turn a rejection into anything else."""
    approved = JobResult(result_code="0810", partner_params=THIS_JOB, is_final_result=True)
    outcome = attrs.evolve(approved, result_code="0812", actions={"Verify_Document": "Passed"})
    rejected = attrs.evolve(status(), result=outcome, history=(approved,))
    assert rejected.verdict is Verdict.REJECTED
    assert attrs.evolve(rejected, result=None).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("code", "final", "expected"),
    [
        ("0810", True, True),
        ("0810", None, True),
        ("0810", False, False),
        ("0814", None, False),
        ("0814", True, False),
        ("0811", None, True),
        ("0811", False, False),
        ("0840", True, True),
        (None, None, True),
    ],
)
def test_final_is_complete_not_provisional_and_not_said_to_be_otherwise(
    code: str | None, final: bool | None, expected: bool
) -> None:
    """An absent IsFinalResult counts as final, a provisional verdict never does."""
    assert status(code, final=final).is_final is expected


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("complete", [True, False])
def test_raising_is_for_everything_but_approved(code: str | None, complete: bool) -> None:
    """It raises for every verdict but "approved", and for a job that is not complete."""
    answer = status(code, complete=complete)
    if answer.verdict is Verdict.APPROVED:
        answer.raise_for_verdict()
        return
    with pytest.raises(NotApprovedError) as caught:
        answer.raise_for_verdict()
    assert (caught.value.status, caught.value.ref, caught.value.code) == (answer, REF, "2302")
    assert ("pending" if answer.verdict is None else answer.verdict.value) in str(caught.value)


# Values


def full() -> JobStatus:
    """Return an answer with a value in every field."""
    params = PartnerParams(
        user_id=REF.user_id, job_id=REF.job_id, job_type=1, extra={"note": ["extra-marker", 1.5, None]}
    )
    outcome = JobResult(
        result_code="0810",
        result_text="text-marker",
        result_type="SAIA",
        smile_job_id="0000004711",
        partner_params=params,
        confidence_value=99.5,
        actions={"Liveness_Check": "Passed"},
        is_final_result=True,
        is_machine_result=False,
        raw={"raw-marker": "raw-marker"},
        **{name: f"personal-marker {name}" for name in PERSONAL},
    )
    return JobStatus(
        user_id=REF.user_id,
        job_id=REF.job_id,
        job_complete=True,
        job_success=True,
        code="2302",
        message="message-marker",
        result=outcome,
        history=(outcome, JobResult()),
        image_links=ImageLinks(
            links={"selfie_image": ImageLink(url=sigv4_url()), "b": ImageLink(url="https://bucket.example/b")},
            error="error-marker",
        ),
        receipt=ImageLink(url="https://bucket.example/receipt?signature=marker"),
        timestamp=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
        retry_after=3.0,
        raw={"raw-marker": "raw-marker"},
    )


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("personal", [True, False])
def test_the_way_out_to_json_holds_secrets_on_request_only(personal: bool, links: bool) -> None:
    """as_dict can be dumped, with and without personal data and links, and never holds the raw body."""
    dumped = json.dumps(full().as_dict(personal=personal, links=links), allow_nan=False)
    assert ("personal-marker" in dumped) is personal
    assert ("extra-marker" in dumped) is personal
    assert ("bucket.example" in dumped) is links
    assert ("bucket.example/receipt" in dumped) is links
    assert "raw-marker" not in dumped


def test_the_way_out_to_json_is_complete() -> None:
    """Every value of the answer is there, dates as ISO 8601, the verdict as its word."""
    out = full().as_dict(personal=True, links=True)
    outcome: Any = out["result"]
    assert {name: outcome[name] for name in PERSONAL} == {name: f"personal-marker {name}" for name in PERSONAL}
    assert outcome["actions"] == {"Liveness_Check": "Passed"}
    assert outcome["confidence_value"] == 99.5
    assert outcome["partner_params"] == {
        "user_id": REF.user_id,
        "job_id": REF.job_id,
        "job_type": 1,
        "extra": {"note": ["extra-marker", 1.5, None]},
    }
    result = full().result
    assert result is not None
    assert outcome == result.as_dict(personal=True)
    assert out["image_links"] == {
        "error": "error-marker",
        "selfie_image": {"url": sigv4_url(), "expires_at": "2026-03-04T05:21:07+00:00"},
        "b": {"url": "https://bucket.example/b", "expires_at": None},
    }
    assert out["receipt"] == {"url": "https://bucket.example/receipt?signature=marker", "expires_at": None}
    assert (out["verdict"], out["is_final"], out["timestamp"]) == ("approved", True, "2026-03-04T05:06:07+00:00")
    assert (out["user_id"], out["job_id"], out["code"], out["message"]) == (
        REF.user_id,
        REF.job_id,
        "2302",
        "message-marker",
    )
    assert (out["job_complete"], out["job_success"]) == (True, True)
    history: Any = out["history"]
    assert history == [outcome, JobResult().as_dict(personal=True)]
    assert list(outcome)[-2:] == ["actions", "partner_params"]


def test_an_empty_answer_can_be_dumped_too() -> None:
    """Missing values are null or empty."""
    out = JobStatus(user_id="u", job_id="j").as_dict()
    assert json.loads(json.dumps(out)) == {
        "user_id": "u",
        "job_id": "j",
        "job_complete": False,
        "job_success": None,
        "code": None,
        "message": None,
        "verdict": None,
        "is_final": False,
        "timestamp": None,
        "result": None,
        "history": [],
        "image_links": None,
        "receipt": None,
    }


def test_every_field_is_personal_or_shown() -> None:
    """as_dict has every field of the result, always or with personal=True."""
    names = {attribute.name for attribute in attrs.fields(JobResult)} - {"raw"}
    assert set(JobResult().as_dict(personal=True)) == names
    assert set(JobResult().as_dict()) == names - PERSONAL.keys()


def test_reprs_tell_the_job_by_its_tag_and_the_vendors_number() -> None:
    """The tag and the SmileJobID identify the job; nothing personal is shown."""
    answer = full()
    shown = f"{answer!r} {answer} {answer.result!r} {answer.result} {answer.history} {answer.image_links!r}"
    shown += repr(answer.result and answer.result.partner_params) + repr(answer.receipt) + answer._repr_html_()
    assert REF.tag in repr(answer)
    assert "0000004711" in repr(answer)
    assert "approved" in repr(answer)
    assert "pending" in repr(JobStatus(user_id="u", job_id="j"))
    for secret in ("marker", REF.user_id, REF.job_id, "bucket.example"):
        assert secret not in shown


def test_the_raw_body_makes_no_difference() -> None:
    """Two answers with the same values are equal, whatever their raw bodies hold."""
    answer = full()
    assert answer.result is not None
    other = attrs.evolve(answer, raw={}, retry_after=None, result=attrs.evolve(answer.result, raw={}))
    assert other == answer
    assert attrs.evolve(answer, message="another") != answer


@pytest.mark.parametrize(
    "value", [REF, THIS_JOB, status().result, status(), full()], ids=lambda value: type(value).__name__
)
def test_values_cannot_be_changed_but_copied_and_pickled(value: Any) -> None:
    """They are frozen, have no dict, and survive copying and pickling."""
    assert copy.copy(value) == copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value
    assert not hasattr(value, "__dict__")
    with pytest.raises(AttributeError):
        value.user_id = "other"


@pytest.mark.parametrize("cls", [PartnerParams, JobResult, JobStatus, ImageLink, ImageLinks])
def test_answers_are_made_with_keywords(cls: Any) -> None:
    """Fields may be added at any place later, so positions have no meaning."""
    with pytest.raises(TypeError, match="positional argument"):
        cls("x")


def test_an_answer_knows_its_job() -> None:
    """The ref of an answer is the job that was polled."""
    assert status().ref == REF
