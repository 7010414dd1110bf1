"""Tables for notebooks: what they show, and what they must not show."""

import re
from html.parser import HTMLParser
from typing import Protocol

import attrs
import pytest
from hypothesis import given, strategies

from smilejobs import (
    RESULT_CODES,
    ImageLink,
    ImageLinks,
    JobRef,
    JobResult,
    JobStatus,
    Outcome,
    PartnerParams,
    SmileJobsError,
    Verdict,
    WaitTimeoutError,
)
from smilejobs.model.codes import describe_result
from smilejobs.model.tables import BADGES, table, word

REF = JobRef("user-marker", "job-marker")


class Reader(HTMLParser):
    """Reads a table as a browser does, and counts the tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert {name for name, _ in attributes} <= {"scope", "style"}
        self.open.append(tag)
        self.tags.add(tag)
        if tag in ("caption", "th", "td"):
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts[-1] += data


class Shown(Protocol):
    def _repr_html_(self) -> str: ...


def read(value: Shown) -> list[str]:
    """Return the texts of the table of a value: caption, heading, content, heading, ..."""
    return Reader(value._repr_html_()).texts


def rows(value: Shown) -> dict[str, str]:
    _, *cells = read(value)
    return dict(zip(cells[::2], cells[1::2], strict=True))


def status(code: str | None = "0810", **fields: object) -> JobStatus:
    params = PartnerParams(user_id=REF.user_id, job_id=REF.job_id)
    result = JobResult(result_code=code, smile_job_id="0000004711", confidence_value=99.5, partner_params=params)
    answer = JobStatus(user_id=REF.user_id, job_id=REF.job_id, code="2302", job_complete=True, result=result)
    return attrs.evolve(answer, **fields)  # type: ignore[arg-type]  # mypy cannot see which fields these are


def test_an_answer_is_a_table() -> None:
    """It shows the tag of the job, the verdict, and the numbers that the vendor's support asks for."""
    assert read(status())[0] == f"job {REF.tag}"
    assert rows(status()) == {
        "verdict": "\N{CHECK MARK} approved",
        "final": "yes",
        "code": "2302: success",
        "result code": "0810: Document Verified",
        "SmileJobID": "0000004711",
    }
    asked = rows(status(image_links=ImageLinks(links={"selfie_image": ImageLink(url="x")}), history=(JobResult(),)))
    assert asked["image links"] == "1"
    assert asked["history"] == "1 of this user's results"


def test_a_pending_answer_says_so() -> None:
    """There is no verdict yet, and the table has no empty cells."""
    shown = rows(JobStatus(user_id="u", job_id="j"))
    assert shown["verdict"] == "\N{HORIZONTAL ELLIPSIS} pending"
    assert shown["final"] == "no"
    assert shown["code"] == shown["result code"] == "no code"
    assert shown["SmileJobID"] == "none"


def test_a_result_is_a_table() -> None:
    """It shows the meaning of its code, which alone is no verdict."""
    result = status("0814").result
    assert result is not None
    assert read(result)[0] == "result"
    assert rows(result) == {
        "result code": "0814: Provisional Enroll - Under Review",
        "by its code": "~ provisional",
        "final": "not said",
        "SmileJobID": "0000004711",
        "confidence": "99.5",
    }
    empty = rows(JobResult(is_final_result=False))
    assert empty["by its code"] == "? unknown"
    assert empty["final"] == "no"
    assert empty["confidence"] == empty["SmileJobID"] == "none"
    assert rows(JobResult(is_final_result=True))["final"] == "yes"


def test_an_outcome_is_a_table() -> None:
    """It shows the answer, or the error."""
    done = Outcome(index=3, ref=REF, status=status("0811"), polls=2, elapsed=1.25)
    assert read(done)[0] == f"job {REF.tag}, number 3"
    assert rows(done) == {
        "verdict": "\N{BALLOT X} rejected",
        "result code": "0811: Unable to Verify Document",
        "polls": "2",
        "seconds": "1.2",
    }
    without = Outcome(index=0, ref=REF, status=status(result=None), polls=1, elapsed=0.0)
    assert rows(without)["result code"] == "no code"
    error = WaitTimeoutError("a & b", ref=REF, last=None, last_error=None, polls=1, elapsed=1.0, age=1.0, timeout=1.0)
    failed = Outcome(index=0, ref=REF, error=error, polls=1, elapsed=1.0)
    assert rows(failed)["error"] == "WaitTimeoutError"
    assert rows(failed)["text"] == f"a & b [job {REF.tag}]"


def everywhere(text: str) -> JobStatus:
    """Return an answer with a text in every place where the API can write one."""
    params = PartnerParams(user_id=text, job_id=text, extra={text: text})
    words = {field.name: text for field in attrs.fields(JobResult) if field.type == str | None}
    result = JobResult(partner_params=params, actions={text: text}, raw={text: text}, **words)  # type: ignore[arg-type]  # mypy cannot see that words are for texts only
    links = ImageLinks(links={text: ImageLink(url=text)}, error=text)
    return JobStatus(
        user_id=REF.user_id,
        job_id=REF.job_id,
        job_complete=True,
        code=text,
        message=text,
        result=result,
        history=(result,),
        image_links=links,
        raw={text: text},
    )


HOSTILE = ["<script>alert(1)</script>", "Ada Example", "https://bucket.example/selfie.png?X-Amz-Signature=0", "marker"]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_personal_and_no_ids_and_no_links_are_shown(text: str) -> None:
    """For any text of the API in any place, so that a notebook can be shared."""
    answer = everywhere(text)
    assert answer.result is not None
    outcome = Outcome(index=0, ref=REF, status=answer, polls=1, elapsed=1.0)
    for value in (answer, answer.result, answer.history[0], outcome):
        shown = " ".join(read(value))
        assert text not in shown
        assert REF.user_id not in shown
        assert REF.job_id not in shown


@given(strategies.text())
def test_no_text_is_more_than_a_text(text: str) -> None:
    """An error text or a code is escaped: it creates no tag and is read back unchanged."""
    assert Reader(table(text, [(text, text)])).texts == [text] * 3
    failed = Outcome(index=0, ref=REF, error=SmileJobsError(text), polls=1, elapsed=1.0)
    result = everywhere(text).result
    assert result is not None
    for html in (everywhere(text)._repr_html_(), result._repr_html_(), failed._repr_html_()):
        assert Reader(html).tags <= {"table", "caption", "tbody", "tr", "th", "td", "span"}


def luminance(colour: str) -> float:
    """Return the relative luminance by WCAG 2."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("verdict", [*Verdict, None])
def test_a_verdict_can_be_read_on_any_ground_and_without_colours(verdict: Verdict | None) -> None:
    """White on the background has the contrast of WCAG AA; each verdict also has a word and a symbol."""
    sign, ground = BADGES[verdict]
    assert 1.05 / (luminance(ground) + 0.05) >= 4.5
    assert [other for other, (its, _) in BADGES.items() if its == sign] == [verdict]
    html = table("", [("", verdict)])
    assert re.search(f"background-color:{ground};color:#fff[^>]*>{re.escape(sign)} {word(verdict)}<", html)


def test_a_code_is_described_by_its_own_table() -> None:
    """A result code that looks like a status code does not get its meaning."""
    assert describe_result("0810") == f"0810: {RESULT_CODES['0810'].text}"
    assert describe_result("2302") == "2302: unknown code"
    assert describe_result("<b>") == "unknown code"
    assert describe_result(None) == "no code"


def test_plain_reprs_stay_one_line() -> None:
    """For terminals and logs."""
    outcome = Outcome(index=0, ref=REF, status=status(), polls=1, elapsed=1.0)
    for value in (status(), status().result, outcome):
        assert "\n" not in repr(value)
        assert "marker" not in repr(value)
