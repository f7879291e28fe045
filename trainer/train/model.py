"""Base model, tokenizer and adapter of a task."""

from __future__ import annotations

import os
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from trainer.task import METHODS, PRECISIONS, Options, Task
from trainer.train.errors import NotSupported

Tokenizer = Any
Model = Any


def check(task: Task) -> None:
    """Raises NotSupported for a task that this trainer or machine cannot train. Loads nothing."""
    options = task.options
    if options.method not in METHODS:
        raise NotSupported(f"This trainer has no method {options.method}; it has {', '.join(METHODS)}.")
    if options.precision not in PRECISIONS or options.precision == "fp8":
        raise NotSupported(f"This trainer has no precision {options.precision}; it has bf16 and fp16.")
    has_gpu = torch.cuda.is_available()
    if options.precision == "fp16" and not has_gpu:
        raise NotSupported("fp16 needs a GPU, and this machine has none: choose bf16.")
    if options.precision == "bf16" and has_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise NotSupported(f"This machine's GPUs ({torch.cuda.get_device_name()}) have no bf16: choose fp16.")
    if options.method == "qlora" and not (has_gpu and _is_installed("bitsandbytes")):
        raise NotSupported("QLoRA needs a GPU and bitsandbytes (the extra train-gpu): choose lora, or another trainer.")
    if options.fused_kernels and not (has_gpu and _is_installed("liger_kernel")):
        raise NotSupported("Tuned kernels need a GPU and liger-kernel (the extra train-gpu): choose the plain stack.")
    if options.early_stopping_patience and not (options.validation_fraction or task.validation_file):
        raise NotSupported("Early stopping needs a validation fraction above 0, or a validation dataset.")
    if options.packing and options.sequence_length is None:
        raise NotSupported("Packing needs a sequence length.")
    # With several processes, torchrun sets the number of those on this machine.
    needed = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if has_gpu and torch.cuda.device_count() < needed:
        raise NotSupported(f"The job asks for {needed} GPUs here, and this machine has {torch.cuda.device_count()}.")


def load_tokenizer(task: Task) -> Tokenizer:
    """Returns the base model's tokenizer. Raises NotSupported if it is not on this machine."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(task.model, local_files_only=not task.may_download)
    except (OSError, ValueError) as error:
        raise NotSupported(_missing(task, error)) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(task: Task) -> Model:
    """Returns the base model, with an adapter unless all weights are trained. Raises NotSupported."""
    options = task.options
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float16
    quantized = options.method == "qlora"
    # On a CPU, or if all weights are trained, weights have 32 bits and arithmetic has 16.
    weights = torch.float32 if options.method == "full" or not torch.cuda.is_available() else dtype
    quantization = (
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        if quantized
        else None
    )
    device = {"": torch.cuda.current_device()} if quantized else None
    try:
        model = AutoModelForCausalLM.from_pretrained(
            task.model,
            dtype=weights,
            local_files_only=not task.may_download,
            quantization_config=quantization,
            device_map=device,
        )
    except (OSError, ValueError) as error:
        raise NotSupported(_missing(task, error)) from error
    model.config.use_cache = False
    if options.method == "full":
        return model
    if quantized:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=options.activation_checkpointing)
    elif options.activation_checkpointing:
        model.enable_input_require_grads()
    return with_adapter(model, options)


def with_adapter(model: Model, options: Options) -> Model:
    """Returns the model with a LoRA adapter. Raises NotSupported if a target module is missing."""
    alpha = int(options.alpha) if options.alpha == int(options.alpha) else options.alpha
    targets = "all-linear" if "all-linear" in options.target_modules else sorted(options.target_modules)
    if targets != "all-linear":
        present = {name.rpartition(".")[2] for name, _ in model.named_modules()}
        missing = sorted(set(targets) - present)
        if missing:
            linear = sorted(
                {
                    name.rpartition(".")[2]
                    for name, module in model.named_modules()
                    if isinstance(module, torch.nn.Linear)
                }
            )
            raise NotSupported(f"The model has no modules {', '.join(missing)}; it has {', '.join(linear)}.")
    adapter = LoraConfig(
        task_type="CAUSAL_LM",
        r=options.rank,
        lora_alpha=alpha,
        lora_dropout=options.dropout,
        target_modules=targets,
    )
    return get_peft_model(model, adapter, autocast_adapter_dtype=True)


def _is_installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def _missing(task: Task, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"The base model {task.base_model} ({task.model}) cannot be loaded on this trainer: {reason} Start the trainer with "
        "`--models DIR` where DIR has it, or with `--download`."
    )
