"""Free text of published runs: the software stack, the parallelism and the board that notes and sources name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from estimator_service.catalogue.gpus import Gpu
from estimator_service.physics.workload import Stack

# The first pattern that matches, in the notes and then in the source's name, decides the software stack.
STACKS: tuple[tuple[str, Stack], ...] = (
    (
        r"baseline-peft|framework_config=(none|accelerated-peft-\w+)(?![\w-])|backend (hf|fa2)|(^|[;,] *)hf *[;,]",
        "plain",
    ),
    (r"auto_?model(?!.*\bte\b)", "tuned"),  # NeMo's PyTorch backend, unless Transformer Engine's layers are in it
    (
        r"nemo\b|nemo[ _-]|megatron|mlperf|mlcommons|transformer.?engine|auto_?model|\bmaxtext|primus|llmboost",
        "megatron",
    ),
    (
        r"unsloth|liger|foak|fast.?kernels|torchtune|torch.?titan|torch\.?compile|xtuner|llm-?foundry|fused|triton|thunder",
        "tuned",
    ),
    (r"llama-?factory|paddle", "legacy"),
    (
        r"hugging ?face|\bhf\b|transformers|\btrl\b|\bpeft\b|deepspeed|fastchat|qwen|h2o|axolotl|alpaca-lora|swift",
        "plain",
    ),
    (r"lit-?gpt|lit-?llama|lightning", "plain"),
)
# FSDP1 and FSDP2 are its versions; "FSDP 1" and "FSDP=1" say that nothing is sharded.
ZERO_3 = re.compile(r"fsdp[12]?\b(?! ?[ =:]1\b)|full_shard|(zero|stage)\W*_?(stage)?\W*3|\bz3\b|_z3_")
ZERO_2 = re.compile(r"shard_grad_op|(zero|stage)\W*_?(stage)?\W*2\b|\bz2\b|_z2_")
ZERO_1 = re.compile(r"(zero|stage)\W*_?(stage)?\W*1\b|distributed[ _-]optimizer")
REPLICATED = re.compile(r"\bddp\b|data parallel|multinode")
# Layers over the GPUs one after the other, one micro-batch at a time (Hugging Face's device_map).
NAIVE_PIPELINE = re.compile(r"device_?.?map|naive model parallel")


def _degree(letters: str, word: str) -> str:
    """Pattern of a degree: "TP2", "tp=2", "8x8xtp2pp1", "TP_SIZE: 2", "2-way TP", "tensor_model_parallel_size 2"."""
    of = r"(?:[ _-]?(?:size|degree))?\s*(?:[=:]|of)?\s*(\d+)"
    return rf"(?<![a-wyz]){letters}{of}|(\d+)[ -]way {letters}\b|(?:{word})[ _-](?:model[ _-])?parallel(?:ism)?{of}"


DEGREES = {
    "tensor": _degree("tp", "tensor"),
    "pipeline": _degree("pp", "pipeline"),
    "virtual": r"\bvpp?\s*[=:]?\s*(\d+)",
    "context": _degree("(?:cp|ulysses)", "context|sequence"),
    "expert": _degree("ep", "expert"),
}
GLOBAL_BATCH = re.compile(r"\bgbs\s*[=:]?\s*(\d+)|global[ _-]batch(?:[ _-]size)?\s*(?:[=:]|of)?\s*(\d+)")
POWER = re.compile(r"(\d{3,4}) ?w power")
BOARD_MEMORY = re.compile(r"\b(\d{2,3}) ?gb hbm")
BANDWIDTH = re.compile(r"hbm\w*\s*\((\d(?:\.\d+)?) ?tb/s\)")
DEEPSPEED = re.compile(r"deepspeed|zero\W*_?(stage)?\W*[123]\b|\bz[123]\b")
OFFLOADED_STATES = re.compile(
    r"(cpu|optimizer|param)\w*[ _-]?offload|(zero\W*3?|z3)[ _-]?offload|offload\w* to (the )?(cpu|host)"
)
# Moments that leave the GPU when it is full, and weights that are updated while the backward pass runs: both are defaults of
# torchtune's recipes of full fine-tuning on one device.
PAGED = re.compile(r"paged[_ ]?(adam|optim)|full_finetune_single_device")
OPTIMIZER_IN_BACKWARD = re.compile(r"optimizer[ _-]?in[ _-]?(bwd|backward)|full_finetune_single_device")
PURE_16BIT = re.compile(r"-true\b|pure[ _-]?(bf|fp)16|torchtune")
EIGHT_BIT = re.compile(r"adamw?_?-?(8bit|bnb)|8-?bit (adam|optimizer)|paged_adamw_8bit")
# Losses that never hold all logits: in chunks, or fused with the output head.
FUSED_LOSS = re.compile(r"liger|unsloth (?!readme)|unsloth;|chunked|cut.?cross|torchtune")
# Unsloth moves checkpoints to the host, and its attention never writes scores; its tables of January 2024 came before that.
UNSLOTH = re.compile(r"(use_|^)unsloth(?! readme)|unslothai/notebooks|stack unsloth")
# Sources of 2023 and 2024: transformers before 4.45 copied logits to 32 bits.
OLD_TRANSFORMERS = re.compile(
    r"alpaca-lora|fastchat|h2o|llm/benchmark\.md|llama-factory|linkedin|openrlhf|2023-|2024-0"
)

# Models that need later versions than those.
NEW_MODELS = re.compile(r"qwen-?(2\.5|3)|gemma-?[34]|gpt-oss|llama-?(3\.[23]|4)|phi-?4")
PROCESSES = re.compile(r"nproc_per_node\s*=?\s*(\d+)")


class Parallelism(NamedTuple):
    """Degrees that a row states (1, of experts 0: not stated), its ZeRO stage (None: not stated), and its global batch."""

    tensor: int
    pipeline: int
    virtual: int
    context: int
    expert: int
    zero: int | None
    global_batch: int | None
    stated: bool


def stack_of(row: Mapping[str, str], *, compiled: bool) -> Stack:
    """Kernels of the run, as far as its notes or its source name them."""
    if compiled:
        return "tuned"
    for text in (row.get("notes", ""), row.get("source", ""), row.get("source_path", "")):
        for pattern, stack in STACKS:
            if re.search(pattern, text.lower()):
                return stack
    return "unknown"


def parallelism_of(text: str, count: int, stack: Stack) -> Parallelism:
    """Reads degrees, ZeRO stage and global batch from lower-case text; degrees that `count` cannot have are dropped."""
    degrees = {name: _first(pattern, text) or 1 for name, pattern in DEGREES.items()}
    if count == 1 or NAIVE_PIPELINE.search(text):
        processes = _first(PROCESSES.pattern, text) or 1
        degrees = dict.fromkeys(degrees, 1) | {"pipeline": max(1, count // processes)}
    together = degrees["tensor"] * degrees["pipeline"] * degrees["context"]
    stated = together > 1 or bool(re.search(r"\btp ?=?1\b", text))
    if together > count or count % together:
        degrees, stated = dict.fromkeys(degrees, 1), False
    degrees["expert"] = min(_first(DEGREES["expert"], text) or 0, count)
    zero = 3 if ZERO_3.search(text) else 2 if ZERO_2.search(text) else 1 if ZERO_1.search(text) else None
    naive = bool(NAIVE_PIPELINE.search(text))
    if zero is None and (naive or REPLICATED.search(text) or (together == count and stack != "megatron")):
        zero = 0
    return Parallelism(**degrees, zero=zero, global_batch=_first(GLOBAL_BATCH.pattern, text), stated=stated)


def board_of(gpu: Gpu, text: str) -> Gpu:
    """The GPU with the memory, bandwidth and power limit that the text states in place of the usual card's."""
    changes: dict[str, float] = {}
    power, memory, bandwidth = POWER.search(text), BOARD_MEMORY.search(text), BANDWIDTH.search(text)
    if power and 0.3 < float(power[1]) / gpu.power_w < 1.5:
        changes["power_limit_w"] = float(power[1])
    if memory and 0.5 < float(memory[1]) / gpu.memory_gb < 2:
        changes["memory_gb"] = float(memory[1])
    if bandwidth and 0.5 < float(bandwidth[1]) * 1000 / gpu.bandwidth_gb_s < 2:
        changes["bandwidth_gb_s"] = float(bandwidth[1]) * 1000
    return Gpu.model_validate(gpu.model_dump() | changes) if changes else gpu


def _first(pattern: str, text: str) -> int | None:
    match = re.search(pattern, text)
    return int(next(group for group in match.groups() if group)) if match else None
