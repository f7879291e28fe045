"""GPU types as physics sees them: memory, bandwidth, arithmetic peak, power, links. Prices live in the catalogue."""

from __future__ import annotations

import math
import re
import tomllib
from functools import cache, cached_property
from importlib.resources import files
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

GPUS_PER_NODE = 8
# Collectives between nodes, GB/s as each GPU sees them, by generation: all eight adapters of a node (200 Gb/s each beside an
# A100, 400 beside an H100) carry one ring. Nodes of other GPUs usually share one adapter of 100 Gb/s.
INTER_NODE_GB_S = {"ampere": 160.0, "hopper": 320.0, "blackwell": 320.0, "cdna3": 320.0, "cdna4": 320.0}
SHARED_ADAPTER_GB_S = 10.0

# Large matrix products reach this share of the peak where power does not stop them first. Software reaches less of AMD's peaks:
# 620 TFLOP/s of an MI300X's 1307 (SemiAnalysis, "MI300X vs H100 vs H200 Training", December 2024).
ATTAINABLE, ATTAINABLE_OF = 0.93, {"cdna3": 0.475, "cdna4": 0.55}
# Dense 16-bit TFLOP/s that a watt of board power sustains, by generation: a chip whose peak asks for more than its board may
# draw clocks down under load (an H100 PCIe has 76 % of the SXM's peak and half its power).
SUSTAINED_TFLOPS_PER_WATT = {
    "pascal": 0.06, "volta": 0.27, "turing": 0.31, "ampere": 0.64, "ampere8": 0.35, "ada": 0.62, "hopper": 0.90,
    "blackwell": 1.35, "blackwell-rtx": 0.62, "cdna2": 0.4, "cdna3": 0.9, "cdna4": 1.2,
}  # fmt: skip
# Boards of one chip: the figure above holds up to these watts. Beyond them speed rises with the square root of power, since the
# chip can only raise its clock, and its voltage with it.
LINEAR_UP_TO_WATTS = {"blackwell": 1000.0}
OLD = frozenset({"pascal", "volta", "turing"})
# Generations whose large last-level cache keeps a part of the element-wise traffic off the memory bus.
CACHED_TRAFFIC = {"ada": 1.6, "blackwell-rtx": 1.6}
# Attention kernels that were written for Ampere do not use Hopper's asynchronous tensor cores: FlashAttention 2 reaches a
# smaller share of the peak there than on an A100 (FlashAttention-3 paper, arXiv 2407.08608, section 1: 35 % of the peak).
ATTENTION_SHARE = {"hopper": 0.75, "blackwell": 0.75}


class Traits(NamedTuple):
    """What a GPU type has; `old`: neither bfloat16 nor flash attention."""

    old: bool
    bf16: bool
    fp8: bool


class Gpu(BaseModel):
    """One GPU type; `memory_gb` as vendors count it, `usable` the share of as many GiB that a program can have."""

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
    power_w: PositiveFloat
    power_limit_w: PositiveFloat | None = None  # where an operator set one below `power_w`
    link_gb_s: PositiveFloat
    domain: PositiveInt = GPUS_PER_NODE  # GPUs that these links join
    usable: float = Field(0.985, gt=0, le=1)
    source: str

    @property
    def is_old(self) -> bool:
        """Whether it came before bfloat16 and flash attention."""
        return self.generation in OLD

    @property
    def is_amd(self) -> bool:
        """Whether AMD makes it."""
        return self.generation.startswith("cdna")

    @property
    def is_consumer(self) -> bool:
        """Whether it is a card for desktops: its cooling and its links are those of a desktop."""
        return self.id.startswith("RTX-") and not self.id.startswith(("RTX-A", "RTX-PRO", "RTX-6000"))

    @cached_property
    def traits(self) -> Traits:
        """What of a plan depends on the GPU type: two with the same traits get the same one."""
        return Traits(self.is_old, self.bf16_tflops is not None, self.fp8_tflops is not None)

    @cached_property
    def sustained_flops(self) -> float:
        """FLOP/s in 16 bits that arithmetic units and power supply both allow."""
        share = ATTAINABLE_OF.get(self.generation, ATTAINABLE)
        linear = min(self.power_w, LINEAR_UP_TO_WATTS.get(self.generation, self.power_w))
        sustained = SUSTAINED_TFLOPS_PER_WATT[self.generation] * math.sqrt(linear * self.power_w)
        if self.power_limit_w:
            # Power rises with the square of the clock or more, so a lower limit costs less speed than power.
            sustained *= min(1.0, self.power_limit_w / self.power_w) ** 0.5
        return min(share * self.fp16_tflops, sustained) * 1e12

    @cached_property
    def usable_bytes(self) -> float:
        """Memory that a program can have: error correction and firmware keep the rest."""
        return self.usable * self.memory_gb * 2**30


class Hardware(NamedTuple):
    """What the formulas need of `count` GPUs of one type: FLOP/s, bytes/s and bytes, as floats or arrays."""

    flops: float
    attention: float  # share of `flops` that attention kernels can use
    bandwidth: float
    link: float  # within a replica
    between: float  # between replicas
    usable_bytes: float
    count: float  # type: ignore[assignment] # the field, not the method of a tuple


def hardware(gpu: Gpu, count: int, replica: int = 1) -> Hardware:
    """Numbers of `count` GPUs in replicas of `replica`; beyond one domain the links between nodes set the pace."""
    between = min(gpu.link_gb_s, INTER_NODE_GB_S.get(gpu.generation, SHARED_ADAPTER_GB_S))
    bandwidth = gpu.bandwidth_gb_s * CACHED_TRAFFIC.get(gpu.generation, 1.0)
    return Hardware(
        flops=gpu.sustained_flops,
        attention=ATTENTION_SHARE.get(gpu.generation, 1.0),
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
    """The type a published name means ("NVIDIA A100 80GB PCIe", "RTX 3090"), or None."""
    text = re.sub(r"[\s_\-/]+", " ", name.lower())
    text = re.sub(r"\b\d{1,3}\s*x\s*(?=\D)|\bx\s*\d+\b", " ", text)
    exact = all_gpus().get(name)
    return exact or next((gpu for gpu in all_gpus().values() if re.search(gpu.match, text)), None)
