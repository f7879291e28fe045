"""File formats: detected by content and read in bounded memory, or refused with advice."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import tracemalloc
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pyarrow
import pytest
from backports import zstd
from pyarrow import parquet

from jobs_service.datasets.imports.ingestion import Ingestion
from tests.conftest import Stack
from tests.door import refused
from tests.jobs_service.datasets.test_import import files_in, import_bytes
from tests.jobs_service.datasets.test_shapes import ERROR, HI, READY, YO, lines, stored

pytestmark = pytest.mark.parametrize("stack", ["local"], indirect=True)

ROWS = [{"prompt": f"Word {number}, “or” not\nso", "completion": f"Größe {number}"} for number in range(40)]
JSON = orjson.dumps(ROWS)
PRETTY = orjson.dumps(ROWS, option=orjson.OPT_INDENT_2)
LINES = lines(*ROWS)


def table(delimiter: str, rows: list[dict[str, Any]] = ROWS) -> bytes:
    """Rows as a table of text."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet_file(rows: list[dict[str, Any]] = ROWS, **options: Any) -> bytes:
    """Rows as Parquet."""
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), file, **options)
    return file.getvalue()


SAME: dict[str, bytes] = {
    "JSON Lines": LINES,
    "without a last line end": LINES.rstrip(),
    "lines with commas": LINES.replace(b"}\n", b"},\n"),
    "an array on one line": JSON,
    "an array, pretty-printed": PRETTY,
    "an array, a row a line": JSON.replace(b"},{", b"},\n{"),
    "wrapped": b'{"data": ' + JSON + b"}",
    "wrapped, pretty-printed, with other keys": b'{\n "version": "1.0",\n "rows": '
    + PRETTY
    + b',\n "total": {"rows": 40}\n}\n',
    "objects over several lines": b"\n".join(orjson.dumps(row, option=orjson.OPT_INDENT_2) for row in ROWS),
    "CSV": table(","),
    "CSV with semicolons": table(";"),
    "TSV": table("\t"),
    "UTF-8 with a mark": b"\xef\xbb\xbf" + LINES,
    "CSV as Excel saves it": b"\xef\xbb\xbf" + table(","),
    "an array with a mark": b"\xef\xbb\xbf" + PRETTY,
    "Parquet": parquet_file(),
    "Parquet, Zstandard, many row groups": parquet_file(compression="zstd", row_group_size=7),
    "gzip": gzip.compress(LINES),
    "gzip, several members": gzip.compress(LINES[:900]) + gzip.compress(LINES[900:]) + b"\0" * 512,
    "Zstandard": zstd.compress(LINES),
    "Zstandard, several frames": zstd.compress(LINES[:900]) + zstd.compress(LINES[900:]),
    "a compressed array": gzip.compress(PRETTY),
    "a compressed table": zstd.compress(table(",")),
    "compressed Parquet": gzip.compress(parquet_file()),
}


async def test_the_same_rows_are_the_same_in_every_kind_of_file(stack: Stack, tmp_path: Path) -> None:
    """Case 04: all forms of JSON, tables, Parquet and compressed files are detected by content and give the same rows."""
    kept = {}
    for kind, data in SAME.items():
        dataset, kept[kind] = await stored(stack, tmp_path, data)
        assert (dataset.total_rows, dataset.file_size) == (40, len(data)), kind
        assert not dataset.validation_warnings, kind
    assert all(rows == kept["JSON Lines"] == ROWS for rows in kept.values())


async def test_utf_16_is_read_with_a_warning(stack: Stack, tmp_path: Path) -> None:
    """Case 01: files that PowerShell or Excel saved as UTF-16 are read, whatever the byte order and with or without a mark."""
    for data in (LINES, PRETTY, table("\t")):
        text = data.decode()
        for encoded in (
            text.encode("utf-16"),
            text.encode("utf-16-be"),
            b"\xfe\xff" + text.encode("utf-16-be"),
            text.encode("utf-32"),
        ):
            dataset, rows = await stored(stack, tmp_path, encoded)
            assert rows == ROWS
            (warning,) = dataset.validation_warnings
            assert (warning.kind, "UTF-" in warning.message, list(warning.lines)) == ("encoding", True, [0])


async def test_lists_and_numbers_of_parquet_are_read(stack: Stack, tmp_path: Path) -> None:
    """Nested columns, nulls, dates and non-finite numbers are read."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": "Ciao", "weight": None},
                {"role": "assistant", "content": "Salve", "weight": 1},
            ],
            "score": float("nan"),
            "id": 5,
        },
        {
            "messages": [
                {"role": "user", "content": "Ciao", "weight": None},
                {"role": "assistant", "content": "Salve", "weight": 1},
            ],
            "score": None,
            "id": None,
        },
    ]
    _, kept = await stored(stack, tmp_path, parquet_file(rows))
    assert kept == [{"messages": [HI, YO]}] * 2


async def test_tables_have_messages_as_text(stack: Stack, tmp_path: Path) -> None:
    """A column of a table may have messages as JSON text; Python's notation of a list gets its own error."""
    _, kept = await stored(stack, tmp_path, table(",", [{"messages": orjson.dumps([HI, YO]).decode(), "tools": ""}]))
    assert kept == [{"messages": [HI, YO]}]
    dataset = await import_bytes(stack, table(",", [{"messages": str([HI, YO])}]), size=1 << 20)
    assert "Python's notation" in dataset.validation_errors[0].reason


ZIP = io.BytesIO()
with zipfile.ZipFile(ZIP, "w") as archive:
    archive.writestr("rows.jsonl", LINES)
# What a file is, and what is said of it: as a whole, at line 0.
REFUSED: list[tuple[bytes, str]] = [
    (ZIP.getvalue(), "a ZIP archive or an Excel workbook: unpack it"),
    (bz2.compress(LINES), "a bzip2 file: decompress it"),
    (gzip.compress(gzip.compress(LINES)), "a gzip file inside a compressed file"),
    (b"%PDF-1.7\n...", "a PDF document"),
    (b"\x80\x04\x95\x00\x00", "a Python pickle"),
    (b"<!DOCTYPE html><html>", "a web page"),
    (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    (b'------x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + LINES, "--data-binary"),
    (b"hello", "begins with `hello`"),
    (gzip.compress(LINES)[:-40], "it was cut off"),
    (zstd.compress(LINES)[:-40], "it was cut off"),
    (gzip.compress(LINES)[:30] + b"x" * 50, "the file is damaged"),
    (parquet_file()[:-20], "the Parquet file cannot be read"),
    (parquet_file()[:-500] + b"x" * 500, "the Parquet file cannot be read"),
    ("\n".join(["ä" * 50] * 3).encode("utf-16")[:-1], "not valid UTF-16"),
    (b"", "the file is empty"),
    (b"[]", "the file is empty"),
    (gzip.compress(b""), "the file is empty"),
]


async def test_unsupported_formats_are_named(stack: Stack) -> None:
    """Unsupported files have one error that names the format and says what to do."""
    for data, reason in REFUSED:
        dataset = await import_bytes(stack, data, size=1 << 20)
        assert dataset.status == ERROR, reason
        assert [(error.line, reason in error.reason) for error in dataset.validation_errors] == [(0, True)], (
            dataset.validation_errors
        )


GOOD = b'{"prompt": "a", "completion": "b"}'
# A file, where it is wrong (line, column), what is said, and the text that is shown.
WRONG: list[tuple[bytes, tuple[int, int], str, str]] = [
    (GOOD + b'\n{"prompt": "a", "completion": NaN}', (2, 31), "NaN is not JSON", "NaN"),
    (GOOD + b'\n{"prompt": "a", "completion": -Infinity}', (2, 32), "Infinity is not JSON", "-Infinity"),
    (GOOD + b'\n{"prompt": None}', (2, 12), "Python's None is null in JSON", "None"),
    (GOOD + b"\n{'prompt': 'a'}", (2, 2), "double quotes", "'prompt'"),
    (GOOD + b'\n{"prompt": "a", "comp', (2, 22), "may have been cut off", "comp"),
    (GOOD + "\n{“prompt”: 1}".encode(), (2, 2), "not JSON", "“prompt”"),
    (
        GOOD + '\n{"prompt": "für'.encode("latin-1") + b'"}',
        (2, 14),
        "not UTF-8. Save the file as UTF-8. It is perhaps Windows-1252",
        "für",
    ),
    (GOOD + GOOD + GOOD, (1, len(GOOD) + 1), "curl --data-binary", '{"prompt"'),
    (GOOD + b" " + GOOD + b"\n" + GOOD, (1, len(GOOD) + 2), "several objects on one line", '{"prompt"'),
    (b'[\n  {\n    "prompt": "a",\n    "completion": NaN\n  }\n]', (4, 19), "NaN is not JSON", "NaN"),
    (b'[\n {"prompt": "a", "completion": "b"},\n 5\n]', (3, 2), "not a JSON object", "5"),
    (b'[\n {"prompt": "a", "completion": "b"},\n {"prompt": "a"', (3, 2), "it was cut off", '"prompt": "a"'),
    (b'[{"prompt": "a", "completion": "b"}] x', (1, 38), "after the end of the list", "x"),
    (b"prompt,completion\na,b\na,b,c\n", (3, 0), "has 3 cells, the first line has 2", "a,b,c"),
    (b"prompt,completion\na,\xe4\n", (2, 0), "not UTF-8", "a,"),
]


async def test_reasons_say_where(stack: Stack) -> None:
    """Cases 01, 02, 04: a reason has the line and column in the file and the text around it, and says what to do."""
    for data, (line, column), reason, text in WRONG:
        dataset = await import_bytes(stack, data, size=1 << 20)
        assert len(dataset.validation_errors) == 1, (data, dataset.validation_errors)
        (error,) = dataset.validation_errors
        assert (error.line, error.column, reason in error.reason, text in error.text) == (line, column, True, True), (
            error
        )


def read(data: bytes, size: int) -> tuple[Any, bytes]:
    """Reads a file in pieces. Returns its summary and rows."""
    ingestion = Ingestion()
    for start in range(0, len(data), size):
        ingestion.feed(data[start : start + size])
        while ingestion.advance():
            pass
    ingestion.end()
    while ingestion.advance():
        pass
    ingestion.close()
    return ingestion.result(), bytes(ingestion.output)


@pytest.mark.slow
def test_the_size_of_pieces_does_not_matter(stack: Stack) -> None:
    """A file is read the same in pieces of any size."""
    seed = Random().randrange(1 << 32)
    print("seed", seed)
    random = Random(seed)
    broken = [data for data, *_ in (*REFUSED, *WRONG)]
    for data in [*SAME.values(), *broken, '\\"{[,'.join(["", *map(str, range(50))]).encode()]:
        whole = read(data, len(data) or 1)
        size = 1 + random.randrange(random.choice((9, 200)))
        assert read(data, size) == whole, (size, data[:80])


def test_decompression_bombs_are_bounded(stack: Stack) -> None:
    """Reading stops after 16 MiB for a small file that decompresses to far more."""
    row = b'{"prompt": "' + b"b" * 100_000_000
    for bomb in (gzip.compress(row), zstd.compress(row), gzip.compress(b"\0" * 100_000_000)):
        assert len(bomb) < 500_000
        tracemalloc.start()
        summary, _ = read(bomb, 1 << 20)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert "times as large as the file" in summary.errors[-1]["reason"]
        assert peak < 30_000_000
    # A window of 128 MiB, which a frame may ask for in ten bytes.
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    summary, _ = read(compressor.compress(LINES) + compressor.flush(), 1 << 20)
    assert "--long or --ultra" in summary.errors[0]["reason"]


@pytest.fixture
def jobs_overrides() -> dict[str, Any]:
    """Files may be 1 MB."""
    return {"max_dataset_bytes": 1_000_000}


async def test_content_has_the_limit_of_files(stack: Stack, tmp_path: Path) -> None:
    """The size limit applies to the decompressed content; nothing of a larger file is stored."""
    row = lines({"prompt": "a", "completion": "word " * 100})
    assert (await import_bytes(stack, gzip.compress(row * 1_000), size=1 << 20)).status == READY
    assert (await refused(import_bytes(stack, gzip.compress(row * 2_000), size=1 << 20))).reason == "TOO_LARGE"
    assert len(files_in(tmp_path / "storage")) == 1


def test_a_table_whose_quote_is_never_closed_is_bounded(stack: Stack) -> None:
    """A quote that is never closed is an error of its line, in bounded memory."""
    summary, _ = read(b'prompt,completion\na,b\na,"' + (b"word " * 400 + b"\n") * 2_500, 1 << 18)
    assert summary.errors[0]["line"] == 3
    assert "longer than 4194304 bytes" in summary.errors[0]["reason"]
