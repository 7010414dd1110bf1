"""Exchanges with the real server, as far as recordings of it are known: the shapes are theirs, ids and values are not.

They are of job type 1, submitted by a server library whose product was not enabled for the partner.
"""

from collections.abc import Mapping

PARTNER, KEY = "212", "recorded-test-key"
USER, JOB = "user-recorded-1", "job-recorded-1"

UPLOAD_REQUEST: Mapping[str, object] = {
    "file_name": "selfie.zip",
    "timestamp": "2024-05-06 07:08:09 +0000",
    "smile_client_id": PARTNER,
    "partner_params": {"user_id": USER, "job_id": JOB, "job_type": 1},
    "model_parameters": {},
    "callback_url": "https://receiver.example",
}
UPLOAD_ANSWER: Mapping[str, object] = {
    "upload_url": "https://uploads.example/videos/212/212-0000000842-0123456789abcdefghijklmnopqrst/selfie.zip?Expires=1",
    "ref_id": "212-0000000842-0123456789abcdefghijklmnopqrst",
    "smile_job_id": "0000000842",
    "camera_config": "null",
    "code": "2202",
}
UPLOAD_REFUSAL: Mapping[str, object] = {"error": "Invalid job type.", "code": "2212"}
"""For ``partner_params: null``, with HTTP 400."""

INFO_JSON: Mapping[str, object] = {
    "package_information": {
        "apiVersion": {"buildNumber": 0, "majorVersion": 2, "minorVersion": 0},
        "language": "ruby",
    },
    "misc_information": {
        "retry": "false",
        "partner_params": {"user_id": USER, "job_id": JOB, "job_type": 1},
        "timestamp": "2024-05-06 07:08:09 +0000",
        "file_name": "selfie.zip",
        "smile_client_id": PARTNER,
        "callback_url": "https://receiver.example",
        "userData": {"isVerifiedProcess": False, "name": "", "fbUserID": "", "firstName": "", "lastName": ""},
    },
    "id_info": {"country": "NG", "id_type": "BVN", "id_number": "00000000000", "entered": "true"},
    "images": [{"image_type_id": 2, "image": "c2VsZmll", "file_name": ""}],
    "server_information": UPLOAD_ANSWER,
}

STATUS_REQUEST: Mapping[str, object] = {
    "partner_id": PARTNER,
    "timestamp": "2024-05-06 07:08:12 +0000",
    "user_id": USER,
    "job_id": JOB,
    "image_links": False,
    "history": False,
    "source_sdk": "Ruby",
    "source_sdk_version": "2.1.0",
}
STATUS_ANSWER: Mapping[str, object] = {
    "timestamp": "2024-05-06T07:08:12.345Z",
    "signature": "0000000000000000000000000000000000000000000=",
    "job_complete": True,
    "job_success": False,
    "code": "2302",
    "result": {
        "Source": "WebAPI - ruby",
        "Actions": {
            "Liveness_Check": "Not Applicable",
            "Register_Selfie": "Not Applicable",
            "Selfie_Provided": "Not Applicable",
            "Verify_ID_Number": "Not Verified",
            "Human_Review_Compare": "Not Applicable",
            "Return_Personal_Info": "Not Returned",
            "Selfie_To_ID_Card_Compare": "Not Applicable",
            "Human_Review_Update_Selfie": "Not Applicable",
            "Human_Review_Liveness_Check": "Not Applicable",
            "Selfie_To_ID_Authority_Compare": "ID Authority Photo Not Available",
            "Update_Registered_Selfie_On_File": "Not Applicable",
            "Selfie_To_Registered_Selfie_Compare": "Not Applicable",
        },
        "ResultCode": "1016",
        "ResultText": "Unable to validate ID - This feature is not enabled for your Smile ID account.",
        "ResultType": "SYSTEM",
        "SmileJobID": "0000000842",
        "JSONVersion": "1.0.0",
        "IsFinalResult": "true",
        "PartnerParams": {"job_id": JOB, "user_id": USER, "job_type": "1"},
        "ConfidenceValue": "0",
        "IsMachineResult": "true",
    },
    "kyc_receipt": "https://portal.example/api/v3/212/job_result_summary/0000000842/generate_pdf?signature="
    "0000000000000000000000000000000000000000000=&timestamp=2024-05-06T07:08:12.345Z&environment=test",
}

HEADERS: Mapping[str, str] = {
    "content-type": "application/json",
    "access-control-allow-origin": "*",
    "access-control-allow-headers": "Content-type",
    "allow": "POST",
}
"""Of every answer of the API."""
IDS = ("x-amzn-requestid", "x-amzn-trace-id")
"""Further headers, each with another value in every answer."""

INFO_JSONS: Mapping[str, tuple[int, Mapping[str, object], tuple[str, ...]]] = {
    "android": (
        1,
        {
            "images": [{"image_type_id": "0", "image": "", "file_name": "selfie.jpg"}],
            "id_info": {"country": "NG", "id_type": "NIN_V2", "id_number": "00000000000", "entered": "true"},
            "consent_information": {"consented": {"personal_details": True, "contact_information": True}},
        },
        ("selfie.jpg", "security_info.json"),
    ),
    "ios": (
        4,
        {
            "package_information": {"apiVersion": {"buildNumber": 0, "majorVersion": 2, "minorVersion": 0}},
            "images": [
                {"image_type_id": 0, "image": "", "file_name": "si_selfie.jpg"},
                {"image_type_id": 4, "image": "", "file_name": "si_liveness.jpg"},
            ],
            "id_info": {},
        },
        ("si_selfie.jpg", "si_liveness.jpg"),
    ),
    "web": (
        2,
        {
            "package_information": {
                "apiVersion": {"buildNumber": 0, "majorVersion": 2, "minorVersion": 0},
                "language": "Hosted Web Integration",
            },
            "images": [{"image_type_id": 2, "image": "c2VsZmll", "file_name": ""}],
            "id_info": {},
        },
        (),
    ),
    "server library": (1, INFO_JSON, ()),
}
"""The ``info.json`` of the vendor's clients, by client: with a job type, and the other files of the zip."""
