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
