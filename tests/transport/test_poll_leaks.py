"""What a crash reporter can copy of the errors of polls: neither what was signed, nor what was answered."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

import smilejobs
from smilejobs.wire.signature import format_timestamp, sign
from tests.helpers.carriers import CREDENTIALS, OpenClient, anyio_backend, open_client, pytest_generate_tests
from tests.helpers.leaks import assert_keeps_secrets
from tests.helpers.servers import Stream, http, serve

__all__ = ["anyio_backend", "open_client", "pytest_generate_tests"]

pytestmark = pytest.mark.anyio

PERSONAL = "Amber-Quartz"

Ask = Callable[[smilejobs.Client, float], Awaitable[object]]


async def job_status(client: smilejobs.Client, _: float) -> object:
    return await client.job_status("user-1", "job-1")


async def wait(client: smilejobs.Client, timeout: float) -> object:
    return await client.wait("user-1", "job-1", timeout=timeout)


async def wait_many(client: smilejobs.Client, timeout: float) -> object:
    async with client.wait_many([("user-1", "job-1")], timeout=timeout) as outcomes:
        async for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
    return None


def signed(**more: object) -> bytes:
    """The body of an answer with a valid signature, and personal data in it."""
    timestamp = format_timestamp(datetime.now(UTC))
    proof = {"timestamp": timestamp, "signature": sign(CREDENTIALS, timestamp), "extra": PERSONAL}
    return json.dumps({"job_complete": True, "code": "2302", **proof, **more}).encode()


OTHER_JOB = {"ResultCode": "0810", "FullName": PERSONAL, "PartnerParams": {"user_id": "user-2", "job_id": "job-2"}}
HEADER = f"X-Name: {PERSONAL}"

ANSWERS: dict[str, tuple[Callable[[], bytes], type[smilejobs.SmileJobsError], bool]] = {
    "unsigned": (lambda: http(signed(signature="?"), "200 OK", HEADER), smilejobs.SignatureError, True),
    "of another job": (lambda: http(signed(result=OTHER_JOB), "200 OK", HEADER), smilejobs.WrongJobError, True),
    "of a wrong shape": (lambda: http(signed(result=[PERSONAL])), smilejobs.BadResponseError, False),
    "not JSON": (lambda: http(b"{" + PERSONAL.encode(), "200 OK", HEADER), smilejobs.BadResponseError, False),
    "too large": (lambda: http(PERSONAL.encode() * 20_000), smilejobs.BadResponseError, False),
    "cut": (lambda: http(signed())[:-3], smilejobs.BadResponseError, False),
    "no HTTP": (lambda: PERSONAL.encode() + b"\r\n\r\n", smilejobs.RequestError, False),
    "nothing": (lambda: b"", smilejobs.RequestError, False),
    "a gateway's": (
        lambda: http(b'{"message": "Forbidden", "for": "%b"}' % PERSONAL.encode(), "403 Forbidden", HEADER),
        smilejobs.GatewayError,
        False,
    ),
    "refused": (
        lambda: http(b'{"code": "2205", "for": "%b"}' % PERSONAL.encode(), "400 Bad Request", HEADER),
        smilejobs.CredentialsError,
        True,
    ),
    "pending": (lambda: http(signed(job_complete=False)), smilejobs.WaitTimeoutError, True),
}
"""What a server sends, what a poll of it ends with, and whether a wait ends with the same."""


@pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")  # httpx abandons that of its body
@pytest.mark.parametrize("name", ANSWERS)
async def test_errors_of_polls_keep_secrets(open_client: OpenClient, name: str) -> None:
    """No frame, cause or context holds the key, a signature, the body of an answer, its headers or what it says."""
    answer, kind, is_final = ANSWERS[name]
    signatures: set[str] = set()

    async def handler(stream: Stream, body: bytes) -> None:
        response = answer()
        for text in (body, response):
            after = text.partition(b'"signature": "')[2]
            signatures.add(after.partition(b'"')[0].decode())
        await stream.send(response)
        await stream.aclose()

    async with serve(handler) as server, open_client(server.url()) as client:
        for ask in (job_status, wait, wait_many):
            if (name, ask) == ("pending", job_status):
                continue  # no error
            with pytest.raises(smilejobs.SmileJobsError) as caught:
                await ask(client, 60 if is_final and name != "pending" else 0.1)
            assert type(caught.value) is (kind if is_final or ask is job_status else smilejobs.WaitTimeoutError)
            assert_keeps_secrets(caught.value, CREDENTIALS.api_key, PERSONAL, *signatures - {"", "?"})
