"""The answers of the API about a job, as frozen values.

Each repr is one line without ids, links or personal data; `JobRef.tag` stands for the ids.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from importlib import import_module

from attrs import field, fields, frozen

from smilejobs.errors import NotApprovedError
from smilejobs.model.codes import Verdict, describe, describe_result, display_number, verdict_by_code
from smilejobs.model.links import ImageLink, ImageLinks
from smilejobs.model.tables import table, word

_PYDANTIC_MODELS = "smilejobs.integrations.models"
"""Imported only when pydantic calls `__get_pydantic_core_schema__`: pydantic is not a required dependency."""


@frozen(repr=False)
class JobRef:
    """A reference to a job: the two ids with which it was submitted.

    Two refs are equal if their ids are equal.

    Args:
        user_id: The ``user_id`` that the job was submitted with.
        job_id: The ``job_id`` that the job was submitted with.
        submitted_at: When the job was submitted (timezone-aware); None if unknown. The pace of polling depends on the
            age of the job.

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
                raise ValueError(f"{name} holds half a surrogate pair, which UTF-8 cannot encode")
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
    """The optional parts of an answer that a poll requests.

    Attributes:
        image_links: Whether to request links to the pictures.
        history: Whether to request the history of the user.
    """

    image_links: bool = False
    history: bool = False


@frozen(kw_only=True)
class PartnerParams:
    """The parameters that the partner submitted with the job, as the API returns them.

    Attributes:
        user_id: The job's ``user_id``; a number is read as its digits.
        job_id: The job's ``job_id``; a number is read as its digits.
        job_type: The product, see `smilejobs.model.codes.JOB_TYPES`; the API sends it as a number or a string.
        extra: All other keys, unchanged. Empty if there are more than 500 keys; `JobResult.raw` has them.
    """

    user_id: str | None = field(default=None, repr=False)
    job_id: str | None = field(default=None, repr=False)
    job_type: int | None = None
    extra: Mapping[str, object] = field(factory=dict[str, object], repr=False, eq=False)


_PERSONAL = {"personal": True}
"""The metadata of a field with personal data, which `as_dict` includes only with ``personal=True``."""


@frozen(kw_only=True)
class JobResult:
    """The outcome of one job; also an entry of the user's history.

    Every attribute but *actions* and *raw* is None if the API sent no value, or a value that cannot be read.

    Attributes:
        result_code: ``ResultCode``, for example ``"0810"``; leading zeros matter.
        result_text: ``ResultText``, for display. The text of a code differs by product.
        result_type: ``ResultType``, for example ``"SAIA"`` or ``"ID Verification"``.
        smile_job_id: ``SmileJobID``, the vendor's own number of the job; the vendor's support asks for it.
        partner_params: ``PartnerParams``, which hold the ids.
        confidence_value: ``ConfidenceValue``, 0 to 100; the API sends it as a number or a string.
        actions: ``Actions``, the checks that were made and the outcome of each. For display only: the verdict depends
            on the result code. Empty if there are more than 500 actions; *raw* has them.
        is_final_result: ``IsFinalResult``; False during a human review.
        is_machine_result: ``IsMachineResult``.
        country, id_type, id_number, full_name, first_name, last_name, other_name, dob, gender, address, phone_number,
            phone_number2, expiration_date, issuance_date, secondary_id_number, id_status: Personal data from the ID
            authority; "Not Available" is a common value.
        photo, document: Images from the ID authority, in base64.
        raw: The whole object as the API sent it, personal data, links and receipts included.
    """

    result_code: str | None = field(default=None, repr=display_number)
    result_text: str | None = field(default=None, repr=False)
    result_type: str | None = field(default=None, repr=False)
    smile_job_id: str | None = field(default=None, repr=display_number)
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
        """Return the result as a dictionary for `json.dumps`, without *raw*.

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
        """Return the schema with which pydantic writes a result as `as_dict` does; for ``-> JobResult`` in FastAPI."""
        return import_module(_PYDANTIC_MODELS).core_schema_of(cls, handler)

    def _repr_html_(self) -> str:
        final = {None: "not said", True: "yes", False: "no"}[self.is_final_result]
        return table(
            "result",
            [
                ("result code", describe_result(self.result_code)),
                ("by its code", verdict_by_code(self.result_code)),
                ("final", final),
                ("SmileJobID", "none" if self.smile_job_id is None else display_number(self.smile_job_id)),
                ("confidence", "none" if self.confidence_value is None else f"{self.confidence_value:g}"),
            ],
        )


@frozen(kw_only=True, repr=False)
class JobStatus:
    """One answer of the Job Status API about one job.

    It is verified: its signature is valid for the partner, and it is about the job that was polled. Only an answer that
    says no more than "not yet" may have no valid signature; then at most *code* and *retry_after* are set.

    Attributes:
        user_id: The ``user_id`` of the job that was polled.
        job_id: The ``job_id`` of the job that was polled.
        job_complete: Whether the API has reported a final status. True only for JSON ``true`` or the word "true".
        job_success: Whether there was a successful match; None if the answer does not say.
        code: The status code of the call, usually "2302".
        message: The ``result`` if it is a text instead of an object, for example "No zip uploaded yet".
        result: The outcome; None if there is none yet.
        history: The history of the *user*, if requested. It includes other jobs and has no documented order. Empty if
            the API sent something other than a list; *raw* has it.
        image_links: Expiring links to the pictures, if requested. None if the API sent something other than an object;
            *raw* has it.
        receipt: The link to the vendor's receipt of the check (``kyc_receipt``, ``kyb_receipt`` or ``KYCReceipt``), a
            secret: its query holds the signature of the answer. None if there is none.
        timestamp: The instant of the answer, in UTC; None if its timestamp cannot be read.
        retry_after: The seconds of the ``Retry-After`` header; None if there is none.
        raw: The whole body as the API sent it: personal data, links, receipts, the signature, and parts that were not
            requested.
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
        """The meaning of the answer for the person who was checked; None until the job is complete.

        The result code decides, by the vendor's table. Every verdict but `Verdict.ERROR` and `Verdict.UNKNOWN` needs
        PartnerParams that name this job; without them the verdict is unknown, for a rejecting code too. An approving
        code is `Verdict.APPROVED` only if the rest of the answer agrees: ``IsFinalResult`` false makes it provisional,
        ``job_success`` false makes it unknown. ``Actions`` and the history have no influence: a job can be rejected
        although every action passed, and the history includes other jobs.
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
        """Whether the outcome is final: complete, no provisional result code, and ``IsFinalResult`` not false.

        A complete answer with a result code that is in no table is final, and its verdict is `Verdict.UNKNOWN`. The
        same holds for a result that names no job, unless its code is a provisional one. The vendor warns that a polled
        result may not be the final one if a human review is required.
        """
        if not self.job_complete:
            return False
        result = self.result or JobResult()
        return verdict_by_code(result.result_code) is not Verdict.PROVISIONAL and result.is_final_result is not False

    def raise_for_verdict(self) -> None:
        """Raise NotApprovedError unless the verdict is `Verdict.APPROVED`.

        Raises:
            NotApprovedError: The verdict is another one, or the job is not complete.
        """
        if self.verdict is not Verdict.APPROVED:
            raise NotApprovedError(self)

    def as_dict(self, *, personal: bool = False, links: bool = False) -> dict[str, object]:
        """Return the answer as a dictionary for `json.dumps`, without *raw*.

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
        verdict, code = word(self.verdict), display_number(self.code)
        smile_job_id = display_number(None if self.result is None else self.result.smile_job_id)
        return f"<JobStatus {self.ref.tag}: {verdict}, code={code}, smile_job_id={smile_job_id}>"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: Callable[[object], object]) -> object:
        """Return the schema with which pydantic writes an answer as `as_dict` does; for ``-> JobStatus`` in FastAPI."""
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
                ("SmileJobID", "none" if result.smile_job_id is None else display_number(result.smile_job_id)),
                *([("image links", str(len(self.image_links)))] if self.image_links is not None else []),
                *([("history", f"{len(self.history)} of this user's results")] if self.history else []),
            ],
        )


def _link_as_dict(link: ImageLink, *, url: bool) -> dict[str, object]:
    expires_at = None if link.expires_at is None else link.expires_at.isoformat()
    return {**({"url": link.url} if url else {}), "expires_at": expires_at}
