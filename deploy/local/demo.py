"""The demo dataset: questions about Python with answers from the documentation of the running Python."""

from __future__ import annotations

import asyncio
import builtins
import inspect
import itertools
from collections.abc import Callable, Iterator
from importlib import import_module

import httpx
import orjson

from deploy.local.processes import SetupError
from deploy.local.running import Running

NAME = "Python standard library, questions and answers"
DESCRIPTION = "Questions and answers from the documentation of the Python standard library. Generated on this machine."
SYSTEM = "You answer questions about the Python standard library, briefly and precisely."
# Shorter texts repeat the name; longer ones are whole chapters.
MIN_CHARACTERS, MAX_CHARACTERS = 60, 6_000
TIMEOUT_SECONDS = 60.0
# Modules whose public types and functions are asked about.
MODULES = (
    "builtins", "argparse", "array", "collections", "csv", "datetime", "decimal", "fractions", "functools",
    "io", "itertools", "json", "logging", "math", "os", "pathlib", "random", "re", "shutil", "socket",
    "statistics", "struct", "subprocess", "tempfile", "threading", "time", "unittest", "urllib.parse",
    "zipfile",
)  # fmt: skip

Pair = tuple[str, str]


async def ensure(running: Running, report: Callable[[str], None]) -> str:
    """Imports the dataset unless the demo user has it; returns its id. Raises SetupError."""
    assert running.issuer is not None
    headers = {"authorization": f"Bearer {running.issuer.open().token(seconds=300)}"}
    try:
        # Without the environment's proxies: the gateway is on this machine.
        async with httpx.AsyncClient(
            base_url=f"{running.gateway}/api", headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False
        ) as client:
            response = await client.get("/datasets", params={"search": NAME, "status": "ready", "limit": 1})
            datasets = response.raise_for_status().json()["data"]["datasets"]
            if datasets:
                return str(datasets[0]["id"])
            samples = await asyncio.to_thread(list, pairs())
            report(f"importing {len(samples)} questions and answers as a dataset for the demo user")
            response = await client.post(
                "/datasets",
                params={"name": NAME, "description": DESCRIPTION},
                headers={"content-type": "application/jsonl"},
                content=b"\n".join(map(_sample, samples)),
            )
            return str(response.raise_for_status().json()["data"]["id"])
    except httpx.HTTPError as error:
        reason = error.response.text if isinstance(error, httpx.HTTPStatusError) else f"{type(error).__name__} {error}"
        raise SetupError(f"the demo dataset cannot be imported: {reason}") from error


def pairs() -> Iterator[Pair]:
    """Yields each question once, with its answer, in a fixed order."""
    seen = set()
    for question, answer in itertools.chain(_topics(), _library()):
        if MIN_CHARACTERS <= len(answer) <= MAX_CHARACTERS and question not in seen:
            seen.add(question)
            yield question, answer


def _sample(pair: Pair) -> bytes:
    """Returns a line in the format `messages`."""
    roles = zip(("system", "user", "assistant"), (SYSTEM, *pair), strict=True)
    return orjson.dumps({"messages": [{"role": role, "content": content} for role, content in roles]})


def _topics() -> Iterator[Pair]:
    """Yields the topics of `help()`."""
    from pydoc_data.topics import topics

    for text in topics.values():
        title, _, rest = text.strip().partition("\n")
        yield f"Explain “{title.strip('* ')}” in Python.", rest.lstrip("*=-~^ \n")


def _library() -> Iterator[Pair]:
    """Yields the types, functions and methods of `MODULES`."""
    for module in map(import_module, MODULES):
        prefix = "" if module is builtins else f"{module.__name__}."
        for name in sorted(getattr(module, "__all__", vars(module))):
            value = getattr(module, name)
            if not name.startswith("_") and callable(value):
                yield f"What does Python's `{prefix}{name}` do?", inspect.getdoc(value) or ""
            if isinstance(value, type) and not issubclass(value, BaseException):
                for method, member in sorted(vars(value).items()):
                    if not method.startswith("_") and callable(member):
                        yield f"What does `{prefix}{name}.{method}` do in Python?", inspect.getdoc(member) or ""
