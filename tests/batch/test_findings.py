"""What results files say about paces: what is read, what is said, and the page."""

import csv
import io
import json
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from smilejobs import Pace
from smilejobs.batch.chart import Axis
from smilejobs.batch.findings import Findings
from smilejobs.batch.pace_page import render_pace_page, write_pace_page
from smilejobs.batch.waits import Results
from smilejobs.polling.comparison import poll_ages
from tests.batch.test_report import Page

Row = Mapping[str, Any]

SUBMITTED = "2026-03-02T10:20:30Z"


def row(**changes: Any) -> Row:
    return {
        "user_id": "user-secret",
        "job_id": "job-secret",
        "submitted_at": SUBMITTED,
        "outcome": "complete",
        "pending_age": 3.0,
        "end_age": 4.0,
        "personal_full_name": "Jane Doe",
        **changes,
    }


def rows(count: int = 60, median: float = 5.0) -> list[Row]:
    """Rows of jobs that were polled by ``Pace()``."""
    random.seed(1)
    found: list[Row] = []
    for _ in range(count):
        duration = median * random.lognormvariate(0, 0.5)
        pending_age: float | None = None
        age = 0.0
        for age in poll_ages(Pace()):
            if age >= duration:
                break
            pending_age = age
        found.append(row(pending_age=pending_age, end_age=age))
    return found


def as_json(found: Sequence[Row]) -> str:
    return "".join(f"{json.dumps(each)}\n" for each in found)


def as_csv(found: Sequence[Row]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*found[0]], delimiter=";")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def read(*texts: str) -> Results:
    results = Results()
    for number, text in enumerate(texts):
        results.read(io.StringIO(text, newline=""), f"results-{number}.csv")
    return results


def sentences(results: Results) -> str:
    findings = Findings.of(results)
    return " ".join([findings.summary(), *findings.advice(), *findings.exactness()]).replace("\u00a0", " ")


@pytest.mark.parametrize("write", [as_json, as_csv])
def test_what_a_row_says(write: Any) -> None:
    """Complete and pending jobs are used; all others are counted by what keeps them from being used."""
    text = write(
        [
            row(),
            row(pending_age=None, end_age=4.0),
            row(submitted_at=None),
            row(outcome="pending", pending_age=3.0),
            row(outcome="pending", pending_age=None, end_age=7.0),
            row(submitted_at=None, pending_age=None, end_age=4.0),
            row(outcome="failed"),
            row(outcome="refused"),
            row(outcome="invalid"),
            row(outcome="invalid", job_id=None),
            row(pending_age=None, end_age=None),
        ]
    )
    results = read(text)
    assert (results.rows, results.of_unknown_age) == (11, 1)
    assert (results.waits.complete, results.waits.pending, results.waits.at_once) == (3, 1, 1)
    assert (results.without_answer, results.complete_at_once) == (1, 1)
    assert (results.ended_otherwise, results.without_ages) == (4, 1)


def test_several_files_are_one_set_of_jobs() -> None:
    """Of one form or another, with their columns in any order."""
    found = rows()
    together = Findings.of(read(as_json(found)))
    apart = Findings.of(
        read(as_csv(found[:20]), as_json([{name: each[name] for name in reversed([*each])} for each in found[20:]]))
    )
    assert together.as_dict() == apart.as_dict()


BAD: Sequence[tuple[Row, str]] = (
    (row(end_age="soon"), "end_age must be a number of seconds, at least 0"),
    (row(pending_age="nan"), "pending_age must be a number of seconds, at least 0"),
    (row(pending_age="-1"), "pending_age must be a number of seconds, at least 0"),
    (row(end_age="1e999"), "end_age must be a number of seconds, at least 0"),
    (row(end_age=2.0), "end_age is less than pending_age"),
    (row(outcome="approved"), "outcome must be one of complete, pending, refused, failed, invalid"),
    (row(outcome=""), "outcome must be one of complete, pending, refused, failed, invalid"),
    (row(job_id=""), "job_id"),
    (row(submitted_at="yesterday"), "submitted_at must be an instant"),
)


@pytest.mark.parametrize("write", [as_json, as_csv])
@pytest.mark.parametrize(("bad", "words"), BAD, ids=[words for _, words in BAD])
def test_a_row_that_cannot_be_read(write: Any, bad: Row, words: str) -> None:
    """The error names file and line, and repeats nothing of the row."""
    with pytest.raises(ValueError, match=f"^results-0.csv, line {3 if write is as_csv else 2}: ") as raised:
        read(write([row(), bad]))
    assert words in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(("bad", "words"), [(True, "end_age must"), ([4], "end_age must"), (10**400, "end_age must")])
def test_values_of_json_that_are_no_ages(bad: object, words: str) -> None:
    """Neither a truth value nor a list, nor a number that is too large."""
    with pytest.raises(ValueError, match=words):
        read(as_json([row(end_age=bad)]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "results-0.csv is empty"),
        ("user_id,job_id\nu,j\n", "results-0.csv is not a results file of smilejobs batch: it has no column outcome"),
        ("user_id,job_id,outcome\nu,j,complete\n", "results-0.csv has no column pending_age and no column end_age"),
        ("user_id,job_id,outcome,end_age\nu,j,complete,1\n", "results-0.csv has no column pending_age; results of"),
        ('{"user_id": "u", "job_id": "j", "outcome": "complete"}\n', "results-0.csv has no column pending_age and no"),
        ('{"user_id": "u", "job_id": "j"}\n', "results-0.csv, line 1: outcome must be one of"),
    ],
)
def test_files_that_are_no_results(text: str, words: str) -> None:
    """The error says which file, and what is missing."""
    with pytest.raises(ValueError, match="results-0.csv") as raised:
        read(text)
    assert words in str(raised.value)


def test_too_few_rows() -> None:
    """The error says how many there are, and why the others are not used."""
    with pytest.raises(ValueError, match="too few complete jobs of known duration") as raised:
        Findings.of(read(as_csv([row(), row(), row(outcome="failed")])))
    assert "2 jobs of 3 rows; at least 10 are needed; 1 row: refused, failed or invalid" in str(raised.value)
    with pytest.raises(ValueError, match="0 jobs of 0 rows"):
        Findings.of(read("user_id,job_id,outcome,pending_age,end_age\n"))


def test_what_is_said() -> None:
    """The paces are compared with the default; how exact that is comes after it."""
    findings = Findings.of(read(as_csv(rows(400))))
    (first, *_, last) = findings.costs()
    assert (first[0], last[0]) == ("Pace()", findings.setting)
    assert [share for share, _ in findings.durations()] == ["50\u00a0%", "90\u00a0%", "99\u00a0%"]
    learned, by_hand, *_ = findings.advice()
    assert learned.startswith("The learned pace: ")
    assert "fewer polls than Pace()" in learned
    assert by_hand.startswith("By hand, Pace(")
    assert "lies" not in (text := sentences(read(as_csv(rows(400)))))
    assert "A duration is known only to lie between two polls: to within 1.0" in text
    for rare in ("Fewer than 50", "The first answer was complete", "An estimated", "without submitted_at", "not used"):
        assert rare not in text


def test_what_makes_figures_less_exact_is_said() -> None:
    """Few jobs, ages that are not known, rows that are not used, jobs that took longer than any that was seen."""
    found = [
        *rows(12),
        *[row(outcome="pending", pending_age=99.0, end_age=100.0)] * 6,
        row(outcome="refused"),
        row(submitted_at=None),
        *[row(pending_age=None)] * 20,
    ]
    text = sentences(read(as_csv(found)))
    assert "39 rows" not in text
    assert "40 rows: 33 complete, 6 pending at the end." in text
    assert "Fewer than 50 complete jobs: the figures are rough, and Pace() is as good." in text
    assert "The first answer was complete for 20 of them" in text
    assert "of the jobs took longer than" in text
    assert "1 row without submitted_at: the ages count from the first poll" in text
    assert "1 row not used: refused, failed or invalid." in text


def test_paces_that_cost_the_same() -> None:
    """Jobs that are complete before the second poll of any pace, of which the first comes too early."""
    findings = Findings.of(read(as_csv([row(pending_age=None, end_age=0.02)] * 60)))
    learned, by_hand, *_ = findings.advice()
    assert learned.startswith("The learned pace: as many polls as Pace(), ")
    assert by_hand.replace("\u00a0", " ").endswith(
        "first_after=1: 50 % fewer polls than Pace(), the same mean lateness."
    )


def test_the_facts_as_json() -> None:
    """What is not known is None; there is nothing personal."""
    findings = Findings.of(read(as_csv([*rows(), *[row(outcome="pending", pending_age=500.0, end_age=501.0)] * 30])))
    facts = json.loads(json.dumps(findings.as_dict()))
    assert (facts["rows"], facts["complete"], facts["pending"]) == (90, 60, 30)
    assert facts["durations"]["p99"] is None
    assert 0.2 < facts["longer_than_all_seen"] < 0.4
    assert {*facts["costs"]} == {"default", "learned", "by_hand"}
    assert {"first_after", "fraction", "max", "polls", "mean_lateness", "p99_lateness"} == {*facts["costs"]["by_hand"]}
    assert "secret" not in json.dumps(facts)


def test_the_page() -> None:
    """Three charts that a screen reader reads as a sentence and a table; nothing personal, no script, no network."""
    html = render_pace_page(Findings.of(read(as_csv(rows()))))
    page = Page(html)
    assert [*page.sections] == [
        "How long the jobs took",
        "What paces cost",
        "What to do",
        "How exact this is",
        "When jobs become complete",
        "When to poll",
        "How late results are seen",
    ]
    charts = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert [chart["role"] for chart in charts] == ["img"] * 3
    for chart in charts:
        assert (chart["aria-label"] or "") in html
    for title in [*page.sections][4:]:
        assert len(page.sections[title]) > 20
    assert {"script", "img", "link"}.isdisjoint(tag for tag, _ in page.tags)
    for secret in ("secret", "Jane", "nan", "inf<"):
        assert secret not in html


@pytest.mark.parametrize("median", [0.01, 5.0, 1200.0, 86_400.0])
def test_the_page_of_jobs_of_any_length(median: float) -> None:
    """All that is drawn is within the charts."""
    html = render_pace_page(Findings.of(read(as_csv(rows(20, median)))))
    for tag, attributes in Page(html).tags:
        if tag == "circle":
            assert 62 <= float(attributes["cx"] or "") <= 380
            assert 10 <= float(attributes["cy"] or "") <= 208


def test_the_file_of_the_page(tmp_path: Path) -> None:
    """Its owner alone can read it."""
    findings = Findings.of(read(as_csv(rows())))
    write_pace_page(findings, tmp_path / "pace.html")
    assert (tmp_path / "pace.html").read_text("utf-8") == render_pace_page(findings)
    if os.name != "nt":
        assert (tmp_path / "pace.html").stat().st_mode & 0o777 == 0o600


def test_ticks_that_would_overlap_are_left_out() -> None:
    """Those too near to the one before, and those beyond the ends; values beyond the ends are drawn at the ends."""
    axis = Axis("x", 0.0, 10.0, [(-1.0, "a"), (0.0, "b"), (1.0, "c"), (5.0, "d"), (11.0, "e")])
    assert axis.places() == [(0.0, "b"), (0.5, "d")]
    assert (axis.place(-5), axis.place(20)) == (0, 1)
