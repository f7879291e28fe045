"""Memory of one GPU while it trains: its parts, whether they fit, and what would make them fit.

Bytes throughout; a GiB is 2³⁰. Formulas work on floats and on numpy arrays alike. Sources: README.md, "Memory".
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from estimator_service.physics.workload import WEIGHT_BYTES, Workload, adapter_params

Verdict = Literal["fits", "tight", "does_not_fit"]

GIB = float(2**30)
# Widths of hidden states and of the feed-forward part that one layer keeps for its backward pass.
ATTENTION_WIDTHS, GATED_FFN, PLAIN_FFN = 8.0, 4.5, 1.7
SCORE_BYTES = 8.0  # softmax in 32 bits, its input and its mask
SCRATCH = 0.25  # of a full fine-tuning's states: the optimizer's temporaries
QUANTISED_KEEP = (
    2.0  # hidden widths of inputs, beside one of the feed-forward part, that a layer of 4-bit products keeps
)
GATHERED_LAYERS = 2.0  # the layer at work and the one fetched ahead


class MemoryParameters(NamedTuple):
    """Fitted numbers of the memory model; values, priors and provenance are in fitted.toml."""

    live_plain: float  # bytes of the layer at work, times those counted
    live_tuned: float
    saved: float  # the same for all layers when nothing is recomputed
    kept_inputs: float  # inputs that 4-bit products keep beside them, times those counted
    logits_plain: float  # bytes for each token and word of the vocabulary
    logits_tuned: float
    wide: float  # residual stream in 32 bits: bytes of checkpoints, times those in 16
    state_mixed: float  # bytes for each trained weight of a full fine-tuning: 16-bit arithmetic, 32-bit master
    state_pure: float  # and in 16 bits throughout
    fragments: float  # reserved and not used, as a share of activations
    logit_fragments: float  # and of logits
    context_gib: float  # what the driver and its libraries hold


class Footprint(NamedTuple):
    """Bytes that one GPU holds before any fitted number, as floats or arrays."""

    weights: float
    adapters: float
    gradients: float
    optimizer: float
    trained: float  # weights of a full fine-tuning that this GPU updates
    pure: float  # 1 when they are kept in 16 bits throughout
    gathered: float  # weights of neighbours, while a layer runs
    checkpoints: float  # inputs of every layer, kept to recompute the rest
    wide: float  # 1 when the residual stream is in 32 bits
    live: float  # one layer's activations, while it is recomputed
    saved: float  # all layers' activations, when nothing is recomputed
    kept_inputs: float  # of quantised products that frozen 16-bit ones need not keep, when nothing is recomputed
    scores: float  # attention scores of one layer (of all without checkpointing), without flash attention
    logits: float  # tokens · vocabulary whose logits are held
    tuned: float


class Memory(NamedTuple):
    """Peak of one GPU and its parts, bytes; the parts add up to `total`."""

    total: float
    weights: float
    adapters: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    overhead: float


def footprint(w: Workload, *, sharded: bool, count: int) -> Footprint:
    """What one of `count` GPUs holds at the longest sample."""
    model, full, plain = w.model, w.method == "full", w.stack in ("plain", "unknown")
    quantised = w.weight_bits < 16
    share = 1.0 / count if sharded else 1.0
    linear = float(model.layers * model.all_layer_params)
    rest = max(0.0, model.params_b * 1e9 - linear)
    # Plain stacks cast what they do not quantise to 32 bits (PEFT, prepare_model_for_kbit_training).
    stored = linear * WEIGHT_BYTES[w.weight_bits] + rest * (4.0 if quantised and plain and not w.pure_16bit else 2.0)
    trained = adapter_params(w)
    state = 2.0 if w.pure_16bit else 4.0
    tokens = float(w.batch * w.length)
    ffn = GATED_FFN if model.gated_ffn else PLAIN_FFN
    layer = tokens * 2.0 * (ATTENTION_WIDTHS * model.hidden + ffn * model.token_ffn)
    scores = 0.0 if w.flash_attention else float(w.batch * model.heads) * w.length * w.length * SCORE_BYTES
    root = 2.0 * model.vocab * model.hidden * (1.0 if model.tied_embeddings else 2.0)
    return Footprint(
        weights=0.0 if full else stored * share,
        adapters=0.0 if full else trained * state * share,
        gradients=0.0 if full else trained * state * share,
        optimizer=0.0 if full else trained * state * 2.0 * share,
        trained=model.params_b * 1e9 * share if full else 0.0,
        pure=float(w.pure_16bit or not sharded),
        gathered=GATHERED_LAYERS * 2.0 * model.all_layer_params + root if sharded else 0.0,
        checkpoints=tokens * 2.0 * model.hidden * model.layers if w.checkpointing else 0.0,
        wide=float(sharded or (plain and quantised)) * float(not w.pure_16bit),
        live=layer if w.checkpointing else 0.0,
        saved=0.0 if w.checkpointing else layer * model.layers,
        kept_inputs=tokens * 2.0 * model.layers * (QUANTISED_KEEP * model.hidden + model.token_ffn)
        if quantised and not w.checkpointing
        else 0.0,
        scores=scores if w.checkpointing else scores * model.layers,
        logits=0.0 if w.fused_loss else tokens * model.vocab,
        tuned={"plain": 0.0, "tuned": 1.0, "megatron": 1.0, "unknown": 0.5}[w.stack],
    )


def allocated(f: Footprint, p: MemoryParameters) -> Memory:
    """Peak that the framework's allocator hands out.

    The layer at work and the logits are not held at the same time: `logits` is what they need beyond it. The optimizer's
    scratch space (a quarter of a full fine-tuning's states) shares its room with the activations: `overhead` has the rest.
    """
    plain = 1.0 - f.tuned
    states = f.trained * (p.state_mixed * (1.0 - f.pure) + p.state_pure * f.pure)
    live = f.live * (p.live_plain * plain + p.live_tuned * f.tuned) + f.scores
    saved = f.saved * p.saved + f.kept_inputs * p.kept_inputs
    activations = f.checkpoints * (1.0 + f.wide * (p.wide - 1.0)) + saved + live
    logits = _positive(f.logits * (p.logits_plain * plain + p.logits_tuned * f.tuned) - live)
    scratch = _positive(states * SCRATCH - activations - logits)
    overhead = f.gathered + scratch
    weights, gradients = f.weights + states * 0.25, f.gradients + states * 0.25
    optimizer = f.optimizer + states * 0.5
    total = weights + f.adapters + gradients + optimizer + activations + logits + overhead
    return Memory(total, weights, f.adapters, gradients, optimizer, activations, logits, overhead)


def peak(used: Memory, f: Footprint, p: MemoryParameters, capacity: Any) -> Memory:
    """Peak that the device reports: what is `allocated`, what the allocator keeps in reserve and what the driver holds.

    The reserve is given up when the card is full, so it never makes a peak that exceeds `capacity` by itself.
    """
    plain = 1.0 - f.tuned
    logits = f.logits * (p.logits_plain * plain + p.logits_tuned * f.tuned)
    context = p.context_gib * GIB
    reserve = p.fragments * (used.activations + f.gathered) + p.logit_fragments * logits
    reserve = reserve - _positive(reserve - _positive(capacity - context - used.total))
    overhead = used.overhead + reserve + context
    total = used.weights + used.adapters + used.gradients + used.optimizer + used.activations + used.logits + overhead
    return used._replace(total=total, overhead=overhead)


def _positive(value: float) -> float:
    """The value, or 0 where it is negative; for floats and arrays."""
    return np.maximum(value, 0.0) if isinstance(value, np.ndarray) else max(value, 0.0)
