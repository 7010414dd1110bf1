"""The throttle of a scheduler: pure, with instants of its own."""

import itertools
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, strategies

from smilejobs.errors import (
    ApiError,
    BadResponseError,
    JobNotFoundError,
    RateLimitedError,
    RequestError,
    ServerError,
    SmileJobsError,
    WrongJobError,
)
from smilejobs.model.jobs import JobStatus
from smilejobs.polling.rules import CLOCK_TOLERANCE_SECONDS
from smilejobs.polling.throttle import Throttle

GOOD = JobStatus(user_id="user-1", job_id="job-1")
LIMITED = RateLimitedError("429", http_status=429)
UNAVAILABLE = ServerError("503", http_status=503)
HTML_503 = BadResponseError("HTML", http_status=503)
BROKEN = RequestError("no answer")
TROUBLE = ServerError("500", http_status=500)


def run(throttle: Throttle, *observations: JobStatus | SmileJobsError, now: float = 0.0, every: float = 0.01) -> float:
    """Poll one after another, as soon as the throttle allows; return the instant of the end of the last."""
    for observation in observations:
        now = max(now, throttle.ready_at())
        throttle.begin(now)
        throttle.end(observation, began=now, now=now + every)
        now += every
    return now


def test_without_failures_nothing_is_held_back() -> None:
    """A poll may begin at any instant."""
    throttle = Throttle()
    now = run(throttle, *[GOOD] * 1000)
    assert throttle.ready_at() <= now
    assert not throttle.is_on(now)
    assert throttle.speed(now) == pytest.approx(100, rel=0.05)
    assert throttle.speed(now + 1) == pytest.approx(100 / math.e, rel=0.05)


@pytest.mark.parametrize("observation", [LIMITED, UNAVAILABLE, HTML_503])
def test_429_and_503_throttle_at_once(observation: SmileJobsError) -> None:
    """The speed is halved, or set to what worked if that is more, after a pause."""
    throttle = Throttle()
    now = run(throttle, *[GOOD] * 100, *[observation])
    assert throttle.is_on(now)
    assert throttle.ready_at() - now == pytest.approx(0.25)
    now = run(throttle, GOOD, now=now)
    assert 1 / (throttle.ready_at() - (now - 0.01)) == pytest.approx(0.9 * 100, rel=0.1)


def steady(*, answered: int = 1, begun: int = 1, seconds: int = 20) -> tuple[Throttle, float]:
    """Return a throttle after 100 polls per second of which some are not answered yet, and the instant."""
    throttle = Throttle()
    for number in range(100 * seconds):
        throttle.begin(number / 100)
        if number % begun < answered:
            throttle.end(GOOD, began=number / 100, now=number / 100)
    return throttle, seconds - 0.01


@pytest.mark.parametrize(
    ("answered", "begun", "share"), [(1, 1, 0.9), (9, 10, 0.81), (4, 5, 0.72), (2, 3, 0.6), (1, 2, 0.5), (1, 4, 0.5)]
)
def test_the_curve_of_the_limit(answered: int, begun: int, share: float) -> None:
    """It begins at nine tenths of what worked, not below half, and is back where it was throttled on the third root."""
    throttle, now = steady(answered=answered, begun=begun)
    assert throttle.limit(now) == math.inf
    throttle.end(LIMITED, began=now, now=now)
    resumed = throttle.ready_at()
    assert resumed == pytest.approx(now + 0.25)
    back = resumed + 10 * math.cbrt(1 - share)
    for at, times in [(resumed - 0.1, share), (resumed, share), (back, 1.0), (back + 5, 1.125), (back + 10, 2.0)]:
        assert throttle.limit(at) == pytest.approx(100 * times, rel=0.03)
    assert throttle.is_on(back + 9.5)
    assert not throttle.is_on(back + 10.5)


def test_a_limit_spaces_polls_evenly() -> None:
    """A timer that is a few milliseconds late loses nothing; a pause of the batch is not made up for."""
    throttle, now = steady()
    throttle.end(LIMITED, began=now, now=now)
    at = throttle.ready_at()
    throttle.begin(at)
    first = throttle.ready_at()
    assert first - at == pytest.approx(1 / 90, rel=0.05)
    throttle.begin(first + 0.009)
    assert throttle.ready_at() - first == pytest.approx(1 / 90, rel=0.05)
    throttle.begin(late := throttle.ready_at() + 0.5)
    assert throttle.ready_at() - late == pytest.approx(1 / throttle.limit(late))


def test_where_nothing_works_single_polls_try_the_api_and_the_speed_doubles_then() -> None:
    """One poll per second until one is answered well; then half of the speed before, and twice as much each second."""
    throttle, now = steady()
    for number in range(300):
        throttle.begin(now + number / 100)
    assert any(throttle.end(BROKEN, began=now, now=now + 3) for _ in range(20))
    resumed = throttle.ready_at()
    assert [throttle.limit(resumed + more) for more in (0, 10, 1000)] == [1.0, 1.0, 1.0]
    throttle.end(GOOD, began=resumed - 0.5, now=resumed + 3)  # it began before
    assert throttle.limit(resumed + 3) == 1.0
    throttle.begin(resumed)
    throttle.end(GOOD, began=resumed, now=resumed + 4)
    limits = [throttle.limit(resumed + 4 + more) for more in (0, 1, 2, 3)]
    assert limits == pytest.approx([50, 100, 200, 400], rel=0.05)
    assert throttle.is_on(resumed + 4 + 1.9)
    assert not throttle.is_on(resumed + 4 + 2.1)
    assert limits[-1] < throttle.limit(resumed + 1e6) < math.inf


def test_a_probe_counts_if_its_timer_was_early_by_a_rounding_error() -> None:
    """A scheduler begins a poll that is due within the tolerance; no second one is needed to end the probing."""
    throttle, now = steady(answered=1, begun=100)
    throttle.end(LIMITED, began=now, now=now)
    early = throttle.ready_at() - CLOCK_TOLERANCE_SECONDS / 2
    throttle.begin(early)
    throttle.end(GOOD, began=early, now=early + 1)
    assert throttle.limit(early + 1) == pytest.approx(50, rel=0.05)


@pytest.mark.parametrize(("observation", "is_probing"), [(BROKEN, True), (LIMITED, False)])
def test_losses_after_which_nothing_works_are_probed_at_once(observation: SmileJobsError, is_probing: bool) -> None:
    """Nothing was answered well since it was throttled before; a refusal is an answer, and lowers the speed again."""
    throttle, now = steady()
    throttle.end(LIMITED, began=now, now=now)
    at = throttle.ready_at()
    for _ in range(20):
        throttle.begin(at)
    assert any(throttle.end(observation, began=at, now=at + 0.1) for _ in range(20))
    assert (throttle.limit(throttle.ready_at()) == 1.0) is is_probing


def test_the_speed_of_few_polls_is_not_underestimated() -> None:
    """After a tenth of a second it is that of this tenth."""
    throttle = Throttle()
    assert throttle.speed(0.0) == 0.0
    for number in range(11):
        throttle.begin(7.0 + number / 100)
    assert throttle.speed(7.1) == pytest.approx(105, rel=0.06)
    assert Throttle().speed(5.0) == 0.0


REFUSED_AT_RANDOM: list[JobStatus | SmileJobsError] = [LIMITED, GOOD, GOOD, GOOD]
TRACE: tuple[Sequence[JobStatus | SmileJobsError], ...] = (
    *([GOOD] * 30, [LIMITED], [GOOD] * 40, [BROKEN] * 9, [GOOD] * 5, [UNAVAILABLE], [TROUBLE] * 12, [GOOD] * 200),
    *(REFUSED_AT_RANDOM * 60, [GOOD] * 300, [BROKEN] * 30, [GOOD] * 50),
)


@pytest.mark.parametrize("shift", [1e3, 1e5])
def test_the_origin_of_the_clock_does_not_matter(shift: float) -> None:
    """Decisions and instants are the same for a clock that shows another time."""
    one, other = Throttle(), Throttle()
    now = 0.0
    for observation in itertools.chain(*TRACE):
        now = max(now + 0.01, one.ready_at() + 1e-6)  # not at the edge, where rounding decides
        one.begin(now)
        other.begin(now + shift)
        throttles = one.end(observation, began=now, now=now + 0.02)
        assert other.end(observation, began=now + shift, now=now + shift + 0.02) is throttles
        now += 0.02
        assert other.ready_at() - shift == pytest.approx(one.ready_at(), abs=1e-3)
        assert other.speed(now + shift) == pytest.approx(one.speed(now), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("observation", [BROKEN, TROUBLE])
def test_other_trouble_throttles_when_there_is_much(observation: SmileJobsError) -> None:
    """One poll in ten is an accident, and so are two in a row; seven in a row are not."""
    throttle = Throttle()
    now = run(throttle, *([GOOD] * 9 + [observation]) * 20, observation)
    assert not throttle.is_on(now)
    now = run(throttle, *[observation] * 7, now=now)
    assert throttle.is_on(now)


@pytest.mark.parametrize(
    "observation",
    [
        JobNotFoundError("2304", http_status=400),
        ApiError("2222", http_status=429),
        WrongJobError("another job"),
        JobStatus(user_id="user-1", job_id="job-1", retry_after=60.0),
    ],
)
def test_what_says_nothing_about_the_load_does_not_throttle(observation: JobStatus | SmileJobsError) -> None:
    """An answer about one job, also one that says when to ask about that job again."""
    throttle = Throttle()
    now = run(throttle, *[observation] * 100)
    assert not throttle.is_on(now)
    assert throttle.ready_at() <= now


def test_retry_after_holds_everything_back() -> None:
    """Until it has passed, at most for max_hint; also that of a poll which began before the throttle."""
    throttle = Throttle(max_hint=300)
    throttle.begin(0)
    throttle.begin(0)
    throttle.end(RateLimitedError("429", http_status=429, retry_after=10), began=0, now=1)
    assert throttle.ready_at() == pytest.approx(11)
    throttle.end(RateLimitedError("429", http_status=429, retry_after=20), began=0, now=2)
    assert throttle.ready_at() == pytest.approx(22)
    run(throttle, RateLimitedError("429", http_status=429, retry_after=1e9), now=22)
    assert throttle.ready_at() == pytest.approx(322, abs=1)


def test_polls_that_began_before_the_throttle_do_not_throttle_again() -> None:
    """A hundred polls under way are one reason to throttle, not a hundred."""
    one, many = Throttle(), Throttle()
    for throttle, count in ((one, 1), (many, 100)):
        for _ in range(100):
            throttle.begin(0)
        for _ in range(count):
            throttle.end(LIMITED, began=0, now=0.5)
    for throttle in (one, many):
        throttle.begin(1)
    assert one.ready_at() == many.ready_at()


def test_an_outage_makes_the_pauses_longer() -> None:
    """Up to 30 s; the first good answer ends that."""
    throttle = Throttle()
    pauses = []
    now = run(throttle, *[GOOD] * 1000)
    for _ in range(20):
        now = run(throttle, LIMITED, now=now)
        pauses.append(throttle.ready_at() - now)
    assert pauses[:4] == pytest.approx([0.25, 0.5, 1, 2])
    assert pauses[-1] == pytest.approx(30)
    now = run(throttle, *[GOOD] * 100, LIMITED, now=now)
    assert throttle.ready_at() - now < 1


def test_it_is_never_slower_than_a_poll_per_second() -> None:
    """Or it would not learn that the API is well again."""
    throttle = Throttle()
    now = run(throttle, *[LIMITED] * 50)
    now = run(throttle, GOOD, now=now)
    assert throttle.ready_at() - now <= 1


@pytest.mark.parametrize("burst", [1.0, 20.0, 200.0])
@pytest.mark.parametrize("retry_after", [None, 1.0])
@pytest.mark.parametrize("latency", [0.003, 0.5])
def test_it_finds_the_limit_of_an_api(burst: float, retry_after: float | None, latency: float) -> None:
    """200 polls per second, by a token bucket: nearly all of it is used, and few polls are refused."""
    throttle = Throttle()
    limited = RateLimitedError("429", http_status=429, retry_after=retry_after)
    under_way: list[tuple[float, float, JobStatus | SmileJobsError]] = []
    tokens, at, now, good, late_good, late_refused = burst, 0.0, 0.0, 0, 0, 0
    while now < 60:
        ready = throttle.ready_at() if len(under_way) < 100 else math.inf
        if under_way and under_way[0][0] <= max(now, ready):
            now, began, observation = under_way.pop(0)
            throttle.end(observation, began=began, now=now)
            continue
        now = max(now, ready)
        throttle.begin(now)
        tokens, at = min(burst, tokens + (now - at) * 200), now
        ok = tokens >= 1
        tokens -= ok
        good += ok
        if now > 4:
            late_good, late_refused = late_good + ok, late_refused + (not ok)
        under_way.append((now + latency, now, GOOD if ok else limited))
    assert late_refused / (late_good + late_refused) < 0.02
    assert good > 60 * 200 / (1.6 if burst == 1 else 1.45)  # a bucket for one poll forgives nothing


def test_an_api_that_hangs_is_not_hammered() -> None:
    """Until a poll is answered well there is one a second at most, though none has failed yet since the pause."""
    throttle = Throttle()
    now = run(throttle, *[GOOD] * 200)
    for _ in range(100):
        throttle.begin(now)
    for _ in range(100):
        throttle.end(BROKEN, began=now, now=now + 30)
    now = throttle.ready_at()
    begun = 0
    while now < 100:
        begun += 1
        throttle.begin(now)
        now = max(now + 1e-3, throttle.ready_at())
    assert begun <= 70


Answer = Callable[[float], JobStatus | SmileJobsError]
"""What an API answers to a poll that begins at an instant."""


def simulate(answer: Answer, seconds: float, *, throttle: Throttle | None = None, begin: float = 0.0) -> Counter[str]:
    """Poll up to 100 times per second, with answers after 20 ms; count what came, per second."""
    throttle = throttle or Throttle()
    under_way: deque[tuple[float, float, JobStatus | SmileJobsError]] = deque()
    counts: Counter[str] = Counter()
    now = planned = begin
    while now < begin + seconds:
        ready = max(throttle.ready_at(), planned)
        if under_way and under_way[0][0] <= ready:
            now, began, observation = under_way.popleft()
            counts["throttled"] += throttle.end(observation, began=began, now=now)
            counts["good" if observation is GOOD else "bad"] += 1
            continue
        now = max(now, ready)
        planned = max(now, planned) + 0.01
        throttle.begin(now)
        under_way.append((now + 0.02, now, answer(now)))
    return Counter({name: round(count / seconds, 2) for name, count in counts.items()})


def losing(share: float, seed: int, observation: SmileJobsError = BROKEN) -> Answer:
    """Return an API that loses so many polls at random."""
    draw = random.Random(seed)
    return lambda now: observation if draw.random() < share else GOOD


def allowing(per_second: float, burst: float, retry_after: float | None = None) -> Answer:
    """Return an API that refuses what is more, by a token bucket."""
    tokens, at = burst, 0.0

    def answer(now: float) -> JobStatus | SmileJobsError:
        nonlocal tokens, at
        tokens, at = min(burst, tokens + (now - at) * per_second), now
        if tokens < 1:
            return RateLimitedError("429", http_status=429, retry_after=retry_after)
        tokens -= 1
        return GOOD

    return answer


def collapsing(above: float, below: float) -> Answer:
    """Return an API of which nothing comes back above a speed, until the speed is below the other one."""
    speed, at, is_down = 0.0, 0.0, False

    def answer(now: float) -> JobStatus | SmileJobsError:
        nonlocal speed, at, is_down
        speed, at = speed * math.exp(at - now) + 1, now
        is_down = speed > below if is_down else speed > above
        return BROKEN if is_down else GOOD

    return answer


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("share", "least"), [(0.05, 90), (0.1, 80), (0.2, 50), (0.4, 15)])
def test_random_loss_is_no_overload(share: float, least: float, seed: int) -> None:
    """Slowing down does not lower the share of losses, so the speed is kept."""
    counts = simulate(losing(share, seed), 60)
    assert counts["good"] + counts["bad"] >= least


@pytest.mark.parametrize("burst", [1, 10, 40])
@pytest.mark.parametrize("retry_after", [None, 1.0])
def test_an_api_with_a_limit_is_used_and_not_annoyed(burst: float, retry_after: float | None) -> None:
    """40 polls per second are allowed: at most a tenth is refused, and 28 or more are answered well."""
    counts = simulate(allowing(40, burst, retry_after), 90)
    assert counts["bad"] <= 0.1 * (counts["good"] + counts["bad"])
    assert counts["good"] >= 28


@pytest.mark.parametrize(("above", "below", "least"), [(60, 60, 45), (60, 20, 20)])
def test_a_server_that_collapses_is_relieved(above: float, below: float, least: float) -> None:
    """Few polls meet the collapsed server, and what it can do is used."""
    counts = simulate(collapsing(above, below), 60)
    assert counts["bad"] <= 5
    assert counts["good"] >= least


def test_a_server_that_recovers_is_used_again() -> None:
    """After an outage of five minutes the whole speed is back within seconds of the first good answer."""
    throttle = Throttle()
    simulate(lambda now: GOOD, 10, throttle=throttle)
    assert simulate(lambda now: BROKEN, 300, throttle=throttle, begin=10)["bad"] < 0.2
    simulate(lambda now: GOOD, 40, throttle=throttle, begin=310)
    assert simulate(lambda now: GOOD, 10, throttle=throttle, begin=350)["good"] > 95


def test_refusals_at_random_are_no_overload() -> None:
    """A tenth is refused at any speed, with a Retry-After: once that is known, only the job itself waits."""
    observation = RateLimitedError("429", http_status=429, retry_after=2.0)
    throttle = Throttle()
    answer = losing(0.1, 1, observation)
    first = simulate(answer, 30, throttle=throttle)
    assert 3 <= first["throttled"] * 30 <= 15
    later = simulate(answer, 60, throttle=throttle, begin=30)
    assert later["good"] + later["bad"] > 95
    assert later["throttled"] == 0


def test_a_judgement_that_turns_out_wrong_is_taken_back() -> None:
    """An API that first refuses at random and then for good reasons is spared as any other."""
    throttle = Throttle()
    observation = RateLimitedError("429", http_status=429, retry_after=2.0)
    simulate(losing(0.1, 1, observation), 60, throttle=throttle)
    limit = allowing(5, 1)
    counts = simulate(limit, 120, throttle=throttle, begin=60)
    assert counts["bad"] <= 1
    assert counts["good"] >= 3


def test_each_judgement_that_is_taken_back_doubles_the_evidence_for_the_next() -> None:
    """A fifth is refused, now and then all polls are: 6, then 12 refusals at a lower speed are evidence."""
    throttle = Throttle()
    now = 0.0

    def throttles(observation: JobStatus | SmileJobsError) -> bool:
        nonlocal now
        began = max(now, throttle.ready_at())
        now = began + 0.01
        throttle.begin(began)
        return throttle.end(observation, began=began, now=now)

    def refusal_after_good_answers() -> bool:
        for _ in range(4):
            assert not throttles(GOOD)
        return throttles(LIMITED)

    refusals = []
    for _ in range(3):
        refusals.append(next(count for count in itertools.count() if not refusal_after_good_answers()))
        assert not any(refusal_after_good_answers() for _ in range(20))
        assert any(throttles(LIMITED) for _ in range(20))
    assert refusals[1:] == [6 + 1, 12 + 1]  # the last one shows that nothing has changed


@pytest.mark.parametrize(("good", "throttles"), [(2, False), (1, True)])
def test_trouble_of_at_most_six_in_ten_is_usual(good: int, throttles: bool) -> None:
    """Three of five polls at a clearly lower speed are refused: that is usual; three of four are too many."""
    throttle = Throttle()
    now = run(throttle, *[GOOD] * 100, *[LIMITED] * 4, *[GOOD] * good, LIMITED)  # the first three are too fast
    began = throttle.ready_at()
    assert throttle.limit(began) < 60
    assert throttle.end(LIMITED, began=began, now=now + 1) is throttles


def test_refusals_of_polls_that_began_before_are_no_evidence() -> None:
    """Of the polls at the lower speed only the last one is refused, whatever comes of those that were under way."""
    throttle, now = steady(answered=1, begun=2)
    assert throttle.end(LIMITED, began=now, now=now)
    for _ in range(5):
        assert not throttle.end(LIMITED, began=now - 0.5, now=now)
    now = run(throttle, *[GOOD] * 6, now=now)
    began = throttle.ready_at()
    throttle.begin(began)
    assert throttle.end(LIMITED, began=began, now=now + 1)


def test_the_usual_share_is_that_of_the_last_polls() -> None:
    """Where a fifth of 500 polls was lost, and no fewer at a lower speed, about eleven losses in a row are unusual."""
    throttle = Throttle()
    fifth: list[JobStatus | SmileJobsError] = [*[GOOD] * 4, BROKEN]
    most: list[JobStatus | SmileJobsError] = [*[BROKEN] * 7, *[GOOD] * 9]
    now = run(throttle, *fifth * 100)
    was_limited = False
    for observation in most * 20:
        now = run(throttle, observation, now=now)
        is_limited = throttle.limit(now) < math.inf
        if was_limited and not is_limited:
            break
        was_limited = is_limited
    losses = 0
    while not throttle.is_on(now) and losses < 50:
        now = run(throttle, BROKEN, now=now)
        losses += 1
    assert losses == pytest.approx(11, abs=1)


def test_it_is_on_until_polls_may_begin_twice_as_often_as_when_it_was_throttled() -> None:
    """A hundred polls per second were refused; ten seconds after that speed is reached again, it is over."""
    throttle = Throttle()
    now = run(throttle, *[GOOD] * 300, LIMITED)
    over = next(at for at in (now + tenth / 10 for tenth in range(1000)) if not throttle.is_on(at))
    assert throttle.limit(over) == pytest.approx(200, rel=0.05)
    assert throttle.limit(over - 10) == pytest.approx(100, rel=0.01)


def test_what_is_usual_is_forgotten() -> None:
    """After a long calm, one refusal throttles at once again."""
    throttle = Throttle()
    simulate(losing(0.1, 1, LIMITED), 60, throttle=throttle)
    assert not throttle.end(LIMITED, began=60, now=60)
    simulate(lambda now: GOOD, 60, throttle=throttle, begin=60)
    assert throttle.end(LIMITED, began=120, now=120)


def test_an_api_that_fails_mostly_is_spared() -> None:
    """Where four of five polls fail whatever the speed, it stays low."""
    counts = simulate(losing(0.8, 1), 60)
    assert counts["good"] + counts["bad"] < 30


def test_one_connection_that_breaks_never_throttles() -> None:
    """Neither the first poll of all nor one after many good ones."""
    assert not Throttle().end(BROKEN, began=0, now=1)
    throttle = Throttle()
    simulate(lambda now: GOOD, 10, throttle=throttle)
    assert not throttle.end(BROKEN, began=10, now=10)
    assert throttle.ready_at() <= 10


def test_the_speed_shown_while_stopped_falls() -> None:
    """No polls begin during a Retry-After, so the polls per second go to zero."""
    throttle = Throttle()
    now = run(throttle, *[GOOD] * 200, RateLimitedError("429", http_status=429, retry_after=30))
    assert throttle.stopped_for(now) == pytest.approx(30)
    assert throttle.speed(now) == pytest.approx(100, rel=0.1)
    assert throttle.speed(now + 10) < 0.1
    assert throttle.stopped_for(now + 31) == 0


@given(
    steps=strategies.lists(
        strategies.tuples(
            strategies.sampled_from([GOOD, LIMITED, BROKEN, TROUBLE, UNAVAILABLE]),
            strategies.floats(0, 100, allow_subnormal=False),
            strategies.floats(0, 30, allow_subnormal=False),
        ),
        max_size=100,
    )
)
def test_it_always_lets_go(steps: list[tuple[JobStatus | SmileJobsError, float, float]]) -> None:
    """Whatever has happened, the next poll may begin within half a minute, or a second if all is well."""
    throttle = Throttle()
    now = 0.0
    for observation, idle, latency in steps:
        now = max(now + idle, throttle.ready_at())
        throttle.begin(now)
        now += latency
        throttle.end(observation, began=now - latency, now=now)
        assert throttle.ready_at() <= now + 30
        assert throttle.speed(now) >= 0
        if observation is GOOD and latency >= 1:
            assert throttle.ready_at() <= now + 1
