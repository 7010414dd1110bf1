"""What the vendor POSTs, as a value."""

from datetime import datetime

from attrs import frozen

from smilejobs.model.codes import shown
from smilejobs.model.jobs import JobRef, JobResult
from smilejobs.model.links import ImageLinks


@frozen(kw_only=True, repr=False)
class Callback:
    """A callback: a hint that something has happened to a job.

    Its signature covers neither its job nor its result (see `smilejobs.CallbackVerifier`), so it has no verdict and is
    never final: poll, and use the answer of the API.

    Attributes:
        ref: The job, as ``PartnerParams`` name it.
        result: The body, read as a result; the whole of it, personal data and signature included, is in ``result.raw``.
        image_links: Expiring links to the pictures (``ImageLinks``), if there are any.
        timestamp: When the callback was made, in UTC; None where that was written in a way that names no instant.
        duplicate: Whether the same timestamp and signature have come before. As a rule the vendor repeats the callback
            because the first answer got lost: answer 200, as the first time.
    """

    ref: JobRef
    result: JobResult
    image_links: ImageLinks | None = None
    timestamp: datetime | None = None
    duplicate: bool = False

    def __repr__(self) -> str:
        code, smile_job_id = shown(self.result.result_code), shown(self.result.smile_job_id)
        again = ", duplicate" if self.duplicate else ""
        return f"<Callback {self.ref.tag}: result_code={code}, smile_job_id={smile_job_id}{again}>"
