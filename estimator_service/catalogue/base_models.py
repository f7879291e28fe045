"""The architecture of base models: their layers, numbers of weights and tokenizers."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt

# Standard deviation of the log of a text's number of tokens if its script was not measured or the text not sampled.
UNMEASURED_SPREAD = 0.25


class Tokenizer(BaseModel):
    """A model's tokenizer: its tokens of a text follow from those counted with the tokenizers of Mistral-7B and Tekken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str  # of models' names
    counted: Literal["mistral", "tekken"]  # the tokenizer whose count the factors multiply
    factors: Mapping[str, PositiveFloat] = {}  # by script: the model's tokens divided by those counted
    spread: float = Field(
        0.0, ge=0
    )  # standard deviation of the log of the model's tokens, between languages of a script
    source: str

    def __hash__(self) -> int:
        """By `match`, which is unique."""
        return hash(self.match)

    def ratio(self, script_tokens: Sequence[tuple[str, int, int]]) -> float:
        """The model's tokens divided by those of Mistral-7B's tokenizer; 1 where the texts were not sampled."""
        counted = sum(mistral for _, mistral, _ in script_tokens)
        if self.counted == "mistral" or not counted:
            return 1.0
        return sum(tekken * self.factors.get(script, 1.0) for script, _, tekken in script_tokens) / counted

    def log_spread(self, script_tokens: Sequence[tuple[str, int, int]]) -> float:
        """Standard deviation of the log of `ratio`."""
        is_measured = self.counted == "mistral" or (
            bool(script_tokens) and all(script in self.factors or not self.factors for script, *_ in script_tokens)
        )
        return self.spread if is_measured else math.hypot(self.spread, UNMEASURED_SPREAD)


class Model(BaseModel):
    """The shape of a decoder-only transformer. `*_params` are numbers of weights, `*_b` billions of weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    layers: PositiveInt
    hidden: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    ffn: PositiveInt
    vocab: PositiveInt
    params_b: PositiveFloat
    active_b: PositiveFloat | None = None
    experts: PositiveInt = 1
    experts_per_token: PositiveInt = 1
    shared_ffn: int = Field(0, ge=0)
    gated_ffn: bool = True
    tied_embeddings: bool = False
    aliases: tuple[str, ...] = ()
    tokenizer: Tokenizer
    modules: tuple[str, ...] = ()  # names of a layer's linear modules; empty: those of Llama
    license: str = ""  # of its weights
    context_tokens: NonNegativeInt = 0  # 0: not known
    source: str

    def __hash__(self) -> int:
        """By name, which is unique: hashing every field would take longer than what caches save."""
        return hash(self.name)

    @cached_property
    def projections(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each linear module of one layer that a token passes through, by its usual name."""
        query, kv, ffn = self.heads * self.head_dim, self.kv_heads * self.head_dim, self.token_ffn
        shapes = {
            "q": (self.hidden, query),
            "k": (self.hidden, kv),
            "v": (self.hidden, kv),
            "o": (query, self.hidden),
            "up": (self.hidden, ffn),
            "down": (ffn, self.hidden),
        }
        return shapes | {"gate": (self.hidden, ffn)} if self.gated_ffn else shapes

    @cached_property
    def token_ffn(self) -> int:
        """Width of the feed-forward part that one token uses: that of all its experts together."""
        return self.ffn * self.experts_per_token + self.shared_ffn

    @cached_property
    def layer_params(self) -> int:
        """Matmul weights of one layer that a token passes through."""
        return sum(inputs * outputs for inputs, outputs in self.projections.values())

    @cached_property
    def all_layer_params(self) -> int:
        """Matmul weights of one layer with every expert counted."""
        idle = self.ffn * (self.experts - self.experts_per_token)
        return self.layer_params + (3 if self.gated_ffn else 2) * self.hidden * idle

    @cached_property
    def embedding_params(self) -> int:
        """Input table and output head (one table when tied)."""
        return self.vocab * self.hidden * (1 if self.tied_embeddings else 2)

    @cached_property
    def family(self) -> str:
        """First word of the name ("llama", "qwen"). Finished jobs correct the forecasts of a family."""
        word = re.match(r"[a-z]+", self.name)
        return word.group() if word else self.name


def canonical(name: str) -> str:
    """Returns a published name without its organisation and tuning suffixes, with one kind of separator."""
    name = re.sub(r"[\s_/]+", "-", name.strip().lower().rsplit("/", 1)[-1])
    name = re.sub(
        r"\b(meta|hf|instruct|chat|base|it|pt|bnb|4bit|gptq|awq|fp16|bf16|v0\.[1-3]|v1(\.0)?|unsloth)\b", "", name
    )
    name = re.sub(r"(?<=[a-z])(?=\d)|(?<=\d)(?=[a-z]{2})", "-", name)
    return re.sub(r"-+", "-", name).strip("-")


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("base_models.toml").read_text())


def _matching(table: str, name: str) -> dict[str, Any]:
    """Returns the first entry of a table whose pattern matches a model's name."""
    return next(entry for entry in _data()[table] if re.match(entry["match"], name))


@cache
def all_models() -> dict[str, Model]:
    """Every model of base_models.toml by its name."""
    models = [
        Model.model_validate(
            {
                "modules": _matching("modules", row["name"])["names"],
                "tokenizer": _matching("tokenizers", row["name"]),
                "license": _matching("licenses", row["name"])["license"],
                "context_tokens": _matching("contexts", row["name"])["context_tokens"],
                **row,
            }
        )
        for row in _data()["model"]
    ]
    if len({model.name for model in models}) != len(models):
        raise ValueError("base_models.toml names a model twice")
    return {model.name: model for model in models}


@cache
def _by_alias() -> dict[str, Model]:
    names: dict[str, Model] = {}
    for model in all_models().values():
        for alias in (model.name, *model.aliases):
            names.setdefault(canonical(alias), model)
    return names


@lru_cache(maxsize=4096)
def find(name: str, params_b: float | None = None) -> Model | None:
    """Returns the model of a published name. None if there is none, or if `params_b` is given and off by more than 15 %."""
    model = _by_alias().get(canonical(name))
    if model and params_b and not 1 / 1.15 < params_b / model.params_b < 1.15:
        return None
    return model


def inferred(params_b: float, active_b: float | None = None, vocab: int = 64_000) -> Model:
    """Returns the usual shape of a model of this size: layers about hidden / 115, a gated FFN of 3.5 hidden, grouped queries.

    With 115 · layers = hidden and 12.5 · hidden² weights a layer, plus at most 64k words of vocabulary twice, this gives back
    the published shapes of 1B to 70B models within 15 % in depth and width.
    """
    target = (active_b or params_b) * 1e9
    hidden = 256
    while 13 * hidden**3 / 115 + 2 * min(vocab, 64_000) * hidden < target:
        hidden += 64
    layers = max(4, round(hidden / 115))
    ffn = round(3.5 * hidden)
    # A mixture: eight experts for each token, as wide together as a dense feed-forward part; other weights are more of them.
    chosen = 8 if active_b and active_b < params_b else 1
    idle = (params_b - (active_b or params_b)) * 1e9 / (3.0 * layers * hidden * (ffn // chosen))
    return Model(
        name=f"inferred-{params_b:g}b", layers=layers, hidden=hidden, heads=max(1, hidden // 128),
        kv_heads=max(1, hidden // 512), head_dim=128, ffn=ffn // chosen, vocab=vocab, params_b=params_b,
        active_b=active_b, experts=chosen + round(idle), experts_per_token=chosen, shared_ffn=0,
        tokenizer=Tokenizer.model_validate(_matching("tokenizers", "")),
        source="inferred from the parameter count",
    )  # fmt: skip
