"""The training process: `python -m trainer.train`. PIPELINE_TASK names the file with its task."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from rpc.process.workers import tie_to_parent
from trainer.task import REPORTS_VARIABLE, TASK_VARIABLE, Task
from trainer.train.errors import TrainingError, disk_error
from trainer.train.pipe import Pipe


def main() -> int:
    """Returns the exit code: 0 for a result or a saved checkpoint, 1 for a failure that was reported."""
    # This process must not outlive the supervisor, which has the lease.
    tie_to_parent(signal.SIGKILL)
    task = Task.read(Path(os.environ[TASK_VARIABLE]))
    rank, local_rank = (int(os.environ.get(name, "0")) for name in ("RANK", "LOCAL_RANK"))
    pipe = Pipe(os.environ.get(REPORTS_VARIABLE), rank=rank, local_rank=local_rank)
    began = time.monotonic()
    pipe.report(stage="starting")
    # Sent before PyTorch is imported, which takes seconds.
    import torch

    from trainer.train.measure import Meter
    from trainer.train.run import run

    meter = Meter()
    meter.add("load", time.monotonic() - began)
    try:
        run(task, pipe, meter)
    except TrainingError as error:
        pipe.send("error", message=str(error), retryable=error.retryable, reason=error.reason)
        return 1
    except torch.OutOfMemoryError as error:
        pipe.send("error", message=_out_of_memory(error), retryable=False, reason="OUT_OF_MEMORY")
        return 1
    except Exception as error:
        message = disk_error(error, Path(task.work_dir)) or f"{type(error).__name__}: {error}"
        pipe.send("error", message=message, retryable=True)
        raise
    return 0


def _out_of_memory(error: Exception) -> str:
    from trainer.train.measure import peak_memory_gib

    reserved = peak_memory_gib()
    message = str(error).split(". ")[0]
    peak = f" Reserved at its peak: {reserved:.2f} GiB." if reserved is not None else ""
    return f"The GPU ran out of memory: {message}.{peak}"


if __name__ == "__main__":
    sys.exit(main())
