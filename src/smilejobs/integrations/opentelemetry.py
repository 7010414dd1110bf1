"""Integration with OpenTelemetry: a span for each wait and each poll, and metrics.

::

    hooks = [log_event, OpenTelemetryHook()]
    async with smilejobs.Client.from_env(hooks=hooks) as client:
        ...

``docs/telemetry.md`` lists the spans, the metrics and their attributes. Names, units and ``error.type`` follow
OpenTelemetry's semantic conventions. No attribute is an id: in spans `JobRef.tag` stands for the job, and metrics do
not identify a job. The values of all other attributes are numbers or come from closed sets.

This module needs ``pip install 'smilejobs[opentelemetry]'``, which installs only the API of OpenTelemetry. The SDK of
your application decides where spans and metrics are sent.
"""

from collections import deque
from collections.abc import Callable, Sequence
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

_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0)
"""The bucket boundaries for requests: those of the semantic conventions, and the default `request_timeout`."""

_WAIT_SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0, 86400.0)
"""The bucket boundaries for waits: machine results take seconds, human reviews take hours."""

_Attributes = dict[str, str | int]


class OpenTelemetryHook:
    """A hook that turns a client's events into spans and metrics: ``Client(hooks=[log_event, OpenTelemetryHook()])``.

    One hook may serve any number of clients in one thread.

    Args:
        tracer_provider: The provider of the tracer; by default the global one.
        meter_provider: The provider of the meter; by default the global one.
        now: The wall clock for the times of spans, as a function that returns an aware datetime.

    Raises:
        TypeError: *now* is not a function.
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
        """The span of each wait, and a finalizer that runs when the wait is garbage-collected."""
        self._abandoned: deque[tuple[trace.Span, int]] = deque()
        meter = metrics.get_meter("smilejobs", __version__, meter_provider)
        self._polls = meter.create_counter("smilejobs.polls", "{poll}", "Finished and failed polls.")

        def create_histogram(name: str, description: str, buckets: Sequence[float]) -> metrics.Histogram:
            return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=buckets)

        self._poll_duration = create_histogram("smilejobs.poll.duration", "Duration of polls.", _REQUEST_SECONDS)
        self._lateness = create_histogram(
            "smilejobs.poll.lateness", "How long polls waited for a connection and the rate.", _REQUEST_SECONDS
        )
        self._wait_duration = create_histogram(
            "smilejobs.wait.duration", "Duration of waits that were not cancelled.", _WAIT_SECONDS
        )
        self._throttles = meter.create_counter(
            "smilejobs.scheduler.throttles", "{throttle}", "Times that a batch was throttled."
        )
        self._notifications = meter.create_counter(
            "smilejobs.notifications", "{notification}", "Notifications that there may be news of a job."
        )

    def __call__(self, event: Event) -> None:
        """Record an event."""
        now = round(self._now().timestamp() * 1e9)
        while self._abandoned:
            span, at = self._abandoned.popleft()
            span.end(at)
        if isinstance(event, (PollFinished, PollFailed)):
            self._record_poll(event, now)
        elif isinstance(event, WaitEnded):
            self._record_wait(event, now)
        elif isinstance(event, Throttled):
            self._throttles.add(1)
        elif isinstance(event, Notified):
            self._notifications.add(1)

    def _record_poll(self, event: PollFinished | PollFailed, now: int) -> None:
        status, error = (event.status, None) if isinstance(event, PollFinished) else (None, event.error)
        kind = _error_attributes(error)
        self._polls.add(1, kind)
        self._poll_duration.record(event.seconds, kind)
        self._lateness.record(event.late)
        began = now - round(event.seconds * 1e9)
        context = None
        if event.wait is not None:
            parent = self._get_span(event.wait, event.ref.tag, began - round(event.late * 1e9))
            context = trace.set_span_in_context(parent)
        span = self._start_span("smilejobs.poll", event.ref.tag, began, context, trace.SpanKind.CLIENT)
        span.set_attribute("smilejobs.late", event.late)
        _end_span(span, status, error, now)

    def _record_wait(self, event: WaitEnded, now: int) -> None:
        verdict = _verdict_attributes(event.status)
        self._wait_duration.record(event.elapsed, _error_attributes(event.error) | verdict)
        # A wait may end before its first poll, and so have no span yet.
        span = self._get_span(event.wait, event.ref.tag, now - round(event.elapsed * 1e9))
        _, finalizer = self._waits.pop(event.wait)
        finalizer.detach()
        span.set_attribute("smilejobs.polls", event.polls)
        _end_span(span, event.status, event.error, now)

    def _get_span(self, wait: object, tag: str, began: int) -> trace.Span:
        """Return the span of a wait; start one at the instant *began* if there is none."""
        known = self._waits.get(wait)
        if known is not None:
            return known[0]
        span = self._start_span("smilejobs.wait", tag, began, None, trace.SpanKind.INTERNAL)
        finalizer = finalize(wait, self._abandon, span)
        finalizer.atexit = False
        self._waits[wait] = span, finalizer
        return span

    def _abandon(self, span: trace.Span) -> None:
        # Garbage collection may call this inside a span processor that holds its lock, so the span is ended with the
        # next event.
        self._abandoned.append((span, round(self._now().timestamp() * 1e9)))

    def _start_span(self, name: str, tag: str, began: int, context: Context | None, kind: trace.SpanKind) -> trace.Span:
        return self._tracer.start_span(name, context, kind, {"smilejobs.job": tag}, start_time=began)


def _end_span(span: trace.Span, status: JobStatus | None, error: SmileJobsError | None, now: int) -> None:
    """Set the attributes of the outcome and end the span."""
    attributes = _error_attributes(error) | _verdict_attributes(status)
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
    """The state of a watch list as metrics: record `smilejobs.durable.WatchList.counts` at intervals, in one process.

    Args:
        meter_provider: The provider of the meter; by default the global one.
        now: The wall clock, as a function that returns an aware datetime.

    Raises:
        TypeError: *now* is not a function.
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
        """Record the current counts of the watch list."""
        for state in ("pending", "complete", "failed", "expired"):
            self._jobs.set(getattr(counts, state), {"smilejobs.state": state})
        self._age.set(0.0 if counts.oldest is None else (self._now() - counts.oldest).total_seconds())
        self._paused.set(int(counts.paused is not None))
        self._outage.set(int(counts.outage is not None))
        self._stalled.set(int(counts.stalled is not None))


def _error_attributes(error: SmileJobsError | None) -> _Attributes:
    return {} if error is None else {"error.type": type(error).__qualname__}


def _verdict_attributes(status: JobStatus | None) -> _Attributes:
    return {} if status is None or status.verdict is None else {"smilejobs.verdict": status.verdict.value}
