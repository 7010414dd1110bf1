"""Wait for one job and tell what happens: a hook of one's own, the log, and OpenTelemetry, all on the console."""

import asyncio
import logging
import sys

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

import smilejobs
from smilejobs.integrations.opentelemetry import OpenTelemetryHook


def show_delays(event: smilejobs.Event) -> None:
    match event:
        case smilejobs.PollScheduled(ref=ref, delay=delay, error=None):
            print(f"{ref.tag}: pending, next poll in {delay:.1f} s")
        case smilejobs.PollScheduled(ref=ref, delay=delay, error=error):
            print(f"{ref.tag}: {type(error).__name__}, next poll in {delay:.1f} s")
        case smilejobs.WaitEnded(ref=ref, polls=polls, elapsed=elapsed):
            print(f"{ref.tag}: {polls} polls in {elapsed:.1f} s")


def open_client() -> smilejobs.Client:
    return smilejobs.Client.from_env(hooks=[smilejobs.log_event, OpenTelemetryHook(), show_delays])


def set_up() -> None:
    """Configure logs, spans and metrics; a service does this once, before it opens its client."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    trace.set_tracer_provider(traces)
    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter())]))


async def verify(user_id: str, job_id: str) -> None:
    async with open_client() as client:
        with trace.get_tracer("example").start_as_current_span("verify"):
            await client.wait(user_id, job_id, timeout=120)


if __name__ == "__main__":
    set_up()
    asyncio.run(verify(*sys.argv[1:3]))
