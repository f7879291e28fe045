"""The formats that training data comes in: which one a line has, and what is in it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

USERS = frozenset({"user", "human"})
ASSISTANTS = frozenset({"assistant", "gpt", "bot", "model"})
# Roles that take no turn of their own.
OTHERS = frozenset({"system", "tool", "function", "developer"})


class BadLineError(ValueError):
    """A line that cannot be trained on; says what is wrong and what would be right."""


@dataclass(frozen=True, slots=True)
class Example:
    """What one line trains on: `pairs` of a user's turn and its answer, and all its `texts`."""

    pairs: int
    texts: Sequence[str]


def detect(line: Mapping[str, Any]) -> str | None:
    """The format of a line, by its keys; None where no format has them."""
    if "messages" in line:
        return "messages"
    if "turns" in line and "conversation_id" in line:
        return "turns"
    if "conversations" in line:
        return "conversations"
    if "instruction" in line and "output" in line:
        return "instruction"
    if "prompt" in line and "completion" in line:
        return "prompt_completion"
    return None


def parse(name: str, line: Mapping[str, Any]) -> Example:
    """Reads a line of a format. Raises BadLineError."""
    return READERS[name](line)


def _chat(key: str, role_key: str, text_key: str) -> Callable[[Mapping[str, Any]], Example]:
    def read(line: Mapping[str, Any]) -> Example:
        turns = line.get(key)
        if not isinstance(turns, list) or not turns:
            raise BadLineError(f"`{key}` must be a list of turns")
        pairs, texts, asked = 0, [], False
        for number, turn in enumerate(turns):
            where = f"{key}[{number}]"
            if not isinstance(turn, dict):
                raise BadLineError(f"`{where}` must be an object with `{role_key}` and `{text_key}`")
            role = turn.get(role_key)
            if role not in USERS | ASSISTANTS | OTHERS:
                raise BadLineError(f"`{where}.{role_key}` must be a role such as user or assistant")
            texts.append(_text(turn, text_key, where))
            if role in USERS:
                asked = True
            elif role in ASSISTANTS:
                pairs, asked = pairs + asked, False
        if not pairs:
            raise BadLineError(f"`{key}` has no user's turn that the assistant answers")
        return Example(pairs, texts)

    return read


def _instruction(line: Mapping[str, Any]) -> Example:
    texts = [_text(line, "instruction"), _text(line, "output")]
    if line.get("input"):
        texts.insert(1, _text(line, "input"))
    return Example(1, texts)


def _prompt_completion(line: Mapping[str, Any]) -> Example:
    return Example(1, [_text(line, "prompt"), _text(line, "completion")])


def _text(line: Mapping[str, Any], key: str, where: str = "") -> str:
    value = line.get(key)
    name = f"{where}.{key}" if where else key
    if not isinstance(value, str):
        raise BadLineError(f"`{name}` must be a string")
    if not value.strip():
        raise BadLineError(f"`{name}` is empty")
    if "\0" in value:
        raise BadLineError(f"`{name}` contains a NUL character")
    return value


READERS: Mapping[str, Callable[[Mapping[str, Any]], Example]] = {
    "messages": _chat("messages", "role", "content"),
    "conversations": _chat("conversations", "from", "value"),
    "turns": _chat("turns", "role", "content"),
    "instruction": _instruction,
    "prompt_completion": _prompt_completion,
}
