"""Callbacks as values."""

import copy
import pickle
from datetime import UTC, datetime

import attrs
import pytest

from smilejobs import Callback, ImageLink, ImageLinks, JobResult, PartnerParams
from tests.helpers.bodies import PERSONAL, REF, sigv4_url

CALLBACK = Callback(
    ref=REF,
    result=JobResult(
        result_code="0812",
        result_text="text-marker",
        smile_job_id="0000004711",
        partner_params=PartnerParams(user_id=REF.user_id, job_id=REF.job_id, extra={"note": "extra-marker"}),
        raw={"raw-marker": "raw-marker"},
        **{name: f"personal-marker {name}" for name in PERSONAL},  # type: ignore[arg-type]  # mypy cannot see the names
    ),
    image_links=ImageLinks(links={"selfie_image": ImageLink(url=sigv4_url())}, error="error-marker"),
    timestamp=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
)


def test_a_repr_tells_the_job_by_its_tag_and_the_vendors_number() -> None:
    """The tag, the result code and the SmileJobID are shown, and whether it is a duplicate; nothing else."""
    assert repr(CALLBACK) == f"<Callback {REF.tag}: result_code=0812, smile_job_id=0000004711>"
    again = attrs.evolve(CALLBACK, duplicate=True)
    assert str(again) == f"<Callback {REF.tag}: result_code=0812, smile_job_id=0000004711, duplicate>"
    for part in (CALLBACK.ref, CALLBACK.result, CALLBACK.image_links):
        for secret in ("marker", REF.user_id, REF.job_id, "bucket.example"):
            assert secret not in repr(part)


def test_what_is_no_number_is_not_repeated() -> None:
    """A code and a SmileJobID come from outside and may hold any text."""
    odd = Callback(ref=REF, result=JobResult(result_code="code-marker", smile_job_id="id-marker"))
    assert repr(odd) == f"<Callback {REF.tag}: result_code=?, smile_job_id=?>"
    assert "result_code=None" in repr(Callback(ref=REF, result=JobResult()))


def test_callbacks_are_values() -> None:
    """They are frozen, have no dict, and survive copying and pickling."""
    assert copy.copy(CALLBACK) == copy.deepcopy(CALLBACK) == pickle.loads(pickle.dumps(CALLBACK)) == CALLBACK
    assert attrs.evolve(CALLBACK, duplicate=True) != CALLBACK
    assert not hasattr(CALLBACK, "__dict__")
    with pytest.raises(AttributeError):
        CALLBACK.duplicate = True  # type: ignore[misc]  # a callback is frozen: that is what is tested
    with pytest.raises(TypeError, match="positional argument"):
        Callback(REF, JobResult())  # type: ignore[call-arg]  # made with keywords


def test_a_callback_decides_nothing() -> None:
    """A callback may be forged, so it has neither a verdict nor a final state."""
    assert not {name for name in dir(CALLBACK) if "verdict" in name or "final" in name}
