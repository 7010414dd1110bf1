"""The page of the sandbox and the report of a batch, in a real browser: what a reader sees, hears and can reach."""

import html
from collections.abc import Generator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from attrs import define, evolve
from selenium.webdriver.common.keys import Keys

from smilejobs import Verdict
from smilejobs.batch.records import WORDS, Ending, RowRecord
from smilejobs.batch.report import Report
from smilejobs.sandbox import Sandbox
from smilejobs.testing import EPOCH
from tests.heavy.browser import CHROMIUM, DRIVER, Browser, browse

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver is not installed")

HOSTILE = (
    "<script>document.title='run'</script>",
    "<img src=http://127.0.0.1:1/x onerror=\"document.title='run'\">",
    "\"'></td></table></style></title><h1>run</h1>",
    "&lt;b&gt;&#0;",
    "{run}",
    "W" * 200,
)
WINDOWS = [(width, theme) for width in (390, 1200) for theme in ("light", "dark")]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Generator[Browser, None, None]:
    with browse(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    """An empty tab that has loaded nothing and said nothing yet."""
    chromium.show(1200, "light")
    chromium.open("about:blank")
    chromium.hosts()
    chromium.messages()
    return chromium


@define
class Served:
    """A sandbox on a port, whose clock stands still until a test sets it."""

    sandbox: Sandbox
    url: str
    seconds: float = 0.0

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds)


@pytest.fixture
def served() -> Generator[Served, None, None]:
    here = Served(Sandbox(), "")
    here.sandbox = Sandbox(now=here.now)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(here.sandbox.serve()) as base_url:
        here.url = base_url.removesuffix("v1")
        yield here


@pytest.fixture
def page(browser: Browser, served: Served) -> Generator[Browser, None, None]:
    """A tab that goes to the page. Afterwards nothing has gone wrong in it, and nothing has come from elsewhere."""
    yield browser
    assert browser.messages() == []
    assert browser.hosts() == {served.url.split("/")[2]}


def rows(browser: Browser) -> list[list[str]]:
    """Return the rows of the only table as a screen reader reads them, without that of the headings."""
    (table,) = browser.tree.find("table")
    found = [[cell.text for cell in row.find("cell")] for row in table.find("row")]
    return [cells for cells in found if cells]


def test_jobs_appear_and_become_complete(page: Browser, served: Served) -> None:
    """The page is as it is when it is loaded; the link on it loads it again."""
    page.open(served.url)
    assert "No jobs yet." in page.text
    served.sandbox.submit("user-1", "job-1", machine=10)
    served.sandbox.submit("user-2", "job-2", machine=20, outcome="rejected", job_type=6)
    served.sandbox.submit("user-3", "job-3", machine=0, refusal="2307")
    page.follow("Reload")
    assert "3 jobs." in page.text
    assert [(cells[0], cells[1], cells[4]) for cells in rows(page)] == [
        ("job-3", "user-3", "refused with 2307"),
        ("job-2", "user-2", "running"),
        ("job-1", "user-1", "running"),
    ]
    served.seconds = 10
    page.follow("Reload")
    assert [cells[4] for cells in rows(page)] == ["refused with 2307", "running", "1210 Enroll User"]
    served.seconds = 20
    page.follow("Reload")
    assert [cells[4] for cells in rows(page)] == [
        "refused with 2307",
        "0811 Unable to Verify Document",
        "1210 Enroll User",
    ]


@pytest.mark.parametrize(
    ("button", "code", "verdict"), [("Approve", "1210", Verdict.APPROVED), ("Reject", "1022", Verdict.REJECTED)]
)
def test_a_review_is_ended_by_keyboard(page: Browser, served: Served, button: str, code: str, verdict: Verdict) -> None:
    """Each button says what it does and to which job, the focus is seen, and the page shows what came of it."""
    first = served.sandbox.submit("user-1", "job-1", machine=0, review="open")
    second = served.sandbox.submit("user-1", "job-2", machine=0, review="open")
    number = served.sandbox.jobs[first].smile_job_id
    page.open(served.url)
    names = [node.name for node in page.tree.find("button")]
    assert len(set(names)) == 4
    page.follow(f"{button} {number}")
    assert page.driver.current_url == served.url
    under_review, ended = rows(page)
    assert under_review[4] == "under review"
    assert (ended[2], ended[4].split()[0]) == (number, code)
    assert [node.name.split()[1] for node in page.tree.find("button")] == [served.sandbox.jobs[second].smile_job_id] * 2
    with start_blocking_portal() as portal:

        async def ask() -> Verdict | None:
            async with served.sandbox.client() as client:
                return (await client.job_status(first.user_id, first.job_id)).verdict

        assert portal.call(ask) is verdict


def test_the_page_says_what_it_is(page: Browser, served: Served) -> None:
    """It has a title, a language and one heading; the table has headings, and a telephone reads them in each cell."""
    served.sandbox.submit("user-1", "job-1", machine=60)
    page.open(served.url)
    headings = ["Job", "User", "Number", "Product", "State", "Polls", "Review"]
    tree = page.tree
    assert tree.name == "Smile ID sandbox"
    assert page.driver.find_element("tag name", "html").get_attribute("lang") == "en"
    assert [node.text for node in tree.find("heading")] == ["Smile ID sandbox"]
    assert [node.text for node in tree.find("columnheader")] == headings
    assert {node.name for node in tree.find("link")} == {"/sandbox/jobs", "Reload"}
    page.show(390, "light")
    (cells,) = rows(page)
    told = ("job-1", "user-1", "0000000001", "1 Biometric KYC", "running", "0")
    assert cells[:6] == [f"{heading} {text}" for heading, text in zip(headings, told, strict=False)]


@pytest.mark.parametrize(("width", "theme"), WINDOWS)
def test_the_page_fits_and_can_be_read(page: Browser, served: Served, width: int, theme: str) -> None:
    """All of it is within the window, in each state of a job, with long ids too; no text is faint."""
    page.show(width, theme)
    page.open(served.url)
    assert (page.overflow, page.faint) == (0, {})
    served.sandbox.submit("user-" + "1" * 90, "job-" + "W" * 90, machine=0)
    served.sandbox.submit("user-1", "rejected", machine=0, outcome="rejected", job_type=6)
    served.sandbox.submit("user-1", "review", machine=0, review="open")
    served.sandbox.submit("user-1", "running", machine=60)
    served.sandbox.submit("user-1", "no-zip", upload=None)
    served.sandbox.submit("user-1", "refused", refusal="2307")
    page.open(served.url)
    assert (page.overflow, page.faint) == (0, {})


def test_ids_that_look_like_html_are_text(page: Browser, served: Served) -> None:
    """They are shown letter by letter; nothing runs and nothing is fetched."""
    refs = []
    for text in HOSTILE:
        try:
            refs.append(served.sandbox.submit(text, f"job-{text}"))
        except ValueError:  # no id of a job
            continue
    assert len(refs) >= 3
    page.open(served.url)
    assert [(cells[1], cells[0]) for cells in rows(page)] == [(ref.user_id, ref.job_id) for ref in reversed(refs)]
    assert page.driver.title == "Smile ID sandbox"


def test_a_page_from_elsewhere_ends_no_review(browser: Browser, served: Served, tmp_path: Path) -> None:
    """It can neither press the buttons nor show them in a frame."""
    ref = served.sandbox.submit("user-1", "job-1", machine=0, review="open")
    number = served.sandbox.jobs[ref].smile_job_id
    fields = {"smile_job_id": number, "outcome": "approved"}
    inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in fields.items())
    foreign = tmp_path / "foreign.html"
    foreign.write_text(
        f'<!doctype html><form method="post" action="{served.url}sandbox/review">{inputs}<button>Win</button></form>'
        f'<iframe src="{served.url}"></iframe>',
        "utf-8",
    )
    browser.open(foreign.as_uri())
    assert "job-1" not in str(browser.tree)
    assert any("frame-ancestors" in message for message in browser.messages())
    browser.follow("Win")
    assert "403" in " ".join(browser.messages())
    browser.open(served.url)
    assert rows(browser)[0][4] == "under review"


def record(**changes: Any) -> RowRecord:
    return evolve(RowRecord(index=0, outcome=Ending.COMPLETE, verdict="approved", polls=1, seconds=1.0), **changes)


@pytest.fixture
def report(browser: Browser, tmp_path: Path) -> Generator[Report, None, None]:
    """A report about all outcomes, in a tab that opens it from disk. Afterwards nothing else was loaded."""
    yield Report({"input": "jobs.csv", "timeout": "10m"})
    assert browser.messages() == []
    assert browser.hosts() == {""}


def read(browser: Browser, report: Report, folder: Path) -> None:
    """Open a report."""
    report.write(folder / "report.html")
    browser.open((folder / "report.html").as_uri())


def fill(report: Report) -> None:
    """Count three approved jobs and one of each other outcome, with everything that a report shows."""
    verdicts = {verdict.value for verdict in Verdict}
    for index, word in enumerate(("approved", "approved", *WORDS)):
        row = record(index=index, user_id="u", job_id=f"j{index}", polls=index + 1, seconds=3.0**index, code="2204")
        if word in verdicts:
            report.add_record(evolve(row, verdict=word))
        else:
            report.add_record(evolve(row, verdict=None, outcome=Ending(word), error="ApiError"))


def test_a_report_is_tables_with_headings(browser: Browser, report: Report, tmp_path: Path) -> None:
    """A screen reader finds each table by its name, and in each row its heading and the number beside the bar."""
    fill(report)
    read(browser, report, tmp_path)
    tree = browser.tree
    assert tree.name == "Smile ID jobs"
    headings = [node.text for node in tree.find("heading")]
    assert headings[0] == "Smile ID jobs"
    assert [node.name for node in tree.find("group")] == headings[1:]
    assert headings[1:] == [
        *("Outcomes", "Result codes", "Time to completion", "Polls per job", "Errors", "Slowest", "Settings")
    ]
    outcomes = tree.find("table")[0]
    assert [node.text for node in outcomes.find("columnheader")] == ["outcome", "rows"]
    told = [[node.text for role in ("rowheader", "cell") for node in row.find(role)] for row in outcomes.find("row")]
    assert told[1:] == [["approved", "3"], *([word, "1"] for word in WORDS if word != "approved")]
    assert [len(table.find("rowheader")) for table in tree.find("table")] == [
        len(table.find("row")) - 1 for table in tree.find("table")
    ]


@pytest.mark.parametrize(("width", "theme"), WINDOWS)
def test_a_report_fits_and_can_be_read(
    browser: Browser, report: Report, tmp_path: Path, width: int, theme: str
) -> None:
    """All of it is within the window, no text is faint, and each bar stands out and is as long as its number says."""
    fill(report)
    browser.show(width, theme)
    read(browser, report, tmp_path)
    assert (browser.overflow, browser.faint) == (0, {})
    assert [bar for bar in browser.bars if bar.contrast < 3] == []
    longest, *others = [bar for bar in browser.bars if bar.row.rstrip("0123456789") in WORDS]
    assert longest.row == "approved3"
    assert longest.width >= 30
    assert {bar.row for bar in others} == {f"{word}1" for word in WORDS if word != "approved"}
    assert [bar.width for bar in others] == pytest.approx([longest.width / 3] * len(others), abs=1)


def test_wide_tables_are_reached_by_keyboard(browser: Browser, report: Report, tmp_path: Path) -> None:
    """On a telephone a table may be wider than the window: it takes the focus, which is seen, under its name."""
    fill(report)
    browser.show(390, "light")
    read(browser, report, tmp_path)
    names = []
    for _ in browser.tree.find("group"):
        browser.press(Keys.TAB)
        names.append(browser.focus)
    assert names == [node.name for node in browser.tree.find("group")]


def test_words_from_outside_are_text(browser: Browser, report: Report, tmp_path: Path) -> None:
    """Settings and errors that look like HTML are shown letter by letter; nothing runs and nothing is fetched."""
    hostile = Report({text: text for text in HOSTILE})
    for text in HOSTILE:
        hostile.add_record(
            record(outcome=Ending.FAILED, verdict=None, error=text, code=text, result_code=text, smile_job_id=text)
        )
        hostile.add_record(record(result_code=text, smile_job_id=text, images=0, images_error=text))
    read(browser, hostile, tmp_path)
    settings = browser.tree.find("table")[-1]
    assert [cell.text for cell in settings.find("cell")] == list(HOSTILE)
    assert browser.driver.title == "Smile ID jobs"
    assert [node.text for node in browser.tree.find("heading")][:1] == ["Smile ID jobs"]
    assert html.escape(HOSTILE[0]) in (tmp_path / "report.html").read_text("utf-8")


def test_an_empty_report(browser: Browser, report: Report, tmp_path: Path) -> None:
    """It says that there is nothing."""
    read(browser, report, tmp_path)
    assert "0 rows, 0 complete." in browser.text
    assert browser.bars == []
    assert (browser.overflow, browser.faint) == (0, {})
