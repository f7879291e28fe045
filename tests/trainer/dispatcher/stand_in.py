"""A training that takes no time to start, in place of ours: a chain of hashes, with checkpoints.

Its result depends on the dataset and on every step, so a run that was interrupted and went on has the very bytes of one that
was not, and no others do.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

# Seconds of a step, and steps between checkpoints.
STEP_SECONDS = float(os.environ.get("STAND_IN_STEP_SECONDS", "0.1"))
STEPS, CHECKPOINT_STEPS = int(os.environ.get("STAND_IN_STEPS", "20")), 5


def main() -> None:
    """Trains."""
    task = json.loads(Path(os.environ["PIPELINE_TASK"]).read_text())
    pipe = os.open(os.environ["PIPELINE_REPORTS"], os.O_WRONLY)
    checkpoints = Path(task["checkpoint_url"].removeprefix("file://"))
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))

    def send(**message: Any) -> None:
        os.write(pipe, json.dumps(message).encode() + b"\n")

    def save(step: int, state: str) -> None:
        checkpoints.mkdir(parents=True, exist_ok=True)
        file = checkpoints / "state.json"
        file.with_suffix(".new").write_text(json.dumps([step, state]))
        file.with_suffix(".new").rename(file)
        send(checkpoint={"uri": f"file://{file}", "step": step})

    first, state = 0, hashlib.sha256(Path(task["dataset_file"]).read_bytes()).hexdigest()
    if (checkpoints / "state.json").exists():
        first, state = json.loads((checkpoints / "state.json").read_text())
        send(lines=[f"goes on from step {first}"])
    for step in range(first + 1, STEPS + 1):
        time.sleep(STEP_SECONDS)
        state = hashlib.sha256(f"{state} {step}".encode()).hexdigest()
        send(step=step, of=STEPS, epoch=step / STEPS, values={"loss": 2 / step})
        if stopping or step % CHECKPOINT_STEPS == 0:
            save(step, state)
        if stopping:
            send(saved={"step": step})
            return
    folder = Path(task["work_dir"]) / "result"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_text(state)
    send(result={"folder": str(folder), "step": STEPS, "max_steps": STEPS})


if __name__ == "__main__":
    main()
