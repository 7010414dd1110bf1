"""The tables of codes."""

import json

import pytest
from hypothesis import given

from smilejobs import JOB_TYPES, RESULT_CODES, STATUS_CODES, CodeClass, Verdict
from smilejobs.model.codes import code_label, describe
from tests.helpers.strategies import texts, unhurried

STATUS = {
    CodeClass.SUCCESS: ["2302"],
    CodeClass.PENDING: ["2304", "2314"],
    CodeClass.TRANSIENT: ["2201", "2301", "2401"],
    CodeClass.CREDENTIALS: ["2205", "2220", "2305", "2405"],
    CodeClass.PERMANENT: [
        *("2203", "2204", "2207", "2208", "2209", "2210", "2211", "2212", "2213", "2215", "2216", "2217", "2222"),
        *("2303", "2307", "2310", "2313", "2413", "2415"),
    ],
}
RESULTS = {
    Verdict.APPROVED: ["0810", "1012", "1020", "1021", "1210", "1220"],
    Verdict.PROVISIONAL: ["0814"],
    Verdict.REJECTED: ["0811", "0812", "0816", "0903", "0907", "1013", "1022", "1023"],
    Verdict.ERROR: ["0001", "1015", "1016"],
}


@pytest.mark.parametrize("kind", CodeClass)
def test_status_codes_have_the_class_that_the_vendors_pages_imply(kind: CodeClass) -> None:
    """Each class holds exactly these codes."""
    assert sorted(code for code, row in STATUS_CODES.items() if row.kind is kind) == STATUS[kind]


@pytest.mark.parametrize("verdict", RESULTS)
def test_result_codes_have_the_verdict_of_the_vendors_table(verdict: Verdict) -> None:
    """Each verdict has exactly these codes, but for 1014, on which the vendor's pages do not agree."""
    assert (
        sorted(code for code, row in RESULT_CODES.items() if row.verdict is verdict and code != "1014")
        == RESULTS[verdict]
    )


@pytest.mark.parametrize("code", ["0840", "0813", "0820", "0901", "810", ""])
def test_codes_that_no_page_lists_are_in_no_table(code: str) -> None:
    """Codes that users guessed, and codes without their leading zero, are in neither table."""
    assert code not in RESULT_CODES
    assert code not in STATUS_CODES


def test_1014_approves_nobody() -> None:
    """An unsupported ID type has no clear category, and is never approved."""
    assert "1014" not in RESULT_CODES or RESULT_CODES["1014"].verdict is not Verdict.APPROVED


def test_the_tables_cannot_be_changed() -> None:
    """The tables are read-only, and so are their rows."""
    for table, row in ((STATUS_CODES, STATUS_CODES["2302"]), (RESULT_CODES, RESULT_CODES["0810"]), (JOB_TYPES, "x")):
        with pytest.raises(TypeError, match="does not support item assignment"):
            table["0840"] = row  # type: ignore[index]  # the tables are frozen: that is what is tested
    with pytest.raises(AttributeError):
        STATUS_CODES["2304"].kind = CodeClass.SUCCESS  # type: ignore[misc]  # the tables are frozen: that is what is tested
    with pytest.raises(AttributeError):
        RESULT_CODES["0811"].verdict = Verdict.APPROVED  # type: ignore[misc]  # the tables are frozen: that is what is tested


def test_rows_explain_themselves() -> None:
    """Every row has a text for people."""
    assert [code for code, row in STATUS_CODES.items() if not row.meaning] == []
    assert [code for code, row in RESULT_CODES.items() if not row.text] == []


def test_job_types_are_those_of_the_vendors_clients() -> None:
    """There are eleven; number 3 does not exist."""
    assert sorted(JOB_TYPES) == [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert JOB_TYPES[11] == "Enhanced Document Verification"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (None, "no code"),
        ("2304", "2304: job not found"),
        ("2098", "2098: unknown code"),
        ("Jane Roe", "unknown code"),
        ("12345678901", "unknown code"),
        ("٢٣٠٤", "unknown code"),
    ],
)
def test_a_code_is_described_without_repeating_what_is_none(code: str | None, text: str) -> None:
    """Known codes are explained, unknown numbers are shown, and other texts are not repeated."""
    assert describe(code) == text


@pytest.mark.parametrize("code", [*STATUS_CODES, *RESULT_CODES])
def test_a_known_code_is_its_own_label(code: str) -> None:
    """Telemetry shows the codes of both tables unchanged."""
    assert code_label(code) == code


@pytest.mark.parametrize("code", ["", "2098", "0840", "810", " 2302", "Jane Roe", "9" * 5000, "\ud800"])
def test_an_unknown_code_has_one_label(code: str) -> None:
    """Unknown codes share a label, so that they do not add time series."""
    assert code_label(code) == "other"


def test_no_code_has_no_label() -> None:
    """An answer without a code has no label."""
    assert code_label(None) is None


@unhurried
@given(texts)
def test_labels_are_bounded(code: str) -> None:
    """Any text gives a code of the tables or "other"."""
    assert code_label(code) in {*STATUS_CODES, *RESULT_CODES, "other"}


@pytest.mark.parametrize("verdict", Verdict)
def test_a_verdict_is_its_word(verdict: Verdict) -> None:
    """It is a string that can be compared, printed, and written as JSON."""
    assert str(verdict) == f"{verdict}" == verdict == verdict.value
    assert json.dumps({"verdict": verdict}) == f'{{"verdict": "{verdict.value}"}}'
    assert Verdict(verdict.value) is verdict
