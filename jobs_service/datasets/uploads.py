"""The limits on uploads at once. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from jobs_service.errors import TooManyUploads


class UploadLimits:
    """Counts the uploads of this process. A quarter of the places is reserved for users without an upload."""

    def __init__(self, *, max_uploads: int, max_per_user: int) -> None:
        self._max = max_uploads
        self._max_per_user = max_per_user
        self._uploads: Counter[str] = Counter()

    @contextmanager
    def slot(self, user_id: str) -> Iterator[None]:
        """Counts an upload of a user while its body runs. Raises TooManyUploads."""
        own = self._uploads[user_id]
        if own >= self._max_per_user:
            raise TooManyUploads(limit=self._max_per_user)
        if self._uploads.total() >= (self._max * 3 // 4 if own else self._max):
            raise TooManyUploads(limit=None)
        self._uploads[user_id] += 1
        try:
            yield
        finally:
            self._uploads[user_id] -= 1
            if not self._uploads[user_id]:
                del self._uploads[user_id]
