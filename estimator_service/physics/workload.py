"""What is trained and how, and what one step of it asks of any GPU: counts of operations and bytes, no times."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from estimator_service.catalogue.base_models import Model

Method = Literal["lora", "qlora", "dora", "full"]
Stack = Literal["plain", "legacy", "tuned", "megatron", "unknown"]
Precision = Literal["bf16", "fp16", "fp32", "fp8", "fp4"]
Bits = Literal[16, 8, 4]

WEIGHT_BYTES = {16: 2.0, 8: 1.03, 4: 0.53}  # a stored weight, block scales included
# An expert launches its three products, and as many kernels to gather its tokens, to weigh them and to add them back.
EXPERT_PASSES = 6.0
NARROW_WIDTH = 1024.0  # of the experts' products: half the speed of wide ones
# The longest of n samples is about 1 + ln(n) of these above their mean: for lengths with a tail that falls exponentially, which
# spread by two thirds of the mean as those of instructions do.
LENGTH_SPREAD = 0.5
KERNEL_PASSES_BACKWARD = 2.0  # a backward pass launches about twice the kernels of a forward pass
# Share of a stack's kernels that are fused; `legacy` stacks are eager ones that move twice the element-wise bytes.
TUNED_SHARE = {"plain": 0.0, "legacy": 0.0, "tuned": 1.0, "megatron": 1.0, "unknown": 0.5}
ATTENTION = ("q", "k", "v", "o")
# Spellings of the same module in different model families.
MODULE_NAMES = {
    "q_proj": ("q",), "k_proj": ("k",), "v_proj": ("v",), "o_proj": ("o",), "out_proj": ("o",), "dense": ("o",),
    "c_attn": ("q", "k", "v"), "qkv_proj": ("q", "k", "v"), "query_key_value": ("q", "k", "v"), "Wqkv": ("q", "k", "v"),
    "c_proj": ("o", "down"), "gate_proj": ("gate",), "up_proj": ("up",), "down_proj": ("down",),
    "w1": ("gate",), "w2": ("down",), "w3": ("up",), "fc1": ("up",), "fc2": ("down",), "gate_up_proj": ("gate", "up"),
    "dense_h_to_4h": ("up",), "dense_4h_to_h": ("down",), "c_fc": ("up",), "fc_in": ("up",), "fc_out": ("down",),
    "W_pack": ("q", "k", "v"), "wqkv": ("q", "k", "v"), "wo": ("o",),
    "q": ("q",), "k": ("k",), "v": ("v",), "o": ("o",), "gate": ("gate",), "up": ("up",), "down": ("down",),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Workload:
    """One configuration of a training run.

    A replica is a group of `tensor · pipeline · context` GPUs that trains one copy of the model. `batch` is the sequences of
    a replica's micro-batch, `accumulation` its micro-batches in an optimizer step. Lengths are tokens: `length` is the
    longest sequence of a micro-batch (memory), `tokens` the mean of a sample (time; None: `length`). `padded` is the mean of
    the longest sample of one, two, … micro-batches over that of all samples (None: derived from their size).
    `checkpointing` is the share of the layers whose activations are recomputed. `zero` is the ZeRO stage (FSDP: 3; None:
    chosen by `parallelism`).
    """

    model: Model
    method: Method = "lora"
    rank: int = 16
    targets: tuple[str, ...] = ATTENTION
    batch: int = 1
    accumulation: int = 1
    length: int = 2048
    tokens: float | None = None
    precision: Precision = "bf16"
    checkpointing: float = 1.0
    flash_attention: bool = True
    packed: bool = True
    stack: Stack = "unknown"
    zero: Literal[0, 1, 2, 3] | None = None
    tensor: int = 1
    pipeline: int = 1
    virtual: int = 1  # pipeline stages of one GPU (interleaved schedule)
    context: int = 1
    expert: int = 1  # GPUs over which the experts of a mixture are spread
    fused_loss: bool = False  # logits are never held as a whole
    wide_logits: bool = False  # logits are held in 32 bits as well, as transformers did until 2024
    pure_16bit: bool | None = None  # every weight and optimizer state in 16 bits; None: not stated
    weight_bits: Bits = 16
    optimizer_bits: Literal[32, 8, 0] = 32  # of a moment; 0: moments are paged out when memory runs short
    offloaded_checkpoints: bool = False
    offloaded_states: bool = False
    optimizer_in_backward: bool = (
        False  # each weight is updated as soon as its gradient is there, which is then dropped
    )
    trains_embeddings: bool = False
    padded: tuple[float, ...] | None = None
    token_spread: float = (
        0.0  # standard deviation of the log of the tokens, where they were not counted with its tokenizer
    )

    @property
    def gpus_per_replica(self) -> int:
        """GPUs that train one copy of the model together."""
        return self.tensor * self.pipeline * self.context

    @property
    def quantised(self) -> bool:
        """Whether weights are unpacked to 16 bits before every product; 8-bit weights of FP8 training are not."""
        return self.weight_bits == 4 or (self.weight_bits == 8 and self.method == "qlora")


class Demand(NamedTuple):
    """Counts of one GPU: FLOPs, bytes and kernels of a micro-step, and what an optimizer step adds; floats or arrays."""

    tokens: float  # of one micro-step, padding not counted
    accumulation: float
    layer_flops: float  # matrix products of the layers: those that FP8 and FP4 speed up
    head_flops: float
    attention_flops: float
    layer_bytes: float  # element-wise traffic of norms, activations, residuals, adapters
    logit_bytes: float
    score_bytes: float  # attention scores written out: without flash attention only
    dequantised: float  # weights unpacked from 4 bits
    launches: float  # module passes whose kernels the host has to launch
    optimizer_bytes: float
    host_bytes: float  # of the optimizer, where its states are offloaded to the host
    gathered_bytes: float  # weights fetched from other replicas when they are sharded
    reduced_bytes: float  # gradients exchanged once a step
    replica_bytes: float  # activations exchanged within a replica (tensor, context and expert parallel)
    replica: float  # GPUs of a replica
    bubble: float  # idle time of a pipeline, as a share of its busy time
    tuned: float  # share of fused kernels
    legacy: float
    sharded: float  # 1 when the weights are spread over the replicas
    full: float  # 1 when every weight is trained
    megatron: float
    fp8: float
    fp4: float


@lru_cache(maxsize=1024)
def modules(targets: tuple[str, ...], model: Model) -> tuple[str, ...]:
    """Standard names of the layer's modules that carry an adapter; "all-linear" and unknown words mean all."""
    names = [name for target in targets for name in MODULE_NAMES.get(target, ()) if name in model.projections]
    return tuple(dict.fromkeys(names)) or tuple(model.projections)


def adapter_params(w: Workload) -> float:
    """Trained weights: rank · (inputs + outputs) of each adapted module, all experts; everything when full."""
    if w.method == "full":
        return w.model.params_b * 1e9
    per_rank, outputs = _adapted(w.targets, w.model)
    total = per_rank * w.rank + (outputs if w.method == "dora" else 0.0)
    return w.model.layers * total + (w.model.embedding_params if w.trains_embeddings else 0)


@lru_cache(maxsize=1024)
def _adapted(targets: tuple[str, ...], model: Model) -> tuple[float, float]:
    """(inputs + outputs, outputs) of a layer's adapted modules together, all experts."""
    both, outputs = 0.0, 0.0
    for name in modules(targets, model):
        scale = model.experts / model.experts_per_token if name in ("up", "gate", "down") else 1.0
        wide, out = model.projections[name]
        both, outputs = both + scale * (wide + out), outputs + scale * out
    return both, outputs


def padding(w: Workload, replicas: int, *, sharded: bool) -> float:
    """Computed over real tokens of the replica that has the most: the others wait for it.

    Samples are padded to the longest of their micro-batch. Replicas meet once a step, or in every micro-step where weights
    are sharded; over the micro-steps between, what one has more than the others averages out.
    """
    if w.packed or w.tokens is None:
        return 1.0
    own, slowest = _longest(w, 1), _longest(w, replicas)
    return own + (slowest - own) / math.sqrt(1 if sharded else w.accumulation)


def _longest(w: Workload, micro_batches: int) -> float:
    """The longest sample of so many micro-batches, as a multiple of the mean sample."""
    if w.padded is not None:
        return w.padded[min(micro_batches, len(w.padded)) - 1]
    longest = 1.0 + LENGTH_SPREAD * math.log(w.batch * micro_batches)
    return max(1.0, min(longest, w.length / (w.tokens or w.length)))


@lru_cache(maxsize=4096)
def demand(workload: Workload, *, zero: int, count: int) -> Demand:
    """Counts what one of `count` GPUs does, under a ZeRO stage. Sources of each term: docs/forecasts.md, "Time"."""
    w, model = workload, workload.model
    replica = float(w.gpus_per_replica)
    sharded = zero == 3
    # Stages 1 and 2 share the update of the weights out. FSDP does too, but no held-out source was predicted better for it.
    updated = 1.0 / max(1.0, count / replica) if zero in (1, 2) else 1.0
    real = w.batch * (w.tokens or w.length)
    tokens = real * padding(w, max(1, round(count / replica)), sharded=sharded)
    span = w.length if w.packed else tokens / w.batch
    full, recompute = float(w.method == "full"), float(w.checkpointing)
    held = _held_share(w) / (w.tensor * w.pipeline)  # of the model, on a GPU of a replica
    trained = adapter_params(w) * held  # trained weights of one GPU
    weights, head = model.layers * (model.layer_params + _narrow(model)), model.vocab * model.hidden
    adapted = [] if full else [model.projections[name] for name in modules(w.targets, model)]
    adapter_width = sum(inputs + outputs for inputs, outputs in adapted)
    dora = 2.0 if w.method == "dora" else 1.0
    layer_width = 12.0 * model.hidden + 5.0 * model.token_ffn + 4.0 * model.heads * model.head_dim
    traffic = 2.0 * tokens * model.layers * (3.0 + recompute)
    stored = model.params_b * 1e9 * WEIGHT_BYTES[w.weight_bits] * held
    # Megatron-style stacks compute all experts of a GPU in one grouped product.
    expert_runs = 1.0 if w.stack == "megatron" else model.experts / w.expert
    modules_run = 8.0 + len(adapted) * 2.0 * dora + EXPERT_PASSES * (expert_runs - 1.0)
    attention = tokens * 2.0 * model.layers * model.heads * model.head_dim * span * (3.0 + recompute)
    scores = 0.0 if w.flash_attention else tokens * span * model.layers * model.heads * 12.0 * (3.0 + recompute)
    return Demand(
        tokens=real / replica,
        accumulation=float(w.accumulation),
        layer_flops=tokens
        * 2.0
        * (weights * (2.0 + full + recompute) + 3.0 * model.layers * w.rank * adapter_width)
        / replica,
        head_flops=tokens * 2.0 * head * (2.0 + full) / replica,
        attention_flops=attention / replica,
        layer_bytes=traffic * (layer_width + 1.5 * dora * adapter_width) / replica,
        logit_bytes=tokens * model.vocab * 24.0 / replica,
        score_bytes=scores / replica,
        dequantised=model.layers * model.all_layer_params * (2.0 + recompute) / replica if w.quantised else 0.0,
        launches=model.layers / w.pipeline * modules_run * (1.0 + recompute + KERNEL_PASSES_BACKWARD),
        optimizer_bytes=0.0 if w.offloaded_states else trained * 30.0 * updated,
        host_bytes=trained * 30.0 / max(1.0, count / replica) if w.offloaded_states else 0.0,
        gathered_bytes=stored * 2.0 if sharded else 0.0,
        reduced_bytes=trained * (2.0 if sharded else 4.0),
        replica_bytes=_replica_bytes(w, tokens / w.context),
        replica=replica,
        bubble=(w.pipeline - 1.0) / (w.accumulation * w.virtual),
        tuned=TUNED_SHARE[w.stack],
        legacy=float(w.stack == "legacy"),
        sharded=float(sharded),
        full=full,
        megatron=float(w.stack == "megatron"),
        fp8=float(w.precision == "fp8"),
        fp4=float(w.precision == "fp4"),
    )


def _held_share(w: Workload) -> float:
    """Share of the model's weights that a GPU sees: experts of other GPUs are not gathered."""
    idle = w.model.layers * (w.model.all_layer_params - w.model.layer_params) * (1.0 - 1.0 / w.expert)
    return 1.0 - idle / (w.model.params_b * 1e9)


def _narrow(model: Model) -> float:
    """What experts' products cost more, as weights: width n reaches n ÷ (n + `NARROW_WIDTH`) of the speed of wide products."""
    return 3.0 * model.hidden * model.experts_per_token * NARROW_WIDTH if model.experts > 1 else 0.0


def _replica_bytes(w: Workload, tokens: float) -> float:
    """Bytes that one GPU sends for a micro-step of `tokens` within its replica.

    Tensor parallel: two all-reduces of the hidden states of each layer forward, two backward, two more with recompute
    (arXiv 1909.08053). Context parallel: keys and values of all others, three times (forward, and both ways backward).
    Expert parallel: each token to its experts and back, forward and backward.
    """
    model, layers = w.model, w.model.layers / w.pipeline
    hidden = tokens * model.hidden * 2.0
    tensor = layers * (4.0 + 2.0 * w.checkpointing) * hidden * 2.0 * (w.tensor - 1.0) / w.tensor
    keys = tokens * 2.0 * model.kv_heads * model.head_dim * 2.0 / w.tensor
    context = layers * 3.0 * keys * (w.context - 1.0)
    expert = layers * 4.0 * hidden / w.tensor * model.experts_per_token * (w.expert - 1.0) / w.expert
    return tensor + context + expert
