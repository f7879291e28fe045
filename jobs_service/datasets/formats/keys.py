"""Detects the format of a row by its keys, and suggests keys for unknown ones. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from jobs_service.datasets.formats.values import code_list

# Keys of a conversation, by the format's name.
CHATS: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "conversations": ("conversations", "conversation"),
    "turns": ("turns",),
    "contents": ("contents",),
}
# Pairs of keys of a question and its answer, by the format's name.
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
# Values of columns that a row does not use. False and 0 are values that may matter.
EMPTY: tuple[Any, ...] = (None, "", [], {})
MEDIA = frozenset({"images", "image", "videos", "video", "audios", "audio"})
# Further columns that a format reads.
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
# Columns that describe a row and are not trained on. `text` beside other columns repeats them.
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
    """Returns the format of a row without nulls and the keys of its text; None if no format has its keys."""
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
    """Returns an error for a row of unknown format: its keys, and those that may be meant."""
    found = f"no known format: the keys are {code_list(row)}" if row else "no known format: the row has no keys"
    meant = {key: name for key in row if (name := _nearest(key))}
    if not meant:
        return f"{found}. Use {FORMATS}; or map columns at upload, such as `{next(iter(row), 'column')!s:.40}:prompt`"
    pairs = ", ".join(f"`{key[:40]}` for `{name}`" for key, name in meant.items())
    return (
        f"{found}. Probably meant: {pairs}. Rename them (spelling, blanks and capitals count), or map columns at upload"
    )


def unread(row: Mapping[str, Any], format_: str, used: Iterable[str]) -> set[str]:
    """Returns the columns of a row that have a value, are not read in this format, and may matter."""
    rest = row.keys() - DESCRIPTIVE - BESIDE.get(format_, frozenset()) - set(used)
    return {key for key in rest if row[key] not in EMPTY and not key.startswith(("train_on", "mask_"))}


def misspelled(key: str) -> str | None:
    """Returns the known column that a key equals except for capitals, blanks and punctuation; None if there is none."""
    folded = _folded(key)
    return folded if folded != key and folded in _CONTENT else None


def _folded(key: str) -> str:
    return "".join(letter for letter in key.lower() if letter.isalnum() or letter == "_").strip("_")


def _nearest(key: str) -> str | None:
    """Returns the known key that a key is probably meant to be; None if the key itself is known, or similar to none."""
    if key in _KNOWN:
        return None
    folded = _folded(key)
    close = [folded] if folded in _CONTENT else get_close_matches(folded[:40], _CONTENT, n=1, cutoff=0.8)
    return close[0] if close else None
