"""The catalogue of base models and the names it answers to."""

from __future__ import annotations

import pytest

from estimator_service.catalogue import base_models


def test_there_are_at_least_forty_models_with_their_source() -> None:
    """Every entry is valid and says where it is from."""
    assert len(base_models.all_models()) >= 40
    assert all(model.source for model in base_models.all_models().values())


@pytest.mark.parametrize("model", base_models.all_models().values(), ids=lambda model: model.name)
def test_the_shape_gives_the_parameter_count(model: base_models.Model) -> None:
    """Layers and embeddings explain the stated parameters within a tenth."""
    counted = model.layers * model.all_layer_params + model.embedding_params
    assert counted / 1e9 == pytest.approx(model.params_b, rel=0.1)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("meta-llama/Llama-2-7b-hf", "llama-2-7b"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b"),
        ("mistral-7b", "mistral-7b"),
        ("llama-13b", "llama-2-13b"),
    ],
)
def test_published_names_are_found(name: str, found: str) -> None:
    """Organisation, case and tuning suffix do not matter."""
    model = base_models.find(name)
    assert model is not None
    assert model.name == found
