"""Scripted answers in place of the HTTP client."""

import json
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Unpack

import anyio
import anyio.lowlevel
from attrs import field, frozen

from smilejobs.client import Client, ClientOptions
from smilejobs.model.codes import JOB_NOT_FOUND, NO_ZIP, RESULT_CODES, STATUS_CODES, SUCCESS
from smilejobs.settings import Credentials
from smilejobs.testing.clock import virtual_now
from smilejobs.transport.over_client import LocalResponse
from smilejobs.wire.signature import format_timestamp, sign


@frozen(kw_only=True)
class Reply:
    """One answer of the API.

    Attributes:
        body: A mapping is sent as JSON. It is signed unless it has a ``signature``, and its result gets the
            ``PartnerParams`` of the polled job unless it has its own. Bytes are sent unchanged.
        http_status: The HTTP status.
        headers: The HTTP headers, names in lower case.
        delay: The seconds until the answer comes.
    """

    body: Mapping[str, object] | bytes
    http_status: int = 200
    headers: Mapping[str, str] = field(factory=dict[str, str])
    delay: float = 0.0


Step = Reply | Exception
"""One step of a script: an answer, or an exception to raise instead; a broken connection raises an `OSError`."""


@frozen(kw_only=True)
class Poll:
    """One request to a script.

    Attributes:
        at: The instant of the request, in seconds of the event loop's clock.
        body: The JSON object that was sent.
    """

    at: float
    body: Mapping[str, object] = field(repr=False)


def pending(*, delay: float = 0.0) -> Reply:
    """Return the answer for a job that is still running."""
    return Reply(body={"job_complete": False, "job_success": False, "code": SUCCESS}, delay=delay)


def no_zip() -> Reply:
    """Return the answer for a job that is registered and has no images yet (2314)."""
    text = "No zip uploaded yet"
    return Reply(body={"job_complete": False, "job_success": False, "code": NO_ZIP, "result": text})


def complete(result_code: str = "0810", *, delay: float = 0.0, **result: object) -> Reply:
    """Return the answer for a complete job.

    Args:
        result_code: The result code, which decides the verdict.
        delay: The seconds until the answer comes.
        result: Further keys of the result, by the vendor's names: ``FullName="..."``.
    """
    row = RESULT_CODES.get(result_code)
    return Reply(
        body={
            "job_complete": True,
            "job_success": True,
            "code": SUCCESS,
            "result": {
                "ResultCode": result_code,
                "ResultText": "" if row is None else row.text,
                "SmileJobID": "0000000001",
                "IsFinalResult": "true",
                **result,
            },
        },
        delay=delay,
    )


def provisional() -> Reply:
    """Return the answer for a job that is approved provisionally, while a human review is going on."""
    return complete("0814", IsFinalResult="false")


def refused(code: str, *, http_status: int = 400) -> Reply:
    """Return a refusal of the API with a status code."""
    row = STATUS_CODES.get(code)
    return Reply(body={"error": "refused" if row is None else row.meaning, "code": code}, http_status=http_status)


def not_found() -> Reply:
    """Return the answer for a job that the API does not know (2304)."""
    return refused(JOB_NOT_FOUND)


def rate_limited(retry_after: float | str | None = None) -> Reply:
    """Return an answer with HTTP status 429.

    Args:
        retry_after: The value of the ``Retry-After`` header: seconds, or an HTTP date; None for no header.
    """
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return Reply(body=b'{"message": "Too Many Requests"}', http_status=429, headers=headers)


def html(http_status: int = 502) -> Reply:
    """Return an error page of a gateway in front of the API."""
    return Reply(body=b"<html><body><h1>Bad Gateway</h1></body></html>", http_status=http_status)


def cut() -> Exception:
    """Return the error of a connection that breaks before the answer."""
    return ConnectionResetError("the script cuts the connection")


class Script:
    """Replaces an HTTP client, and answers each poll with the next step of its job.

    A poll after the last step raises `AssertionError` in the code under test.

    Args:
        steps: The answers of each job in order, by ``job_id``. A sequence must be used up; any other iterable, such as
            ``itertools.repeat(pending())``, may have steps left.
        credentials: The credentials that sign the answers and that `client` uses; by default those of a test partner.
        now: The wall clock for the timestamps of the answers; by default `virtual_now`.

    Attributes:
        polls: The requests so far, by ``job_id``.
    """

    def __init__(
        self,
        steps: Mapping[str, Iterable[Step]],
        *,
        credentials: Credentials | None = None,
        now: Callable[[], datetime] = virtual_now,
    ) -> None:
        self._steps = {job_id: iter(of_job) for job_id, of_job in steps.items()}
        self._lengths = {job_id: len(of_job) for job_id, of_job in steps.items() if isinstance(of_job, Sequence)}
        self._credentials = credentials or Credentials("085", "sandbox-key")
        self._now = now
        self._failures: list[str] = []
        self.polls: dict[str, list[Poll]] = {job_id: [] for job_id in self._steps}

    @asynccontextmanager
    async def client(self, **options: Unpack[ClientOptions]) -> AsyncGenerator[Client, None]:
        """Open a client that polls this script; when the block ends, check that every step was used.

        Args:
            options: Further arguments of the client.

        Raises:
            AssertionError: Steps are left. Not checked if the block raises an error.
        """
        options.setdefault("http_client", self)
        options.setdefault("now", self._now)
        partner_id, api_key = self._credentials.partner_id, self._credentials.api_key
        async with Client(partner_id=partner_id, api_key=api_key, environment="sandbox", **options) as client:
            yield client
        self.assert_used_up()

    def assert_used_up(self) -> None:
        """Raise AssertionError unless every step was used and every poll had a step.

        Raises:
            AssertionError: Steps are left, or a poll had no step, even if the code under test caught that error.
        """
        assert not self._failures, "; ".join(self._failures)
        left = {job_id: length - len(self.polls[job_id]) for job_id, length in self._lengths.items()}
        left = {job_id: count for job_id, count in left.items() if count > 0}
        assert not left, f"steps that were not used, by job_id: {left}"

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, *, content: bytes, **options: object
    ) -> AsyncGenerator[LocalResponse, None]:
        """Answer one poll, with the signature of an HTTP client's ``stream``."""
        request = json.loads(content)
        job_id = request["job_id"]
        polls = self.polls.get(job_id)
        if polls is None:
            raise self._record_failure(f"there is no script for the job_id {job_id!r}")
        polls.append(Poll(at=anyio.current_time(), body=request))
        step = next(self._steps[job_id], None)
        if step is None:
            raise self._record_failure(f"poll {len(polls)} of the job_id {job_id!r} is not in the script")
        await anyio.lowlevel.checkpoint()
        if isinstance(step, Exception):
            raise step
        await anyio.sleep(step.delay)
        yield LocalResponse(step.http_status, step.headers, self._encode_body(step.body, request))

    def _record_failure(self, text: str) -> AssertionError:
        self._failures.append(text)
        return AssertionError(text)

    def _encode_body(self, body: Mapping[str, object] | bytes, request: Mapping[str, object]) -> bytes:
        if isinstance(body, bytes):
            return body
        filled = dict(body)
        result = filled.get("result")
        if isinstance(result, Mapping):
            params = {"user_id": request["user_id"], "job_id": request["job_id"], "job_type": 1}
            filled["result"] = {"PartnerParams": params, **result}
        if "signature" not in filled:
            timestamp = format_timestamp(self._now())
            filled["timestamp"] = timestamp
            filled["signature"] = sign(self._credentials, timestamp)
        return json.dumps(filled).encode()
