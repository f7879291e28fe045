"""The catalogue file: checked when it is read, at start and again on SIGHUP."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from pipeline.estimator.v1 import estimator_pb2

from estimator_service.catalogue.model import CatalogueError
from estimator_service.service import EstimatorService
from estimator_service.settings import EstimatorSettings
from rpc.telemetry.metrics import Metrics

GOOD = cast(Path, EstimatorSettings.model_fields["catalogue_file"].default).read_text()
NONE = cast(Any, None)  # the catalogue needs neither datasets nor a caller


@pytest.mark.parametrize(
    ("was", "becomes", "told"),
    [
        ("price_usd_per_hour = 3.50", "price_usd_per_hour = 0", "greater than 0"),
        ("price_usd_per_hour = 3.50", "price_usd_per_hour = -1", "greater than 0"),
        ("price_usd_per_hour = 3.50", "price_usd_per_hour = nan", "gpu_types.0.price_usd_per_hour"),
        ("price_date = 2026-11-01\n", "", "gpu_types.0.price_date: Field required"),
        ('price_source = "this service\'s own list"\n', "", "gpu_types.0.price_source: Field required"),
        (", price_date = 2026-08-21", "", "gpu_types.0.offers.0.price_date: Field required"),
        ("price_usd_per_hour = 2.5,", "price_usd_per_hour = 0,", "gpu_types.0.offers.0.price_usd_per_hour"),
        ('type = "H100"', 'type = "A100-80GB"', "is repeated"),
        ('type = "H100"', 'type = "H100"\nmemory_gb = 94', "H100: memory_gb: gpus.toml has 80; remove it here"),
        ('type = "H100"', 'type = "X100"', "X100: gpus.toml does not have it; with memory_gb here"),
        ("epochs = 3,", "epochs = 21,", "preset Balanced"),
        ("[defaults]", "[defaults", "catalogue"),
        ("step = 4", "step = 4\nstray = 1", "stray"),
        ("2026-11-01T00:00:00Z", '"soon"', "effective_at"),
    ],
)
async def test_a_bad_catalogue_is_refused_and_never_replaces_a_good_one(
    tmp_path: Path, was: str, becomes: str, told: str
) -> None:
    """E05 and N12: a bad file stops a start with one line that says what is wrong, and a reload keeps the old one."""
    file = tmp_path / "catalogue.toml"
    file.write_text(GOOD)
    service = EstimatorService(file, NONE, NONE, NONE, Metrics())
    before = await service.GetCatalogue(estimator_pb2.GetCatalogueRequest(), NONE)
    file.write_text(GOOD.replace(was, becomes, 1))
    with pytest.raises(CatalogueError, match=told) as refused:
        EstimatorService(file, NONE, NONE, NONE, Metrics())
    assert "\n" not in str(refused.value)
    service.reload()
    assert await service.GetCatalogue(estimator_pb2.GetCatalogueRequest(), NONE) == before


async def test_a_reload_takes_effect(tmp_path: Path) -> None:
    """A changed price is in the next catalogue, under another version."""
    file = tmp_path / "catalogue.toml"
    file.write_text(GOOD)
    service = EstimatorService(file, NONE, NONE, NONE, Metrics())
    before = await service.GetCatalogue(estimator_pb2.GetCatalogueRequest(), NONE)
    file.write_text(GOOD.replace("price_usd_per_hour = 3.50", "price_usd_per_hour = 3.75"))
    service.reload()
    after = await service.GetCatalogue(estimator_pb2.GetCatalogueRequest(), NONE)
    assert (after.gpu_types[0].price_usd_per_hour, after.version != before.version) == (3.75, True)
