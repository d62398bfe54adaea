"""One training run, said completely by its Stage: the same Stage gives the same numbers."""

from dataclasses import asdict, dataclass
from functools import cache

import numpy as np

from ..backend import check_number, tree_from_items, tree_items, tree_map
from ..cost import FlopCounter, count_layer_parameters, count_parameters
from ..data import CharTokenizer, batch, load_shakespeare
from ..model import (
    TokenformerConfig,
    TransformerConfig,
    config_fields,
    forward,
    init_params,
    loss_and_grads,
)
from ..train import TrainConfig, evaluate, train_model
from .recipes import RECIPES, fade_in
from .run import Run

FINAL_WINDOWS = 1536  # held-out windows of the final loss: about 100,000 characters at a context of 64
BIRTH_WINDOWS = 64  # windows on which a grown model is compared with its parent


@dataclass(frozen=True)
class Growth:
    """How a stage changes the model that it inherits: a recipe of `recipes.py` and the new sizes."""

    recipe: str
    sizes: tuple  # of pairs (name, size), names as `growth.grow` or `growth.net2net_widen` take them

    def __post_init__(self):
        if self.recipe not in RECIPES:
            raise ValueError(f"recipe {self.recipe!r} is unknown: choose one of {', '.join(RECIPES)}")


@dataclass(frozen=True)
class Stage(Run):
    """A model from scratch (config), or the end of another stage (parent), grown or not, and trained on.

    Raises ValueError for what makes no run.
    """

    steps: int
    peak_lr: float
    seed: int = 0
    config: TokenformerConfig | TransformerConfig | None = None
    parent: "Stage | None" = None
    growth: Growth | None = None
    batch_size: int = 16
    warmup_share: float = 0.05
    eval_points: int = 12  # points of the learning curve
    eval_windows: int = 256  # held-out windows of each point
    value_scale: float = 1.0  # factor on the initial values of a Tokenformer

    def __post_init__(self):
        if (self.config is None) == (self.parent is None):
            raise ValueError("a stage starts from a config or from a parent: give one of them")
        if self.growth is not None and self.parent is None:
            raise ValueError("only a stage with a parent can grow")
        check_number("eval_points", self.eval_points, low=1, whole=True)
        check_number("value_scale", self.value_scale, low=0)
        self.train_config()

    def train_config(self):
        """The settings of `train_model`; every stage of a lineage reads other batches."""
        return TrainConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            peak_lr=self.peak_lr,
            warmup_share=self.warmup_share,
            anneal_share=RECIPES[self.growth.recipe].anneal_share if self.growth else 0.0,
            eval_every=max(1, self.steps // self.eval_points),
            eval_windows=self.eval_windows,
            seed=self.lineage_seed(),
        )

    def depth(self):
        return 0 if self.parent is None else 1 + self.parent.depth()

    def lineage_seed(self):
        return 100 * self.seed + self.depth()

    def to_json(self):
        """All that decides the result, as JSON can say it; a parent is named by its key."""
        fields = {**vars(self), "parent": self.parent.key() if self.parent else None}
        fields["growth"] = asdict(self.growth) if self.growth else None
        fields["config"] = self.config and {"kind": type(self.config).__name__, **config_fields(self.config)}
        if self.growth:  # a recipe of the same name that anneals otherwise is another run
            recipe = RECIPES[self.growth.recipe]
            fields["growth"] |= {"anneal_share": recipe.anneal_share, "fade": recipe.fade}
        if self.value_scale == 1:  # a field that came later: runs of before keep their keys
            del fields["value_scale"]
        return fields

    def train(self, parent=None):
        return train_stage(self, parent)


def train_stage(stage, parent):
    """What `Stage.train` does. Losses are nats per character, on four held-out plays and on held-out scenes of the
    training plays; flops are counted from the matrix products that one step ran.
    """
    ids = corpus()
    birth, after_step = None, None
    if stage.parent is None:
        config = stage.config
        params = scale_values(init_params(config, seed=stage.seed), stage.value_scale)
    elif stage.growth is None:
        params, config = parent
    else:
        recipe = RECIPES[stage.growth.recipe]

        def grow(params, config):
            return recipe.grow(params, config, dict(stage.growth.sizes), seed=stage.lineage_seed())

        birth = compare(parent, grow, ids["heldout"])
        params, config = grow(*parent)
    settings = stage.train_config()
    if stage.growth is not None and recipe.fade:
        steps = max(1, round(settings.anneal_share * settings.steps))
        after_step = fade_in(params, config, parent[1], steps, stage.lineage_seed())
    step_flops = count_step(params, config, ids["train"], settings)
    params, config, _, history = train_model(
        params, config, ids["train"], settings, ids["heldout"], after_step=after_step
    )
    final = {
        split: round(evaluate(params, config, ids[split], 64, FINAL_WINDOWS), 5)
        for split in ("heldout", "scenes")
    }
    measured = {
        "parameters": count_parameters(config),
        "layer_parameters": count_layer_parameters(config),
        "tokens": stage.steps * stage.batch_size * config.context,
        "flops": stage.steps * step_flops,
        **final,
        "train_loss": round(history[-1]["train_loss"], 4),
        "curve": [[line["step"], round(line["heldout_loss"], 4)] for line in history],
        "birth": birth,
    }
    return measured, params, config


def scale_values(params, factor):
    """The params with the values of every Pattention times a factor."""
    return tree_from_items(
        (name, array * array.dtype.type(factor) if name.endswith(".value") else array)
        for name, array in tree_items(params)
    )


@cache
def tokenizer():
    """One token per character of the plays: every model of the laboratory has this vocabulary."""
    return CharTokenizer.from_text(load_shakespeare("train"))


@cache
def corpus():
    """Token ids of the three splits."""
    return {split: tokenizer().encode(load_shakespeare(split)) for split in ("train", "heldout", "scenes")}


def vocab_size():
    """Size of the corpus's vocabulary: what a config of a first stage needs."""
    return tokenizer().vocab_size


def count_step(params, config, ids, settings):
    """FLOPs of the matrix products of one training step, counted while they run."""
    counter = FlopCounter()
    inputs, targets = batch(ids, 0, settings.batch_size, config.context)
    loss_and_grads(tree_map(counter.wrap, params), inputs, targets, config)
    return counter.flops


def compare(parent, grow, ids):
    """What growth changes: the largest change of a logit, also in float64, and the held-out loss before and after."""
    inputs, _ = batch(ids, 0, BIRTH_WINDOWS, parent[1].context)
    double = tree_map(lambda array: array.astype(np.float64), parent[0]), parent[1]
    child = grow(*parent)
    return {
        "max_logit_change": _largest_change(parent, child, inputs),
        "max_logit_change_float64": _largest_change(double, grow(*double), inputs[:16]),
        "largest_logit": round(float(np.abs(forward(parent[0], inputs, parent[1])[0]).max()), 2),
        **{
            name: round(evaluate(params, config, ids, 64, 256), 4)
            for name, (params, config) in (("loss_before", parent), ("loss_after", child))
        },
    }


def _largest_change(parent, child, inputs):
    before, after = (forward(params, inputs, config)[0] for params, config in (parent, child))
    return float(np.abs(after - before).max())
