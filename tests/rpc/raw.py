"""HTTP/2 by hand, for what no gRPC library would send."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

EMPTY_MESSAGE = b"\0\0\0\0\0"


@dataclass
class Answer:
    """What came back on a stream. `status` is the gRPC status; None where the stream ended without one."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False

    @property
    def status(self) -> int | None:
        """The number of the gRPC status."""
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None


async def call(
    address: str, path: str, body: bytes, *headers: tuple[str, str | bytes], method: str = "POST", end: bool = True
) -> Answer:
    """Sends one call as it is given and reads until its end; raises TimeoutError where there is none."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    configuration = H2Configuration(
        client_side=True,
        header_encoding=None,
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
        validate_inbound_headers=False,
    )
    connection = H2Connection(configuration)
    connection.initiate_connection()
    first = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "test")]
    connection.send_headers(1, [*first, ("te", "trailers"), ("content-type", "application/grpc"), *headers])
    connection.send_data(1, body, end_stream=end)
    writer.write(connection.data_to_send())
    answer = Answer()
    try:
        async with asyncio.timeout(10):
            while not answer.ended:
                data = await reader.read(65536)
                for event in connection.receive_data(data) if data else [ConnectionTerminated()]:
                    match event:
                        case ResponseReceived() | TrailersReceived():
                            pairs = event.headers or []
                            answer.headers |= {name.decode(): value.decode("latin1") for name, value in pairs}
                        case DataReceived():
                            answer.body += event.data
                        case StreamEnded() | StreamReset() | ConnectionTerminated():
                            answer.ended = True
                writer.write(connection.data_to_send())
    finally:
        writer.close()
    return answer
