"""`pipeline up` as a process: its output, its files, and its errors."""

from __future__ import annotations

import json
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest

from deploy.local.running import get_json
from deploy.settings import environment
from gateway.auth import DEMO_USER
from tests.deploy.processes import Stack, child, stack, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def up(shared_folder: Path) -> Iterator[Stack]:
    """A stack that was started for the first time."""
    with stack(shared_folder) as started:
        yield started


def pasted(up: Stack, program: str) -> subprocess.CompletedProcess[str]:
    """Runs the printed command of a program in a shell."""
    (line,) = [line for line in up.output.read_text().splitlines() if re.match(rf"\S*\b{program} ", line)]
    return subprocess.run(line, shell=True, capture_output=True, text=True, timeout=20)


def test_the_printed_lines_work_when_pasted(up: Stack) -> None:
    """The printed curl command estimates for the demo dataset, and the grpcurl command lists it."""
    priced = pasted(up, "curl")
    assert json.loads(priced.stdout)["success"] is True, priced
    listed = pasted(up, "grpcurl")
    assert listed.returncode == 0, listed
    (dataset,) = json.loads(listed.stdout)["datasets"]
    assert (dataset["format"], dataset["status"]) == ("messages", "DATASET_STATUS_READY")
    assert int(dataset["total_training_pairs"]) > 1000
    assert int(dataset["total_tokens"]) > 100_000


def test_every_process_has_metrics_at_the_address_in_run_json(up: Stack, shared_folder: Path) -> None:
    """The addresses are printed and in `run.json`, one for each process, and each of them answers."""
    metrics = json.loads((shared_folder / "run.json").read_text())["metrics"]
    assert set(metrics) == {"gateway", "estimator", "jobs", "webhooks"}
    assert get_json(up.running.gateway, "/api/catalogue")[0] == 401
    texts = {}
    for name, url in metrics.items():
        assert url in up.output.read_text()
        with urlopen(url, timeout=5) as response:
            texts[name] = response.read().decode()
        assert "pipeline_event_loop_lag_seconds_bucket" in texts[name]
    labels = 'http_request_method="GET",http_response_status_code="401",http_route="/api/catalogue"'
    assert f"http_server_request_duration_seconds_count{{{labels}}}" in texts["gateway"]


def test_the_calls_of_the_readme_work(up: Stack, shared_folder: Path) -> None:
    """README's first calls and the Python client of docs/api.md work."""
    root = Path(__file__).parents[2]
    readme = root.joinpath("README.md").read_text() + root.joinpath("docs", "api.md").read_text()
    addresses = {
        "http://127.0.0.1:8080": up.running.gateway,
        "127.0.0.1:50051": up.running.estimator,
        "127.0.0.1:50052": up.running.jobs,
        ".venv/bin/": f"{Path(sys.executable).parent}/",
    }
    for written, true in addresses.items():
        readme = readme.replace(written, true)
    shell, *_ = re.findall(r"^```sh\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    (python,) = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        ["bash", "-euc", shell], env=environment(local_dir=shared_folder), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done
    decoder, text, answers = json.JSONDecoder(), done.stdout.strip(), []
    while text:
        answer, end = decoder.raw_decode(text)
        answers.append(answer)
        text = text[end:].lstrip()
    made, listed, listed_over_grpc = answers
    job = made["data"]["id"]
    assert listed["success"] is True
    assert job in [each["id"] for each in listed_over_grpc["jobs"]]
    client = environment() | {"TOKEN": up.token}
    done = subprocess.run([sys.executable, "-c", python], env=client, capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"\d+\.\d\d USD, \d+\.\d\d hours\n", done.stdout), done


def test_run_json_says_where_everything_is(up: Stack, shared_folder: Path) -> None:
    """run.json has all addresses, and only its owner can read it and the secrets."""
    result = json.loads((shared_folder / "run.json").read_text())
    assert result["gateway"].startswith("http://127.0.0.1:")
    assert get_json(result["gateway"], "/readyz")[0] == 200
    for name in ("estimator", "jobs"):
        host, _, port = result[name].partition(":")
        with closing(socket.create_connection((host, int(port)), timeout=5)):
            pass
    assert result["database_url"].startswith("postgresql://postgres:@")
    for name in ("run.json", "secrets.json"):
        assert stat.S_IMODE((shared_folder / name).stat().st_mode) == 0o600, name


def test_a_running_stack_lends_its_issuer(up: Stack, shared_folder: Path) -> None:
    """`pipeline token` prints a token of any user that the running stack accepts."""
    bob = "bbbbbbbb-0000-4000-8000-000000000002"
    for arguments, total in (([], 1), (["--user", bob, "--ttl", "5m"], 0)):
        command = [sys.executable, "-m", "deploy.cli", "token", *arguments]
        made = subprocess.run(
            command, env=environment(local_dir=shared_folder), capture_output=True, text=True, check=True
        )
        status, result = get_json(up.running.gateway, "/api/datasets", made.stdout.strip())
        assert (status, result["data"]["pagination"]["total"]) == (200, total)


def test_a_file_with_columns_of_its_own_is_imported(up: Stack, shared_folder: Path) -> None:
    """`pipeline import --map` maps columns; without it, or with an unknown role, the error says what is wrong."""
    bob = "bbbbbbbb-0000-4000-8000-000000000003"
    file = shared_folder / "fragen.csv"
    file.write_text("Frage;Antwort\nWarum?;Darum.\n")
    command = ["import", "--user", bob, str(file)]
    without = run(shared_folder, *command)
    assert (without.returncode, "Frage" in without.stderr) == (2, True), without
    wrong = run(shared_folder, *command, "--map", "Frage:asker")
    refused(wrong, "INVALID_ARGUMENT", "mapping", "asker")
    imported = run(shared_folder, *command, "--map", "Frage:user", "--map", "Antwort:assistant")
    assert imported.returncode == 0, imported
    assert "1 pairs" in imported.stdout


@pytest.mark.parametrize("name", ["estimator_service", "jobs_service", "gateway", "postgres"])
def test_killed_processes_are_restarted(up: Stack, name: str) -> None:
    """N02, N05: after SIGKILL of any process requests succeed again within seconds, at the same address."""
    child(up, name).kill()
    before = get_json(up.running.gateway, "/api/datasets", up.token)[0]
    assert before in (0, 200, 503), before
    wait_for(lambda: get_json(up.running.gateway, "/api/datasets", up.token)[0] == 200)
    wait_for(lambda: get_json(up.running.gateway, "/readyz")[0] == 200)


def test_one_stack_for_one_folder(up: Stack, shared_folder: Path) -> None:
    """A second start on the same folder exits with code 2 and one line; the first continues."""
    with pytest.raises(Exception, match="another `pipeline up` runs on"), stack(shared_folder):
        pass
    assert get_json(up.running.gateway, "/readyz")[0] == 200


def run(folder: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Runs a `pipeline` command with only these settings in its environment."""
    clean = {name: value for name, value in environment().items() if not name.startswith("PIPELINE_")}
    added = {f"PIPELINE_{name.upper()}": str(value) for name, value in {"local_dir": folder, **settings}.items()}
    command = [sys.executable, "-m", "deploy.cli", *arguments]
    return subprocess.run(command, env=clean | added, capture_output=True, text=True, timeout=60)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Asserts that a command ended with code 2 and one line on stderr with these words, without a traceback."""
    assert done.returncode == 2, done
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


FREE = {"gateway_port": 0, "estimator_port": 0, "jobs_port": 0}


@pytest.mark.parametrize("name", ["gateway", "estimator", "jobs"])
def test_a_port_in_use_is_one_line(folder: Path, name: str) -> None:
    """N09: a start on a used port names the port and the setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(folder, "up", **{**FREE, f"{name}_port": port}, dev_issuer=1)
    refused(done, f"port {port} on 127.0.0.1", f"PIPELINE_{name.upper()}_PORT")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dev_issuer": 0}, ["PIPELINE_JWT_SECRET", "PIPELINE_DEV_ISSUER"]),
        ({"dev_issuer": 1, "database_url": "mysql://x"}, ["PIPELINE_DATABASE_URL", "postgresql://"]),
        ({"dev_issuer": 1, "database_url": "postgresql://nobody@127.0.0.1:1/none"}, ["PIPELINE_DATABASE_URL"]),
        ({"dev_issuer": 1, "database_url": "postgresql://nobody@127.0.0.1:x/none"}, ["PIPELINE_DATABASE_URL"]),
        ({"dev_issuer": 1, "gateway_port": "http"}, ["PIPELINE_GATEWAY_PORT"]),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(folder: Path, settings: dict[str, object], words: list[str]) -> None:
    """N10: a start without a secret or with an unreachable database ends with code 2 and names the setting."""
    refused(run(folder, "up", **{**FREE, **settings}), *words)


def test_what_a_server_refuses_ends_the_start(folder: Path) -> None:
    """N10: a secret that is too short for the servers ends the start with their line."""
    done = run(folder, "up", **FREE, dev_issuer=1, jwt_secret="short")
    refused(done, "PIPELINE_JWT_SECRET must be at least 32 bytes")


def test_no_token_without_the_development_issuer(folder: Path) -> None:
    """`pipeline token` needs PIPELINE_DEV_ISSUER or a stack that runs with it; a secret alone is not enough."""
    secret = "a-secret-of-the-tests-that-is-32-bytes-long"
    refused(run(folder, "token"), "PIPELINE_DEV_ISSUER")
    refused(run(folder, "token", jwt_secret=secret, jwt_issuer="somebody"), "PIPELINE_DEV_ISSUER")
    made = run(folder, "token", jwt_secret=secret, jwt_issuer="somebody", dev_issuer=1)
    assert made.returncode == 0, made
    assert made.stdout.count(".") == 2
    for ttl in ("1", "0h", "31d", "-1h"):
        assert run(folder, "token", f"--ttl={ttl}").returncode == 2, ttl


def test_the_demo_user_is_the_default(folder: Path) -> None:
    """A token without `--user` is the demo user's."""
    import jwt

    secret = "a-secret-of-the-tests-that-is-32-bytes-long"
    made = run(folder, "token", jwt_secret=secret, dev_issuer=1)
    claims = jwt.decode(made.stdout.strip(), secret, algorithms=["HS256"], audience="authenticated")
    assert claims["sub"] == DEMO_USER
