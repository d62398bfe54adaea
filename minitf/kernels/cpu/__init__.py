"""Fused twins of the hot formulas for NumPy: the same results, in blocks of rows that stay in the cache.

Read the formulas first (`ops.py`, `pattention.py`, `attention.py`, `optim.py`); here stands only what makes them
fast. A twin has its formula's signature and returns its own cache type, which names the backward to call. It
returns NotImplemented where it has nothing to offer (other dtypes, subclasses of ndarray, arguments that the
formula will complain about); then the formula runs.

Every pass over a block costs 0.08 to 0.2 ns per float32 on one core, so passes are what is saved: constants are
folded into row factors, results overwrite their inputs (`out=`), row sums are dot products (`np.vecdot`, BLAS),
erf is a tanh of a polynomial, and the derivative is taken in the forward pass, while the block is in the cache.
Where numba is installed, `loops.py` does a block of float32 in one call.
"""

from .attention import AttentionCache, causal_attention_backward, causal_attention_forward
from .cross_entropy import CrossEntropyCache, cross_entropy_backward, cross_entropy_forward
from .embedding import EmbeddingCache, embedding_backward, embedding_forward
from .gelu import GeluCache, gelu_backward, gelu_forward
from .layer_norm import LayerNormCache, layer_norm_backward, layer_norm_forward
from .linear import LinearCache, linear_backward, linear_forward
from .optimizer import adamw_step, clip_by_global_norm
from .pattention import (
    CompiledCache,
    PattentionCache,
    compiled_backward,
    pattention_backward,
    pattention_forward,
)
from .theta import ThetaCache, theta_backward, theta_forward

FORWARD = {
    function.__name__: function
    for function in (
        theta_forward,
        pattention_forward,
        gelu_forward,
        linear_forward,
        layer_norm_forward,
        embedding_forward,
        cross_entropy_forward,
        causal_attention_forward,
        adamw_step,
        clip_by_global_norm,
    )
}

BACKWARD = {
    ("theta_backward", ThetaCache): theta_backward,
    ("pattention_backward", PattentionCache): pattention_backward,
    ("pattention_backward", CompiledCache): compiled_backward,
    ("gelu_backward", GeluCache): gelu_backward,
    ("linear_backward", LinearCache): linear_backward,
    ("layer_norm_backward", LayerNormCache): layer_norm_backward,
    ("embedding_backward", EmbeddingCache): embedding_backward,
    ("cross_entropy_backward", CrossEntropyCache): cross_entropy_backward,
    ("causal_attention_backward", AttentionCache): causal_attention_backward,
}
