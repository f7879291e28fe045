"""Several files as one ZIP archive. Uncompressed: weights hardly compress, and the archive's size is known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from jobs_service.artifacts.model import StoredFile

# Above this, headers have another format, and the size is not computed.
LARGEST = 2**31 - 1
# Bytes of each file beside its content and twice its name: local header, data descriptor, entry in the central directory.
ENTRY_BYTES, END_BYTES = 30 + 16 + 46, 22
Read = Callable[[StoredFile], Iterator[bytes]]


def archive_size(files: Sequence[StoredFile]) -> int:
    """Returns the size of the archive, bytes; 0 if it is not known beforehand."""
    size = END_BYTES + sum(file.size + ENTRY_BYTES + 2 * len(file.name.encode()) for file in files)
    return size if size <= LARGEST else 0


def archive(files: Sequence[StoredFile], read: Read, at: datetime) -> Iterator[bytes]:
    """Yields the bytes of the archive. The same files give the same bytes."""
    sink = _Sink()
    with ZipFile(sink, "w", ZIP_STORED) as opened:  # type: ignore[call-overload] # it uses write and flush only
        for file in files:
            entry = ZipInfo(file.name, date_time=(max(1980, at.year), at.month, at.day, at.hour, at.minute, at.second))
            entry.file_size = file.size
            with opened.open(entry, "w", force_zip64=file.size > LARGEST) as target:
                for data in read(file):
                    target.write(data)
                    yield sink.take()
            yield sink.take()
    yield sink.take()


class _Sink:
    """Keeps what is written until it is taken. Without `seek`, so that ZipFile writes headers once."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def flush(self) -> None:
        """Does nothing: nothing is buffered."""

    def take(self) -> bytes:
        """Returns what was written since the last call."""
        data = bytes(self._data)
        self._data.clear()
        return data
