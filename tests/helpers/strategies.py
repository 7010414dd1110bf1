"""Hypothesis strategies: any JSON, nested anywhere into an answer; headers and links, good and bad."""

import copy
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

import hypothesis.strategies as st
from hypothesis import settings

from tests.helpers.bodies import SAMPLES, JSONObject, signed, sigv4_url

unhurried = settings(deadline=None)
"""The settings of every property: no time limit, because a busy machine may be slow."""

texts = st.text(st.characters(exclude_categories=()), max_size=20)
"""Text that may hold half surrogate pairs, as JSON's may."""

_words = st.sampled_from(
    [
        "true",
        "FALSE",
        "",
        "0",
        "NaN",
        "2302",
        "2304",
        "2314",
        "0810",
        "0814",
        "user-amber-17",
        "job-basalt-42",
        "é",
        "\ud800",
    ]
)
_integers = st.integers() | st.sampled_from([0, 1, 2302, 10**18, 10**400, -(10**4000)])

json_values = st.recursive(
    st.none() | st.booleans() | _integers | st.floats() | texts | _words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
"""Any JSON value, and the ``NaN`` and ``Infinity`` that Python writes and reads as well."""

_keys = st.sampled_from(
    [
        *("timestamp", "signature", "user_id", "job_id", "job_complete", "job_success", "code", "result", "history"),
        *(
            "image_links",
            "kyc_receipt",
            "KYCReceipt",
            "error",
            "message",
            "ResultCode",
            "SmileJobID",
            "PartnerParams",
            "IsFinalResult",
            "ImageLinks",
        ),
        *("(self)", "(extra)", "(retry_after)", "(receipt)"),
    ]
)


@st.composite
def answers(draw: st.DrawFn, samples: Mapping[str, JSONObject] = SAMPLES) -> bytes:
    """Draw one of *samples* in which up to three values are replaced by any JSON; signed again, or not."""
    body: dict[str, object] = copy.deepcopy(draw(st.sampled_from(sorted(samples.items())))[1])
    for _ in range(draw(st.integers(0, 3))):
        place: Any = body
        while True:
            if isinstance(place, dict):
                key: Any = draw(st.sampled_from(sorted(place)) | _keys if place else _keys)
                inner = place.get(key)
            elif isinstance(place, list) and place:
                key = draw(st.integers(0, len(place) - 1))
                inner = place[key]
            else:
                break
            if not isinstance(inner, (dict, list)) or not inner or draw(st.booleans()):
                place[key] = draw(json_values)
                break
            place = inner
    if draw(st.booleans()):
        body.setdefault("timestamp", "2026-03-04T05:06:07.890Z")
        with suppress(UnicodeEncodeError):  # a timestamp that cannot be encoded
            body = signed(body)
    return json.dumps(body).encode()


_dates = st.datetimes(datetime(1980, 1, 1), datetime(2060, 1, 1)).map(lambda at: at.replace(microsecond=0, tzinfo=UTC))


def _imf(at: datetime) -> str:
    return format_datetime(at, usegmt=True)


def _asctime(at: datetime) -> str:
    return at.strftime("%a %b ") + f"{at.day:2} " + at.strftime("%H:%M:%S %Y")


http_dates = st.tuples(_dates, st.sampled_from([_imf, _asctime])).map(lambda drawn: (drawn[1](drawn[0]), drawn[0]))
"""An HTTP date as a recipient must read it, and the instant that it names."""

retry_after_values = (
    st.integers(0, 10**11).map(str)
    | http_dates.map(lambda pair: pair[0])
    | texts
    | st.text("0123456789 .-+:,/()GMTSunJaeb", max_size=30)
)
"""The value of a ``Retry-After`` header, good and bad."""

_names = st.sampled_from(
    ["X-Amz-Date", "X-Amz-Expires", "x-amz-date", "X-AMZ-EXPIRES", "Expires", "AWSAccessKeyId", "Signature"]
)
_values = (
    st.sampled_from(["20260304T050607Z", "99991231T235959Z", "900", "604800", "1772600767", "9" * 30, "-1", ""]) | texts
)
link_urls = (
    texts
    | st.builds(sigv4_url, signed=_values.filter(str.isascii), expires=_values.filter(str.isascii))
    | st.lists(st.tuples(_names, _values), max_size=5).map(
        lambda pairs: "https://bucket.example/a.jpg?" + urlencode(pairs, errors="surrogatepass")
    )
    | texts.map(lambda text: f"https://[{text}?X-Amz-Date=20260304T050607Z&X-Amz-Expires=900")
)
"""The URL of a picture, good and bad."""
