"""The files of a result: adapter or model, tokenizer and template, arguments, and a model card."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.task import Task

CARD = """---
base_model: {source}
library_name: {library}
tags: [{method}, sft, pipeline]
---
# {title}

{kind} of {base}, trained on the dataset "{dataset}".

| | |
|---|---|
{rows}

## Use

```python
{usage}
```
"""
ADAPTER_USAGE = """from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = AutoModelForCausalLM.from_pretrained("{source}")
model = PeftModel.from_pretrained(base_model, "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")"""
MODEL_USAGE = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")"""


def write(
    task: Task,
    model: Any,
    tokenizer: Any,
    arguments: dict[str, Any],
    metrics: dict[str, float],
    *,
    best: Path | None,
    step: int,
    max_steps: int,
) -> None:
    """Writes the result's files. `best`: folder of weights that replace the model's own."""
    folder = task.result_dir
    shutil.rmtree(folder, ignore_errors=True)
    if best is None:
        model.save_pretrained(folder)
    else:
        shutil.copytree(best, folder)
    tokenizer.save_pretrained(folder)
    for unwanted in ("training_args.bin", "README.md"):
        (folder / unwanted).unlink(missing_ok=True)
    _sort_lists(folder / "adapter_config.json", task)
    (folder / "training_args.json").write_text(json.dumps(arguments, indent=2, sort_keys=True, default=str))
    (folder / "README.md").write_text(_card(task, metrics, step=step, max_steps=max_steps))


def _sort_lists(file: Path, task: Task) -> None:
    """Sorts module names, which PEFT writes in any order, and replaces the local path of the base model by its name."""
    if not file.exists():
        return
    config = json.loads(file.read_text())
    for name, value in config.items():
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            config[name] = sorted(value)
    config["base_model_name_or_path"] = task.source or task.base_model
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _card(task: Task, metrics: dict[str, float], *, step: int, max_steps: int) -> str:
    options = task.options
    is_adapter = options.method != "full"
    link = f"[{task.source}](https://huggingface.co/{task.source}) ({task.base_model})"
    shown = {
        "Job": task.job_id,
        "Method": options.method,
        "Step": f"{step} of {max_steps}",
        "GPUs": f"{task.gpu_count} {task.gpu_type}",
        **{
            name.replace("_", " ").capitalize(): value if not isinstance(value, tuple) else ", ".join(value)
            for name, value in asdict(options).items()
            if name != "method" and value is not None
        },
        **({"Validation dataset": _line(task.validation_name)} if task.validation_name else {}),
        **{name: f"{value:.4f}" for name, value in metrics.items()},
    }
    return CARD.format(
        source=task.source or task.base_model,
        base=link if task.source else task.base_model,
        library="peft" if is_adapter else "transformers",
        method=options.method,
        title=f"{task.base_model} on {_line(task.dataset_name)}",
        kind="A LoRA adapter" if is_adapter else "A fine-tuned copy",
        dataset=_line(task.dataset_name),
        rows="\n".join(f"| {name} | {value} |" for name, value in shown.items()),
        usage=(ADAPTER_USAGE if is_adapter else MODEL_USAGE).format(source=task.source or f"path/to/{task.base_model}"),
    )


def _line(name: str) -> str:
    """Returns a name without line breaks, escaped for a cell of a Markdown table."""
    return " ".join(name.split()).replace("|", "\\|")
