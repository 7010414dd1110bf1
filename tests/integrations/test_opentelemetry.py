"""`smilejobs.integrations.opentelemetry`: the spans and metrics that reach the exporters."""

import gc
import importlib
import itertools
import subprocess
import sys
import weakref
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import evolve
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import smilejobs
from smilejobs import JobRef, Pace
from smilejobs.durable import Counts
from smilejobs.integrations.opentelemetry import OpenTelemetryHook, WatchListGauges
from smilejobs.testing import EPOCH, Script, complete, html, pending, rate_limited, refused, virtual_now

pytestmark = pytest.mark.anyio

REF = JobRef("user-amber-17", "job-basalt-42")
SECRETS = ("user-amber", "job-basalt", "sandbox-key", "Ada Fiction")
STEADY = Pace(min=2, max=2, jitter=0)


class Telemetry:
    """An SDK that keeps all spans and metrics, and a hook that sends them there."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])
        self.hook = OpenTelemetryHook(tracer_provider=self.traces, meter_provider=self.meters, now=virtual_now)

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """Return the ended spans, in the order of their ends."""
        return [span for span in self.exporter.get_finished_spans() if name in (None, span.name)]

    def collected(self) -> dict[str, list[NumberDataPoint | HistogramDataPoint]]:
        """Return the points of each metric, by attributes; older SDKs give each value of a gauge out only once."""
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: list(metric.data.data_points)  # type: ignore[arg-type]  # of the types that mypy knows, exponential histograms are not made here
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> list[NumberDataPoint | HistogramDataPoint]:
        """Return the points of a metric, by attributes; none if nothing was measured."""
        return self.collected().get(name, [])

    def counts(self, name: str) -> list[Any]:
        """Return the number of measurements, by attributes."""
        return [(dict(point.attributes or {}), point.value) for point in self.points(name)]  # type: ignore[union-attr]  # mypy cannot see that these are points of a counter

    def sums(self, name: str) -> list[Any]:
        """Return the number of measurements and their sum, by attributes."""
        found = self.points(name)
        return [(dict(point.attributes or {}), point.count, point.sum) for point in found]  # type: ignore[union-attr]  # mypy cannot see that these are points of a histogram


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def parents(spans: Sequence[ReadableSpan]) -> set[int | None]:
    return {None if span.parent is None else span.parent.span_id for span in spans}


def seconds(span: ReadableSpan) -> tuple[float, float]:
    """Return the beginning and the end of a span, in virtual time."""
    assert span.start_time is not None
    assert span.end_time is not None
    epoch = EPOCH.timestamp()
    return span.start_time / 1e9 - epoch, span.end_time / 1e9 - epoch


def near(*values: float) -> Any:
    """Compare instants with a tolerance of a microsecond."""
    return pytest.approx(values, abs=1e-5)


async def test_a_wait_is_a_span_with_one_for_each_poll(telemetry: Telemetry) -> None:
    """The spans of polls cover their requests; the span of the wait begins with the first poll and has the outcome."""
    script = Script({REF.job_id: [pending(delay=0.5), complete("0811", delay=0.25)]})
    async with script.client(hooks=[telemetry.hook]) as client:
        await anyio.sleep(10)
        await client.wait(REF.user_id, REF.job_id, pace=STEADY)
    first, second, wait = telemetry.spans()
    assert [span.name for span in (first, second, wait)] == ["smilejobs.poll", "smilejobs.poll", "smilejobs.wait"]
    assert parents([first, second]) == {span_id(wait)}
    assert wait.parent is None
    assert seconds(first) == near(10, 10.5)
    assert seconds(second) == near(12.5, 12.75)
    assert seconds(wait) == near(10, 12.75)
    job = {"smilejobs.job": REF.tag, "smilejobs.code": "2302"}
    assert first.attributes == {**job, "smilejobs.late": 0.0}
    assert second.attributes == {**job, "smilejobs.late": 0.0, "smilejobs.verdict": "rejected"}
    assert wait.attributes == {**job, "smilejobs.polls": 2, "smilejobs.verdict": "rejected"}
    assert {span.status.status_code for span in (first, second, wait)} == {StatusCode.UNSET}
    assert [span.kind for span in (first, second, wait)] == [SpanKind.CLIENT, SpanKind.CLIENT, SpanKind.INTERNAL]
    scope = wait.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version) == ("smilejobs", smilejobs.__version__)


@pytest.mark.parametrize("call", ["job_status", "wait", "watch", "wait_many"])
async def test_it_belongs_to_the_span_that_was_current(telemetry: Telemetry, call: str) -> None:
    """For example the span of a request; later polls of a watch belong to it too, whatever span is current then."""
    tracer = telemetry.traces.get_tracer("service")
    answers = [complete()] if call == "job_status" else [pending(), complete()]
    async with Script({REF.job_id: answers}).client(hooks=[telemetry.hook]) as client:
        with tracer.start_as_current_span("request"):
            if call == "job_status":
                await client.job_status(REF.user_id, REF.job_id)
            elif call == "wait":
                await client.wait(REF.user_id, REF.job_id)
            elif call == "watch":
                watching = client.watch(REF.user_id, REF.job_id)
                await anext(watching)
                with tracer.start_as_current_span("another"):
                    await anext(watching)
            else:
                async with client.wait_many([REF]) as outcomes:
                    async for _ in outcomes:
                        pass
    (request,) = telemetry.spans("request")
    polls = telemetry.spans("smilejobs.poll")
    if call == "job_status":
        assert parents(polls) == {span_id(request)}
        return
    (wait,) = telemetry.spans("smilejobs.wait")
    assert parents([wait]) == {span_id(request)}
    assert len(polls) == 2
    assert parents(polls) == {span_id(wait)}


async def test_a_failure_is_an_error_of_its_own_span(telemetry: Telemetry) -> None:
    """With its type, HTTP status and text; the span of the wait has no error."""
    script = Script({REF.job_id: [html(502), rate_limited(1), complete()]})
    async with script.client(hooks=[telemetry.hook]) as client:
        await client.wait(REF.user_id, REF.job_id)
    bad, limited, good = telemetry.spans("smilejobs.poll")
    (wait,) = telemetry.spans("smilejobs.wait")
    for span, name, http_status in ((bad, "BadResponseError", 502), (limited, "RateLimitedError", 429)):
        assert span.status.status_code is StatusCode.ERROR
        assert REF.tag in (span.status.description or "")
        assert span.attributes is not None
        assert span.attributes["error.type"] == name
        assert span.attributes["http.response.status_code"] == http_status
        assert not span.events
    assert good.status.is_unset
    assert wait.status.is_unset


async def test_a_wait_that_gives_up_is_an_error(telemetry: Telemetry) -> None:
    """It is the error that the caller gets."""
    script = Script({REF.job_id: [refused("2305")], "job-2": itertools.repeat(pending())})
    async with script.client(hooks=[telemetry.hook]) as client:
        with pytest.raises(smilejobs.CredentialsError):
            await client.wait(REF.user_id, REF.job_id)
        with pytest.raises(smilejobs.WaitTimeoutError):
            await client.wait("user-1", "job-2", timeout=1)
    refusal, timeout = telemetry.spans("smilejobs.wait")
    assert refusal.status.status_code is timeout.status.status_code is StatusCode.ERROR
    assert refusal.attributes == {
        "smilejobs.job": REF.tag,
        "smilejobs.polls": 1,
        "smilejobs.code": "2305",
        "http.response.status_code": 400,
        "error.type": "CredentialsError",
    }
    assert timeout.attributes is not None
    assert timeout.attributes["error.type"] == "WaitTimeoutError"


async def test_a_wait_may_end_before_its_first_poll_is_over(telemetry: Telemetry) -> None:
    """Its span begins where the wait did."""
    async with Script({REF.job_id: [pending(delay=60)]}).client(hooks=[telemetry.hook]) as client:
        with pytest.raises(smilejobs.WaitTimeoutError):
            await client.wait(REF.user_id, REF.job_id, timeout=5)
    (wait,) = telemetry.spans()
    assert seconds(wait) == near(0, 5)


async def test_a_poll_that_is_late_says_so(telemetry: Telemetry) -> None:
    """Its span covers the request; the span of its wait begins when the poll was due."""
    script = Script({f"job-{n}": [complete(delay=1)] for n in range(2)})
    async with script.client(hooks=[telemetry.hook], rate=2) as client, anyio.create_task_group() as tasks:
        for job_id in script.polls:
            tasks.start_soon(client.wait, "user-1", job_id)
    _, late = telemetry.spans("smilejobs.poll")
    assert late.attributes is not None
    assert late.attributes["smilejobs.late"] == pytest.approx(0.5)
    assert seconds(late) == near(0.5, 1.5)
    assert seconds(telemetry.spans("smilejobs.wait")[1]) == near(0, 1.5)
    assert telemetry.sums("smilejobs.poll.lateness") == [({}, 2, pytest.approx(0.5))]


@pytest.mark.parametrize("watched", [False, True])
async def test_a_wait_that_is_cancelled_or_dropped_ends_its_span(telemetry: Telemetry, watched: bool) -> None:
    """At that instant, without a verdict and without an error; no reference to it is kept."""
    waits: list[weakref.ref[object]] = []

    def note(event: smilejobs.Event) -> None:
        if isinstance(event, smilejobs.PollScheduled) and not waits:
            waits.append(weakref.ref(event.wait))

    script = Script({REF.job_id: itertools.repeat(pending()), "job-2": [complete()]})
    async with script.client(hooks=[telemetry.hook, note]) as client:
        if watched:
            watching = client.watch(REF.user_id, REF.job_id)
            await anext(watching)
            await anyio.sleep(1)
            del watching
        else:
            with anyio.move_on_after(1):
                await client.wait(REF.user_id, REF.job_id, pace=STEADY)
        await anyio.lowlevel.checkpoint()  # the event loop itself holds a cancellation for one more turn
        gc.collect()
        assert not telemetry.spans("smilejobs.wait")
        await anyio.sleep(100)
        await client.job_status("user-1", "job-2")
    (wait,) = telemetry.spans("smilejobs.wait")
    assert seconds(wait) == near(0, 1)
    assert wait.attributes == {"smilejobs.job": REF.tag}
    assert wait.status.is_unset
    assert [wait() for wait in waits] == [None]
    assert telemetry.sums("smilejobs.wait.duration") == []


async def test_a_wait_that_has_ended_ends_its_span_once(telemetry: Telemetry, caplog: pytest.LogCaptureFixture) -> None:
    """The SDK warns about a second end."""
    script = Script({REF.job_id: [complete()], "job-2": [complete()]})
    async with script.client(hooks=[telemetry.hook]) as client:
        await client.wait(REF.user_id, REF.job_id)
        gc.collect()
        await client.job_status("user-1", "job-2")
    assert len(telemetry.spans("smilejobs.wait")) == 1
    assert not caplog.records


async def test_what_is_measured(telemetry: Telemetry) -> None:
    """Polls, failures by type, durations of both, throttles, notifications."""
    steps = {"job-1": [pending(delay=0.5), rate_limited(1), complete(delay=0.5)], "job-2": [refused("2305")]}
    async with Script(steps).client(hooks=[telemetry.hook], rate=None) as client:
        async with client.wait_many([("user-1", "job-1"), ("user-1", "job-2")], pace=STEADY) as outcomes:
            elapsed = {outcome.ref.job_id: outcome.elapsed async for outcome in outcomes}
        client.notify(REF)
        client.notify(REF)
    limited, wrong = {"error.type": "RateLimitedError"}, {"error.type": "CredentialsError"}
    assert sorted(telemetry.counts("smilejobs.polls"), key=str) == [(wrong, 1), (limited, 1), ({}, 2)]
    assert sorted(telemetry.sums("smilejobs.poll.duration"), key=str) == [
        (wrong, 1, pytest.approx(0)),
        (limited, 1, pytest.approx(0)),
        ({}, 2, pytest.approx(1)),
    ]
    assert sorted(telemetry.sums("smilejobs.wait.duration"), key=str) == [
        (wrong, 1, pytest.approx(elapsed["job-2"])),
        ({"smilejobs.verdict": "approved"}, 1, pytest.approx(elapsed["job-1"])),
    ]
    assert telemetry.counts("smilejobs.scheduler.throttles") == [({}, 1)]
    assert telemetry.counts("smilejobs.notifications") == [({}, 2)]


async def test_the_buckets_tell_seconds_from_hours(telemetry: Telemetry) -> None:
    """The default buckets of the SDK are for milliseconds."""
    script = Script({REF.job_id: [complete(delay=0.3)]})
    async with script.client(hooks=[telemetry.hook]) as client:
        await client.wait(REF.user_id, REF.job_id)
    for name in ("smilejobs.poll.duration", "smilejobs.poll.lateness", "smilejobs.wait.duration"):
        (point,) = telemetry.points(name)
        assert isinstance(point, HistogramDataPoint)
        assert list(point.explicit_bounds) == sorted(set(point.explicit_bounds))
        assert point.explicit_bounds[-1] == (86400 if "wait" in name else 30)


async def test_nothing_names_a_person(telemetry: Telemetry) -> None:
    """Neither spans nor metrics hold ids, personal data or secrets."""
    script = Script({REF.job_id: [refused("2304"), html(), pending(), complete(FullName="Ada Fiction")]})
    async with script.client(hooks=[telemetry.hook]) as client:
        await client.wait(REF.user_id, REF.job_id, history=True, image_links=True)
        client.notify(REF)
    data = telemetry.reader.get_metrics_data()
    assert data is not None
    sent = "".join(span.to_json() for span in telemetry.spans()) + data.to_json()
    assert REF.tag in sent
    assert not [secret for secret in SECRETS if secret in sent]
    assert REF.tag not in data.to_json()


@pytest.mark.parametrize("code", ["2098", "Ada Fiction", "9" * 5000, ""])
async def test_an_unknown_code_is_one_value_of_the_attribute(telemetry: Telemetry, code: str) -> None:
    """A code is text from outside; spans hold only the codes of the tables and "other"."""
    script = Script({REF.job_id: [refused(code)]})
    async with script.client(hooks=[telemetry.hook], attempts=1) as client:
        with pytest.raises(smilejobs.SmileJobsError):
            await client.job_status(REF.user_id, REF.job_id)
    (poll,) = telemetry.spans()
    assert (poll.attributes or {}).get("smilejobs.code") == ("other" if code else None)


async def test_what_is_not_sampled_costs_nothing(telemetry: Telemetry) -> None:
    """A span that is not sampled is no parent of a sampled one."""
    traces = TracerProvider(sampler=ALWAYS_OFF)
    traces.add_span_processor(SimpleSpanProcessor(telemetry.exporter))
    hook = OpenTelemetryHook(tracer_provider=traces, meter_provider=telemetry.meters, now=virtual_now)
    async with Script({REF.job_id: [pending(), complete()]}).client(hooks=[hook]) as client:
        await client.wait(REF.user_id, REF.job_id)
    assert not telemetry.spans()
    assert telemetry.counts("smilejobs.polls")


async def test_without_an_sdk_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    """The API alone creates spans and metrics that are not exported; the default is the global providers."""
    assert not isinstance(trace.get_tracer_provider(), TracerProvider)
    assert not isinstance(metrics.get_meter_provider(), MeterProvider)
    script = Script({REF.job_id: [pending(), complete()]})
    async with script.client(hooks=[OpenTelemetryHook()]) as client:
        assert (await client.wait(REF.user_id, REF.job_id)).job_complete
        client.notify(REF)
    assert not caplog.records


def test_a_clock_that_is_none_is_refused() -> None:
    """TypeError is raised at once."""
    with pytest.raises(TypeError, match="now must be a function"):
        OpenTelemetryHook(now=datetime(2026, 1, 1))  # type: ignore[arg-type]  # what mypy refuses, users without it pass


async def test_without_the_extra_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "smilejobs.integrations.opentelemetry")
    with pytest.raises(ImportError, match=r"pip install 'smilejobs\[opentelemetry\]'"):
        importlib.import_module("smilejobs.integrations.opentelemetry")


def test_the_library_itself_imports_nothing_of_it() -> None:
    """Users without the extra have no cost."""
    program = "import smilejobs, sys; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("oldest", "paused", "age"), [(None, None, 0.0), (EPOCH - timedelta(hours=2), "wrong key", 7200.0)]
)
def test_gauges_of_a_watch_list(oldest: datetime | None, paused: str | None, age: float) -> None:
    """Counts become gauges: jobs by state, the age of the oldest pending job, and the three alarms."""
    telemetry = Telemetry()
    gauges = WatchListGauges(meter_provider=telemetry.meters, now=lambda: EPOCH)
    gauges.record(Counts(pending=9, complete=8, failed=7, expired=0, oldest=None, paused=None))
    counts = Counts(pending=4, complete=3, failed=2, expired=1, oldest=oldest, paused=paused)
    gauges.record(evolve(counts, outage=paused, stalled=paused))
    points = telemetry.collected()
    jobs = {
        str(dict(point.attributes or {})["smilejobs.state"]): point for point in points["smilejobs.watch_list.jobs"]
    }
    assert {state: getattr(point, "value", None) for state, point in jobs.items()} == {
        "pending": 4,
        "complete": 3,
        "failed": 2,
        "expired": 1,
    }
    assert [getattr(point, "value", None) for point in points["smilejobs.watch_list.age"]] == [age]
    for name in ("paused", "outage", "stalled"):
        assert [getattr(point, "value", None) for point in points[f"smilejobs.watch_list.{name}"]] == [
            int(paused is not None)
        ]
