"""The many ways in which the API and its clients are known to write one and the same answer, and the wrong ones.

Every function here changes the body of an answer that is not signed yet. Sources: the vendor's page, the samples in
its documentation, and the fixtures of its own clients, which do not agree.
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
"""The keys of an answer that hold the link to a receipt; which one depends on the product."""

Body = dict[str, object]
_Respelling = Callable[[Body, datetime, random.Random], None]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HUGE = 1_125_000
_NO_ZIP_TEXTS = ("No zip uploaded yet", "No zip uploaded", "No zip file received")
_FRAUD = {
    "summary": {"fraud_sources": [], "fraud_detected": False},
    "smile_secure": {"ResultCode": "0000", "ResultText": "No Suspect Users", "SuspectUsers": []},
}


def _fraction(at: datetime, digits: int) -> str:
    seconds, _, fraction = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").partition(".")
    return f"{seconds}.{fraction:0<9}"[: 20 + digits]


def _milliseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)


TIMESTAMPS: Mapping[str, Callable[[datetime], str | int]] = MappingProxyType(
    {
        "milliseconds": format_timestamp,
        "microseconds": lambda at: _fraction(at, 6) + "Z",
        "nanoseconds": lambda at: _fraction(at, 9) + "Z",
        "whole": lambda at: _fraction(at, 0)[:19] + "Z",
        "python": lambda at: _fraction(at, 6) + "+00:00",
        "php": lambda at: _fraction(at, 0)[:19] + "+00:00",
        "offset": lambda at: at.astimezone(timezone(timedelta(hours=1))).isoformat(timespec="milliseconds"),
        "ruby": lambda at: at.astimezone(timezone(timedelta(hours=2))).strftime("%Y-%m-%d %H:%M:%S %z"),
        "epoch_text": lambda at: str(_milliseconds(at)),
        "epoch": _milliseconds,
    }
)
"""The spellings of an instant, by a name of ours for each."""


def _wordy_booleans(body: Body, at: datetime, chance: random.Random) -> None:
    style = chance.choice((str.lower, str.title, str.upper))
    for key in ("job_complete", "job_success"):
        if key in body:
            body[key] = style(str(body[key]))


def _code_as_int(body: Body, at: datetime, chance: random.Random) -> None:
    if "code" in body:
        body["code"] = int(str(body["code"]))


def _timestamp(body: Body, at: datetime, chance: random.Random) -> None:
    if "timestamp" in body:
        body["timestamp"] = TIMESTAMPS[chance.choice(list(TIMESTAMPS))](at)


def _fewer_keys(body: Body, at: datetime, chance: random.Random) -> None:
    """As few as three: timestamp, signature, job_complete."""
    if "job_complete" in body:
        most = chance.choice((0.5, 1.0))
        for key in ("code", "job_success", "user_id", "job_id", *RECEIPTS):
            if chance.random() < most:
                body.pop(key, None)


def _pending_result(body: Body, at: datetime, chance: random.Random) -> None:
    if body.get("job_complete") is False:
        body.pop("result", None)
        others: list[object] = [None, {}, *_NO_ZIP_TEXTS]
        drawn = chance.randrange(len(others) + 1)
        if drawn < len(others):
            body["result"] = others[drawn]


def _history(body: Body, at: datetime, chance: random.Random) -> None:
    """Write no history in one of three ways; shuffle the entries of one, whose order is not documented."""
    if "job_complete" not in body:
        return
    entries = body.pop("history", None)
    if isinstance(entries, list) and entries:
        chance.shuffle(entries)
        body["history"] = entries
    elif chance.random() < 0.67:
        body["history"] = chance.choice(([], None))


def _inner_links(body: Body, at: datetime, chance: random.Random) -> None:
    """The links lie in the result; no links are null."""
    result = body.get("result")
    if isinstance(result, dict) and "image_links" in body:
        result["ImageLinks"] = body.pop("image_links")
    elif "job_complete" in body:
        body.setdefault("image_links", None)


def _result_of(respell: Callable[[dict[str, object], datetime, random.Random], None]) -> _Respelling:
    """A respelling of the result of a complete answer."""

    def of_body(body: Body, at: datetime, chance: random.Random) -> None:
        result = body.get("result")
        if isinstance(result, dict) and result:
            respell(result, at, chance)

    return of_body


def _job_type_as_number(result: dict[str, object], at: datetime, chance: random.Random) -> None:
    params = result["PartnerParams"]
    assert isinstance(params, dict)
    result["PartnerParams"] = {**params, "job_type": int(str(params["job_type"]))}


def _confidence(result: dict[str, object], at: datetime, chance: random.Random) -> None:
    """Of the usual one; what the caller of `submit` has put there stays."""
    if result.get("ConfidenceValue") in ("99", "0"):
        number = float(str(result.pop("ConfidenceValue")))
        drawn = chance.choice((f"{number:.6f}", f"{number:.2f}", number, int(number), None))
        if drawn is not None:
            result["ConfidenceValue"] = drawn


def _fewer_result_keys(result: dict[str, object], at: datetime, chance: random.Random) -> None:
    for key in ("ResultText", "ResultType", "JSONVersion", "Source", "Actions", "IsMachineResult"):
        if chance.random() < 0.5:
            result.pop(key, None)
    if chance.random() < 0.5:
        result["Actions"] = {}
    del result["IsFinalResult"]  # a provisional result has a code of its own, and the others count as final


def _more_result_keys(result: dict[str, object], at: datetime, chance: random.Random) -> None:
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


def _more_keys(body: Body, at: datetime, chance: random.Random) -> None:
    if "job_complete" in body:
        body["Antifraud"] = _FRAUD


def _no_top_ids(body: Body, at: datetime, chance: random.Random) -> None:
    """Name the job in the result alone, as the real server was recorded to do, against the vendor's own page."""
    for key in ("user_id", "job_id"):
        body.pop(key, None)


def _other_refusal(body: Body, at: datetime, chance: random.Random) -> None:
    """No job without images is refused, or the other way round; the text of a refusal has another key, or is missing.

    Whether the API refuses or answers when a job has no images yet is not known: both have been seen.
    """
    if body.get("code") == NO_ZIP and "job_complete" in body:
        body.clear()
        body |= {"error": STATUS_CODES[NO_ZIP].meaning, "code": NO_ZIP}
    elif "error" in body:
        text = body.pop("error")
        if chance.random() < 0.5:
            body["message"] = text


RESPELLINGS: Mapping[str, _Respelling] = MappingProxyType(
    {
        "other_refusal": _other_refusal,
        "pending_result": _pending_result,
        "history": _history,
        "inner_links": _inner_links,
        "job_type_as_number": _result_of(_job_type_as_number),
        "confidence": _result_of(_confidence),
        "no_top_ids": _no_top_ids,
        "fewer_result_keys": _result_of(_fewer_result_keys),
        "more_result_keys": _result_of(_more_result_keys),
        "more_keys": _more_keys,
        "fewer_keys": _fewer_keys,
        "wordy_booleans": _wordy_booleans,
        "code_as_int": _code_as_int,
        "timestamp": _timestamp,
        "refusal_status": lambda body, at, chance: None,
        "double_keys": lambda body, at, chance: None,
    }
)
"""What an answer can be respelled in, by a name of ours; none of them changes what it says.

The last two are no matter of the body: `refusal_status` and `encode` see to them.
"""


def respell(body: Body, names: tuple[str, ...], at: datetime, chance: random.Random) -> None:
    """Write *body*, the answer of the instant *at*, in other ways."""
    for name, change in RESPELLINGS.items():
        if name in names:
            change(body, at, chance)


def refusal_status(names: tuple[str, ...], chance: random.Random) -> int:
    """Return the HTTP status of a refusal. Which one the API uses is not known for sure: the code counts."""
    return chance.choice((200, 401, 403, 404)) if "refusal_status" in names else 400


def sign_body(body: Body, credentials: Credentials, root: str) -> None:
    """Sign *body*, and write the links to receipts, whose query holds the answer's own signature and timestamp.

    Args:
        body: The answer; under the key of a receipt, if there is one, is the SmileJobID.
        credentials: The partner whose signature it is.
        root: Where the client reaches the sandbox.
    """
    timestamp = str(body["timestamp"])
    body["signature"] = signature = sign(credentials, timestamp)
    for key in body.keys() & set(RECEIPTS):
        path = f"/api/v3/{credentials.partner_id}/job_result_summary/{body[key]}/generate_pdf"
        body[key] = f"{root}{path}?signature={signature}&timestamp={timestamp}&environment=test"


def encode(body: Body, names: tuple[str, ...] = ()) -> bytes:
    """Return *body* as it travels; perhaps with keys that come twice, the last one being right."""
    encoded = json.dumps(body, separators=(",", ":")).encode()
    if "double_keys" in names and "job_complete" in body:
        return b'{"job_complete":false,' + encoded[1:]
    return encoded


# --- What changes the meaning


def make_bare(body: Body, chance: random.Random) -> None:
    """Leave out of a complete answer what a verdict needs: nobody can tell how the job ended."""
    result = body["result"]
    assert isinstance(result, dict)
    drawn = chance.randrange(6)
    if drawn == 0:
        del body["result"]
    elif drawn < 4:
        body["result"] = (None, {}, "Zip file failed")[drawn - 1]
    else:
        del result["ResultCode" if drawn == 4 else "PartnerParams"]


def make_huge(body: Body) -> None:
    """Put a picture of 1.5 MB into the result, in base64."""
    result = body["result"]
    assert isinstance(result, dict)
    noise = shake_256(str(result["SmileJobID"]).encode()).digest(_HUGE)
    result["Photo"] = base64.b64encode(noise).decode("ascii")


def fail_links(links: Mapping[str, str], chance: random.Random) -> dict[str, str]:
    """Return what stands in the place of *links* that could not be made: an error, or links that are none."""
    other = chance.randrange(4)
    if other == 0:
        return dict.fromkeys(links, "image_link")
    if other == 1:
        return {name: url.partition("?")[0] for name, url in links.items()}
    return {"error": "Could not generate image links"}


def name_another_job(body: Body, ref: JobRef, chance: random.Random) -> None:
    """Let the answer speak of another job or user than *ref*, itself or in its result."""
    result = body.get("result")
    key, other = chance.choice((("user_id", f"{ref.user_id}-2"), ("job_id", f"{ref.job_id}-2")))
    params = result.get("PartnerParams") if isinstance(result, dict) else None
    if isinstance(result, dict) and isinstance(params, dict) and chance.random() < 0.5:
        result["PartnerParams"] = {**params, key: other}
    else:
        body[key] = other


def forge(body: Body, credentials: Credentials, chance: random.Random) -> None:
    """Give the answer a signature that is wrong, or none; among them the unkeyed hash of old, which anybody makes."""
    timestamp = body["timestamp"]
    partner_id = credentials.partner_id
    unkeyed = sha256(f"{partner_id.lstrip('0')}:{timestamp}".encode()).hexdigest()
    stranger = Credentials(partner_id, f"{credentials.api_key}-of-another")
    forgeries: list[object] = [
        None,
        17,
        "\u00e9" * 44,
        "",
        unkeyed,
        f"{base64.b64encode(unkeyed.encode()).decode()}|{unkeyed}",
        sign(stranger, str(timestamp)),
        sign(credentials, f"{timestamp}0"),
    ]
    drawn = chance.randrange(len(forgeries) + 1)
    if drawn < len(forgeries):
        body["signature"] = forgeries[drawn]
    else:
        del body["signature"]
