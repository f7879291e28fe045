"""Roles of messages: the four that are stored, and their spellings in files. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs_service.datasets.formats.sample import BadRowError, RowWarning

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "bot", "model", "ai", "chatgpt", "function_call", "tool_call"),
    "tool": ("tool", "function", "observation", "tool_response", "tool_result", "function_response", "ipython"),
}
ROLES: Mapping[str, str] = {spelling: role for role, spellings in SPELLINGS.items() for spelling in spellings}
# Messages of these roles are tool calls as JSON.
CALLS = frozenset({"function_call", "tool_call"})


def role_of(value: Any, path: str, mapping: Mapping[str, str], warnings: list[RowWarning]) -> str:
    """Returns the stored role of a message. `mapping`: more spellings, chosen at upload. Raises BadRowError."""
    if not isinstance(value, str):
        raise BadRowError(f"`{path}` must be a role: {listed()}")
    role = ROLES.get(value) or mapping.get(value)
    if role in SPELLINGS:
        return str(role)
    folded = value.strip().lower().replace("-", "_")
    if folded in ROLES:
        warnings.append(RowWarning("role_spelling", f"the role `{value[:40]}` was read as {ROLES[folded]}"))
        return ROLES[folded]
    raise BadRowError(
        f"`{path}` is `{value[:40]}`, which is no known role. There are {listed()}. "
        f"To read it as one of these, add the mapping `{value[:40]}:user` (or assistant, system, tool) to the upload"
    )


def listed() -> str:
    """Returns all roles with their other spellings, for messages."""
    return "; ".join(f"{role} ({', '.join(names[1:])})" for role, names in SPELLINGS.items())
