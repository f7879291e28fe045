"""Converts the bytes of a file into stored rows, in steps of bounded size. Not thread-safe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from jobs_service.datasets.containers.compression import BadCompressionError, Source, open_source
from jobs_service.datasets.containers.encodings import Encoding
from jobs_service.datasets.containers.kinds import HEAD_BYTES, PARQUET, refused_kind, text_reader
from jobs_service.datasets.containers.parquet import ParquetRows
from jobs_service.datasets.containers.record import Record, RecordReader, Unreadable
from jobs_service.datasets.formats.mapping import ColumnMapping
from jobs_service.datasets.formats.reader import RowReader
from jobs_service.datasets.formats.sample import BadRowError, texts
from jobs_service.datasets.imports.problems import Problems
from jobs_service.datasets.imports.scripts import ScriptTokens
from jobs_service.datasets.imports.statistics import Lengths
from jobs_service.datasets.imports.tokens import count_tekken_tokens, count_tokens

# Bytes of content that one step reads.
STEP_BYTES = 256 * 1024
# Bytes at the beginning of a file by which its compression is detected.
MAGIC_BYTES = 4
# Content may be this many times as large as the file, and this large in any case. Text compresses to about a tenth.
MAX_EXPANSION, FREE_BYTES = 250, 16 * 1024 * 1024
# Rows, bytes, and characters of a bad row in the excerpt that is stored of a file with bad rows.
EXCERPT_ROWS, EXCERPT_BYTES, SHOWN_CHARACTERS = 100, 256 * 1024, 2_000


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts, errors and warnings of a file. `errors` and `warnings`: one for each reason, as they are stored."""

    format: str | None
    samples: int
    training_pairs: int
    tokens: int
    p50_tokens: int
    p95_tokens: int
    longest_tokens: int
    token_histogram: list[tuple[int, int]]
    script_tokens: dict[str, list[int]]
    errors: list[dict[str, Any]]
    error_count: int
    warnings: list[dict[str, Any]]


class Ingestion:
    """Reads one file. For each piece of bytes: `feed`, then `advance` until it returns False. At the end: `end`, and the same.

    `output`: rows to store, until the first error. The caller clears it.
    """

    def __init__(self, mapping: ColumnMapping | None = None) -> None:
        self.received = 0
        self.content_size = 0
        self.output = bytearray()
        self.errors = Problems()
        self._warnings = Problems()
        self._lengths = Lengths()
        self._scripts = ScriptTokens(count_tokens, count_tekken_tokens)
        self._pairs = 0
        self._rows = RowReader(mapping)
        self._start = self._head = b""
        self._source: Source | None = None
        self._encoding: Encoding | None = None
        self._reader: RecordReader | None = None
        self._pending: Iterator[Record] = iter(())
        self._ended = self._finished = False
        self._excerpt: list[bytes] = []
        self._excerpt_size = 0

    def feed(self, data: bytes) -> None:
        """Takes the next bytes."""
        self.received += len(data)
        self._start += data
        if self._source is None and len(self._start) >= MAGIC_BYTES:
            self._source = open_source(self._start)
        if self._source is not None:
            self._source.feed(self._start)
            self._start = b""

    def end(self) -> None:
        """Marks the end of the file."""
        self._ended = True
        if self._source is None:
            self._source = Source()
            self._source.feed(self._start)

    def advance(self) -> bool:
        """Does one step. Returns whether there may be more to do without further bytes."""
        done = 0
        for record in self._pending:
            self._take(record)
            done += max(record.size, 64)
            if done > STEP_BYTES:
                return True
        if self._source is None or self._finished:
            return False
        try:
            content = self._source.read(STEP_BYTES)
            if not content and self._ended and not self._source.is_complete():
                raise BadCompressionError("the file ends in the middle of its compressed data: it was cut off")
            self.content_size += len(content)
            if self.content_size > max(FREE_BYTES, MAX_EXPANSION * self.received):
                raise BadCompressionError(f"the content is more than {MAX_EXPANSION} times as large as the file")
        except BadCompressionError as error:
            self._give_up(str(error))
            return True
        if content:
            self._pending = iter(self._read(content))
            return True
        if self._ended:
            self._finished = True
            self._pending = iter(self._finish())
            return True
        return False

    def result(self) -> Summary:
        """Returns the summary of the file."""
        return Summary(
            format=self._rows.format,
            samples=self._lengths.samples,
            training_pairs=self._pairs,
            tokens=self._lengths.total,
            p50_tokens=self._lengths.quantile(0.50),
            p95_tokens=self._lengths.quantile(0.95),
            longest_tokens=self._lengths.longest,
            token_histogram=self._lengths.histogram(),
            script_tokens=self._scripts.result(),
            errors=[asdict(problem) for problem in self.errors.all()],
            error_count=self.errors.total,
            warnings=[asdict(problem) for problem in self._warnings.all()],
        )

    def excerpt(self) -> bytes:
        """Returns the first good and bad rows of a file as rows of a stored file."""
        return b"".join(self._excerpt)

    def close(self) -> None:
        """Ends the child process that reads a Parquet file."""
        if isinstance(self._reader, ParquetRows):
            self._reader.close()

    def _read(self, content: bytes) -> Iterable[Record]:
        if self._reader is None:
            self._head += content
            if len(self._head) < HEAD_BYTES:
                return ()
            content, self._head = self._head, b""
            self._reader = self._open(content)
        return self._records(content)

    def _finish(self) -> Iterator[Record]:
        if self._reader is None:
            content, self._head = self._head, b""
            self._reader = self._open(content)
            yield from self._records(content)
        yield from self._records(b"", final=True)
        yield from self._reader.finish()
        if self.errors.total == 0 and self._lengths.samples == 0:
            left_out = self._warnings.total > 0 and self._rows.format
            reason = "nothing in the file is trained on: no row has a message of the assistant with `weight` 1"
            yield Record(0, error=reason if left_out else "the file is empty: it needs at least one row")

    def _open(self, head: bytes) -> RecordReader:
        """Returns the reader of a file whose content begins with `head`."""
        kind = refused_kind(head)
        if kind:
            return Unreadable(f"the file is {kind}")
        if head.startswith(PARQUET):
            return ParquetRows()
        self._encoding = Encoding(head)
        if self._encoding.name != "UTF-8":
            message = f"the file is {self._encoding.name} and was read as that; UTF-8 is what other programs expect"
            self._warnings.add(0, message, kind="encoding")
        try:
            return text_reader(Encoding(head).to_utf8(head))
        except UnicodeDecodeError:
            return Unreadable(f"the file begins as {self._encoding.name}, but is not valid. Save it as UTF-8")

    def _records(self, content: bytes, *, final: bool = False) -> Iterator[Record]:
        if self._reader is None:
            return
        try:
            text = content if self._encoding is None else self._encoding.to_utf8(content, final=final)
        except UnicodeDecodeError:
            name = self._encoding.name if self._encoding else ""
            self._reader = Unreadable(f"the file begins as {name}, but is not valid {name}. Save it as UTF-8")
            self._encoding = None
            return
        if text:
            yield from self._reader.feed(text)

    def _give_up(self, reason: str) -> None:
        """Ends with an error for the whole file."""
        self._finished = True
        self._pending = iter((Record(0, error=reason),))

    def _take(self, record: Record) -> None:
        try:
            if record.error:
                raise BadRowError(record.error)
            self._keep(record)
        except BadRowError as error:
            self.errors.add(record.line, str(error), column=record.column, text=record.text)
            if self.errors.total <= EXCERPT_ROWS:
                self._add_to_excerpt({"line": record.line, "error": str(error)[:500], "source": _shown(record)})

    def _keep(self, record: Record) -> None:
        sample = self._rows.read(record.value)
        for kind, message in sample.warnings:
            self._warnings.add(record.line, message, kind=kind)
        if sample.pairs == 0:
            message = "no message of the row is trained on, by its own marks; it was left out"
            self._warnings.add(record.line, message, kind="not_trained")
            return
        sample_texts = [*texts(sample.content)]
        tokens = count_tokens(sample_texts)
        self._lengths.add(tokens)
        self._scripts.add(self._lengths.samples, sample_texts, tokens)
        self._pairs += sample.pairs
        row = {"row": self._lengths.samples, "line": record.line, "pairs": sample.pairs, "tokens": tokens}
        if self.errors.total == 0 or self._lengths.samples <= EXCERPT_ROWS:
            stored = {**row, **sample.content}
            if self._lengths.samples <= EXCERPT_ROWS:
                self._add_to_excerpt(stored)
            if self.errors.total == 0:
                self.output += orjson.dumps(stored, option=orjson.OPT_APPEND_NEWLINE)

    def _add_to_excerpt(self, row: dict[str, Any]) -> None:
        line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        if self._excerpt_size + len(line) <= EXCERPT_BYTES:
            self._excerpt.append(line)
            self._excerpt_size += len(line)


def _shown(record: Record) -> str:
    """Returns the beginning of a bad row, for the preview."""
    if record.value is None:
        return record.text
    try:
        return orjson.dumps(record.value).decode()[:SHOWN_CHARACTERS]
    except orjson.JSONEncodeError:
        return "nested too deep to be shown"
