"""Marks that say which messages are trained on. Each is honoured or refused, never ignored. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs_service.datasets.formats.sample import BadRowError

# On a message: OpenAI, Together and Mistral write `weight`, Axolotl `train` and `training`, ms-swift `loss`.
WEIGHTS = ("weight", "loss_weight")
SWITCHES = ("train", "training", "trainable", "loss")
# Marks of parts of messages, which are not supported.
REFUSED = ("training_detail", "train_detail", "mask", "masked", "loss_mask")
MESSAGE_MARKS = frozenset({*WEIGHTS, *SWITCHES, *REFUSED})


def is_trained(message: Mapping[str, Any], role: str, path: str) -> bool | None:
    """Returns whether a message's marks include it in the loss; None if it has none. Raises BadRowError."""
    found: bool | None = None
    for key in message.keys() & MESSAGE_MARKS:
        value = message[key]
        if value is None:
            continue
        if key in REFUSED:
            raise BadRowError(f"`{path}.{key}` is not supported; mark whole messages with `weight` 0 or 1")
        if key in WEIGHTS and (isinstance(value, bool) or value not in (0, 1)):
            raise BadRowError(f"`{path}.{key}` must be 0 or 1")
        if key in SWITCHES and not (isinstance(value, bool) or value in (0, 1)):
            raise BadRowError(f"`{path}.{key}` must be true or false")
        if value and role != "assistant":
            raise BadRowError(
                f"`{path}.{key}` marks a message of the role {role}; only assistant messages are trained on"
            )
        if found is not None and found != bool(value):
            raise BadRowError(f"`{path}` has marks that contradict each other")
        found = bool(value)
    return found


def check_row(row: Mapping[str, Any]) -> None:
    """Raises BadRowError for marks of a whole row that ask for a loss on other text than the assistant's messages."""
    for key, value in row.items():
        # A weight of 0 or a switch that is off asks to leave the row out; other weights are columns that are not read.
        if key in ("weight", "loss_weight", "train") and value in (0, False) and not isinstance(value, str):
            raise BadRowError(
                f"`{key}` of a whole row is not supported: leave the row out, or mark its messages with it"
            )
        if (key.startswith("train_on") or key in ("mask_history", "mask_prompt")) and _asks_for_more(key, value):
            raise BadRowError(
                f"`{key}` is not supported: the loss is on the assistant's messages; mark them with `weight` 0 or 1"
            )


def _asks_for_more(key: str, value: Any) -> bool:
    # Prompts are never trained on: a mark that asks for that is accepted.
    default = key in ("mask_prompt", "train_on_completions_only", "train_on_responses_only", "train_on_outputs")
    return value is not None and (value in (True, 1, "true", "True")) is not default
