"""Logging, set up once per process: lines for people on a terminal, JSON elsewhere."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Literal, TextIO, cast

import orjson
import structlog

LogFormat = Literal["auto", "json", "pretty"]
# Lines wait for one another at most this long, and at most so many.
GATHER_SECONDS, MAX_GATHERED = 0.01, 256


def setup_logs(level: str = "info", log_format: LogFormat = "auto") -> None:
    """Sends structlog's and the standard library's lines to stderr. `auto` is pretty on a terminal and JSON elsewhere."""
    pretty = log_format == "pretty" or (log_format == "auto" and sys.stderr.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if pretty else "iso", utc=not pretty),
    ]
    renderer: list[structlog.typing.Processor] = (
        # A traceback with the values of variables would tell tokens and passwords.
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if pretty
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_to_json)]
    )
    stderr = _Stderr()
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: _Lines(stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(cast(TextIO, stderr))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)


def _to_json(event: object, **_: object) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class _Stderr:
    """Stderr that a closed pipe or a full disk cannot turn into a failed request.

    While an event loop runs, lines are gathered for a moment and written together: a system call costs more than the line.
    At the end of a process `logging`, which has this as its handler's stream, flushes it.
    """

    def __init__(self) -> None:
        self._gathered: list[str] = []
        self._waiting_on: asyncio.AbstractEventLoop | None = None

    def write(self, text: str) -> int:
        self._gathered.append(text)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return len(text)
        if len(self._gathered) >= MAX_GATHERED:
            self.flush()
        elif loop is not self._waiting_on:
            self._waiting_on = loop
            loop.call_later(GATHER_SECONDS, self.flush)
        return len(text)

    def flush(self) -> None:
        """Writes what was gathered."""
        text, self._gathered, self._waiting_on = "".join(self._gathered), [], None
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):
            return


class _Lines:
    """Where structlog's lines go: at once where something is wrong, for whoever looks after it has ended."""

    def __init__(self, file: _Stderr) -> None:
        self._file = file

    def info(self, line: str) -> None:
        """Takes a line."""
        self._file.write(line + "\n")

    def error(self, line: str) -> None:
        """Takes a line and writes it now."""
        self._file.write(line + "\n")
        self._file.flush()

    debug = info
    warning = warn = critical = exception = fatal = msg = error
