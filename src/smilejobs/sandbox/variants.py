"""What is changed in an answer before it is sent: variants, which mean the same, and faults of its content.

Each is a method of `Draft`; the faults have the names of shares in `FaultProfile`. Sources: the vendor's page, the
samples in its documentation, and the fixtures of its clients, which differ from each other.
"""

import base64
import random
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256, shake_256
from typing import Any

from attrs import define

from smilejobs.model.codes import NO_ZIP, STATUS_CODES
from smilejobs.model.jobs import JobRef
from smilejobs.settings import Credentials
from smilejobs.wire.codec import JSONObject
from smilejobs.wire.signature import format_timestamp, sign

_VARIANTS_OF_ALL = ("other_refusal", "refusal_status", "code_as_int")
"""The variants of answers and refusals, in the order in which they are applied."""
_VARIANTS_OF_ANSWERS = (
    "pending_result",
    "history",
    "inner_links",
    "job_type_as_number",
    "confidence",
    "no_top_ids",
    "fewer_result_keys",
    "more_result_keys",
    "more_keys",
    "fewer_keys",
    "wordy_booleans",
    "double_keys",
    "timestamp",
)
"""The variants of answers."""
VARIANTS = (*_VARIANTS_OF_ALL, *_VARIANTS_OF_ANSWERS)
"""All variants. None of them changes the meaning of an answer."""
FAULTS = ("link_errors", "huge_bodies", "bare_results", "wrong_jobs")
"""The faults of the content of an answer."""
_FAULTS_OF_SIGNATURES = ("reflections", "forgeries")
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


@define(kw_only=True, repr=False)  # the body is signed
class Draft:
    """An answer that is being made, with the *body* of the request in *asked*.

    *beginning* is how the body begins when it is written as JSON, *refused_with* the HTTP status of a refusal.
    """

    ref: JobRef
    at: datetime
    asked: JSONObject
    credentials: Credentials
    rng: random.Random
    body: dict[str, Any]
    beginning: bytes = b"{"
    refused_with: int = 400

    @property
    def is_refusal(self) -> bool:
        """Whether the API refuses to answer."""
        return "job_complete" not in self.body

    @property
    def result(self) -> dict[str, Any]:
        """The result of a complete job; empty if there is none."""
        result = self.body.get("result")
        return result if isinstance(result, dict) else {}

    def finish(self, names: Collection[str], root: str) -> None:
        """Apply variants and faults by their names; sign the answer, with a receipt at *root*, if it is no refusal."""
        self._apply(_VARIANTS_OF_ALL, names)
        if self.is_refusal:
            return
        self._apply((*_VARIANTS_OF_ANSWERS, *FAULTS), names)
        timestamp, partner_id = str(self.body["timestamp"]), self.credentials.partner_id
        self.body["signature"] = signature = sign(self.credentials, timestamp)
        for key in self.body.keys() & set(_RECEIPTS):
            path = f"/api/v3/{partner_id}/job_result_summary/{self.body[key]}/generate_pdf"
            self.body[key] = f"{root}{path}?signature={signature}&timestamp={timestamp}&environment=test"
        self._apply(_FAULTS_OF_SIGNATURES, names)

    def _apply(self, table: Iterable[str], names: Collection[str]) -> None:
        for name in table:
            if name in names:
                getattr(self, name)()

    # --- Variants

    def other_refusal(self) -> None:
        """Refuse a job without images instead of answering; move or remove the text of another refusal.

        It is not known which of the two the API does for a job without images: both have been seen.
        """
        if self.is_refusal:
            text = self.body.pop("error")
            if self.rng.random() < 0.5:
                self.body["message"] = text
        elif self.body["code"] == NO_ZIP:
            self.body = {"error": STATUS_CODES[NO_ZIP].meaning, "code": NO_ZIP}

    def refusal_status(self) -> None:
        """Refuse with another HTTP status. It is not known which ones the API uses: the code counts."""
        self.refused_with = self.rng.choice((200, 401, 403, 404))

    def code_as_int(self) -> None:
        """Write the code as a number."""
        self.body["code"] = int(self.body["code"])

    def pending_result(self) -> None:
        """Write nothing, null, an empty object or any known text as the result of a pending job."""
        if not self.body["job_complete"]:
            self.body.pop("result", None)
            results: list[object] = [None, {}, *_NO_ZIP_TEXTS]
            self.body |= self.rng.choice([{}, *({"result": result} for result in results)])

    def history(self) -> None:
        """Write an empty history in one of three ways; shuffle another one, whose order is not documented."""
        if self.body.get("history"):
            self.rng.shuffle(self.body["history"])
        else:
            self.body.pop("history", None)
            self.body |= self.rng.choice(({}, {"history": []}, {"history": None}))

    def inner_links(self) -> None:
        """Move the links into the result; write null for no links."""
        if "image_links" in self.body:
            self.result["ImageLinks"] = self.body.pop("image_links")
        else:
            self.body["image_links"] = None

    def job_type_as_number(self) -> None:
        """Write the job type as a number."""
        if self.result:
            self.result["PartnerParams"]["job_type"] = int(self.result["PartnerParams"]["job_type"])

    def confidence(self) -> None:
        """Change the default values only, not one that was given to `Sandbox.submit`."""
        if self.result.get("ConfidenceValue") in ("99", "0"):
            number = float(self.result.pop("ConfidenceValue"))
            drawn = self.rng.choice((f"{number:.6f}", f"{number:.2f}", number, int(number), None))
            if drawn is not None:
                self.result["ConfidenceValue"] = drawn

    def no_top_ids(self) -> None:
        """Name the job in the result only, as the real server did when it was recorded."""
        del self.body["user_id"], self.body["job_id"]

    def fewer_result_keys(self) -> None:
        """Leave out keys of the result."""
        if self.result:
            for key in ("ResultText", "ResultType", "JSONVersion", "Source", "Actions", "IsMachineResult"):
                if self.rng.random() < 0.5:
                    del self.result[key]
            if self.rng.random() < 0.5:
                self.result["Actions"] = {}
            del self.result["IsFinalResult"]  # the code of a provisional result says that it is one

    def more_result_keys(self) -> None:
        """Add keys that were seen in results."""
        if self.result:
            naive = self.at.astimezone(UTC).replace(tzinfo=None)
            self.body["result"] |= {
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

    def more_keys(self) -> None:
        """Add a key that was seen in answers."""
        self.body["Antifraud"] = _FRAUD

    def fewer_keys(self) -> None:
        """Leave as few as three keys: timestamp, signature, job_complete."""
        most = self.rng.choice((0.5, 1.0))
        for key in ("code", "job_success", "user_id", "job_id", *_RECEIPTS):
            if self.rng.random() < most:
                self.body.pop(key, None)

    def wordy_booleans(self) -> None:
        """Write booleans as texts."""
        style = self.rng.choice((str.lower, str.title, str.upper))
        for key in self.body.keys() & {"job_complete", "job_success"}:
            self.body[key] = style(str(self.body[key]))

    def double_keys(self) -> None:
        """Write a wrong ``job_complete`` before the right one."""
        self.beginning = b'{"job_complete":false,'

    def timestamp(self) -> None:
        """Write the timestamp in another format."""
        self.body["timestamp"] = self.rng.choice(_TIMESTAMPS)(self.at)

    # --- Faults

    def link_errors(self) -> None:
        """Write what the API does if it cannot make links: an error, placeholders, or links without a signature."""
        links = self.result.get("ImageLinks") or self.body.get("image_links")
        if links:
            error = {"error": "Could not generate image links"}
            unsigned = {name: url.partition("?")[0] for name, url in links.items()}
            drawn = self.rng.choice((error, error, dict.fromkeys(links, "image_link"), unsigned))
            links.clear()
            links |= drawn

    def huge_bodies(self) -> None:
        """Put an image of 1.5 MB in base64 into the result."""
        if self.result:
            noise = shake_256(self.result["SmileJobID"].encode()).digest(_HUGE_IMAGE_BYTES)
            self.result["Photo"] = base64.b64encode(noise).decode("ascii")

    def bare_results(self) -> None:
        """Remove from a complete answer what a verdict needs."""
        if self.result:
            drawn = self.rng.randrange(6)
            if drawn < 3:
                self.body["result"] = (None, {}, "Zip file failed")[drawn]
            elif drawn == 3:
                del self.body["result"]
            else:
                del self.result["ResultCode" if drawn == 4 else "PartnerParams"]

    def wrong_jobs(self) -> None:
        """Replace one id of the answer, or of its result, by that of another job or user."""
        key, other = self.rng.choice((("user_id", f"{self.ref.user_id}-2"), ("job_id", f"{self.ref.job_id}-2")))
        places = [self.body, self.result["PartnerParams"]] if "PartnerParams" in self.result else [self.body]
        self.rng.choice(places)[key] = other

    def reflections(self) -> None:
        """Use the signature of the request itself, which verifies."""
        self.body |= {"timestamp": self.asked["timestamp"], "signature": self.asked["signature"]}

    def forgeries(self) -> None:
        """Replace the signature by a wrong one, or remove it. One is the vendor's former hash, which needs no key."""
        signed, partner_id = str(self.body["timestamp"]), self.credentials.partner_id
        unkeyed = sha256(f"{partner_id.lstrip('0')}:{signed}".encode()).hexdigest()
        other_key = Credentials(partner_id, f"{self.credentials.api_key}-of-another")
        wrong: list[object] = [
            None,
            17,
            "\u00e9" * 44,
            "",
            unkeyed,
            f"{base64.b64encode(unkeyed.encode()).decode()}|{unkeyed}",
            sign(other_key, signed),
            sign(self.credentials, f"{signed}0"),
        ]
        del self.body["signature"]
        drawn = self.rng.randrange(len(wrong) + 1)
        if drawn < len(wrong):
            self.body["signature"] = wrong[drawn]
