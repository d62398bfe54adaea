"""The run that trains a Tokenformer by nested dropout, or as usual, and looks at every prefix of its tokens."""

from dataclasses import dataclass

import numpy as np

from ..backend import check_number, tree_from_items, tree_items
from ..cost import count_layer_parameters, count_parameters
from ..data import batch, heldout_batches
from ..growth import TAUS
from ..model import TokenformerConfig, init_params, loss_and_grads
from ..nested import kept_tokens, nested_loss_and_grads, prefix
from ..train import TrainConfig, descend, evaluate
from .asking import Answers, answers, entropy, log_softmax, report, where
from .borrowed_memory import forward_on_memory
from .run import Run, brief
from .stage import corpus, count_step

TUNING_WINDOWS = 512  # of the scenes, on which thresholds are set and `expected_gain` is fitted
SCORED_WINDOWS = 64  # of the training text, on which tokens are scored
MEMORY_SHARES = (0.1, 0.3, 0.5)  # asked of a cloud that borrows the device's memory


@dataclass(frozen=True)
class PrefixRun(Run):
    """A Tokenformer from scratch; every step trains one of `prefixes` (in attention tokens), drawn from (seed, step).

    One prefix, of all tokens, is ordinary training: then the measured sizes are also cut from it after the fact.
    parent: the run of a small model. With it, or with several prefixes, the split of device and cloud is measured; the
    device has the parent's model, or the smallest prefix. Raises ValueError for what makes no run.
    """

    config: TokenformerConfig
    prefixes: tuple  # attention tokens; other layers keep the same share
    steps: int
    peak_lr: float
    measured: tuple  # prefixes whose held-out loss is wanted
    shares: tuple = ()  # of the positions that the device asks about
    kept: int = 16  # probabilities in a short answer
    seed: int = 0
    batch_size: int = 16
    windows: int = 768  # held-out windows of every number
    parent: "PrefixRun | None" = None

    def __post_init__(self):
        if not self.prefixes or self.prefixes[-1] != self.config.attention_tokens:
            raise ValueError(
                f"prefixes {self.prefixes}: the last must be all {self.config.attention_tokens} tokens"
            )
        for tokens in (*self.prefixes, *self.measured):
            kept_tokens(self.config, tokens)
        if not all(0 < share <= 1 for share in self.shares):
            raise ValueError(f"shares {self.shares}: each is above 0 and up to 1")
        check_number("kept", self.kept, low=1, high=self.config.vocab_size - 1, whole=True)
        check_number("windows", self.windows, low=1, whole=True)
        self.settings()

    def settings(self):
        return TrainConfig(self.steps, self.batch_size, self.peak_lr, seed=100 * self.seed)

    def to_json(self):
        """As every run, with what is no default in the config."""
        said = super().to_json()
        return said | {"config": brief(said["config"])}

    def drawn(self, step):
        """The prefix of a step, each equally likely."""
        rng = np.random.default_rng((self.seed, step, 1))  # batches are drawn from (seed, step)
        return self.prefixes[rng.integers(len(self.prefixes))]

    def train(self, parent=None):
        """Losses are nats per character on four held-out plays; "heldout" is their mean over `prefixes`."""
        config, settings, ids = self.config, self.settings(), corpus()
        start = init_params(config, seed=self.seed)

        def gradients(params, step):
            inputs, targets = batch(ids["train"], step, self.batch_size, config.context, settings.seed)
            return nested_loss_and_grads(params, inputs, targets, config, self.drawn(step))

        costs = {m: count_step(*prefix(start, config, m), ids["train"], settings) for m in self.prefixes}
        flops = sum(costs[self.drawn(step)] for step in range(self.steps))
        for _, _, params, _ in descend(start, gradients, settings):  # noqa: B007 (the last ones are wanted)
            pass

        def loss(params, tokens, tau="rescale"):
            small, small_config = prefix(params, config, tokens, tau)
            return round(evaluate(small, small_config, ids["heldout"], 64, self.windows), 5)

        losses = {m: loss(params, m) for m in sorted({*self.prefixes, *self.measured})}
        measured = {
            "parameters": count_parameters(config),
            "layer_parameters": count_layer_parameters(config),
            "tokens": self.steps * self.batch_size * config.context,
            "flops": flops,
            "heldout": round(float(np.mean([losses[m] for m in self.prefixes])), 5),
            "losses": {str(m): value for m, value in losses.items()},
        }
        if len(self.prefixes) == 1 and len(losses) > 1:
            ordered = by_importance(params, config, ids["train"])
            measured["dropped"] = {
                name: {tau: {str(m): loss(tree, m, tau) for m in losses} for tau in TAUS}
                for name, tree in (("last", params), ("least important", ordered))
            }
        if self.shares:
            device = parent or prefix(params, config, self.prefixes[0])
            measured["split"] = self.split(*device, params, ids)
        return measured, params, config

    def split(self, small, small_config, params, ids):
        """What the device and the cloud say, alone and together."""

        def both(text, windows):
            return (
                answers(small, small_config, text, windows),
                answers(params, self.config, text, windows),
            )

        tuning = both(ids["scenes"], TUNING_WINDOWS)
        device, cloud = both(ids["heldout"], self.windows)
        split = report(device, cloud, tuning, self.shares, self.kept)
        split["borrowed memory"] = [
            self.borrow(small, small_config, params, ids["heldout"], (device, cloud), asked)
            for asked in (where(entropy(tuning[0]), entropy(device), share) for share in MEMORY_SHARES)
        ]
        return split

    def borrow(self, small, small_config, params, text, said, asked):
        """Losses where asked only: of the device, of the cloud, and of a cloud that has no memory but the device's."""
        logits = [
            forward_on_memory(params, self.config, small, small_config, inputs, asked[i * 64 : (i + 1) * 64])
            for i, (inputs, _) in enumerate(heldout_batches(text, 64, self.config.context, self.windows))
        ]
        borrowed = Answers(log_softmax(np.concatenate(logits)), said[0].targets)
        names = ("device", "cloud", "borrowed")
        found = {name: each.losses[asked].mean() for name, each in zip(names, (*said, borrowed), strict=True)}
        return {name: round(float(value), 5) for name, value in {"share": asked.mean(), **found}.items()}


def by_importance(params, config, ids):
    """The same model with the tokens of each layer in another order, the most important first.

    Importance is what removing a token should change the loss by, up to its sign: |value · dvalue|.
    """
    inputs, targets = batch(ids, 0, SCORED_WINDOWS, config.context, seed=1)
    grads = dict(tree_items(loss_and_grads(params, inputs, targets, config)[1]))
    arrays = dict(tree_items(params))
    for name in list(arrays):
        if name.endswith(".value"):
            order = np.argsort(-np.abs((arrays[name] * grads[name]).sum(axis=1)), kind="stable")
            for row in (name, name.removesuffix("value") + "key"):
                arrays[row] = arrays[row][order]
    return tree_from_items(arrays.items())
