"""Server streams of `google.api.HttpBody` as files, whole or in part.

What the stream's first message says of the file (`pipeline.common.v1.Download`) becomes headers, or a redirect where it has a
signed URL. A `Range` header becomes the fields `offset` and `length` of a request that has them.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, NamedTuple

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message
from pipeline.common.v1 import files_pb2
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from gateway.api.headers import one_header
from gateway.errors import RangeNotSatisfiable
from rpc.methods import Method
from rpc.status import failure_of

# One range with a beginning. Others are answered with the whole file, as RFC 9110 allows.
RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{0,15})")


class _Opened(NamedTuple):
    rpc: Any
    messages: Any
    first: HttpBody | None
    download: files_pb2.Download


async def download_response(
    request: Request,
    method: Method,
    call: Callable[..., Any],
    message: Callable[[], Awaitable[Message]],
    metadata: list[tuple[str, str]],
) -> Response:
    """Returns a stream's file, with 206 for a part of it. Raises what the RPC raises, and RangeNotSatisfiable."""
    asked: Any = await message()
    # A URL is signed for GET alone.
    if "signed_url" in method.descriptor.input_type.fields_by_name and not asked.HasField("signed_url"):
        asked.signed_url = request.method == "GET"
    part = RANGE.fullmatch(one_header(request, b"range") or "")
    has_parts = "offset" in method.descriptor.input_type.fields_by_name

    async def open_file(message: Message) -> _Opened:
        rpc = call(message, metadata=metadata, timeout=method.max_timeout_seconds)
        messages, first = await open_stream(rpc)
        return _Opened(rpc, messages, first, _described(first))

    if part is not None and has_parts and (not part[2] or int(part[2]) >= int(part[1])):
        ranged = type(asked)()
        ranged.CopyFrom(asked)
        ranged.offset = int(part[1])
        ranged.length = int(part[2]) - int(part[1]) + 1 if part[2] else 0
        try:
            opened = await open_file(ranged)
        except Exception as error:
            if any(field == "offset" for field, _ in failure_of(error).violations):
                raise RangeNotSatisfiable from error
            raise
        if opened.download.signed_url:
            return _response(opened, partial=True)
        same_file = one_header(request, b"if-range") in (None, f'"{opened.download.etag}"')
        if opened.download.size and same_file:
            return _response(opened, partial=True)
        opened.rpc.cancel()
    return _response(await open_file(asked), partial=False)


async def open_stream(rpc: Any) -> tuple[Any, Any]:
    """Returns the messages of a server stream after its first, and that one, None if it has none. An error cancels the call."""
    try:
        messages = aiter(rpc)
        return messages, await anext(messages, None)
    except BaseException:
        rpc.cancel()
        raise


def _described(first: HttpBody | None) -> files_pb2.Download:
    download = files_pb2.Download()
    for extension in first.extensions if first is not None else ():
        if extension.Unpack(download):
            break
    return download


def _response(opened: _Opened, *, partial: bool) -> Response:
    first, download = opened.first, opened.download
    headers = {"cache-control": "no-store"}
    if download.signed_url:
        opened.rpc.cancel()
        # The client sends its Range there again; its token it keeps to itself, as for every other host.
        return RedirectResponse(download.signed_url, 307, headers)
    if download.file_name:
        headers["content-disposition"] = f'attachment; filename="{download.file_name}"'
    if download.size:
        # `identity` keeps the file from being compressed on its way: ranges and sizes are those of the file itself.
        headers |= {"accept-ranges": "bytes", "content-length": str(download.length), "content-encoding": "identity"}
    if download.etag:
        headers["etag"] = f'"{download.etag}"'
    if partial:
        last = download.offset + download.length - 1
        headers["content-range"] = f"bytes {download.offset}-{last}/{download.size}"
    media_type = first.content_type if first is not None else "application/octet-stream"
    return StreamingResponse(_body(opened), 206 if partial else 200, headers, media_type)


async def _body(opened: _Opened) -> AsyncGenerator[bytes, None]:
    message = opened.first
    try:
        while message is not None:
            if message.data:
                yield message.data
            message = await anext(opened.messages, None)
    finally:
        opened.rpc.cancel()
