"""A sample: one row of training data in the shape that is stored and trained on. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class BadRowError(ValueError):
    """A row that cannot be trained on. Its text says what is wrong and what to do."""


class RowWarning(NamedTuple):
    """Something in a row that is not used as its author may expect. `kind`: a word for programs."""

    kind: str
    message: str


@dataclass(slots=True)
class Sample:
    """A row as it is stored: `content` has `messages` and maybe `tools`, or `prompt` and `completion`, or `text`.

    `pairs`: training pairs, 0 if the row's own marks leave nothing to train on.
    """

    content: dict[str, Any]
    pairs: int
    warnings: list[RowWarning] = field(default_factory=list)

    @property
    def shape(self) -> str:
        """Which of the three shapes it has, for messages."""
        if "messages" in self.content:
            return "a list of messages"
        return "a text" if "text" in self.content else "a prompt and a completion"


def texts(content: Mapping[str, Any]) -> Iterator[str]:
    """Yields the strings of a stored row whose tokens are counted, each separately."""
    for message in content.get("messages", ()):
        yield message["content"]
        if "reasoning_content" in message:
            yield message["reasoning_content"]
        for call in message.get("tool_calls", ()):
            yield call["function"]["name"]
            yield call["function"]["arguments"]
    for key in ("tools", "prompt", "completion", "text"):
        if key in content:
            yield content[key]


def count_pairs(messages: list[dict[str, Any]]) -> int:
    """Returns the training pairs of a conversation: user messages with a trained answer.

    Several user messages before an answer are one question. A conversation whose trained messages answer no user message, such
    as a system prompt and its answer, is one pair.
    """
    pairs, has_question, trained = 0, False, False
    for message in messages:
        if message["role"] == "user":
            has_question = True
        elif message.get("train"):
            pairs, has_question, trained = pairs + has_question, False, True
    return pairs or int(trained)
