"""Contract messages ↔ models, for files of results."""

from __future__ import annotations

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.any_pb2 import Any
from pipeline.common.v1 import files_pb2
from pipeline.estimator.v1 import estimator_pb2
from pipeline.jobs.v1 import jobs_pb2

from jobs_service.artifacts.model import ARCHIVE, Artifact, ArtifactFile, Download, StoredFile
from jobs_service.wire import time

CONTENT_TYPES = {"json": "application/json", "md": "text/markdown; charset=utf-8", "zip": "application/zip"}
BINARY = "application/octet-stream"


def artifact(model: Artifact) -> jobs_pb2.JobArtifact:
    """Returns a result as its owner sees it."""
    plan = estimator_pb2.EstimateCostResponse.FromString(model.estimate or b"").plan
    return jobs_pb2.JobArtifact(
        files=[file(each) for each in model.files],
        size=model.size,
        base_model=plan.base_model,
        base_model_source=plan.source.removeprefix("huggingface.co/"),
        step=model.step,
        created_at=time(model.completed_at),
    )


def file(model: ArtifactFile | StoredFile) -> files_pb2.StoredFile:
    """Returns a file's name, size and digest."""
    return files_pb2.StoredFile(name=model.name, size=model.size, sha256=model.sha256)


def first_part(artifact: Artifact, model: Download, job_id: str) -> HttpBody:
    """Returns the first message of a download, with name, size and range of the file."""
    body = HttpBody(content_type=CONTENT_TYPES.get(model.file_name.rpartition(".")[2], BINARY))
    described = Any()
    # Archives of all jobs have the same name; saved files need different ones.
    name = f"{job_id[:8]}-{ARCHIVE}" if model.file_name == ARCHIVE else model.file_name
    described.Pack(
        files_pb2.Download(
            file_name=name,
            size=model.size,
            offset=model.offset,
            length=model.length,
            etag=model.etag,
            signed_url=model.signed_url,
        )
    )
    body.extensions.append(described)
    return body
