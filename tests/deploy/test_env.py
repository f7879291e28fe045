"""`deploy/env.example` is generated from the settings."""

from __future__ import annotations

import importlib
import inspect

from pydantic_settings import BaseSettings

from deploy import env

MODULES = ("rpc.process", "estimator_service", "jobs_service", "gateway", "deploy", "trainer")


def test_env_example_is_what_the_settings_say() -> None:
    """The file is the one that `make env` writes."""
    assert env.FILE.read_text() == env.example(), "run `make env`"


def test_every_setting_is_in_it() -> None:
    """Every setting of every process is in the file, with a description."""
    text = env.FILE.read_text()
    result = [
        (cls, name, field)
        for module in MODULES
        for _, cls in inspect.getmembers(importlib.import_module(f"{module}.settings"), inspect.isclass)
        if issubclass(cls, BaseSettings)
        for name, field in cls.model_fields.items()
    ]
    assert len(result) > 20
    for cls, name, field in result:
        variable = f"{cls.model_config['env_prefix']}{name.upper()}"
        assert f"\n{variable}=" in text or f"\n#{variable}=" in text, (cls, name)
        assert field.description, (cls, name)
