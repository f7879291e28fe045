"""Log lines: gathered, in order, and none lost to another."""

from __future__ import annotations

import json
import subprocess
import sys

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
