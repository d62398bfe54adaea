"""What a model costs: parameters, FLOPs and bytes, by formula and by counting what really ran.

A FLOP is one multiplication or one addition; a product of (m, k) and (k, n) matrices costs 2 m k n. Like the
paper (table 3) the formulas count matrix products only, and attention over the full T x T square.
"""

import math

import numpy as np

from .backend import check_number, tree_items
from .model import parameter_shapes


def count_parameters(config):
    """Number of parameters, a tied embedding once. The released 150M model:

    >>> from minitf import TokenformerConfig
    >>> released = TokenformerConfig(50304, 2048, 12, 768, 12, attention_tokens=768, ffn_tokens=3072)
    >>> count_parameters(released)
    151881216
    """
    return sum(math.prod(shape) for _, shape in tree_items(parameter_shapes(config)))


def count_layer_parameters(config):
    """Parameters of the layers alone, N in the paper's table 3: no embedding, no norms.

    Tokenformer: N = 2 L d (3 n_attention + n_proj + n_ffn);  Transformer: N = L (4 d² + 2 d d_ff).
    paper, v1: lacked the factor 2 for key and value / ICLR: has it.
    """
    return sum(
        math.prod(shape)
        for name, shape in tree_items(parameter_shapes(config))
        if name.startswith("block_") and "_norm." not in name
    )


def forward_flops(config, context):
    """FLOPs of the forward pass of one sequence of `context` tokens: 2 N T + 4 L d T² + 2 V d T.

    From left: layers, token-token attention, logits (paper, table 3, with the T that its last row lacks).
    With ffn_top_k all n keys of a feed-forward Pattention are scored but only k values are summed: 2 (n + k) d T in
    place of 4 n d T. Its FLOPs are those of the tokens that were chosen (`top_k`, gather=True).
    """
    return _dense_forward_flops(config, context) - _left_out(config, context)


def training_flops(config, context):
    """FLOPs of forward and backward of one sequence: every product has two gradients, so three times forward.

    With ffn_top_k the four products of a feed-forward Pattention's backward need the k chosen tokens alone, 8 k d T:
    forward and backward cost (2 n + 10 k) d T in place of 12 n d T, a sixth at the least.

    >>> from minitf import TokenformerConfig
    >>> sizes = {"vocab_size": 65, "context": 64, "n_layers": 1, "d_model": 32, "n_heads": 2, "attention_tokens": 32}
    >>> dense = TokenformerConfig(ffn_tokens=256, **sizes)
    >>> sparse = TokenformerConfig(ffn_tokens=256, ffn_top_k=16, **sizes)
    >>> training_flops(dense, 64) - training_flops(sparse, 64)  # 10 (256 - 16) 32 · 64
    4915200
    """
    return 3 * _dense_forward_flops(config, context) - 5 * _left_out(config, context)


def _dense_forward_flops(config, context):
    context = check_number("context", context, low=1, whole=True)
    layers = 2 * count_layer_parameters(config) * context
    attention = 4 * config.n_layers * config.d_model * context**2
    logits = 2 * config.vocab_size * config.d_model * context
    return layers + attention + logits


def _left_out(config, context):
    """FLOPs of one product of the feed-forward Pattentions with the tokens that top-k leaves out, 0 without it."""
    if getattr(config, "ffn_top_k", None) is None:
        return 0
    layers = config.n_layers * config.ffn_blocks
    return 2 * layers * (config.ffn_tokens - config.ffn_top_k) * config.d_model * context


def parameter_bytes(config, dtype=np.float32, training=False):
    """Bytes of the parameters; training adds the gradient and AdamW's two moments, four times as much."""
    return count_parameters(config) * np.dtype(dtype).itemsize * (4 if training else 1)


class FlopCounter:
    """Counts the FLOPs of the matrix products that really run on NumPy arrays.

    Wrap the arrays that go in; whatever is computed from them is counted.

    >>> counter = FlopCounter()
    >>> x = counter.wrap(np.ones((3, 4)))
    >>> _ = x @ np.ones((4, 5))
    >>> counter.flops  # 2 · 3 · 4 · 5
    120
    """

    def __init__(self):
        self.flops = 0
        self.shapes = []  # of the two factors of every product, in the order in which they ran

    def wrap(self, array):
        counted = array.view(_CountedArray)
        counted.counter = self
        return counted


class _CountedArray(np.ndarray):
    """An array that reports the products it takes part in, and hands its counter on to what comes out."""

    counter = None

    def __array_finalize__(self, source):
        self.counter = getattr(source, "counter", None)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        plain = [a.view(np.ndarray) if isinstance(a, _CountedArray) else a for a in inputs]
        if out is not None:
            kwargs["out"] = tuple(a.view(np.ndarray) if isinstance(a, _CountedArray) else a for a in out)
        result = getattr(ufunc, method)(*plain, **kwargs)
        counter = next(a.counter for a in (*inputs, *(out or ())) if isinstance(a, _CountedArray))
        if ufunc is np.matmul:
            counter.flops += 2 * result.size * inputs[0].shape[-1]
            counter.shapes.append((inputs[0].shape, inputs[1].shape))
        if out is not None:
            return out[0]
        return counter.wrap(result) if isinstance(result, np.ndarray) else result

    def __array_function__(self, function, types, args, kwargs):
        """np.where, np.concatenate and others would drop the subclass, and with it the count."""
        result = super().__array_function__(function, types, args, kwargs)
        return self.counter.wrap(result) if isinstance(result, np.ndarray) else result
