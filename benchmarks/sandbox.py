"""How many polls the sandbox answers on one core, so that it is not what limits a test or a benchmark.

::

    python benchmarks/sandbox.py

One process serves, on a core of its own where the system allows that. Another process sends requests over kept raw
sockets, and does little else. Three kinds of request alternate in rounds: polls of complete jobs without faults; the
same with faults that delay and replace no answer (compression, variants, link errors); and an empty answer of the same
server, which is the cost of uvicorn. The median round counts.

The exit code is 1 if the bar is missed: 1,000 polls per second.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

from starlette.responses import Response
from starlette.routing import Route, Router

import smilejobs
from smilejobs.clock import utcnow
from smilejobs.model.jobs import Include
from smilejobs.sandbox import FaultProfile, Sandbox
from smilejobs.sandbox.server import serve as serve_app
from smilejobs.wire.protocol import encode_request

BAR = 1_000
CREDENTIALS = smilejobs.Credentials("085", "sandbox-key")
JOBS = 100
FAULTY = FaultProfile(gzip=0.5, variants=0.1, link_errors=0.05)


def main() -> int:
    """Measure, print, and say by the exit code whether the bar holds."""
    parser = argparse.ArgumentParser(description="Polls per second that the sandbox answers on one core.")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, at least 5 (default: 7)")
    parser.add_argument("--polls", type=int, default=3_000, help="requests of each kind in one round (default: 3000)")
    parser.add_argument("--connections", type=int, default=20, help="connections at once (default: 20)")
    parser.add_argument("--serve", type=int, metavar="CORE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        pin(options.serve)
        asyncio.run(serve())
        return 0
    with server() as ports:
        return 0 if compare(ports, max(options.rounds, 5), options.polls, options.connections) else 1


def compare(ports: Sequence[int], rounds: int, polls: int, connections: int) -> bool:
    """Print a line for each kind of request, and return whether the bar holds."""
    without, faulty, empty = ports
    polled = [poll(without, f"job-{number % JOBS}") for number in range(polls)]
    kinds = {
        "polls, without faults": (without, polled),
        "polls, with faults": (faulty, polled),
        "an empty answer": (empty, [f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{empty}\r\n\r\n".encode()] * polls),
    }
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    for index in range(rounds + 1):  # the first one warms up
        for name, (port, requests) in kinds.items():
            rate = ask(port, requests, connections)
            if index:
                rates[name].append(rate)
    print(f"Requests per second, {rounds} rounds of {polls}, {connections} connections; the server on one core\n")
    print(f"{'':<28}{'median':>10}{'slowest':>10}{'of empty':>10}{'bar':>16}")
    most = median(rates["an empty answer"])
    for name, seen in rates.items():
        middle = median(seen)
        bar = f"{BAR:,} {'met' if middle >= BAR else 'MISSED'}" if name == "polls, without faults" else "-"
        print(f"{name:<28}{middle:>10,.0f}{min(seen):>10,.0f}{middle / most:>10.2f}{bar:>16}")
    return median(rates["polls, without faults"]) >= BAR


def poll(port: int, job_id: str) -> bytes:
    """A whole request, as the library sends it."""
    ref = smilejobs.JobRef("user-1", job_id)
    body = encode_request(ref, CREDENTIALS, utcnow(), Include())
    head = (
        "POST /v1/job_status HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Accept: application/json",
        "Accept-Encoding: gzip, deflate",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join([*head, "", ""]).encode() + body


def ask(port: int, requests: Sequence[bytes], connections: int) -> float:
    """Send the requests, one at a time over each connection, and return how many were answered per second."""
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    for connection in sockets:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    waiting = iter(requests)
    start = time.perf_counter()
    for _ in range(len(requests) // connections):
        for connection in sockets:
            connection.sendall(next(waiting))
        for connection in sockets:
            receive(connection)
    taken = time.perf_counter() - start
    for connection in sockets:
        connection.close()
    return len(requests) // connections * connections / taken


def receive(connection: socket.socket) -> None:
    """Read one answer to its end, and check its status."""
    received = connection.recv(65_536)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 204 ")), received
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    left = int(length or b"0") - len(body)
    while left:
        left -= len(connection.recv(left))


# --- The server


async def serve() -> None:
    """Serve on three free ports, which are printed, until standard input ends."""

    async def nothing(_: object) -> Response:
        return Response(status_code=204)

    without, faulty = Sandbox(), Sandbox(faults=FAULTY)
    for sandbox in (without, faulty):
        for number in range(JOBS):
            sandbox.submit("user-1", f"job-{number}", machine=0.0)
    empty = Router(routes=[Route("/", nothing, methods=["GET"])])
    async with (
        without.serve() as one,
        faulty.serve() as other,
        serve_app(empty, "127.0.0.1", 0) as root,
    ):
        ports = [int(url.removesuffix("/v1").rpartition(":")[2]) for url in (one, other, root)]
        print(json.dumps(ports), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextmanager
def server() -> Iterator[list[int]]:
    """Run the server in a process and, where that is possible, on a core of its own; yield its ports."""
    command = [sys.executable, __file__, "--serve", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        pin(0)
        yield ports
        process.stdin.close()


def pin(index: int) -> None:
    """Stay on one core from now on, the *index*-th of those that we may use; systems without affinity choose one."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[index % len(cores)]})


if __name__ == "__main__":
    sys.exit(main())
