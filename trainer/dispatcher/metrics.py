"""Metrics of a dispatcher: free GPUs by type, and runs by phase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rpc.telemetry.metrics import Metrics
from trainer.dispatcher.engine import Phase, Run


class DispatcherMetrics:
    """Gauges of the last pass."""

    def __init__(self, metrics: Metrics) -> None:
        self._free = metrics.gauge("pipeline_dispatcher_free_gpus_count", "GPUs free for jobs.", ["gpu_type"])
        self._runs = metrics.gauge("pipeline_dispatcher_runs_count", "Runs on the cluster.", ["gpu_type", "state"])

    def update(self, offers: Mapping[str, int], runs: Sequence[Run]) -> None:
        """Sets the gauges to the offers and runs of a pass."""
        self._free.clear()
        self._runs.clear()
        for gpu_type, count in offers.items():
            self._free.labels(gpu_type).set(count)
        counts = Counter((run.lease.gpu_config.type, run.phase) for run in runs)
        for (gpu_type, phase), count in counts.items():
            self._runs.labels(gpu_type, Phase(phase).name.lower()).set(count)
