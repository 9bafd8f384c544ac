"""A byte-pair tokenizer trained on the shipped prompts, saved as Hugging Face saves its own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from harness_runners.files.cache import content_key

VOCABULARY = 4096
BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def train_tokenizer(texts: Iterable[str], folder: Path, context: int) -> int:
    """Write tokenizer.json and tokenizer_config.json; returns the vocabulary's size.

    Ids 0, 1 and 2 are BOS, EOS and PAD. Every prompt starts with BOS, as Llama's does.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, 0)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    return int(tokenizer.get_vocab_size())


def corpus() -> list[str]:
    """The texts that the tokenizer is trained on."""
    from harness_runners.shipped import load_passages, load_shipped

    questions = [prompt.prompt for prompt in load_shipped("short")]
    return questions + [f"{passage.title}. {passage.text}\n\n" for passage in load_passages()]


def corpus_key() -> str:
    """Names the corpus and the trainer's settings, for the cache."""
    return content_key(VOCABULARY, BOS, EOS, PAD, corpus())
