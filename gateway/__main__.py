"""Runs the gateway: `python -m gateway [--workers N]`; `python -m gateway openapi` prints the API's OpenAPI document."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import grpc.aio
import orjson
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pipeline.api_keys.v1 import api_keys_pb2
from pipeline.audit.v1 import audit_pb2
from pipeline.datasets.v1 import datasets_pb2
from pipeline.estimator.v1 import estimator_pb2
from pipeline.jobs.v1 import jobs_pb2
from pipeline.notifications.v1 import notifications_pb2
from pipeline.webhooks.v1 import webhooks_pb2

from gateway.api.openapi import document
from gateway.api.routes import bindings
from gateway.api_keys import api_key_lookup
from gateway.app import Gateway
from gateway.http_server import http_server
from gateway.settings import GatewaySettings
from rpc.channels import open_channel
from rpc.identity.tokens import open_verifier
from rpc.methods import methods
from rpc.process.lifetime import until_stopped
from rpc.process.settings import load
from rpc.process.tls import channel_credentials
from rpc.process.workers import run_server
from rpc.telemetry.exporters import open_telemetry

# The services that have routes, by the process that serves them.
ESTIMATOR = [estimator_pb2.DESCRIPTOR.services_by_name["EstimatorService"]]
JOBS = [
    jobs_pb2.DESCRIPTOR.services_by_name["JobsService"],
    datasets_pb2.DESCRIPTOR.services_by_name["DatasetService"],
    notifications_pb2.DESCRIPTOR.services_by_name["NotificationService"],
    webhooks_pb2.DESCRIPTOR.services_by_name["WebhookService"],
    api_keys_pb2.DESCRIPTOR.services_by_name["ApiKeyService"],
    audit_pb2.DESCRIPTOR.services_by_name["AuditService"],
]
HEALTH_TIMEOUT_SECONDS = 1.0


async def serve(settings: GatewaySettings, *, share_port: bool) -> None:
    """Serves until SIGTERM."""
    async with AsyncExitStack() as stack:
        telemetry = await stack.enter_async_context(open_telemetry(settings, "gateway"))
        credentials = channel_credentials(settings)
        estimator = await stack.enter_async_context(open_channel(settings.estimator_address, ESTIMATOR, credentials))
        jobs = await stack.enter_async_context(open_channel(settings.jobs_address, JOBS, credentials))
        verifier = await stack.enter_async_context(open_verifier(settings, find_api_key=api_key_lookup(jobs)))
        channels = by_name(ESTIMATOR, estimator) | by_name(JOBS, jobs)
        verifier.watch_caches(telemetry.metrics)
        ready = partial(health, {"estimator": estimator, "jobs": jobs})
        app = Gateway(settings, channels, verifier, ready, telemetry)
        await stack.enter_async_context(
            http_server(
                app,
                host=settings.host,
                port=settings.gateway_port,
                share_port=share_port,
                drain_seconds=settings.drain_seconds,
            )
        )
        await until_stopped()


def by_name(services: list[ServiceDescriptor], channel: Any) -> dict[str, Any]:
    """Returns the channel of each of these services, by the service's full name."""
    return {service.full_name: channel for service in services}


async def health(channels: Mapping[str, grpc.aio.Channel]) -> Mapping[str, bool]:
    """Returns, for each server, whether gRPC's health check says SERVING: it does while the server's database answers."""

    async def serves(channel: grpc.aio.Channel) -> bool:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            response = await stub.Check(health_pb2.HealthCheckRequest(), timeout=HEALTH_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    return dict(zip(channels, await asyncio.gather(*map(serves, channels.values())), strict=True))


class Unconnected:
    """A channel that is never called: the OpenAPI document needs the routes only."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def main() -> int:
    """Returns the exit code: 2 for a fault that only the operator can repair."""
    arguments = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    arguments.add_argument("command", nargs="?", choices=["serve", "openapi"], default="serve")
    arguments.add_argument("--workers", type=int, default=1, metavar="N", help="processes that share the port")
    parsed = arguments.parse_args()
    if parsed.command == "openapi":
        bound = [each for service in (*ESTIMATOR, *JOBS) for each in bindings(methods(service), Unconnected())]
        cookie = GatewaySettings.model_fields["session_cookie"].default
        sys.stdout.buffer.write(orjson.dumps(document(bound, cookie=cookie), option=orjson.OPT_INDENT_2) + b"\n")
        return 0
    return run_server("gateway", serve, load(GatewaySettings), parsed.workers)


if __name__ == "__main__":
    sys.exit(main())
