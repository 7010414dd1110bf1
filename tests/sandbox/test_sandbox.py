"""The sandbox in process: the life of a job, its history, its codes. Under the virtual clock, on both backends."""

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import httpx
import pytest

import smilejobs
from smilejobs import Client, Credentials, JobRef, Verdict
from smilejobs.sandbox import Lognormal, Sandbox, Stage
from smilejobs.sandbox.registry import Registry
from smilejobs.testing import EPOCH, virtual_now
from smilejobs.wire.signature import format_timestamp, sign, verify

pytestmark = pytest.mark.anyio

CREDENTIALS = smilejobs.Credentials("085", "sandbox-key")


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(now=virtual_now)


@asynccontextmanager
async def client_of(sandbox: Sandbox) -> AsyncGenerator[Client, None]:
    """A client in the same process, under the same clock."""
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(app=sandbox.app)) as http_client,
        Client(
            partner_id="085",
            api_key="sandbox-key",
            base_url="https://sandbox.test/v1",
            http_client=http_client,
            attempts=1,
            now=virtual_now,
        ) as client,
    ):
        yield client


def asked(**changes: object) -> dict[str, object]:
    """A request that is right, but for the changes; None leaves a key out."""
    timestamp = format_timestamp(EPOCH)
    body = {
        "partner_id": "085",
        "timestamp": timestamp,
        "signature": sign(CREDENTIALS, timestamp),
        "user_id": "user-1",
        "job_id": "job-1",
        **changes,
    }
    return {key: value for key, value in body.items() if value is not None}


async def post(sandbox: Sandbox, **request: Any) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=sandbox.app)) as http_client:
        return await http_client.post("https://sandbox.test/v1/job_status", **request)


async def test_the_life_of_a_job(sandbox: Sandbox) -> None:
    """Unknown, without images, with the machine, under review, final: each state at its time, and not before."""
    async with client_of(sandbox) as client:
        with pytest.raises(smilejobs.JobNotFoundError) as not_found:
            await client.job_status("user-1", "job-1")
        assert (not_found.value.code, not_found.value.http_status) == ("2304", 400)

        ref = sandbox.submit("user-1", "job-1", upload=10, machine=timedelta(seconds=20), review=30, job_type=6)
        assert ref == JobRef("user-1", "job-1")
        assert ref.submitted_at == virtual_now()

        no_zip = await client.job_status("user-1", "job-1", image_links=True)
        assert (no_zip.code, no_zip.job_complete, no_zip.message) == ("2314", False, "No zip uploaded yet")

        await anyio.sleep(10)
        running = await client.job_status("user-1", "job-1", image_links=True)
        assert (running.code, running.job_complete, running.job_success) == ("2302", False, False)
        assert (running.result, running.message, running.image_links) == (None, None, None)

        await anyio.sleep(20)
        interim = await client.job_status("user-1", "job-1")
        assert (interim.verdict, interim.is_final, interim.job_success) == (Verdict.PROVISIONAL, False, True)
        assert interim.result is not None
        assert (interim.result.result_code, interim.result.is_machine_result) == ("0814", True)

        await anyio.sleep(30)
        final = await client.job_status("user-1", "job-1")
        assert (final.verdict, final.is_final) == (Verdict.APPROVED, True)
        assert final.result is not None
        assert (final.result.result_code, final.result.is_machine_result) == ("0810", False)
        assert final.result.partner_params is not None
        assert final.result.partner_params.job_type == 6
    assert sandbox.polls(ref) == 5


async def test_a_wait_sees_what_was_meant(sandbox: Sandbox) -> None:
    """The job says how it ends, and when; a wait gets just that, soon after."""
    refs = [
        sandbox.submit("user-1", "job-1", machine=7.0),
        sandbox.submit("user-1", "job-2", machine=2.0, review=3600.0, outcome="rejected"),
        sandbox.submit("user-1", "job-3", outcome="error"),
    ]
    async with client_of(sandbox) as client:
        for ref in refs:
            status = await client.wait(
                ref.user_id, ref.job_id, until="final", timeout=None, submitted_at=ref.submitted_at
            )
            job = sandbox.jobs[ref]
            assert status.verdict is job.verdict
            assert job.complete_at is not None
            assert job.final_at is not None
            assert job.complete_at <= job.final_at <= virtual_now()
    assert [job.verdict for job in sandbox.jobs.values()] == [Verdict.APPROVED, Verdict.REJECTED, Verdict.ERROR]


@pytest.mark.parametrize("job_type", smilejobs.JOB_TYPES)
@pytest.mark.parametrize("outcome", ["approved", "rejected", "error"])
async def test_every_product_has_every_outcome(sandbox: Sandbox, job_type: int, outcome: str) -> None:
    """Each product ends with a code of its own, whose verdict is the outcome that was asked for."""
    sandbox.submit("user-1", "job-1", job_type=job_type, outcome=outcome, machine=0)
    async with client_of(sandbox) as client:
        status = await client.job_status("user-1", "job-1")
    assert status.verdict is Verdict(outcome)
    assert status.job_success is (outcome == "approved")
    assert status.result is not None
    assert status.result.partner_params is not None
    assert status.result.partner_params.job_type == job_type


async def test_a_result_code_stands_for_itself(sandbox: Sandbox) -> None:
    """A certain result code can be asked for, with the text of the table."""
    sandbox.submit("user-1", "job-1", job_type=6, outcome="0812", machine=0)
    async with client_of(sandbox) as client:
        status = await client.job_status("user-1", "job-1")
    assert status.result is not None
    assert (status.result.result_code, status.result.result_text) == ("0812", smilejobs.RESULT_CODES["0812"].text)
    assert status.result.confidence_value is None


async def test_the_history_is_that_of_the_user(sandbox: Sandbox) -> None:
    """It holds every result that any job of the user has had so far, interim ones too, and none of other users."""
    sandbox.submit("user-1", "job-1", machine=0, review=60)
    sandbox.submit("user-1", "job-2", machine=0, outcome="rejected", job_type=6)
    sandbox.submit("user-1", "job-3", machine=100)
    sandbox.submit("user-1", "job-4", upload=None)
    sandbox.submit("user-2", "job-1", machine=0)
    await anyio.sleep(60)
    async with client_of(sandbox) as client:
        status = await client.job_status("user-1", "job-3", history=True)
        without = await client.job_status("user-1", "job-1")
    entries = [(entry.smile_job_id, entry.result_code) for entry in status.history]
    assert entries == [("0000000001", "0814"), ("0000000001", "1210"), ("0000000002", "0811")]
    assert not status.job_complete
    assert without.history == ()


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        ("2301", smilejobs.ServerError),
        ("2304", smilejobs.JobNotFoundError),
        ("2305", smilejobs.CredentialsError),
        ("2307", smilejobs.UserDisabledError),
        ("2310", smilejobs.UserNotFoundError),
        ("2222", smilejobs.ApiError),
    ],
)
async def test_a_job_can_be_refused(sandbox: Sandbox, refusal: str, error: type[smilejobs.ApiError]) -> None:
    """A job with a refusal answers every poll with that status code, and never ends."""
    ref = sandbox.submit("user-1", "job-1", refusal=refusal, machine=0)
    async with client_of(sandbox) as client:
        with pytest.raises(error) as refused:
            await client.job_status("user-1", "job-1", history=True)
    assert (refused.value.code, refused.value.http_status) == (refusal, 400)
    assert sandbox.jobs[ref].verdict is None
    assert sandbox.polls(ref) == 1


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"content": b"{"}, "2303"),
        ({"content": b"[]"}, "2303"),
        ({"content": b"\xff"}, "2303"),
        ({"content": b""}, "2303"),
        ({"content": b"[" * 200_000}, "2303"),
        *(({"json": asked(**{name: None})}, "2313") for name in asked()),
        *(({"json": asked(**{name: []})}, "2313") for name in asked()),
        *(({"json": asked(**{name: ""})}, "2313") for name in asked()),
        ({"json": asked(user_id=" ")}, "2313"),
        ({"content": rb'{"user_id": "\ud800"}'}, "2313"),
        ({"json": asked(partner_id="85")}, "2305"),
        ({"json": asked(partner_id=85)}, "2305"),
        ({"json": asked(signature="x" * 44)}, "2305"),
        ({"json": asked(signature="é")}, "2305"),
        ({"json": asked(timestamp="2026-01-01T00:00:00.001Z")}, "2305"),
        ({"json": asked()}, "2304"),
        ({"json": asked(user_id=1, job_id=2)}, "2304"),
    ],
)
async def test_a_request_that_is_wrong(sandbox: Sandbox, request_: dict[str, Any], code: str) -> None:
    """Each fault gets the vendor's code for it; the body has an error and a code, and no signature."""
    sandbox.submit("user-1", "job-2")
    answer = await post(sandbox, **request_)
    assert answer.status_code == 400
    assert answer.json() == {"error": smilejobs.STATUS_CODES[code].meaning, "code": code}


async def test_an_id_with_half_a_surrogate_pair_is_missing(sandbox: Sandbox) -> None:
    """Ids that no client could have submitted are refused, not looked up."""
    content = httpx.Request("POST", "https://x", json=asked(job_id="@")).content.replace(b'"@"', rb'"\ud800"')
    assert (await post(sandbox, content=content)).json()["code"] == "2313"


async def test_a_client_that_hangs_up_is_no_error(sandbox: Sandbox) -> None:
    """Nothing raises."""
    sent: list[Any] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/job_status", "headers": [], "query_string": b""}
    await sandbox.app(scope, receive, send)
    assert sent[0]["status"] == 503


@pytest.mark.parametrize("flag", [True, "true", "True"])
async def test_flags_may_be_words(sandbox: Sandbox, flag: object) -> None:
    """The older documentation has the two flags as words."""
    sandbox.submit("user-1", "job-1", machine=0)
    body = (await post(sandbox, json=asked(image_links=flag, history=flag))).json()
    assert len(body["history"]) == 1
    assert set(body["image_links"]) == {"selfie_image"}


@pytest.mark.parametrize("flag", [False, "false", None, 1, []])
async def test_a_flag_that_is_not_true_asks_for_nothing(sandbox: Sandbox, flag: object) -> None:
    """Without a flag, neither history nor links are in the body."""
    sandbox.submit("user-1", "job-1", machine=0)
    body = (await post(sandbox, json=asked(image_links=flag, history=flag))).json()
    assert not {"history", "image_links"} & body.keys()


async def test_every_answer_about_a_job_is_signed(sandbox: Sandbox) -> None:
    """Pending ones too; the instant is that of the answer, and the ids are the ones that were asked for."""
    sandbox.submit("user-1", "job-1", upload=10, machine=10)
    for _ in range(3):
        body = (await post(sandbox, json=asked())).json()
        assert body["timestamp"] == format_timestamp(virtual_now())
        assert verify(CREDENTIALS, body["timestamp"], body["signature"])
        assert (body["user_id"], body["job_id"]) == ("user-1", "job-1")
        await anyio.sleep(10)


async def test_the_same_calls_give_the_same_bytes() -> None:
    """Two sandboxes with one seed answer alike, byte for byte, links included; another seed draws other durations."""
    sandboxes = [Sandbox(seed=7, now=virtual_now) for _ in range(2)]
    for sandbox in sandboxes:
        for number in range(20):
            sandbox.submit("user-1", f"job-{number}", job_type=2)
    other = Sandbox(seed=8, now=virtual_now)
    ref = other.submit("user-1", "job-0")
    assert other.jobs[ref].complete_at != sandboxes[0].jobs[ref].complete_at
    for _ in range(3):
        one, two = [await post(sandbox, json=asked(history=True, image_links=True)) for sandbox in sandboxes]
        assert one.content == two.content
        await anyio.sleep(2)


async def test_machine_results_take_seconds() -> None:
    """The durations that the seed draws have a median of about 2 s, and are spread."""
    sandbox = Sandbox(now=virtual_now)
    refs = [sandbox.submit("user-1", f"job-{number}") for number in range(501)]
    ends = [sandbox.jobs[ref].complete_at for ref in refs]
    durations = sorted((end - virtual_now()).total_seconds() for end in ends if end is not None)
    assert 1.8 < durations[250] < 2.2
    assert durations[0] < 1
    assert 5 < durations[-1] < 30


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"partner_id": 85}, TypeError, "partner_id"),
        ({"api_key": ""}, ValueError, "api_key"),
        ({"link_lifetime": 0}, ValueError, "link_lifetime"),
        ({"link_lifetime": 1.5}, ValueError, "link_lifetime"),
        ({"link_lifetime": timedelta(days=8)}, ValueError, "link_lifetime"),
        ({"picture_bytes": 0}, ValueError, "picture_bytes must be from"),
        ({"picture_bytes": 2**30}, ValueError, "picture_bytes"),
        ({"picture_bytes": True}, TypeError, "picture_bytes"),
        ({"max_skew": -1}, ValueError, "max_skew"),
        ({"max_skew": 1e300}, ValueError, "max_skew must be at most ten years"),
        ({"machine": -1}, ValueError, "machine"),
        ({"machine": timedelta(days=4000)}, ValueError, "machine must be at most ten years"),
        ({"review": "never"}, TypeError, "review"),
        ({"allow_callbacks_to": "host"}, TypeError, "allow_callbacks_to"),
        ({"now": 3}, TypeError, "now"),
    ],
)
def test_arguments_that_can_never_be_right(arguments: dict[str, Any], error: type[Exception], named: str) -> None:
    """They are refused when the sandbox is made."""
    with pytest.raises(error, match=named):
        Sandbox(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"user_id": ""}, ValueError, "user_id"),
        ({"job_id": 7}, TypeError, "job_id"),
        ({"job_id": "taken"}, ValueError, "already"),
        ({"outcome": "aproved"}, ValueError, "outcome"),
        ({"outcome": "0814"}, ValueError, "review="),
        ({"job_type": 3}, ValueError, "job_type must be one of 1, 2, 4"),
        ({"upload": -1}, ValueError, "upload"),
        ({"machine": float("nan")}, ValueError, "machine"),
        ({"review": "1"}, TypeError, "review"),
        ({"refusal": "2302"}, ValueError, "refusal"),
        ({"refusal": "2314"}, ValueError, "refusal"),
        ({"refusal": "9999"}, ValueError, "refusal"),
        ({"upload": timedelta(days=4000)}, ValueError, "upload"),
        ({"faults": "sunny"}, ValueError, "faults"),
        ({"callback_url": "https://elsewhere.example/"}, ValueError, "callback_url"),
        ({"partner_params": {"a": object()}}, ValueError, "partner_params must be a mapping"),
        ({"partner_params": {"a": float("nan")}}, ValueError, "partner_params"),
        ({"details": [1]}, ValueError, "details"),
    ],
)
async def test_jobs_that_can_never_be(
    sandbox: Sandbox, arguments: dict[str, Any], error: type[Exception], named: str
) -> None:
    """They are refused when they are submitted, and leave nothing behind."""
    sandbox.submit("user-1", "taken")
    with pytest.raises(error, match=named):
        sandbox.submit(**{"user_id": "user-1", "job_id": "job-1", **arguments})
    assert len(sandbox.jobs) == 1


async def test_the_repr_of_a_job_shows_no_ids(sandbox: Sandbox) -> None:
    """One line, with the tag in the ids' place."""
    ref = sandbox.submit("user-amber", "job-basalt")
    assert repr(sandbox.jobs[ref]) == f"<Job {ref.tag}: smile_job_id='0000000001', result_code='1210'>"


def test_the_repr_of_the_registry_shows_no_ids() -> None:
    """Crash reporters copy it with the locals of each frame."""
    registry = Registry(credentials=Credentials("085", "a-key"), now=virtual_now)
    registry.count("poll", "user-1", "job-1")
    assert "user-1" not in repr(registry)


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_the_extra_the_import_says_what_to_install(missing: str) -> None:
    """In a process of its own, for what has been imported stays imported."""
    code = f"import sys; sys.modules[{missing!r}] = None; import smilejobs.sandbox"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert last.endswith("pip install 'smilejobs[sandbox]'")


# --- What can be done to a job


async def test_images_are_received_later(sandbox: Sandbox) -> None:
    """With ``upload=None`` a job has no images until they are received; then the machine begins."""
    ref = sandbox.submit("user-1", "job-1", upload=None, machine=10)
    await anyio.sleep(1000)
    async with client_of(sandbox) as client:
        assert (await client.job_status("user-1", "job-1")).code == "2314"
        sandbox.receive(ref)
        assert (await client.job_status("user-1", "job-1")).code == "2302"
        await anyio.sleep(10)
        assert (await client.job_status("user-1", "job-1")).verdict is Verdict.APPROVED
    with pytest.raises(ValueError, match="in already"):
        sandbox.receive(ref)
    with pytest.raises(ValueError, match="no such job"):
        sandbox.receive(JobRef("user-1", "job-2"))


async def test_a_person_ends_a_review(sandbox: Sandbox) -> None:
    """Before its time, or one that has none; with the outcome that the person says."""
    timed = sandbox.submit("user-1", "timed", machine=10, review=3600)
    untimed = sandbox.submit("user-1", "open", machine=10, review="open")
    assert sandbox.jobs[untimed].verdict is None
    with pytest.raises(ValueError, match="not under review"):
        sandbox.review(timed, "rejected")
    await anyio.sleep(20)
    for ref in (timed, untimed):
        assert sandbox.jobs[ref].stage(virtual_now()) is Stage.UNDER_REVIEW
        with pytest.raises(ValueError, match="outcome"):
            sandbox.review(ref, "aproved")
        sandbox.review(ref, "rejected")
    async with client_of(sandbox) as client:
        for ref in (timed, untimed):
            status = await client.job_status(ref.user_id, ref.job_id, history=True)
            assert (status.verdict, status.is_final) == (Verdict.REJECTED, True)
            assert [entry.result_code for entry in status.history if entry.smile_job_id == "0000000002"] == [
                "0814",
                "1022",
            ]
    with pytest.raises(ValueError, match="not under review"):
        sandbox.review(timed, "approved")
    with pytest.raises(ValueError, match="no such job"):
        sandbox.review(JobRef("user-1", "job-2"), "approved")


async def test_the_timetable_of_a_job(sandbox: Sandbox) -> None:
    """The instants at which it has new results, as far as they are known."""
    ref = sandbox.submit("user-1", "job-1", upload=None, machine=5, review="open")
    assert sandbox.jobs[ref].milestones() == []
    await anyio.sleep(10)
    sandbox.receive(ref)
    ((at, provisional),) = sandbox.jobs[ref].milestones()
    assert (at, provisional["ResultCode"]) == (EPOCH + timedelta(seconds=15), "0814")
    await anyio.sleep(10)
    sandbox.review(ref, "approved")
    (_, (at, final)) = sandbox.jobs[ref].milestones()
    assert (at, final["ResultCode"], final["IsMachineResult"]) == (EPOCH + timedelta(seconds=20), "1210", "false")
    quick = sandbox.submit("user-1", "quick", machine=0)
    assert [at for at, _ in sandbox.jobs[quick].milestones()] == [EPOCH + timedelta(seconds=20)]


async def test_how_long_things_take_is_up_to_the_sandbox() -> None:
    """Where a job does not say: the machine, and the reviews of the jobs that have one."""
    sandbox = Sandbox(machine=Lognormal(5), review=timedelta(minutes=1), now=virtual_now)
    plain = sandbox.jobs[sandbox.submit("user-1", "plain")]
    reviewed = sandbox.jobs[sandbox.submit("user-1", "reviewed", review=True)]
    own = sandbox.jobs[sandbox.submit("user-1", "own", machine=Lognormal(7), review=Lognormal(9))]
    assert (plain.machine, plain.review) == (timedelta(seconds=5), timedelta())
    assert (reviewed.machine, reviewed.review) == (timedelta(seconds=5), timedelta(minutes=1))
    assert (own.machine, own.review) == (timedelta(seconds=7), timedelta(seconds=9))
    people = Sandbox(review="open", now=virtual_now)
    assert people.jobs[people.submit("user-1", "job-1", review=True)].review is None


async def test_reviews_take_minutes_to_hours() -> None:
    """By default, with a median of ten minutes."""
    sandbox = Sandbox(now=virtual_now)
    refs = [sandbox.submit("user-1", f"job-{number}", review=True) for number in range(301)]
    durations = sorted(review for review in (sandbox.jobs[ref].review for ref in refs) if review is not None)
    assert timedelta(minutes=8) < durations[150] < timedelta(minutes=12)
    assert durations[-1] > timedelta(hours=1)


async def test_what_the_partner_sent_comes_back(sandbox: Sandbox) -> None:
    """Under ``PartnerParams``; and further keys of the result are as they were given. Neither can lie about the job."""
    sandbox.submit(
        "user-1",
        "job-1",
        machine=0,
        partner_params={"optional_info": "anything", "deep": [1, {"a": None}], "job_id": "job-2"},
        details={"FullName": "Nobody", "ConfidenceValue": "12", "ResultCode": "0811", "PartnerParams": {}},
    )
    async with client_of(sandbox) as client:
        status = await client.job_status("user-1", "job-1")
    assert status.verdict is Verdict.APPROVED
    assert status.result is not None
    assert (status.result.full_name, status.result.confidence_value) == ("Nobody", 12)
    assert status.result.partner_params is not None
    assert status.result.partner_params.extra == {"optional_info": "anything", "deep": [1, {"a": None}]}


async def test_documents_have_more_pictures(sandbox: Sandbox) -> None:
    """The card, on both sides, beside the selfie."""
    sandbox.submit("user-1", "job-1", machine=0, job_type=6)
    async with client_of(sandbox) as client:
        status = await client.job_status("user-1", "job-1", image_links=True)
    assert status.image_links is not None
    assert set(status.image_links) == {"selfie_image", "id_card_image", "id_card_back"}


# --- Strictness, and the ways to ask


@pytest.mark.parametrize(
    ("timestamp", "code"),
    [
        ("2026-01-01T00:00:00.000Z", "2304"),
        ("2026-01-01T00:05:00.000Z", "2304"),
        ("2025-12-31T23:55:00.000+00:00", "2304"),
        (1767225600000, "2304"),
        ("2026-01-01T00:05:00.001Z", "2405"),
        ("2025-12-31T23:54:59Z", "2405"),
        ("2026-01-01T00:00:00", "2304"),
        ("2026-01-01T02:00:00", "2405"),
        ("now", "2405"),
    ],
)
async def test_a_stale_timestamp_is_refused_if_asked_for(timestamp: Any, code: str) -> None:
    """With ``max_skew`` the clock of the partner has to be right; without it, any timestamp will do."""
    request = asked(timestamp=timestamp, signature=sign(CREDENTIALS, str(timestamp)))
    strict = Sandbox(max_skew=timedelta(minutes=5), now=virtual_now)
    assert (await post(strict, json=request)).json()["code"] == code
    assert (await post(Sandbox(now=virtual_now), json=request)).json()["code"] == "2304"


async def test_the_request_of_the_vendors_python_client(sandbox: Sandbox) -> None:
    """Flags that are null, and a timestamp with microseconds and an offset."""
    sandbox.submit("1", "2", machine=0)
    timestamp = "2026-01-01T00:00:00.123456+00:00"
    body = {"partner_id": "085", "timestamp": timestamp, "signature": sign(CREDENTIALS, timestamp)}
    flags = {"image_links": None, "history": None}
    answer = (await post(sandbox, json={**body, **flags, "user_id": 1, "job_id": 2})).json()
    assert answer["job_complete"] is True
    assert not {"history", "image_links"} & answer.keys()


async def test_three_lines_are_enough() -> None:
    """A sandbox, its client, a wait; as the docstring shows it."""
    async with Sandbox(now=virtual_now) as sandbox, sandbox.client() as client:
        sandbox.submit("user-1", "job-1", review=3600)
        status = await client.wait("user-1", "job-1", until="final", timeout=7200)
    assert status.verdict is Verdict.APPROVED


async def test_the_client_may_be_set_up_otherwise(sandbox: Sandbox) -> None:
    """Its options are those of any client."""
    async with sandbox.client(attempts=1, rate=None) as client:
        with pytest.raises(smilejobs.JobNotFoundError):
            await client.job_status("user-1", "job-1")
    with pytest.raises(ValueError, match="attempts"):
        sandbox.client(attempts=0)


async def test_errors_come_out_of_the_block_as_they_are() -> None:
    """Bare, in no group; and the sandbox can be entered again."""
    sandbox = Sandbox(now=virtual_now)
    for _ in range(2):
        with pytest.raises(KeyError):
            async with sandbox:
                raise KeyError


async def test_a_block_that_is_cancelled_ends() -> None:
    """Nothing is left behind."""
    with anyio.move_on_after(1) as scope:
        async with Sandbox(now=virtual_now):
            await anyio.sleep_forever()
    assert scope.cancelled_caught
