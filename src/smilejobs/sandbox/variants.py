"""Variants of answers, which mean the same and are written differently, and answers that are wrong.

Each function here changes the body of an answer before it is signed. Sources: the vendor's page, the samples in its
documentation, and the fixtures of its clients, which differ from each other.
"""

import base64
import json
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256, shake_256
from types import MappingProxyType

from smilejobs.model.codes import NO_ZIP, STATUS_CODES
from smilejobs.model.jobs import JobRef
from smilejobs.settings import Credentials
from smilejobs.wire.signature import format_timestamp, sign

RECEIPTS = ("kyc_receipt", "kyb_receipt")
"""The keys of an answer that hold the link to a receipt; the product decides which one."""

Body = dict[str, object]
_Variant = Callable[[Body, datetime, random.Random], None]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HUGE_IMAGE_BYTES = 1_125_000
"""1.5 MB in base64."""
_NO_ZIP_TEXTS = ("No zip uploaded yet", "No zip uploaded", "No zip file received")
_FRAUD = {
    "summary": {"fraud_sources": [], "fraud_detected": False},
    "smile_secure": {"ResultCode": "0000", "ResultText": "No Suspect Users", "SuspectUsers": []},
}


def _format_fraction(at: datetime, digits: int) -> str:
    seconds, _, fraction = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").partition(".")
    return f"{seconds}.{fraction:0<9}"[: 20 + digits]


def _to_milliseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)


_TIMESTAMPS: tuple[Callable[[datetime], str | int], ...] = (
    format_timestamp,
    lambda at: _format_fraction(at, 6) + "Z",
    lambda at: _format_fraction(at, 9) + "Z",
    lambda at: _format_fraction(at, 0)[:19] + "Z",
    lambda at: _format_fraction(at, 6) + "+00:00",  # Python
    lambda at: _format_fraction(at, 0)[:19] + "+00:00",  # PHP
    lambda at: at.astimezone(timezone(timedelta(hours=1))).isoformat(timespec="milliseconds"),
    lambda at: at.astimezone(timezone(timedelta(hours=2))).strftime("%Y-%m-%d %H:%M:%S %z"),  # Ruby
    lambda at: str(_to_milliseconds(at)),
    _to_milliseconds,
)


def _wordy_booleans(body: Body, at: datetime, rng: random.Random) -> None:
    style = rng.choice((str.lower, str.title, str.upper))
    for key in ("job_complete", "job_success"):
        if key in body:
            body[key] = style(str(body[key]))


def _code_as_int(body: Body, at: datetime, rng: random.Random) -> None:
    if "code" in body:
        body["code"] = int(str(body["code"]))


def _timestamp(body: Body, at: datetime, rng: random.Random) -> None:
    if "timestamp" in body:
        body["timestamp"] = rng.choice(_TIMESTAMPS)(at)


def _fewer_keys(body: Body, at: datetime, rng: random.Random) -> None:
    """Leave as few as three keys: timestamp, signature, job_complete."""
    if "job_complete" in body:
        most = rng.choice((0.5, 1.0))
        for key in ("code", "job_success", "user_id", "job_id", *RECEIPTS):
            if rng.random() < most:
                body.pop(key, None)


def _pending_result(body: Body, at: datetime, rng: random.Random) -> None:
    if body.get("job_complete") is False:
        body.pop("result", None)
        others: list[object] = [None, {}, *_NO_ZIP_TEXTS]
        drawn = rng.randrange(len(others) + 1)
        if drawn < len(others):
            body["result"] = others[drawn]


def _history(body: Body, at: datetime, rng: random.Random) -> None:
    """Write an empty history in one of three ways; shuffle another one, whose order is not documented."""
    if "job_complete" not in body:
        return
    entries = body.pop("history", None)
    if isinstance(entries, list) and entries:
        rng.shuffle(entries)
        body["history"] = entries
    elif rng.random() < 0.67:
        body["history"] = rng.choice(([], None))


def _inner_links(body: Body, at: datetime, rng: random.Random) -> None:
    """Move the links into the result; write null for no links."""
    result = body.get("result")
    if isinstance(result, dict) and "image_links" in body:
        result["ImageLinks"] = body.pop("image_links")
    elif "job_complete" in body:
        body.setdefault("image_links", None)


def _of_result(change: _Variant) -> _Variant:
    """Return a variant that changes the result of a complete answer."""

    def change_result(body: Body, at: datetime, rng: random.Random) -> None:
        result = body.get("result")
        if isinstance(result, dict) and result:
            change(result, at, rng)

    return change_result


def _job_type_as_number(result: Body, at: datetime, rng: random.Random) -> None:
    params = result["PartnerParams"]
    assert isinstance(params, dict)
    result["PartnerParams"] = {**params, "job_type": int(str(params["job_type"]))}


def _confidence(result: Body, at: datetime, rng: random.Random) -> None:
    """Change the default values only, not one that was given to `Sandbox.submit`."""
    if result.get("ConfidenceValue") in ("99", "0"):
        number = float(str(result.pop("ConfidenceValue")))
        drawn = rng.choice((f"{number:.6f}", f"{number:.2f}", number, int(number), None))
        if drawn is not None:
            result["ConfidenceValue"] = drawn


def _fewer_result_keys(result: Body, at: datetime, rng: random.Random) -> None:
    for key in ("ResultText", "ResultType", "JSONVersion", "Source", "Actions", "IsMachineResult"):
        if rng.random() < 0.5:
            result.pop(key, None)
    if rng.random() < 0.5:
        result["Actions"] = {}
    del result["IsFinalResult"]  # the code of a provisional result says that it is one


def _more_result_keys(result: Body, at: datetime, rng: random.Random) -> None:
    naive = at.astimezone(UTC).replace(tzinfo=None)
    result |= {
        "timestamp": naive.isoformat(timespec="microseconds"),
        "KYCReceipt": "https://sandbox.test/receipt",
        "Antifraud": _FRAUD,
        "FullData": {"inner": {"flag": True, "list": [1, None]}},
        "IDNumberPreviouslyRegistered": False,
        "UserIDsOfPreviousRegistrants": [],
        "Secondary_ID_Number": "Not Available",
        "Address": "1 Example Street\nLagos",
        "IssuanceDate": "NaN-NaN-NaN",
    }


def _more_keys(body: Body, at: datetime, rng: random.Random) -> None:
    if "job_complete" in body:
        body["Antifraud"] = _FRAUD


def _no_top_ids(body: Body, at: datetime, rng: random.Random) -> None:
    """Name the job in the result only, as the real server did when it was recorded."""
    for key in ("user_id", "job_id"):
        body.pop(key, None)


def _other_refusal(body: Body, at: datetime, rng: random.Random) -> None:
    """Refuse a job without images instead of answering; move or remove the text of another refusal.

    It is not known which of the two the API does for a job without images: both have been seen.
    """
    if body.get("code") == NO_ZIP and "job_complete" in body:
        body.clear()
        body |= {"error": STATUS_CODES[NO_ZIP].meaning, "code": NO_ZIP}
    elif "error" in body:
        text = body.pop("error")
        if rng.random() < 0.5:
            body["message"] = text


def _unchanged(body: Body, at: datetime, rng: random.Random) -> None:
    """Change nothing: the variant is made by `draw_refusal_status` or `encode`."""


VARIANTS: Mapping[str, _Variant] = MappingProxyType(
    {
        "other_refusal": _other_refusal,
        "pending_result": _pending_result,
        "history": _history,
        "inner_links": _inner_links,
        "job_type_as_number": _of_result(_job_type_as_number),
        "confidence": _of_result(_confidence),
        "no_top_ids": _no_top_ids,
        "fewer_result_keys": _of_result(_fewer_result_keys),
        "more_result_keys": _of_result(_more_result_keys),
        "more_keys": _more_keys,
        "fewer_keys": _fewer_keys,
        "wordy_booleans": _wordy_booleans,
        "code_as_int": _code_as_int,
        "timestamp": _timestamp,
        "refusal_status": _unchanged,
        "double_keys": _unchanged,
    }
)
"""The variants of an answer, by name. None of them changes its meaning."""


def apply_variants(body: Body, names: tuple[str, ...], at: datetime, rng: random.Random) -> None:
    """Change *body*, the answer of the time *at*, into these variants, in the order of `VARIANTS`."""
    for name, change in VARIANTS.items():
        if name in names:
            change(body, at, rng)


def draw_refusal_status(names: tuple[str, ...], rng: random.Random) -> int:
    """Return the HTTP status of a refusal. It is not known which ones the API uses: the code counts."""
    return rng.choice((200, 401, 403, 404)) if "refusal_status" in names else 400


def sign_body(body: Body, credentials: Credentials, root: str) -> None:
    """Sign *body*, and replace the SmileJobID under the key of a receipt by its link.

    The query of the link holds the same signature and timestamp.
    """
    timestamp = str(body["timestamp"])
    body["signature"] = signature = sign(credentials, timestamp)
    for key in body.keys() & set(RECEIPTS):
        path = f"/api/v3/{credentials.partner_id}/job_result_summary/{body[key]}/generate_pdf"
        body[key] = f"{root}{path}?signature={signature}&timestamp={timestamp}&environment=test"


def encode(body: Body, names: tuple[str, ...] = ()) -> bytes:
    """Return *body* as JSON; with the variant "double_keys", a wrong ``job_complete`` precedes the right one."""
    encoded = json.dumps(body, separators=(",", ":")).encode()
    if "double_keys" in names and "job_complete" in body:
        return b'{"job_complete":false,' + encoded[1:]
    return encoded


# --- Wrong answers


def make_bare(body: Body, rng: random.Random) -> None:
    """Remove from a complete answer what a verdict needs."""
    result = body["result"]
    assert isinstance(result, dict)
    drawn = rng.randrange(6)
    if drawn == 0:
        del body["result"]
    elif drawn < 4:
        body["result"] = (None, {}, "Zip file failed")[drawn - 1]
    else:
        del result["ResultCode" if drawn == 4 else "PartnerParams"]


def make_huge(body: Body) -> None:
    """Put an image of 1.5 MB in base64 into the result."""
    result = body["result"]
    assert isinstance(result, dict)
    noise = shake_256(str(result["SmileJobID"]).encode()).digest(_HUGE_IMAGE_BYTES)
    result["Photo"] = base64.b64encode(noise).decode("ascii")


def break_links(links: Mapping[str, str], rng: random.Random) -> dict[str, str]:
    """Return what the API answers if it cannot make links: an error, placeholders, or links without a signature."""
    drawn = rng.randrange(4)
    if drawn == 0:
        return dict.fromkeys(links, "image_link")
    if drawn == 1:
        return {name: url.partition("?")[0] for name, url in links.items()}
    return {"error": "Could not generate image links"}


def name_another_job(body: Body, ref: JobRef, rng: random.Random) -> None:
    """Replace one id of the answer, or of its result, by that of another job or user."""
    result = body.get("result")
    key, other = rng.choice((("user_id", f"{ref.user_id}-2"), ("job_id", f"{ref.job_id}-2")))
    params = result.get("PartnerParams") if isinstance(result, dict) else None
    if isinstance(result, dict) and isinstance(params, dict) and rng.random() < 0.5:
        result["PartnerParams"] = {**params, key: other}
    else:
        body[key] = other


def forge(body: Body, credentials: Credentials, rng: random.Random) -> None:
    """Replace the signature by a wrong one, or remove it. One is the old unkeyed hash, which needs no key."""
    timestamp = body["timestamp"]
    partner_id = credentials.partner_id
    unkeyed = sha256(f"{partner_id.lstrip('0')}:{timestamp}".encode()).hexdigest()
    other_key = Credentials(partner_id, f"{credentials.api_key}-of-another")
    forgeries: list[object] = [
        None,
        17,
        "\u00e9" * 44,
        "",
        unkeyed,
        f"{base64.b64encode(unkeyed.encode()).decode()}|{unkeyed}",
        sign(other_key, str(timestamp)),
        sign(credentials, f"{timestamp}0"),
    ]
    drawn = rng.randrange(len(forgeries) + 1)
    if drawn < len(forgeries):
        body["signature"] = forgeries[drawn]
    else:
        del body["signature"]
