"""The events of a client, their order and their values; and what the log writes."""

import itertools
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from attrs import asdict, evolve

import smilejobs
from smilejobs import (
    Event,
    JobRef,
    Notified,
    Pace,
    PollFailed,
    PollFinished,
    PollScheduled,
    RateLimitedError,
    Throttled,
    WaitEnded,
    log_event,
)
from smilejobs.testing import Script, Step, complete, cut, not_found, pending, rate_limited, refused

pytestmark = pytest.mark.anyio

REF = JobRef("user-amber-17", "job-basalt-42")
SECRETS = ("user-amber", "job-basalt", "sandbox-key", "Ada Fiction")
STEADY = Pace(min=2, max=2, jitter=0)


def names(events: Sequence[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def of(events: Sequence[Event], ref: JobRef) -> list[str]:
    """Return the names of the events of one job."""
    return names([event for event in events if not isinstance(event, Throttled) and event.ref == ref])


def one_wait(events: Sequence[Event]) -> object:
    """Return the wait of the events, which all have the same one."""
    waits = {
        id(event.wait): event.wait
        for event in events
        if isinstance(event, (PollFinished, PollFailed, PollScheduled, WaitEnded))
    }
    (wait,) = waits.values()
    assert wait is not None
    return wait


def holds(event: Event, kind: type[Event], **values: object) -> bool:
    """Return whether an event is of that kind and holds these values; events are equal only to themselves."""
    return type(event) is kind and asdict(event, recurse=False) == values


async def test_a_wait_tells_of_each_poll_and_of_its_end() -> None:
    """A poll, the next step, and so on; seconds are those of requests, elapsed is that of the wait."""
    events: list[Event] = []
    script = Script({REF.job_id: [pending(delay=0.5), complete(delay=0.25)]})
    async with script.client(hooks=[events.append]) as client:
        status = await client.wait(REF.user_id, REF.job_id, pace=STEADY)
    assert names(events) == ["PollFinished", "PollScheduled", "PollFinished", "WaitEnded"]
    wait = one_wait(events)
    first, scheduled, last, end = events
    assert isinstance(first, PollFinished)
    assert not first.status.job_complete
    assert (first.ref, first.seconds, first.late) == (REF, 0.5, 0.0)
    assert holds(scheduled, PollScheduled, ref=REF, wait=wait, polls=1, delay=2.0, error=None)
    assert holds(last, PollFinished, ref=REF, wait=wait, status=status, seconds=0.25, late=0.0, requests=1)
    assert holds(end, WaitEnded, ref=REF, wait=wait, status=status, error=None, polls=2, elapsed=2.75)


async def test_a_failure_that_is_absorbed_is_named_twice() -> None:
    """In the event of the poll and in the next one; a job that is not found yet is no failure of the wait."""
    events: list[Event] = []
    script = Script({REF.job_id: [not_found(), rate_limited(7), complete()]})
    async with script.client(hooks=[events.append]) as client:
        await client.wait(REF.user_id, REF.job_id, pace=STEADY)
    assert names(events) == [*["PollFailed", "PollScheduled"] * 2, "PollFinished", "WaitEnded"]
    one_wait(events)
    missing, put_off, failed, absorbed, *_ = events
    assert isinstance(missing, PollFailed)
    assert isinstance(missing.error, smilejobs.JobNotFoundError)
    assert isinstance(put_off, PollScheduled)
    assert put_off.error is None
    assert isinstance(failed, PollFailed)
    assert isinstance(failed.error, RateLimitedError)
    assert failed.ref == REF
    assert isinstance(absorbed, PollScheduled)
    assert absorbed.error is failed.error
    assert absorbed.polls == 2
    assert absorbed.delay == pytest.approx(7)


async def test_a_wait_that_gives_up_says_why() -> None:
    """With the error that the caller gets."""
    events: list[Event] = []
    async with Script({REF.job_id: [refused("2305")]}).client(hooks=[events.append]) as client:
        with pytest.raises(smilejobs.CredentialsError) as caught:
            await client.wait(REF.user_id, REF.job_id)
    assert names(events) == ["PollFailed", "WaitEnded"]
    values = {"ref": REF, "wait": one_wait(events), "status": None, "error": caught.value, "polls": 1, "elapsed": 0.0}
    assert holds(events[-1], WaitEnded, **values)


@pytest.mark.parametrize("many", [False, True])
async def test_a_timeout_that_cuts_through_a_poll_ends_the_wait_alone(many: bool) -> None:
    """The poll neither finishes nor fails."""
    events: list[Event] = []
    async with Script({REF.job_id: [pending(delay=60)]}).client(hooks=[events.append]) as client:
        if many:
            async with client.wait_many([REF], timeout=5) as outcomes:
                (error,) = [outcome.error async for outcome in outcomes]
        else:
            with pytest.raises(smilejobs.WaitTimeoutError) as caught:
                await client.wait(REF.user_id, REF.job_id, timeout=5)
            error = caught.value
    (end,) = events
    assert holds(end, WaitEnded, ref=REF, wait=one_wait(events), status=None, error=error, polls=1, elapsed=5.0)


async def test_a_watch_tells_what_a_wait_does() -> None:
    """It is one wait, although it yields several answers."""
    events: list[Event] = []
    script = Script({REF.job_id: [pending(), pending(), complete()]})
    async with script.client(hooks=[events.append]) as client:
        seen = [status async for status in client.watch(REF.user_id, REF.job_id)]
    assert names(events) == [*["PollFinished", "PollScheduled"] * 2, "PollFinished", "WaitEnded"]
    one_wait(events)
    assert len(seen) == 2
    assert isinstance(events[-1], WaitEnded)
    assert events[-1].status is seen[-1]


@pytest.mark.parametrize("watched", [False, True])
async def test_a_wait_that_is_cancelled_ends_without_an_event(watched: bool) -> None:
    """The same holds for a watch that is dropped; no reference to it is kept."""
    events: list[Event] = []
    async with Script({REF.job_id: itertools.repeat(pending())}).client(hooks=[events.append]) as client:
        if watched:
            async for _ in client.watch(REF.user_id, REF.job_id):
                break
        else:
            with anyio.move_on_after(1):
                await client.wait(REF.user_id, REF.job_id, pace=STEADY)
        await anyio.sleep(100)
    assert names(events) == ["PollFinished", "PollScheduled"]


async def test_a_direct_poll_is_part_of_no_wait() -> None:
    """Each attempt has an event."""
    events: list[Event] = []
    async with Script({REF.job_id: [cut(), complete(delay=0.5)]}).client(hooks=[events.append]) as client:
        status = await client.job_status(REF.user_id, REF.job_id)
    failed, finished = events
    assert isinstance(failed, PollFailed)
    assert failed.wait is None
    assert holds(
        finished, PollFinished, ref=REF, wait=None, status=status, seconds=pytest.approx(0.5), late=0.0, requests=1
    )


async def test_a_poll_is_late_that_waits_for_its_turn() -> None:
    """With two polls per second, the third one begins a second after it is due."""
    events: list[Event] = []
    script = Script({f"job-{n}": [complete()] for n in range(3)})
    async with script.client(hooks=[events.append], rate=2) as client, anyio.create_task_group() as tasks:
        for job_id in script.polls:
            tasks.start_soon(client.job_status, "user-1", job_id)
    late = [event.late for event in events if isinstance(event, PollFinished)]
    assert late == pytest.approx([0, 0.5, 1])


async def test_a_poll_that_fails_was_late_as_any_other() -> None:
    """With two polls per second, the second one begins half a second after it is due; its duration counts from then."""
    events: list[Event] = []
    script = Script({f"job-{n}": [evolve(not_found(), delay=0.25)] for n in range(2)})

    async def poll(job_id: str) -> None:
        with pytest.raises(smilejobs.JobNotFoundError):
            await client.job_status("user-1", job_id)

    async with script.client(hooks=[events.append], rate=2) as client, anyio.create_task_group() as tasks:
        for job_id in script.polls:
            tasks.start_soon(poll, job_id)
    seen = [(event.late, event.seconds) for event in events if isinstance(event, PollFailed)]
    assert seen == [pytest.approx((0, 0.25)), pytest.approx((0.5, 0.25))]


@pytest.mark.parametrize("timeout", [300, 20])
async def test_each_job_of_many_has_a_wait_of_its_own(timeout: float) -> None:
    """The events of each job are the same as for one job; late counts from the due time.

    It makes no difference whether less than the duration of a poll is left of the timeout.
    """
    events: list[Event] = []
    refs = [JobRef("user-1", f"job-{n}") for n in range(3)]
    script = Script({ref.job_id: [pending(), complete()] for ref in refs})
    async with script.client(hooks=[events.append], rate=2) as client:
        await anyio.sleep(30)
        async with client.wait_many(refs, pace=Pace(min=9, max=9, jitter=0), timeout=timeout) as outcomes:
            found = {outcome.ref: outcome async for outcome in outcomes}
    waits = set()
    for ref in refs:
        assert of(events, ref) == ["PollFinished", "PollScheduled", "PollFinished", "WaitEnded"]
        told = [event for event in events if not isinstance(event, Throttled) and event.ref == ref]
        wait = one_wait(told)
        waits.add(wait)
        values = {"status": found[ref].status, "error": None, "polls": 2, "elapsed": found[ref].elapsed}
        assert holds(told[-1], WaitEnded, ref=ref, wait=wait, **values)
    assert len(waits) == 3
    late = [event.late for event in events if isinstance(event, PollFinished)]
    assert late[:3] == pytest.approx([0, 0.5, 1])


async def test_a_job_that_comes_twice_is_told_once() -> None:
    """It is one wait with two outcomes."""
    events: list[Event] = []
    async with (
        Script({REF.job_id: [complete(delay=1)]}).client(hooks=[events.append]) as client,
        client.wait_many([REF, REF]) as outcomes,
    ):
        assert len([outcome async for outcome in outcomes]) == 2
    assert names(events) == ["PollFinished", "WaitEnded"]


async def test_a_fleet_tells_when_it_is_throttled() -> None:
    """Once per throttle, with the pause that the API asks for, between the poll and its next step."""
    events: list[Event] = []
    script = Script({REF.job_id: [rate_limited(40), complete()]})
    async with script.client(hooks=[events.append]) as client:
        await anyio.sleep(30)
        async with client.wait_many([REF]) as outcomes:
            assert [outcome.error async for outcome in outcomes] == [None]
    assert names(events) == ["PollFailed", "Throttled", "PollScheduled", "PollFinished", "WaitEnded"]
    throttle = events[1]
    assert isinstance(throttle, Throttled)
    assert throttle.pause == pytest.approx(40)
    assert throttle.polls_per_second >= 1


async def test_a_notification_without_a_wait_has_an_event() -> None:
    """Its event comes before the poll that it causes."""
    events: list[Event] = []
    script = Script({REF.job_id: [pending(), complete()]})
    async with script.client(hooks=[events.append]) as client, anyio.create_task_group() as tasks:
        client.notify(JobRef("user-1", "job-1"))
        tasks.start_soon(lambda: client.wait(REF.user_id, REF.job_id, pace=Pace.relaxed()))
        await anyio.sleep(1)
        client.notify(REF)
    assert holds(events[0], Notified, ref=JobRef("user-1", "job-1"))
    assert names(events[1:]) == ["PollFinished", "PollScheduled", "Notified", "PollFinished", "WaitEnded"]
    assert isinstance(events[-1], WaitEnded)
    assert events[-1].elapsed == pytest.approx(1)


# Hooks


@pytest.mark.parametrize("chosen", [[], [log_event], None])
async def test_given_hooks_replace_the_default(
    chosen: list[smilejobs.Hook] | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The default hook writes the log; it is a hook like any other."""
    caplog.set_level(logging.DEBUG, "smilejobs")
    script = Script({REF.job_id: [complete()]})
    async with script.client() if chosen is None else script.client(hooks=chosen) as client:
        await client.wait(REF.user_id, REF.job_id)
    assert len(caplog.records) == (0 if chosen == [] else 2)


async def test_hooks_are_called_in_their_order() -> None:
    """Each event reaches all hooks before the next event; hooks may be any iterable."""
    told: list[tuple[int, str]] = []
    hooks = ((lambda event, n=n: told.append((n, type(event).__name__))) for n in (1, 2))
    async with Script({REF.job_id: [complete()]}).client(hooks=hooks) as client:
        await client.wait(REF.user_id, REF.job_id)
    assert told == [(1, "PollFinished"), (2, "PollFinished"), (1, "WaitEnded"), (2, "WaitEnded")]


def test_what_cannot_be_called_is_no_hook() -> None:
    """It raises TypeError at once."""
    with pytest.raises(TypeError, match="hooks must be functions that take an event, not str"):
        smilejobs.Client(partner_id="085", api_key="key", environment="sandbox", hooks=["log"])  # type: ignore[list-item]  # a type checker would say so, too


async def test_a_hook_that_raises_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once per event, with its text and frames; the next hooks are still called."""

    def broken(event: Event) -> None:
        raise LookupError("no such queue")

    events: list[Event] = []
    script = Script({REF.job_id: [pending(), complete(FullName="Ada Fiction")]})
    async with script.client(hooks=[broken, events.append]) as client:
        assert (await client.wait(REF.user_id, REF.job_id)).job_complete
        client.notify(REF)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    texts = [record.getMessage().splitlines() for record in errors]
    assert [lines[0] for lines in texts] == [
        f"a hook raised for {name}: LookupError: no such queue" for name in names(events)
    ]
    for lines in texts:
        assert lines[-1].strip() == 'raise LookupError("no such queue")'
        assert not [line for line in lines if "events.py" in line and "test_events.py" not in line]
    assert len(events) == 5
    assert {record.name for record in errors} == {"smilejobs"}
    assert {(record.event_name, record.error_type) for record in errors} == {("HookFailed", "LookupError")}  # type: ignore[attr-defined]  # a field of ours
    assert not [secret for secret in SECRETS if secret in caplog.text]


@pytest.mark.parametrize("again", [False, True])
async def test_what_a_hook_raises_for_a_failed_poll_brings_no_secrets_to_the_log(
    again: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A crash reporter that reads the log gets neither the failure of the poll nor its frames."""

    def broken(event: Event) -> None:
        if isinstance(event, PollFailed):
            raise event.error if again else LookupError("no such queue")

    script = Script({REF.job_id: [refused("2305")]})
    async with script.client(hooks=[broken]) as client:
        with pytest.raises(smilejobs.CredentialsError):
            await client.wait(REF.user_id, REF.job_id)
    (record,) = caplog.records
    signature = str(script.polls[REF.job_id][0].body["signature"])
    assert record.exc_info is None
    assert record.getMessage().startswith("a hook raised for PollFailed: ")
    assert not [value for value in vars(record).values() if isinstance(value, BaseException)]
    assert not [secret for secret in (*SECRETS, signature) if secret in str(vars(record))]


async def test_a_log_that_raises_ends_nothing_either(caplog: pytest.LogCaptureFixture) -> None:
    """A filter of the application may fail for the line of the default hook and for the line about it."""

    def broken(record: logging.LogRecord) -> bool:
        raise LookupError

    logger = logging.getLogger("smilejobs")
    logger.addFilter(broken)
    try:
        async with Script({REF.job_id: [complete()]}).client() as client:
            assert (await client.wait(REF.user_id, REF.job_id)).job_complete
    finally:
        logger.removeFilter(broken)


async def test_what_cannot_be_called_with_an_event_has_no_frames(caplog: pytest.LogCaptureFixture) -> None:
    """The text says what is wrong."""
    async with Script({REF.job_id: [complete()]}).client(hooks=[lambda: None]) as client:  # type: ignore[list-item, misc]  # a type checker would say so, too
        await client.wait(REF.user_id, REF.job_id)
    assert "takes 0 positional arguments but 1 was given" in caplog.text


async def test_a_hook_may_end_the_program() -> None:
    """An exception that is not an `Exception` is not caught."""

    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with Script({}).client(hooks=[interrupted]) as client:
            client.notify(REF)


# The log


async def everything() -> list[Event]:
    """Return every kind of event, with answers full of personal data."""
    events: list[Event] = []
    steps: list[Step] = [not_found(), rate_limited(1), cut(), pending(), complete(FullName="Ada Fiction")]
    async with Script({REF.job_id: steps}).client(hooks=[events.append]) as client:
        async with client.wait_many([REF], history=True, image_links=True) as outcomes:
            assert [outcome.error async for outcome in outcomes] == [None]
        client.notify(REF)
    async with Script({REF.job_id: [refused("2305")]}).client(hooks=[events.append]) as client:
        with pytest.raises(smilejobs.CredentialsError):
            await client.wait(REF.user_id, REF.job_id)
    return events


async def test_no_event_shows_ids_or_personal_data() -> None:
    """The repr of an event has only the tag of the job."""
    events = await everything()
    assert {type(event) for event in events} == set(Event.__args__)
    for event in events:
        shown = repr(event)
        assert not [secret for secret in SECRETS if secret in shown], type(event).__name__
        assert (REF.tag in shown) == (not isinstance(event, Throttled))


async def test_what_the_log_says(caplog: pytest.LogCaptureFixture) -> None:
    """DEBUG per poll and notification, INFO per ended wait, WARNING for failures and throttling; tags, never ids."""
    events = await everything()
    caplog.set_level(logging.DEBUG, "smilejobs")
    levels = {
        PollFinished: "DEBUG",
        PollFailed: "DEBUG",
        Notified: "DEBUG",
        WaitEnded: "INFO",
        Throttled: "WARNING",
    }
    for event in events:
        caplog.clear()
        log_event(event)
        lines = [(record.levelname, record.getMessage()) for record in caplog.records]
        if isinstance(event, PollScheduled):
            failed = f"job {REF.tag}: poll {event.polls} failed, trying again in {event.delay:.1f} s: "
            error = event.error
            expected = [] if error is None else [("WARNING", f"{failed}{type(error).__name__}: {error.args[0]}")]
            assert lines == expected
            continue
        ((level, line),) = lines
        assert level == levels[type(event)]
        assert not [secret for secret in SECRETS if secret in line]
        assert line.startswith("the API cannot keep up" if isinstance(event, Throttled) else f"job {REF.tag}: ")
        if isinstance(event, PollFailed):
            assert line.endswith(f": {type(event.error).__name__}: {event.error.args[0]}")
        if isinstance(event, WaitEnded):
            polls = "1 poll" if event.polls == 1 else f"{event.polls} polls"
            assert f" after {polls} and {event.elapsed:.1f} s" in line
            assert ("CredentialsError" if event.error else "approved") in line


FIELDS = {
    PollFinished: {"event_name", "tag", "seconds", "late", "requests", "code", "verdict"},
    PollFailed: {"event_name", "tag", "seconds", "late", "requests", "code", "error_type", "http_status"},
    PollScheduled: {"event_name", "tag", "polls", "delay", "code", "error_type", "http_status"},
    WaitEnded: {"event_name", "tag", "polls", "elapsed", "code", "verdict", "error_type", "http_status"},
    Throttled: {"event_name", "pause", "polls_per_second"},
    Notified: {"event_name", "tag"},
}
"""What a record can have, by event."""


async def test_a_record_has_fields(caplog: pytest.LogCaptureFixture) -> None:
    """Records have the values of the event, none of which is an id or personal."""
    events = await everything()
    caplog.set_level(logging.DEBUG, "smilejobs")
    plain = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}
    seen: dict[type, set[str]] = {kind: set() for kind in FIELDS}
    for event in events:
        caplog.clear()
        log_event(event)
        for record in caplog.records:
            fields = {name: value for name, value in vars(record).items() if name not in plain}
            seen[type(event)] |= fields.keys()
            assert fields["event_name"] == type(event).__name__
            assert fields.get("tag", REF.tag) == REF.tag
            assert None not in fields.values()
            assert not [secret for secret in SECRETS if secret in str(fields)]
            for name in ("polls", "delay", "elapsed", "seconds", "late", "pause", "polls_per_second"):
                assert fields.get(name) == getattr(event, name, None)
    assert all(seen[kind] <= FIELDS[kind] for kind in FIELDS)
    assert set[str]().union(*seen.values()) == set[str]().union(*FIELDS.values())
    ended = [vars(record_of(event, caplog)) for event in events if isinstance(event, WaitEnded)]
    assert [
        (each.get("code"), each.get("verdict"), each.get("error_type"), each.get("http_status")) for each in ended
    ] == [
        ("2302", "approved", None, None),
        ("2305", None, "CredentialsError", 400),
    ]


def record_of(event: Event, caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    """Return the record of an event."""
    caplog.clear()
    log_event(event)
    (record,) = caplog.records
    return record


def test_an_unknown_code_is_one_value_of_a_field(caplog: pytest.LogCaptureFixture) -> None:
    """A code is text from outside; fields hold only the codes of the tables and "other"."""
    caplog.set_level(logging.DEBUG, "smilejobs")
    error = smilejobs.ApiError("no", ref=REF, code="Ada Fiction")
    record = record_of(PollFailed(ref=REF, wait=None, error=error, seconds=1.0, late=0.0, requests=1), caplog)
    assert vars(record)["code"] == "other"
    assert "Ada Fiction" not in str(vars(record))


def test_the_documented_fields_are_those_that_there_are() -> None:
    """The table of the page about telemetry names each field once."""
    page = (Path(__file__).parent.parent.parent / "docs" / "telemetry.md").read_text("utf-8")
    table = page.partition("| field | of | what |")[2].partition("\n\n")[0]
    documented = [
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.partition("| ")[2].partition(" |")[0])
    ]
    callbacks = {"reason", "duplicate"}
    assert sorted(documented) == sorted(set[str]().union(*FIELDS.values()) | callbacks)


@pytest.mark.parametrize(("level", "lines"), [("INFO", 1), ("WARNING", 0)])
async def test_the_level_of_the_logger_counts(level: str, lines: int, caplog: pytest.LogCaptureFixture) -> None:
    """The level of the logger decides."""
    caplog.set_level(level, "smilejobs")
    async with Script({REF.job_id: [complete()]}).client() as client:
        await client.wait(REF.user_id, REF.job_id)
    assert len(caplog.records) == lines
