"""The formats that training data comes in: which one a line has, and what is in it. Pure.

They are those of OpenAI, TRL, Axolotl, LLaMA-Factory and Unsloth, with the spellings that their users' files have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

USERS = frozenset({"user", "human"})
# A call of a tool is an answer too.
ASSISTANTS = frozenset({"assistant", "gpt", "bot", "model", "chatgpt", "function_call"})
# Roles that take no turn of their own.
OTHERS = frozenset({"system", "tool", "function", "developer", "observation"})


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
    if "instruction" in line and ("output" in line or "response" in line):
        return "instruction"
    if "prompt" in line and "completion" in line:
        return "prompt_completion"
    return None


def parse(name: str, line: Mapping[str, Any]) -> Example:
    """Reads a line of a format. Raises BadLineError."""
    return READERS[name](line)


def _chat(key: str) -> Callable[[Mapping[str, Any]], Example]:
    def read(line: Mapping[str, Any]) -> Example:
        # A system prompt may stand beside the turns.
        texts, pairs, asked = _optional(line, "system"), 0, False
        for role, spoken in _turns(line, key):
            texts += spoken
            if role in USERS:
                asked = True
            elif role in ASSISTANTS:
                pairs, asked = pairs + asked, False
        if not pairs:
            raise BadLineError(f"`{key}` has no user's turn that the assistant answers")
        return Example(pairs, texts)

    return read


def _instruction(line: Mapping[str, Any]) -> Example:
    """Alpaca's keys, or Dolly's; earlier rounds may come along as `history`, a list of questions and their answers."""
    answer = "output" if "output" in line else "response"
    texts = [
        *_optional(line, "system"),
        _text(line, "instruction"),
        *_optional(line, "input"),
        *_optional(line, "context"),
    ]
    rounds = line.get("history") or []
    if not isinstance(rounds, list) or not all(isinstance(each, list) and len(each) == 2 for each in rounds):
        raise BadLineError("`history` must be a list of pairs: a question and its answer")
    for number, (question, reply) in enumerate(rounds):
        texts += [_string(question, f"history[{number}][0]"), _string(reply, f"history[{number}][1]")]
    return Example(len(rounds) + 1, [*texts, _text(line, answer)])


def _prompt_completion(line: Mapping[str, Any]) -> Example:
    """Two texts, or two lists of turns as TRL has them."""
    if not isinstance(line["prompt"], list):
        return Example(1, [_text(line, "prompt"), _text(line, "completion")])
    prompt, completion = list(_turns(line, "prompt")), list(_turns(line, "completion"))
    if not any(role in USERS for role, _ in prompt):
        raise BadLineError("`prompt` has no user's turn")
    if not any(role in ASSISTANTS for role, _ in completion):
        raise BadLineError("`completion` has no assistant's turn")
    return Example(1, [text for _, spoken in (*prompt, *completion) for text in spoken])


def _turns(line: Mapping[str, Any], key: str) -> Iterator[tuple[str, list[str]]]:
    """The role of each turn and its texts. A turn says `role` and `content`, or `from` and `value`."""
    turns = line.get(key)
    if not isinstance(turns, list) or not turns:
        raise BadLineError(f"`{key}` must be a list of turns")
    for number, turn in enumerate(turns):
        where = f"{key}[{number}]"
        if not isinstance(turn, dict):
            raise BadLineError(f"`{where}` must be an object with `role` and `content`, or `from` and `value`")
        role_key, text_key = ("from", "value") if "from" in turn and "role" not in turn else ("role", "content")
        role = turn.get(role_key)
        if not isinstance(role, str) or role not in USERS | ASSISTANTS | OTHERS:
            raise BadLineError(f"`{where}.{role_key}` must be a role such as user or assistant")
        calls = _calls(turn, where) if role in ASSISTANTS else []
        # A system prompt or a tool may say nothing, and so may an assistant who calls a tool instead.
        spoken = _content(turn.get(text_key), f"{where}.{text_key}", may_be_empty=role in OTHERS or bool(calls))
        yield role, spoken + calls


def _content(value: Any, name: str, *, may_be_empty: bool) -> list[str]:
    """A text, or a list of parts that are texts."""
    if value is None and may_be_empty:
        return []
    if not isinstance(value, list):
        return [_string(value, name, may_be_empty=may_be_empty)]
    texts = []
    for number, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text":
            raise BadLineError(f"`{name}[{number}]` is not a part of type text, and only text is trained on")
        texts.append(_string(part.get("text"), f"{name}[{number}].text", may_be_empty=True))
    if not may_be_empty and not any(map(str.strip, texts)):
        raise BadLineError(f"`{name}` is empty")
    return texts


def _calls(turn: Mapping[str, Any], where: str) -> list[str]:
    """What an assistant's calls of tools say: names and arguments."""
    calls = turn.get("tool_calls") or ([{"function": turn["function_call"]}] if turn.get("function_call") else [])
    if not isinstance(calls, list):
        raise BadLineError(f"`{where}.tool_calls` must be a list of calls")
    texts = []
    for number, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise BadLineError(f"`{where}.tool_calls[{number}].function` must have a name and arguments")
        arguments = function.get("arguments", "")
        named = f"{where}.tool_calls[{number}].function"
        try:
            # Some write the arguments as JSON in a string, some as JSON.
            said = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
        except orjson.JSONEncodeError:
            # What was read as JSON can be written as such, unless it is deeper than that.
            raise BadLineError(f"`{named}.arguments` is nested too deep") from None
        texts += [
            _string(function.get("name"), f"{named}.name"),
            _string(said, f"{named}.arguments", may_be_empty=True),
        ]
    return texts


def _text(line: Mapping[str, Any], key: str) -> str:
    return _string(line.get(key), key)


def _optional(line: Mapping[str, Any], key: str) -> list[str]:
    return [_text(line, key)] if line.get(key) else []


def _string(value: Any, name: str, *, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        raise BadLineError(f"`{name}` must be a string")
    if not may_be_empty and not value.strip():
        raise BadLineError(f"`{name}` is empty")
    if "\0" in value:
        raise BadLineError(f"`{name}` contains a NUL character")
    return value


READERS: Mapping[str, Callable[[Mapping[str, Any]], Example]] = {
    "messages": _chat("messages"),
    "conversations": _chat("conversations"),
    "turns": _chat("turns"),
    "instruction": _instruction,
    "prompt_completion": _prompt_completion,
}
