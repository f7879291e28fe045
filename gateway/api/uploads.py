"""Uploads: the body of a request as the client stream of an RPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request

from gateway.api.body import chunks
from gateway.api.headers import content_type, is_encoded
from gateway.errors import UnsupportedMediaType
from rpc.errors import ServiceError

# The Content-Types that an upload may have. The format of the file is read from its bytes.
UPLOAD_TYPES = (
    "application/jsonl",
    "application/x-jsonlines",
    "application/jsonlines",
    "application/x-ndjson",
    "application/json",
    "text/csv",
    "text/tab-separated-values",
    "application/vnd.apache.parquet",
    "application/gzip",
    "application/zstd",
    "application/octet-stream",
)
# Bytes of the file in one message, at most. Chunks of the body are passed on as they arrive, and split if longer.
MAX_CHUNK_BYTES = 512 * 1024
HOW_TO_UPLOAD = "Send the file itself as the body: curl --data-binary @FILE -H 'Content-Type: application/jsonl' URL."
FORMS = {
    "multipart/form-data": "This is a form (curl -F), not a file. ",
    "application/x-www-form-urlencoded": "This is a form: curl -d sends one, and removes line breaks. ",
    "": "The request has no Content-Type. ",
}


def check_upload_type(request: Request) -> None:
    """Raises UnsupportedMediaType, which says what to send, unless Content-Type is one of `UPLOAD_TYPES`, in UTF-8."""
    if is_encoded(request):
        raise UnsupportedMediaType(
            details="Send a compressed file as it is, with Content-Type application/gzip or application/zstd and no "
            "Content-Encoding."
        )
    media_type, is_utf8 = content_type(request)
    if media_type not in UPLOAD_TYPES or not is_utf8:
        reason = FORMS.get(media_type, f"Content-Type may be {', '.join(UPLOAD_TYPES)}. ")
        raise UnsupportedMediaType(details=reason + HOW_TO_UPLOAD)


async def upload(
    request: Request,
    first: Message,
    body_field: str,
    call: Callable[[AsyncIterator[Message]], Awaitable[Message]],
    *,
    silence_seconds: float,
) -> Message:
    """Calls a client-streaming RPC and returns its response: `first`, then messages with a chunk of the body each.

    Raises what the call raises, RequestTimeout and ClientDisconnect.
    """
    # grpc.aio cancels a call whose request iterator raises, and drops the exception.
    read_errors: list[Exception] = []

    async def messages() -> AsyncGenerator[Message, None]:
        yield first
        try:
            async for data in chunks(request, silence_seconds=silence_seconds):
                for start in range(0, len(data), MAX_CHUNK_BYTES):
                    yield type(first)(**{body_field: data[start : start + MAX_CHUNK_BYTES]})
        except (ServiceError, ClientDisconnect) as error:
            read_errors.append(error)
            raise

    try:
        return await call(messages())
    except (Exception, asyncio.CancelledError):
        if read_errors:
            raise read_errors.pop() from None
        raise
