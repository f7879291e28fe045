"""The port for Prometheus and for probes: `/metrics` and `/readyz`, over plain HTTP and in a few threads."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

# Requests answered at once. Further connections wait in the socket's backlog.
MAX_REQUESTS = 4
BACKLOG = 16
# Longest silence of a client.
TIMEOUT_SECONDS = 5.0


class MetricsServer(WSGIServer):
    """Serves while it is started. `is_ready`: what `/readyz` answers; None: not found."""

    request_queue_size = BACKLOG

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry, is_ready: Callable[[], bool | None]):
        """Listens on an address. Raises OSError."""
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._threads = ThreadPoolExecutor(MAX_REQUESTS, thread_name_prefix="metrics")
        self._free = BoundedSemaphore(MAX_REQUESTS)
        super().__init__(address, _Handler)
        metrics = make_wsgi_app(registry)

        def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if environ["PATH_INFO"] != "/readyz":
                return metrics(environ, start_response)  # type: ignore[no-any-return]
            ready = is_ready()
            status = {None: "404 Not Found", False: "503 Service Unavailable", True: "200 OK"}[ready]
            start_response(status, [("Content-Type", "text/plain")])
            return [f"{status}\n".encode()]

        self.set_app(answer)

    def start(self) -> None:
        """Accepts connections, in a thread of its own."""
        self._accepting = Thread(target=self.serve_forever, name="metrics", daemon=True)
        self._accepting.start()

    def stop(self) -> None:
        """Stops once the requests at work are answered, which takes `TIMEOUT_SECONDS` at most."""
        self.shutdown()
        self.server_close()
        self._accepting.join()
        self._threads.shutdown()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers in a thread, as soon as one is free."""
        self._free.acquire()
        self._threads.submit(self._answer, request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or that said nothing: no concern of the log's."""

    def _answer(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)
            self._free.release()


class _Handler(WSGIRequestHandler):
    def setup(self) -> None:
        """Bounds the client's silence."""
        super().setup()
        self.connection.settimeout(TIMEOUT_SECONDS)

    def log_message(self, *arguments: Any) -> None:
        """Says nothing: requests come every few seconds."""
