"""Published training runs (the columns of measured.csv) read as workloads: nothing is guessed without being named."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from estimator_service.catalogue import base_models, gpus
from estimator_service.catalogue.gpus import Gpu
from estimator_service.physics.workload import ATTENTION, Bits, Method, Precision, Stack, Workload

# The first pattern found, in the notes and then in the source's name, tells the software stack.
STACKS: tuple[tuple[str, Stack], ...] = (
    (
        r"baseline-peft|framework_config=(none|accelerated-peft-\w+)(?![\w-])|backend (hf|fa2)|(^|[;,] *)hf *[;,]",
        "plain",
    ),
    (r"nemo\b|nemo[ _-]|megatron|mlperf|transformer.?engine|\bmaxtext", "megatron"),
    (
        r"unsloth|liger|foak|fast.?kernels|torchtune|torch.?titan|torch\.?compile|xtuner|llm-?foundry|fused|triton|thunder",
        "tuned",
    ),
    (
        r"hugging ?face|\bhf\b|transformers|\btrl\b|\bpeft\b|deepspeed|fastchat|llama-?factory|qwen|h2o|axolotl|alpaca-lora",
        "plain",
    ),
    (r"lit-?gpt|lit-?llama|lightning", "plain"),
)
SHARDED = re.compile(
    r"fsdp|zero-?_? ?(stage)? ?-?3|full_shard|tensor parallel|pipeline parallel|\btp ?= ?[2-9]|\bpp ?= ?[2-9]"
)
REPLICATED = re.compile(r"\bddp\b|zero-?_? ?(stage)? ?-?[12]\b|data parallel|multinode")
OUT_OF_MEMORY = re.compile(r"\boom\b|out[ -]of[ -](cuda )?memory", re.IGNORECASE)
OOM_ELSEWHERE = re.compile(r"\boom\b[^;]*\b(other|one setting|some)\b|no oom", re.IGNORECASE)
# The longest sample of public data sets, in tokens of Llama's tokenizer: where samples are not packed, memory peaks there and
# not at the limit. Alpaca's is stated by litgpt (tutorials/resource-tables.md).
LONGEST_SAMPLES = ((re.compile(r"\balpaca\b(?!-lora)", re.IGNORECASE), 1304),)
MEASURED = ("tokens_per_s_total", "samples_per_s", "s_per_step", "train_time_s", "peak_mem_gib", "mem_reserved_gib")
IMPLAUSIBLE = re.compile(r"\bFLAG")


@dataclass(frozen=True)
class Run:
    """One published row: what ran, on what, and what was measured (None: not stated). Memory in GiB a GPU."""

    line: int
    group: str
    workload: Workload
    gpu: Gpu
    count: int
    tokens_per_s: float | None
    allocated_gib: float | None
    reserved_gib: float | None
    device_gib: float | None
    ran_out_of_memory: bool
    assumptions: tuple[str, ...] = ()
    row: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def source(self) -> str:
        """Who published it: what is held out together."""
        return self.row.get("source") or self.group

    @property
    def held_gib(self) -> float | None:
        """Peak with what the allocator keeps in reserve: as the device or the framework reported it."""
        return self.reserved_gib or self.device_gib


class Unusable(ValueError):
    """The row cannot be predicted; the text says why."""


def number(text: str | None) -> float | None:
    """A positive finite number, or None where the cell is blank or says something else ("n/a", "~", "OOM")."""
    match = re.fullmatch(
        r"[~<>≈]?\s*(\d[\d,]*\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*[kx%]?", (text or "").strip(), re.IGNORECASE
    )
    value = float(match.group(1).replace(",", "")) if match else 0.0
    return value if 0 < value < float("inf") else None


def flag(text: str | None, default: bool) -> bool:
    """y/n, yes/no, true/false, 1/0; `default` for anything else."""
    word = (text or "").strip().lower()[:4]
    return (
        True
        if word in {"y", "yes", "true", "1", "on", "full"}
        else False
        if word in {"n", "no", "fals", "0", "off"}
        else default
    )


def stack_of(row: Mapping[str, str]) -> Stack:
    """Kernels the run used, as far as its notes or its source tell."""
    if flag(row.get("compile"), False):
        return "tuned"
    for text in (row.get("notes", ""), f"{row.get('source', '')} {row.get('source_path', '')}"):
        for pattern, stack in STACKS:
            if re.search(pattern, text.lower()):
                return stack
    return "unknown"


def model_of(row: Mapping[str, str]) -> base_models.Model:
    """The named model, else a shape inferred from the stated size or from the one in its name."""
    name, params, active = row.get("model", ""), number(row.get("params_b")), number(row.get("active_params_b"))
    if model := base_models.find(name, params):
        return model
    if params is None:
        size = re.search(r"(?<![\d.])(\d+(?:\.\d+)?)\s*([bm])\b", name.lower())
        params = float(size.group(1)) / (1000 if size and size.group(2) == "m" else 1) if size else None
    if params is None:
        raise Unusable(f"unknown model {name!r} without a size")
    return base_models.inferred(params, active)


def method_of(row: Mapping[str, str]) -> tuple[Method, Bits]:
    """(method, bits of a stored weight)."""
    word, bits = re.sub(r"[^a-z]", "", row.get("method", "").lower()), int(number(row.get("quant_bits")) or 16)
    if word.startswith("full") or word in {"sft", "fft", "pretraining", "finetune"}:
        return "full", 16
    method: Method = "dora" if "dora" in word else "lora"
    if word.startswith("q") and bits == 16:
        bits = 4
    return ("qlora" if bits <= 8 and method == "lora" else method), (4 if bits <= 4 else 8 if bits <= 8 else 16)


def precision_of(row: Mapping[str, str]) -> Precision:
    """Arithmetic of the matrix products: bf16 unless the row says otherwise."""
    text = row.get("precision", "").lower()
    return next((name for name in get_args(Precision) if name in text), "bf16")


def read_row(line: int, row: Mapping[str, str]) -> Run:
    """One row as a Run; raises Unusable with the reason."""
    notes = row.get("notes", "")
    if IMPLAUSIBLE.search(notes):
        raise Unusable("flagged implausible")
    gpu = gpus.find(row.get("gpu", ""))
    if gpu is None:
        raise Unusable(f"unknown GPU {row.get('gpu', '')!r}")
    model, (method, bits), assumptions = model_of(row), method_of(row), []
    count = max(1, round(number(row.get("gpu_count")) or 1))

    def given(column: str, default: float) -> float:
        value = number(row.get(column))
        if value is None:
            assumptions.append(f"{column} = {default:g}")
        return value or default

    length, sample = number(row.get("seq_len")), number(row.get("tokens_per_sample"))
    fixed = flag(row.get("packed"), True) is not False
    batch = round(given("per_device_batch", 1))
    accumulation = round(given("grad_accum", 1))
    tokens = sample if sample and not (fixed and length) else None
    if length is None:
        length = sample or 1024.0
        assumptions.append(f"seq_len = {length:g}")
    per_sample = sample or (length if fixed and number(row.get("seq_len")) else None)
    if not fixed:
        length = min([length, *(longest for name, longest in LONGEST_SAMPLES if name.search(notes))])
    old = gpu.is_old
    targets = tuple(word for word in re.split(r"[\s,;+/]+", row.get("target_modules", "")) if word) or ATTENTION
    text = f"{notes} {row.get('source_path', '')}".lower()
    sharded = True if SHARDED.search(text) else False if REPLICATED.search(text) else None
    stack = stack_of(row)
    fused = True if re.search(r"liger|unsloth open", notes.lower()) or stack == "megatron" else None
    workload = Workload(
        model=model, method=method, rank=round(given("rank", 16)) if method != "full" else 16, targets=targets, batch=batch,
        accumulation=accumulation, length=round(length), tokens=tokens, precision=precision_of(row), weight_bits=bits,
        checkpointing=flag(row.get("act_ckpt"), True), flash_attention=flag(row.get("flash_attn"), not old), packed=fixed,
        stack=stack, sharded=sharded, fused_loss=fused, pure_16bit="true" in row.get("precision", ""),
        trains_embeddings="emb" in row.get("target_modules", "").lower(),
    )  # fmt: skip
    kind, peak = row.get("mem_kind", "").lower(), number(row.get("peak_mem_gib"))
    reserved, allocated, device = number(row.get("mem_reserved_gib")), None, None
    if "alloc" in kind:
        allocated = peak
    elif "reserv" in kind:
        reserved = reserved or peak
    else:
        device = peak
    return Run(
        line=line, group=row.get("obs_group") or row.get("source") or "unnamed", workload=workload, gpu=gpu, count=count,
        tokens_per_s=tokens_per_s(row, per_sample, batch * accumulation * count), allocated_gib=allocated,
        reserved_gib=reserved, device_gib=device, assumptions=tuple(assumptions), row=row,
        ran_out_of_memory=ran_out_of_memory(row, peak),
    )  # fmt: skip


def ran_out_of_memory(row: Mapping[str, str], peak: float | None) -> bool:
    """Whether the run ended for want of memory: its notes say so, or a cell does in place of a figure."""
    if any(OUT_OF_MEMORY.search(row.get(column, "")) for column in MEASURED):
        return True
    notes = row.get("notes", "")
    return peak is None and bool(OUT_OF_MEMORY.search(notes)) and not OOM_ELSEWHERE.search(notes)


def tokens_per_s(row: Mapping[str, str], per_sample: float | None, samples_per_step: int) -> float | None:
    """Measured training tokens per second of all GPUs, from whichever column has it; None when lengths are unknown."""
    if direct := number(row.get("tokens_per_s_total")):
        return direct
    if per_sample is None:
        return None
    if samples := number(row.get("samples_per_s")):
        return samples * per_sample
    if (seconds := number(row.get("s_per_step"))) and number(row.get("per_device_batch")):
        return samples_per_step * per_sample / seconds
    seconds, samples = number(row.get("train_time_s")), number(row.get("train_samples"))
    return samples * (number(row.get("epochs")) or 1.0) * per_sample / seconds if seconds and samples else None


def read(path: Path) -> Iterator[Run | tuple[int, str, str]]:
    """Each row as a Run, or as (line, group, reason) where it cannot be used."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        for line, cells in enumerate(csv.DictReader(file), start=2):
            row = {key: value or "" for key, value in cells.items() if key}
            try:
                yield read_row(line, row)
            except Unusable as reason:
                yield line, row.get("obs_group") or row.get("source", ""), str(reason)
