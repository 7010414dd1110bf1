"""Submitting jobs to the sandbox over HTTP: the registration, the zip, and what comes of both."""

import gzip
import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smilejobs import Client, Credentials, JobNotFoundError, JobRef, Verdict
from smilejobs.sandbox import Sandbox
from smilejobs.sandbox.http.uploads import MAX_ZIP_BYTES
from smilejobs.sandbox.jobs import Job
from smilejobs.sandbox.zips import examine
from smilejobs.testing import EPOCH, virtual_now
from smilejobs.wire.signature import format_timestamp, sign
from tests.helpers.strategies import json_values, unhurried

pytestmark = pytest.mark.anyio

CREDENTIALS = Credentials("085", "sandbox-key")
BASE = "https://sandbox.test"
SELFIE, CARD = {"image_type_id": 2, "image": "c2VsZmll", "file_name": ""}, {"image_type_id": 3, "image": "Y2FyZA=="}
FILES = [
    {"image_type_id": 0, "image": "", "file_name": "selfie.jpg"},
    {"image_type_id": 1, "image": "", "file_name": "card.jpg"},
]


def signed() -> dict[str, object]:
    """The parameters by which a partner is known."""
    timestamp = format_timestamp(EPOCH)
    return {"smile_client_id": "085", "timestamp": timestamp, "signature": sign(CREDENTIALS, timestamp)}


def registration(params: Mapping[str, object] | None = None, **changes: object) -> dict[str, object]:
    """A registration that is right, but for the changes; None leaves a key out."""
    body = {
        **signed(),
        "file_name": "selfie.zip",
        "partner_params": {"user_id": "user-1", "job_id": "job-1", "job_type": 1, **(params or {})},
        "model_parameters": {},
        "callback_url": "",
        "use_enrolled_image": False,
        **changes,
    }
    return {key: value for key, value in body.items() if value is not None}


def info_json(**changes: object) -> dict[str, object]:
    """An ``info.json`` that is right for a job with a selfie, but for the changes; None leaves a key out."""
    body = {
        "package_information": {"language": "python"},
        "misc_information": {"partner_params": {"user_id": "user-1", "job_id": "job-1", "job_type": 1}},
        "id_info": {},
        "images": [SELFIE],
        "server_information": "https://sandbox.test/videos",
        **changes,
    }
    return {key: value for key, value in body.items() if value is not None}


def zipped(info: object = None, files: Mapping[str, bytes] | None = None) -> bytes:
    """A zip with an ``info.json``, bytes as they are, and other files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        content = info_json() if info is None else info
        archive.writestr("info.json", content if isinstance(content, bytes) else json.dumps(content))
        for name, data in (files or {}).items():
            archive.writestr(name, data)
    return out.getvalue()


def job(job_type: int = 1, **params: object) -> Job:
    """A job that waits for its zip."""
    return Job(
        ref=JobRef("user-1", "job-1"),
        smile_job_id="0000000001",
        job_type=job_type,
        result_code="1210",
        partner_params=params,
    )


@asynccontextmanager
async def opened(sandbox: Sandbox) -> AsyncGenerator[httpx.AsyncClient, None]:
    transport = httpx.ASGITransport(app=sandbox.app)
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as http_client:
        yield http_client


async def registered(http_client: httpx.AsyncClient, params: Mapping[str, object] | None = None, **changes: Any) -> str:
    """Register a job, and return where its zip is to go."""
    answer = await http_client.post("/v1/upload", json=registration(params, **changes))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["upload_url"])


async def raw(sandbox: Sandbox, method: str, url: str, pieces: list[bytes | None]) -> tuple[int, bytes]:
    """Send a body piece by piece, as far as it is asked for, and return the status and the body of the answer.

    None among the pieces is a client that leaves.
    """
    parts = urlsplit(url)
    scope = {
        "type": "http",
        "method": method,
        "scheme": "https",
        "path": parts.path,
        "query_string": parts.query.encode(),
        "headers": [(b"host", parts.netloc.encode())],
    }
    sent: list[Any] = []

    async def receive() -> dict[str, object]:
        piece = pieces.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    await sandbox.app(scope, receive, send)
    return sent[0]["status"], b"".join(message["body"] for message in sent[1:])


def client_of(http_client: httpx.AsyncClient) -> Client:
    return Client(
        partner_id="085",
        api_key="sandbox-key",
        base_url=f"{BASE}/v1",
        http_client=http_client,
        now=virtual_now,
    )


async def test_a_job_comes_in_and_goes_its_way() -> None:
    """Unknown, registered, without its zip for as long as it takes, then at work, then complete."""
    sandbox = Sandbox(now=virtual_now)
    async with opened(sandbox) as http_client:
        client = client_of(http_client)
        with pytest.raises(JobNotFoundError):
            await client.job_status("user-1", "job-1")
        answer = await http_client.post("/v1/upload", json=registration({"anything": ["more"]}))
        assert answer.json().keys() == {"upload_url", "ref_id", "smile_job_id", "camera_config", "code"}
        assert (answer.json()["code"], answer.json()["camera_config"]) == ("2202", "null")
        number = answer.json()["smile_job_id"]
        assert answer.json()["ref_id"].startswith(f"085-{number}-")
        url = answer.json()["upload_url"]
        assert url.startswith(f"{BASE}/videos/085/{answer.json()['ref_id']}/selfie.zip?")
        await anyio.sleep(800)
        assert (await client.job_status("user-1", "job-1")).code == "2314"
        assert (await http_client.put(answer.json()["upload_url"], content=zipped())).status_code == 200
        assert (await client.job_status("user-1", "job-1")).code == "2302"
        status = await client.wait("user-1", "job-1")
    assert status.verdict is Verdict.APPROVED
    assert status.result is not None
    assert status.result.smile_job_id == number
    assert status.result.partner_params is not None
    assert status.result.partner_params.extra == {"anything": ["more"]}


async def test_the_same_requests_get_the_same_answers() -> None:
    """Byte for byte, at the same instants, with the same seed; another seed has other URLs."""
    answers = []
    for seed in (1, 1, 2):
        async with opened(Sandbox(now=lambda: EPOCH, seed=seed)) as http_client:
            answers.append((await http_client.post("/v1/upload", json=registration())).content)
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "2203"),
        (b"[]", "2203"),
        (b"{", "2203"),
        (registration(partner_params=None), "2212"),
        ({**registration(), "partner_params": None}, "2212"),
        (registration(smile_client_id=None), "2213"),
        (registration(timestamp=None), "2213"),
        (registration(signature=None), "2213"),
        (registration({"user_id": ""}), "2213"),
        (registration({"user_id": " "}), "2213"),
        (registration({"user_id": ["user-1"]}), "2213"),
        (registration({"job_id": None}), "2213"),
        (registration({"job_type": None}), "2212"),
        (registration({"job_type": [1]}), "2212"),
        (registration(signature="bm8="), "2205"),
        (registration(smile_client_id="85"), "2205"),
        (registration({"job_type": 3}), "2212"),
        (registration({"job_type": "9" * 5000}), "2212"),
        (registration(partner_params="user-1"), "2204"),
        (json.dumps(registration({"more": 17})).replace("17", "1e999").encode(), "2203"),
        (registration({"more": "\ud800"}), "2204"),
        (registration({"sandbox_result": "3"}), "2204"),
        (registration(callback_url=["https://127.0.0.1"]), "2204"),
        (registration(callback_url="https://127.0.0.1/\ud800"), "2204"),
    ],
)
async def test_a_registration_that_is_wrong_is_refused(body: object, code: str) -> None:
    """With the code of the vendor's that says why; and there is no job."""
    sandbox = Sandbox(now=virtual_now)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with opened(sandbox) as http_client:
        answer = await http_client.post("/v1/upload", content=content)
    assert (answer.status_code, answer.json().keys(), answer.json()["code"]) == (400, {"error", "code"}, code)
    assert not sandbox.jobs


async def test_a_registration_that_is_too_large_is_refused() -> None:
    """After a megabyte nothing more is read."""
    pieces: list[bytes | None] = [b" " * 1024 * 1024, b" ", None]
    http_status, body = await raw(Sandbox(), "POST", f"{BASE}/v1/upload", pieces)
    assert (http_status, json.loads(body)) == (413, {"message": "Request Too Long"})
    assert pieces == [None]


async def test_a_job_type_that_is_missing_or_wrong_is_refused_as_recorded() -> None:
    """In the words of the real server."""
    async with opened(Sandbox()) as http_client:
        for body in ({**registration(), "partner_params": None}, registration({"job_type": 3})):
            answer = await http_client.post("/v1/upload", json=body)
            assert (answer.status_code, answer.json()) == (400, {"error": "Invalid job type.", "code": "2212"})


@pytest.mark.parametrize(
    ("callback_url", "host"),
    [
        ("https://hooks.example", "hooks.example"),
        ("https://hooks.example/secret-of-the-receiver", "hooks.example"),
        ("hooks.example", ""),
        ("hooks.example:8080/secret-of-the-receiver", ""),
        ("secret of the receiver", ""),
        ("http://[secret-of-the-receiver", ""),
        ("https://" + "x" * 1000, ""),
        ("https://" + "x" * 10_000, ""),
    ],
)
async def test_callbacks_to_a_foreign_host_are_dropped_with_one_warning(
    callback_url: str, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The jobs are accepted and come to their results; the log names the host once, and nothing else of the URL."""
    sandbox = Sandbox(now=virtual_now, review=60)
    async with sandbox, opened(sandbox) as http_client:
        for job_id in ("job-1", "job-2"):
            params = {"job_id": job_id, "sandbox_result": "2"}
            url = await registered(http_client, params, callback_url=callback_url)
            zip_ = zipped(info_json(misc_information={"partner_params": {"user_id": "user-1", "job_id": job_id}}))
            await http_client.put(url, content=zip_)
            status = await client_of(http_client).wait("user-1", job_id, until="final")
            assert status.verdict is Verdict.APPROVED
    (record,) = [record for record in caplog.records if record.name == "smilejobs.sandbox"]
    assert record.getMessage().startswith(f"callbacks to {host!r} are not sent: callback_url ")
    assert "/secret" not in record.getMessage()


async def test_a_job_that_exists_is_refused_unless_it_is_sent_again_for_its_zip() -> None:
    """2215 names the flag; with it the same job gets a URL again, also when its zip is there already."""
    async with opened(Sandbox(now=virtual_now)) as http_client:
        url = await registered(http_client)
        again = await http_client.post("/v1/upload", json=registration())
        assert (again.status_code, again.json()["code"]) == (400, "2215")
        assert "retry flag" in again.json()["error"]
        assert await registered(http_client, retry="true") == url
        await http_client.put(url, content=zipped())
        assert (await http_client.post("/v1/upload", json=registration())).json()["code"] == "2215"
        assert await registered(http_client, retry=True) == url
        assert (await http_client.put(url, content=zipped())).status_code == 200
        assert (await client_of(http_client).wait("user-1", "job-1")).verdict is Verdict.APPROVED


async def test_the_first_zip_counts() -> None:
    """The store takes a second one, as stores do, and the job goes on as it was."""
    async with opened(Sandbox(now=virtual_now)) as http_client:
        url = await registered(http_client)
        assert (await http_client.put(url, content=zipped())).status_code == 200
        assert (await http_client.put(url, content=b"garbage")).status_code == 200
        assert (await client_of(http_client).wait("user-1", "job-1")).verdict is Verdict.APPROVED


async def test_the_upload_url_takes_one_zip_of_one_job() -> None:
    """For another job, another method, changed, or after 15 minutes it does nothing."""
    sandbox = Sandbox(now=virtual_now)
    async with opened(sandbox) as http_client:
        url = await registered(http_client)
        other = await registered(http_client, {"job_id": "job-2"})
        swapped = url.replace(urlsplit(url).path, urlsplit(other).path)
        for wrong in (swapped, url.replace("X-Amz-Expires=900", "X-Amz-Expires=9999"), url.split("?")[0]):
            answer = await http_client.put(wrong, content=zipped())
            assert (answer.status_code, answer.headers["content-type"]) == (403, "application/xml")
            assert "SignatureDoesNotMatch" in answer.text
        assert (await http_client.get(url)).status_code == 405
        await anyio.sleep(900)
        assert "Request has expired" in (await http_client.put(url, content=zipped())).text
    assert not any(job.uploaded_at for job in sandbox.jobs.values())


async def test_a_url_of_another_sandbox_opens_nothing() -> None:
    """One that has the same key, and no such job."""
    async with opened(Sandbox(now=virtual_now)) as one, opened(Sandbox(now=virtual_now)) as other:
        url = await registered(one)
        answer = await other.put(url, content=zipped())
    assert (answer.status_code, "NoSuchKey" in answer.text) == (404, True)


async def test_a_zip_finds_its_job_after_a_restart(tmp_path: Path) -> None:
    """A job that a file has kept takes its zip at the URL that was given before, with all that was said of it."""
    state = tmp_path / "jobs.db"
    async with opened(Sandbox(now=virtual_now, state=state)) as http_client:
        url = await registered(http_client, {"job_type": 6, "sandbox_result": "1"})
    async with opened(Sandbox(now=virtual_now, state=state)) as http_client:
        assert (await http_client.put(url, content=zipped(info_json(images=[CARD])))).status_code == 200
        status = await client_of(http_client).wait("user-1", "job-1")
    assert status.result is not None
    assert status.result.result_code == "0811"


@pytest.mark.parametrize("what", ["register", "receive"])
async def test_a_state_that_cannot_be_written_is_a_fault_that_passes(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is 503, the log says why, and the same request succeeds later."""
    state, away = tmp_path / "jobs.db", tmp_path / "away.db"
    sandbox = Sandbox(now=virtual_now, state=state)
    async with opened(sandbox) as http_client:
        url = await registered(http_client) if what == "receive" else ""
        state.rename(away)
        state.mkdir()
        if what == "register":
            answer = await http_client.post("/v1/upload", json=registration())
            assert (answer.status_code, answer.json()) == (503, {"message": "Service Unavailable"})
            assert not sandbox.jobs
        else:
            answer = await http_client.put(url, content=zipped(info_json()))
            assert answer.status_code == 503
            assert sandbox.jobs[JobRef("user-1", "job-1")].uploaded_at is None
        assert "jobs.db cannot be used" in caplog.text
        state.rmdir()
        away.rename(state)
        url = url or await registered(http_client)
        assert (await http_client.put(url, content=zipped(info_json()))).status_code == 200
        assert (await client_of(http_client).wait("user-1", "job-1")).verdict is Verdict.APPROVED


async def test_a_zip_that_is_too_large_is_not_read_to_its_end() -> None:
    """It is refused, and the job has no zip."""
    sandbox = Sandbox(now=virtual_now)
    async with opened(sandbox) as http_client:
        url = await registered(http_client)
        pieces: list[bytes | None] = [bytes(MAX_ZIP_BYTES), b"1", None]
        http_status, _ = await raw(sandbox, "PUT", url, pieces)
        assert http_status == 413
        assert pieces == [None]
        assert (await client_of(http_client).job_status("user-1", "job-1")).code == "2314"


async def test_a_zip_that_breaks_off_is_none() -> None:
    """A client that leaves half-way has sent nothing."""
    sandbox = Sandbox(now=virtual_now)
    async with opened(sandbox) as http_client:
        url = await registered(http_client)
        http_status, _ = await raw(sandbox, "PUT", url, [zipped(), None])
        assert http_status == 503
        assert (await client_of(http_client).job_status("user-1", "job-1")).code == "2314"


@pytest.mark.parametrize("content", [b"", b"garbage", zipped()[:-9], zipped(b"{"), zipped(b"[]")])
async def test_a_zip_that_cannot_be_read_ends_the_job(content: bytes) -> None:
    """The store takes it; the result says 0903."""
    async with opened(Sandbox(now=virtual_now)) as http_client:
        answer = await http_client.put(await registered(http_client), content=content)
        assert answer.status_code == 200
        status = await client_of(http_client).wait("user-1", "job-1", until="final")
    assert status.result is not None
    assert (status.verdict, status.result.result_code) == (Verdict.REJECTED, "0903")


@pytest.mark.parametrize(
    ("sandbox_result", "verdicts"),
    [
        ("0", [Verdict.APPROVED]),
        ("1", [Verdict.REJECTED]),
        ("2", [Verdict.PROVISIONAL, Verdict.APPROVED]),
        (1, [Verdict.REJECTED]),
        (None, [Verdict.APPROVED]),
    ],
)
async def test_the_partner_chooses_the_outcome(sandbox_result: object, verdicts: list[Verdict]) -> None:
    """By its parameter, a word as documented, or the number that mobile clients send."""
    async with opened(Sandbox(now=virtual_now)) as http_client:
        url = await registered(http_client, {"job_type": 6, "sandbox_result": sandbox_result})
        await http_client.put(url, content=zipped(info_json(images=FILES), {"selfie.jpg": b"1", "card.jpg": b"2"}))
        client = client_of(http_client)
        seen = [
            status.verdict
            async for status in client.watch("user-1", "job-1", until="final", timeout=10**7)
            if status.job_complete
        ]
    assert seen == verdicts


async def test_the_data_of_the_person_come_back() -> None:
    """What the ID authority was asked for, and the person of whom it was asked."""
    id_info = {
        "entered": True,
        "country": "NG",
        "id_type": "BVN",
        "id_number": "00000000000",
        "first_name": "Joan",
        "last_name": "Fiction",
        "dob": "1980-02-03",
        "more": {"deep": 1},
        "gender": None,
    }
    async with opened(Sandbox(now=virtual_now)) as http_client:
        url = await registered(http_client)
        await http_client.put(url, content=zipped(info_json(id_info=id_info)))
        status = await client_of(http_client).wait("user-1", "job-1")
    result = status.result
    assert result is not None
    assert (result.country, result.id_type, result.id_number) == ("NG", "BVN", "00000000000")
    assert (result.full_name, result.first_name, result.last_name) == ("Joan Fiction", "Joan", "Fiction")
    assert result.dob == "1980-02-03"


@pytest.mark.parametrize(
    ("job_type", "id_number", "entered", "outcome"),
    [
        (5, "00000000000", True, "approved"),
        (5, "00000000001", "true", "1013"),
        (5, "00000000002", True, "1014"),
        (5, "00000000003", True, "1015"),
        (5, "00000000004", True, "approved"),
        (5, 10000000001, True, "1013"),
        (5, "00000000009", True, "approved"),
        (1, "00000000001", True, "1013"),
        (1, "00000000001", False, "approved"),
        (1, None, True, "approved"),
        (4, "00000000001", True, "approved"),
    ],
)
def test_the_test_number_chooses_the_outcome(job_type: int, id_number: object, entered: object, outcome: str) -> None:
    """By its last digit, where the ID authority is asked."""
    info = info_json(id_info={"entered": entered, "id_number": id_number})
    assert examine(job(job_type), zipped(info)).outcome == outcome


@pytest.mark.parametrize(
    ("digit", "result_code", "verdict"),
    [
        ("0", "1012", Verdict.APPROVED),
        ("1", "1013", Verdict.REJECTED),
        ("2", "1014", Verdict.UNKNOWN),
        ("3", "1015", Verdict.ERROR),
        ("4", "1012", Verdict.APPROVED),
    ],
)
async def test_every_test_number_comes_to_its_result(digit: str, result_code: str, verdict: Verdict) -> None:
    """From the upload to the poll."""
    async with opened(Sandbox(now=virtual_now)) as http_client:
        url = await registered(http_client, {"job_type": 5})
        info = info_json(id_info={"entered": "true", "id_number": f"0000000000{digit}"})
        await http_client.put(url, content=zipped(info))
        status = await client_of(http_client).wait("user-1", "job-1")
    assert status.result is not None
    assert (status.result.result_code, status.verdict) == (result_code, verdict)


async def test_a_strict_sandbox_refuses_an_old_timestamp() -> None:
    """With 2405, as it does for polls."""
    async with opened(Sandbox(now=lambda: EPOCH, max_skew=60)) as http_client:
        assert (await http_client.post("/v1/upload", json=registration())).status_code == 200
        old = format_timestamp(EPOCH - timedelta(seconds=61))
        for timestamp in (old, "yesterday"):
            body = registration(timestamp=timestamp, signature=sign(CREDENTIALS, timestamp))
            answer = await http_client.post("/v1/upload", json=body)
            assert (answer.status_code, answer.json()["code"]) == (400, "2405")


def test_the_choice_of_the_partner_goes_before_the_number() -> None:
    """The one is meant, the other may be."""
    info = info_json(id_info={"entered": True, "id_number": "1"})
    assert examine(job(5, sandbox_result="0"), zipped(info)).outcome == "approved"


def test_with_the_fourth_test_number_the_partner_says_who_it_is() -> None:
    """The authority's answer is what was sent along; other parameters are none of it."""
    info = info_json(id_info={"entered": True, "id_number": "4", "first_name": "Joan", "country": "GH"})
    finding = examine(job(5, FullName="Anna Nother", DOB="1970-01-01", colour="red"), zipped(info))
    assert finding.details == {
        "Country": "GH",
        "IDNumber": "4",
        "FirstName": "Joan",
        "FullName": "Anna Nother",
        "DOB": "1970-01-01",
        "Source": "WebAPI - python",
    }
    assert "DOB" not in examine(job(5, DOB="1970-01-01"), zipped(info_json(id_info={"entered": True}))).details


def test_who_is_not_found_has_no_data() -> None:
    """Only what was asked for."""
    info = info_json(id_info={"entered": True, "id_number": "1", "first_name": "Joan", "country": "GH"})
    assert examine(job(5), zipped(info)).details == {"Country": "GH", "IDNumber": "1", "Source": "WebAPI - python"}


def encrypted() -> bytes:
    """A zip whose first file says that it is encrypted."""
    content = bytearray(zipped())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    return bytes(content)


def lying(size: int) -> bytes:
    """A zip whose directory declares another size of its ``info.json`` than it has."""
    content = bytearray(zipped())
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, size)
    return bytes(content)


def stored() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("info.json", json.dumps(info_json()))
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        encrypted(),
        zipped(json.dumps(info_json()).encode() + b" " * 64 * 1024 * 1024),
        lying(2**32 - 2),
        lying(10),
        stored().replace(b"python", b"pYthon"),
        zipped(b""),
        zipped(b'{"images":[' + b"[]," * 50_001 + b"0]}"),
        b"PK\x05\x06" + bytes(18),
    ],
)
def test_a_zip_that_is_no_good_is_corrupt(content: bytes) -> None:
    """Its ``info.json`` is encrypted, too large, of another size than declared, changed, empty or missing."""
    finding = examine(job(), content)
    assert (finding.outcome, finding.details) == ("0903", {"Source": "WebAPI"})


def test_only_the_info_is_unpacked() -> None:
    """A file that unpacks to a thousand times its size takes no memory."""
    content = zipped(files={"bomb": bytes(10**8)})
    tracemalloc.start()
    assert examine(job(), content).outcome == "approved"
    assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    tracemalloc.stop()


@unhurried
@given(st.binary() | st.binary().map(lambda data: b"PK\x03\x04" + data + b"PK\x05\x06" + bytes(18)))
def test_any_bytes_are_a_zip_that_is_corrupt(content: bytes) -> None:
    """The job ends with 0903, and nothing raises."""
    assert examine(job(), content).outcome == "0903"


@unhurried
@given(st.data())
def test_a_zip_with_wrong_bytes_is_read_or_refused(data: st.DataObject) -> None:
    """Some bytes of a good zip are changed, or its end is missing: a finding comes of it all the same."""
    content = bytearray(zipped(files={"selfie.jpg": b"selfie" * 9}))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    finding = examine(job(), bytes(content[: data.draw(st.integers(0, len(content)))]))
    assert finding.outcome in ("approved", "0903", "1013", "1014", "1015")


@unhurried
@given(changes=st.dictionaries(st.sampled_from(sorted(info_json())), json_values), job_type=st.sampled_from([1, 5, 6]))
def test_any_json_in_an_info_json(changes: dict[str, object], job_type: int) -> None:
    """Any JSON at all in the places of an ``info.json``: a finding that can be sent as JSON."""
    content = json.dumps({**info_json(images=[SELFIE, CARD]), **changes}).encode()
    finding = examine(job(job_type), zipped(content))
    json.dumps(finding.details, ensure_ascii=False, allow_nan=False).encode()


@unhurried
@given(id_info=st.dictionaries(st.sampled_from(["entered", "id_number", "first_name", "country"]), json_values))
def test_any_json_in_an_id_info(id_info: dict[str, object]) -> None:
    """Likewise among the data of the person."""
    finding = examine(job(5), zipped(info_json(id_info={"entered": True, **id_info})))
    json.dumps(finding.details, ensure_ascii=False, allow_nan=False).encode()


@unhurried
@given(
    params=st.dictionaries(
        st.sampled_from(["user_id", "job_id", "job_type", "sandbox_result", "more"]), json_values, max_size=3
    ),
    changes=st.dictionaries(st.sampled_from(sorted(registration())), json_values, max_size=2),
)
def test_any_json_in_a_registration(params: dict[str, object], changes: dict[str, object]) -> None:
    """It is accepted or refused with a code of the vendor's; what is accepted can be asked for."""

    async def main() -> None:
        sandbox = Sandbox(now=lambda: EPOCH)
        body = {**registration(params), **changes}
        async with opened(sandbox) as http_client:
            answer = await http_client.post("/v1/upload", content=json.dumps(body).encode())
            assert answer.status_code in (200, 400)
            assert answer.json()["code"] in ("2202", "2203", "2204", "2205", "2212", "2213")
            if answer.status_code == 200:
                (ref,) = sandbox.jobs
                await http_client.put(answer.json()["upload_url"], content=b"garbage")
                client = client_of(http_client)
                assert (await client.job_status(ref.user_id, ref.job_id)).code == "2302"

    anyio.run(main)


@pytest.mark.parametrize("info", [b"", b"{"])
def test_a_zip_that_cannot_be_read_has_no_source(info: bytes) -> None:
    """Its sender is not known."""
    assert examine(job(), zipped(info)).details == {"Source": "WebAPI"}


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ({"language": "ruby"}, "WebAPI - ruby"),
        ({"language": "Hosted Web Integration"}, "WebAPI - Hosted Web Integration"),
        ({"language": ""}, "WebAPI"),
        ({"language": "\ud800"}, "WebAPI"),
        ({"language": ["ruby"]}, "WebAPI"),
        ({}, "WebAPI"),
        (None, "WebAPI"),
    ],
)
async def test_the_source_is_the_client_that_has_sent_the_zip(package: object, source: str) -> None:
    """By the language that it names, in the result."""
    async with opened(Sandbox(now=virtual_now)) as http_client:
        url = await registered(http_client)
        await http_client.put(url, content=zipped(info_json(package_information=package, misc_information=None)))
        status = await client_of(http_client).wait("user-1", "job-1")
    assert status.result is not None
    assert status.result.raw["Source"] == source


def compressed(body: bytes) -> bytes:
    return gzip.compress(body)


@pytest.mark.parametrize("path", ["/v1/upload", "/v1/job_status"])
async def test_a_request_may_be_compressed(path: str) -> None:
    """As the vendor's Android client sends it."""
    body = {**registration(), "partner_id": "085", "user_id": "user-1", "job_id": "job-1"}
    content = compressed(json.dumps(body).encode())
    async with opened(Sandbox(now=virtual_now)) as http_client:
        answer = await http_client.post(path, content=content, headers={"Content-Encoding": "GZip"})
    assert answer.json()["code"] == ("2202" if path == "/v1/upload" else "2304")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (compressed(b" " * (1024 * 1024 + 1)), None),
        (compressed(b"{}" + b" " * 10**8), None),
        (compressed(json.dumps(registration()).encode())[:-1], "2203"),
        (json.dumps(registration()).encode(), "2203"),
        (b"", "2203"),
    ],
)
async def test_a_compressed_request_that_is_wrong_is_refused(content: bytes, code: str | None) -> None:
    """A bomb, one that ends too early, one that is not compressed: in little memory."""
    tracemalloc.start()
    async with opened(Sandbox(now=virtual_now)) as http_client:
        answer = await http_client.post("/v1/upload", content=content, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json().get("code")) == (400 if code else 413, code)
    assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    tracemalloc.stop()


@pytest.mark.parametrize("job_type", [6, 11])
@pytest.mark.parametrize(("sandbox_result", "code"), [("0", "0810"), ("1", "0811")])
async def test_document_verification_keeps_country_and_type(job_type: int, sandbox_result: str, code: str) -> None:
    """Those that were sent, with every outcome."""
    info = info_json(images=[SELFIE, CARD], id_info={"country": "KE", "id_type": "PASSPORT"})
    async with opened(Sandbox(now=virtual_now)) as http_client:
        url = await registered(http_client, {"job_type": job_type, "sandbox_result": sandbox_result})
        await http_client.put(url, content=zipped(info))
        result = (await client_of(http_client).wait("user-1", "job-1")).result
    assert result is not None
    assert (result.result_code, result.country, result.id_type) == (code, "KE", "PASSPORT")


async def test_a_page_in_a_browser_may_submit() -> None:
    """It is told so before it asks, for both steps; and the answers may be read by it."""
    async with opened(Sandbox(now=virtual_now)) as http_client:
        for path in ("/v1/upload", "/v1/job_status"):
            answer = await http_client.options(path, headers={"Access-Control-Request-Method": "POST"})
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["access-control-allow-methods"] == "POST, PUT"
            assert answer.headers["access-control-allow-headers"] == "Content-type"
        url = await registered(http_client)
        assert (await http_client.options(url)).headers["access-control-allow-methods"] == "POST, PUT"
        taken = await http_client.put(url, content=zipped())
        refused = await http_client.put(url.partition("?")[0], content=zipped())
        assert [answer.headers["access-control-allow-origin"] for answer in (taken, refused)] == ["*", "*"]
