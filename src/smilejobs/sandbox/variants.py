"""What is changed in an answer before it is sent: variants, which mean the same, and faults of its content.

The functions in the tables change a `Draft`, and have the names of variants, or of shares in `FaultProfile`. Sources:
the vendor's page, the samples in its documentation, and the fixtures of its clients, which differ from each other.
"""

import base64
import json
import random
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256, shake_256
from typing import Any

from attrs import define

from smilejobs.model.codes import NO_ZIP, STATUS_CODES
from smilejobs.model.jobs import JobRef
from smilejobs.settings import Credentials
from smilejobs.wire.codec import JSONObject
from smilejobs.wire.signature import format_timestamp, sign


@define(kw_only=True, repr=False)  # the body is signed
class Draft:
    """An answer that is being made.

    Attributes:
        ref: The job.
        at: The time of the answer.
        asked: The body of the request.
        credentials: The partner, whose key signs the answer.
        rng: The random generator of the poll.
        body: The body so far.
        beginning: How the body begins when it is written as JSON.
        refusal_status: The HTTP status if the answer is a refusal.
    """

    ref: JobRef
    at: datetime
    asked: JSONObject
    credentials: Credentials
    rng: random.Random
    body: dict[str, Any]
    beginning: bytes = b"{"
    refusal_status: int = 400

    @property
    def is_refusal(self) -> bool:
        """Whether the API refuses to answer."""
        return "job_complete" not in self.body

    @property
    def result(self) -> dict[str, Any]:
        """The result of a complete job; empty if there is none."""
        result = self.body.get("result")
        return result if isinstance(result, dict) else {}

    def encode(self) -> bytes:
        """Return the body as JSON."""
        return self.beginning + json.dumps(self.body, separators=(",", ":")).encode()[1:]


_Change = Callable[[Draft], None]

_VARIANTS: dict[str, _Change] = {}
"""The variants of answers and refusals."""
_ANSWER_VARIANTS: dict[str, _Change] = {}
"""The variants of answers."""
FAULTS: dict[str, _Change] = {}
"""The faults of the content of an answer."""
_SIGNATURE_FAULTS: dict[str, _Change] = {}
"""The faults of an answer that was signed."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HUGE_IMAGE_BYTES = 1_125_000
"""1.5 MB in base64."""
_NO_ZIP_TEXTS = ("No zip uploaded yet", "No zip uploaded", "No zip file received")
_RECEIPTS = ("kyc_receipt", "kyb_receipt")
"""The keys of an answer that hold the link to a receipt; the product decides which one."""
_FRAUD = {
    "summary": {"fraud_sources": [], "fraud_detected": False},
    "smile_secure": {"ResultCode": "0000", "ResultText": "No Suspect Users", "SuspectUsers": []},
}


def finish(draft: Draft, *, variants: Collection[str], faults: Collection[str], root: str) -> None:
    """Apply these variants and faults to an answer, and sign it, with receipts at *root*, unless it is a refusal."""
    _apply(_VARIANTS, variants, draft)
    if draft.is_refusal:
        return
    _apply(_ANSWER_VARIANTS, variants, draft)
    _apply(FAULTS, faults, draft)
    body, timestamp, partner_id = draft.body, str(draft.body["timestamp"]), draft.credentials.partner_id
    body["signature"] = signature = sign(draft.credentials, timestamp)
    for key in body.keys() & set(_RECEIPTS):
        path = f"/api/v3/{partner_id}/job_result_summary/{body[key]}/generate_pdf"
        body[key] = f"{root}{path}?signature={signature}&timestamp={timestamp}&environment=test"
    _apply(_SIGNATURE_FAULTS, faults, draft)


def _apply(table: Mapping[str, _Change], names: Collection[str], draft: Draft) -> None:
    for name, change in table.items():
        if name in names:
            change(draft)


def _in(table: dict[str, _Change]) -> Callable[[_Change], _Change]:
    """Return a decorator that puts a function into *table* under its name; they are applied in that order."""
    return lambda change: table.setdefault(change.__name__.strip("_"), change)


# --- Variants


@_in(_VARIANTS)
def _other_refusal(draft: Draft) -> None:
    """Refuse a job without images instead of answering; move or remove the text of another refusal.

    It is not known which of the two the API does for a job without images: both have been seen.
    """
    if draft.is_refusal:
        text = draft.body.pop("error")
        if draft.rng.random() < 0.5:
            draft.body["message"] = text
    elif draft.body["code"] == NO_ZIP:
        draft.body = {"error": STATUS_CODES[NO_ZIP].meaning, "code": NO_ZIP}


@_in(_VARIANTS)
def _refusal_status(draft: Draft) -> None:
    """Refuse with another HTTP status. It is not known which ones the API uses: the code counts."""
    draft.refusal_status = draft.rng.choice((200, 401, 403, 404))


@_in(_VARIANTS)
def _code_as_int(draft: Draft) -> None:
    draft.body["code"] = int(draft.body["code"])


@_in(_ANSWER_VARIANTS)
def _pending_result(draft: Draft) -> None:
    if not draft.body["job_complete"]:
        draft.body.pop("result", None)
        results: list[object] = [None, {}, *_NO_ZIP_TEXTS]
        draft.body |= draft.rng.choice([{}, *({"result": result} for result in results)])


@_in(_ANSWER_VARIANTS)
def _history(draft: Draft) -> None:
    """Write an empty history in one of three ways; shuffle another one, whose order is not documented."""
    if draft.body.get("history"):
        draft.rng.shuffle(draft.body["history"])
    else:
        draft.body.pop("history", None)
        draft.body |= draft.rng.choice(({}, {"history": []}, {"history": None}))


@_in(_ANSWER_VARIANTS)
def _inner_links(draft: Draft) -> None:
    """Move the links into the result; write null for no links."""
    if "image_links" in draft.body:
        draft.result["ImageLinks"] = draft.body.pop("image_links")
    else:
        draft.body["image_links"] = None


@_in(_ANSWER_VARIANTS)
def _job_type_as_number(draft: Draft) -> None:
    for params in [draft.result["PartnerParams"]] if draft.result else []:
        params["job_type"] = int(params["job_type"])


@_in(_ANSWER_VARIANTS)
def _confidence(draft: Draft) -> None:
    """Change the default values only, not one that was given to `Sandbox.submit`."""
    if draft.result.get("ConfidenceValue") in ("99", "0"):
        number = float(draft.result.pop("ConfidenceValue"))
        drawn = draft.rng.choice((f"{number:.6f}", f"{number:.2f}", number, int(number), None))
        if drawn is not None:
            draft.result["ConfidenceValue"] = drawn


@_in(_ANSWER_VARIANTS)
def _no_top_ids(draft: Draft) -> None:
    """Name the job in the result only, as the real server did when it was recorded."""
    del draft.body["user_id"], draft.body["job_id"]


@_in(_ANSWER_VARIANTS)
def _fewer_result_keys(draft: Draft) -> None:
    if draft.result:
        for key in ("ResultText", "ResultType", "JSONVersion", "Source", "Actions", "IsMachineResult"):
            if draft.rng.random() < 0.5:
                del draft.result[key]
        if draft.rng.random() < 0.5:
            draft.result["Actions"] = {}
        del draft.result["IsFinalResult"]  # the code of a provisional result says that it is one


@_in(_ANSWER_VARIANTS)
def _more_result_keys(draft: Draft) -> None:
    if draft.result:
        naive = draft.at.astimezone(UTC).replace(tzinfo=None)
        draft.body["result"] |= {
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


@_in(_ANSWER_VARIANTS)
def _more_keys(draft: Draft) -> None:
    draft.body["Antifraud"] = _FRAUD


@_in(_ANSWER_VARIANTS)
def _fewer_keys(draft: Draft) -> None:
    """Leave as few as three keys: timestamp, signature, job_complete."""
    most = draft.rng.choice((0.5, 1.0))
    for key in ("code", "job_success", "user_id", "job_id", *_RECEIPTS):
        if draft.rng.random() < most:
            draft.body.pop(key, None)


@_in(_ANSWER_VARIANTS)
def _wordy_booleans(draft: Draft) -> None:
    style = draft.rng.choice((str.lower, str.title, str.upper))
    for key in draft.body.keys() & {"job_complete", "job_success"}:
        draft.body[key] = style(str(draft.body[key]))


@_in(_ANSWER_VARIANTS)
def _double_keys(draft: Draft) -> None:
    """Write a wrong ``job_complete`` before the right one."""
    draft.beginning = b'{"job_complete":false,'


@_in(_ANSWER_VARIANTS)
def _timestamp(draft: Draft) -> None:
    draft.body["timestamp"] = draft.rng.choice(_TIMESTAMPS)(draft.at)


VARIANTS = (*_VARIANTS, *_ANSWER_VARIANTS)
"""The names of all variants. None of them changes the meaning of an answer."""


def _format(at: datetime, digits: int, zone: str) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}000"[: 20 + digits].rstrip(".") + zone


def _to_milliseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)


_TIMESTAMPS: tuple[Callable[[datetime], str | int], ...] = (
    format_timestamp,
    lambda at: _format(at, 0, "Z"),
    lambda at: _format(at, 6, "Z"),
    lambda at: _format(at, 9, "Z"),
    lambda at: _format(at, 6, "+00:00"),  # Python
    lambda at: _format(at, 0, "+00:00"),  # PHP
    lambda at: at.astimezone(timezone(timedelta(hours=1))).isoformat(timespec="milliseconds"),
    lambda at: at.astimezone(timezone(timedelta(hours=2))).strftime("%Y-%m-%d %H:%M:%S %z"),  # Ruby
    lambda at: str(_to_milliseconds(at)),
    _to_milliseconds,
)


# --- Faults


@_in(FAULTS)
def _link_errors(draft: Draft) -> None:
    """Write what the API does if it cannot make links: an error, placeholders, or links without a signature."""
    links = draft.result.get("ImageLinks") or draft.body.get("image_links") or {}
    error = {"error": "Could not generate image links"}
    drawn = draft.rng.choice(
        (error, error, dict.fromkeys(links, "image_link"), {name: url.partition("?")[0] for name, url in links.items()})
    )
    if links:
        links.clear()
        links |= drawn


@_in(FAULTS)
def _huge_bodies(draft: Draft) -> None:
    """Put an image of 1.5 MB in base64 into the result."""
    if draft.result:
        noise = shake_256(draft.result["SmileJobID"].encode()).digest(_HUGE_IMAGE_BYTES)
        draft.result["Photo"] = base64.b64encode(noise).decode("ascii")


@_in(FAULTS)
def _bare_results(draft: Draft) -> None:
    """Remove from a complete answer what a verdict needs."""
    if draft.result:
        drawn = draft.rng.randrange(6)
        if drawn < 3:
            draft.body["result"] = (None, {}, "Zip file failed")[drawn]
        elif drawn == 3:
            del draft.body["result"]
        else:
            del draft.result["ResultCode" if drawn == 4 else "PartnerParams"]


@_in(FAULTS)
def _wrong_jobs(draft: Draft) -> None:
    """Replace one id of the answer, or of its result, by that of another job or user."""
    key, other = draft.rng.choice((("user_id", f"{draft.ref.user_id}-2"), ("job_id", f"{draft.ref.job_id}-2")))
    places = [draft.body, draft.result["PartnerParams"]] if "PartnerParams" in draft.result else [draft.body]
    draft.rng.choice(places)[key] = other


@_in(_SIGNATURE_FAULTS)
def _reflections(draft: Draft) -> None:
    """Use the signature of the request itself, which verifies."""
    draft.body |= {"timestamp": draft.asked["timestamp"], "signature": draft.asked["signature"]}


@_in(_SIGNATURE_FAULTS)
def _forgeries(draft: Draft) -> None:
    """Replace the signature by a wrong one, or remove it. One is the old unkeyed hash, which needs no key."""
    signed, partner_id = str(draft.body["timestamp"]), draft.credentials.partner_id
    unkeyed = sha256(f"{partner_id.lstrip('0')}:{signed}".encode()).hexdigest()
    other_key = Credentials(partner_id, f"{draft.credentials.api_key}-of-another")
    wrong: list[object] = [
        None,
        17,
        "\u00e9" * 44,
        "",
        unkeyed,
        f"{base64.b64encode(unkeyed.encode()).decode()}|{unkeyed}",
        sign(other_key, signed),
        sign(draft.credentials, f"{signed}0"),
    ]
    del draft.body["signature"]
    drawn = draft.rng.randrange(len(wrong) + 1)
    if drawn < len(wrong):
        draft.body["signature"] = wrong[drawn]
