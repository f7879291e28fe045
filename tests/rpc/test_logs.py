"""Log lines: gathered, in order, and none lost to another."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rpc.identity.api_keys import new_key

PROGRAM = """
import asyncio, logging, structlog
from rpc.process.logs import setup_logs
setup_logs("info", "json")
log = structlog.get_logger()
async def main():
    log.info("first", number=1)
    log.info("unsayable", text="\\ud800")
    logging.getLogger("library").warning("of a library")
    log.debug("too little")
    try:
        {}["nothing"]
    except KeyError:
        log.exception("failed")
    log.info("last")
asyncio.run(main())
"""


def test_lines_are_kept_whatever_is_in_them() -> None:
    """What cannot be made a line is told as well as can be; the lines gathered with it are whole, in order and all there."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    first, unsayable, library, failed, last = ran.stderr.splitlines()
    assert "unsayable" in unsayable
    body = [json.loads(line) for line in (first, library, failed, last)]
    assert [each["event"] for each in body] == ["first", "of a library", "failed", "last"]
    assert [each["level"] for each in body] == ["info", "warning", "error", "info"]
    assert "KeyError: 'nothing'" in body[2]["exception"]
    assert [each["timestamp"] for each in body] == sorted(each["timestamp"] for each in body)


WITH_KEYS = """
import asyncio, logging, structlog, sys
from rpc.process.logs import setup_logs
setup_logs("info", sys.argv[1])
log, key = structlog.get_logger(), sys.argv[2]
async def main():
    log.info("http", path=f"/api/jobs/{key}")
    logging.getLogger("library").warning("GET /api/jobs?key=%s%s", key, key)
    try:
        raise ValueError(f"Bearer {key}")
    except ValueError:
        log.exception("failed")
asyncio.run(main())
"""


@pytest.mark.parametrize("log_format", ["json", "pretty"])
def test_no_line_has_an_api_key(log_format: str) -> None:
    """A key in a path, in a line of a library or in an exception is redacted; the rest of the line stays."""
    key = new_key()
    command = [sys.executable, "-c", WITH_KEYS, log_format, key]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stderr.count("pk_[redacted]") == 4
    assert "/api/jobs/pk_[redacted]" in ran.stderr
    assert key[3:] not in ran.stderr


def test_a_traceback_outside_an_event_loop_has_nothing_of_the_log_in_it() -> None:
    """A command without an event loop logs an exception as it was raised."""
    program = """
import structlog
from rpc.process.logs import setup_logs
setup_logs("info", "json")
try:
    raise ValueError("the cause")
except ValueError:
    structlog.get_logger().exception("failed")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "ValueError: the cause" in ran.stderr
    assert "RuntimeError" not in ran.stderr
