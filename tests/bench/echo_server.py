"""The least that grpc.aio can do: takes a request and answers with a message that is always the same. Takes traces too."""

from __future__ import annotations

import sys

import grpc.aio
import uvloop
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from pipeline.estimator.v1 import estimator_pb2
from pipeline.estimator.v1.estimator_pb2_grpc import EstimatorServiceServicer, add_EstimatorServiceServicer_to_server

from rpc.server.grpc_server import SERVER_OPTIONS

ANSWER = estimator_pb2.EstimateCostResponse(
    estimated_cost=7.61,
    cost_breakdown=estimator_pb2.CostBreakdown(compute=7.11, storage=0.5),
    estimated_duration_hours=1.02,
    hourly_rate=7.0,
    training_details=estimator_pb2.TrainingDetails(
        total_steps=3750, steps_per_epoch=1250, estimated_throughput_tokens_per_sec=3600, dataset_name="Questions"
    ),
)


class Echo(EstimatorServiceServicer):
    """Answers EstimateCost and looks at nothing."""

    async def EstimateCost(
        self,
        request: estimator_pb2.EstimateCostRequest,
        context: grpc.aio.ServicerContext[estimator_pb2.EstimateCostRequest, estimator_pb2.EstimateCostResponse],
    ) -> estimator_pb2.EstimateCostResponse:
        return ANSWER


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]  # it has no types
    """Takes spans and keeps none."""

    async def Export(self, request: object, context: object) -> trace_service_pb2.ExportTraceServiceResponse:
        return trace_service_pb2.ExportTraceServiceResponse()


async def serve(port: int) -> None:
    """Serves until it is killed."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add_EstimatorServiceServicer_to_server(Echo(), server)
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
