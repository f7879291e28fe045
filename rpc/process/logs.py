"""Logging, set up once per process: readable lines on a terminal, JSON elsewhere."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
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
# Lines are buffered for at most this time and up to this number, then written together.
FLUSH_SECONDS, MAX_BUFFERED = 0.01, 256


def setup_logs(level: str = "info", log_format: LogFormat = "auto") -> None:
    """Sends structlog's and the standard library's lines to stderr. `auto` is pretty on a terminal and JSON elsewhere."""
    pretty = log_format == "pretty" or (log_format == "auto" and sys.stderr.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    if pretty:
        # Tracebacks without values of variables, which may be tokens and passwords.
        console = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        render: Render = partial(_pretty, console)
    else:
        render = _json
    stderr = _Stderr(render)
    structlog.configure(
        processors=[_add_level_and_time],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: _Logger(stderr),
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


def _add_level_and_time(logger: Any, method: str, event: EventDict) -> tuple[tuple[EventDict], dict[str, Any]]:
    """Processor of structlog: adds level and time. The event is rendered when it is written."""
    return (_with_time(logger, method, event),), {}


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

    While an event loop runs, entries are buffered, then rendered and written together: a system call for each line would
    cost more than the line. It is the stream of a `logging` handler, which flushes it at the end of the process.
    """

    def __init__(self, render: Render) -> None:
        self._render = render
        self._buffer: list[Entry] = []
        # The event loop that will flush the buffer; None: no flush is due.
        self._loop: asyncio.AbstractEventLoop | None = None

    def write(self, entry: Entry) -> None:
        """Adds an event, or a text that is already rendered."""
        self._buffer.append(entry)
        if len(self._buffer) >= MAX_BUFFERED:
            self.flush()
        elif self._loop is None or not self._loop.is_running():
            # Outside of the `except`: a traceback that is rendered there would have this RuntimeError in it.
            with suppress(RuntimeError):
                self._loop = asyncio.get_running_loop()
                self._loop.call_later(FLUSH_SECONDS, self.flush)
                return
            self.flush()

    def flush(self) -> None:
        """Writes the buffered entries."""
        entries, self._buffer, self._loop = self._buffer, [], None
        text = "".join(map(self._line, entries))
        if API_KEY_PREFIX in text:
            # A URL or an exception of a library may contain an API key.
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
            # An entry that cannot be rendered must not lose the other entries of the buffer.
            return f"{entry!r}\n"


class _Logger:
    """The logger that structlog calls. Warnings and errors are written at once: the process may end before the next flush."""

    def __init__(self, file: _Stderr) -> None:
        self.info = self.debug = file.write
        self._file = file

    def error(self, event: EventDict) -> None:
        """Adds an event and flushes, while its exception can still be formatted."""
        self._file.write(event)
        self._file.flush()

    warning = warn = critical = exception = fatal = msg = error
