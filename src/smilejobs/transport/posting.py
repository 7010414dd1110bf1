"""The POST of a signed body to the API, and the whole answer, over any carrier."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TypeVar

import anyio
import httpx
from attrs import field, frozen

from smilejobs.errors import RequestError
from smilejobs.tasks import run_apart
from smilejobs.transport.body import Body, UnreadableBodyError
from smilejobs.transport.carrier import Carrier, Request, Response, ignore, send_bounded
from smilejobs.transport.choosing import HTTPSession, TransportName, check_transport, choose, is_client
from smilejobs.transport.environment import is_asyncio
from smilejobs.transport.failures import BROKE_OFF, no_answer
from smilejobs.transport.over_client import HTTPClient, RefusedByHookError

_T = TypeVar("_T")
_ENCODINGS = ("gzip",)
_WITHOUT_BODY = (204, 304)
"""After these, what a server sends as a body would be read as the next answer."""


@frozen
class Answer:
    """An answer; its repr shows the status and the problem, because crash reporters copy reprs.

    Attributes:
        http_status: The HTTP status.
        headers: The HTTP headers, looked up in lower case.
        body: The body, inflated.
        problem: Why there is no body, for example because it broke off or is too large.
        broke_off: Whether the body broke off, so that the next answer may be whole.
    """

    http_status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    problem: str | None = None
    broke_off: bool = False


class Transport:
    """Sends POST requests to one URL, over a pool of its own or a client of the caller's.

    The own pool opens with the first request, because only then the event loop is known. It trusts the certificates
    that httpx trusts by default, and uses the proxy that ``HTTPS_PROXY`` or ``ALL_PROXY`` names, unless ``NO_PROXY``
    excludes the host. Plain http, which is allowed for loopback, never uses a proxy, which would see the signatures.

    Args:
        url: The URL.
        headers: The headers of every request.
        http_client: The caller's client; it is never closed.
        max_connections: The size of the own pool; its connections are kept alive between polls.
        request_timeout: Seconds for one request, from connecting to the last byte.
        max_response_bytes: The largest body, in bytes, as received and as inflated.
        transport: The library of the own pool; None for aiohttp where that is installed and asyncio is running.

    Raises:
        ImportError: The extra that *transport* needs is missing.
        TypeError: *http_client* is not an asynchronous client.
        ValueError: *url* or the proxy of the environment is not a URL, *transport* is unknown, or cannot use that
            proxy, or comes with an *http_client*.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        http_client: HTTPClient | HTTPSession | None,
        max_connections: int,
        request_timeout: float,
        max_response_bytes: int,
        transport: TransportName | None = None,
    ) -> None:
        check_transport(transport, http_client)
        self.request_timeout = request_timeout
        self._max_response_bytes = max_response_bytes
        self._url = url
        del url  # what is refused may hold a password: crash reporters copy the locals of each frame of a traceback
        self._headers = {"Accept-Encoding": ", ".join(_ENCODINGS), **headers}
        parsed_url = _parse(self._url)
        if parsed_url is None:
            raise ValueError("base_url is not a URL")
        self._carrier: Carrier | None = None
        self._is_client = is_client(http_client)
        self._runs_apart = False
        self._open = choose(parsed_url, http_client, max_connections, transport)
        # An AssertionError of a stand-in for a client belongs to the caller's test.
        self._passes = () if http_client is None else (AssertionError,)

    def post(
        self,
        body: bytes,
        read: Callable[[Answer], _T],
        *,
        deadline: float,
        fresh: bool = False,
        on_resend: Callable[[], None] = ignore,
    ) -> Awaitable[_T]:
        """Return an awaitable that sends one request, and returns what *read* makes of the answer.

        Args:
            body: The body of the request.
            read: Called while the connection is held; if it raises, the connection is closed.
            deadline: The instant at which the request is cut, by the clock of the event loop.
            fresh: Use a new connection.
            on_resend: Called when the request is sent once more, because a kept connection turned out to be closed.

        Raises:
            RequestError: There was no answer.
            RuntimeError: The carrier does not work in this event loop.
            Exception: What *read* raises.
        """
        if self._carrier is None:
            self._carrier = self._open()
            # httpcore loses the connection of a request that asyncio's own cancellation cuts: see `run_apart`.
            self._runs_apart = self._is_client and is_asyncio()
        request = Request("POST", self._url, self._headers, body, on_resend=on_resend)
        scope = anyio.CancelScope(deadline=deadline)
        posting = self._post(self._carrier, request, read, scope, fresh=fresh)
        return run_apart(posting, scope) if self._runs_apart else posting

    async def _post(
        self, carrier: Carrier, request: Request, read: Callable[[Answer], _T], scope: anyio.CancelScope, *, fresh: bool
    ) -> _T:
        exchange = _Exchange(carrier, self._max_response_bytes, self._passes)
        is_kept = False
        try:
            with scope:
                await exchange.run(request, fresh=fresh)
            answer = exchange.answer(self.request_timeout)
            result = read(answer)
            is_kept = answer.problem is None and answer.http_status not in _WITHOUT_BODY
            return result
        finally:
            await exchange.aclose(keep=is_kept)

    @property
    def has_connections(self) -> bool:
        """Whether requests share connections, so that an answer may reach the wrong request."""
        return self._carrier is not None and self._carrier.has_connections

    async def aclose(self) -> None:
        """Close the own pool."""
        if self._carrier is not None:
            await self._carrier.aclose()


class _Exchange:
    """One request, and its answer as far as it was received.

    Every exception of a carrier becomes an error of smilejobs here, so that it ends one poll and no more.
    """

    def __init__(self, carrier: Carrier, max_bytes: int, passes: tuple[type[Exception], ...]) -> None:
        self._carrier = carrier
        self._max_bytes = max_bytes
        self._passes = passes
        self._response: Response | None = None
        self._body: bytes | None = None
        self._problem: tuple[str, bool] | None = None

    async def run(self, request: Request, *, fresh: bool) -> None:
        """Send the request, and read the answer.

        Raises:
            RequestError: There was no answer.
        """
        failure: RequestError | None = None
        try:
            self._response = await send_bounded(self._carrier, request, fresh=fresh)
            self._body = await Body(self._response, self._max_bytes, _ENCODINGS).whole()
        except self._passes:
            raise
        except UnreadableBodyError as error:
            self._problem = (str(error), error.broke_off)
        except RefusedByHookError:
            self._problem = ("a hook of the client refused it", False)
        except Exception as error:  # noqa: BLE001  # see above
            if self._response is None:
                failure = no_answer(error)
            else:
                self._problem = (BROKE_OFF, True)
        if failure is not None:
            # Not from the error itself: its text may quote the answer, its attributes hold the signed request.
            raise failure

    def answer(self, timeout: float) -> Answer:
        """Return the answer, or what was received of it within the time.

        Raises:
            RequestError: Nothing was received.
        """
        if self._response is None:
            raise RequestError(f"no answer within {timeout:.10g} s")
        head = (self._response.status, self._response.headers)
        if self._body is not None:
            return Answer(*head, self._body)
        problem, is_cut = self._problem or (f"it did not end within {timeout:.10g} s", True)
        return Answer(*head, problem=problem, broke_off=is_cut)

    async def aclose(self, *, keep: bool) -> None:
        """Give the connection back."""
        if self._response is not None:
            with suppress(Exception):
                await self._response.aclose(keep=keep)


def _parse(url: str) -> httpx.URL | None:
    try:
        return httpx.URL(url)
    except httpx.InvalidURL:
        return None
