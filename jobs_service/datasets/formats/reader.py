"""Reads rows of any format into samples. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs_service.datasets.formats import keys, marks
from jobs_service.datasets.formats.chat import Message, gemini, read_messages, read_tools, warn_if_unanswered
from jobs_service.datasets.formats.mapping import ColumnMapping
from jobs_service.datasets.formats.preference import preference_method
from jobs_service.datasets.formats.sample import BadRowError, RowWarning, Sample, count_pairs, texts
from jobs_service.datasets.formats.values import from_json_text, optional_string, string

# The shape of a stored conversation.
MESSAGES = "a list of messages"
PLACEHOLDERS = ("<image>", "<video>", "<audio>", "<|image|>", "<|video|>", "<|audio|>")


class RowReader:
    """Reads the rows of one file into samples of one shape, that of the first row.

    `mapping`: columns and roles that the upload maps.
    """

    def __init__(self, mapping: ColumnMapping | None = None) -> None:
        self.format: str | None = None
        self._shape = ""
        self._mapping = mapping or ColumnMapping({})

    def read(self, value: Any) -> Sample:
        """Returns the sample of a row. Raises BadRowError."""
        if not isinstance(value, dict):
            raise BadRowError("not a JSON object")
        ignored = self._mapping.ignored
        # Tables fill the columns that a row does not have with nulls.
        row = {key: item for key, item in value.items() if item is not None and key not in ignored}
        method = preference_method(row)
        if method is not None:
            raise BadRowError(
                f"preference data ({method}): jobs are supervised fine-tuning (SFT), which would train on every answer alike. "
                "Upload the preferred answers only, such as `prompt` and `completion`"
            )
        marks.check_row(row)
        columns = self._mapping.columns_of(row)
        if columns:
            name, used = "mapped", tuple(columns)
            sample = self._mapped(row, columns)
        else:
            detected = keys.detect(row)
            if detected is None:
                raise BadRowError(keys.unknown_format(row))
            name, used = detected
            sample = self._read(name, row, used)
        self._check_unread(row, name, used, sample)
        if self.format is None:
            self.format, self._shape = name, sample.shape
        if sample.shape != self._shape:
            sample = self._in_shape(sample)
        if name != self.format:
            message = f"the row has the format {name}, the first row {self.format}; it was read as {self._shape}"
            sample.warnings.append(RowWarning("mixed_formats", message))
        return sample

    def _read(self, name: str, row: Mapping[str, Any], used: tuple[str, ...]) -> Sample:
        warnings: list[RowWarning] = []
        roles = self._mapping.roles
        match name:
            case "text":
                return Sample({"text": string(row["text"], "text")}, 1)
            case "contents":
                system = row.get("systemInstruction") or row.get("system_instruction")
                messages = gemini(row["contents"], system, roles, warnings)
            case "messages" | "conversations" | "turns":
                messages = read_messages(row[used[0]], used[0], roles, warnings)
                if row.get("system"):
                    messages.insert(0, _system(row["system"]))
            case "instruction":
                messages = _instruction(row, used[1])
            case "prompt_completion" if isinstance(_list_of_messages(row["prompt"], "prompt"), list):
                messages = self._prompt_messages(row, used, warnings)
            case "prompt_completion":
                prompt = _joined(row, "system", "prompt")
                return Sample({"prompt": prompt, "completion": string(row[used[1]], used[1])}, 1)
            case _:
                messages = [
                    *([_system(row["system"])] if row.get("system") else ()),
                    {"role": "user", "content": _joined(row, used[0], "context")},
                    _answer(row[used[1]], used[1]),
                ]
        return _conversation(messages, read_tools(row), warnings)

    def _prompt_messages(
        self, row: Mapping[str, Any], used: tuple[str, ...], warnings: list[RowWarning]
    ) -> list[Message]:
        """Reads TRL's conversational prompt and completion: the loss is on the completion."""
        prompt = read_messages(row["prompt"], "prompt", self._mapping.roles, warnings)
        for message in prompt:
            if message["role"] == "assistant":
                message["train"] = False
        return [*prompt, *read_messages(row[used[1]], used[1], self._mapping.roles, warnings)]

    def _mapped(self, row: Mapping[str, Any], columns: Mapping[str, str]) -> Sample:
        """Reads a row whose columns were mapped at upload."""
        warnings: list[RowWarning] = []

        def keys(role: str) -> list[str]:
            return [key for key, mapped_to in columns.items() if mapped_to == role]

        def joined(role: str) -> str:
            strings = (optional_string(row.get(key), key) for key in keys(role))
            return "\n\n".join(filter(None, strings))

        def answer(role: str) -> str:
            return string(joined(role), keys(role)[0])

        roles = set(columns.values())
        tools = read_tools({"tools": next((row.get(key) for key in keys("tools")), None)})
        if "messages" in roles:
            key = keys("messages")[0]
            messages = read_messages(row.get(key), key, self._mapping.roles, warnings)
            if joined("system"):
                messages.insert(0, _system(joined("system")))
        elif "assistant" in roles:
            messages = [
                *([_system(joined("system"))] if joined("system") else ()),
                *([{"role": "user", "content": joined("user")}] if "user" in roles else ()),
                {"role": "assistant", "content": answer("assistant"), "train": True},
            ]
        elif "completion" in roles:
            prompt = "\n\n".join(filter(None, (joined("system"), joined("prompt"))))
            return Sample({"prompt": prompt, "completion": answer("completion")}, 1)
        elif "text" in roles:
            return Sample({"text": answer("text")}, 1)
        else:
            raise BadRowError(
                "the mapping names no column to train on: map one to assistant, completion, text or messages"
            )
        return _conversation(messages, tools, warnings)

    def _in_shape(self, sample: Sample) -> Sample:
        """Returns a sample in the shape of the first row. Raises BadRowError."""
        if self._shape != MESSAGES or "completion" not in sample.content:
            raise BadRowError(f"the row is {sample.shape}, the rows before are {self._shape}: upload them as two files")
        question = {"role": "user", "content": sample.content["prompt"]}
        messages = [question, _answer(sample.content["completion"], "completion")]
        return Sample({"messages": messages}, sample.pairs, sample.warnings)

    def _check_unread(self, row: Mapping[str, Any], name: str, used: tuple[str, ...], sample: Sample) -> None:
        """Raises BadRowError for, or warns of, columns that are not read and may matter."""
        for key in keys.unread(row, name, used):
            meant = keys.misspelled(key)
            if meant is not None and name != "mapped" and meant not in row:
                raise BadRowError(
                    f"the key `{key[:40]}` is probably meant to be `{meant}`: rename it, or map it at upload"
                )
            if key not in keys.MEDIA:
                sample.warnings.append(RowWarning("unread_key", f"`{key[:40]}` is not read"))
            elif any(mark in text for text in texts(sample.content) for mark in PLACEHOLDERS):
                raise BadRowError(f"refers to media in `{key}`, and only text is trained on")
            else:
                sample.warnings.append(RowWarning("media", f"`{key}` is not read: only text is trained on"))


def _list_of_messages(value: Any, path: str) -> Any:
    """Returns the list of a JSON text; any other value as it is, since a prompt may begin with a bracket."""
    if isinstance(value, str) and value.startswith("[{") and '"role"' in value:
        return from_json_text(value, path)
    return value


def _conversation(messages: list[Message], tools: str | None, warnings: list[RowWarning]) -> Sample:
    if not any(message["role"] == "assistant" for message in messages):
        raise BadRowError("the conversation has no message of the assistant to train on")
    warn_if_unanswered(messages, warnings)
    content: dict[str, Any] = {"messages": messages}
    if tools:
        content["tools"] = tools
    return Sample(content, count_pairs(messages), warnings)


def _instruction(row: Mapping[str, Any], answer: str) -> list[Message]:
    """Reads Alpaca's or Dolly's keys. `history` is a list of earlier questions with their answers."""
    messages = [_system(row["system"])] if row.get("system") else []
    rounds = from_json_text(row.get("history"), "history") or []
    if not isinstance(rounds, list) or not all(isinstance(each, list) and len(each) == 2 for each in rounds):
        raise BadRowError("`history` must be a list of pairs: a question and its answer")
    for number, (question, reply) in enumerate(rounds):
        messages.append({"role": "user", "content": string(question, f"history[{number}][0]")})
        messages.append(_answer(reply, f"history[{number}][1]"))
    messages.append({"role": "user", "content": _joined(row, "instruction", "input", "context")})
    return [*messages, _answer(row[answer], answer)]


def _joined(row: Mapping[str, Any], *columns: str) -> str:
    """Returns the strings of columns that are not empty, with an empty line between them."""
    return "\n\n".join(filter(None, (optional_string(row.get(key), key) for key in columns)))


def _system(value: Any) -> Message:
    return {"role": "system", "content": string(value, "system")}


def _answer(value: Any, path: str) -> Message:
    return {"role": "assistant", "content": string(value, path), "train": True}
