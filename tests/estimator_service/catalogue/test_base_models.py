"""The catalogue of base models and the names it answers to."""

from __future__ import annotations

import pytest

from estimator_service.catalogue import base_models


def test_there_are_at_least_forty_models_with_their_source() -> None:
    """Every entry is valid and says where it is from."""
    assert len(base_models.all_models()) >= 40
    assert all(model.source for model in base_models.all_models().values())


@pytest.mark.parametrize(
    ("name", "license_", "context"),
    [
        ("llama-3.1-8b", "Llama 3.1", 131_072),
        ("llama-30b", "LLaMA (research only)", 2048),
        ("mistral-7b", "Apache-2.0", 32_768),
        ("qwen2.5-3b", "Qwen Research", 32_768),
        ("phi-4-14b", "MIT", 16_384),
        ("demo-tiny", "", 8192),
    ],
)
def test_a_model_has_its_license_and_context(name: str, license_: str, context: int) -> None:
    """Both are the first entry's that matches its name."""
    model = base_models.all_models()[name]
    assert (model.license, model.context_tokens) == (license_, context)


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
