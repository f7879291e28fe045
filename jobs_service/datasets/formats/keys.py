"""The keys of a row: which format they are, and what was meant where they are none. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from jobs_service.datasets.formats.values import code_list

# A conversation stands under one of these, by the format's name.
CHATS: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "conversations": ("conversations", "conversation"),
    "turns": ("turns",),
    "contents": ("contents",),
}
# A question and its answer stand under two of these.
COLUMNS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "instruction": (("instruction", "output"), ("instruction", "response")),
    "prompt_completion": (("prompt", "completion"), ("prompt", "response")),
    "question_answer": (
        ("question", "answer"),
        ("question", "response"),
        ("user", "assistant"),
        ("human", "assistant"),
    ),
    "query_response": (("query", "response"),),
    "input_output": (("input", "output"),),
}
# What a column holds that a row does not use; false and 0 say something.
EMPTY: tuple[Any, ...] = (None, "", [], {})
MEDIA = frozenset({"images", "image", "videos", "video", "audios", "audio"})
# Columns that a format reads beside those.
_CONVERSATION = frozenset({"system", "tools", "functions"})
_QUESTION = _CONVERSATION | {"context"}
BESIDE: Mapping[str, frozenset[str]] = {
    "messages": _CONVERSATION,
    "conversations": _CONVERSATION,
    "turns": _CONVERSATION,
    "contents": frozenset({"systemInstruction", "system_instruction", "tools"}),
    "instruction": _QUESTION | {"input", "history"},
    "question_answer": _QUESTION,
    "query_response": _QUESTION,
    "input_output": _QUESTION,
    "prompt_completion": _CONVERSATION,
}
# Columns that describe a row and are no part of what is trained on. `text` beside other columns repeats them.
DESCRIPTIVE = frozenset(
    {
        *(
            "conversation_id",
            "id",
            "idx",
            "index",
            "uuid",
            "source",
            "dataset",
            "category",
            "metadata",
            "meta",
            "split",
        ),
        *("url", "lang", "language", "timestamp", "created_at", "parallel_tool_calls", "text"),
    }
)
_CONTENT = (
    *(key for keys in CHATS.values() for key in keys),
    *(key for pairs in COLUMNS.values() for pair in pairs for key in pair),
    "text",
)
_KNOWN = frozenset({*_CONTENT, *MEDIA, *DESCRIPTIVE, *(key for keys in BESIDE.values() for key in keys)})
FORMATS = (
    "`messages`, `conversations`, `turns` or `contents` with a list of messages; `prompt` and `completion`; "
    "`instruction` and `output`; `question` and `answer`; `input` and `output`; `user` and `assistant`; or `text`"
)


def detect(row: Mapping[str, Any]) -> tuple[str, tuple[str, ...]] | None:
    """The format of a row without nulls, and the keys that hold its text; None where no format has its keys."""
    columns = next(
        ((name, pair) for name, pairs in COLUMNS.items() for pair in pairs if pair[0] in row and pair[1] in row), None
    )
    for name, keys in CHATS.items():
        for key in keys:
            # An empty list beside other columns is a column that this row does not use.
            if key in row and (row[key] or columns is None):
                return name, (key,)
    if columns is not None:
        return columns
    return ("text", ("text",)) if "text" in row else None


def unknown_format(row: Mapping[str, Any]) -> str:
    """Why a row has no known format: the keys that it has, and those that may be meant."""
    found = f"no known format: the keys are {code_list(row)}" if row else "no known format: the row has no keys"
    meant = {key: name for key in row if (name := _nearest(key))}
    if not meant:
        return f"{found}. Use {FORMATS}; or map columns at upload, such as `{next(iter(row), 'column')!s:.40}:prompt`"
    pairs = ", ".join(f"`{key[:40]}` for `{name}`" for key, name in meant.items())
    return (
        f"{found}. Probably meant: {pairs}. Rename them (spelling, blanks and capitals count), or map columns at upload"
    )


def unread(row: Mapping[str, Any], format_: str, used: Iterable[str]) -> set[str]:
    """The columns of a row that hold something, are not read in this format, and may matter."""
    rest = row.keys() - DESCRIPTIVE - BESIDE.get(format_, frozenset()) - set(used)
    return {key for key in rest if row[key] not in EMPTY and not key.startswith(("train_on", "mask_"))}


def misspelled(key: str) -> str | None:
    """The column that a key is but for capitals, blanks and signs; None where it is one, or none."""
    folded = _folded(key)
    return folded if folded != key and folded in _CONTENT else None


def _folded(key: str) -> str:
    return "".join(letter for letter in key.lower() if letter.isalnum() or letter == "_").strip("_")


def _nearest(key: str) -> str | None:
    """The known key that a key is probably meant to be; None where it is one, or like none."""
    if key in _KNOWN:
        return None
    folded = _folded(key)
    close = [folded] if folded in _CONTENT else get_close_matches(folded[:40], _CONTENT, n=1, cutoff=0.8)
    return close[0] if close else None
