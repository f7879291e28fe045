"""Helpers of all stores: transactions that translate errors of constraints, and readers that make models of rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Generic, NoReturn, TypeVar

import asyncpg
import orjson

from jobs_service.errors import DatasetNotFound
from rpc.database.pool import Database
from rpc.database.transaction import Transaction
from rpc.errors import ServiceError, TransactionRolledBack, ValidationFailed
from rpc.identity.model import Identity

# The error that a broken constraint raises. Only a bug breaks any other constraint: it is an internal error.
CONSTRAINTS: dict[str, Callable[[], ServiceError]] = {
    "lora_training_jobs_dataset_fkey": DatasetNotFound,
    "lora_training_jobs_validation_fkey": DatasetNotFound,
    # create_job holds the user's lock and looks for the key first, so only a row that an operator inserts at the same time
    # breaks this. The repeated call finds that row.
    "lora_training_jobs_request_key": TransactionRolledBack,
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
    """A page of a list, and the number of items on all pages."""

    items: Sequence[Item]
    total: int


@asynccontextmanager
async def as_caller(database: Database, caller: Identity, first: str = "") -> AsyncIterator[Transaction]:
    """Opens a transaction as a caller, beginning with the statement `first`. Raises the errors of CONSTRAINTS."""
    try:
        async with database.as_caller(caller, first) as connection:
            yield connection
    except asyncpg.IntegrityConstraintViolationError as error:
        _raise_meaning(error)


async def call_as(database: Database, caller: Identity, statement: str, *arguments: Any) -> list[asyncpg.Record]:
    """Calls a SQL function that acts as the caller, and returns its rows. Raises the errors of CONSTRAINTS."""
    try:
        return await database.call_as(caller, statement, *arguments)
    except asyncpg.IntegrityConstraintViolationError as error:
        _raise_meaning(error)


def _raise_meaning(error: asyncpg.IntegrityConstraintViolationError) -> NoReturn:
    if error.constraint_name in CONSTRAINTS:
        raise CONSTRAINTS[error.constraint_name]() from error
    raise error


def read_page(
    rows: Sequence[asyncpg.Record], model: Callable[[asyncpg.Record], Item], *, key: str = "id"
) -> Page[Item]:
    """Returns the page that a list statement read. An empty page is one row whose `key` is null."""
    return Page([model(row) for row in rows if row[key] is not None], rows[0]["total"])


def reader(model: Callable[..., Item]) -> Callable[[asyncpg.Record], Item]:
    """Returns a function that reads a row into a dataclass or named tuple whose fields are named like columns."""
    cls: Any = model
    names = cls.__match_args__
    get = itemgetter(*names)
    json_places = [place for place, name in enumerate(names) if name in JSON_COLUMNS]
    # `_make` of a named tuple is several times as fast as its constructor.
    make: Callable[[list[Any]], Item] = getattr(cls, "_make", lambda values: cls(*values))

    def read(row: asyncpg.Record) -> Item:
        values = [*get(row)]
        for place in json_places:
            text = values[place]
            values[place] = orjson.loads(text) if text else []
        return make(values)

    return read


def columns(model: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass by name, which are columns; none for None."""
    return {} if model is None else {name: getattr(model, name) for name in model.__match_args__}


def as_json(value: Any) -> str:
    """Returns a value as a json parameter: decimals as text, bytes in PostgreSQL's hex format."""
    return orjson.dumps(value, default=_as_text).decode()


def _as_text(value: Any) -> str:
    return rf"\x{value.hex()}" if isinstance(value, bytes) else str(value)
