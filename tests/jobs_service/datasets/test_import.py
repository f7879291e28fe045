"""Importing training data, over gRPC."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import fsspec
import grpc
import mistral_common
import orjson
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from pipeline.datasets.v1 import datasets_pb2
from pipeline.jobs.v1 import jobs_pb2

from jobs_service.datasets.imports.importer import Importer
from jobs_service.datasets.imports.tokens import PIECE, TEKKEN, _processor, count_tekken_tokens, count_tokens
from jobs_service.datasets.storage import Storage, StorageError, Writer
from jobs_service.errors import StorageUnavailable
from rpc.errors import DatabaseUnavailable, NotOwner, TooLarge
from rpc.telemetry.metrics import Metrics
from tests.conftest import Stack, metadata

ANN = "aaaaaaaa-0000-4000-8000-000000000001"
LINES: dict[str, dict[str, Any]] = {
    "messages": {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]},
    "conversations": {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Good day"}]},
    "instruction": {"instruction": "Hello", "input": "", "output": "Good day"},
    "prompt_completion": {"prompt": "Hello", "completion": "Good day"},
    "turns": {
        "conversation_id": "1",
        "turns": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}],
    },
}


STORED = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day", "train": True}]


def sent(
    data: bytes, *, size: int = 7, name: str | None = "Greetings", mapping: Sequence[str] = ()
) -> Iterator[datasets_pb2.ImportDatasetRequest]:
    """Yields a file in small pieces, so that lines are cut anywhere."""
    yield datasets_pb2.ImportDatasetRequest(name=name, file_name="greetings.jsonl", mapping=mapping)
    for start in range(0, len(data), size):
        yield datasets_pb2.ImportDatasetRequest(chunk=data[start : start + size])


async def import_bytes(stack: Stack, data: bytes, **options: object) -> datasets_pb2.Dataset:
    """Imports as Ann."""

    async def requests():
        for request in sent(data, **options):
            yield request

    return (await stack.datasets.ImportDataset(requests(), metadata=metadata(ANN))).dataset


def files_in(folder: Path) -> list[str]:
    """Returns the files in a storage, incomplete ones too."""
    return [path.name for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", LINES)
async def test_every_format_is_found_and_counted(stack: Stack, tmp_path: Path, name: str) -> None:
    """Each format is detected, its pairs and Mistral tokens are counted, and its rows are stored."""
    data = (orjson.dumps(LINES[name]) + b"\r\n") * 3
    dataset = await import_bytes(stack, data)
    assert (dataset.format, dataset.status, dataset.training_ready) == (name, datasets_pb2.DATASET_STATUS_READY, True)
    # Mistral-7B v0.1: "▁Hello" is one token, "▁Good▁day" two.
    assert (dataset.total_training_pairs, dataset.total_tokens, dataset.file_size) == (3, 9, len(data))
    rows = (tmp_path / "storage" / dataset.storage_path).read_bytes()
    stored = [orjson.loads(row) for row in rows.splitlines()]
    assert dataset.stored_size == len(rows)
    said = {"prompt": "Hello", "completion": "Good day"} if name == "prompt_completion" else {"messages": STORED}
    assert stored == [{"row": row, "line": row, "pairs": 1, "tokens": 3, **said} for row in (1, 2, 3)]


async def test_lengths_are_counted(stack: Stack) -> None:
    """A dataset has the lengths of its samples: median, 95th percentile, longest, and a histogram."""
    words = [1] * 90 + [100] * 9 + [1000]
    lines = [{"prompt": "Hello", "completion": " ".join(["day"] * count)} for count in words]
    dataset = await import_bytes(stack, b"".join(orjson.dumps(line) + b"\n" for line in lines), size=4096)
    assert (dataset.p50_tokens, dataset.p95_tokens, dataset.longest_tokens) == (2, 101, 1001)
    bins = [(each.up_to_tokens, each.samples) for each in dataset.token_histogram]
    assert [samples for _, samples in bins] == [90, 9, 1]
    assert (bins[0][0], 101 <= bins[1][0] < 101 * 1.2, bins[2][0]) == (2, True, 1001)


def test_tekken_counts_as_its_library_does() -> None:
    """The vocabulary is read in less memory than by mistral-common, and has the same tokens."""
    library = Tekkenizer.from_file(Path(mistral_common.__file__).parent / "data" / TEKKEN)
    for text in (Path(__file__).read_text(), "你好，世界 Привет\r\n\t  héé 12345 🙂"):  # noqa: RUF001 - a mark of Chinese text
        assert count_tekken_tokens([text]) == len(library.encode(text, bos=False, eos=False))


async def test_tokens_are_kept_by_script(stack: Stack, admin: asyncpg.Connection) -> None:
    """Tokens are counted by the script of most letters, with both tokenizers; of many samples, from a part."""
    texts = {
        "latin": "Hello day",
        "han": "你好请写 Python",
        "kana": "これは漢字です",
        "cyrillic": "Привет",
        "other": "שלום עולם",
    }
    lines = [{"prompt": "Hello", "completion": text} for text in texts.values()]
    lines += [{"prompt": "Hello", "completion": "Hello day"}] * 1000
    dataset = await import_bytes(stack, b"".join(orjson.dumps(line) + b"\n" for line in lines))
    stored = await admin.fetchval("select script_tokens from lora_datasets where id = $1", UUID(dataset.id))
    by_script = orjson.loads(stored)
    assert by_script.keys() == texts.keys()
    for script, text in texts.items():
        if script != "latin":
            assert by_script[script] == [count_tokens(["Hello", text]), count_tekken_tokens(["Hello", text])], script
    assert by_script["latin"][0] == pytest.approx(1001 * count_tokens(["Hello", "Hello day"]), rel=0.02)
    assert by_script["han"][1] < by_script["han"][0]


SAID = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]
TOOL = {"id": "1", "type": "function", "function": {"name": "Hello", "arguments": "Hello"}}
# What files in the wild have: the format, the pairs, and the tokens ("Hello" is one, "Good day" two).
SPELLINGS: list[tuple[str, dict[str, Any], str, int, int]] = [
    (
        "parts",
        {"messages": [SAID[0], {"role": "assistant", "content": [{"type": "text", "text": "Good day"}]}]},
        "messages",
        1,
        3,
    ),
    (
        "tool calls",
        {"messages": [SAID[0], {"role": "assistant", "content": None, "tool_calls": [TOOL]}], "tools": []},
        "messages",
        1,
        3,
    ),
    (
        "tool calls, empty",
        {"messages": [SAID[0], {"role": "assistant", "content": "", "tool_calls": [TOOL]}]},
        "messages",
        1,
        3,
    ),
    (
        "arguments as JSON",
        {
            "messages": [
                SAID[0],
                {"role": "assistant", "tool_calls": [{"function": {"name": "Hello", "arguments": {}}}]},
            ]
        },
        "messages",
        1,
        3,
    ),
    (
        "function call",
        {"messages": [SAID[0], {"role": "assistant", "content": None, "function_call": TOOL["function"]}]},
        "messages",
        1,
        3,
    ),
    (
        "a tool's answer",
        {
            "messages": [
                SAID[0],
                {"role": "assistant", "tool_calls": [TOOL]},
                {"role": "tool", "tool_call_id": "1", "content": ""},
                SAID[1],
            ]
        },
        "messages",
        1,
        5,
    ),
    ("empty system", {"messages": [{"role": "system", "content": ""}, *SAID, *SAID]}, "messages", 2, 6),
    ("developer", {"messages": [{"role": "developer", "content": "Hello"}, *SAID]}, "messages", 1, 4),
    (
        "ShareGPT aliases",
        {"conversations": [{"from": "user", "value": "Hello"}, {"from": "chatgpt", "value": "Good day"}]},
        "conversations",
        1,
        3,
    ),
    (
        "ShareGPT tools",
        {
            "conversations": [
                {"from": "human", "value": "Hello"},
                {"from": "function_call", "value": "Hello"},
                {"from": "observation", "value": "Hello"},
                {"from": "gpt", "value": "Good day"},
            ],
            "system": "Hello",
            "tools": "[]",
        },
        "conversations",
        1,
        6,
    ),
    ("roles in conversations", {"conversations": SAID}, "conversations", 1, 3),
    (
        "assistant first",
        {"conversations": [{"from": "gpt", "value": "Hello"}, *LINES["conversations"]["conversations"]]},
        "conversations",
        1,
        4,
    ),
    ("Alpaca without input", {"instruction": "Hello", "output": "Good day"}, "instruction", 1, 3),
    (
        "Alpaca with null",
        {"instruction": "Hello", "input": None, "output": "Good day", "text": "all of it"},
        "instruction",
        1,
        3,
    ),
    (
        # Instruction and input are one message, with an empty line of two tokens between them.
        "Alpaca with input",
        {"instruction": "Hello", "input": "Hello", "output": "Good day", "system": "Hello"},
        "instruction",
        1,
        7,
    ),
    (
        "Alpaca with history",
        {"instruction": "Hello", "output": "Good day", "history": [["Hello", "Good day"]]},
        "instruction",
        2,
        6,
    ),
    (
        "Dolly",
        {"instruction": "Hello", "context": "", "response": "Good day", "category": "open_qa"},
        "instruction",
        1,
        3,
    ),
    ("TRL", {"prompt": [SAID[0]], "completion": [SAID[1]]}, "prompt_completion", 1, 3),
]


async def test_common_formats_are_read(stack: Stack) -> None:
    """Rows of OpenAI, ShareGPT, Alpaca, Dolly and TRL are read, and all of their text is counted."""
    for row, line, name, pairs, tokens in SPELLINGS:
        dataset = await import_bytes(stack, orjson.dumps(line), size=10_000)
        assert list(dataset.validation_errors) == [], row
        assert (dataset.format, dataset.total_training_pairs, dataset.total_tokens) == (name, pairs, tokens), row


BAD: list[tuple[str, bytes, str]] = [
    ("bad UTF-8", b'{"prompt":"\xff","completion":"a"}', "not JSON"),
    ("overlong UTF-8", b'{"prompt":"\xc0\xaf","completion":"a"}', "not JSON"),
    ("J12 lone surrogate", rb'{"prompt":"\ud800","completion":"a"}', "not JSON"),
    ("J13 NUL escape", rb'{"prompt":"a\u0000","completion":"a"}', "NUL"),
    ("NUL byte", b'{"prompt":"a\0","completion":"a"}', "not JSON"),
    ("J14 trailing comma", b'{"prompt":"a","completion":"a",}', "not JSON"),
    ("J14 trailing data", b'{"prompt":"a","completion":"a"} x', "not JSON"),
    ("J09 NaN", b'{"prompt":"a","completion":"a","score":NaN}', "not JSON"),
    ("J15 deep", b'{"prompt":"a","completion":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON"),
    ("a BOM that is not first", b'\xef\xbb\xbf{"prompt":"a","completion":"a"}', "not JSON"),
    ("a number", b"5", "not a JSON object"),
    ("too long", b'{"prompt":"' + b"a" * (4 << 20) + b'","completion":"a"}', "longer than 4194304 bytes"),
    ("unhashable role", b'{"messages":[{"role":["user"],"content":"a"}]}', "`messages[0].role`"),
    ("no role", b'{"messages":[{"content":"a"}]}', "`messages[0].role`"),
    ("a turn of text", b'{"messages":["a"]}', "`messages[0]` must be an object"),
    ("turns of no list", b'{"messages":{"role":"user"}}', "list of turns"),
    ("content null", b'{"messages":[{"role":"user","content":null}]}', "`messages[0].content` must be a string"),
    ("content a number", b'{"messages":[{"role":"user","content":5}]}', "`messages[0].content` must be a string"),
    ("content empty", b'{"messages":[{"role":"user","content":" "}]}', "`messages[0].content` is empty"),
    ("empty parts", b'{"messages":[{"role":"user","content":[]}]}', "`messages[0].content` is empty"),
    ("a picture", b'{"messages":[{"role":"user","content":[{"type":"image_url","image_url":"x"}]}]}', "only text"),
    ("a part of text", b'{"messages":[{"role":"user","content":["a"]}]}', "`messages[0].content[0]`"),
    ("tool_calls no list", b'{"messages":[{"role":"assistant","tool_calls":{"a":1}}]}', "tool_calls` must be a list"),
    ("tool_calls of text", b'{"messages":[{"role":"assistant","tool_calls":["a"]}]}', "tool_calls[0].function`"),
    (
        "J15 arguments that are read and cannot be written",
        b'{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":'
        + b"[" * 500
        + b"]" * 500
        + b"}}]}]}",
        "arguments` is nested too deep",
    ),
    ("nobody answers", b'{"messages":[{"role":"user","content":"a"}]}', "no message of the assistant"),
    ("history of text", b'{"instruction":"a","output":"b","history":["a"]}', "`history`"),
    ("input of no text", b'{"instruction":"a","input":5,"output":"b"}', "`input` must be a string"),
    ("no output", b'{"instruction":"a","output":""}', "`output` is empty"),
    (
        "prompt of turns, completion of text",
        b'{"prompt":[{"role":"user","content":"a"}],"completion":"b"}',
        "`completion`",
    ),
    ("no format", b'{"a":"a"}', "no known format: the keys are `a`"),
]


@pytest.mark.parametrize("name", ["messages", "instruction", "prompt_completion"])
async def test_every_bad_line_is_named_with_its_reason(stack: Stack, name: str) -> None:
    """Each bad line is reported with number and reason, and the other lines are read."""
    keys = {"messages": b'{"messages', "instruction": b'{"instruction'}
    rows = [
        row for row in BAD if next((kind for kind, key in keys.items() if key in row[1]), "prompt_completion") == name
    ]
    data = b"\n".join(line for _, bad, _ in rows for line in (orjson.dumps(LINES[name]), bad))
    dataset = await import_bytes(stack, data, size=60_001)
    assert dataset.validation_error_count == len(rows) > 2
    by_line = {line: error.reason for error in dataset.validation_errors for line in error.lines}
    for number, (row, _, reason) in enumerate(rows):
        assert reason in by_line[2 * number + 2], row
        assert len(by_line[2 * number + 2]) < 300, row
    assert sum(error.count for error in dataset.validation_errors) == len(rows)
    assert dataset.total_training_pairs == len(rows)


async def test_a_line_may_be_as_long_as_the_limit(stack: Stack) -> None:
    """A line of the largest size is read, one byte more is refused, with and without a final line break."""
    frame = len(b'{"prompt":"","completion":"b"}')
    for size, end, errors in [
        (4 << 20, b"\n", 0),
        ((4 << 20) + 1, b"\n", 1),
        ((4 << 20) + 1, b"", 1),
        (9 << 20, b"", 1),
    ]:
        line = b'{"prompt":"' + b"word " * ((size - frame) // 5) + b"a" * ((size - frame) % 5) + b'","completion":"b"}'
        assert len(line) == size
        dataset = await import_bytes(stack, line + end, size=1 << 20)
        assert dataset.validation_error_count == errors, size


def test_long_texts_are_counted_as_short_ones_are() -> None:
    """A text counted in pieces has the same tokens as the whole."""
    random_words = Random(7)
    words = ["".join(random_words.choices("abcdefgh\n\té漢", k=random_words.randint(1, 12))) for _ in range(60_000)]
    text = " ".join(words)
    assert len(text) > 3 * PIECE
    assert count_tokens([text]) == len(_processor().encode(text, out_type=int))
    assert abs(count_tokens(["x" * 300_000]) - len(_processor().encode("x" * 300_000, out_type=int))) <= 10


async def test_a_byte_order_mark_is_no_part_of_a_file(stack: Stack) -> None:
    """A BOM, blank lines and Windows line breaks are ignored."""
    line = orjson.dumps(LINES["messages"])
    dataset = await import_bytes(stack, b"\xef\xbb\xbf" + line + b"\r\n\r\n \n" + line)
    assert (dataset.validation_error_count, dataset.total_training_pairs) == (0, 2)


class BrokenStorage(MemoryFileSystem):
    """Fails with its own exceptions, as cloud storages do, at the step in the URL."""

    protocol = "broken"

    def _fail(self, step: str, path: str) -> None:
        if f"/{step}/" in path:
            raise RuntimeError(f"EndpointConnectionError: no {step}, key=secret")

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._fail("makedirs", path)
        super().makedirs(path, exist_ok)

    def _open(self, path: str, *arguments: Any, **options: Any) -> Any:
        self._fail("open", path)
        return super()._open(path, *arguments, **options)

    def mv(self, path: str, *arguments: Any, **options: Any) -> None:
        self._fail("mv", path)
        super().mv(path, *arguments, **options)


@pytest.mark.parametrize("step", ["makedirs", "open", "mv"])
async def test_a_storage_that_fails_is_unavailable(step: str) -> None:
    """Any exception of a storage is STORAGE_UNAVAILABLE without its text, and nothing is stored."""
    fsspec.register_implementation("broken", BrokenStorage, clobber=True)

    async def chunks() -> AsyncIterator[bytes]:
        yield orjson.dumps(LINES["messages"])

    async with Importer.open(Storage(f"broken://bucket/{step}/x"), max_bytes=1000, metrics=Metrics()) as importer:
        with pytest.raises(StorageUnavailable) as caught:
            async with importer.read(chunks(), "a/b.jsonl", remaining_bytes=1_000_000):
                raise AssertionError("recorded")
    assert "secret" not in caught.value.message + caught.value.details
    assert not [path for path in BrokenStorage.store if step in path]


@pytest.mark.parametrize("url", ["nonsense://x", "s4://bucket"])
def test_an_unknown_storage_stops_the_start(url: str) -> None:
    """A URL that fsspec cannot open is one line for the operator."""
    with pytest.raises(StorageError, match="PIPELINE_STORAGE_URL") as caught:
        Storage(url)
    assert "\n" not in str(caught.value)


def test_a_storage_url_with_a_password_stops_the_start() -> None:
    """Owners of datasets and trainers read the URL as `storage_bucket`; the error does not repeat the password."""
    with pytest.raises(StorageError, match="PIPELINE_STORAGE_URL: it has a password") as caught:
        Storage("memory://pipeline:s3cret@files/datasets")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("failure", "kept"), [(NotOwner("no"), False), (ZeroDivisionError(), False), (DatabaseUnavailable(), True)]
)
async def test_a_file_that_is_not_recorded_is_removed(tmp_path: Path, failure: Exception, kept: bool) -> None:
    """The file is removed if recording it failed, and kept if the outcome is unknown: a row may name it."""

    async def chunks() -> AsyncIterator[bytes]:
        yield orjson.dumps(LINES["messages"])

    async with Importer.open(Storage(f"file://{tmp_path}"), max_bytes=1000, metrics=Metrics()) as importer:
        with pytest.raises(type(failure)):
            async with importer.read(chunks(), "a/b.jsonl", remaining_bytes=1_000_000):
                raise failure
    assert files_in(tmp_path) == ["b.jsonl"] * kept


async def test_a_cancelled_import_leaves_nothing(stack: Stack, admin: asyncpg.Connection, tmp_path: Path) -> None:
    """A cancelled import leaves no dataset and no file, not even an incomplete one."""
    going = asyncio.Event()

    async def requests() -> AsyncIterator[datasets_pb2.ImportDatasetRequest]:
        yield datasets_pb2.ImportDatasetRequest(name="half")
        for _ in range(3):
            yield datasets_pb2.ImportDatasetRequest(chunk=(orjson.dumps(LINES["messages"]) + b"\n") * 5_000)
        going.set()
        await asyncio.sleep(30)

    async def send() -> None:
        await stack.datasets.ImportDataset(requests(), metadata=metadata(ANN))

    task = asyncio.create_task(send())
    await going.wait()
    async with asyncio.timeout(10):
        while not files_in(tmp_path):
            await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(10):
        while files_in(tmp_path):
            await asyncio.sleep(0.02)
    assert await admin.fetchval("select count(*) from lora_datasets") == 0


async def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    """A file is refused as soon as it exceeds the limit, and nothing is stored."""

    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield (orjson.dumps(LINES["messages"]) + b"\n") * 1_000

    async with Importer.open(Storage(f"file://{tmp_path}"), max_bytes=1_000_000, metrics=Metrics()) as importer:
        with pytest.raises(TooLarge):
            async with importer.read(chunks(), "a/b.jsonl", remaining_bytes=10_000_000):
                raise AssertionError("recorded")
    assert not files_in(tmp_path)


async def test_many_files_of_one_user_delay_no_other(tmp_path: Path) -> None:
    """Many slow files of one user do not delay another user's import."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Storage):
        def writer(self, path: str) -> Writer:
            writer = super().writer(path)
            if path.startswith("ann/"):
                writer.write = wait_first(writer.write)  # type: ignore[method-assign]
            return writer

    def wait_first(write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def waiting(data: bytes) -> None:
            begun.set()
            go_on.wait(30)
            write(data)

        return waiting

    async def chunks() -> AsyncIterator[bytes]:
        yield orjson.dumps(LINES["messages"]) + b"\n"

    async def take(path: str) -> None:
        async with importer.read(chunks(), path, remaining_bytes=1000):
            pass

    async with Importer.open(Slow(f"file://{tmp_path}"), max_bytes=1000, metrics=Metrics()) as importer:
        ann = [asyncio.create_task(take(f"ann/{number}.jsonl")) for number in range(4)]
        try:
            async with asyncio.timeout(10):
                while not begun.is_set():
                    await asyncio.sleep(0.01)
                await take("bob/1.jsonl")
            assert files_in(tmp_path / "bob") == ["1.jsonl"]
            assert not any(task.done() for task in ann)
        finally:
            go_on.set()
        await asyncio.gather(*ann)
    assert len(files_in(tmp_path / "ann")) == 4


async def test_reasons_are_listed_once_and_no_row_is_trained_on(stack: Stack, tmp_path: Path) -> None:
    """A file with bad rows has each reason once with lines and count, and only an excerpt is stored."""
    good = orjson.dumps(LINES["messages"]) + b"\n"
    bad = [b"{", b"[]", b"\xff", b'{"a":1}', b'{"messages":[]}', b'{"text":"a"}']
    data = good + b"\n".join(bad) + b"\n" + b"x\n" * 60 + good * 10_000
    dataset = await import_bytes(stack, data, size=1 << 20)
    assert (dataset.status, dataset.training_ready) == (datasets_pb2.DATASET_STATUS_ERROR, False)
    assert (len(dataset.validation_errors), dataset.validation_error_count) == (7, 66)
    assert [error.line for error in dataset.validation_errors] == [2, 3, 4, 5, 6, 7, 8]
    last = dataset.validation_errors[6]
    assert (last.count, list(last.lines), last.column, last.text) == (60, [*range(8, 18)], 1, "x")
    assert "list of turns" in dataset.validation_errors[4].reason
    assert files_in(tmp_path) == [Path(dataset.storage_path).name]
    assert (tmp_path / "storage" / dataset.storage_path).stat().st_size == dataset.stored_size < 300_000 < len(data)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        request = jobs_pb2.CreateJobRequest(
            dataset_id=dataset.id,
            preset_id="PRESET_ID_FAST",
            gpu_config={"type": "H100", "count": 1},
            hyperparameters={"batch_size": 8, "epochs": 1, "learning_rate": 1e-4, "rank": 8},
        )
        await stack.jobs.CreateJob(request, metadata=metadata(ANN))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_an_empty_file_is_an_error(stack: Stack) -> None:
    """A file without lines is a dataset of status error, with an error for the whole file."""
    dataset = await import_bytes(stack, b"")
    assert [(error.line, error.reason[:17]) for error in dataset.validation_errors] == [(0, "the file is empty")]


async def test_a_name_is_required(stack: Stack, admin: asyncpg.Connection) -> None:
    """An import without a name is refused and leaves nothing."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await import_bytes(stack, b"", name=None)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await admin.fetchval("select count(*) from lora_datasets") == 0


async def test_lists_search_by_name(stack: Stack) -> None:
    """Datasets are found by a part of their name in any case, and a wildcard is only a character."""
    await import_bytes(stack, orjson.dumps(LINES["messages"]))
    for search, total in {"greet": 1, "GREETINGS": 1, "%": 0, "": 1}.items():
        request = datasets_pb2.ListDatasetsRequest(search=search)
        page_of = await stack.datasets.ListDatasets(request, metadata=metadata(ANN))
        assert page_of.pagination.total == total, search
