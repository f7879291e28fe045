"""Logging, set up once per process: lines for people on a terminal, JSON elsewhere."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict

from rpc.identity.api_keys import PREFIX as API_KEY_PREFIX
from rpc.identity.api_keys import SHAPE as API_KEY

LogFormat = Literal["auto", "json", "pretty"]
Entry = EventDict | str
Render = Callable[[Any, str, EventDict], str]
# Lines are written together: after this time, or when there are so many.
GATHER_SECONDS, MAX_GATHERED = 0.01, 256


def setup_logs(level: str = "info", log_format: LogFormat = "auto") -> None:
    """Sends structlog's and the standard library's lines to stderr. `auto` is pretty on a terminal and JSON elsewhere."""
    pretty = log_format == "pretty" or (log_format == "auto" and sys.stderr.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    if pretty:
        # A traceback with the values of variables would contain tokens and passwords.
        console = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        render: Render = partial(_pretty, console)
    else:
        render = _json
    stderr = _Stderr(render)
    structlog.configure(
        processors=[_stamp],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: _Lines(stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(cast(TextIO, stderr))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
            foreign_pre_chain=[_with_time],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)


def _stamp(logger: Any, method: str, event: EventDict) -> tuple[tuple[EventDict], dict[str, Any]]:
    """Adds level and time. Rendering waits until the line is written."""
    event["level"], event["timestamp"] = method, datetime.now(UTC)
    return (event,), {}


def _with_time(logger: Any, method: str, event: EventDict) -> EventDict:
    event["level"], event["timestamp"] = method, datetime.now(UTC)
    return event


def _json(logger: Any, method: str, event: EventDict) -> str:
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, method, event)
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z).decode()


def _pretty(console: structlog.dev.ConsoleRenderer, logger: Any, method: str, event: EventDict) -> str:
    event["timestamp"] = f"{event['timestamp'].astimezone():%H:%M:%S}"
    return console(logger, method, event)


class _Stderr:
    """Writes to stderr. A closed pipe or a full disk does not fail the request that logs.

    While an event loop runs, entries are collected for a moment, rendered and written together: a system call for each
    line would cost more than the line. `logging`, whose handler's stream this is, flushes it at the end of the process.
    """

    def __init__(self, render: Render) -> None:
        self._render = render
        self._gathered: list[Entry] = []
        self._waiting_on: asyncio.AbstractEventLoop | None = None

    def write(self, entry: Entry) -> None:
        """Adds an event, or a text that is written as it is."""
        self._gathered.append(entry)
        if len(self._gathered) >= MAX_GATHERED:
            self.flush()
        elif self._waiting_on is None or not self._waiting_on.is_running():
            try:
                self._waiting_on = asyncio.get_running_loop()
            except RuntimeError:
                self.flush()
            else:
                self._waiting_on.call_later(GATHER_SECONDS, self.flush)

    def flush(self) -> None:
        """Writes the collected entries."""
        entries, self._gathered, self._waiting_on = self._gathered, [], None
        text = "".join(map(self._line, entries))
        if API_KEY_PREFIX in text:
            # Nothing logs API keys on purpose; a URL or an exception of a library may contain one.
            text = API_KEY.sub(f"{API_KEY_PREFIX}[redacted]", text)
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):
            return

    def _line(self, entry: Entry) -> str:
        if isinstance(entry, str):
            return entry
        try:
            return f"{self._render(None, entry['level'], entry)}\n"
        except Exception:
            # An entry that cannot be rendered must not lose the lines that were collected with it.
            return f"{entry!r}\n"


class _Lines:
    """structlog's logger. Warnings and errors are written at once: the process may end before the next flush."""

    def __init__(self, file: _Stderr) -> None:
        self.info = self.debug = file.write
        self._file = file

    def error(self, event: EventDict) -> None:
        """Adds an event and writes at once, while its exception can still be formatted."""
        self._file.write(event)
        self._file.flush()

    warning = warn = critical = exception = fatal = msg = error
