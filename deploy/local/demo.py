"""The demo dataset: questions about Python with answers from the documentation of the running Python."""

from __future__ import annotations

import ast
import asyncio
import inspect
import itertools
import math
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlencode

import orjson

from deploy.local.processes import SetupError
from deploy.local.running import Running, get_json

NAME = "Python standard library, questions and answers"
DESCRIPTION = "Questions and answers from the documentation of the Python standard library. Generated on this machine."
SYSTEM = "You answer questions about the Python standard library, briefly and precisely."
# Shorter texts repeat the name; longer ones are whole chapters.
MIN_CHARACTERS, MAX_CHARACTERS = 60, 6_000
# Private modules, tests, demos and installers.
EXCLUDED_MODULES = frozenset(
    {
        "antigravity",
        "encodings",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "test",
        "this",
        "tkinter",
        "turtledemo",
    }
)

Pair = tuple[str, str]


async def ensure(running: Running, variables: Mapping[str, str], folder: Path, report: Callable[[str], None]) -> str:
    """Imports the dataset unless the demo user has it; returns its id. Raises SetupError."""
    assert running.issuer is not None
    path = "/api/datasets?" + urlencode({"search": NAME, "status": "ready", "limit": 1})
    token = running.issuer.open().token(seconds=60)
    status, answer = await asyncio.to_thread(get_json, running.gateway, path, token)
    if status == 200 and not answer["data"]["datasets"]:
        file = folder / "demo.jsonl"
        count = await asyncio.to_thread(write, file)
        report(f"importing {count} questions and answers as a dataset for the demo user")
        # In a child process: this process forks, which gRPC's threads do not survive.
        command = [
            sys.executable,
            "-m",
            "deploy.cli",
            "import",
            str(file),
            "--name",
            NAME,
            "--description",
            DESCRIPTION,
        ]
        importing = await asyncio.create_subprocess_exec(
            *command,
            "--address",
            running.jobs,
            env=variables,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await importing.communicate()
        if importing.returncode:
            raise SetupError(f"the demo dataset cannot be imported: {output.decode(errors='replace').strip()}")
        status, answer = await asyncio.to_thread(get_json, running.gateway, path, token)
    if status != 200 or not answer["data"]["datasets"]:
        raise SetupError(f"the gateway does not list the demo dataset: {answer}")
    return str(answer["data"]["datasets"][0]["id"])


def write(file: Path) -> int:
    """Writes the dataset as JSONL in the format `messages`; returns the number of pairs."""
    lines = [
        orjson.dumps({"messages": [_turn("system", SYSTEM), _turn("user", question), _turn("assistant", answer)]})
        for question, answer in pairs()
    ]
    file.write_bytes(b"\n".join(lines) + b"\n")
    return len(lines)


def pairs() -> Iterator[Pair]:
    """Yields each question once, with its answer, in a fixed order."""
    seen = set()
    for question, answer in itertools.chain(_topics(), _builtins(), _library()):
        if MIN_CHARACTERS <= len(answer) <= MAX_CHARACTERS and question not in seen:
            seen.add(question)
            yield question, answer


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _topics() -> Iterator[Pair]:
    """Yields the topics of `help()`."""
    from pydoc_data.topics import topics

    for text in topics.values():
        title, _, rest = text.strip().partition("\n")
        yield f"Explain “{title.strip('* ')}” in Python.", rest.lstrip("*=-~^ \n")


def _builtins() -> Iterator[Pair]:
    """Yields types and functions that are written in C and so have no Python source."""
    import builtins

    for module in (builtins, math, itertools):
        prefix = "" if module is builtins else f"{module.__name__}."
        for name, value in sorted(vars(module).items()):
            if not name.startswith("_") and callable(value):
                yield f"What does Python's `{prefix}{name}` do?", inspect.getdoc(value) or ""
            if isinstance(value, type) and not issubclass(value, BaseException):
                for method, member in sorted(vars(value).items()):
                    if not method.startswith("_") and callable(member):
                        yield f"What does `{prefix}{name}.{method}` do in Python?", inspect.getdoc(member) or ""


def _library() -> Iterator[Pair]:
    """Yields modules, classes and functions of the library, parsed from its source."""
    library = Path(sysconfig.get_path("stdlib"))
    for file in sorted(library.rglob("*.py")):
        parts = list(file.relative_to(library).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        public = parts and parts[0] in sys.stdlib_module_names and not any(part.startswith("_") for part in parts)
        if not public or EXCLUDED_MODULES.intersection(parts) or "tests" in parts:
            continue
        module = ".".join(parts)
        tree = ast.parse(file.read_bytes())
        yield f"What is Python's module `{module}` for?", ast.get_docstring(tree) or ""
        yield from _members(tree, module, parent=None)


def _members(node: ast.Module | ast.ClassDef, path: str, *, parent: str | None) -> Iterator[Pair]:
    for member in node.body:
        if not isinstance(member, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or member.name.startswith("_"):
            continue
        name, text = f"{path}.{member.name}", ast.get_docstring(member) or ""
        if isinstance(member, ast.ClassDef):
            yield f"What is the class `{name}` in Python?", text
            yield from _members(member, name, parent=member.name)
        elif len(text) >= MIN_CHARACTERS:
            kind = f"the method `{member.name}` of `{path}`" if parent else f"`{name}`"
            signature = f"{name}({ast.unparse(member.args)})"
            yield f"How is {kind} called, and what does it do?", f"`{signature}`\n\n{text}"
