"""Timers that may ring a little late, and cost little: an event loop's own cost as much as all else around a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

# How late they may ring.
TICK_SECONDS = 0.02


class Timer:
    """A callback and its time, `when`, which is the event loop's; None: taken back."""

    __slots__ = ("_timers", "callback", "when")

    def __init__(self, timers: Timers, when: float, callback: Callable[[], None]) -> None:
        self._timers, self.when = timers, when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Takes it back; once it has rung, nothing."""
        self._timers.waiting.discard(self)
        # Whoever waits holds the timer: without this, each would be the garbage collector's.
        self.callback = None


class Timers:
    """Looks at all its timers whenever one timer of the event loop rings; while there are none, that does not."""

    def __init__(self) -> None:
        self.waiting: set[Timer] = set()
        self._tick: asyncio.TimerHandle | None = None

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Calls a function after so many seconds, on the running event loop."""
        loop = asyncio.get_running_loop()
        timer = Timer(self, loop.time() + seconds, callback)
        self.waiting.add(timer)
        if self._tick is None:
            self._tick = loop.call_later(TICK_SECONDS, self._look, loop)
        return timer

    def limit(self, seconds: float) -> Limit:
        """What `asyncio.timeout` is, without `async`: raises TimeoutError where its body takes longer."""
        return Limit(self, seconds)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        due = [timer for timer in self.waiting if timer.when <= now]
        self.waiting.difference_update(due)
        self._tick = loop.call_later(TICK_SECONDS, self._look, loop) if self.waiting else None
        for timer in due:
            if timer.callback is not None:
                try:
                    timer.callback()
                except Exception as error:
                    loop.call_exception_handler({"message": "a timer's callback failed", "exception": error})


class Limit:
    """Cancels the task that has it once the time is up, and makes a TimeoutError of that."""

    __slots__ = ("_cancelled_before", "_passed", "_seconds", "_task", "_timer", "_timers")

    def __init__(self, timers: Timers, seconds: float) -> None:
        self._timers, self._seconds, self._passed = timers, seconds, False

    def __enter__(self) -> Self:
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        assert self._task is not None
        self._cancelled_before = self._task.cancelling()
        self._timer = self._timers.call_later(self._seconds, self._pass)
        return self

    @property
    def when(self) -> float:
        """The end, in the event loop's time."""
        return self._timer.when

    def _pass(self) -> None:
        assert self._task is not None
        self._passed = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._passed:
            assert self._task is not None
            # Whoever else cancels the task must have their way.
            if self._task.uncancel() <= self._cancelled_before and kind is asyncio.CancelledError:
                raise TimeoutError from error
