"""Shapes of rows: accepted, accepted with a warning, or refused with the keys found and those probably meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from pipeline.datasets.v1 import datasets_pb2

from tests.conftest import Stack
from tests.door import refused
from tests.jobs_service.datasets.test_import import import_bytes

READY, ERROR = datasets_pb2.DATASET_STATUS_READY, datasets_pb2.DATASET_STATUS_ERROR
# Rows of either transport are the same: one is enough.
pytestmark = pytest.mark.parametrize("stack", ["local"], indirect=True)


def lines(*rows: Any) -> bytes:
    """Rows as JSON Lines."""
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    """Returns a message as it is stored."""
    return {"role": role, "content": content, **({"train": True} if role == "assistant" else {}), **more}


async def stored(stack: Stack, folder: Path, data: bytes, **options: Any) -> tuple[datasets_pb2.Dataset, list[Any]]:
    """A dataset that is ready, and its stored rows without their numbers."""
    dataset = await import_bytes(stack, data, size=1 << 20, **options)
    assert dataset.status == READY, dataset.validation_errors
    rows = [orjson.loads(row) for row in (folder / "storage" / dataset.storage_path).read_bytes().splitlines()]
    numbers = [(row.pop("row"), row.pop("line"), row.pop("pairs"), row.pop("tokens")) for row in rows]
    assert [number[0] for number in numbers] == [*range(1, len(rows) + 1)]
    assert sum(number[2] for number in numbers) == dataset.total_training_pairs
    assert sum(number[3] for number in numbers) == dataset.total_tokens
    return dataset, rows


HI, YO = said("user", "Ciao"), said("assistant", "Salve")
# The same answer without a mark, as files have it.
ANSWER = {"role": "assistant", "content": "Salve"}
CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city":"Linz"}'}}
TAKEN: list[tuple[str, Any, str, Any]] = [
    (
        "08 a system prompt and its answer",
        {"messages": [said("system", "Write."), {"role": "assistant", "content": "Done."}]},
        "messages",
        {"messages": [said("system", "Write."), said("assistant", "Done.")]},
    ),
    (
        "08 an answer to nothing",
        {"conversations": [{"from": "gpt", "value": "Salve"}]},
        "conversations",
        {"messages": [YO]},
    ),
    ("08 an empty prompt", {"prompt": "", "completion": "x"}, "prompt_completion", {"prompt": "", "completion": "x"}),
    (
        "08 an empty instruction",
        {"instruction": "", "input": "Ciao", "output": "Salve"},
        "instruction",
        {"messages": [HI, YO]},
    ),
    ("16 raw text", {"text": "Once upon\na time."}, "text", {"text": "Once upon\na time."}),
    ("16 question and answer", {"question": "Ciao", "answer": "Salve"}, "question_answer", {"messages": [HI, YO]}),
    (
        "16 roles as columns",
        {"system": "Be.", "user": "Ciao", "assistant": "Salve"},
        "question_answer",
        {"messages": [said("system", "Be."), HI, YO]},
    ),
    ("16 input and output", {"input": "Ciao", "output": "Salve"}, "input_output", {"messages": [HI, YO]}),
    ("16 query and response", {"query": "Ciao", "response": "Salve"}, "query_response", {"messages": [HI, YO]}),
    (
        "16 a question with its context and a system prompt",
        {"question": "Ciao", "context": "Rome", "answer": "Salve", "system": "Be."},
        "question_answer",
        {"messages": [said("system", "Be."), said("user", "Ciao\n\nRome"), YO]},
    ),
    (
        "16 Gemini",
        {
            "systemInstruction": {"role": "system", "parts": [{"text": "Be."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "Ci"}, {"text": "ao"}]},
                {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {"city": "Linz"}}}]},
                {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {"sun": 1}}}]},
                {"role": "model", "parts": [{"text": "Salve"}]},
            ],
        },
        "contents",
        {
            "messages": [
                said("system", "Be."),
                HI,
                said("assistant", "", tool_calls=[CALL]),
                said("tool", '{"sun":1}'),
                YO,
            ]
        },
    ),
    (
        "19 nulls in every other column",
        {"messages": None, "text": None, "question": "Ciao", "answer": "Salve"},
        "question_answer",
        {"messages": [HI, YO]},
    ),
    (
        "19 an empty list beside other columns",
        {"conversations": [], "input": "Ciao", "output": "Salve"},
        "input_output",
        {"messages": [HI, YO]},
    ),
    (
        "19 nulls inside messages",
        {
            "messages": [
                {**HI, "name": None, "weight": None},
                {"role": "assistant", "content": "Salve", "tool_calls": None},
            ]
        },
        "messages",
        {"messages": [HI, YO]},
    ),
    ("messages as a string of JSON", {"messages": orjson.dumps([HI, YO]).decode()}, "messages", {"messages": [HI, YO]}),
    (
        "04 a list of messages as a row",
        [{"from": "human", "value": "Ciao"}, {"from": "gpt", "value": "Salve"}],
        "messages",
        {"messages": [HI, YO]},
    ),
    (
        "15 spellings of tools",
        {
            "messages": [
                HI,
                {"role": "tool_call", "content": '{"name": "weather", "arguments": {"city":"Linz"}}'},
                {"role": "ipython", "content": "sun"},
                YO,
            ]
        },
        "messages",
        {"messages": [HI, said("assistant", "", tool_calls=[CALL]), said("tool", "sun"), YO]},
    ),
    (
        "reasoning in any of its keys",
        {"messages": [HI, {"role": "assistant", "content": "Salve", "thinking": "Latin?"}]},
        "messages",
        {"messages": [HI, said("assistant", "Salve", reasoning_content="Latin?")]},
    ),
    (
        "06 answers that are not trained on",
        {"messages": [HI, {**ANSWER, "weight": 0}, HI, {**ANSWER, "weight": 1}, HI, {**ANSWER, "train": False}]},
        "messages",
        {"messages": [HI, {**YO, "train": False}, HI, YO, HI, {**YO, "train": False}]},
    ),
    (
        "TRL's prompt is not trained on",
        {
            "prompt": [HI, {"role": "assistant", "content": "Salve"}, HI],
            "completion": [{"role": "assistant", "content": "Salve"}],
        },
        "prompt_completion",
        {"messages": [HI, {**YO, "train": False}, HI, YO]},
    ),
    (
        "a mark that says what is done anyway",
        {"messages": [HI, YO], "train_on_inputs": False},
        "messages",
        {"messages": [HI, YO]},
    ),
    (
        "functions as OpenAI had them",
        {"messages": [HI, YO], "functions": [{"name": "f"}]},
        "messages",
        {"messages": [HI, YO], "tools": '[{"type":"function","function":{"name":"f"}}]'},
    ),
]


async def test_common_shapes_are_taken(stack: Stack, tmp_path: Path) -> None:
    """Cases 04, 06, 08, 15, 16, 19: each shape becomes the messages, the prompt and completion, or the text that it means."""
    for row, value, name, content in TAKEN:
        dataset, rows = await stored(stack, tmp_path, lines(value))
        assert (dataset.format, rows) == (name, [content]), row
        assert not dataset.validation_warnings, (row, dataset.validation_warnings)


PREFERENCES: list[tuple[str, dict[str, Any]]] = [
    ("DPO", {"prompt": "Ciao", "chosen": "Salve", "rejected": "No"}),
    ("DPO", {"chosen": [HI, YO], "rejected": [HI, YO]}),
    ("DPO", {"messages": [HI, YO], "rejected_response": "No"}),
    ("DPO", {"input": {"messages": [HI]}, "preferred_output": [YO], "non_preferred_output": [YO]}),
    ("KTO", {"instruction": "Ciao", "output": "Salve", "kto_tag": True}),
    ("KTO", {"prompt": "Ciao", "completion": "Salve", "label": False}),
    ("KTO", {"conversations": [HI, YO], "label": 1}),
    ("KTO", {"prompt": "Ciao", "completion": "Salve", "desirable": False}),
    ("DPO", {"prompt": "Ciao", "response_a": "Salve", "response_b": "No", "winner": "a"}),
    ("DPO", {"question": "Ciao", "better": "Salve", "worse": "No"}),
    ("a ranking", {"instruction": "Ciao", "output": ["Salve", "No", "Maybe"]}),
]


async def test_preference_data_is_named_and_refused(stack: Stack) -> None:
    """Case 05: preference data is refused once for all rows, with the method and its keys."""
    for method, row in PREFERENCES:
        dataset = await import_bytes(stack, lines(row, row, row), size=1 << 20)
        (error,) = dataset.validation_errors
        assert (dataset.status, error.count, error.lines) == (ERROR, 3, [1, 2, 3]), row
        assert f"preference data ({method}" in error.reason, row
        assert "SFT" in error.reason


async def test_a_label_that_is_a_category_is_no_preference(stack: Stack, tmp_path: Path) -> None:
    """A column `label` with text, or with false, is an unknown column with a warning."""
    for column in ({"label": "greeting"}, {"reviewed": False}, {"score": 0}):
        dataset, _ = await stored(stack, tmp_path, lines({"prompt": "Ciao", "completion": "Salve", **column}))
        assert [(warning.kind, warning.count) for warning in dataset.validation_warnings] == [("unread_key", 1)], column


async def test_marks_that_cannot_be_honoured_are_refused(stack: Stack) -> None:
    """Case 06: a weight is 0 or 1, of an assistant's message; spans, masks and training on prompts are refused."""
    marks: list[tuple[dict[str, Any], str]] = [
        *(
            ({"messages": [HI, {**ANSWER, "weight": value}]}, "`messages[1].weight` must be 0 or 1")
            for value in (0.5, "1", 7, True, -1)
        ),
        ({"messages": [{**HI, "weight": 1}, YO]}, "only assistant messages are trained on"),
        ({"messages": [HI, {**YO, "train": "no"}]}, "`messages[1].train` must be true or false"),
        ({"messages": [HI, {"role": "assistant", "content": "x", "train": True, "weight": 0}]}, "contradict"),
        (
            {"messages": [HI, {**ANSWER, "training_detail": [{"begin_offset": 0}]}]},
            "`messages[1].training_detail` is not",
        ),
        ({"messages": [HI, YO], "train_on_inputs": True}, "`train_on_inputs` is not supported"),
        ({"messages": [HI, YO], "mask_history": True}, "`mask_history` is not supported"),
        ({"messages": [HI, YO], "weight": 0}, "`weight` of a whole row is not supported"),
        ({"prompt": "Ciao", "completion": "Salve", "train": False}, "`train` of a whole row is not supported"),
    ]
    for row, reason in marks:
        dataset = await import_bytes(stack, lines(row), size=1 << 20)
        assert [reason in error.reason for error in dataset.validation_errors] == [True], (
            row,
            dataset.validation_errors,
        )


async def test_what_is_not_trained_on_is_not_counted(stack: Stack, tmp_path: Path) -> None:
    """Case 06: a row without a trained answer is left out with a warning; a file with only such rows is an error."""
    off = {"messages": [HI, {**ANSWER, "weight": 0}]}
    dataset, rows = await stored(stack, tmp_path, lines(off, {"messages": [HI, YO]}, off))
    assert (dataset.total_training_pairs, dataset.total_rows, len(rows)) == (1, 1, 1)
    (warning,) = dataset.validation_warnings
    assert (warning.kind, warning.count, warning.lines) == ("not_trained", 2, [1, 3])
    dataset = await import_bytes(stack, lines(off, off), size=1 << 20)
    assert (dataset.status, dataset.total_training_pairs) == (ERROR, 0)
    assert [
        (error.line, "nothing in the file is trained on" in error.reason) for error in dataset.validation_errors
    ] == [(0, True)]


async def test_everything_that_is_trained_on_is_counted(stack: Stack, tmp_path: Path) -> None:
    """Case 09: tools, reasoning and calls count in tokens, the longest sample and the histogram, as any text does."""
    tools = [
        {"type": "function", "function": {"name": f"tool_{number}", "description": "Says what time it is."}}
        for number in range(20)
    ]
    bare, _ = await stored(stack, tmp_path, lines({"messages": [HI, YO]}))
    with_tools, _ = await stored(stack, tmp_path, lines({"messages": [HI, YO], "tools": tools}))
    as_text, _ = await stored(
        stack, tmp_path, lines({"messages": [said("system", orjson.dumps(tools).decode()), HI, YO]})
    )
    assert with_tools.total_tokens == as_text.total_tokens > 400 + bare.total_tokens
    assert with_tools.longest_tokens == with_tools.total_tokens == with_tools.token_histogram[-1].up_to_tokens
    as_json_text, _ = await stored(
        stack, tmp_path, lines({"messages": [HI, YO], "tools": orjson.dumps(tools).decode()})
    )
    assert as_json_text.total_tokens == with_tools.total_tokens
    thinking, _ = await stored(stack, tmp_path, lines({"messages": [HI, {**ANSWER, "reasoning_content": "so " * 100}]}))
    calling, _ = await stored(
        stack, tmp_path, lines({"messages": [HI, said("assistant", "", tool_calls=[CALL]), said("tool", "sun"), YO]})
    )
    assert thinking.total_tokens >= bare.total_tokens + 100
    assert calling.total_tokens >= bare.total_tokens + 8
    assert (calling.total_training_pairs, thinking.total_training_pairs) == (1, 1)


async def test_keys_that_are_nearly_right_are_named(stack: Stack) -> None:
    """Case 17: the error has the row's keys and those that were probably meant."""
    near: list[tuple[dict[str, Any], list[str]]] = [
        ({"Question": "Ciao", "Answer ": "Salve"}, ["`Question` for `question`", "`Answer ` for `answer`"]),
        ({"promt": "Ciao", "completion": "Salve"}, ["`promt` for `prompt`"]),
        ({"Messages": [HI, YO]}, ["`Messages` for `messages`"]),
        (
            {"instruction:": "Ciao", "input": "x", "output": "Salve"},
            ["`instruction:` is probably meant to be `instruction`"],
        ),
        ({"utterance": "Ciao", "reply": "Salve"}, ["the keys are `utterance`, `reply`", "map columns at upload"]),
    ]
    for row, reasons in near:
        dataset = await import_bytes(stack, lines(row), size=1 << 20)
        (error,) = dataset.validation_errors
        assert all(reason in error.reason for reason in reasons), (row, error.reason)


async def test_roles_that_are_nearly_right_are_read_and_others_listed(stack: Stack, tmp_path: Path) -> None:
    """Case 15: other capitalisation is accepted with a warning; the error for an unknown role lists the known ones."""
    data = lines({"conversations": [{"from": "HUMAN", "value": "Ciao"}, {"from": "Gpt", "value": "Salve"}]})
    dataset, rows = await stored(stack, tmp_path, data)
    assert rows == [{"messages": [HI, YO]}]
    assert {warning.kind for warning in dataset.validation_warnings} == {"role_spelling"}
    assert "`HUMAN` was read as user" in dataset.validation_warnings[0].message
    dataset = await import_bytes(stack, lines({"messages": [{"role": "caller", "content": "Ciao"}, YO]}), size=1 << 20)
    (error,) = dataset.validation_errors
    assert all(
        part in error.reason
        for part in ("`messages[0].role` is `caller`", "human", "gpt", "observation", "`caller:user`")
    )


async def test_columns_and_roles_can_be_mapped(stack: Stack, tmp_path: Path) -> None:
    """Case 17: an upload can map columns and spellings of roles, and ignore columns."""
    mapped = [
        ({"Frage": "Ciao", "Antwort": "Salve"}, ["Frage:user", "Antwort:assistant"], {"messages": [HI, YO]}),
        (
            {"a": "Be.", "b": "Ci", "c": "ao", "d": "Salve"},
            ["a:system", "b:user", "c:user", "d:assistant"],
            {"messages": [said("system", "Be."), said("user", "Ci\n\nao"), YO]},
        ),
        ({"q": "Ciao", "a": "Salve"}, ["q:prompt", "a:completion"], {"prompt": "Ciao", "completion": "Salve"}),
        ({"body": "Ciao"}, ["body:text"], {"text": "Ciao"}),
        ({"chat:log": [HI, YO]}, ["chat:log:messages"], {"messages": [HI, YO]}),
        ({"messages": [{"role": "caller", "content": "Ciao"}, YO]}, ["caller:user"], {"messages": [HI, YO]}),
        (
            {"messages": [HI, YO], "chosen": "x", "rejected": "y"},
            ["chosen:ignore", "rejected:ignore"],
            {"messages": [HI, YO]},
        ),
    ]
    for row, mapping, content in mapped:
        dataset, rows = await stored(stack, tmp_path, lines(row), mapping=mapping)
        assert rows == [content], row
        assert not dataset.validation_warnings, row
    dataset = await import_bytes(stack, lines({"q": "Ciao", "a": ""}), size=1 << 20, mapping=["q:user", "a:assistant"])
    assert "`a` is empty" in dataset.validation_errors[0].reason
    for mapping in (["q:admin"], ["q:user", "q:assistant"], [":user"]):
        assert (await refused(import_bytes(stack, b"{}", mapping=mapping))).reason == "VALIDATION_FAILED", mapping


async def test_unread_columns_get_a_warning(stack: Stack, tmp_path: Path) -> None:
    """Media, other columns and unanswered questions are imported with a warning that has its kind, count and first lines."""
    rows = [
        {"messages": [HI, YO, HI]},
        {"messages": [HI, YO], "images": ["a.png"]},
        {"messages": [HI, YO], "mood": "merry"},
        {"messages": [HI, {**YO, "mood": "merry"}], "source": "web", "id": 5},
        {"prompt": "Ciao", "completion": "Salve"},
    ]
    dataset, kept = await stored(stack, tmp_path, lines(*rows))
    assert len(kept) == 5
    warnings = {(warning.kind, warning.count, *warning.lines) for warning in dataset.validation_warnings}
    assert warnings == {
        ("unanswered", 1, 1),
        ("media", 1, 2),
        ("unread_key", 1, 3),
        ("unread_key", 1, 4),
        ("mixed_formats", 1, 5),
    }


async def test_training_that_would_be_wrong_is_refused(stack: Stack) -> None:
    """Rows with placeholders of media, and files that mix texts and conversations, are refused."""
    dataset = await import_bytes(
        stack, lines({"messages": [said("user", "<image> What?"), YO], "images": ["a.png"]}), size=1 << 20
    )
    assert "refers to media in `images`" in dataset.validation_errors[0].reason
    dataset = await import_bytes(stack, lines({"text": "Ciao"}, {"messages": [HI, YO]}), size=1 << 20)
    assert "the rows before are a text: upload them as two files" in dataset.validation_errors[0].reason


async def test_a_reason_is_listed_once_whichever_message_has_it(stack: Stack) -> None:
    """Rows with the same reason in other messages are one reason, with the count and the first ten lines."""
    rows = [{"messages": [*([HI, YO] * number), said("user", 5)]} for number in range(15)]  # type: ignore[arg-type]
    dataset = await import_bytes(stack, lines(*rows), size=1 << 20)
    (error,) = dataset.validation_errors
    assert (error.line, error.count, list(error.lines)) == (1, 15, [*range(1, 11)])
    assert error.reason == "`messages[0].content` must be a string"
