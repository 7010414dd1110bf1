"""Tasks whose errors are raised as they are, in no exception group."""

import asyncio
import gc
import math

import anyio
import pytest

from smilejobs.tasks import beside, run_apart, run_bare
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


@pytest.mark.parametrize("anyio_backend", [virtual_clock("asyncio")])
class TestApart:
    """Work in a task of asyncio of its own."""

    async def test_its_result_is_returned(self, anyio_backend: object) -> None:
        """As if it had been awaited."""
        assert await run_apart(after(1, "result"), anyio.CancelScope()) == "result"

    @pytest.mark.parametrize("error", [ValueError("mine"), ExceptionGroup("mine", [ValueError()])])
    async def test_its_error_is_raised(self, anyio_backend: object, error: Exception) -> None:
        """It is the very object that was raised."""
        with pytest.raises(type(error)) as caught:
            await run_apart(fail_after(1, error), anyio.CancelScope())
        assert caught.value is error

    async def test_a_cancellation_of_its_own_is_an_error(self, anyio_backend: object) -> None:
        """It is not taken for one of the caller's."""

        async def work() -> None:
            raise asyncio.CancelledError

        with pytest.raises(RuntimeError, match="cancelled by itself"):
            await run_apart(work(), anyio.CancelScope())

    @pytest.mark.parametrize("end", ["result", "error", "cancellation"])
    async def test_a_cancellation_by_asyncio_becomes_one_of_a_scope(self, anyio_backend: object, end: str) -> None:
        """Shields hold it back, and a second one too; whatever the work ends with then, nothing is logged."""
        problems: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        scope = anyio.CancelScope()
        ended = []

        async def work() -> None:
            with scope:
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(3)
                    ended.append(anyio.current_time())
            if end == "error":
                raise ValueError("mine")
            if end == "cancellation":
                raise asyncio.CancelledError

        began = anyio.current_time()
        task = asyncio.create_task(run_apart(work(), scope))
        for _ in range(2):
            await anyio.sleep(1)
            task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert ended == [pytest.approx(began + 4)]
        del task
        gc.collect()
        assert not problems

    async def test_it_can_be_cancelled_before_it_begins(self, anyio_backend: object) -> None:
        """Its first await raises then."""
        scope, inner = anyio.CancelScope(), anyio.CancelScope()

        async def work() -> None:
            with inner:
                await anyio.sleep_forever()

        with scope:
            scope.cancel()
            await run_apart(work(), inner)
        assert (scope.cancelled_caught, inner.cancelled_caught) == (True, True)


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
