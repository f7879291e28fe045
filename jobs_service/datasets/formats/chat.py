"""Conversations in the spellings of OpenAI, ShareGPT, TRL, Axolotl, LLaMA-Factory, ms-swift and Gemini. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from jobs_service.datasets.formats import marks
from jobs_service.datasets.formats.roles import CALLS, role_of
from jobs_service.datasets.formats.sample import BadRowError, RowWarning
from jobs_service.datasets.formats.values import code_list, from_json_text, string, to_json_text

REASONING = ("reasoning_content", "reasoning", "thinking", "thought")
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
REASONING_PARTS = frozenset({"reasoning", "thinking"})
# Keys of a message that are read, or that may be ignored without a warning.
READ = frozenset(
    {
        *("role", "from", "content", "value", "parts", "name", "tool_calls", "function_call", "tool_call_id"),
        *("refusal", "id", "message_id", "timestamp", "created_at", "type", "prefix"),
        *REASONING,
        *marks.MESSAGE_MARKS,
    }
)

Message = dict[str, Any]


def read_messages(value: Any, key: str, roles: Mapping[str, str], warnings: list[RowWarning]) -> list[Message]:
    """Returns messages as they are stored. `key`: their path in the row; `roles`: more spellings of roles. Raises BadRowError.

    An assistant message without a mark has `train` true.
    """
    value = from_json_text(value, key)
    if not isinstance(value, list) or not value:
        raise BadRowError(f"`{key}` must be a list of turns")
    return [_message(turn, f"{key}[{number}]", roles, warnings) for number, turn in enumerate(value)]


def read_tools(row: Mapping[str, Any]) -> str | None:
    """Returns the tools of a conversation, given as a list or as JSON text, as JSON text. Raises BadRowError."""
    key = "tools" if row.get("tools") else "functions"
    tools = from_json_text(row.get(key), key)
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadRowError(f"`{key}` must be a list of objects")
    if key == "functions":
        tools = [{"type": "function", "function": function} for function in tools]
    return to_json_text(tools, key)


def warn_if_unanswered(messages: list[Message], warnings: list[RowWarning]) -> None:
    """Warns of a conversation whose last message is not the assistant's."""
    if messages[-1]["role"] != "assistant":
        warnings.append(
            RowWarning("unanswered", "the conversation ends with a message that the assistant does not answer")
        )


def _message(turn: Any, path: str, roles: Mapping[str, str], warnings: list[RowWarning]) -> Message:
    if not isinstance(turn, dict):
        raise BadRowError(f"`{path}` must be an object with `role` and `content`, or `from` and `value`")
    role_key = "from" if "from" in turn and "role" not in turn else "role"
    spelling = turn.get(role_key)
    if spelling is None:
        raise BadRowError(f"`{path}.role` is missing; the keys are {code_list(turn)}")
    role = role_of(spelling, f"{path}.{role_key}", roles, warnings)
    calls = _calls(turn, path) if role == "assistant" else []
    content, reasoning = _content(turn, path, may_be_empty=role in ("system", "tool") or bool(calls))
    if spelling in CALLS and not calls:
        content, calls = _call_in_content(content)
    message: Message = {"role": role, "content": content}
    trained = marks.is_trained(turn, role, path)
    if role == "assistant":
        message["train"] = trained is not False
        reasoning = reasoning or next((turn[key] for key in REASONING if turn.get(key)), "")
        if reasoning:
            message["reasoning_content"] = string(reasoning, f"{path}.reasoning_content")
    if calls:
        message["tool_calls"] = calls
    for key in ("name", "tool_call_id"):
        if turn.get(key):
            message[key] = string(turn[key], f"{path}.{key}")
    if not turn.keys() <= READ:
        unread = [key for key in turn.keys() - READ if turn[key]]
        warnings += [RowWarning("unread_key", f"`{key[:40]}` of a message is not read") for key in unread]
    return message


def _content(turn: Message, path: str, *, may_be_empty: bool) -> tuple[str, str]:
    """Returns the text of a message and the reasoning among its parts."""
    key = next((each for each in ("content", "value", "parts") if turn.get(each) is not None), None)
    if key is None:
        if may_be_empty:
            return "", ""
        if turn.get("refusal"):
            return string(turn["refusal"], f"{path}.refusal"), ""
        name = "value" if "from" in turn else "content"
        raise BadRowError(f"`{path}.{name}` must be a string; the keys of this message are {code_list(turn)}")
    value, name = turn[key], f"{path}.{key}"
    if not isinstance(value, list):
        return string(value, name, may_be_empty=may_be_empty), ""
    spoken: list[str] = []
    thought: list[str] = []
    for number, part in enumerate(value):
        kind, text = _part(part, f"{name}[{number}]")
        (thought if kind in REASONING_PARTS else spoken).append(text)
    if not may_be_empty and not any(map(str.strip, spoken)):
        raise BadRowError(f"`{name}` is empty")
    return "".join(spoken), "".join(thought)


def _part(part: Any, path: str) -> tuple[str, str]:
    """Returns the kind and the text of one part of a message."""
    if isinstance(part, dict) and "text" in part and "type" not in part:
        return "text", string(part["text"], f"{path}.text", may_be_empty=True)
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in TEXT_PARTS and kind not in REASONING_PARTS:
        shown = f" but of type `{str(kind)[:40]}`" if kind else ""
        raise BadRowError(f"`{path}` is not a part of type text{shown}, and only text is trained on")
    return kind, string(part.get("text", part.get(kind)), f"{path}.text", may_be_empty=True)


def _calls(turn: Message, path: str) -> list[Message]:
    """Returns the tool calls of a message, with arguments as JSON text."""
    calls = turn.get("tool_calls") or ([{"function": turn["function_call"]}] if turn.get("function_call") else [])
    calls = from_json_text(calls, f"{path}.tool_calls")
    if not isinstance(calls, list):
        raise BadRowError(f"`{path}.tool_calls` must be a list of calls")
    return [_call(call, f"{path}.tool_calls[{number}]") for number, call in enumerate(calls)]


def _call(call: Any, path: str) -> Message:
    function = call.get("function") if isinstance(call, dict) else None
    # Some formats leave out the object `function`.
    function = call if function is None and isinstance(call, dict) and "name" in call else function
    if not isinstance(function, dict):
        raise BadRowError(f"`{path}.function` must have a name and arguments")
    arguments = function.get("arguments")
    stored = {
        "name": string(function.get("name"), f"{path}.function.name"),
        "arguments": to_json_text("" if arguments is None else arguments, f"{path}.function.arguments"),
    }
    id_ = call.get("id")
    return {**({"id": id_} if isinstance(id_, str) and id_ else {}), "type": "function", "function": stored}


def _call_in_content(content: str) -> tuple[str, list[Message]]:
    """Reads tool calls that are JSON in the text of a message, as in ShareGPT. Other text stays text."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return content, []
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return content, []
    return "", [_call(call, f"tool_calls[{number}]") for number, call in enumerate(calls)]


def gemini(value: Any, system: Any, roles: Mapping[str, str], warnings: list[RowWarning]) -> list[Message]:
    """Returns Gemini's `contents` and `systemInstruction` as messages. Raises BadRowError."""
    value = from_json_text(value, "contents")
    if not isinstance(value, list) or not value:
        raise BadRowError("`contents` must be a list of turns")
    turns = [_gemini_turn(turn, f"contents[{number}]") for number, turn in enumerate(value)]
    if system:
        parts = system.get("parts") if isinstance(system, dict) else [{"text": system}]
        turns.insert(0, {"role": "system", "parts": parts})
    return read_messages(turns, "contents", roles, warnings)


def _gemini_turn(turn: Any, path: str) -> Any:
    """Returns a turn with Gemini's function calls and their results under OpenAI's keys."""
    if not isinstance(turn, dict):
        return turn
    turn = {"role": "user", **turn}
    parts = turn.get("parts")
    if isinstance(parts, dict):
        turn["parts"] = parts = [parts]
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise BadRowError(f'`{path}.parts` must be a list of parts such as {{"text": …}}')
    calls = [part.get("functionCall") or part.get("function_call") for part in parts]
    results = [part.get("functionResponse") or part.get("function_response") for part in parts]
    if any(calls):
        turn["tool_calls"] = [
            {"function": {"name": call.get("name"), "arguments": call.get("args") or {}}} for call in calls if call
        ]
        turn["parts"] = [part for part, call in zip(parts, calls, strict=True) if not call]
    if any(results):
        turn["role"] = "tool"
        turn["parts"] = [
            {"text": to_json_text(result.get("response", {}), f"{path}.parts")} for result in results if result
        ]
    for number, part in enumerate(turn["parts"]):
        if "text" not in part:
            raise BadRowError(f"`{path}.parts[{number}]` is not a part of type text, and only text is trained on")
    return turn
