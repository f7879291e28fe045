"""Makes the base model `demo-tiny`: a Llama of two layers with random weights, and its tokenizer. Needs no network or GPU."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from trainer.train.data import CHATML

NAME = "demo-tiny"
PADDING, START, END = "<pad>", "<|im_start|>", "<|im_end|>"
# The model's shape, as in the catalogue.
VOCABULARY, HIDDEN, FEED_FORWARD, LAYERS, HEADS, KEY_VALUE_HEADS = 2048, 64, 128, 2, 4, 2
MAX_POSITIONS = 8192
SEED = 0


def make(folder: Path) -> Path:
    """Writes the model to `folder`/demo-tiny, in a few seconds. Returns that path."""
    target = folder / NAME
    tokenizer = _tokenizer()
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        max_position_embeddings=MAX_POSITIONS,
        # With a smaller range, an adapter moves the logits of tied, frozen embeddings too little to reduce the loss.
        initializer_range=HIDDEN**-0.5,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    disable_progress_bar()
    LlamaForCausalLM(config).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def _tokenizer() -> PreTrainedTokenizerFast:
    """Returns a byte-level BPE tokenizer, trained on the chapters of Python's language reference that `help()` shows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PADDING, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(topics.values(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PADDING,
        eos_token=END,
        chat_template=CHATML,
        model_max_length=MAX_POSITIONS,
    )
