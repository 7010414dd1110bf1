"""For OpenTelemetry: a span for each wait and each of its polls, and metrics.

::

    hooks = [log_event, OpenTelemetryHook()]
    async with smilejobs.Client.from_env(hooks=hooks) as client:
        ...

The span ``smilejobs.wait`` begins with the first poll of a wait and is a child of the span that was current there, that
of a request for example; each poll is a span ``smilejobs.poll`` below it. A wait that is cancelled or dropped ends its
span too, without a verdict and without an error. Spans are made when a poll is over: those of an instrumented HTTP
client stand beside them, not below.

===============================  =========  ==========  ========================================
metric                           kind       unit        attributes
===============================  =========  ==========  ========================================
``smilejobs.polls``              counter    {poll}      ``error.type`` if it failed
``smilejobs.poll.duration``      histogram  s           ``error.type`` if it failed
``smilejobs.poll.lateness``      histogram  s
``smilejobs.wait.duration``      histogram  s           ``smilejobs.verdict``, or ``error.type``
``smilejobs.fleet.throttles``    counter    {throttle}
``smilejobs.notifications``      counter    {notification}
``smilejobs.watch_list.jobs``    gauge      {job}       ``smilejobs.state``
``smilejobs.watch_list.age``     gauge      s
``smilejobs.watch_list.paused``  gauge
===============================  =========  ==========  ========================================

The last three are recorded by `WatchListGauges`.

Names, units and ``error.type`` follow OpenTelemetry's semantic conventions. No attribute is an id: spans name a job by
`JobRef.tag`, metrics do not name it. The values of all others come from closed sets or are numbers.

It needs ``pip install 'smilejobs[opentelemetry]'``, which brings the API alone; what becomes of spans and metrics is
the business of the SDK of your application.
"""

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, finalize

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
except ImportError as error:
    raise ImportError(
        "smilejobs.integrations.opentelemetry needs opentelemetry-api: pip install 'smilejobs[opentelemetry]'"
    ) from error

from smilejobs.clock import require_aware, utcnow
from smilejobs.errors import SmileJobsError
from smilejobs.events import Event, Notified, PollFailed, PollFinished, Throttled, WaitEnded
from smilejobs.model.codes import code_label
from smilejobs.model.jobs import JobStatus
from smilejobs.version import __version__

if TYPE_CHECKING:
    from smilejobs.durable import Counts

__all__ = ["OpenTelemetryHook", "WatchListGauges"]

_REQUEST = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0)
"""Bounds of buckets in seconds: those that the conventions have for HTTP requests, and our timeout."""

_WAIT = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0, 86400.0)
"""The same for waits: machines take seconds, people hours."""

_Attributes = dict[str, str | int]


class OpenTelemetryHook:
    """A hook that turns a client's events into spans and metrics: ``Client(hooks=[log_event, OpenTelemetryHook()])``.

    One of them may serve any number of clients in one thread.

    Args:
        tracer_provider: Makes the tracer; the global one by default.
        meter_provider: Makes the meter; the global one by default.
        now: The wall clock, as a function that returns an aware datetime. It dates the spans.

    Raises:
        TypeError: *now* is no function.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        self._now = require_aware(now)
        self._tracer = trace.get_tracer("smilejobs", __version__, tracer_provider)
        self._waits: WeakKeyDictionary[object, tuple[trace.Span, finalize[[trace.Span], object]]] = WeakKeyDictionary()
        """By wait: its span, and what notices that the wait is gone."""
        self._abandoned: deque[tuple[trace.Span, int]] = deque()
        meter = metrics.get_meter("smilejobs", __version__, meter_provider)
        self._polls = meter.create_counter("smilejobs.polls", "{poll}", "Polls that are over.")
        self._poll_duration = meter.create_histogram(
            "smilejobs.poll.duration", "s", "Duration of polls.", explicit_bucket_boundaries_advisory=_REQUEST
        )
        self._lateness = meter.create_histogram(
            "smilejobs.poll.lateness",
            "s",
            "How long polls waited for a connection and their turn.",
            explicit_bucket_boundaries_advisory=_REQUEST,
        )
        self._wait_duration = meter.create_histogram(
            "smilejobs.wait.duration",
            "s",
            "Duration of waits that ended by themselves.",
            explicit_bucket_boundaries_advisory=_WAIT,
        )
        self._throttles = meter.create_counter(
            "smilejobs.fleet.throttles", "{throttle}", "Times that a batch was throttled."
        )
        self._notifications = meter.create_counter(
            "smilejobs.notifications", "{notification}", "Notifications that there may be news of a job."
        )

    def __call__(self, event: Event) -> None:
        """Take an event in."""
        now = round(self._now().timestamp() * 1e9)
        while self._abandoned:
            span, at = self._abandoned.popleft()
            span.end(at)
        if isinstance(event, (PollFinished, PollFailed)):
            self._take_poll(event, now)
        elif isinstance(event, WaitEnded):
            self._take_end(event, now)
        elif isinstance(event, Throttled):
            self._throttles.add(1)
        elif isinstance(event, Notified):
            self._notifications.add(1)

    def _take_poll(self, event: PollFinished | PollFailed, now: int) -> None:
        status, error = (event.status, None) if isinstance(event, PollFinished) else (None, event.error)
        kind = _kind(error)
        self._polls.add(1, kind)
        self._poll_duration.record(event.seconds, kind)
        self._lateness.record(event.late)
        began = now - round(event.seconds * 1e9)
        context = None
        if event.wait is not None:
            parent = self._span_of(event.wait, event.ref.tag, began - round(event.late * 1e9))
            context = trace.set_span_in_context(parent)
        span = self._start("smilejobs.poll", event.ref.tag, began, context, trace.SpanKind.CLIENT)
        span.set_attribute("smilejobs.late", event.late)
        _end(span, status, error, now)

    def _take_end(self, event: WaitEnded, now: int) -> None:
        verdict = _verdict(event.status)
        self._wait_duration.record(event.elapsed, _kind(event.error) | verdict)
        # The time may have been over before the first poll had its turn.
        span = self._span_of(event.wait, event.ref.tag, now - round(event.elapsed * 1e9))
        _, finalizer = self._waits.pop(event.wait)
        finalizer.detach()
        span.set_attribute("smilejobs.polls", event.polls)
        _end(span, event.status, event.error, now)

    def _span_of(self, wait: object, tag: str, began: int) -> trace.Span:
        """Return the span of a wait; if it has none, it gets one that began at that instant."""
        known = self._waits.get(wait)
        if known is not None:
            return known[0]
        span = self._start("smilejobs.wait", tag, began, None, trace.SpanKind.INTERNAL)
        finalizer = finalize(wait, self._abandon, span)
        finalizer.atexit = False
        self._waits[wait] = span, finalizer
        return span

    def _abandon(self, span: trace.Span) -> None:
        # This runs whenever Python throws the wait away, perhaps in the middle of a processor of spans that holds its
        # lock; so the span is ended with the next event.
        self._abandoned.append((span, round(self._now().timestamp() * 1e9)))

    def _start(self, name: str, tag: str, began: int, context: Context | None, kind: trace.SpanKind) -> trace.Span:
        return self._tracer.start_span(name, context, kind, {"smilejobs.job": tag}, start_time=began)


def _end(span: trace.Span, status: JobStatus | None, error: SmileJobsError | None, now: int) -> None:
    """End a span with what came of it."""
    attributes = _kind(error) | _verdict(status)
    code = code_label(error.code if error is not None else status.code if status is not None else None)
    if code is not None:
        attributes["smilejobs.code"] = code
    if error is not None:
        if error.http_status is not None:
            attributes["http.response.status_code"] = error.http_status
        # The text alone: a traceback may quote ids.
        span.set_status(trace.StatusCode.ERROR, str(error))
    span.set_attributes(attributes)
    span.end(now)


class WatchListGauges:
    """How a watch list stands, as metrics: record `smilejobs.durable.WatchList.counts` now and then, in one process.

    Args:
        meter_provider: Makes the meter; the global one by default.
        now: The wall clock, as a function that returns an aware datetime.

    Raises:
        TypeError: *now* is no function.
    """

    def __init__(
        self, *, meter_provider: metrics.MeterProvider | None = None, now: Callable[[], datetime] = utcnow
    ) -> None:
        self._now = require_aware(now)
        meter = metrics.get_meter("smilejobs", __version__, meter_provider)
        self._jobs = meter.create_gauge("smilejobs.watch_list.jobs", "{job}", "Jobs of the watch list, by state.")
        self._age = meter.create_gauge("smilejobs.watch_list.age", "s", "How long the oldest pending job has waited.")
        self._paused = meter.create_gauge("smilejobs.watch_list.paused", "", "1 while polling is paused.")
        self._outage = meter.create_gauge("smilejobs.watch_list.outage", "", "1 while no good answer of the API comes.")
        self._stalled = meter.create_gauge("smilejobs.watch_list.stalled", "", "1 while no worker polls pending jobs.")

    def record(self, counts: "Counts") -> None:
        """Take in how the watch list stands now."""
        for state in ("pending", "complete", "failed", "expired"):
            self._jobs.set(getattr(counts, state), {"smilejobs.state": state})
        self._age.set(0.0 if counts.oldest is None else (self._now() - counts.oldest).total_seconds())
        self._paused.set(int(counts.paused is not None))
        self._outage.set(int(counts.outage is not None))
        self._stalled.set(int(counts.stalled is not None))


def _kind(error: SmileJobsError | None) -> _Attributes:
    return {} if error is None else {"error.type": type(error).__qualname__}


def _verdict(status: JobStatus | None) -> _Attributes:
    return {} if status is None or status.verdict is None else {"smilejobs.verdict": status.verdict.value}
