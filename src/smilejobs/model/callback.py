"""A callback of the vendor, as a value."""

from datetime import datetime

from attrs import frozen

from smilejobs.model.codes import display_number
from smilejobs.model.jobs import JobRef, JobResult
from smilejobs.model.links import ImageLinks


@frozen(kw_only=True, repr=False)
class Callback:
    """A callback: a hint that there may be news of a job.

    Its signature covers neither the job nor the result (see `smilejobs.CallbackVerifier`). Therefore it has no verdict
    and is never final: poll, and use the answer of the API.

    Attributes:
        ref: The job, from ``PartnerParams``.
        result: The body, read as a result; ``result.raw`` holds all of it, personal data and signature included.
        image_links: Expiring links to the pictures (``ImageLinks``); None if there are none.
        timestamp: When the callback was made, in UTC; None if its timestamp cannot be read.
        duplicate: Whether the same timestamp and signature were received before. Usually the vendor repeats a callback
            because the first answer was lost: answer 200 again.
    """

    ref: JobRef
    result: JobResult
    image_links: ImageLinks | None = None
    timestamp: datetime | None = None
    duplicate: bool = False

    def __repr__(self) -> str:
        code, smile_job_id = display_number(self.result.result_code), display_number(self.result.smile_job_id)
        again = ", duplicate" if self.duplicate else ""
        return f"<Callback {self.ref.tag}: result_code={code}, smile_job_id={smile_job_id}{again}>"
