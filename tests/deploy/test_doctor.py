"""`pipeline doctor` on a running stack, and a backup that is restored."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pipeline.estimator.v1 import estimator_pb2
from pipeline.jobs.v1 import jobs_pb2
from pipeline.jobs.v1.jobs_pb2_grpc import JobsServiceStub
from pipeline.workers.v1 import workers_pb2
from pipeline.workers.v1.workers_pb2_grpc import WorkerServiceStub

from deploy.local.postgres import program
from deploy.local.running import get_json
from deploy.settings import environment
from tests.deploy.processes import Stack, stack, wait_for

LEASE_MS = 600_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def up(shared_folder: Path) -> Iterator[Stack]:
    """A stack without a trainer, whose leases outlast a backup."""
    with stack(shared_folder, simulated_trainer=False, lease_ms=LEASE_MS) as running:
        yield running


def findings(folder: Path, *arguments: str, **settings: object) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code of `pipeline doctor`, and its findings by the name of the check."""
    command = [sys.executable, "-m", "deploy.cli", "doctor", "--json", *arguments]
    done = subprocess.run(
        command, env=environment(local_dir=folder, **settings), capture_output=True, text=True, timeout=60
    )
    assert not done.stderr, done
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {row["check"]: row for row in rows}


def test_a_healthy_stack_passes(up: Stack, shared_folder: Path) -> None:
    """A new stack has no errors, and every check has run."""
    code, checks = findings(shared_folder)
    assert code == 0, checks
    assert {"database version", "clock", "storage", "dataset files", "gateway", "jobs", "estimator", "prices"} <= set(
        checks
    )
    assert {check["status"] for check in checks.values()} <= {"ok", "warning"}


def test_a_job_that_no_trainer_takes_is_a_warning(up: Stack, shared_folder: Path) -> None:
    """A queued job of a GPU type that no trainer offers is a warning with the command to start one."""
    create_job(up)
    _, checks = findings(shared_folder)
    queue = checks["queue of H100"]
    assert queue["status"] == "warning"
    assert "--gpus H100=" in queue["remedy"]


def test_missing_and_orphaned_files_are_found(up: Stack, shared_folder: Path) -> None:
    """A file without a row is a warning that --repair removes; a ready dataset without its file is an error."""
    datasets = shared_folder / "storage" / "datasets"
    orphan = datasets / "left-over.jsonl"
    orphan.write_text("{}\n")
    code, checks = findings(shared_folder)
    assert (code, checks["orphaned files"]["status"]) == (0, "warning")
    assert "left-over.jsonl" in checks["orphaned files"]["message"]
    (file,) = [path for path in datasets.rglob("*.jsonl") if path != orphan]
    content = file.read_bytes()
    file.unlink()
    code, checks = findings(shared_folder, "--repair")
    assert (code, checks["dataset files"]["status"]) == (1, "error")
    assert not orphan.exists()
    file.write_bytes(content)
    assert findings(shared_folder)[0] == 0


def test_what_cannot_be_reached_is_an_error(folder: Path) -> None:
    """An unavailable database, storage or issuer is an error with a remedy, and the exit code is 1."""
    code, checks = findings(
        folder, database_url="postgresql://nobody@127.0.0.1:1/none", jwks_url="http://127.0.0.1:1/keys"
    )
    assert code == 1
    assert (checks["database"]["status"], checks["issuer"]["status"]) == ("error", "error")
    assert "PIPELINE_JWKS_URL" in checks["issuer"]["remedy"]


@pytest.mark.parametrize(("days", "status"), [(-1, "error"), (10, "warning"), (90, "ok")])
def test_certificates_are_checked(folder: Path, days: int, status: str) -> None:
    """An expired certificate is an error, one that expires within three weeks a warning."""
    file = folder / "certificate.pem"
    file.write_bytes(certificate(days))
    _, checks = findings(folder, tls_certificate_file=file)
    assert checks[f"certificate {file}"]["status"] == status


def test_a_backup_is_restored(up: Stack, shared_folder: Path, folder: Path) -> None:
    """A restored dump has the same jobs; --repair ends their leases, and reports on those are refused."""
    job = create_job(up)
    lease = take(up, job)
    dump, restored_folder = folder / "backup.sql", folder / "restored"
    dump_command = [program("pg_dump"), "--clean", "--if-exists", "-f", dump, up.running.database_url]
    subprocess.run(dump_command, check=True, capture_output=True, timeout=60)
    with stack(restored_folder, simulated_trainer=False, lease_ms=LEASE_MS) as restored:
        url = restored.running.database_url
        restore_command = [program("psql"), "-q", "-v", "ON_ERROR_STOP=1", "-1", "-f", dump, url]
        done = subprocess.run(restore_command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        shutil.copytree(shared_folder / "storage", restored_folder / "storage", dirs_exist_ok=True)
        code, checks = findings(restored_folder, "--repair")
        assert code == 0, checks
        assert checks["leases"]["message"].startswith("ended 1 leases")
        wait_for(lambda: job_of(restored, job)["status"] == "queued")
        assert job_of(restored, job)["attempt"] == 2
        with pytest.raises(grpc.RpcError) as refused:
            report(restored, lease)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert report(up, lease).stop is False


def test_repair_removes_nothing_beside_an_empty_database(up: Stack, shared_folder: Path, folder: Path) -> None:
    """If the database is not restored yet, with or without tables, all files stay and findings say what to do."""
    admin = up.running.database_url
    shutil.copytree(shared_folder / "storage", folder / "storage")
    files = sorted(path for path in (folder / "storage").rglob("*") if path.is_file())
    assert files
    for name, command in (("no_tables", None), ("no_rows", [sys.executable, "-m", "jobs_service", "migrate"])):
        subprocess.run([program("psql"), "-q", "-c", f"create database {name}", admin], check=True, timeout=60)
        url = admin.replace("/postgres?", f"/{name}?", 1)
        if command:
            variables = environment(database_url=url, service_password="password-of-the-tests")
            subprocess.run(command, env=variables, check=True, capture_output=True, timeout=60)
        code, checks = findings(folder, "--repair", database_url=url, storage_url=f"file://{folder}/storage")
        assert code == 1, checks
        assert all(row["remedy"] for row in checks.values() if row["status"] == "error"), checks
        assert sorted(path for path in (folder / "storage").rglob("*") if path.is_file()) == files
    assert checks["orphaned files"]["status"] == "error"


def create_job(up: Stack) -> str:
    """Queues a job on the demo dataset and returns its id."""
    dataset = get_json(up.running.gateway, "/api/datasets", up.token)[1]["data"]["datasets"][0]["id"]
    request = jobs_pb2.CreateJobRequest(
        dataset_id=dataset,
        preset_id=estimator_pb2.PRESET_ID_CUSTOM,
        gpu_config=estimator_pb2.GpuConfig(type="H100", count=1),
        hyperparameters=estimator_pb2.Hyperparameters(batch_size=4, epochs=1, learning_rate=5e-5, rank=16),
    )
    with grpc.insecure_channel(up.running.jobs) as channel:
        stub: Any = JobsServiceStub(channel)
        return str(stub.CreateJob(request, metadata=[("authorization", f"Bearer {up.token}")], timeout=10).job.id)


def job_of(up: Stack, job_id: str) -> dict[str, Any]:
    """Returns the job as the API shows it."""
    return dict(get_json(up.running.gateway, f"/api/jobs/{job_id}", up.token)[1]["data"])


def worker(up: Stack) -> list[tuple[str, str]]:
    """Metadata of a trainer."""
    assert up.running.issuer is not None
    token = up.running.issuer.open().token("eeeeeeee-0000-4000-8000-000000000001", role="worker")
    return [("authorization", f"Bearer {token}")]


def take(up: Stack, job_id: str) -> workers_pb2.Lease:
    """Leases jobs until the given one is among them."""
    request = workers_pb2.LeaseJobsRequest(
        max_jobs=1, gpus=[workers_pb2.GpuOffer(type="H100", count=8)], trainer="tests"
    )
    with grpc.insecure_channel(up.running.jobs) as channel:
        stub: Any = WorkerServiceStub(channel)
        while True:
            for lease in stub.LeaseJobs(request, metadata=worker(up), timeout=10).leases:
                if lease.job_id == job_id:
                    return lease
                release = workers_pb2.ReleaseJobRequest(job_id=lease.job_id, lease_token=lease.lease_token)
                cancel = jobs_pb2.CancelJobRequest(id=lease.job_id)
                stub.ReleaseJob(release, metadata=worker(up), timeout=10)
                owner = [("authorization", f"Bearer {up.token}")]
                JobsServiceStub(channel).CancelJob(cancel, metadata=owner, timeout=10)


def report(up: Stack, lease: workers_pb2.Lease) -> Any:
    """Reports a step on a lease."""
    request = workers_pb2.ReportProgressRequest(job_id=lease.job_id, lease_token=lease.lease_token, epoch=1, step=1)
    with grpc.insecure_channel(up.running.jobs) as channel:
        stub: Any = WorkerServiceStub(channel)
        return stub.ReportProgress(request, metadata=worker(up), timeout=10)


def certificate(days: int) -> bytes:
    """A self-signed certificate that expires in so many days, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pipeline.test")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(days=365))
    signed = builder.not_valid_after(now + timedelta(days=days)).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)
