"""The recorded exchanges with the real server, signed anew: the sandbox answers key by key and type by type."""

import io
import json
import re
import zipfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

from smilejobs import Credentials, Verdict
from smilejobs.sandbox import FaultProfile, Sandbox
from smilejobs.testing import virtual_now
from smilejobs.wire.signature import sign, verify
from tests.helpers.recorded import (
    HEADERS,
    IDS,
    INFO_JSON,
    INFO_JSONS,
    JOB,
    KEY,
    PARTNER,
    STATUS_ANSWER,
    STATUS_REQUEST,
    UPLOAD_ANSWER,
    UPLOAD_REFUSAL,
    UPLOAD_REQUEST,
    USER,
)

pytestmark = pytest.mark.anyio

CREDENTIALS = Credentials(PARTNER, KEY)
TO_THE_LETTER = FaultProfile(variants=1, variant_names=["no_top_ids"])
"""The recorded shape, in which the real server differs from the vendor's page."""


def signed(request: Mapping[str, object], **changes: object) -> dict[str, object]:
    return {**request, "signature": sign(CREDENTIALS, str(request["timestamp"])), **changes}


def zipped(info: Mapping[str, object], files: tuple[str, ...] = ()) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("info.json", json.dumps(info))
        for name in files:
            archive.writestr(name, b"content")
    return out.getvalue()


def shape(value: object) -> object:
    """Return the keys and types of a JSON value."""
    return {key: shape(inner) for key, inner in value.items()} if isinstance(value, dict) else type(value).__name__


def sandbox_of(faults: FaultProfile = TO_THE_LETTER) -> Sandbox:
    return Sandbox(partner_id=PARTNER, api_key=KEY, faults=faults, machine=1, now=virtual_now)


@asynccontextmanager
async def opened(sandbox: Sandbox) -> AsyncGenerator[httpx.AsyncClient, None]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=sandbox.app), base_url="https://localhost/v1"
    ) as http_client:
        yield http_client


async def replay(http_client: httpx.AsyncClient, **params: object) -> tuple[httpx.Response, httpx.Response]:
    """Send the recorded requests in their order, and return the answers to the first and to the last."""
    given = UPLOAD_REQUEST["partner_params"]
    assert isinstance(given, dict)
    upload = await http_client.post("/upload", json=signed(UPLOAD_REQUEST, partner_params={**given, **params}))
    headers = {"Content-Type": "application/zip"}
    put = await http_client.put(upload.json()["upload_url"], content=zipped(INFO_JSON), headers=headers)
    assert (put.status_code, put.content) == (200, b"")
    await anyio.sleep(1)
    return upload, await http_client.post("/job_status", json=signed(STATUS_REQUEST))


async def test_the_recorded_exchange_is_answered_in_the_recorded_shape() -> None:
    """From the upload to the result, which is a rejection as the recorded one: the same keys, and the same types."""
    async with opened(sandbox_of()) as http_client:
        upload, status = await replay(http_client, sandbox_result="1")
    assert (upload.status_code, shape(upload.json())) == (200, shape(dict(UPLOAD_ANSWER)))
    body = status.json()
    del body["result"]["PartnerParams"]["sandbox_result"]  # it was not in the recording
    asked = {key: body["result"].pop(key) for key in ("Country", "IDType", "IDNumber")}  # nor were these, with 1016
    assert asked == {"Country": "NG", "IDType": "BVN", "IDNumber": "00000000000"}
    assert (status.status_code, shape(body)) == (200, shape(dict(STATUS_ANSWER)))
    assert verify(CREDENTIALS, body["timestamp"], body["signature"])


async def test_the_recorded_result_is_answered_word_for_word() -> None:
    """Except for the ids, the time, and what is derived from them."""
    sandbox = sandbox_of()
    sandbox.submit(USER, JOB, machine=0, outcome="1016", details={"Source": "WebAPI - ruby"})
    async with opened(sandbox) as http_client:
        body = (await http_client.post("/job_status", json=signed(STATUS_REQUEST))).json()
    recorded: dict[str, Any] = json.loads(json.dumps(STATUS_ANSWER))
    receipt, proof = body["kyc_receipt"], f"?signature={body['signature']}&timestamp={body['timestamp']}"
    assert receipt == (
        f"https://localhost/api/v3/{PARTNER}/job_result_summary/0000000001/generate_pdf{proof}&environment=test"
    )
    for answer in (body, recorded):
        for key in ("timestamp", "signature", "kyc_receipt"):
            del answer[key]
        del answer["result"]["SmileJobID"]
    assert body == recorded


async def test_an_answer_without_faults_has_the_ids_of_the_vendors_page_as_well() -> None:
    """And nothing else that was not recorded."""
    sandbox = sandbox_of(FaultProfile())
    sandbox.submit(USER, JOB, machine=0, outcome="1016")
    async with opened(sandbox) as http_client:
        body = (await http_client.post("/job_status", json=signed(STATUS_REQUEST))).json()
    assert shape(body) == {"user_id": "str", "job_id": "str", **dict(shape(dict(STATUS_ANSWER)))}  # type: ignore[call-overload]  # the shape of an object is one


async def test_a_client_reads_the_recorded_shape() -> None:
    """Its ids are those in the result."""
    sandbox = sandbox_of()
    sandbox.submit(USER, JOB, machine=0, outcome="1016")
    async with sandbox.client(attempts=1) as client:
        status = await client.job_status(USER, JOB)
    assert (status.verdict, status.is_final, status.job_success) == (Verdict.ERROR, True, False)
    assert status.result is not None
    assert status.result.partner_params is not None
    assert (status.result.partner_params.job_type, status.result.confidence_value) == (1, 0.0)
    assert len(status.result.actions) == 12


async def test_the_recorded_headers() -> None:
    """Of every answer of the API, refusals too; the ids differ from answer to answer."""
    sandbox = sandbox_of()
    async with opened(sandbox) as http_client:
        answers = [
            *await replay(http_client),
            await http_client.post("/upload", json={}),
            await http_client.post("/job_status", json={}),
        ]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", answer.headers["x-amzn-requestid"])
        assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}", answer.headers["x-amzn-trace-id"])
    assert len({answer.headers[name] for name in IDS for answer in answers}) == 8


async def test_the_recorded_refusal() -> None:
    """No parameters of the partner's are no job type."""
    async with opened(sandbox_of()) as http_client:
        answer = await http_client.post("/upload", json=signed(UPLOAD_REQUEST, partner_params=None))
    assert (answer.status_code, answer.json()) == (400, UPLOAD_REFUSAL)


@pytest.mark.parametrize("client", INFO_JSONS)
async def test_the_zip_of_every_client_of_the_vendors_comes_to_a_result(client: str) -> None:
    """With or without ids in it, with other files beside the images, types of images as numbers or texts."""
    job_type, info, files = INFO_JSONS[client]
    params = {"user_id": USER, "job_id": JOB, "job_type": job_type}
    sandbox = sandbox_of()
    async with opened(sandbox) as http_client, sandbox.client() as reader:
        upload = await http_client.post("/upload", json=signed(UPLOAD_REQUEST, partner_params=params))
        put = await http_client.put(upload.json()["upload_url"], content=zipped(info, files))
        assert put.status_code == 200
        status = await reader.wait(USER, JOB)
    assert status.verdict is Verdict.APPROVED


async def test_the_upload_url_lives_as_long_as_the_recorded_one() -> None:
    """Fifteen minutes, in the folder of the partner."""
    async with opened(sandbox_of()) as http_client:
        answer = (await http_client.post("/upload", json=signed(UPLOAD_REQUEST))).json()
    assert answer["upload_url"].startswith(f"https://localhost/videos/{PARTNER}/{answer['ref_id']}/selfie.zip?")
    assert re.fullmatch(r"212-[0-9]{10}-[0-9a-z]{30}", answer["ref_id"])
    assert "X-Amz-Expires=900" in answer["upload_url"]
