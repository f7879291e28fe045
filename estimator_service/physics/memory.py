"""Memory of one GPU while it trains: its parts, their sum, and the peak that the device reports.

Bytes throughout; a GiB is 2³⁰. Formulas work on floats and on numpy arrays alike. Sources: docs/forecasts.md, "Memory".
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from estimator_service.physics.workload import TUNED_SHARE, WEIGHT_BYTES, Workload, adapter_params

Verdict = Literal["fits", "tight", "does_not_fit"]

GIB = float(2**30)
TIGHT_FROM = 0.95  # of the usable memory: above this one longer sample can end the run
# Widths of hidden states and of the feed-forward part that one layer keeps for its backward pass.
ATTENTION_WIDTHS, GATED_FFN, PLAIN_FFN = 8.0, 4.5, 1.7
SCORE_BYTES = 13.0  # scores and softmax in 16 and 32 bits, and their gradients
SCRATCH = 0.25  # of a full fine-tuning's states: the optimizer's temporaries
# Hidden widths of inputs, beside one of the feed-forward part, that a layer of 4-bit products keeps.
QUANTISED_KEEP = 2.0
GATHERED_LAYERS = 2.0  # the current layer and the prefetched one
FP8_SAVED = 0.6  # bytes of saved activations, times those in 16 bits: inputs of products take one byte, the rest two
OFFLOADED_LAYERS = 2.0  # layers whose checkpoints are still on the GPU while they are copied to the host
EIGHT_BIT_MOMENTS = 0.26  # bytes of 8-bit moments with their scales, times those of 32-bit moments


class MemoryParameters(NamedTuple):
    """Fitted parameters of the memory model; values, priors and provenance are in fitted.toml."""

    live_plain: float  # bytes of the current layer, times those counted
    live_tuned: float
    saved: float  # the same for all layers when nothing is recomputed
    saved_megatron: float
    kept_inputs: float  # inputs that 4-bit products keep beside them, times those counted
    logits_plain: float  # bytes for each token and word of the vocabulary
    logits_wide: float  # the same where they are held in 32 bits as well
    logits_tuned: float
    wide: float  # residual stream in 32 bits: bytes of checkpoints, times those in 16
    state_mixed: float  # bytes for each trained weight of a full fine-tuning: 16-bit arithmetic, 32-bit master
    state_pure: float  # and in 16 bits throughout
    fragments: float  # reserved and not used, as a share of activations
    logit_fragments: float  # and of logits
    context_gib: float  # memory of the driver and its libraries


class Footprint(NamedTuple):
    """Bytes of one GPU before any fitted parameter, as floats or arrays."""

    weights: float
    adapters: float
    gradients: float
    optimizer: float
    trained: float  # weights of a full fine-tuning that this GPU computes with
    gradient_share: float  # of `trained`: weights whose gradients this GPU keeps
    optimizer_share: (
        float  # of `trained`: weights whose optimizer states this GPU keeps, 8-bit moments counted as fewer
    )
    pure: float  # 1 when they are kept in 16 bits throughout
    may_be_pure: float  # 1 when the run does not state whether they are
    gathered: float  # weights of other replicas, while a layer runs
    checkpoints: float  # inputs of the layers that are recomputed
    wide: float  # 1 when the residual stream is in 32 bits
    live: float  # one layer's activations, while it is recomputed
    saved: float  # activations of the layers that are not recomputed
    kept_inputs: float  # of quantised products that frozen 16-bit ones need not keep, when nothing is recomputed
    scores: float  # attention scores of one layer (of all without checkpointing), without flash attention
    logits: float  # tokens · vocabulary whose logits are held
    wide_logits: float
    tuned: float
    megatron: float


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


def footprint(w: Workload, *, zero: int, count: int) -> Footprint:
    """Bytes that one of `count` GPUs holds at the longest sample, under a ZeRO stage."""
    model, full, plain = w.model, w.method == "full", TUNED_SHARE[w.stack] < 1.0
    replicas = max(1.0, count / w.gpus_per_replica)
    sharded = zero == 3 and replicas > 1.0
    part = 1.0 / (w.tensor * w.pipeline)  # of the model, on each GPU of a replica
    share = part / replicas if sharded else part
    layer_params = model.layer_params + (model.all_layer_params - model.layer_params) / w.expert
    linear = float(model.layers * layer_params)
    rest = max(0.0, model.params_b * 1e9 - float(model.layers * model.all_layer_params))
    # Plain stacks cast what they do not quantise to 32 bits (PEFT, prepare_model_for_kbit_training).
    stored = linear * WEIGHT_BYTES[w.weight_bits] + rest * (4.0 if w.quantised and plain and not w.pure_16bit else 2.0)
    state = 2.0 if w.pure_16bit else 4.0
    adapters = 0.0 if full else adapter_params(w) * state * share
    pure = w.pure_16bit if w.pure_16bit is not None else count == 1
    moments = {32: 1.0, 8: EIGHT_BIT_MOMENTS * (2.0 if full and pure else 1.0), 0: 0.0}[w.optimizer_bits]
    on_host = w.offloaded_states and zero == 3  # ZeRO-3 and FSDP move weights to the host with the states
    tokens = float(w.batch * w.length) / (w.tensor * w.context)
    layers = model.layers * min(w.pipeline, w.accumulation) / w.pipeline  # whose activations are alive at once
    ffn = GATED_FFN if model.gated_ffn else PLAIN_FFN
    layer = tokens * 2.0 * (ATTENTION_WIDTHS * model.hidden + ffn * model.token_ffn)
    low = FP8_SAVED if w.precision in ("fp8", "fp4") and w.stack == "megatron" else 1.0
    scores = 0.0 if w.flash_attention else float(w.batch * model.heads) * w.length * w.length * SCORE_BYTES / w.tensor
    root = 2.0 * model.vocab * model.hidden * (1.0 if model.tied_embeddings else 2.0)
    recomputed = float(w.checkpointing)
    checkpointed = min(layers * recomputed, OFFLOADED_LAYERS) if w.offloaded_checkpoints else layers * recomputed
    states = 0.0 if w.offloaded_states else 1.0 / replicas if zero >= 1 and not sharded else 1.0
    return Footprint(
        weights=0.0 if full or on_host else stored * share,
        adapters=adapters,
        gradients=adapters,
        optimizer=adapters * 2.0 * moments * states,
        trained=(linear + rest) * share if full and not on_host else 0.0,
        gradient_share=0.0 if w.optimizer_in_backward else states if zero >= 2 or w.offloaded_states else 1.0,
        optimizer_share=states * moments,
        pure=float(pure),
        may_be_pure=float(full and w.pure_16bit is None),
        gathered=(GATHERED_LAYERS * WEIGHT_BYTES[w.weight_bits] * layer_params + root) * part * w.pipeline
        if sharded
        else 0.0,
        checkpoints=tokens * 2.0 * model.hidden * checkpointed,
        wide=float(sharded or (plain and w.quantised)) * float(not w.pure_16bit),
        live=layer if recomputed else 0.0,
        saved=layer * layers * (1.0 - recomputed) * low,
        kept_inputs=tokens * 2.0 * layers * (1.0 - recomputed) * (QUANTISED_KEEP * model.hidden + model.token_ffn)
        if w.quantised
        else 0.0,
        scores=scores * max(1.0, layers * (1.0 - recomputed)),
        logits=0.0 if w.fused_loss else tokens * model.vocab,
        wide_logits=float(w.wide_logits),
        tuned=TUNED_SHARE[w.stack],
        megatron=float(w.stack == "megatron"),
    )


def allocated(f: Footprint, p: MemoryParameters) -> Memory:
    """Peak that the framework's allocator hands out.

    The current layer and the logits are not alive at the same time: `logits` is what they need beyond it. The optimizer's
    scratch space (a quarter of a full fine-tuning's states) shares its room with the activations: `overhead` has the rest.
    """
    states = f.trained * (p.state_mixed * (1.0 - f.pure) + p.state_pure * f.pure)
    live = f.live * (p.live_plain * (1.0 - f.tuned) + p.live_tuned * f.tuned) + f.scores
    saved = f.saved * (p.saved + f.megatron * (p.saved_megatron - p.saved)) + f.kept_inputs * p.kept_inputs
    activations = f.checkpoints * (1.0 + f.wide * (p.wide - 1.0)) + saved + live
    logits = _positive(_logits(f, p) - live)
    optimizer = f.optimizer + states * 0.5 * f.optimizer_share
    scratch = _positive(states * SCRATCH * f.optimizer_share - activations - logits)
    overhead = f.gathered + scratch
    weights, gradients = f.weights + states * 0.25, f.gradients + states * 0.25 * f.gradient_share
    total = weights + f.adapters + gradients + optimizer + activations + logits + overhead
    return Memory(total, weights, f.adapters, gradients, optimizer, activations, logits, overhead)


def peak(used: Memory, f: Footprint, p: MemoryParameters, capacity: Any) -> Memory:
    """Peak that the device reports: what is `allocated`, the allocator's reserve, and the driver's own memory.

    The reserve is given up when the card is full, so it never makes a peak that exceeds `capacity` by itself.
    """
    context = p.context_gib * GIB
    reserve = p.fragments * (used.activations + f.gathered) + p.logit_fragments * _logits(f, p)
    reserve = reserve - _positive(reserve - _positive(capacity - context - used.total))
    overhead = used.overhead + reserve + context
    total = used.weights + used.adapters + used.gradients + used.optimizer + used.activations + used.logits + overhead
    return used._replace(total=total, overhead=overhead)


def _logits(f: Footprint, p: MemoryParameters) -> float:
    plain = p.logits_plain + f.wide_logits * (p.logits_wide - p.logits_plain)
    return f.logits * (plain * (1.0 - f.tuned) + p.logits_tuned * f.tuned)


def _positive(value: float) -> float:
    """The value, or 0 where it is negative; for floats and arrays."""
    return np.maximum(value, 0.0) if isinstance(value, np.ndarray) else max(value, 0.0)
