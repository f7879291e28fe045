"""What the stores share: transactions whose broken constraints have a meaning, and rows that become models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Generic, NoReturn, TypeVar

import asyncpg
import orjson

from jobs_service.errors import DatasetNotFound
from rpc.database.errors import CONFLICT
from rpc.database.pool import Database
from rpc.database.transaction import Transaction
from rpc.errors import ServiceError, Undone, ValidationFailed
from rpc.identity.model import Identity

# What breaking a constraint means to the caller. Any other one broken is a bug of ours, and answered as such.
CONSTRAINTS: dict[str, Callable[[], ServiceError]] = {
    "lora_training_jobs_dataset_fkey": DatasetNotFound,
    "lora_training_jobs_validation_fkey": DatasetNotFound,
    # Whoever creates a job has the user's lock and looks for the key first: this happens only where an operator's own
    # statement puts in a row of the same key meanwhile. Asked for again, it finds that one.
    "lora_training_jobs_request_key": lambda: Undone("Conflict", details=CONFLICT),
    "lora_training_jobs_position_check": lambda: ValidationFailed(
        [("step", "epoch and step are at most the job's total_epochs and total_steps")]
    ),
}
JSON_COLUMNS = frozenset(
    {
        "hyperparameters",
        "gpu_config",
        "training",
        "current_metrics",
        "measurements",
        "reforecast",
        "metadata",
        "validation_errors",
        "validation_warnings",
        "validation_dataset",
        "token_histogram",
        "data",
        "values",
    }
)

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A page of a list, and how many there are in all."""

    items: Sequence[Item]
    total: int


@asynccontextmanager
async def as_caller(database: Database, caller: Identity, first: str = "") -> AsyncIterator[Transaction]:
    """A transaction of a caller's, begun with the statement `first`. Raises what a broken constraint means."""
    try:
        async with database.as_caller(caller, first) as connection:
            yield connection
    except asyncpg.IntegrityConstraintViolationError as error:
        _raise_meaning(error)


async def call_as(database: Database, caller: Identity, statement: str, *arguments: Any) -> list[asyncpg.Record]:
    """The rows of a function that becomes the caller by itself. Raises what a broken constraint means."""
    try:
        return await database.call_as(caller, statement, *arguments)
    except asyncpg.IntegrityConstraintViolationError as error:
        _raise_meaning(error)


def _raise_meaning(error: asyncpg.IntegrityConstraintViolationError) -> NoReturn:
    if error.constraint_name in CONSTRAINTS:
        raise CONSTRAINTS[error.constraint_name]() from error
    raise error


def page_of(rows: Sequence[asyncpg.Record], model: Callable[[asyncpg.Record], Item], *, key: str = "id") -> Page[Item]:
    """The page that a list statement answers with: one row without a `key` where it is empty."""
    return Page([model(row) for row in rows if row[key] is not None], rows[0]["total"])


def reader(cls: Any) -> Callable[[asyncpg.Record], Any]:
    """A function that makes a row a model whose fields have the columns' names."""
    names = cls.__match_args__
    get = itemgetter(*names)
    json_places = [place for place, name in enumerate(names) if name in JSON_COLUMNS]
    # What a named tuple has for this is several times as fast as its own __new__.
    make = getattr(cls, "_make", lambda values: cls(*values))

    def read(row: asyncpg.Record) -> Any:
        values = [*get(row)]
        for place in json_places:
            text = values[place]
            values[place] = orjson.loads(text) if text else []
        return make(values)

    return read


def columns(model: Any) -> dict[str, Any]:
    """The columns of a dataclass whose fields have their names; none for None."""
    return {} if model is None else {name: getattr(model, name) for name in model.__match_args__}


def as_json(value: Any) -> str:
    """A value as a json parameter takes it: numerics as text, bytes as PostgreSQL reads them."""
    return orjson.dumps(value, default=_as_text).decode()


def _as_text(value: Any) -> str:
    return rf"\x{value.hex()}" if isinstance(value, bytes) else str(value)
