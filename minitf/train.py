"""The training loop: deterministic batches, a progress bar, held-out loss, checkpoints that resume exactly."""

import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from . import checkpoint
from .backend import array_module, check_number, tree_map
from .data import batch, heldout_batches
from .growth import anneal_tau, check_state
from .kernels import Replayed
from .model import check_params, forward, loss_and_grads
from .ops import check_ids, cross_entropy_forward
from .optim import adamw_init, adamw_step, check_betas, clip_by_global_norm, warmup_cosine


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults follow the release, its learning rate excepted (small models want more)."""

    steps: int
    batch_size: int = 16  # sequences of config.context tokens
    peak_lr: float = 3e-3  # release: 6e-4 for all sizes
    floor_share: float = 0.1  # the cosine ends at this share of peak_lr
    warmup_share: float = 0.05  # of the steps; release: 0.01
    weight_decay: float = 0.1
    betas: tuple = (0.9, 0.95)
    max_norm: float = 1.0  # gradients are clipped to this global norm
    anneal_share: float = 0.0  # tau moves from held to sqrt(n) over this share of the steps (after a growth)
    eval_every: int = 100  # steps between two lines of the history
    eval_windows: int = 64  # held-out windows of config.context tokens that the held-out loss averages
    seed: int = 0  # of the order of the data

    def __post_init__(self):
        for name in ("steps", "batch_size", "eval_every", "eval_windows"):
            if check_number(name, getattr(self, name), whole=True) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("floor_share", "warmup_share", "anneal_share"):
            if not 0 <= check_number(name, getattr(self, name)) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it is a share, from 0 to 1")
        for name in ("peak_lr", "weight_decay", "max_norm"):
            check_number(name, getattr(self, name), low=0)
        check_number("seed", self.seed, low=0, whole=True)
        check_betas(self.betas)

    def lr(self, step):
        """Learning rate of a step, 0 to steps - 1."""
        warmup = round(self.warmup_share * self.steps)
        # step + 1: a first step with learning rate 0, as in the release, would learn nothing
        return warmup_cosine(step + 1, self.peak_lr, self.floor_share * self.peak_lr, warmup, self.steps)


class TrainResult(NamedTuple):
    params: dict
    config: object  # as passed, with tau where annealing left it
    state: dict
    history: list  # of {"step", "lr", "train_loss", "heldout_loss"}, losses in nats per token


class TrainingDiverged(ArithmeticError):
    """The loss became NaN or infinite."""


def train_model(
    params,
    config,
    ids,
    settings,
    heldout_ids=None,
    state=None,
    checkpoint_path=None,
    checkpoint_every=None,
    resume=False,
    extra=None,
    after_step=None,
):
    """Train a model on a stream of token ids; returns TrainResult. The params passed in are not changed.

    ids: integers (n,), n > config.context, on the host; params on the GPU train there, and the passes through the
    model are recorded and replayed (`kernels.Replayed`).
    checkpoint_path is written every checkpoint_every steps (default: a tenth of the run) and at the end, with
    `extra` (JSON-able, a tokenizer say) beside it. after_step(params, step) may return other params after each
    step of the optimizer. resume=True goes on from the file if there is one: the end
    is bit-identical to an uninterrupted run. Batches depend on (settings.seed, step) alone.
    Raises TrainingDiverged, naming step, learning rate and last checkpoint, where the loss is not finite;
    ValueError where a checkpoint to resume from belongs to another run.
    """
    check_params(params, config)
    check_ids("ids", ids, config.vocab_size)
    if not isinstance(settings, TrainConfig):
        raise TypeError(f"settings is a {type(settings).__name__}: pass a TrainConfig")
    if state is not None:
        check_state(state)
    if checkpoint_every is not None:
        check_number("checkpoint_every", checkpoint_every, low=1, whole=True)
    xp = array_module(params["embedding"]["weight"])
    params = tree_map(lambda p: p.copy(), params)
    state = adamw_init(params) if state is None else tree_map(_copy, state)
    run = {"model": repr(config), "settings": repr(settings), "data": zlib.crc32(np.ascontiguousarray(ids))}
    first, losses, history = 0, [], []
    if resume and checkpoint_path is not None and Path(checkpoint_path).exists():
        params, state, first, losses, history = _resume(checkpoint_path, run, xp)
    checkpoint_every = checkpoint_every or max(1, settings.steps // 10)
    rescue = (
        f"the last good checkpoint is {checkpoint_path}, step {first}" if first else "there is no checkpoint"
    )

    compute = Replayed(loss_and_grads)

    def gradients(params, step):
        inputs, targets = batch(ids, step, settings.batch_size, config.context, settings.seed)
        return compute(params, xp.asarray(inputs), xp.asarray(targets), config_at(step, config, settings))

    step_config, pending = config_at(first, config, settings), []
    steps = descend(params, gradients, settings, state, first, after_step)
    bar = progress(steps, "training", initial=first, total=settings.steps)
    quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")  # _finite says so, and says where
    with bar, quiet:
        for step, loss, params, state in bar:
            step_config, lr = config_at(step, config, settings), settings.lr(step)
            pending.append(loss)

            done = step + 1
            is_last = done == settings.steps
            is_eval = is_last or done % settings.eval_every == 0
            is_save = checkpoint_path is not None and (is_last or done % checkpoint_every == 0)
            if xp is np or is_eval or is_save:  # reading a loss from a GPU means waiting for it
                losses += _finite(pending, step, settings, rescue)
                pending = []
            if is_eval:
                line = {"step": done, "lr": lr, "train_loss": float(np.mean(losses)), "heldout_loss": None}
                if heldout_ids is not None:
                    size, limit = settings.batch_size, settings.eval_windows
                    line["heldout_loss"] = evaluate(params, step_config, heldout_ids, size, limit)
                history.append(line)
                losses = []
                bar.set_postfix(loss=f"{line['train_loss']:.3f}")
            if is_save:
                training = {"run": run, "step": done, "losses": losses, "history": history}
                everything = {**(extra or {}), "training": training}
                checkpoint.save(checkpoint_path, params, step_config, state=state, extra=everything)
                rescue = f"the last good checkpoint is {checkpoint_path}, step {done}"
    return TrainResult(params, step_config, state, history)


def descend(params, gradients, settings, state=None, first=0, after_step=None):
    """The steps of a training, one at a time: yields step, loss, params, state after each of them.

    gradients(params, step) -> loss and the tree of its gradients. They are clipped, AdamW uses them at the learning
    rate of `settings`, and after_step(params, step) may return other params. The params passed in are overwritten.
    """
    state = adamw_init(params) if state is None else state
    clip = Replayed(clip_by_global_norm)
    for step in range(first, settings.steps):
        loss, grads = gradients(params, step)
        grads, _ = clip(grads, settings.max_norm)
        params, state = adamw_step(
            params, grads, state, settings.lr(step), settings.betas, weight_decay=settings.weight_decay
        )
        if after_step is not None:
            params = after_step(params, step)
        yield step, loss, params, state


def evaluate(params, config, ids, batch_size=16, limit=None):
    """Mean loss in nats per token over consecutive windows of config.context held-out tokens.

    limit: at most so many windows, spread by `data.heldout_batches`; None takes all.
    """
    check_params(params, config)
    xp = array_module(params["embedding"]["weight"])
    total, count = 0.0, 0
    for inputs, targets in heldout_batches(ids, batch_size, config.context, limit):
        logits, _ = forward(params, xp.asarray(inputs), config)
        loss, _ = cross_entropy_forward(logits, xp.asarray(targets))
        total += float(loss) * targets.size
        count += targets.size
    return total / count


def progress(iterable, description, **options):
    """A tqdm bar for a terminal or a notebook; silent where nobody watches."""
    return tqdm(iterable, desc=description, disable=not somebody_watches(), **options)


def somebody_watches():
    """Not under pytest, nor with MINITF_PROGRESS=0: then there are no progress bars and no sliders."""
    return os.environ.get("MINITF_PROGRESS") != "0" and "PYTEST_CURRENT_TEST" not in os.environ


def _copy(leaf):
    return leaf.copy() if hasattr(leaf, "copy") else leaf


def config_at(step, config, settings):
    """The config with the tau of this step."""
    if not settings.anneal_share:
        return config
    return anneal_tau(config, min(1.0, (step + 1) / (settings.anneal_share * settings.steps)))


def _finite(pending, step, settings, rescue):
    """The pending losses, the last of them that of `step`, as floats; TrainingDiverged if one is not finite."""
    losses = [float(loss) for loss in pending]
    for at, loss in enumerate(losses, start=step - len(losses) + 1):
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the loss became {loss} at step {at} with learning rate {settings.lr(at):.3g}: lower peak_lr or "
                f"lengthen the warm-up; {rescue}"
            )
    return losses


def _resume(path, run, xp):
    """params, state, steps done, losses since the last line of history, and history of a saved run."""
    saved = checkpoint.load_training(path)
    training = (saved.extra or {}).get("training", {})
    for name, here in run.items():
        there = training.get("run", {}).get(name)
        if there != here:
            raise ValueError(
                f"{path} holds another run, its {name} is {there} and not {here}: choose another "
                "checkpoint_path, or pass resume=False to overwrite it"
            )
    trees = (saved.params, saved.state)
    params, state = (tree_map(lambda a: xp.asarray(a) if isinstance(a, np.ndarray) else a, t) for t in trees)
    return params, state, training["step"], training["losses"], training["history"]
