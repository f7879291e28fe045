"""What is to be trained and how, and what that asks of any GPU: counts only, no times."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from estimator_service.catalogue.base_models import Model
from estimator_service.catalogue.gpus import Gpu

Method = Literal["lora", "qlora", "dora", "full"]
Stack = Literal["plain", "tuned", "megatron", "unknown"]
Precision = Literal["bf16", "fp16", "fp32", "fp8"]
Bits = Literal[16, 8, 4]

WEIGHT_BYTES = {16: 2.0, 8: 1.03, 4: 0.53}  # a stored weight, block scales included
LARGEST_REPLICA = 0.6  # of a GPU's memory: above this a copy of the weights on every GPU leaves no room to train
KERNEL_PASSES_BACKWARD = 2.0  # a backward pass launches about twice the kernels of a forward one
ATTENTION = ("q", "k", "v", "o")
# Spellings of the same module in different model families.
MODULE_NAMES = {
    "q_proj": ("q",), "k_proj": ("k",), "v_proj": ("v",), "o_proj": ("o",), "out_proj": ("o",), "dense": ("o",),
    "c_attn": ("q", "k", "v"), "qkv_proj": ("q", "k", "v"), "query_key_value": ("q", "k", "v"), "Wqkv": ("q", "k", "v"),
    "c_proj": ("o", "down"), "gate_proj": ("gate",), "up_proj": ("up",), "down_proj": ("down",),
    "w1": ("gate",), "w2": ("down",), "w3": ("up",), "fc1": ("up",), "fc2": ("down",), "gate_up_proj": ("gate", "up"),
    "q": ("q",), "k": ("k",), "v": ("v",), "o": ("o",), "gate": ("gate",), "up": ("up",), "down": ("down",),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Workload:
    """One configuration of a training run; `batch` and `accumulation` are per GPU, lengths in tokens.

    `length` is the longest sequence a micro-batch may hold (memory), `tokens` the mean of a sample (time; None: same),
    `padded` computed over real tokens where the data tell it (None: from the batch).
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
    checkpointing: bool = True
    flash_attention: bool = True
    packed: bool = True
    stack: Stack = "unknown"
    sharded: bool | None = None
    fused_loss: bool | None = None
    pure_16bit: bool = False
    weight_bits: Bits = 16
    trains_embeddings: bool = False
    padded: float | None = None


class Demand(NamedTuple):
    """Counts of one micro-step (FLOPs, bytes, kernels) and of one optimizer step, as floats or arrays."""

    tokens: float  # of one micro-step, padding not counted
    accumulation: float
    matmul_flops: float
    attention_flops: float
    layer_bytes: float  # element-wise traffic of norms, activations, residuals, adapters
    logit_bytes: float
    score_bytes: float  # attention scores written out: without flash attention only
    dequantised: float  # weights unpacked from 4 bits
    launches: float  # module passes whose kernels the host has to launch
    optimizer_bytes: float
    gathered_bytes: float  # weights fetched from other GPUs when they are sharded
    reduced_bytes: float  # gradients exchanged once a step
    tuned: float  # 1 tuned kernels, 0 plain, 0.5 not known
    sharded: float  # 1 when the weights are spread over the GPUs
    full: float  # 1 when every weight is trained
    megatron: float
    fp8: float


@lru_cache(maxsize=1024)
def modules(targets: tuple[str, ...], model: Model) -> tuple[str, ...]:
    """Standard names of the layer's modules that carry an adapter; "all-linear" and unknown words mean all."""
    found = [name for target in targets for name in MODULE_NAMES.get(target, ()) if name in model.projections]
    return tuple(dict.fromkeys(found)) or tuple(model.projections)


def adapter_params(w: Workload) -> float:
    """Trained weights: rank · (inputs + outputs) of each adapted module, all experts; everything when full."""
    if w.method == "full":
        return w.model.params_b * 1e9
    per_rank, outputs = _adapted(w.targets, w.model)
    total = per_rank * w.rank + (outputs if w.method == "dora" else 0.0)
    return w.model.layers * total + (w.model.embedding_params if w.trains_embeddings else 0)


@lru_cache(maxsize=1024)
def _adapted(targets: tuple[str, ...], model: Model) -> tuple[float, float]:
    """Inputs and outputs of a layer's adapted modules together, all experts, and outputs alone."""
    both, outputs = 0.0, 0.0
    for name in modules(targets, model):
        scale = model.experts / model.experts_per_token if name in ("up", "gate", "down") else 1.0
        wide, out = model.projections[name]
        both, outputs = both + scale * (wide + out), outputs + scale * out
    return both, outputs


def padding(workload: Workload) -> float:
    """Computed over real tokens: samples padded to the longest of their micro-batch (lengths log-normal, spread 0.6)."""
    if workload.padded is not None:
        return workload.padded
    if workload.packed or workload.tokens is None or workload.batch == 1:
        return 1.0
    longest: float = 1.0 + 0.35 * (workload.batch**0.5 - 1.0)
    return max(1.0, min(longest, workload.length / workload.tokens))


def is_sharded(workload: Workload, gpu: Gpu, count: int) -> bool:
    """Whether the weights are spread over the GPUs: as stated, else when all are trained or one GPU is too small."""
    if count == 1:
        return False
    if workload.sharded is not None:
        return workload.sharded
    stored = workload.model.params_b * WEIGHT_BYTES[workload.weight_bits]
    return workload.method == "full" or stored > LARGEST_REPLICA * gpu.memory_gb


def demand(workload: Workload, *, sharded: bool) -> Demand:
    """Count what one micro-step asks for. Sources of each term: README.md, "Time"."""
    w, model = workload, workload.model
    real = w.batch * (w.tokens or w.length)
    tokens = real * padding(w)
    span = w.length if w.packed else tokens / w.batch
    full, recompute = float(w.method == "full"), float(w.checkpointing)
    trained = adapter_params(w)
    weights, head = model.layers * model.layer_params, model.vocab * model.hidden
    passes = 2.0 + full + recompute
    adapted = [] if full else [model.projections[name] for name in modules(w.targets, model)]
    adapter_width = sum(inputs + outputs for inputs, outputs in adapted)
    dora = 2.0 if w.method == "dora" else 1.0
    layer_width = 12.0 * model.hidden + 5.0 * model.token_ffn + 4.0 * model.heads * model.head_dim
    traffic = 2.0 * tokens * model.layers * (3.0 + recompute)
    quantised = w.weight_bits < 16
    stored = model.params_b * 1e9 * WEIGHT_BYTES[w.weight_bits]
    modules_run = 8.0 + len(adapted) * 2.0 * dora + 3.0 * (model.experts - 1)
    return Demand(
        tokens=real,
        accumulation=float(w.accumulation),
        matmul_flops=tokens
        * 2.0
        * (weights * passes + head * (2.0 + full) + 3.0 * model.layers * w.rank * adapter_width),
        attention_flops=tokens * 2.0 * model.layers * model.heads * model.head_dim * span * (3.0 + recompute),
        layer_bytes=traffic * (layer_width + 1.5 * dora * adapter_width),
        logit_bytes=tokens * model.vocab * 24.0,
        score_bytes=0.0 if w.flash_attention else tokens * span * model.layers * model.heads * 12.0 * (3.0 + recompute),
        dequantised=model.layers * model.all_layer_params * (2.0 + recompute) if quantised else 0.0,
        launches=model.layers * modules_run * (1.0 + recompute + KERNEL_PASSES_BACKWARD),
        optimizer_bytes=trained * 30.0,
        gathered_bytes=stored * 2.0 if sharded else 0.0,
        reduced_bytes=trained * (2.0 if sharded else 4.0),
        tuned={"plain": 0.0, "tuned": 1.0, "megatron": 1.0, "unknown": 0.5}[w.stack],
        sharded=float(sharded),
        full=full,
        megatron=float(w.stack == "megatron"),
        fp8=float(w.precision == "fp8"),
    )
