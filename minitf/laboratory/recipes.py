"""Ways to grow a model at the beginning of a stage, by name."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..backend import tree_items
from ..growth import grow, net2net_widen
from ..model import part_of


@dataclass(frozen=True)
class Recipe:
    """grow(params, config, sizes, seed) -> params, config; then tau moves to √n over anneal_share of the stage."""

    grow: Callable
    anneal_share: float = 0.0
    exact: bool = False  # promises that the function is unchanged at birth
    fade: bool = False  # random keys come in while tau moves (`fade_in`)


def held(params, config, sizes, seed):
    """Zero keys, random values, tau held: exact, and the new tokens starve (paper, section 3.3 and appendix B)."""
    return grow(params, config, **sizes, key="zero", value="normal", tau="hold", seed=seed)


def zero_rescaled(params, config, sizes, seed):
    """Zero keys, but tau becomes √n at once: not exact."""
    return grow(params, config, **sizes, key="zero", value="normal", tau="rescale", seed=seed)


def release(params, config, sizes, seed):
    """Fresh random rows, tau becomes √n at once (release: megatron/checkpointing.py 414-427)."""
    return grow(params, config, **sizes, key="normal", value="normal", tau="rescale", seed=seed)


def random_held(params, config, sizes, seed):
    """Fresh random rows, tau held: not exact."""
    return grow(params, config, **sizes, key="normal", value="normal", tau="hold", seed=seed)


def dead(params, config, sizes, seed):
    """Zero keys and zero values: exact, and the new rows never get a gradient."""
    return grow(params, config, **sizes, key="zero", value="zero", tau="hold", seed=seed)


def small(params, config, sizes, seed):
    """Keys a thousandth of the trained ones, zero values, tau held: exact to rounding, and AdamW, which divides
    every gradient by its size, moves keys and values at once."""
    return grow(
        params,
        config,
        **sizes,
        key="normal",
        value="zero",
        tau="hold",
        seed=seed,
        key_std=1e-3 * key_spread(params),
    )


def matched(params, config, sizes, seed):
    """Keys with the spread of the trained ones, zero values, tau becomes √n: scores of the same size, not exact."""
    return grow(
        params,
        config,
        **sizes,
        key="normal",
        value="zero",
        tau="rescale",
        seed=seed,
        key_std=key_spread(params),
    )


def fade_in(params, config, old_config, steps, seed):
    """A function after_step(params, step) that brings random keys into zero rows, linearly over so many steps.

    Whole, they are the keys of `matched`. With zero values they change the output through the norm alone, little
    by little, while tau moves from √n_old to √n_new, which is what they change it by on average.
    """
    rng, std, keys = (
        np.random.default_rng(seed),
        key_spread(params) * _growth_of_spread(params, config, old_config),
        {},
    )
    for name, array in tree_items(params):
        if name.endswith(".key"):
            old = old_config.tokens(part_of(name))
            keys[name] = (
                old,
                (std / steps * rng.standard_normal((len(array) - old, array.shape[1]))).astype(array.dtype),
            )

    def after_step(params, step):
        if step < steps:
            for name, array in tree_items(params):
                if name in keys:
                    old, part = keys[name]
                    array[old:] += part
        return params

    return after_step


def _growth_of_spread(params, config, old_config):
    """Zero rows count in `key_spread`, and should not."""
    rows = [
        (len(array), old_config.tokens(part_of(name)))
        for name, array in tree_items(params)
        if name.endswith(".key")
    ]
    return math.sqrt(sum(new for new, _ in rows) / sum(old for _, old in rows))


def key_spread(params):
    """Root mean square of all keys of a Tokenformer."""
    keys = [array.ravel() for name, array in tree_items(params) if name.endswith(".key")]
    return math.sqrt(np.mean(np.concatenate(keys) ** 2))


def copies(params, config, sizes, seed):
    """Whole copies of all tokens that share out the values, unequally; what is left over gets zero keys.

    k copies of every key make the norm √k times larger, and tau = √(k n) cancels that: exact at √n already,
    where held tokens would have to wait. Only the rest (new size modulo old) still needs tau to move.
    """
    whole = {f"{part}_tokens": _multiple(sizes, config, part) for part in ("attention", "ffn")}
    params, config = grow(params, config, **whole, key="copy", value="split", tau="rescale", seed=seed)
    return grow(params, config, **sizes, key="zero", value="normal", tau="hold", seed=seed + 1)


def _multiple(sizes, config, part):
    old = config.tokens(part)
    return sizes[f"{part}_tokens"] // old * old


def net2net(params, config, sizes, seed):
    """Width expansion of a Transformer that keeps its function (Chen et al., 2016), the paper's rival."""
    return net2net_widen(params, config, **sizes, seed=seed)


RECIPES = {
    "held": Recipe(held, exact=True),
    "release": Recipe(release),
    "annealed": Recipe(held, anneal_share=0.3, exact=True),
    "annealed at once": Recipe(held, anneal_share=0.05, exact=True),
    "annealed slowly": Recipe(held, anneal_share=0.8, exact=True),
    "copies": Recipe(copies, anneal_share=0.3, exact=True),
    "zero keys rescaled": Recipe(zero_rescaled),
    "random rows held": Recipe(random_held),
    "matched keys": Recipe(matched),
    "small keys": Recipe(small, anneal_share=0.05, exact=True),
    "small keys slowly": Recipe(small, anneal_share=0.3, exact=True),
    "faded keys": Recipe(dead, anneal_share=0.05, exact=True, fade=True),
    "faded keys slowly": Recipe(dead, anneal_share=0.3, exact=True, fade=True),
    "dead": Recipe(dead, exact=True),
    "net2net": Recipe(net2net, exact=True),
}
