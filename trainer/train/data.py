"""Stored samples (docs/datasets.md, "What is stored") as tokens and labels. Imports neither torch nor transformers.

The loss covers the assistant's messages that are marked with `train`, the completion of a prompt, or a text as a whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from trainer.train.errors import DatasetError, NotSupported

# The label that PyTorch's cross entropy ignores.
IGNORED = -100
# Smallest number of samples to validate with: the loss of fewer is too noisy.
MIN_VALIDATION = 20
# The template for models without one: ChatML, with the assistant's messages marked for the loss.
CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{% generation %}"
    "{{- message['content'] }}"
    "{%- for call in message.get('tool_calls') or [] %}"
    "{{- '<tool_call>' + call['function'] | tojson + '</tool_call>' }}"
    "{%- endfor %}"
    "{{- '<|im_end|>' }}"
    "{% endgeneration %}"
    "{%- else %}{{- message['content'] + '<|im_end|>' }}{%- endif %}"
    "{{- '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@dataclass(frozen=True)
class Sample:
    """Token ids of a sample, and their labels: the id itself, or IGNORED outside of the loss."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Prepared:
    """Samples to train on and to validate with. `log_lines`: lines for the job's log. `longest`: tokens, after cutting."""

    train: list[Sample]
    validation: list[Sample]
    longest: int
    log_lines: list[str]


def read_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Yields the stored samples of a dataset. Raises DatasetError."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DatasetError(f"line {number} of the stored dataset is not JSON: {error}") from error
            yield row


def check_counts(
    rows: Sequence[Mapping[str, Any]], pairs: int | None, tokens: int | None, dataset: str = "dataset"
) -> None:
    """Raises DatasetError if the samples have other counts than in the estimate."""
    if not rows:
        raise DatasetError(f"the {dataset} has no samples")
    for name, expected in (("pairs", pairs), ("tokens", tokens)):
        count = sum(row.get(name, 0) for row in rows)
        if expected is not None and count != expected:
            raise DatasetError(f"the {dataset} has {count} {name}, and the estimate counted {expected}")


def chat_template(tokenizer: Any) -> tuple[str | None, str]:
    """Returns a template that marks the assistant's messages, and a line for the log. None: the model's marks none."""
    if not tokenizer.chat_template:
        return CHATML, "The model has no chat template: ChatML is used. The loss is on the assistant's messages."
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    if has_generation_markers(tokenizer.chat_template):
        return (
            tokenizer.chat_template,
            "The loss is on the assistant's messages, as the model's chat template marks them.",
        )
    try:
        return get_training_chat_template(tokenizer), (
            "The loss is on the assistant's messages, as TRL's training template of this model family marks them."
        )
    except ValueError:
        return None, (
            "The model's chat template does not mark the assistant's messages: the loss is on the last message of each "
            "conversation, and what comes before it is the prompt."
        )


def encode(row: Mapping[str, Any], tokenizer: Any, template: str | None) -> Sample:
    """Returns a stored sample as tokens and labels, not cut. Raises NotSupported, DatasetError."""
    if "messages" in row:
        return _conversation(row, tokenizer, template) if template else _last_message(row, tokenizer)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if "text" in row:
        ids = tokenizer(row["text"])["input_ids"]
        ids += [] if ids[-1:] == end else end
        return Sample(ids, list(ids))
    prompt = tokenizer(row["prompt"])["input_ids"]
    # Encoded together: a tokenizer adds special tokens to the ends of a text.
    whole = tokenizer(row["prompt"] + row["completion"])["input_ids"]
    whole += [] if whole[-1:] == end else end
    return _split(whole, _common_prefix(prompt, whole))


def _conversation(row: Mapping[str, Any], tokenizer: Any, template: str) -> Sample:
    messages, tools = _messages(row)
    encoded = tokenizer.apply_chat_template(
        messages, tools=tools, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = list(encoded["input_ids"]), encoded["assistant_masks"]
    spans = _spans(mask)
    answers = [message for message in messages if message["role"] == "assistant"]
    if not all(message.get("train", True) for message in answers):
        if len(spans) != len(answers):
            raise NotSupported(
                f"The dataset excludes messages from the loss (row {row.get('row')}), which the model's chat template "
                "cannot mark one by one."
            )
        spans = [span for span, message in zip(spans, answers, strict=True) if message.get("train", True)]
    labels = [IGNORED] * len(ids)
    for start, end in spans:
        labels[start:end] = ids[start:end]
    if not spans:
        raise DatasetError(f"the model's chat template leaves nothing to train on in row {row.get('row')}")
    return Sample(ids, labels)


def _last_message(row: Mapping[str, Any], tokenizer: Any) -> Sample:
    messages, tools = _messages(row)
    *prompt, answer = messages
    answers = [message for message in prompt if message["role"] == "assistant" and message.get("train", True)]
    if answer["role"] != "assistant" or not answer.get("train", True) or (answers and _has_excluded_messages(messages)):
        raise NotSupported(
            f"The dataset says which messages the loss includes (row {row.get('row')}), and the model's chat template can "
            "only train on the last message of a conversation."
        )
    before = tokenizer.apply_chat_template(prompt, tools=tools, add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    whole = tokenizer.apply_chat_template(messages, tools=tools, return_dict=True)["input_ids"]
    return _split(list(whole), _common_prefix(before, whole))


def _has_excluded_messages(messages: Sequence[Mapping[str, Any]]) -> bool:
    return any(message["role"] == "assistant" and not message.get("train", True) for message in messages)


def _messages(row: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[Any] | None]:
    """Returns messages and tools for chat templates, with arguments of calls as objects."""
    messages = []
    for message in row["messages"]:
        calls = [_call(call) for call in message.get("tool_calls") or ()]
        messages.append({**message, **({"tool_calls": calls} if calls else {})})
    return messages, json.loads(row["tools"]) if row.get("tools") else None


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    with suppress(ValueError):  # arguments that are not JSON stay text
        function["arguments"] = json.loads(function["arguments"] or "{}")
    return {**call, "function": function}


def _split(ids: list[int], prompt_length: int) -> Sample:
    return Sample(ids, [IGNORED] * prompt_length + ids[prompt_length:])


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return length


def _spans(mask: Sequence[int]) -> list[tuple[int, int]]:
    """Returns start and end of each run of ones."""
    spans, position = list[tuple[int, int]](), 0
    for bit, run in groupby(mask):
        length = len(list(run))
        if bit:
            spans.append((position, position + length))
        position += length
    return spans


def prepare(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    *,
    sequence_length: int | None,
    validation_fraction: float,
    seed: int,
    validation_rows: Sequence[Mapping[str, Any]] = (),
) -> Prepared:
    """Returns all samples, cut. Those to validate with are `validation_rows`, or a share of `rows`.

    Raises NotSupported, DatasetError.
    """
    is_chat = any("messages" in row for row in (*rows, *validation_rows))
    template, log_line = chat_template(tokenizer) if is_chat else (None, "")
    log_lines = [log_line] if log_line else []
    train = _cut([encode(row, tokenizer, template) for row in rows], sequence_length, log_lines)
    if validation_rows:
        validation = _cut([encode(row, tokenizer, template) for row in validation_rows], sequence_length, log_lines)
        log_lines.append(f"{len(validation)} samples of the validation dataset are validated with.")
    else:
        train, validation = _split_off(train, validation_fraction, seed)
        if validation:
            log_lines.append(
                f"{len(validation)} of {len(train) + len(validation)} samples are held out for validation."
            )
    longest = max(len(sample.input_ids) for sample in train)
    return Prepared(train, validation, longest, log_lines)


def _cut(samples: list[Sample], length: int | None, log_lines: list[str]) -> list[Sample]:
    """Returns samples cut to `length` tokens, without those that have nothing left to train on."""
    if length is None:
        return samples
    longer = sum(len(sample.input_ids) > length for sample in samples)
    if longer:
        log_lines.append(f"{longer} of {len(samples)} samples are longer than {length} tokens and are cut.")
    cut = [Sample(each.input_ids[:length], each.labels[:length]) for each in samples]
    kept = [each for each in cut if any(label != IGNORED for label in each.labels)]
    if len(kept) < len(cut):
        log_lines.append(f"{len(cut) - len(kept)} samples are left out: the cut leaves nothing to train on.")
    if not kept:
        raise DatasetError(f"samples that are cut at {length} tokens leave nothing to train on")
    return kept


def _split_off(samples: list[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Returns samples to train on and samples to validate with."""
    # A hash orders the samples the same way on every machine and with every version of a library.
    order = sorted(range(len(samples)), key=lambda index: hashlib.sha256(f"{seed}/{index}".encode()).digest())
    validation = frozenset(order[: validation_count(len(samples), fraction)])
    train = [sample for index, sample in enumerate(samples) if index not in validation]
    if not train:
        raise DatasetError(f"all {len(samples)} samples would be held out for validation: it needs at least 20")
    return train, [samples[index] for index in sorted(validation)]


def validation_count(samples: int, fraction: float) -> int:
    """Returns how many samples a validation fraction holds out: none, or at least MIN_VALIDATION."""
    return max(MIN_VALIDATION, round(samples * fraction)) if fraction > 0 else 0
