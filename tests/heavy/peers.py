"""The jobs that the vendor's clients submit to the sandbox, and what they must get."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen
from smile_id_core import Signature

from smilejobs import JobRef
from smilejobs.sandbox import Sandbox
from smilejobs.sandbox.http.images import make_png

SELFIE, CARD, LIVENESS, CARD_BACK = 0, 1, 4, 5
"""The kinds of images that are files."""


@frozen(kw_only=True)
class PeerJob:
    """One job, as a partner would submit it, and the result code that it must get."""

    job_type: int
    result_code: str
    kinds: tuple[int, ...] = (SELFIE,)
    params: Mapping[str, object] = field(factory=dict[str, object])
    id_info: Mapping[str, object] = field(factory=dict[str, object])

    @property
    def ref(self) -> JobRef:
        return JobRef(f"user-{self.job_type}", f"job-{self.job_type}-{self.result_code}")

    @property
    def partner_params(self) -> dict[str, object]:
        ids = {"user_id": self.ref.user_id, "job_id": self.ref.job_id, "job_type": self.job_type}
        return {**ids, "optional_info": "kept", **self.params}


def _asked(id_number: str) -> dict[str, object]:
    return {
        "entered": True,
        "country": "NG",
        "id_type": "BVN",
        "id_number": id_number,
        "first_name": "Joan",
        "last_name": "Fiction",
    }


_BOTH = (SELFIE, CARD, CARD_BACK)
JOBS = (
    PeerJob(job_type=1, result_code="1210", kinds=(SELFIE, LIVENESS), id_info=_asked("00000000000")),
    PeerJob(job_type=1, result_code="1013", id_info=_asked("00000000001")),
    PeerJob(job_type=1, result_code="1015", id_info=_asked("00000000003")),
    PeerJob(job_type=2, result_code="1220", kinds=(SELFIE, LIVENESS)),
    PeerJob(job_type=2, result_code="0907", params={"sandbox_result": "1"}),
    PeerJob(job_type=4, result_code="1210"),
    PeerJob(job_type=6, result_code="0810", kinds=_BOTH, id_info={"country": "NG"}),
    PeerJob(job_type=6, result_code="0811", kinds=_BOTH, id_info={"country": "NG"}, params={"sandbox_result": "1"}),
    PeerJob(job_type=6, result_code="0814", kinds=_BOTH, id_info={"country": "NG"}, params={"sandbox_result": "2"}),
    PeerJob(job_type=8, result_code="1210"),
    PeerJob(job_type=9, result_code="1020"),
    PeerJob(job_type=11, result_code="0810", kinds=_BOTH, id_info={"country": "NG", "id_type": "PASSPORT"}),
)
"""Every product that has images."""


def pictures(folder: Path) -> dict[int, Path]:
    """Write an image of each kind to a new folder, and return where."""
    folder.mkdir()
    files = {kind: folder / f"image-{kind}.png" for kind in (SELFIE, CARD, LIVENESS, CARD_BACK)}
    for kind, path in files.items():
        path.write_bytes(make_png(str(kind)))
    return files


def check_answer(job: PeerJob, answer: Mapping[str, Any], *, with_links: bool) -> None:
    """Check what a client has got for its job."""
    assert answer["job_complete"] is True
    assert answer["code"] == "2302"
    assert Signature("085", "sandbox-key").confirm_signature(answer["timestamp"], answer["signature"])
    result = answer["result"]
    assert result["ResultCode"] == job.result_code
    assert answer["job_success"] is (result["ResultCode"] in ("0810", "0814", "1020", "1210", "1220"))
    assert result["PartnerParams"] == {**job.partner_params, "job_type": str(job.job_type)}
    assert f"?signature={answer['signature']}&timestamp={answer['timestamp']}&" in answer["kyc_receipt"]
    if job.id_info.get("entered"):
        assert (result["Country"], result["IDType"]) == ("NG", "BVN")
        assert result["IDNumber"] == job.id_info["id_number"]
    if job.result_code == "1210" and job.job_type == 1:
        assert result["FullName"] == "Joan Fiction"
    if with_links:
        assert answer["image_links"]["selfie_image"].startswith("http")
        assert result in answer["history"]


def check_submitted(sandbox: Sandbox, job: PeerJob) -> None:
    """Check what the sandbox has of it."""
    submitted = sandbox.jobs[job.ref]
    assert submitted.job_type == job.job_type
    assert submitted.uploaded_at is not None
