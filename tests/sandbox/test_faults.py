"""The faults of the sandbox: profiles, random draws, and their effect on polls. Under the virtual clock."""

import gzip
import json
import random
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from statistics import median
from typing import Any

import anyio
import httpx
import pytest
from attrs import evolve, fields
from hypothesis import given
from hypothesis import strategies as st

import smilejobs
from smilejobs import JobRef, Verdict
from smilejobs.model.jobs import Include
from smilejobs.sandbox import FAULT_PROFILES, FaultProfile, Lognormal, Mixture, Sandbox
from smilejobs.sandbox.asgi import InProcess
from smilejobs.sandbox.distributions import as_distribution, make_rng
from smilejobs.sandbox.faults import PollFaults, draw_faults, find_profile
from smilejobs.sandbox.variants import VARIANTS
from smilejobs.testing import virtual_now
from smilejobs.wire.protocol import encode_request
from smilejobs.wire.signature import verify

pytestmark = pytest.mark.anyio

CREDENTIALS = smilejobs.Credentials("085", "sandbox-key")
NO_FAULTS = FAULT_PROFILES["none"]
SHARES = [field.name for field in fields(FaultProfile) if isinstance(field.default, float) and field.default == 0.0]


async def ask(sandbox: Sandbox, job_id: str = "job-1", **changes: Any) -> tuple[int, Mapping[str, str], bytes]:
    """One poll, by hand."""
    ref = JobRef("user-1", job_id)
    asked = encode_request(ref, CREDENTIALS, virtual_now(), Include(image_links=True, history=False))
    request: dict[str, Any] = {"headers": {"Accept-Encoding": "gzip"}, "content": asked, **changes}
    async with InProcess(sandbox.app).stream(
        "POST", "https://localhost/v1/job_status", auth=None, follow_redirects=False, timeout=None, **request
    ) as response:
        body = b"".join([piece async for piece in response.aiter_raw()])
        if response.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        return response.status_code, response.headers, body


def with_job(faults: FaultProfile | str, **options: Any) -> Sandbox:
    sandbox = Sandbox(faults=faults, now=virtual_now, **options)  # type: ignore[arg-type]  # some tests pass names that are no presets
    sandbox.submit("user-1", "job-1", machine=0)
    return sandbox


# --- Profiles


def test_no_faults_are_drawn_by_default() -> None:
    """With any random generator."""
    assert FAULT_PROFILES["none"] == FaultProfile()
    for number in range(1000):
        assert draw_faults(NO_FAULTS, make_rng(0, number)) == PollFaults()


@given(preset=st.sampled_from(sorted(FAULT_PROFILES)), seed=st.integers())
def test_only_a_storm_has_answers_without_a_verdict(preset: Any, seed: int) -> None:
    """The other presets have no answer that a client must not trust or cannot read."""
    drawn = draw_faults(FAULT_PROFILES[preset], random.Random(seed))
    assert drawn.latency >= 0
    if preset != "storm":
        untrusted = {"wrong_jobs", "replays", "reflections", "forgeries"}
        assert not drawn.names & (untrusted | {"bare_results", "huge_bodies"})


def test_shares_are_kept() -> None:
    """Of 4,000 polls, each thing happens to about its share; what excludes each other never comes together."""
    meant = {"too_many": 0.1, "cuts": 0.2, "replays": 0.3, "forgeries": 0.1, "gzip": 0.5, "bare_results": 0.05}
    profile = FaultProfile(**meant)  # type: ignore[arg-type]  # all of them are shares
    polls = [draw_faults(profile, make_rng(1, number)) for number in range(4000)]
    shares = Counter(name for drawn in polls for name in drawn.names)
    assert shares.keys() == meant.keys()
    for name, share in meant.items():
        assert abs(shares[name] / 4000 - share) < 0.03
    for exclusive in ({"too_many", "cuts"}, {"replays", "forgeries"}):
        assert all(len(drawn.names & exclusive) <= 1 for drawn in polls)


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize(
    ("value", "error"), [(1.01, ValueError), (-0.1, ValueError), (float("nan"), ValueError), ("1", TypeError)]
)
def test_a_share_is_from_0_to_1(name: str, value: object, error: type[Exception]) -> None:
    """The text names the fault."""
    with pytest.raises(error, match=name):
        FaultProfile(**{name: value})  # type: ignore[arg-type]  # what mypy refuses, users without it pass


@pytest.mark.parametrize(
    ("faults", "error", "named"),
    [
        ({"latency": -1}, ValueError, "latency"),
        ({"latency": "1"}, TypeError, "latency"),
        ({"latency": 1e9}, ValueError, "latency must be at most ten years"),
        ({"rate": 0}, ValueError, "rate"),
        ({"rate": True}, TypeError, "rate"),
        ({"retry_after": -1}, ValueError, "retry_after"),
        ({"retry_after": 1e12}, ValueError, "retry_after must be at most ten years"),
        ({"slow": 1e12}, ValueError, "slow must be at most ten years"),
        ({"slow": float("inf")}, ValueError, "slow"),
        ({"variant_names": ["code_as_int", "in_red"]}, ValueError, "in_red; there are: other_refusal"),
        ({"too_many": 0.6, "cuts": 0.6}, ValueError, "together"),
        ({"wrong_jobs": 0.6, "forgeries": 0.6}, ValueError, "together"),
    ],
)
def test_faults_that_are_out_of_range(faults: dict[str, Any], error: type[Exception], named: str) -> None:
    """They are refused at once."""
    with pytest.raises(error, match=named):
        FaultProfile(**faults)


def test_a_profile_is_a_preset_or_a_value() -> None:
    """Everything else is refused, by the sandbox and for a job."""
    assert find_profile("storm") is FAULT_PROFILES["storm"]
    assert find_profile(NO_FAULTS) is NO_FAULTS
    with pytest.raises(ValueError, match="faults must be one of none, flaky, storm"):
        Sandbox(faults="sunny")  # type: ignore[arg-type]  # what mypy refuses, users without it pass
    with pytest.raises(TypeError, match="faults"):
        Sandbox().submit("user-1", "job-1", faults=3)  # type: ignore[arg-type]  # what mypy refuses, users without it pass


# --- Random draws


def test_each_purpose_has_a_generator_of_its_own() -> None:
    """The same purpose draws the same, in any order, and another purpose or seed draws something else."""
    purposes = [(0, "poll", "user-1", "job-1", 1), (0, "poll", "user-1", "job-1", 2), (1, "poll", "user-1", "job-1", 1)]
    purposes += [(0, "poll", "user-", "1job-1", 1), (0, "picture", "user-1", "job-1", 1)]
    drawn = {purpose: make_rng(*purpose).random() for purpose in purposes}
    again = {purpose: make_rng(*purpose).random() for purpose in reversed(purposes)}
    assert drawn == again
    assert len(set(drawn.values())) == len(purposes)


@pytest.mark.parametrize(("spread", "longest"), [(0.0, 3.0), (0.6, 60.0)])
def test_durations_have_their_median(spread: float, longest: float) -> None:
    """Half are shorter; all are as long without a spread."""
    drawn = [Lognormal(timedelta(seconds=3), spread).draw(make_rng(0, number)) for number in range(1001)]
    assert abs(median(drawn) - 3) < 0.3
    assert 0 < min(drawn) <= max(drawn) <= longest
    assert (len(set(drawn)) > 1) is bool(spread)


@given(st.floats(0, 1e6), st.integers(0, 100))
def test_no_duration_is_beyond_all_bounds(spread: float, seed: int) -> None:
    """However wide the spread, an instant can be computed from it."""
    assert 0 <= Lognormal(1000, spread).draw(random.Random(seed)) <= 10 * 365 * 86_400
    assert Lognormal(0, spread).draw(random.Random(seed)) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ((-1,), ValueError, "median"),
        ((timedelta(days=4000),), ValueError, "median must be at most ten years"),
        ((1, -1), ValueError, "spread"),
        ((1, timedelta(1)), TypeError, "spread"),
        (("1",), TypeError, "median"),
    ],
)
def test_distributions_that_can_never_be_right(arguments: tuple[Any, ...], error: type[Exception], named: str) -> None:
    """The text names the argument."""
    with pytest.raises(error, match=named):
        Lognormal(*arguments)


def test_a_duration_is_a_distribution_too() -> None:
    """And a distribution is itself."""
    assert as_distribution(timedelta(minutes=1), "machine") == Lognormal(60.0)
    assert as_distribution(Lognormal(1, 2), "machine") == Lognormal(1, 2)
    with pytest.raises(ValueError, match="machine"):
        as_distribution(-1, "machine")
    mixture = Mixture((1, 2))
    assert as_distribution(mixture, "machine") is mixture


def test_a_mixture_draws_each_part_as_often_as_its_weight_says() -> None:
    """Seconds, timedeltas, distributions and mixtures, in any scale of the weights."""
    mixture = Mixture((3, 1), (2, timedelta(seconds=2)), (4, Lognormal(3)), (1, Mixture((1, 4), (1, 5))))
    drawn = Counter(mixture.draw(make_rng(0, number)) for number in range(10_000))
    meant = {1.0: 0.3, 2.0: 0.2, 3.0: 0.4, 4.0: 0.05, 5.0: 0.05}
    assert drawn.keys() == meant.keys()
    for value, share in meant.items():
        assert abs(drawn[value] / 10_000 - share) < 0.02
    assert repr(Mixture((1, 2), (3, Lognormal(4, 5)))) == (
        "Mixture((1.0, Lognormal(median=2.0, spread=0.0)), (3.0, Lognormal(median=4.0, spread=5.0)))"
    )


@pytest.mark.parametrize(
    ("parts", "error", "named"),
    [
        ((), ValueError, "at least one pair"),
        (((0, 1),), ValueError, "weight"),
        (((float("nan"), 1),), ValueError, "weight"),
        ((("1", 1),), TypeError, "weight"),
        (((1, -1),), ValueError, "duration"),
        (((1, "1"),), TypeError, "duration"),
        (((1, 1e12),), ValueError, "duration must be at most ten years"),
    ],
)
def test_mixtures_that_are_out_of_range(parts: tuple[Any, ...], error: type[Exception], named: str) -> None:
    """The text says which value."""
    with pytest.raises(error, match=named):
        Mixture(*parts)


async def test_machine_and_review_may_take_a_mixture_of_durations() -> None:
    """For the whole sandbox, and for one job."""
    two_peaks = Mixture((1, 3), (1, 40))
    sandbox = Sandbox(machine=two_peaks, review=two_peaks, now=virtual_now)
    jobs = [sandbox.jobs[sandbox.submit("user-1", f"job-{number}", review=True)] for number in range(200)]
    assert {job.machine.total_seconds() for job in jobs} == {3.0, 40.0}
    assert {job.review for job in jobs} == {timedelta(seconds=3), timedelta(seconds=40)}
    one = sandbox.jobs[sandbox.submit("user-2", "job-1", machine=Mixture((1, 7)), review=Mixture((1, 9)))]
    assert (one.machine, one.review) == (timedelta(seconds=7), timedelta(seconds=9))


# --- The effect on polls


async def test_the_same_requests_get_the_same_answers_in_any_order() -> None:
    """In a storm: byte for byte, headers too, if the requests of other jobs come between or not."""

    async def run(order: list[str]) -> dict[str, list[object]]:
        sandbox = Sandbox(faults=evolve(FAULT_PROFILES["storm"], latency=0, slow=0), seed=5, now=lambda: now)
        for number in range(4):
            sandbox.submit("user-1", f"job-{number}", job_type=6)
        answers: dict[str, list[object]] = {job_id: [] for job_id in order}
        for job_id in order:
            try:
                answers[job_id].append(await ask(sandbox, job_id))
            except OSError as error:
                answers[job_id].append(str(error))
        return answers

    now = virtual_now()
    one = await run([f"job-{number}" for number in range(4)] * 40)
    other = await run([f"job-{number}" for number in (2, 0, 3, 1) for _ in range(40)])
    assert one == other
    assert len({str(answer) for answer in one["job-0"]}) > 20
    assert one["job-0"] != one["job-1"]


async def test_the_same_faults_happen_again() -> None:
    """Under the virtual clock, late and dripping answers and all: two sandboxes, asked alike, are alike to the byte."""

    async def follow(sandbox: Sandbox, job_id: str, transcript: list[object]) -> None:
        for _ in range(25):
            try:
                transcript.append((anyio.current_time(), await ask(sandbox, job_id)))
            except OSError as error:
                transcript.append((anyio.current_time(), str(error)))
            await anyio.sleep(1)

    transcripts: list[dict[str, list[object]]] = [{}, {}]
    async with anyio.create_task_group() as tasks:
        for transcript in transcripts:
            sandbox = Sandbox(faults="storm", seed=11, now=virtual_now)
            for number in range(8):
                sandbox.submit("user-1", f"job-{number}", review=True)
                tasks.start_soon(follow, sandbox, f"job-{number}", transcript.setdefault(f"job-{number}", []))
    assert transcripts[0] == transcripts[1]
    assert len({str(entry) for entry in transcripts[0]["job-0"]}) == 25


async def test_the_same_calls_draw_the_same_durations_in_any_order() -> None:
    """What a job is drawn depends on its own name."""
    sandboxes = [Sandbox(seed=7, now=virtual_now) for _ in range(2)]
    names = [f"job-{number}" for number in range(10)]
    for sandbox, order in zip(sandboxes, (names, names[::-1]), strict=True):
        for name in order:
            sandbox.submit("user-1", name, review=True)
    for name in names:
        one, other = (sandbox.jobs[JobRef("user-1", name)] for sandbox in sandboxes)
        assert (one.machine, one.review) == (other.machine, other.review)


@pytest.mark.parametrize("preset", ["none", "flaky"])
async def test_with_flaky_faults_every_job_ends_as_it_should(preset: Any) -> None:
    """A good client gets through: 60 jobs, each with its own outcome, within minutes."""
    sandbox = Sandbox(faults=preset, now=virtual_now)
    meant = {}
    for number in range(60):
        outcome = ("approved", "rejected", "error")[number % 3]
        meant[sandbox.submit(f"user-{number}", "job-1", outcome=outcome)] = Verdict(outcome)
    ended: dict[JobRef, Verdict | None] = {}

    async def wait(ref: JobRef) -> None:
        ended[ref] = (await client.wait(ref.user_id, ref.job_id, timeout=600, image_links=True, history=True)).verdict

    async with sandbox.client(rate=None) as client, anyio.create_task_group() as tasks:
        for ref in meant:
            tasks.start_soon(wait, ref)
    assert ended == meant
    assert anyio.current_time() < 300


async def test_answers_come_late() -> None:
    """And say what is true when they come, not when they were asked for."""
    sandbox = Sandbox(faults=FaultProfile(latency=20), now=virtual_now)
    sandbox.submit("user-1", "job-1", machine=10)
    async with sandbox.client() as client:
        status = await client.job_status("user-1", "job-1")
    assert anyio.current_time() == 20
    assert status.job_complete


async def test_bodies_come_in_drips() -> None:
    """All of them, in the time that was said; a client that has less time finds its own limit."""
    sandbox = with_job(FaultProfile(slow_bodies=1, slow=8))
    async with sandbox.client() as client:
        assert (await client.job_status("user-1", "job-1")).job_complete
    assert anyio.current_time() == 8
    async with sandbox.client(request_timeout=3, attempts=1) as client:
        with pytest.raises(smilejobs.SmileJobsError):
            await client.job_status("user-1", "job-1")
    assert anyio.current_time() == 11


@pytest.mark.parametrize(("accept", "encoding"), [("gzip, deflate", "gzip"), ("deflate", None), ("", None)])
async def test_bodies_are_compressed_for_those_who_can_read_them(accept: str, encoding: str | None) -> None:
    """Only where ``Accept-Encoding`` names gzip; the body is the same."""
    sandbox = with_job(FaultProfile(gzip=1))
    _, headers, body = await ask(sandbox, headers={"Accept-Encoding": accept})
    assert headers.get("content-encoding") == encoding
    assert body.startswith(b'{"timestamp"')


async def test_cut_connections_are_no_answers() -> None:
    """To a client they are failures that pass: half of them before the head, half in the middle of the body."""
    sandbox = with_job(FaultProfile(cuts=1), seed=2)
    kinds = Counter[type]()
    async with sandbox.client(attempts=1) as client:
        for _ in range(40):
            with pytest.raises((smilejobs.RequestError, smilejobs.BadResponseError)) as failed:
                await client.job_status("user-1", "job-1")
            assert failed.value.transient
            kinds[type(failed.value)] += 1
    assert min(kinds[smilejobs.RequestError], kinds[smilejobs.BadResponseError]) > 10


async def test_httpx_sees_a_cut_connection_too() -> None:
    """In its own transport for applications: the error of the operating system, no 500."""
    sandbox = with_job(FaultProfile(cuts=1))
    content = encode_request(JobRef("user-1", "job-1"), CREDENTIALS, virtual_now(), Include())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=sandbox.app)) as http_client:
        for _ in range(10):
            with pytest.raises(ConnectionResetError):
                await http_client.post("https://localhost/v1/job_status", content=content)


async def test_above_its_rate_the_sandbox_says_429() -> None:
    """As a bucket that holds the polls of a second; what comes evenly, below the rate, is answered."""
    sandbox = with_job(FaultProfile(rate=10, retry_after=timedelta(seconds=1.5)))
    answers = [await ask(sandbox) for _ in range(15)]
    assert [http_status for http_status, _, _ in answers] == [200] * 10 + [429] * 5
    assert answers[-1][1]["retry-after"] == "2"
    await anyio.sleep(0.35)
    assert [(await ask(sandbox))[0] for _ in range(4)] == [200] * 3 + [429]
    for _ in range(30):
        await anyio.sleep(0.1001)
        assert (await ask(sandbox))[0] == 200


async def test_a_slow_rate_lets_one_through() -> None:
    """A tenth of a poll per second is one poll in ten seconds, not none for ever."""
    sandbox = with_job(FaultProfile(rate=0.1))
    assert [(await ask(sandbox))[0] for _ in range(2)] == [200, 429]
    await anyio.sleep(10)
    assert (await ask(sandbox))[0] == 200


async def test_there_may_be_no_retry_after() -> None:
    """A gateway that has nothing to say."""
    http_status, headers, _ = await ask(with_job(FaultProfile(too_many=1, retry_after=None)))
    assert http_status == 429
    assert "retry-after" not in headers


async def test_a_retry_after_that_is_a_date_is_as_long() -> None:
    """A client waits for it, and is not asked to wait for less than was meant."""
    sandbox = with_job(FaultProfile(too_many=1, retry_after=30, retry_after_dates=1))
    await anyio.sleep(0.3)
    async with sandbox.client(attempts=1) as client:
        with pytest.raises(smilejobs.RateLimitedError) as limited:
            await client.job_status("user-1", "job-1")
    assert limited.value.retry_after == pytest.approx(30.7)


async def test_a_job_may_have_faults_of_its_own() -> None:
    """The others have those of the sandbox, and so have jobs that do not exist."""
    sandbox = Sandbox(faults=FaultProfile(error_pages=1), now=virtual_now)
    sandbox.submit("user-1", "fine", machine=0, faults="none")
    sandbox.submit("user-1", "limited", machine=0, faults=FaultProfile(too_many=1))
    sandbox.submit("user-1", "usual", machine=0)
    assert [(await ask(sandbox, job_id))[0] for job_id in ("fine", "limited")] == [200, 429]
    for job_id in ("usual", "unknown"):
        http_status, _, body = await ask(sandbox, job_id)
        assert http_status >= 500
        assert body.startswith(b"<html>")


async def test_an_old_answer_is_one_that_was_given() -> None:
    """Word for word what the API said up to a minute ago, but never before the job was submitted."""
    sandbox = Sandbox(faults=FaultProfile(replays=1), now=virtual_now)
    sandbox.submit("user-1", "job-1", machine=100)
    await anyio.sleep(10)
    async with sandbox.client(rate=None) as client:
        for _ in range(20):
            status = await client.job_status("user-1", "job-1")
            assert status.timestamp is not None
            assert 0 <= (virtual_now() - status.timestamp).total_seconds() <= 10.001
        await anyio.sleep(110)
        ages = []
        for _ in range(60):
            status = await client.job_status("user-1", "job-1")
            assert status.timestamp is not None
            ages.append((virtual_now() - status.timestamp).total_seconds())
            assert status.job_complete is (ages[-1] <= 20)
    assert min(ages) < 10
    assert 50 < max(ages) <= 60.001


@pytest.mark.parametrize("name", ["bare_results", "huge_bodies", "link_errors"])
async def test_faults_of_results_leave_a_pending_job_alone(name: str) -> None:
    """It has neither a result nor links."""
    sandbox = Sandbox(faults=FaultProfile(**{name: 1}), now=virtual_now)  # type: ignore[arg-type]  # all of them are shares
    sandbox.submit("user-1", "job-1", machine=60)
    _, _, body = await ask(sandbox)
    assert json.loads(body).keys() == {
        *("timestamp", "signature", "user_id", "job_id", "job_complete", "job_success", "code")
    }


async def test_variants_can_be_chosen() -> None:
    """One alone, in every answer."""
    _, _, body = await ask(with_job(FaultProfile(variants=1, variant_names=["code_as_int"])))
    assert b'"code":2302,' in body
    assert b'"job_complete":true' in body
    assert set(FaultProfile().variant_names) == set(VARIANTS)


async def test_what_is_not_complete_keeps_its_meaning_in_every_variant() -> None:
    """A job that is unknown, one without images, which may be refused, and one that runs."""
    names = ["other_refusal", "pending_result"]
    sandbox = Sandbox(faults=FaultProfile(variants=1, variant_names=names), now=virtual_now)
    sandbox.submit("user-1", "no-zip", upload=None)
    sandbox.submit("user-1", "running", machine=3600)
    async with sandbox.client(rate=None, attempts=1) as client:
        for _ in range(20):
            with pytest.raises(smilejobs.JobNotFoundError):
                await client.job_status("user-1", "unknown")
            for job_id, code in (("no-zip", "2314"), ("running", "2302")):
                status = await client.job_status("user-1", job_id)
                assert (status.job_complete, status.result, status.code) == (False, None, code)


async def test_what_must_not_be_believed() -> None:
    """The ids of another job or user, a signature that was sent with the request, or one that does not verify."""
    for seed in range(20):
        _, _, body = await ask(with_job(FaultProfile(wrong_jobs=1), seed=seed))
        assert b"job-1-2" in body or b"user-1-2" in body
    _, _, body = await ask(with_job(FaultProfile(reflections=1)))
    asked = json.loads(encode_request(JobRef("user-1", "job-1"), CREDENTIALS, virtual_now(), Include()))
    assert asked.items() >= {key: json.loads(body)[key] for key in ("timestamp", "signature")}.items()
    unsigned = 0
    for seed in range(40):
        _, _, body = await ask(with_job(FaultProfile(forgeries=1), seed=seed))
        answer = json.loads(body)
        unsigned += "signature" not in answer
        assert not verify(CREDENTIALS, answer.get("timestamp"), answer.get("signature"))
    assert 0 < unsigned < 40
