"""The other side of the benchmarks: a server that costs little, in a process and on a core of its own.

It reads requests by their Content-Length and answers with a signed, complete status of the job that was asked for;
nothing of an HTTP library's, and none of ours but the vendor's formula for signatures.
"""

import argparse
import asyncio
import base64
import hmac
import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

PARTNER_ID = "085"
API_KEY = "a-key-that-signs-nothing-real"
TIMESTAMP = "2026-03-02T10:20:30.400Z"


def pin(index: int) -> None:
    """Stay on one core from now on, the *index*-th that we may use; do nothing where that cannot be asked for."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[index % len(cores)]})


def resident() -> int:
    """Bytes of resident memory."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()


def signature(timestamp: str) -> str:
    """Sign as the vendor documents it."""
    digest = hmac.digest(API_KEY.encode(), f"{timestamp}{PARTNER_ID}sid_request".encode(), "sha256")
    return base64.b64encode(digest).decode()


def request_body(user_id: str, job_id: str) -> bytes:
    """The question about one job."""
    return json.dumps(
        {
            "partner_id": PARTNER_ID,
            "timestamp": TIMESTAMP,
            "signature": signature(TIMESTAMP),
            "user_id": user_id,
            "job_id": job_id,
            "image_links": False,
            "history": False,
        }
    ).encode()


def template() -> str:
    """A complete status, about 1 KB, that lacks the ids."""
    result = {
        "ResultCode": "1012",
        "ResultText": "ID Number Validated",
        "ResultType": "ID Verification",
        "SmileJobID": "0000004001",
        "JSONVersion": "1.0.0",
        "PartnerParams": {"user_id": "USER", "job_id": "JOB", "job_type": 1},
        "ConfidenceValue": "99.99",
        "Actions": {
            "Verify_ID_Number": "Verified",
            "Return_Personal_Info": "Returned",
            "Liveness_Check": "Passed",
            "Human_Review_Liveness_Check": "Not Applicable",
            "Selfie_To_ID_Authority_Compare": "Completed",
        },
        "IsFinalResult": "true",
        "IsMachineResult": "true",
        "Country": "NG",
        "IDType": "NIN_V2",
        "IDNumber": "00000000000",
        "FullName": "Ada Lovelace Example",
        "FirstName": "Ada",
        "LastName": "Example",
        "DOB": "1990-12-10",
        "Gender": "F",
        "Address": "1 Example Street, Lagos",
        "PhoneNumber": "0800000000",
        "ExpirationDate": "Not Available",
        "Source": "WebAPI",
    }
    status = {"job_complete": True, "job_success": True, "code": "2302", "result": result, "history": []}
    signed = {"timestamp": TIMESTAMP, "signature": signature(TIMESTAMP)}
    text = json.dumps(signed | status).replace("%", "%%")
    return text.replace('"USER"', "%s").replace('"JOB"', "%s")


class State:
    """What all connections share.

    Args:
        polls: With how many good answers a job is complete.
        limit: Polls per second above which the answer is 429, by a bucket that holds a tenth of a second's; None for
            no limit.
        retry_after: The header of a 429, in seconds; None for none.
        lasts: Seconds between which jobs last, counted from their first polls, each for as long as its id says; None
            for no time.
        log: Gets a line for each request that is answered: the instant by `time.monotonic`, the path, and the job.
    """

    def __init__(
        self,
        polls: int,
        limit: float | None,
        retry_after: int | None,
        lasts: tuple[float, float] | None = None,
        log: TextIO | None = None,
    ) -> None:
        self.complete = template()
        pending = {"job_complete": False, "job_success": False, "code": "2302"}
        signed = {"timestamp": TIMESTAMP, "signature": signature(TIMESTAMP)}
        self.pending = response("200 OK", json.dumps(signed | pending))
        header = "" if retry_after is None else f"Retry-After: {retry_after}\r\n"
        self.refused = response("429 Too Many Requests", '{"message": "Too Many Requests"}', header)
        self.needed = polls
        self.polls: Counter[str] = Counter()
        self.lasts = lasts
        self.log = log
        self.ends: dict[str, float] = {}
        self.limit = limit
        self.tokens = 0.0 if limit is None else limit / 10
        self.at = time.monotonic()

    def answer(self, path: str, body: bytes) -> bytes:
        """Return the response to one request."""
        if self.limit is not None:
            now = time.monotonic()
            self.tokens = min(self.limit / 10, self.tokens + (now - self.at) * self.limit)
            self.at = now
            if self.tokens < 1:
                return self.refused
            self.tokens -= 1
        asked = json.loads(body)
        if self.log is not None:
            self.log.write(f"{time.monotonic()} {path} {asked['job_id']}\n")
        if self.lasts is not None and self.goes_on(asked["job_id"]):
            return self.pending
        if self.needed > 1:
            self.polls[asked["job_id"]] += 1
            if self.polls[asked["job_id"]] < self.needed:
                return self.pending
        return response("200 OK", self.complete % (json.dumps(asked["user_id"]), json.dumps(asked["job_id"])))

    def goes_on(self, job_id: str) -> bool:
        """Whether a job has not lasted for its time yet."""
        assert self.lasts is not None
        now = time.monotonic()
        if job_id not in self.ends:
            least, most = self.lasts
            self.ends[job_id] = now + least + zlib.crc32(job_id.encode()) / 2**32 * (most - least)
        return now < self.ends[job_id]


def response(status: str, body: str, header: str = "") -> bytes:
    """The bytes of a response."""
    data = body.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{header}Content-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


class Connection(asyncio.Protocol):
    """Reads requests, and writes what the state says."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            start = end + 4
            if len(self.buffer) < start + length:
                return
            body, self.buffer = self.buffer[start : start + length], self.buffer[start + length :]
            self.transport.write(self.state.answer(head.split(b" ", 2)[1].decode(), body))


async def serve(state: State, tls: ssl.SSLContext | None) -> None:
    """Answer on a free port of loopback, which is printed, until standard input ends."""
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0, ssl=tls, backlog=1000)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    listener.close()


@contextmanager
def server(
    *,
    tls: bool = False,
    polls: int = 1,
    limit: float | None = None,
    retry_after: int | None = None,
    lasts: tuple[float, float] | None = None,
    log: Path | None = None,
) -> Iterator[str]:
    """Run the server on the second core, stay on the first one ourselves, and yield the base URL.

    With *tls* the environment variables for certificates name the authority of the server's, which every client reads.
    """
    command = [sys.executable, __file__, "--polls", str(polls)]
    command += [] if limit is None else ["--limit", str(limit)]
    command += [] if retry_after is None else ["--retry-after", str(retry_after)]
    command += [] if lasts is None else ["--lasts", *map(str, lasts)]
    command += [] if log is None else ["--log", str(log)]
    with TemporaryDirectory() as folder:
        if tls:
            import trustme

            authority = trustme.CA()
            certificate = Path(folder, "server.pem")
            authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
            trusted = Path(folder, "authority.pem")
            authority.cert_pem.write_to_path(str(trusted))
            os.environ["SSL_CERT_FILE"] = os.environ["REQUESTS_CA_BUNDLE"] = str(trusted)
            command += ["--tls", str(certificate)]
        with child(command) as port:
            yield f"{'https' if tls else 'http'}://localhost:{port}/v1"


@contextmanager
def child(command: Sequence[str]) -> Iterator[int]:
    """Run a server that prints its port and ends with its input, stay on the first core ourselves; yield the port."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        pin(0)
        try:
            yield port
        finally:
            process.stdin.close()


def server_limit(base_url: str, connections: int = 100, requests: int = 20_000) -> float:
    """Return how many requests per second the server answers when hardly anything is done on our side."""
    scheme, _, rest = base_url.partition("://")
    port = int(rest.partition(":")[2].partition("/")[0])
    body = request_body("user-1", "job-1")
    request = f"POST /v1/job_status HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    if scheme == "https":
        context = ssl.create_default_context()
        sockets = [context.wrap_socket(each, server_hostname="localhost") for each in sockets]
    sockets[0].sendall(request)
    size = len(sockets[0].recv(65_536))
    start = time.perf_counter()
    for _ in range(requests // connections):
        for connection in sockets:
            connection.sendall(request)
        for connection in sockets:
            left = size
            while left:
                left -= len(connection.recv(left))
    taken = time.perf_counter() - start
    for connection in sockets:
        connection.close()
    return requests / taken


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tls", type=Path)
    parser.add_argument("--polls", type=int, default=1)
    parser.add_argument("--limit", type=float)
    parser.add_argument("--retry-after", type=int)
    parser.add_argument("--lasts", type=float, nargs=2)
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    tls = None
    if options.tls is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.tls)
    pin(1)
    with nullcontext() if options.log is None else options.log.open("w", buffering=1) as log:
        asyncio.run(serve(State(options.polls, options.limit, options.retry_after, options.lasts, log), tls))


if __name__ == "__main__":
    main()
