"""What the API says about a job, as values.

Everything here is frozen. Reprs are one line and show no ids, no links and no personal data; `JobRef.tag` stands for
the ids there.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from importlib import import_module

from attrs import field, fields, frozen

from smilejobs.errors import NotApprovedError
from smilejobs.model.codes import Verdict, describe, describe_result, shown, verdict_by_code
from smilejobs.model.links import ImageLink, ImageLinks
from smilejobs.model.tables import table, word

_PYDANTIC_MODELS = "smilejobs.integrations.models"
"""Imported when pydantic asks for it: pydantic is no dependency of this package."""


@frozen(repr=False)
class JobRef:
    """The name of a job: the two ids under which it was submitted.

    Two refs are equal when their ids are.

    Args:
        user_id: The ``user_id`` that the job was submitted with.
        job_id: The ``job_id`` that the job was submitted with.
        submitted_at: When it was submitted (timezone-aware), if known: waiting is paced by the age of the job.

    Raises:
        TypeError: An id is not a string, or *submitted_at* not a datetime.
        ValueError: An id is empty or cannot be written as UTF-8, or *submitted_at* is naive.
    """

    user_id: str = field()
    job_id: str = field()
    submitted_at: datetime | None = field(default=None, eq=False)

    def __attrs_post_init__(self) -> None:
        for name, value in (("user_id", self.user_id), ("job_id", self.job_id)):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a string, not {type(value).__name__}")
            if not value or value.isspace():
                raise ValueError(f"{name} must not be empty")
            if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
                raise ValueError(f"{name} holds half a surrogate pair, which cannot be sent")
        at = self.submitted_at
        if at is None:
            return
        if not isinstance(at, datetime):
            raise TypeError(f"submitted_at must be a datetime, not {type(at).__name__}")
        if at.utcoffset() is None:
            raise ValueError("submitted_at must be timezone-aware, for example datetime.now(timezone.utc)")

    @property
    def tag(self) -> str:
        """Eight hexadecimal characters that stand for the ids in logs, reprs and error texts."""
        return sha256(f"{self.user_id}\0{self.job_id}".encode()).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"<JobRef {self.tag}>"


@frozen(kw_only=True)
class Include:
    """What a poll asks for besides the state of the job.

    Attributes:
        image_links: Links to the pictures.
        history: The history of the user.
    """

    image_links: bool = False
    history: bool = False


@frozen(kw_only=True)
class PartnerParams:
    """What the partner sent along with the job, as the API gives it back.

    Attributes:
        user_id: The job's ``user_id``; a number is read as its digits.
        job_id: The job's ``job_id``; a number is read as its digits.
        job_type: The product, see `smilejobs.model.codes.JOB_TYPES`; the API spells it as a number or a string.
        extra: All other keys, as they came. Empty beyond 500 keys, which are then found in `JobResult.raw`.
    """

    user_id: str | None = field(default=None, repr=False)
    job_id: str | None = field(default=None, repr=False)
    job_type: int | None = None
    extra: Mapping[str, object] = field(factory=dict[str, object], repr=False, eq=False)


_PERSONAL = {"personal": True}
"""Marks a field that says something about the person: in `as_dict` only on request."""


@frozen(kw_only=True)
class JobResult:
    """The outcome of one job; also an entry of the user's history.

    Every attribute but *actions* and *raw* is None where the API gave nothing, or nothing that could be read.

    Attributes:
        result_code: ``ResultCode``, for example ``"0810"``; leading zeros matter.
        result_text: ``ResultText``, for people. The same code has different texts by product.
        result_type: ``ResultType``, for example ``"SAIA"`` or ``"ID Verification"``.
        smile_job_id: ``SmileJobID``, the vendor's own number of the job: what support asks for.
        partner_params: ``PartnerParams``, among them the ids.
        confidence_value: ``ConfidenceValue``, 0 to 100; the API spells it as a number or a string.
        actions: ``Actions``, what was done and how it ended. For display: the verdict rests on the result code. Empty
            beyond 500 actions, which are then found in *raw*.
        is_final_result: ``IsFinalResult``; False while a human review goes on.
        is_machine_result: ``IsMachineResult``.
        country, id_type, id_number, full_name, first_name, last_name, other_name, dob, gender, address, phone_number,
            phone_number2, expiration_date, issuance_date, secondary_id_number, id_status: Personal data as the ID
            authority wrote it; "Not Available" is a usual value.
        photo, document: Images of the ID authority, base64.
        raw: The whole object as it came, personal data, links and receipts included.
    """

    result_code: str | None = field(default=None, repr=shown)
    result_text: str | None = field(default=None, repr=False)
    result_type: str | None = field(default=None, repr=False)
    smile_job_id: str | None = field(default=None, repr=shown)
    partner_params: PartnerParams | None = field(default=None, repr=False)
    confidence_value: float | None = field(default=None, repr=False)
    actions: Mapping[str, str] = field(factory=dict[str, str], repr=False)
    is_final_result: bool | None = None
    is_machine_result: bool | None = field(default=None, repr=False)
    country: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    id_type: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    id_number: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    full_name: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    first_name: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    last_name: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    other_name: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    dob: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    gender: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    address: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    phone_number: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    phone_number2: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    expiration_date: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    issuance_date: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    secondary_id_number: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    id_status: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    photo: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    document: str | None = field(default=None, repr=False, metadata=_PERSONAL)
    raw: Mapping[str, object] = field(factory=dict[str, object], repr=False, eq=False)

    def as_dict(self, *, personal: bool = False) -> dict[str, object]:
        """Return the result ready for `json.dumps`, without *raw*.

        Args:
            personal: Include the personal fields and the partner's own parameters.
        """
        params = self.partner_params
        out: dict[str, object] = {
            attribute.name: getattr(self, attribute.name)
            for attribute in fields(JobResult)
            if attribute.name not in ("partner_params", "actions", "raw")
            and (personal or not attribute.metadata.get("personal"))
        }
        out["actions"] = dict(self.actions)
        out["partner_params"] = (
            None
            if params is None
            else {
                "user_id": params.user_id,
                "job_id": params.job_id,
                "job_type": params.job_type,
                **({"extra": dict(params.extra)} if personal else {}),
            }
        )
        return out

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: Callable[[object], object]) -> object:
        """Let pydantic, which alone calls this, write a result as `as_dict` does: for ``-> JobResult`` in FastAPI."""
        return import_module(_PYDANTIC_MODELS).core_schema_of(cls, handler)

    def _repr_html_(self) -> str:
        final = {None: "not said", True: "yes", False: "no"}[self.is_final_result]
        return table(
            "result",
            [
                ("result code", describe_result(self.result_code)),
                ("by its code", verdict_by_code(self.result_code)),
                ("final", final),
                ("SmileJobID", "none" if self.smile_job_id is None else shown(self.smile_job_id)),
                ("confidence", "none" if self.confidence_value is None else f"{self.confidence_value:g}"),
            ],
        )


@frozen(kw_only=True, repr=False)
class JobStatus:
    """One answer of the Job Status API about one job.

    It has been verified: its signature is the partner's, and it speaks of the job that was asked for. Only an answer
    that says no more than "not yet" may come without a valid signature; it has a *code* and a *retry_after* at most.

    Attributes:
        user_id: The ``user_id`` that was asked for.
        job_id: The ``job_id`` that was asked for.
        job_complete: Whether the API has reported a final status. True only for JSON ``true`` or the word "true".
        job_success: Whether there was a successful match; None if the answer does not say.
        code: The status code of the call, "2302" as a rule.
        message: The ``result`` where it was a text and no object, for example "No zip uploaded yet".
        result: The outcome; None while there is none.
        history: The history of the *user*, if asked for: entries of other jobs among them, in no documented order.
            Empty if what the API sent is no list; it is then found in *raw*.
        image_links: Expiring links to the pictures, if asked for. None if what the API sent is no object; it is then
            found in *raw*.
        receipt: The link to the vendor's receipt of the check (``kyc_receipt``, ``kyb_receipt`` or ``KYCReceipt``), a
            secret: its query holds the signature of the answer. None if there is none.
        timestamp: The instant of the answer, in UTC; None where it was written in a way that names no instant.
        retry_after: Seconds for which the API asks not to be asked again, from the ``Retry-After`` header.
        raw: The whole body as it came: personal data, links, receipts and the signature included, and what was not
            asked for.
    """

    user_id: str
    job_id: str
    job_complete: bool = False
    job_success: bool | None = None
    code: str | None = None
    message: str | None = None
    result: JobResult | None = None
    history: tuple[JobResult, ...] = ()
    image_links: ImageLinks | None = None
    receipt: ImageLink | None = None
    timestamp: datetime | None = None
    retry_after: float | None = field(default=None, eq=False)
    raw: Mapping[str, object] = field(factory=dict[str, object], eq=False)

    @property
    def ref(self) -> JobRef:
        """The job that this answer is about."""
        return JobRef(self.user_id, self.job_id)

    @property
    def verdict(self) -> Verdict | None:
        """What the answer means for the person; None until the job is complete.

        The result code decides, by the vendor's table. Every verdict but `Verdict.ERROR` and `Verdict.UNKNOWN` needs
        PartnerParams that name this job: a result that names no job rejects no person either. An approving code
        counts as `Verdict.APPROVED` only if nothing in the answer says otherwise: ``IsFinalResult`` false makes it
        provisional, ``job_success`` false makes it unknown. ``Actions`` and the history do not count: a job all of
        whose actions passed can be rejected, and the history holds other jobs.
        """
        if not self.job_complete:
            return None
        result = self.result or JobResult()
        verdict = verdict_by_code(result.result_code)
        if verdict in (Verdict.ERROR, Verdict.UNKNOWN):
            return verdict
        params = result.partner_params or PartnerParams()
        if (params.user_id, params.job_id) != (self.user_id, self.job_id):
            return Verdict.UNKNOWN
        if verdict is Verdict.APPROVED and self.job_success is False:
            return Verdict.UNKNOWN
        if verdict is Verdict.APPROVED and result.is_final_result is False:
            return Verdict.PROVISIONAL
        return verdict

    @property
    def is_final(self) -> bool:
        """Whether the outcome will not change: complete, no provisional result code, and ``IsFinalResult`` not false.

        A complete answer whose result code is in no table is final, and its verdict is `Verdict.UNKNOWN`. The same
        holds for a result that names no job, unless its code is a provisional one. The vendor warns that a polled
        result may not be the final one where human review is required.
        """
        if not self.job_complete:
            return False
        result = self.result or JobResult()
        return verdict_by_code(result.result_code) is not Verdict.PROVISIONAL and result.is_final_result is not False

    def raise_for_verdict(self) -> None:
        """Do nothing if the verdict is `Verdict.APPROVED`, else raise.

        Raises:
            NotApprovedError: For every other verdict, and for a job that is not complete.
        """
        if self.verdict is not Verdict.APPROVED:
            raise NotApprovedError(self)

    def as_dict(self, *, personal: bool = False, links: bool = False) -> dict[str, object]:
        """Return the answer ready for `json.dumps`, without *raw*.

        Args:
            personal: Include the personal fields and the partner's own parameters.
            links: Include the URLs of the image links and of the receipt, which are secrets.
        """
        images = self.image_links
        return {
            "user_id": self.user_id,
            "job_id": self.job_id,
            "job_complete": self.job_complete,
            "job_success": self.job_success,
            "code": self.code,
            "message": self.message,
            "verdict": None if self.verdict is None else self.verdict.value,
            "is_final": self.is_final,
            "timestamp": None if self.timestamp is None else self.timestamp.isoformat(),
            "result": None if self.result is None else self.result.as_dict(personal=personal),
            "history": [entry.as_dict(personal=personal) for entry in self.history],
            "image_links": None
            if images is None
            else {
                "error": images.error,
                **{name: _link_as_dict(link, url=links) for name, link in images.items()},
            },
            "receipt": None if self.receipt is None else _link_as_dict(self.receipt, url=links),
        }

    def __repr__(self) -> str:
        smile_job_id = None if self.result is None else self.result.smile_job_id
        verdict = word(self.verdict)
        return f"<JobStatus {self.ref.tag}: {verdict}, code={shown(self.code)}, smile_job_id={shown(smile_job_id)}>"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: Callable[[object], object]) -> object:
        """Let pydantic, which alone calls this, write an answer as `as_dict` does: for ``-> JobStatus`` in FastAPI."""
        return import_module(_PYDANTIC_MODELS).core_schema_of(cls, handler)

    def _repr_html_(self) -> str:
        result = self.result or JobResult()
        return table(
            f"job {self.ref.tag}",
            [
                ("verdict", self.verdict),
                ("final", "yes" if self.is_final else "no"),
                ("code", describe(self.code)),
                ("result code", describe_result(result.result_code)),
                ("SmileJobID", "none" if result.smile_job_id is None else shown(result.smile_job_id)),
                *([("image links", str(len(self.image_links)))] if self.image_links is not None else []),
                *([("history", f"{len(self.history)} of this user's results")] if self.history else []),
            ],
        )


def _link_as_dict(link: ImageLink, *, url: bool) -> dict[str, object]:
    expires_at = None if link.expires_at is None else link.expires_at.isoformat()
    return {**({"url": link.url} if url else {}), "expires_at": expires_at}
