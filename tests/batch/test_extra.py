"""The columns that a results file has on request."""

import json
from collections.abc import Mapping

from smilejobs import JobResult, JobStatus
from smilejobs.batch.extra import extra_columns, extra_of

PICTURE = "iVBORw0KGgo" * 10
PERSON = JobResult(result_code="0810", full_name="Jane Doe", dob="1990-01-01", photo=PICTURE, document=PICTURE)
STATUS = JobStatus(user_id="u", job_id="j", job_complete=True, result=PERSON, history=(PERSON, JobResult()))


def history(*, personal: bool) -> list[Mapping[str, object]]:
    found = extra_of(STATUS, history=True, personal=personal)["history"]
    assert isinstance(found, list)
    return found


def test_pictures_are_nowhere() -> None:
    """Neither in the columns nor in the history, however much else is wanted."""
    columns = extra_columns(history=True, personal=True)
    extra = extra_of(STATUS, history=True, personal=True)
    assert set(extra) == set(columns)
    assert PICTURE not in json.dumps(extra)
    assert (extra["personal_full_name"], extra["personal_dob"]) == ("Jane Doe", "1990-01-01")
    assert [entry["full_name"] for entry in history(personal=True)] == ["Jane Doe", None]
    for name in ("photo", "document"):
        assert f"personal_{name}" not in columns
        assert name not in history(personal=True)[0]


def test_the_history_says_nothing_about_the_person_unless_that_is_wanted() -> None:
    """It is what the columns are."""
    assert history(personal=False) == [PERSON.as_dict(), JobResult().as_dict()]
    assert "Jane" not in json.dumps(history(personal=False))


def test_the_columns_on_request() -> None:
    """None if none are; each kind alone."""
    assert extra_columns(history=False, personal=False) == ()
    assert extra_columns(history=True, personal=False) == ("history",)
    assert all(name.startswith("personal_") for name in extra_columns(history=False, personal=True))
    assert extra_of(STATUS, history=False, personal=False) == {}


def test_what_is_not_there_is_not_made_up() -> None:
    """An answer without a result, or none at all."""
    assert extra_of(None, history=True, personal=True) == {}
    assert extra_of(JobStatus(user_id="u", job_id="j"), history=True, personal=True) == {"history": []}
