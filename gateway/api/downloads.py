"""Downloads: a server stream of `google.api.HttpBody` is the body of the response, whole or in part.

The `pipeline.common.v1.Download` in the stream's first message becomes headers or, where it has a signed URL, a redirect. The
header `Range` becomes the fields `offset` and `length` of the request, where it has them.
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

# One range with a first byte. For any other the response is the whole file, as RFC 9110 allows.
RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{0,15})")


class _OpenDownload(NamedTuple):
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
    """Returns the file, or a part of it with status 206. Raises what the RPC raises, and RangeNotSatisfiable."""
    rpc_request: Any = await message()
    # A URL is signed for GET alone.
    if "signed_url" in method.descriptor.input_type.fields_by_name and not rpc_request.HasField("signed_url"):
        rpc_request.signed_url = request.method == "GET"
    part = RANGE.fullmatch(one_header(request, b"range") or "")
    has_parts = "offset" in method.descriptor.input_type.fields_by_name

    async def open_file(message: Message) -> _OpenDownload:
        rpc = call(message, metadata=metadata, timeout=method.max_timeout_seconds)
        messages, first = await open_stream(rpc)
        return _OpenDownload(rpc, messages, first, _download_of(first))

    if part is not None and has_parts and (not part[2] or int(part[2]) >= int(part[1])):
        ranged = type(rpc_request)()
        ranged.CopyFrom(rpc_request)
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
    return _response(await open_file(rpc_request), partial=False)


async def open_stream(rpc: Any) -> tuple[Any, Any]:
    """Returns the rest of a server stream and its first message, None if it has none. Cancels the call if that raises."""
    try:
        messages = aiter(rpc)
        return messages, await anext(messages, None)
    except BaseException:
        rpc.cancel()
        raise


def _download_of(first: HttpBody | None) -> files_pb2.Download:
    download = files_pb2.Download()
    for extension in first.extensions if first is not None else ():
        if extension.Unpack(download):
            break
    return download


def _response(opened: _OpenDownload, *, partial: bool) -> Response:
    first, download = opened.first, opened.download
    headers = {"cache-control": "no-store"}
    if download.signed_url:
        opened.rpc.cancel()
        # The client repeats its Range header there, but not its token, as with a redirect to any other host.
        return RedirectResponse(download.signed_url, 307, headers)
    if download.file_name:
        headers["content-disposition"] = f'attachment; filename="{download.file_name}"'
    if download.size:
        # `identity` keeps proxies from compressing the file: ranges and sizes are those of the file as it is.
        headers |= {"accept-ranges": "bytes", "content-length": str(download.length), "content-encoding": "identity"}
    if download.etag:
        headers["etag"] = f'"{download.etag}"'
    if partial:
        last = download.offset + download.length - 1
        headers["content-range"] = f"bytes {download.offset}-{last}/{download.size}"
    media_type = first.content_type if first is not None else "application/octet-stream"
    return StreamingResponse(_body(opened), 206 if partial else 200, headers, media_type)


async def _body(opened: _OpenDownload) -> AsyncGenerator[bytes, None]:
    message = opened.first
    try:
        while message is not None:
            if message.data:
                yield message.data
            message = await anext(opened.messages, None)
    finally:
        opened.rpc.cancel()
