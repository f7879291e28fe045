"""`python -m tests.attack.openapi`: requests made up from the OpenAPI document, and what each response must be by it.

Schemathesis generates them. No response is a 5xx, each has a status, a media type and a shape that the document allows, and
what the document refuses is refused. Event streams are left out: they do not end.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from rpc.process.logs import setup_logs
from tests.deploy.processes import stack

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)
# Signing out ends the session of all later requests.
STREAMS, SIGN_IN = "^/api/jobs/(.*/)?events$", "/api/session"
TIMEOUT_SECONDS = 30


def main() -> int:
    """Returns the exit code: 1 if a response is not what the document says."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack.openapi", description=__doc__)
    parser.add_argument(
        "--examples", type=int, default=30, help="requests that are made up for each operation, at most"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    arguments = parser.parse_args()
    setup_logs("warning")
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-openapi-", dir="/tmp") as folder,
        stack(Path(folder), simulated_trainer=False) as running,
    ):
        issuer = running.running.issuer
        assert issuer is not None
        token = issuer.open().token(str(uuid.uuid4()), seconds=3600)
        document = Path(folder) / "openapi.json"
        with document.open("wb") as file:
            subprocess.run([sys.executable, "-m", "gateway", "openapi"], stdout=file, check=True)
        command = [
            *(Path(sys.executable).with_name("schemathesis"), "run", document, "--url", running.running.gateway),
            *("--header", f"Authorization: Bearer {token}", "--checks", ",".join(CHECKS)),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", str(arguments.examples)),
            *("--exclude-path-regex", STREAMS, "--exclude-path", SIGN_IN),
            *(
                "--request-timeout",
                str(TIMEOUT_SECONDS),
                "--seed",
                str(arguments.seed),
                "--generation-database",
                "none",
            ),
            *("--continue-on-failure", "--no-color"),
        ]
        return subprocess.run([str(part) for part in command], cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
