"""Runs that move a Tokenformer from one text to another, by training all of it, new tokens or LoRA."""

import hashlib
import math
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..backend import check_number, tree_items, tree_map
from ..cost import FlopCounter
from ..data import HELDOUT_OF_GENRE, batch, load_genre, load_text
from ..model import TokenformerConfig, forward, init_params, loss_and_grads
from ..ops import check_choice
from ..train import TrainConfig, TrainingDiverged, descend, evaluate
from ..transfer import (
    append_tokens,
    join,
    lora_init,
    lora_loss_and_grads,
    merge_lora,
    new_tokens_loss_and_grads,
    remove_tokens,
)
from .run import Run, brief
from .stage import tokenizer

FINAL_WINDOWS = 768  # held-out windows of the final losses: 49,000 characters of each text at a context of 64
READS = ("source", "target")
MIN_CHARS = 20_000  # of a reader's own text, whose last tenth is held out
LEAST_KNOWN = 0.9  # share of its characters that the plays have
# as in the plays (`data.RARE`), and signs of printers
PLAIN = str.maketrans(
    {'"': "'", "\t": " "}
    | dict.fromkeys("\u201c\u201d\u2018\u2019", "'")
    | dict.fromkeys("\u2013\u2014", "--")
)


@dataclass(frozen=True)
class Transfer(Run):
    """One training, measured on the held-out parts of two texts. The model is new (config) or the parent's.

    tokens (attention, ffn): trains only so many new tokens of each layer, with zero keys at birth and tau held. rank:
    trains only LoRA of this rank. Neither: trains everything. source, target: genres of `load_genre`, or a text file.
    Raises ValueError for what makes no run.
    """

    steps: int
    peak_lr: float
    seed: int = 0
    reads: str = "target"  # the text that it trains on
    source: str = "tragedies"
    target: str = "histories"
    config: TokenformerConfig | None = None
    parent: "Transfer | None" = None
    tokens: tuple = ()
    rank: int = 0
    batch_size: int = 16

    def __post_init__(self):
        if (self.config is None) == (self.parent is None):
            raise ValueError("a run starts from a config or from a parent: give one of them")
        if self.tokens and self.rank:
            raise ValueError("tokens and rank: train new tokens or LoRA, one of them")
        if self.parent is None and (self.tokens or self.rank):
            raise ValueError("new tokens and LoRA are added to a trained model: give a parent")
        if self.tokens and (len(self.tokens) != 2 or max(self.tokens) < 1):
            raise ValueError(f"tokens is {self.tokens}: give (attention, ffn), at least one of them above 0")
        check_choice("reads", self.reads, READS)
        for count in (*self.tokens, self.rank):
            check_number("tokens or rank", count, low=0, whole=True)
        self.train_config()

    def train_config(self):
        """A run that goes on reads other batches than its parent did."""
        depth = 0 if self.parent is None else 1
        return TrainConfig(self.steps, self.batch_size, self.peak_lr, seed=100 * self.seed + depth)

    def to_json(self):
        """All that decides the result: of a text file its name and its content, wherever it lies."""
        said = super().to_json()
        if self.config is not None:
            said["config"] = brief(said["config"])
            del said["config"]["kind"]  # there is one kind
        for name in READS:
            if (text := said[name]) not in HELDOUT_OF_GENRE:
                digest = hashlib.sha256(Path(text).read_bytes()).hexdigest()[:16]
                said[name] = {"file": Path(text).name, "sha256": digest}
        return said

    def train(self, parent=None):
        """Losses are nats per character; flops are counted from the matrix products that one step ran; optimizer_bytes
        are those of AdamW's moments; restored is the largest change of a logit after the new tokens were taken off.
        """
        old, config = parent or (init_params(self.config, self.seed), self.config)
        small, joined, whole, gradients = self.method(old, config)
        settings, ids = self.train_config(), text_ids(getattr(self, self.reads), "train")

        def step_gradients(small, step, old=old):
            inputs, targets = batch(ids, step, settings.batch_size, config.context, settings.seed)
            return gradients(small, old, inputs, targets, joined)

        counter = FlopCounter()
        step_gradients(tree_map(counter.wrap, small), 0, tree_map(counter.wrap, old))
        losses, state = [], None
        for _, loss, trained, state in descend(small, step_gradients, settings):  # noqa: B007
            losses.append(float(loss))
        if not math.isfinite(losses[-1]):
            raise TrainingDiverged(
                f"the loss became {losses[-1]} with learning rate {self.peak_lr:g}: lower it"
            )
        params = whole(old, trained)
        final = {
            split: round(evaluate(params, joined, text_ids(name, "heldout"), 64, FINAL_WINDOWS), 5)
            for split, name in (("heldout", self.target), ("source", self.source))
        }
        measured = {
            "parameters": count(params),
            "trained": count(trained),
            "optimizer_bytes": sum(array.nbytes for each in "mv" for _, array in tree_items(state[each])),
            "flops": self.steps * counter.flops,
            **final,
            "train_loss": round(float(np.mean(losses[-50:])), 4),
            "restored": None,
        }
        if self.tokens:
            measured["restored"] = change_of_logits(old, config, *remove_tokens(params, joined, config))
        return measured, params if self.parent is None else None, joined

    def method(self, old, config):
        """The tree to train, the config of the whole model, whole(old, small) -> its params, and the gradients."""
        seed = 100 * self.seed + 1
        if self.tokens:
            new, joined = append_tokens(old, config, *self.tokens, seed=seed)
            return new, joined, join, new_tokens_loss_and_grads
        if self.rank:
            return lora_init(old, self.rank, seed), config, merge_lora, lora_loss_and_grads

        def gradients(params, _, *rest):
            return loss_and_grads(params, *rest)

        return tree_map(lambda array: array.copy(), old), config, lambda _, params: params, gradients


def count(tree):
    """Numbers in a tree."""
    return sum(array.size for _, array in tree_items(tree))


def change_of_logits(old, config, params, new_config):
    """Largest change of a logit between two models on a few held-out windows, 0.0 where they agree to the last bit."""
    inputs, _ = batch(text_ids("tragedies", "heldout"), 0, 16, config.context)
    before, after = (forward(*model)[0] for model in ((old, inputs, config), (params, inputs, new_config)))
    return float(np.abs(after - before).max())


# ---------------------------------------------------------------------------------------------- the texts


@cache
def text_ids(name, split):
    """Token ids of a genre, or of a text file whose last tenth is held out. Raises as `known_text` does."""
    if name in HELDOUT_OF_GENRE:
        return tokenizer().encode(load_genre(name, split))
    text = known_text(load_text(name, MIN_CHARS), tokenizer().characters)
    first = len(text) * 9 // 10
    return tokenizer().encode(text[:first] if split == "train" else text[first:])


def known_text(text, characters):
    """The text in these characters: accents fall, quotes and dashes become plain, what else is strange is left out.

    Raises ValueError where less than LEAST_KNOWN of it can be kept.

    >>> known_text("d\u00e9j\u00e0 \u2014 vu", "adejuv -")
    'deja -- vu'
    """
    plain = unicodedata.normalize("NFKD", text).translate(PLAIN)
    marks = sum(unicodedata.combining(sign) > 0 for sign in plain)
    kept = set(characters)
    known = "".join(sign for sign in plain if sign in kept)
    if len(known) < LEAST_KNOWN * (len(plain) - marks):
        raise ValueError(
            f"only {len(known):,} of {len(plain) - marks:,} characters of the text are among the {len(characters)} "
            "of the plays: a model of the plays can only move to a text in the same letters"
        )
    return known
