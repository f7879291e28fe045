"""Background tasks: they repeat, survive failures, and log the first of a row."""

from __future__ import annotations

import asyncio

import pytest
import structlog.testing

from rpc.process.background import repeat


async def test_a_failing_pass_is_logged_once_in_a_row_and_repeated() -> None:
    """Work goes on after errors and passes that take too long; a success in between makes the next failure news."""
    outcomes = ["error", "error", "late", "well", "error", "stop"]
    done: list[str] = []

    async def work() -> float:
        done.append(outcome := outcomes[len(done)])
        match outcome:
            case "error":
                raise ValueError("no")
            case "late":
                await asyncio.sleep(60)
            case "stop":
                raise asyncio.CancelledError
        return 0

    with structlog.testing.capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10):
            await repeat("sweep", work, every_seconds=0.001, timeout_seconds=0.05)
    assert done == outcomes
    assert [(line["event"], line["error"]) for line in lines] == [("sweep", "ValueError: no")] * 2


async def test_work_that_is_not_urgent_begins_after_a_random_part_of_its_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Servers that start together do not do it all at once; urgent work begins at once."""
    pauses: list[tuple[float, float]] = []
    monkeypatch.setattr("rpc.process.background.random.uniform", lambda *limits: pauses.append(limits) or 0.0)

    async def work() -> None:
        raise asyncio.CancelledError

    for is_urgent in (True, False):
        with pytest.raises(asyncio.CancelledError):
            await repeat("sweep", work, every_seconds=60, timeout_seconds=1, is_urgent=is_urgent)
    assert pauses == [(0, 60)]
