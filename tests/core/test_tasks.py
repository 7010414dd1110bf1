"""Tasks whose errors are raised as they are, in no exception group."""

import asyncio
import math

import anyio
import pytest

from smilejobs.tasks import beside, run_bare
from smilejobs.testing import virtual_clock

pytestmark = pytest.mark.anyio


async def after(delay: float, result: str) -> str:
    await anyio.sleep(delay)
    return result


async def fail_after(delay: float, error: BaseException) -> str:
    await anyio.sleep(delay)
    raise error


async def test_results_come_in_the_order_of_completion() -> None:
    """All works end before the results are returned."""
    assert await run_bare(lambda: after(2, "two"), lambda: after(1, "one")) == ["one", "two"]


async def test_background_tasks_run_until_the_works_have_ended() -> None:
    """They may also end before; their results are dropped."""
    began = anyio.current_time()
    results = await run_bare(
        lambda: after(3, "result"), background=[anyio.sleep_forever, lambda: after(1, "background")]
    )
    assert results == ["result"]
    assert anyio.current_time() - began == pytest.approx(3)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
async def test_the_first_error_cancels_the_rest(error: BaseException) -> None:
    """It is the very object that was raised; a later one is dropped."""
    began = anyio.current_time()
    with pytest.raises(type(error)) as caught:
        await run_bare(anyio.sleep_forever, lambda: fail_after(1, error), background=[lambda: fail_after(2, OSError())])
    assert caught.value is error
    assert anyio.current_time() - began == pytest.approx(1)


async def test_an_error_of_a_background_task_is_raised() -> None:
    """The works cannot go on without it."""
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine"):
        await run_bare(anyio.sleep_forever, background=[lambda: fail_after(1, error)])


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
async def test_a_result_counts_although_a_background_task_has_failed(error: BaseException) -> None:
    """A work that returns a result when it is cancelled keeps it; an interrupt is raised in any case."""

    async def work() -> str:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return "result"
        pytest.fail("not cancelled")

    running = run_bare(work, background=[lambda: fail_after(1, error)])
    if isinstance(error, Exception):
        assert await running == ["result"]
    else:
        with pytest.raises(KeyboardInterrupt):
            await running


async def test_an_exception_group_of_the_work_stays_one() -> None:
    """Only the group that is around the tasks is left out."""
    with pytest.raises(ExceptionGroup, match="mine"):
        await run_bare(lambda: fail_after(1, ExceptionGroup("mine", [ValueError()])))


@pytest.mark.parametrize("anyio_backend", [virtual_clock("asyncio")])
async def test_a_task_that_is_cancelled_by_itself_is_an_error(anyio_backend: object) -> None:
    """A task group would take it for an end like any other."""

    async def work() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    with pytest.raises(RuntimeError, match="cancelled by itself"):
        await run_bare(work)
    with pytest.raises(RuntimeError, match="cancelled by itself"):
        await run_bare(anyio.sleep_forever, background=[work])


async def test_it_can_be_cancelled() -> None:
    """From outside, which is no error."""
    with anyio.move_on_after(5) as scope:
        await run_bare(anyio.sleep_forever, background=[anyio.sleep_forever])
    assert scope.cancelled_caught


async def test_work_beside_a_block_ends_with_it() -> None:
    """By the function that ends it; the error of the block is raised as it is."""
    scope = anyio.CancelScope()
    ended = []

    async def work() -> None:
        with scope:
            await anyio.sleep(math.inf)
        ended.append(anyio.current_time())

    async def block() -> None:
        async with beside(work, scope.cancel):
            await anyio.sleep(2)
            raise ValueError("mine")

    began = anyio.current_time()
    with pytest.raises(ValueError, match="mine"):
        await block()
    assert ended == [pytest.approx(began + 2)]
