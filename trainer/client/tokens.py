"""The token that a trainer sends with each call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trainer.client.errors import TrainerError

# Text, a file that is read again for each call, or a function that returns a fresh token.
Token = str | Path | Callable[[], str]


def read_token(source: Token) -> str:
    """Returns the current token, without surrounding white space. Raises TrainerError if it is malformed."""
    if isinstance(source, Path):
        try:
            text, origin = source.read_text(), f"the token file {source}"
        except (OSError, UnicodeDecodeError) as error:
            raise TrainerError(f"the token file {source} cannot be read: {error}") from error
    else:
        text, origin = (source, "the token") if isinstance(source, str) else (source(), "the token")
    token = text.strip()
    if not token:
        raise TrainerError(f"{origin} is empty")
    if not (token.isascii() and token.isprintable()) or any(sign in token for sign in " \"'"):
        raise TrainerError(f"{origin} has spaces, quotes, line breaks or other characters that no token has")
    return token
