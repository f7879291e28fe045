"""Published training runs (the columns of measured.csv) read as workloads; what a row does not state is named."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from estimator_service.calibration import notes
from estimator_service.catalogue import base_models, gpus
from estimator_service.catalogue.gpus import Gpu
from estimator_service.physics.parallelism import with_tensor_parallel
from estimator_service.physics.parameters import fitted
from estimator_service.physics.workload import ATTENTION, Bits, Method, Precision, Stack, Workload

OUT_OF_MEMORY = re.compile(r"\boom\b|out[ -]of[ -](cuda )?memory", re.IGNORECASE)
OOM_ELSEWHERE = re.compile(r"\boom\b[^;]*\b(other|one setting|some)\b|no oom", re.IGNORECASE)
# The longest sample of public data sets, in tokens of Llama's tokenizer: where samples are not packed, memory peaks there and
# not at the limit. Alpaca's is stated by litgpt (tutorials/resource-tables.md).
LONGEST_SAMPLES = ((re.compile(r"(?<![\w-])alpaca\b(?!-lora)", re.IGNORECASE), 1304),)
# Samples of varying length of which only the mean is stated: the longest are taken as twice as long.
VARYING = re.compile(r"\bmean\b|var(iable|ying) length", re.IGNORECASE)
LONGEST_OVER_MEAN = 2.0
DEFAULT_LENGTH = 2048.0  # where nothing is stated: the default of ms-swift, Axolotl, Unsloth and LLaMA-Factory
UNSTATED_WIDENS = 1.3  # width of the range, times this, for each property that a row does not state
MEGATRON_ACCUMULATION = 8  # recipes of Megatron-style stacks add micro-batches up; plain scripts do not
MEASURED = ("tokens_per_s_total", "samples_per_s", "s_per_step", "train_time_s", "peak_mem_gib", "mem_reserved_gib")
IMPLAUSIBLE = re.compile(r"\bFLAG")


@dataclass(frozen=True)
class Run:
    """One published row: what ran, on what, and what was measured (None: not stated). Memory in GiB a GPU."""

    group: str
    workload: Workload
    lean: Workload  # with the leanest reading of what is not stated: a refusal has to hold for it too
    gpu: Gpu
    count: int
    tokens_per_s: float | None
    allocated_gib: float | None
    reserved_gib: float | None
    device_gib: float | None
    ran_out_of_memory: bool
    doubts: tuple[str, ...] = ()
    row: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def source(self) -> str:
        """The publisher: its rows are held out together."""
        return self.row.get("source") or self.group

    @property
    def widening(self) -> float:
        """How much wider its range is for what the row does not state."""
        return float(UNSTATED_WIDENS ** len(self.doubts))

    @property
    def peak_gib(self) -> float | None:
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
    word = re.match(r"[a-z]+", name.lower())
    relatives = [model.vocab for model in base_models.all_models().values() if word and model.family == word.group()]
    return base_models.inferred(params, active, max(relatives, default=64_000))


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
    return next((name for name in ("fp8", "fp4", "fp16", "fp32", "bf16") if name in text), "bf16")


def checkpointing_of(row: Mapping[str, str], stack: Stack, text: str, count: int) -> tuple[float, bool]:
    """(share of the layers that are recomputed, whether the row states it)."""
    word = row.get("act_ckpt", "").strip().lower()
    layers = re.search(r"(\d+) of (\d+) layers", text)
    if layers and 0 < int(layers[1]) <= int(layers[2]):
        return int(layers[1]) / int(layers[2]), True
    if word.startswith("sel"):
        # Megatron's selective recompute repeats attention alone, which flash attention does anyway; torchtitan's repeats
        # every second product.
        return (0.0 if stack == "megatron" else 0.5), True
    if word:
        return float(flag(word, True)), True
    # Megatron-style stacks and litgpt on one device keep activations; fine-tuning guides of the others recompute them.
    return (0.0 if stack == "megatron" or ("litgpt" in text and count == 1) else 1.0), False


def read_row(row: Mapping[str, str]) -> Run:
    """One row as a Run; raises Unusable with the reason."""
    if IMPLAUSIBLE.search(row.get("notes", "")):
        raise Unusable("flagged implausible")
    gpu = gpus.find(row.get("gpu", ""))
    if gpu is None:
        raise Unusable(f"unknown GPU {row.get('gpu', '')!r}")
    text = f"{row.get('notes', '')} {row.get('source', '')}".lower()
    gpu = notes.board_of(gpu, text)
    count = max(1, round(number(row.get("gpu_count")) or 1))
    stack = notes.stack_of(row, compiled=flag(row.get("compile"), False))
    spread = notes.parallelism_of(text, count, stack)
    checkpointing, stated = checkpointing_of(row, stack, text, count)
    doubts = [] if stated else ["activation checkpointing is not stated"]
    if count > 1 and stack == "megatron" and not spread.stated:
        doubts.append("parallelism is not stated")
    workload, per_sample = _workload(row, gpu, count, stack, spread, text)
    workload = replace(workload, checkpointing=checkpointing)
    lean = workload if stated else replace(workload, checkpointing=1.0)
    if "parallelism is not stated" in doubts:
        memory = fitted().memory
        workload, lean = (with_tensor_parallel(each, gpu, count, memory) for each in (workload, lean))
        shared = count // (workload.tensor * (spread.global_batch or count))
        if shared > 1 and count % (workload.tensor * shared) == 0:
            # A global batch smaller than the replicas: the rest of the GPUs share its samples.
            workload, lean = (replace(each, context=shared) for each in (workload, lean))
    if spread.global_batch:
        samples = workload.batch * count / workload.gpus_per_replica
        accumulation = max(1, round(spread.global_batch / samples))
        workload, lean = (replace(each, accumulation=accumulation) for each in (workload, lean))
    kind, peak = row.get("mem_kind", "").lower(), number(row.get("peak_mem_gib"))
    reserved, allocated, device = number(row.get("mem_reserved_gib")), None, None
    if "alloc" in kind or "active" in kind:
        allocated = peak
    elif "reserv" in kind:
        reserved = reserved or peak
    else:
        device = peak
    together = workload.batch * workload.accumulation * count / workload.gpus_per_replica
    return Run(
        group=row.get("obs_group") or row.get("source") or "unnamed", workload=workload, lean=lean, gpu=gpu,
        count=count, tokens_per_s=tokens_per_s(row, per_sample, together), allocated_gib=allocated, reserved_gib=reserved,
        device_gib=device, doubts=tuple(doubts), row=row,
        ran_out_of_memory=ran_out_of_memory(row, peak),
    )  # fmt: skip


def _workload(
    row: Mapping[str, str], gpu: Gpu, count: int, stack: Stack, spread: notes.Parallelism, text: str
) -> tuple[Workload, float | None]:
    """(the workload, tokens of a sample where they are stated)."""
    model, (method, bits), precision = model_of(row), method_of(row), precision_of(row)
    length, sample = number(row.get("seq_len")), number(row.get("tokens_per_sample"))
    fixed = flag(row.get("packed"), not VARYING.search(row.get("notes", "")))
    per_sample = sample or (length if fixed else None)
    length = length or sample or DEFAULT_LENGTH
    tokens = sample if sample and not fixed else None
    if tokens and tokens >= length:
        length = LONGEST_OVER_MEAN * tokens
    if not fixed:
        length = min([length, *(longest for name, longest in LONGEST_SAMPLES if name.search(row.get("notes", "")))])
    batch = round(number(row.get("per_device_batch")) or 1)
    accumulation = round(number(row.get("grad_accum")) or (MEGATRON_ACCUMULATION if stack == "megatron" else 1))
    if notes.NAIVE_PIPELINE.search(text):
        accumulation = 1  # one micro-batch at a time: GPUs wait for one another
    frozen_fp8 = precision in ("fp8", "fp4") and stack == "megatron" and method != "full"
    targets = tuple(word for word in re.split(r"[\s,;+/]+", row.get("target_modules", "")) if word) or ATTENTION
    unsloth = stack == "tuned" and bool(notes.UNSLOTH.search(text))
    deepspeed = bool(notes.DEEPSPEED.search(text))
    workload = Workload(
        model=model, method=method, rank=round(number(row.get("rank")) or 16) if method != "full" else 16, targets=targets,
        batch=batch, accumulation=accumulation, length=round(length), tokens=tokens, precision=precision,
        weight_bits=8 if frozen_fp8 and bits == 16 else bits,
        flash_attention=unsloth or flag(row.get("flash_attn"), not gpu.is_old),
        packed=fixed, stack=stack, zero=spread.zero, tensor=spread.tensor, pipeline=spread.pipeline,  # type: ignore[arg-type]
        virtual=spread.virtual, context=spread.context,
        # Recipes of Megatron-style stacks spread experts over the GPUs of a node.
        expert=math.gcd(count, 8) if stack == "megatron" and model.experts > 1 and not spread.expert else spread.expert or 1,
        fused_loss=bool(notes.FUSED_LOSS.search(text)) or stack == "megatron",
        wide_logits=stack in ("plain", "legacy")
        and not notes.NEW_MODELS.search(row.get("model", "").lower())
        and bool(notes.OLD_TRANSFORMERS.search(f"{text} {row.get('source_path', '')}".lower())),
        pure_16bit=True if notes.PURE_16BIT.search(f"{row.get('precision', '')} {text}") else False if deepspeed else None,
        optimizer_bits=0 if notes.PAGED.search(text) else 8 if notes.EIGHT_BIT.search(text) else 32,
        offloaded_checkpoints=unsloth,
        offloaded_states=bool(notes.OFFLOADED_STATES.search(text)),
        optimizer_in_backward=bool(notes.OPTIMIZER_IN_BACKWARD.search(text)),
        trains_embeddings="emb" in row.get("target_modules", "").lower(),
    )  # fmt: skip
    return workload, per_sample


def ran_out_of_memory(row: Mapping[str, str], peak: float | None) -> bool:
    """Whether the run ended for want of memory: its notes say so, or a cell does in place of a figure."""
    if any(OUT_OF_MEMORY.search(row.get(column, "")) for column in MEASURED):
        return True
    notes = row.get("notes", "")
    return peak is None and bool(OUT_OF_MEMORY.search(notes)) and not OOM_ELSEWHERE.search(notes)


def tokens_per_s(row: Mapping[str, str], per_sample: float | None, samples_per_step: float) -> float | None:
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


def read(path: Path) -> Iterator[Run | Unusable]:
    """Each row as a Run, or the reason why it cannot be used."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        for cells in csv.DictReader(file):
            row = {key: value or "" for key, value in cells.items() if key}
            try:
                yield read_row(row)
            except Unusable as reason:
                yield reason
