"""Stages in a row: from scratch, grown through sizes, trained on without growing."""

from ..model import TokenformerConfig, TransformerConfig
from .stage import Growth, Stage, vocab_size


def transformer(d_model, head_dim=20, n_layers=2, context=64):
    """The laboratory's Transformer of this width: N = 12 L d² parameters in its layers.

    Heads rotate in all channels and weights start at 0.1: tiny models learn slowly from the release's quarter
    and 0.02.
    """
    _require_heads(d_model, head_dim)
    return TransformerConfig(
        vocab_size(),
        context,
        n_layers,
        d_model,
        d_model // head_dim,
        d_ff=4 * d_model,
        rotary_fraction=1.0,
        init_std=0.1,
    )


def tokenformer(tokens, d_model=60, head_dim=20, n_layers=2, context=64, **options):
    """The laboratory's Tokenformer: `tokens` in each attention layer, 4 times as many in the feed-forward one.

    N = 16 L d tokens: with tokens = 0.75 D²/d as many as a Transformer of width D has.
    """
    _require_heads(d_model, head_dim)
    return TokenformerConfig(
        vocab_size(),
        context,
        n_layers,
        d_model,
        d_model // head_dim,
        **{"attention_tokens": tokens, "ffn_tokens": 4 * tokens, **options},
        rotary_fraction=1.0,
        init_std=0.1,
    )


def matching_tokens(d_transformer, d_token):
    """Attention tokens that give a Tokenformer as many parameters as a Transformer has: 0.75 D²/d, rounded."""
    return round(0.75 * d_transformer**2 / d_token)


def grown(base, recipe, tokens, steps, peak_lr):
    """Stages that grow a Tokenformer to each of `tokens` (attention; feed-forward 4 times as many) in turn."""
    return _chain(
        base,
        steps,
        peak_lr,
        [Growth(recipe, (("attention_tokens", n), ("ffn_tokens", 4 * n))) for n in tokens],
    )


def widened(base, widths, steps, peak_lr):
    """Stages that widen a Transformer by Net2Net to each of `widths` in turn."""
    return _chain(
        base,
        steps,
        peak_lr,
        [Growth("net2net", (("d_model", width), ("d_ff", 4 * width))) for width in widths],
    )


def continued(base, stages, steps, peak_lr):
    """So many stages that train the same model on, each with a schedule of its own."""
    return _chain(base, steps, peak_lr, [None] * stages)


def _chain(base, steps, peak_lr, growths):
    chain = []
    for growth in growths:
        parent = chain[-1] if chain else base
        chain.append(Stage(steps, peak_lr, base.seed, parent=parent, growth=growth))
    return tuple(chain)


def _require_heads(d_model, head_dim):
    if d_model % head_dim:
        raise ValueError(f"heads of {head_dim} channels do not divide the width {d_model}")
