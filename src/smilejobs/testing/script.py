"""Answers by script, in the place of the HTTP client."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
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
from smilejobs.wire.signature import format_timestamp, sign


@frozen(kw_only=True)
class Reply:
    """One answer of the API.

    Attributes:
        body: A mapping is sent as JSON, signed unless it has a ``signature`` of its own, its result speaking of the
            job that was asked for unless it has ``PartnerParams`` of its own. Bytes are sent as they are.
        http_status: The HTTP status.
        headers: The HTTP headers, names in lower case.
        delay: Seconds until the answer comes.
    """

    body: Mapping[str, object] | bytes
    http_status: int = 200
    headers: Mapping[str, str] = field(factory=dict[str, str])
    delay: float = 0.0


Step = Reply | Exception
"""One step of a script: an answer, or an error to raise instead (an `OSError` is what a broken connection raises)."""


@frozen(kw_only=True)
class Poll:
    """One request that a script has seen.

    Attributes:
        at: When, in seconds of the event loop's clock.
        body: The JSON object that was sent.
    """

    at: float
    body: Mapping[str, object] = field(repr=False)


def pending(*, delay: float = 0.0) -> Reply:
    """The job is still running."""
    return Reply(body={"job_complete": False, "job_success": False, "code": SUCCESS}, delay=delay)


def no_zip() -> Reply:
    """The job is registered, its images are not there yet (2314)."""
    text = "No zip uploaded yet"
    return Reply(body={"job_complete": False, "job_success": False, "code": NO_ZIP, "result": text})


def complete(result_code: str = "0810", *, delay: float = 0.0, **result: object) -> Reply:
    """The job is complete.

    Args:
        result_code: Decides the verdict.
        delay: Seconds until the answer comes.
        result: Further keys of the result, in the vendor's spelling: ``FullName="..."``.
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
    """The job is complete for now: a human review goes on."""
    return complete("0814", IsFinalResult="false")


def refused(code: str, *, http_status: int = 400) -> Reply:
    """The API says no, with one of its status codes."""
    row = STATUS_CODES.get(code)
    return Reply(body={"error": "refused" if row is None else row.meaning, "code": code}, http_status=http_status)


def not_found() -> Reply:
    """The API knows no such job (2304)."""
    return refused(JOB_NOT_FOUND)


def rate_limited(retry_after: float | str | None = None) -> Reply:
    """HTTP 429.

    Args:
        retry_after: The value of the ``Retry-After`` header: seconds, or an HTTP date.
    """
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return Reply(body=b'{"message": "Too Many Requests"}', http_status=429, headers=headers)


def html(http_status: int = 502) -> Reply:
    """An error page of whatever stands before the API."""
    return Reply(body=b"<html><body><h1>Bad Gateway</h1></body></html>", http_status=http_status)


def cut() -> Exception:
    """The connection breaks before there is an answer."""
    return ConnectionResetError("the script cuts the connection")


class _Response:
    def __init__(self, status_code: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status_code = status_code
        self.headers = headers
        self._body = body

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        await anyio.lowlevel.checkpoint()
        yield self._body


class Script:
    """Stands in the place of an HTTP client, and answers each poll with the next step of its job.

    A poll without a step left is an `AssertionError` in the code under test.

    Args:
        steps: By ``job_id``, what is answered in turn. A sequence must be used up; any other iterable, such as
            ``itertools.repeat(pending())``, may have steps left.
        credentials: Sign the answers; those of `client` by default.
        now: Dates the answers; the virtual wall clock by default.

    Attributes:
        polls: What has been asked, by ``job_id``.
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
        self._exceeded: list[str] = []
        self.polls: dict[str, list[Poll]] = {job_id: [] for job_id in self._steps}

    @asynccontextmanager
    async def client(self, **options: Unpack[ClientOptions]) -> AsyncGenerator[Client, None]:
        """Open a client over this script, under the virtual wall clock; at the end every step must have been used.

        Args:
            options: Further arguments of the client.

        Raises:
            AssertionError: Steps are left (not raised over an error of the block).
        """
        options.setdefault("http_client", self)
        options.setdefault("now", self._now)
        partner_id, api_key = self._credentials.partner_id, self._credentials.api_key
        async with Client(partner_id=partner_id, api_key=api_key, environment="sandbox", **options) as client:
            yield client
        self.assert_used_up()

    def assert_used_up(self) -> None:
        """Check that every step has been used, and that no poll was without one, also if that went unnoticed.

        Raises:
            AssertionError: Some are left, or were missing.
        """
        assert not self._exceeded, "; ".join(self._exceeded)
        left = {job_id: length - len(self.polls[job_id]) for job_id, length in self._lengths.items()}
        left = {job_id: count for job_id, count in left.items() if count > 0}
        assert not left, f"steps that were not used, by job_id: {left}"

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        content: bytes,
        headers: Mapping[str, str],
        auth: None,
        follow_redirects: bool,
        timeout: None,
    ) -> AsyncIterator[_Response]:
        """Answer one poll; this is what makes a script fit in the place of an HTTP client."""
        asked = json.loads(content)
        job_id = asked["job_id"]
        polls = self.polls.get(job_id)
        if polls is None:
            raise self._failure(f"there is no script for the job_id {job_id!r}")
        polls.append(Poll(at=anyio.current_time(), body=asked))
        step = next(self._steps[job_id], None)
        if step is None:
            raise self._failure(f"poll {len(polls)} of the job_id {job_id!r} is not in the script")
        await anyio.lowlevel.checkpoint()
        if isinstance(step, Exception):
            raise step
        await anyio.sleep(step.delay)
        yield _Response(step.http_status, step.headers, self._body(step.body, asked))

    def _failure(self, text: str) -> AssertionError:
        self._exceeded.append(text)
        return AssertionError(text)

    def _body(self, body: Mapping[str, object] | bytes, asked: Mapping[str, object]) -> bytes:
        if isinstance(body, bytes):
            return body
        filled = dict(body)
        result = filled.get("result")
        if isinstance(result, Mapping):
            params = {"user_id": asked["user_id"], "job_id": asked["job_id"], "job_type": 1}
            filled["result"] = {"PartnerParams": params, **result}
        if "signature" not in filled:
            timestamp = format_timestamp(self._now())
            filled["timestamp"] = timestamp
            filled["signature"] = sign(self._credentials, timestamp)
        return json.dumps(filled).encode()
