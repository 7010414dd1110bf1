"""The page about a batch."""

import tracemalloc
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from attrs import evolve

from smilejobs import JobRef, JobStatus, Outcome, WaitTimeoutError
from smilejobs.batch.page import COLOURS, Bar, render_section
from smilejobs.batch.records import WORDS, Ending, RowRecord
from smilejobs.batch.report import Report
from smilejobs.model.jobs import JobResult, PartnerParams

REF = JobRef("user-secret", "job-secret")


class Page(HTMLParser):
    """The text of each section, and every tag that there is."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sections: dict[str, list[str]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._texts: list[str] = []
        self._in_style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_style = tag == "style"
        if tag == "section":
            self._texts = []

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False
        if tag == "section":
            self.sections[self._texts[0]] = self._texts[1:]

    def handle_data(self, data: str) -> None:
        if data.strip() and not self._in_style:
            self._texts.append(data)


def outcome(index: int = 0, **changes: Any) -> Outcome:
    params = PartnerParams(user_id=REF.user_id, job_id=REF.job_id)
    result = JobResult(result_code="0810", smile_job_id="0000000042", full_name="Jane Doe", partner_params=params)
    status = JobStatus(user_id=REF.user_id, job_id=REF.job_id, job_complete=True, code="2302", result=result)
    return evolve(Outcome(index=index, ref=REF, status=status, polls=3, elapsed=42.0), **changes)


def record(**changes: Any) -> RowRecord:
    return evolve(RowRecord(index=0, outcome=Ending.COMPLETE, verdict="approved", polls=1, seconds=1.0), **changes)


def page(*records: RowRecord, **settings: object) -> Page:
    report = Report(settings)
    for each in records:
        report.add_record(each)
    return Page(report.html())


def test_a_page_about_outcomes(tmp_path: Path) -> None:
    """It is written to a file, and names no person and no id."""
    report = Report({"timeout": "10m", "input": "<in>.csv"})
    report.add(outcome())
    timeout = WaitTimeoutError(
        "over", ref=REF, last=None, last_error=None, polls=9, elapsed=600.0, age=600.0, timeout=600.0
    )
    report.add(outcome(1, status=None, error=timeout, polls=9, elapsed=600.0))
    report.write(tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text("utf-8")
    sections = Page(html).sections
    assert "2 rows, 1 complete." in html
    assert sections["Result codes"][-3:] == ["0810", "Document Verified (approved)", "1"]
    assert sections["Errors"][-3:] == ["pending", "1", "WaitTimeoutError"]
    assert sections["Slowest"][6:] == [
        *("1", "10\u00a0min", "9", "pending", REF.tag),
        *("0", "42\u00a0s", "3", "approved", "0000000042", REF.tag),
    ]
    assert sections["Settings"][2:] == ["timeout", "10m", "input", "<in>.csv"]
    for secret in ("user-secret", "job-secret", "Jane", "<in>"):
        assert secret not in html


def test_missing_pictures_are_errors() -> None:
    """By their reasons, though the jobs are complete."""
    lacking = record(images=0, images_error="disk", images_error_text="of user-1")
    made = page(lacking, lacking, record(images=2))
    assert made.sections["Errors"] == ["outcome", "rows", "error", "code", "complete", "2", "ImageError: disk"]
    assert made.sections["Outcomes"] == ["outcome", "rows", "approved", "3"]


def test_nothing_on_the_page_is_fetched_or_run() -> None:
    """The page has no script, link or address, and a policy that forbids them."""
    report = Report()
    for index in range(30):
        report.add(outcome(index))
    html = report.html()
    tags = Page(html).tags
    assert {tag for tag, _ in tags} & {"script", "link", "img", "a", "iframe", "image", "use"} == set()
    assert not [name for _, attributes in tags for name in attributes if name.startswith(("on", "href", "src"))]
    assert "://" not in html
    assert "<!--" not in html
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}) in tags
    assert "url(" not in html
    assert "@import" not in html


POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def test_an_empty_page() -> None:
    """A batch without rows is no error."""
    found = page()
    assert found.sections == {
        name: ["None."]
        for name in ("Outcomes", "Result codes", "Time to completion", "Polls per job", "Errors", "Slowest")
    }
    assert "table" not in {tag for tag, _ in found.tags}


def test_the_histograms() -> None:
    """From the first bar that is not empty to the last; only complete jobs have a time to completion."""
    found = page(
        record(seconds=0.5, polls=1),
        record(seconds=3.0, polls=7),
        record(seconds=200_000.0, polls=101),
        record(seconds=2000.0, polls=8, outcome=Ending.PENDING, verdict=None),
        record(seconds=None, polls=None, outcome=Ending.INVALID, verdict=None),
    )
    times = found.sections["Time to completion"]
    assert {"under 1 s", "1 s to 2 s", "30 s to 1 min", "6 h to 1 d", "1 d or more"} < {
        text.replace("\u00a0", " ") for text in times
    }
    assert times.count("1") == 3
    assert {"1", "2", "6 to 8", "9 to 12", "101 or more"} < set(found.sections["Polls per job"])
    narrow = page(record(seconds=3.0), record(seconds=7.0)).sections["Time to completion"]
    assert [text for text in narrow if " to " in text] == ["2\u00a0s to 5\u00a0s", "5\u00a0s to 10\u00a0s"]


def test_the_slowest_are_ten() -> None:
    """Slowest first; the earlier row first where they took as long."""
    found = page(*(record(index=index, seconds=float(index // 2), user_id="u", job_id="j") for index in range(40)))
    assert [int(text) for text in found.sections["Slowest"][6::5]] == [38, 39, 36, 37, 34, 35, 32, 33, 30, 31]


def test_what_is_kept_does_not_grow() -> None:
    """Neither with the number of rows nor with codes and errors that nobody has heard of."""
    report = Report()

    def feed(begin: int, end: int) -> None:
        for index in range(begin, end):
            report.add_record(record(index=index, result_code=str(index), seconds=float(index % 1000)))
            report.add_record(record(index=index, outcome=Ending.REFUSED, code=str(index), error="ApiError"))

    feed(0, 2000)
    tracemalloc.start()
    feed(2000, 12_000)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 20_000
    sections = Page(report.html()).sections
    assert len([text for text in sections["Errors"] if text == "refused"]) == 40
    assert sections["Errors"][4:6] == ["other", "11,960"]
    assert "other" in sections["Result codes"]


def test_words_from_outside_are_escaped() -> None:
    """A code that is no number is not repeated at all."""
    found = page(record(result_code="<script>"), record(result_code=None), **{"<i>": "&"})
    assert {"?", "none"} < set(found.sections["Result codes"])
    assert found.sections["Settings"][2:] == ["<i>", "&"]
    assert "script" not in {tag for tag, _ in found.tags}


def test_a_bar_is_as_long_as_its_share_of_the_largest() -> None:
    """Each bar stands beside its number, which is text; a count of 0 has no bar. Text is escaped."""
    rows = [("a <b>", "x", Bar(2000, "approved")), ("c", "y", Bar(500)), ("d", "z", Bar(0))]
    html = render_section("Jobs & rows", ("name", "more", "jobs"), rows)
    found = Page(html)
    assert found.sections["Jobs & rows"] == [
        *("name", "more", "jobs"),
        *("a <b>", "x", "2,000"),
        *("c", "y", "500"),
        *("d", "z", "0"),
    ]
    bars = [attributes for tag, attributes in found.tags if tag == "i"]
    assert bars == [{"class": "approved", "style": "--share:1.0000"}, {"class": "bar", "style": "--share:0.2500"}]


def test_a_screen_reader_finds_tables_with_headings() -> None:
    """Each column and each row has a heading, and a table that scrolls can be reached by keyboard under its name."""
    tags = page(record(), record(result_code="0810"), colour="x").tags
    scopes = [attributes.get("scope") for tag, attributes in tags if tag == "th"]
    assert None not in scopes
    assert scopes.count("row") == len([tag for tag, _ in tags if tag == "tr"]) - len(
        [tag for tag, _ in tags if tag == "thead"]
    )
    groups = [attributes for _, attributes in tags if attributes.get("role") == "group"]
    assert [group["aria-label"] for group in groups] == [
        *("Outcomes", "Result codes", "Time to completion", "Polls per job", "Slowest", "Settings")
    ]
    assert {group["tabindex"] for group in groups} == {"0"}


def test_both_themes_have_all_colours() -> None:
    """Each outcome has its colour, in light and in dark."""
    html = Report().html()
    assert set(WORDS) | {"bar"} == set(COLOURS)
    for name, (light, dark) in COLOURS.items():
        assert f".{name} {{ background: {light}; }}" in html
        assert f"@media (prefers-color-scheme: dark) {{ .{name} {{ background: {dark}; }} }}" in html
