"""The physics of GPU types: memory, bandwidth, arithmetic peak, power, links. Their prices are in the catalogue."""

from __future__ import annotations

import math
import re
import tomllib
from functools import cache, cached_property
from importlib.resources import files
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

GPUS_PER_NODE = 8
# Bandwidth of a collective between nodes for each GPU, GB/s, by generation: all eight network adapters of a node (200 Gb/s each
# with A100s, 400 with H100s) carry one ring. In other nodes the GPUs usually share one adapter of 100 Gb/s.
INTER_NODE_GB_S = {"ampere": 160.0, "hopper": 320.0, "blackwell": 320.0, "cdna3": 320.0, "cdna4": 320.0}
SHARED_ADAPTER_GB_S = 10.0

# Large matrix products reach this share of the peak unless power limits them first. On AMD software reaches less of the peak:
# 620 TFLOP/s of an MI300X's 1307 (SemiAnalysis, "MI300X vs H100 vs H200 Training", December 2024).
ATTAINABLE, ATTAINABLE_OF = 0.93, {"cdna3": 0.475, "cdna4": 0.55}
# Dense 16-bit TFLOP/s that a watt of board power sustains, by generation. A chip whose peak needs more power than its board may
# draw lowers its clock under load (an H100 PCIe has 76 % of the SXM's peak and half its power).
SUSTAINED_TFLOPS_PER_WATT = {
    "pascal": 0.06, "volta": 0.27, "turing": 0.31, "ampere": 0.64, "ampere8": 0.35, "ada": 0.62, "hopper": 0.90,
    "blackwell": 1.35, "blackwell-rtx": 0.62, "cdna2": 0.4, "cdna3": 0.9, "cdna4": 1.2,
}  # fmt: skip
# SUSTAINED_TFLOPS_PER_WATT applies up to these watts for one chip. Beyond them speed rises with the square root of power, since
# the chip can only raise its clock, and its voltage with it.
LINEAR_UP_TO_WATTS = {"blackwell": 1000.0}
OLD = frozenset({"pascal", "volta", "turing"})
# Factor of the bandwidth by generation: a large last-level cache serves part of the element-wise operations' traffic.
CACHED_TRAFFIC = {"ada": 1.6, "blackwell-rtx": 1.6}
# Attention kernels that were written for Ampere do not use Hopper's asynchronous tensor cores: FlashAttention 2 reaches a
# smaller share of the peak there than on an A100 (FlashAttention-3 paper, arXiv 2407.08608, section 1: 35 % of the peak). They
# are slower than products only where the peak is above these dense TFLOP/s, which an H20's is not.
ATTENTION_TFLOPS = {"hopper": 742.0, "blackwell": 1690.0}


class Traits(NamedTuple):
    """The number formats of a GPU type; `old`: neither bfloat16 nor flash attention."""

    old: bool
    bf16: bool
    fp8: bool


class Gpu(BaseModel):
    """A GPU type. `memory_gb` is the vendor's figure; a program can use the share `usable` of as many GiB."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    match: str
    generation: Literal[
        "pascal",
        "volta",
        "turing",
        "ampere",
        "ampere8",
        "ada",
        "hopper",
        "blackwell",
        "blackwell-rtx",
        "cdna2",
        "cdna3",
        "cdna4",
    ]
    memory_gb: PositiveFloat
    bandwidth_gb_s: PositiveFloat
    bf16_tflops: PositiveFloat | None = None
    fp16_tflops: PositiveFloat
    fp8_tflops: PositiveFloat | None = None
    fp4_tflops: PositiveFloat | None = None  # None: twice that in 8 bits
    power_w: PositiveFloat
    power_limit_w: PositiveFloat | None = None  # where an operator set one below `power_w`
    link_gb_s: PositiveFloat
    domain: PositiveInt = GPUS_PER_NODE  # GPUs that these links join
    usable: float = Field(0.985, gt=0, le=1)
    source: str

    @property
    def is_old(self) -> bool:
        """Whether it has neither bfloat16 nor flash attention."""
        return self.generation in OLD

    @property
    def is_amd(self) -> bool:
        """Whether AMD makes it."""
        return self.generation.startswith("cdna")

    @property
    def is_consumer(self) -> bool:
        """Whether it is a desktop card, with a desktop's cooling and links."""
        return self.id.startswith("RTX-") and not self.id.startswith(("RTX-A", "RTX-PRO", "RTX-6000"))

    @cached_property
    def traits(self) -> Traits:
        """Everything about the GPU type that a plan depends on."""
        return Traits(self.is_old, self.bf16_tflops is not None, self.fp8_tflops is not None)

    @cached_property
    def sustained_flops(self) -> float:
        """FLOP/s in 16 bits under sustained load, limited by arithmetic units and power."""
        share = ATTAINABLE_OF.get(self.generation, ATTAINABLE)
        linear = min(self.power_w, LINEAR_UP_TO_WATTS.get(self.generation, self.power_w))
        sustained = SUSTAINED_TFLOPS_PER_WATT[self.generation] * math.sqrt(linear * self.power_w)
        if self.power_limit_w:
            # Power rises with the square of the clock or more, so a lower limit costs less speed than power.
            sustained *= min(1.0, self.power_limit_w / self.power_w) ** 0.5
        return min(share * self.fp16_tflops, sustained) * 1e12

    @cached_property
    def usable_bytes(self) -> float:
        """Memory that a program can use: error correction and firmware take the rest."""
        return self.usable * self.memory_gb * 2**30


class Hardware(NamedTuple):
    """The numbers of `count` GPUs of one type that the formulas use: FLOP/s, bytes/s and bytes, as floats or arrays."""

    flops: float
    attention: float  # share of `flops` that attention kernels can use
    fp4: float  # peak in 4 bits, times the usual four of that in 16
    bandwidth: float
    link: float  # within a replica
    between: float  # between replicas
    usable_bytes: float
    count: float  # type: ignore[assignment] # the field, not the method of a tuple


def hardware(gpu: Gpu, count: int, replica: int = 1) -> Hardware:
    """Returns the numbers of `count` GPUs in replicas of `replica`. Beyond one domain the links between nodes are the limit."""
    between = min(gpu.link_gb_s, INTER_NODE_GB_S.get(gpu.generation, SHARED_ADAPTER_GB_S))
    bandwidth = gpu.bandwidth_gb_s * CACHED_TRAFFIC.get(gpu.generation, 1.0)
    return Hardware(
        flops=gpu.sustained_flops,
        attention=min(1.0, ATTENTION_TFLOPS.get(gpu.generation, gpu.fp16_tflops) / gpu.fp16_tflops),
        fp4=(gpu.fp4_tflops or 4.0 * gpu.fp16_tflops) / (4.0 * gpu.fp16_tflops),
        bandwidth=bandwidth * 1e9,
        link=(gpu.link_gb_s if replica <= gpu.domain else between) * 1e9,
        between=(gpu.link_gb_s if count <= gpu.domain else between) * 1e9,
        usable_bytes=gpu.usable_bytes,
        count=float(count),
    )


@cache
def all_gpus() -> dict[str, Gpu]:
    """Every known GPU type by its id."""
    rows = tomllib.loads(files(__package__).joinpath("gpus.toml").read_text())["gpu"]
    gpus = [Gpu.model_validate(row) for row in rows]
    return {gpu.id: gpu for gpu in gpus}


@cache
def find(name: str) -> Gpu | None:
    """Returns the GPU type that a published name means ("NVIDIA A100 80GB PCIe", "RTX 3090"), or None."""
    text = re.sub(r"[\s_\-/]+", " ", name.lower())
    text = re.sub(r"\b\d{1,3}\s*x\s*(?=\D)|\bx\s*\d+\b", " ", text)
    exact = all_gpus().get(name)
    return exact or next((gpu for gpu in all_gpus().values() if re.search(gpu.match, text)), None)
