"""Several files as one ZIP archive, uncompressed: weights do not compress, and so the archive's size is known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from jobs_service.artifacts.model import StoredFile

# Above this, headers have another form, and the size is not promised.
LARGEST = 2**31 - 1
# Bytes beside each file's content and twice its name: a local header, a descriptor after the data, an entry in the directory.
ENTRY_BYTES, END_BYTES = 30 + 16 + 46, 22
Read = Callable[[StoredFile], Iterator[bytes]]


def archive_size(files: Sequence[StoredFile]) -> int:
    """Size of the archive of files, bytes; 0 where it is not known beforehand."""
    size = END_BYTES + sum(file.size + ENTRY_BYTES + 2 * len(file.name.encode()) for file in files)
    return size if size <= LARGEST else 0


def archive(files: Sequence[StoredFile], read: Read, at: datetime) -> Iterator[bytes]:
    """The bytes of the archive. The same files give the same bytes."""
    sink = _Sink()
    with ZipFile(sink, "w", ZIP_STORED) as opened:  # type: ignore[call-overload] # it needs no more of a file
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
    """Keeps what is written until it is taken. It cannot be searched, so that headers are written once."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        """What was written since the last time."""
        data = bytes(self._data)
        self._data.clear()
        return data
