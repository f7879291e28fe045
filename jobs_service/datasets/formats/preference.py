"""Preference data (DPO, KTO, rankings), which is refused: training on it would teach the answers marked bad. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PAIRS = frozenset({"chosen", "rejected", "rejected_response", "rejected_responses", "rejected_messages"})
VERDICTS = frozenset({"kto_tag", "kto_label", "desirable", "is_desirable"})
KEYS = (
    PAIRS
    | VERDICTS
    | {"preferred_output", "non_preferred_output", "label", "ranking", "output", "completions", "responses"}
)
# Keys of two answers to one prompt.
COMPARED = (
    ("response_a", "response_b"),
    ("response_0", "response_1"),
    ("response_1", "response_2"),
    ("response_j", "response_k"),
    ("answer_a", "answer_b"),
    ("better", "worse"),
)
ANSWERS = frozenset({"completion", "messages", "conversations", "output", "response", "answer"})
# Spreadsheets write true and false as strings.
LABELS = (True, False, 0, 1, "true", "false", "True", "False", "TRUE", "FALSE", "0", "1")


def preference_method(row: Mapping[str, Any]) -> str | None:
    """Returns the preference method that a row is made for, with the keys that show it; None for other data."""
    for pair in COMPARED:
        if pair[0] in row and pair[1] in row:
            return f"DPO, by its {_named(set(pair))}"
    keys = row.keys() & KEYS
    if not keys:
        return None
    if keys & PAIRS:
        return f"DPO, by its {_named(keys & PAIRS)}"
    if "preferred_output" in keys or "non_preferred_output" in keys:
        return "DPO, by its `preferred_output` and `non_preferred_output`"
    if keys & VERDICTS:
        return f"KTO, by its {_named(keys & VERDICTS)}"
    if (
        "label" in keys
        and row.keys() & ANSWERS
        and not isinstance(row["label"], list | dict)
        and row["label"] in LABELS
    ):
        return "KTO, by its `label`"
    for key in ("output", "completions", "responses"):
        value = row.get(key)
        if isinstance(value, list) and len(value) > 1 and all(isinstance(each, str) for each in value):
            return f"a ranking, by the list in `{key}`"
    return "a ranking, by its `ranking`" if "ranking" in keys else None


def _named(keys: frozenset[str] | set[str]) -> str:
    return " and ".join(f"`{key}`" for key in sorted(keys))
