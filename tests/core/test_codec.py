"""Every known shape of an answer, and how it is read."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from smilejobs import ImageLink, JobResult, JobStatus, PartnerParams
from smilejobs.model.jobs import Include
from smilejobs.wire.codec import (
    MAX_DEPTH,
    MAX_NUMBER_CHARACTERS,
    UnreadableError,
    decode_object,
    decode_text,
    is_true,
    parse_timestamp,
)
from smilejobs.wire.structure import decode_status
from tests.helpers.bodies import (
    ABSENT,
    EVERYTHING,
    NOW,
    PERSONAL,
    REF,
    SAMPLES,
    complete,
    encode,
    other_jobs,
    params,
    pending,
    result,
    sigv4_url,
)
from tests.helpers.strategies import json_values, unhurried


def decode(body: Any, include: Include = EVERYTHING) -> JobStatus:
    return decode_status(json.loads(json.dumps(body)), REF, None, include)


def outcome(**more: object) -> JobResult:
    """Return the result of a complete answer, with some of its keys changed."""
    decoded = decode(complete(result=result(**more))).result
    assert decoded is not None
    return decoded


# Bytes


@pytest.mark.parametrize(
    "body",
    [b"{}", b" \r\n{}\t", b"\xef\xbb\xbf{}"],
    ids=["bare", "white space", "byte order mark"],
)
def test_an_object_is_read(body: bytes) -> None:
    """White space and a byte order mark do not matter."""
    assert decode_object(body) == {}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"<html><body>Bad Gateway</body></html>", "HTML"),
        (b"  \n<!DOCTYPE html><html></html>", "HTML"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "HTML"),
        (encode(complete())[:-1], "not JSON"),
        (encode(complete())[:40], "not JSON"),
        (encode(complete()) * 2, "not JSON"),
        (b"upstream connect error", "not JSON"),
        (b"{'single': 'quotes'}", "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "more than 100 characters"),
        (b'{"a": [-' + b"9" * MAX_NUMBER_CHARACTERS + b"]}", "more than 100 characters"),
        (b'{"a": 0.' + b"9" * MAX_NUMBER_CHARACTERS + b"}", "more than 100 characters"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": -1e999}', "too large"),
        (b"\xff\xfe{\0}\0", "not UTF-8"),
        (b'{"a": "\xe4"}', "not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        (b"[" * 20_000, "nested more than 200 levels deep"),
        (b'{"a":' * 20_000, "nested more than 200 levels deep"),
        (b'{"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", "nested more than 200 levels deep"),
        *((body, "not an object") for body in (b"[]", b"[{}]", b"null", b"true", b"5", b'"No zip uploaded yet"')),
        *((body, "NaN or Infinity") for body in (b"NaN", b"-Infinity", b'{"job_success": NaN}', b'{"a": [Infinity]}')),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value[:24]).replace("\\", "/"),
)
def test_what_is_no_object_cannot_be_read_and_the_reason_is_said(body: bytes, why: str) -> None:
    """The text says what the body is, without quoting it."""
    with pytest.raises(UnreadableError, match=f"^it (is|holds) .*{why}") as caught:
        decode_object(body)
    for inside in ("Gateway", "AccessDenied", "upstream", "quotes", "999", "0000004711"):
        assert inside not in str(caught.value)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [10, 198, 199, 200, 500, 990, 1_000, 2_000])
def test_deep_nesting_is_read_or_refused(depth: int, opening: bytes) -> None:
    """Up to 200 levels are read, the outermost one included, whatever Python's recursion limit is."""
    nested = opening * depth + b"0" + (b"]" if opening == b"[" else b"}") * depth
    body = b'{"job_complete": true, "y": ' + nested + b', "z": [' + b"[]," * 200 + b"[]]}"
    if depth < MAX_DEPTH:
        assert decode_object(body)["job_complete"] is True
        return
    with pytest.raises(UnreadableError, match="^it is nested more than 200 levels deep$"):
        decode_object(body)


@pytest.mark.parametrize(
    "number", ["9" * MAX_NUMBER_CHARACTERS, "-" + "9" * 99, "0." + "9" * 98, "1e308", "-0", "0.0", "1E-400"]
)
def test_numbers_up_to_a_limit_are_read(number: str) -> None:
    """A hundred characters are enough for every number of the API."""
    assert decode_object(f'{{"a": {number}}}'.encode()) == json.loads(f'{{"a": {number}}}')


@pytest.mark.parametrize(
    "body",
    [b"not JSON", b"\xff", b'{"a": NaN}', b"[" * 20_000, b'{"a": ' + b"9" * 200 + b"}", b'{"secret": "x"', b"[]"],
)
def test_an_error_does_not_keep_the_body(body: bytes) -> None:
    """The error of the decoder, which holds the document, is neither its cause nor its context."""
    with pytest.raises(UnreadableError) as caught:
        decode_object(body)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_an_error_about_a_shape_does_not_keep_the_body() -> None:
    """The error of the structuring, whose frames hold the values, is neither its cause nor its context."""
    with pytest.raises(UnreadableError) as caught:
        decode(complete(result=5))
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@unhurried
@given(st.binary() | st.text().map(str.encode) | json_values.map(encode))
def test_any_bytes_are_an_object_or_unreadable(body: bytes) -> None:
    """No other error is raised."""
    with suppress(UnreadableError):
        assert isinstance(decode_object(body), dict)


# Top level


@pytest.mark.parametrize("value", [True, "true", "True", "TRUE", "tRuE"])
def test_complete_is_true_or_the_word(value: object) -> None:
    """JSON true, and the word in any case."""
    assert is_true(value)
    assert decode(complete(job_complete=value)).job_complete is True


@pytest.mark.parametrize(
    "value",
    [
        False,
        None,
        ABSENT,
        1,
        1.0,
        0,
        "",
        "false",
        "1",
        "yes",
        "tru\u0435",
        "true ",
        " true",
        "t",
        [],
        [True],
        {},
        {"a": 1},
    ],
)
def test_everything_else_is_not_complete(value: object) -> None:
    """Neither values that are true in Python nor other words, and without an error."""
    assert not is_true(value)
    assert decode(complete(job_complete=value)).job_complete is False


@unhurried
@given(json_values)
def test_only_two_values_complete_a_job(value: Any) -> None:
    """Of all JSON values, only true and the word "true" complete a job."""
    expected = value is True or (isinstance(value, str) and value.casefold() == "true")
    assert is_true(value) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        ("true", True),
        ("True", True),
        (False, False),
        ("false", False),
        ("FALSE", False),
        (None, None),
        (ABSENT, None),
    ],
)
def test_booleans_may_be_words(value: object, expected: bool | None) -> None:
    """job_success, IsFinalResult and IsMachineResult are true, false, or not given."""
    assert decode(complete(job_success=value)).job_success is expected
    assert outcome(IsFinalResult=value).is_final_result is expected
    assert outcome(IsMachineResult=value).is_machine_result is expected


@pytest.mark.parametrize("value", ["2302", 2302])
def test_a_code_may_be_a_number(value: object) -> None:
    """Its digits are the code."""
    assert decode(complete(code=value)).code == "2302"
    assert decode_text({"code": value}, "code") == "2302"


@pytest.mark.parametrize("value", [None, ABSENT])
def test_a_code_may_be_missing(value: object) -> None:
    """Then it is None."""
    assert decode(complete(code=value)).code is None
    assert decode_text({} if value is ABSENT else {"code": value}, "code") is None


@pytest.mark.parametrize("value", [True, [], {}, ["2302"], {"code": "2302"}])
def test_a_text_of_another_shape_is_named_by_its_key(value: object) -> None:
    """The error names the key and not the value."""
    with pytest.raises(UnreadableError, match="^wrong shape at job_id$"):
        decode_text({"job_id": value}, "job_id")


@pytest.mark.parametrize("text", ["No zip uploaded yet", "No zip file received", "Zip file failed", ""])
def test_a_result_may_be_a_text(text: str) -> None:
    """The text is the message, and there is no result."""
    decoded = decode(pending(code="2314", result=text))
    assert (decoded.message, decoded.result) == (text, None)


@pytest.mark.parametrize("value", [None, ABSENT, {}])
def test_a_result_may_be_nothing(value: object) -> None:
    """Null, an empty object and no key at all are no result and no message."""
    decoded = decode(complete(result=value))
    assert (decoded.message, decoded.result) == (None, None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-03-04T05:06:07.890Z", NOW),
        ("2026-03-04T05:06:07.890123+00:00", NOW.replace(microsecond=890_123)),
        ("2026-03-04T05:06:07+00:00", NOW.replace(microsecond=0)),
        ("2026-03-04 07:06:07 +0200", NOW.replace(microsecond=0)),
        ("2026-03-03 22:06:07 -0700", NOW.replace(microsecond=0)),
        ("2026-03-04T07:06:07.890 +0200", NOW),
        ("2026-03-03 22:06:07.890 -07:00", NOW),
        ("2026-03-04T05:06:07.890123", NOW.replace(microsecond=890_123)),
        ("2026-03-04T05:06:07.".ljust(100, "0"), NOW.replace(microsecond=0)),
        ("2026-03-04T05:06:07.".ljust(101, "0"), None),
        ("2026-03-04 05:06:07", NOW.replace(microsecond=0)),
        ("2026-03-04T05:06:07.890Z" + " " * 100, None),
        ("1772600767890", NOW),
        (1772600767890, NOW),
        ("1772600767", NOW.replace(microsecond=0)),
        (1772600767, NOW.replace(microsecond=0)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        ("9999999999", datetime(2286, 11, 20, 17, 46, 39, tzinfo=UTC)),
        ("10000000000", datetime(1970, 4, 26, 17, 46, 40, tzinfo=UTC)),
        *(
            (value, None)
            for value in ("2026-03-04", "20260304T", "", "yesterday", "٣", "9" * 40, "9" * 5000, "NaN-NaN-NaN")
        ),
        *((value, None) for value in (10**30, True, 1.5, None, [], {}, "0001-01-01T00:00:00+23:00", "\ud800", ABSENT)),
    ],
    ids=lambda value: ascii(value)[:40].replace("\\", "/"),
)
def test_timestamps_have_many_spellings(value: object, expected: datetime | None) -> None:
    """ISO with an offset, with spaces, without an offset (UTC); epoch seconds and milliseconds; all else is None."""
    at = decode(complete(timestamp=value)).timestamp
    assert at == expected
    assert at is None or at.tzinfo is UTC


@unhurried
@given(json_values)
def test_any_timestamp_is_an_instant_or_none(value: Any) -> None:
    """No JSON value raises an error."""
    at = parse_timestamp(value)
    assert at is None or at.tzinfo is UTC


def test_the_ref_and_the_hint_are_what_was_handed_in() -> None:
    """The status has the ids of the polled job and the hint of the header, whatever the body holds."""
    decoded = decode_status(
        {**pending(), "user_id": "x", "(retry_after)": 7, "(self)": 8, "retry_after": 9}, REF, 2.5, EVERYTHING
    )
    assert (decoded.user_id, decoded.job_id, decoded.retry_after) == (REF.user_id, REF.job_id, 2.5)
    assert decoded.raw["user_id"] == "x"


def test_what_is_not_known_stays_readable() -> None:
    """Unknown keys stay in `raw`, unchanged, at each level."""
    body = complete(
        kyc_receipt="r",
        Antifraud={"summary": {}},
        result=result(FullData={"a": [True]}, PartnerParams=params(optional_info="x")),
    )
    decoded = decode(body)
    assert decoded.raw == body
    assert decoded.result is not None
    assert decoded.result.raw == body["result"]
    assert decoded.result.partner_params is not None
    assert decoded.result.partner_params.extra == {"optional_info": "x"}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_is_read(name: str) -> None:
    """Every known sample is a status, with the whole body in `raw`."""
    assert decode(SAMPLES[name]).raw == SAMPLES[name]


# The result


def test_a_result_is_read_whole() -> None:
    """Every key with an attribute is read."""
    personal = {vendor: f"the {ours}" for ours, vendor in PERSONAL.items()}
    assert outcome(**personal) == JobResult(
        result_code="0810",
        result_text="Enroll User",
        result_type="SAIA",
        smile_job_id="0000004711",
        partner_params=PartnerParams(user_id=REF.user_id, job_id=REF.job_id, job_type=1),
        confidence_value=99.0,
        actions={"Liveness_Check": "Passed", "Register_Selfie": "Approved"},
        is_final_result=True,
        is_machine_result=True,
        **{name: f"the {name}" for name in PERSONAL},  # type: ignore[arg-type]  # mypy cannot see the names
    )


def test_a_result_may_have_next_to_nothing() -> None:
    """Missing keys are None, missing actions are empty."""
    assert decode(complete(result={"ResultText": "x"})).result == JobResult(result_text="x")


def test_the_second_id_number_has_two_spellings() -> None:
    """With and without underscores."""
    assert outcome(Secondary_ID_Number="123").secondary_id_number == "123"
    assert outcome(SecondaryIDNumber="123").secondary_id_number == "123"


@pytest.mark.parametrize("key", ["ResultCode", "SmileJobID"])
@pytest.mark.parametrize(
    ("value", "expected"), [("0810", "0810"), (1210, "1210"), ("1", "1"), (None, None), (ABSENT, None)]
)
def test_leading_zeros_stay_and_numbers_are_their_digits(key: str, value: object, expected: str | None) -> None:
    """Codes and job numbers are texts."""
    decoded = outcome(**{key: value} if key == "SmileJobID" else {"code": value})
    assert (decoded.smile_job_id if key == "SmileJobID" else decoded.result_code) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(("99", 99.0), ("97.000000", 97.0), ("99.99", 99.99), (99, 99.0), (99.5, 99.5), ("0", 0.0), (0, 0.0)),
        *(
            (value, None)
            for value in (None, ABSENT, "", "Not Available", "nan", "inf", "-Infinity", "9" * 5000, 10**400)
        ),
        *((value, None) for value in (True, False, [], {"a": 1}, ["99"], float("inf"))),
    ],
    ids=lambda value: repr(value)[:20].replace("\\", "/"),
)
def test_confidence_is_a_finite_number_or_none(value: object, expected: float | None) -> None:
    """A number or its digits; any other value is None."""
    assert outcome(ConfidenceValue=value).confidence_value == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1),
        ("1", 1),
        ("11", 11),
        (6.0, 6),
        *((value, None) for value in (None, ABSENT, "", "x", "1.5", 1.5, True, [], {})),
    ],
    ids=repr,
)
def test_a_job_type_is_a_whole_number_or_none(value: object, expected: int | None) -> None:
    """A number or its digits; any other value is None."""
    decoded = outcome(PartnerParams=params(job_type=value)).partner_params
    assert decoded is not None
    assert decoded.job_type == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, {}),
        ({"Liveness_Check": "Sent to Human Review", "New_Check": "New Word"}, None),
        ({"Liveness_Check": "Passed", "Odd": None, "Odder": ["x"]}, {"Liveness_Check": "Passed"}),
        *((value, {}) for value in (None, ABSENT, "Passed", [], ["Passed"], 5)),
    ],
)
def test_actions_are_an_open_vocabulary(value: Any, expected: dict[str, str] | None) -> None:
    """Any name and any text; other types are left out."""
    assert outcome(Actions=value).actions == (value if expected is None else expected)


@pytest.mark.parametrize("key", [*PERSONAL.values(), "ResultText", "ResultType"])
@pytest.mark.parametrize("value", [{"a": 1}, ["x"], True])
def test_what_is_only_described_cannot_make_a_verdict_unreadable(key: str, value: object) -> None:
    """An address that is an object is None, and stays in `raw`."""
    decoded = outcome(**{key: value})
    assert decoded.result_code == "0810"
    assert decoded.raw[key] == value
    assert value not in [getattr(decoded, name) for name in PERSONAL]


@pytest.mark.parametrize(("user_id", "job_id"), [("12", "34"), (12, 34), (12, "34")])
def test_ids_may_be_numbers(user_id: object, job_id: object) -> None:
    """They are compared as strings, so they are read as strings."""
    decoded = outcome(PartnerParams=params(user_id=user_id, job_id=job_id)).partner_params
    assert decoded == PartnerParams(user_id="12", job_id="34", job_type=1)


@pytest.mark.parametrize("value", [None, ABSENT])
def test_a_result_may_name_no_job(value: object) -> None:
    """No PartnerParams, or null."""
    assert outcome(PartnerParams=value).partner_params is None
    assert outcome(PartnerParams={}).partner_params == PartnerParams()


# History and links


def test_a_history_holds_other_jobs() -> None:
    """Entries are results like any other, in the order in which they came, whatever job they name."""
    history = decode(complete(history=other_jobs())).history
    assert [entry.result_code for entry in history] == ["1210", "0814", "1012"]
    assert [entry.smile_job_id for entry in history] == ["0000000815", "0000000816", "0000000816"]
    assert [entry.confidence_value for entry in history] == [None, 97.0, None]
    assert history[0].partner_params == PartnerParams(user_id="user-cobalt-3", job_id="job-dune-8", job_type=1)
    assert (history[2].id_type, history[2].dob) == ("BVN", "1990-02-30")


@pytest.mark.parametrize("value", [[], None, ABSENT])
def test_a_history_may_be_empty(value: object) -> None:
    """No entries, null, or no key at all."""
    assert decode(complete(history=value)).history == ()


def test_links_are_read_by_name() -> None:
    """Any name is read; placeholders are links without an expiry."""
    links = decode(
        complete(image_links={"selfie_image": sigv4_url(), "new_name": "image_link", "odd": None})
    ).image_links
    assert links is not None
    assert dict(links) == {"selfie_image": ImageLink(url=sigv4_url()), "new_name": ImageLink(url="image_link")}
    assert links.error is None
    assert links["selfie_image"].expires_at == datetime(2026, 3, 4, 5, 21, 7, tzinfo=UTC)


def test_links_may_be_an_error() -> None:
    """The error is not a link, alone or besides links."""
    alone = decode(complete(image_links={"error": "could not make them"})).image_links
    beside = decode(complete(image_links={"error": "some failed", "selfie_image": "image_link"})).image_links
    assert alone is not None
    assert beside is not None
    assert (len(alone), alone.error) == (0, "could not make them")
    assert (list(beside), beside.error) == (["selfie_image"], "some failed")


@pytest.mark.parametrize("value", [None, ABSENT])
def test_links_may_be_missing(value: object) -> None:
    """Null, or no key at all."""
    assert decode(complete(image_links=value)).image_links is None


@pytest.mark.parametrize("value", [None, ABSENT])
def test_links_may_sit_inside_the_result(value: object) -> None:
    """They are read if there are none at the top level."""
    links = decode(complete(image_links=value, result=result(ImageLinks={"selfie_image": "image_link"}))).image_links
    assert links is not None
    assert dict(links) == {"selfie_image": ImageLink(url="image_link")}


def test_links_at_the_top_come_first() -> None:
    """If there are both, the documented place has precedence."""
    assert decode(complete(result=result(ImageLinks="none"))).image_links is None
    both = complete(image_links={"a": "x"}, result=result(ImageLinks={"b": "y"}))
    assert list(decode(both).image_links or ()) == ["a"]


@pytest.mark.parametrize("value", [5, True, {}, {"a": 1}, "", "x"])
def test_a_history_that_is_no_list_is_left_in_raw(value: object) -> None:
    """The verdict can still be read."""
    decoded = decode(complete(history=value))
    assert (decoded.history, decoded.raw["history"]) == ((), value)
    assert decoded.result is not None


@pytest.mark.parametrize("value", [["x"], [], "x", "", 5, False])
def test_links_that_are_no_object_are_left_in_raw(value: object) -> None:
    """The verdict can still be read, and so can links inside the result."""
    decoded = decode(complete(image_links=value))
    assert (decoded.image_links, decoded.raw["image_links"]) == (None, value)
    assert decoded.result is not None
    inside = decode(complete(image_links=value, result=result(ImageLinks={"selfie_image": "image_link"})))
    assert list(inside.image_links or ()) == ["selfie_image"]


@pytest.mark.parametrize("include", [Include(), Include(image_links=True), Include(history=True), EVERYTHING])
def test_what_was_not_asked_for_is_left_in_raw(include: Include) -> None:
    """Links and a history are structured only if the poll requested them; else a wrong entry does not matter."""
    body = complete(history=other_jobs(), image_links={"selfie_image": "image_link"})
    decoded = decode(body, include)
    assert (len(decoded.history), decoded.image_links is not None) == (3 * include.history, include.image_links)
    assert decoded.raw == body
    inside = decode(complete(result=result(ImageLinks={"selfie_image": "image_link"})), include)
    assert (inside.image_links is not None) is include.image_links
    if not include.history:
        assert decode(complete(history=[0]), include).history == ()


@pytest.mark.parametrize("url", ["https://portal.example/receipt?signature=x", sigv4_url()])
@pytest.mark.parametrize("include", [Include(), EVERYTHING])
def test_a_receipt_is_a_link(url: str, include: Include) -> None:
    """At the top level of an answer or inside its result, under each of its names; the top level has precedence."""
    bodies = [
        complete(kyc_receipt=url),
        complete(kyb_receipt=url),
        complete(result=result(KYCReceipt=url)),
        complete(result=result(kyb_receipt=url)),
        complete(kyc_receipt="", result=result(KYCReceipt=url)),
    ]
    for body in bodies:
        assert decode(body, include).receipt == ImageLink(url=url)
    assert decode(complete(result=result(KYCReceipt=url), kyc_receipt="top")).receipt == ImageLink(url="top")


@pytest.mark.parametrize("value", [ABSENT, None, "", 5, ["x"], {"a": "x"}])
def test_a_receipt_may_be_missing(value: object) -> None:
    """A value that is not a text is left in `raw`."""
    assert decode(complete(kyc_receipt=value)).receipt is None


# Wrong shapes

NO_TEXTS: list[object] = [[], {}, True]
WRONG: list[tuple[object, str]] = [
    *((complete(result=value), "result") for value in ([], ["x"], 5, True, 1.5)),
    *((complete(code=value), "code") for value in NO_TEXTS),
    *((complete(result=result(PartnerParams=value)), "result.PartnerParams") for value in (["x"], "x", 5, False)),
    *((complete(result=result(value)), "result.ResultCode") for value in NO_TEXTS),
    (complete(result=result(SmileJobID={})), "result.SmileJobID"),
    (complete(result=result(PartnerParams=params(user_id=[]))), "result.PartnerParams.user_id"),
    (complete(result=result(PartnerParams=params(job_id=True))), "result.PartnerParams.job_id"),
    (complete(history=[None]), "history[0]"),
    (complete(history=[{}, {"ResultCode": []}]), "history[1].ResultCode"),
    (complete(history=[{}, {}, {"PartnerParams": {"job_id": {}}}]), "history[2].PartnerParams.job_id"),
    (complete(result=result(SmileJobID={}, PartnerParams=5)), "result.PartnerParams, result.SmileJobID"),
]


@pytest.mark.parametrize(("body", "path"), WRONG, ids=[f"{path} {index}" for index, (_, path) in enumerate(WRONG)])
def test_wrong_shapes_are_named_by_their_paths(body: object, path: str) -> None:
    """The error names all wrong paths, by the vendor's names, and nothing else."""
    with pytest.raises(UnreadableError) as caught:
        decode(body)
    assert str(caught.value) == f"wrong shape at {path}"


def test_structuring_stops_at_the_first_wrong_entry() -> None:
    """A thousand wrong entries in a history do not cost a thousand errors: only the first one is named."""
    with pytest.raises(UnreadableError, match=r"^wrong shape at history\[2\]$"):
        decode(complete(history=[{}, {}, *[5] * 998]))
