"""Timers that may ring a little late, and cost little: an event loop's own cost as much as all else around a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

# How late they may ring.
TICK_SECONDS = 0.02


class Timers:
    """Looks at all its timers whenever one timer of the event loop rings; while there are none, that does not.

    They are of the event loop that runs when they are made.
    """

    def __init__(self) -> None:
        # Kept, for asking for it each time asks the kernel which process this is.
        self.loop = asyncio.get_running_loop()
        self.waiting: set[Timer] = set()
        self._tick: asyncio.TimerHandle | None = None

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Calls a function after so many seconds."""
        timer = Timer(self, callback)
        timer.start(seconds)
        return timer

    def limit(self, seconds: float) -> Limit:
        """What `asyncio.timeout` is, without `async`: raises TimeoutError where its body takes longer."""
        return Limit(self, seconds)

    def tick(self) -> None:
        """Looks again in a moment."""
        if self._tick is None:
            self._tick = self.loop.call_later(TICK_SECONDS, self._look)

    def _look(self) -> None:
        now = self.loop.time()
        due = [timer for timer in self.waiting if timer.when <= now]
        self.waiting.difference_update(due)
        self._tick = None
        if self.waiting:
            self.tick()
        for timer in due:
            try:
                timer.ring()
            except Exception as error:
                self.loop.call_exception_handler({"message": "a timer's callback failed", "exception": error})


class Timer:
    """A callback and its time, `when`, which is the event loop's."""

    __slots__ = ("_callback", "_timers", "when")

    def __init__(self, timers: Timers, callback: Callable[[], None]) -> None:
        self._timers = timers
        self._callback: Callable[[], None] | None = callback

    def start(self, seconds: float) -> None:
        """Rings after so many seconds."""
        timers = self._timers
        self.when = timers.loop.time() + seconds
        timers.waiting.add(self)
        timers.tick()

    def cancel(self) -> None:
        """Takes it back; once it has rung, nothing."""
        self._timers.waiting.discard(self)
        # Whoever waits holds the timer: without this, each would be the garbage collector's.
        self._callback = None

    def ring(self) -> None:
        """Calls, unless it was taken back while others rang."""
        if self._callback is not None:
            self._callback()


class Limit(Timer):
    """Cancels the task that has it once the time is up, and makes a TimeoutError of that."""

    __slots__ = ("_cancelled_before", "_passed", "_seconds", "_task")

    def __init__(self, timers: Timers, seconds: float) -> None:
        super().__init__(timers, self._pass)
        self._seconds, self._passed = seconds, False

    def __enter__(self) -> Self:
        task: asyncio.Task[Any] | None = asyncio.current_task(self._timers.loop)
        assert task is not None
        self._task, self._cancelled_before = task, task.cancelling()
        self.start(self._seconds)
        return self

    def _pass(self) -> None:
        self._passed = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        # Whoever else cancels the task must have their way.
        if self._passed and self._task.uncancel() <= self._cancelled_before and kind is asyncio.CancelledError:
            raise TimeoutError from error
