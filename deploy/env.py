"""Writes `deploy/env.example` from the settings classes: `make env`."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

import orjson
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from deploy.settings import UpSettings
from estimator_service.settings import EstimatorSettings
from gateway.settings import GatewaySettings
from jobs_service.settings import JobsSettings, MigrateSettings, WebhookSenderSettings
from rpc.process.settings import CommonSettings, DatabaseSettings
from trainer.settings import DispatcherSettings, NodeSettings, TrainerSettings

FILE = Path(__file__).with_name("env.example")
# In this order; a variable that several classes read is listed under the first.
SETTINGS = (
    CommonSettings,
    DatabaseSettings,
    MigrateSettings,
    EstimatorSettings,
    JobsSettings,
    WebhookSenderSettings,
    GatewaySettings,
    UpSettings,
    TrainerSettings,
    NodeSettings,
    DispatcherSettings,
)
WIDTH = 116
HEADER = """# Every variable that Pipeline reads, with its default. Generated from the settings classes by `make env`.
# A variable without a leading # is required by the processes of its section.
"""


def example() -> str:
    """Returns the file: each variable once, with its description and default."""
    seen: set[str] = set()
    parts = [HEADER]
    for settings in SETTINGS:
        fields = {name: field for name, field in settings.model_fields.items() if name not in seen}
        seen.update(fields)
        parts.append("".join(_section(settings, fields)))
    return "\n".join(parts)


def _section(settings: type[BaseSettings], fields: dict[str, FieldInfo]) -> Iterator[str]:
    title = (inspect.getdoc(settings) or settings.__name__).partition("\n")[0]
    yield f"# --- {title}\n"
    for name, field in fields.items():
        yield textwrap.indent(textwrap.fill(field.description or "", WIDTH), "# ") + "\n"
        variable = f"{settings.model_config['env_prefix']}{name.upper()}"
        yield f"{variable}=\n" if field.default is PydanticUndefined else f"#{variable}={_text(field.default)}\n"


def _text(default: object) -> str:
    if default is None or isinstance(default, SecretStr):
        return ""
    if isinstance(default, Path):
        here = FILE.parents[1]
        return str(default.relative_to(here) if default.is_relative_to(here) else default)
    return (
        str(default)
        if isinstance(default, str | int | float) and not isinstance(default, bool)
        else orjson.dumps(default, default=list).decode()
    )


if __name__ == "__main__":
    FILE.write_text(example())
