"""A large model that remembers what a small one remembers: does a cloud need the text, or will a KV cache do?

A cloud that is asked at some positions only has no keys and values for the others, unless it computes them, which
is most of the work that it was to be spared. A prefix of the same tokens has keys and values of the same width.
"""

from ..attention import causal_attention_forward
from ..backend import array_module
from ..model import block_forward, ffn_forward, layer_forward
from ..ops import check_like, embedding_forward, layer_norm_forward, linear_forward


def forward_on_memory(params, config, small, small_config, ids, asked):
    """Logits (B, T, V) of the whole model where `asked`; where it is not, its keys and values are the small model's.

    small: params of the same width, a prefix or another model. asked: bool, (B, T) as ids. Logits where nobody asks
    mean nothing. Asked everywhere, it is `forward`.
    """
    xp = array_module(ids=ids, asked=asked)
    check_like("asked", asked, ids.shape, "bool")
    x, _ = embedding_forward(ids, params["embedding"]["weight"])
    y, _ = embedding_forward(ids, small["embedding"]["weight"])
    x, y = x.reshape(-1, config.d_model), y.reshape(-1, config.d_model)
    chosen = asked.reshape(-1, 1)
    for i in range(config.n_layers):
        block, its_block = params[f"block_{i}"], small[f"block_{i}"]
        h, _ = layer_norm_forward(x, **block.get("attention_norm", {}), eps=config.norm_eps)
        its_h, _ = layer_norm_forward(y, **its_block.get("attention_norm", {}), eps=config.norm_eps)
        heads = [layer_forward(h, block["attention"]["query"], config, "attention")[0]]
        for name in ("key", "value"):
            own, _ = layer_forward(h, block["attention"][name], config, "attention")
            its, _ = layer_forward(its_h, its_block["attention"][name], small_config, "attention")
            heads.append(xp.where(chosen, own, its))
        query, key, value = (a.reshape(*ids.shape, config.d_model) for a in heads)
        h, _ = causal_attention_forward(query, key, value, config.n_heads, config.rotary_fraction)
        h, _ = layer_forward(h.reshape(x.shape), block["attention"]["proj"], config, "proj")
        x = x + h
        h, _ = layer_norm_forward(x, **block.get("ffn_norm", {}), eps=config.norm_eps)
        h, _ = ffn_forward(h, block["ffn"], config)
        x = x + h
        y, _ = block_forward(y, its_block, small_config, ids.shape)
    x, _ = layer_norm_forward(x, **params["norm"], eps=config.norm_eps)
    logits, _ = linear_forward(x, params["embedding" if config.tied else "unembedding"]["weight"])
    return logits.reshape(*ids.shape, config.vocab_size)
