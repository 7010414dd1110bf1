"""Sample answers in the shapes that the API and the fixtures of its official clients are known to have.

All names, ids and keys are made up.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from urllib.parse import urlencode

from smilejobs import Credentials, JobRef, JobStatus
from smilejobs.model.jobs import Include
from smilejobs.wire.protocol import read_answer
from smilejobs.wire.signature import sign

JSONObject = dict[str, object]

CREDENTIALS = Credentials("085", "fictional-Ää-key+/==")
REF = JobRef("user-amber-17", "job-basalt-42")
NOW = datetime(2026, 3, 4, 5, 6, 7, 890_000, tzinfo=UTC)
TIMESTAMP = "2026-03-04T05:06:07.890Z"


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: object = _Absent()
"""A value for a key that is left out."""

EVERYTHING = Include(image_links=True, history=True)
"""A poll that requests links and history."""

PERSONAL: Mapping[str, str] = MappingProxyType(
    {
        "country": "Country",
        "id_type": "IDType",
        "id_number": "IDNumber",
        "full_name": "FullName",
        "first_name": "FirstName",
        "last_name": "LastName",
        "other_name": "OtherName",
        "dob": "DOB",
        "gender": "Gender",
        "address": "Address",
        "phone_number": "PhoneNumber",
        "phone_number2": "PhoneNumber2",
        "expiration_date": "ExpirationDate",
        "issuance_date": "IssuanceDate",
        "secondary_id_number": "SecondaryIDNumber",
        "id_status": "IDStatus",
        "photo": "Photo",
        "document": "Document",
    }
)
"""The personal fields: attribute and the vendor's key."""


def _without_absent(given: Mapping[str, object]) -> JSONObject:
    return {key: value for key, value in given.items() if value is not ABSENT}


def params(**more: object) -> JSONObject:
    """Return PartnerParams of the job `REF`."""
    return _without_absent({"user_id": REF.user_id, "job_id": REF.job_id, "job_type": 1, **more})


def result(code: object = "0810", **more: object) -> JSONObject:
    """Return the ``result`` of a complete job."""
    return _without_absent(
        {
            "ResultCode": code,
            "ResultText": "Enroll User",
            "ResultType": "SAIA",
            "SmileJobID": "0000004711",
            "PartnerParams": params(),
            "ConfidenceValue": "99",
            "Actions": {"Liveness_Check": "Passed", "Register_Selfie": "Approved"},
            "IsFinalResult": "true",
            "IsMachineResult": "true",
            "JSONVersion": "1.0.0",
            "Source": "WebAPI",
            **more,
        }
    )


def complete(**more: object) -> JSONObject:
    """Return a complete answer, not signed yet."""
    return _without_absent(
        {"timestamp": TIMESTAMP, "job_complete": True, "job_success": True, "code": "2302", "result": result(), **more}
    )


def pending(**more: object) -> JSONObject:
    """Return an answer about a running job, not signed yet."""
    return _without_absent(
        {"timestamp": TIMESTAMP, "job_complete": False, "job_success": False, "code": "2302", **more}
    )


def refusal(code: object, text: object = "refused") -> JSONObject:
    """Return the body of an error answer."""
    return _without_absent({"error": text, "code": code})


def other_jobs() -> list[JSONObject]:
    """Return a history: several jobs of the user, two entries of one job, a job type that is a word."""
    theirs = {"user_id": "user-cobalt-3", "job_id": "job-dune-8", "job_type": "1", "optional_info": "anything"}
    return [
        result("1210", ResultType="DIVA", SmileJobID="0000000815", PartnerParams=theirs, ConfidenceValue=ABSENT),
        {"ResultCode": "0814", "SmileJobID": "0000000816", "ConfidenceValue": "97.000000", "PartnerParams": theirs},
        {"ResultCode": "1012", "SmileJobID": "0000000816", "IDType": "BVN", "DOB": "1990-02-30", "PartnerParams": {}},
    ]


def sigv4_url(*, signed: str = "20260304T050607Z", expires: str = "900", **more: str) -> str:
    """Return a link to a picture with AWS Signature Version 4, some names in lower case as in real links."""
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": "ASIAFICTION/20260304/us-west-2/s3/aws4_request",
        "X-Amz-Date": signed,
        "X-Amz-Expires": expires,
        "X-Amz-Security-Token": "fiction/+=",
        "X-Amz-Signature": "0" * 64,
        "x-amz-checksum-mode": "ENABLED",
        "x-id": "GetObject",
        **more,
    }
    return f"https://bucket.example/production/085/SID_Preview_Full.jpg?{urlencode(query)}"


def signed(body: Mapping[str, object], credentials: Credentials = CREDENTIALS) -> JSONObject:
    """Return *body* with the signature of its own timestamp."""
    return {**body, "signature": sign(credentials, str(body["timestamp"]))}


def encode(body: object) -> bytes:
    """Return *body* as JSON bytes."""
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def read(
    body: object,
    *,
    http_status: int = 200,
    headers: Mapping[str, str] | None = None,
    ref: JobRef = REF,
    credentials: Credentials = CREDENTIALS,
    include: Include = EVERYTHING,
) -> JobStatus:
    """Return the status of the job *ref* in the answer *body*."""
    return read_answer(
        ref, credentials, NOW, include=include, http_status=http_status, headers=headers or {}, body=encode(body)
    )


SAMPLES: Mapping[str, JSONObject] = MappingProxyType(
    {
        "complete with history and links": signed(
            complete(history=other_jobs(), image_links={"selfie_image": sigv4_url(), "id_card_image": "image_link"})
        ),
        "complete, words for booleans, numbers for texts": signed(
            complete(job_complete="True", job_success="true", code=2302, result=result(ConfidenceValue=99.5))
        ),
        "complete with nothing": signed(
            complete(result={}, history=[], image_links={"selfie_image": "https://a.example"})
        ),
        "complete, the links inside the result": signed(
            complete(result=result(ImageLinks={"selfie_image": sigv4_url()}, FullData={"deep": [True, {"a": 1}]}))
        ),
        "provisional": signed(complete(result=result("0814", IsFinalResult="false"))),
        "running": signed(pending()),
        "running, three keys": signed({"timestamp": TIMESTAMP, "job_complete": False}),
        "no zip": {
            "timestamp": "1772600767890",
            "signature": "5f" * 32,
            "job_complete": False,
            "job_success": False,
            "code": "2314",
            "result": "No zip file received",
        },
        "refused": refusal("2304"),
    }
)
"""Whole answers."""
