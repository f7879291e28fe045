"""Limits on time that ring a little late: what they cancel, and what they leave alone."""

from __future__ import annotations

import asyncio

import pytest

from rpc.timers import Timers


async def test_a_body_that_takes_longer_ends_with_a_timeout() -> None:
    """What is still at work when its time is up is cancelled, and the task goes on as if nobody had cancelled it."""
    timers = Timers()
    with pytest.raises(TimeoutError), timers.limit(0.01):
        await asyncio.sleep(60)
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    assert not timers.waiting


async def test_of_two_limits_the_one_that_passed_is_told() -> None:
    """An outer limit goes through an inner one, and an inner one's end leaves the outer one alone."""
    timers = Timers()
    with pytest.raises(TimeoutError), timers.limit(0.01), timers.limit(60):
        try:
            with timers.limit(60):
                await asyncio.sleep(60)
        except TimeoutError:
            pytest.fail("the inner limit had not passed")
    with timers.limit(60):
        with pytest.raises(TimeoutError), timers.limit(0.01):
            await asyncio.sleep(60)
        await asyncio.sleep(0)
    assert not timers.waiting


async def test_who_cancels_the_task_has_their_way() -> None:
    """A task that is cancelled in the moment in which its limit passes is cancelled."""
    timers = Timers()

    async def work() -> None:
        with timers.limit(0.01):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    timers.call_later(0.01, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timer_that_another_takes_back_does_not_ring() -> None:
    """Of two timers that are due at once, the first may take back the second; later ones ring all the same."""
    timers, rung = Timers(), asyncio.Event()
    loop = asyncio.get_running_loop()
    begun, times = loop.time(), []

    def take_both_back() -> None:
        times.append(loop.time() - begun)
        for timer in both:
            timer.cancel()

    both = [timers.call_later(0.03, take_both_back), timers.call_later(0.03, take_both_back)]
    timers.call_later(0.06, rung.set)
    async with asyncio.timeout(10):
        await rung.wait()
    assert len(times) == 1
    assert times[0] >= 0.03
    assert not timers.waiting


async def test_a_timer_that_fails_stops_no_other() -> None:
    """A callback's exception is the event loop's to tell; later timers ring all the same."""
    timers, rung, told = Timers(), asyncio.Event(), list[str]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))
    timers.call_later(0.01, lambda: [][0])
    timers.call_later(0.06, rung.set)
    try:
        async with asyncio.timeout(10):
            await rung.wait()
    finally:
        loop.set_exception_handler(None)
    assert told == ["list index out of range"]
