"""The HTTP server for Prometheus and probes: `/metrics` and `/readyz`, in a few threads."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

# Concurrent requests. Further connections wait in the socket's backlog.
MAX_REQUESTS = 4
BACKLOG = 16
# Longest time without a byte from a client.
TIMEOUT_SECONDS = 5.0


class MetricsServer(WSGIServer):
    """Serves from `start` to `stop`. `is_ready` is the result of `/readyz`; None: 404."""

    request_queue_size = BACKLOG

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry, is_ready: Callable[[], bool | None]):
        """Listens on an address. Raises OSError."""
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._threads = ThreadPoolExecutor(MAX_REQUESTS, thread_name_prefix="metrics")
        self._free = BoundedSemaphore(MAX_REQUESTS)
        super().__init__(address, _Handler)
        metrics = make_wsgi_app(registry)

        def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if environ["PATH_INFO"] != "/readyz":
                return metrics(environ, start_response)  # type: ignore[no-any-return]
            ready = is_ready()
            status = {None: "404 Not Found", False: "503 Service Unavailable", True: "200 OK"}[ready]
            start_response(status, [("Content-Type", "text/plain")])
            return [f"{status}\n".encode()]

        self.set_app(application)

    def start(self) -> None:
        """Accepts connections, in a background thread."""
        self._accepting = Thread(target=self.serve_forever, name="metrics", daemon=True)
        self._accepting.start()

    def stop(self) -> None:
        """Stops after the running requests, which takes at most `TIMEOUT_SECONDS`."""
        self.shutdown()
        self.server_close()
        self._accepting.join()
        self._threads.shutdown()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handles a request in a thread, as soon as one is free."""
        self._free.acquire()
        self._threads.submit(self._handle, request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores a client that disconnected or sent nothing."""

    def _handle(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)
            self._free.release()


class _Handler(WSGIRequestHandler):
    def setup(self) -> None:
        """Sets the timeout of the client."""
        super().setup()
        self.connection.settimeout(TIMEOUT_SECONDS)

    def log_message(self, *arguments: Any) -> None:
        """Logs nothing: Prometheus sends a request every few seconds."""
