"""The same models in torch, written from the equations and differentiated by autograd: the judge of `minitf`.

Nothing here calls minitf's own arithmetic. The only module that imports torch, and nothing else imports it.
"""

import math

import torch
import torch.nn.functional as F

from .attention import rotary_channels
from .backend import to_host, tree_map


def to_torch(tree, requires_grad=True, device="cpu"):
    """The tree with a torch tensor, a leaf of autograd, in place of each array."""
    return tree_map(
        lambda array: torch.tensor(to_host(array), requires_grad=requires_grad, device=device), tree
    )


def to_numpy(tree):
    """The tree with NumPy arrays in place of tensors."""
    return tree_map(lambda tensor: tensor.detach().numpy(), tree)


def theta(scores, kind="l2_norm_gelu", tau=None, approximate="none"):
    """Θ over the last axis; formulas as in `pattention.theta_forward`, without the rule for zero rows."""
    tau = math.sqrt(scores.shape[-1]) if tau is None else tau

    def gelu(a):
        return F.gelu(a, approximate=approximate)

    def norm(a, order):
        return torch.linalg.vector_norm(a, order, dim=-1, keepdim=True)

    if kind == "l2_norm_gelu":
        return gelu(scores / norm(scores, 2) * tau)
    if kind == "gelu_l2_norm":
        return gelu(scores) / norm(gelu(scores), 2) * tau
    if kind == "l1_norm_gelu":
        return gelu(scores / norm(scores, 1) * tau**2)
    if kind == "softmax":
        return torch.softmax(scores, dim=-1) * tau**2
    if kind == "gelu":
        return gelu(scores)
    raise ValueError(f"theta {kind!r} is unknown")


def pattention(x, key, value, kind="l2_norm_gelu", tau=None, scale=1.0, mask=None, approximate="none"):
    """Θ(scale x Kᵀ) V  (paper, eq. 4)."""
    scores = x @ key.T * scale
    if mask is not None:
        scores = scores * mask
    return theta(scores, kind, tau, approximate) @ value


def top_k_pattention(x, key, value, k, kind="l2_norm_gelu", tau=None, approximate="none", group=1):
    """Pattention of every row with the tokens of its k / group best groups of neighbors, one row at a time."""

    def one(row):
        scores = key @ row
        groups = scores.unflatten(0, (-1, group)).amax(dim=-1).topk(k // group).indices
        own = (groups[:, None] * group + torch.arange(group, device=x.device)).flatten()
        return theta(scores[own], kind, tau, approximate) @ value[own]

    return torch.stack([one(row) for row in x.flatten(0, -2)]).unflatten(0, x.shape[:-1])


def rotary(x, fraction=0.25, offset=0, base=10000.0):
    """GPT-NeoX rotary embedding in its textbook form: x cos + rotate_half(x) sin on the first r channels."""
    r = rotary_channels(x.shape[-1], fraction)
    turned, rest = x[..., :r], x[..., r:]
    frequency = 1.0 / base ** (torch.arange(0, r, 2, dtype=x.dtype, device=x.device) / max(r, 1))
    angle = torch.outer(torch.arange(offset, offset + x.shape[-2], dtype=x.dtype, device=x.device), frequency)
    angle = torch.cat([angle, angle], dim=-1)
    half_turned = torch.cat([-turned[..., r // 2 :], turned[..., : r // 2]], dim=-1)
    return torch.cat([turned * angle.cos() + half_turned * angle.sin(), rest], dim=-1)


def causal_attention(query, key, value, n_heads=1, rotary_fraction=0.0):
    """Multi-head causal attention through torch's scaled_dot_product_attention."""

    def split(x):
        return x.unflatten(-1, (n_heads, -1)).transpose(-2, -3)

    query, key = (rotary(split(x), rotary_fraction) for x in (query, key))
    heads = F.scaled_dot_product_attention(query, key, split(value), is_causal=True)
    return heads.transpose(-2, -3).flatten(-2)


def full_attention(query, key, value, n_heads=1):
    """Multi-head attention without a mask and without positions."""

    def split(x):
        return x.unflatten(-1, (n_heads, -1)).transpose(-2, -3)

    heads = F.scaled_dot_product_attention(split(query), split(key), split(value))
    return heads.transpose(-2, -3).flatten(-2)


def patch_embedding(images, weight, position):
    """A convolution whose stride is its width, plus a vector for every place."""
    size = math.isqrt(weight.shape[1])
    pixels = images.reshape(-1, 1, *images.shape[-2:])
    patches = F.conv2d(pixels, weight.reshape(-1, 1, size, size), stride=size)  # (B, d, H / size, W / size)
    out = patches.flatten(2).transpose(1, 2) + position
    return out.reshape(*images.shape[:-2], *position.shape)


def forward(params, ids, config):
    """Logits (..., T, vocab_size) of a torch tree for ids (..., T)."""

    def attend(query, key, value):
        return causal_attention(query, key, value, config.n_heads, config.rotary_fraction)

    x = blocks(params, F.embedding(ids, params["embedding"]["weight"]), config, attend)
    return F.linear(x, params["embedding" if config.tied else "unembedding"]["weight"])


def image_forward(params, images, config):
    """Logits (..., vocab_size) of a torch tree for images (..., H, W)."""

    def attend(query, key, value):
        return full_attention(query, key, value, config.n_heads)

    x = blocks(params["body"], patch_embedding(images, **params["patch_embedding"]), config, attend)
    return F.linear(x.mean(dim=-2), params["body"]["embedding"]["weight"])


def blocks(params, x, config, attend):
    """All blocks and the last norm: x (..., T, d) -> (..., T, d)."""

    def layer(x, leaf, part):
        if "weight" in leaf:
            return F.linear(x, leaf["weight"])
        tau = config.tau(part)
        if part == "ffn" and config.ffn_top_k is not None:
            k, group = config.ffn_top_k, config.ffn_group
            return top_k_pattention(
                x, leaf["key"], leaf["value"], k, config.theta, tau, config.approximate, group
            )
        return pattention(x, leaf["key"], leaf["value"], config.theta, tau, approximate=config.approximate)

    def norm(x, leaf):
        return F.layer_norm(x, x.shape[-1:], leaf.get("weight"), leaf.get("bias"), config.norm_eps)

    def ffn(x, leaf):
        if "up" in leaf:
            hidden = F.gelu(layer(x, leaf["up"], "ffn"), approximate=config.approximate)
            return layer(hidden, leaf["down"], "ffn")
        if "first" in leaf:
            return layer(layer(x, leaf["first"], "ffn"), leaf["second"], "ffn")
        return layer(x, leaf, "ffn")

    for i in range(config.n_layers):
        block = params[f"block_{i}"]
        attention = block["attention"]
        h = norm(x, block.get("attention_norm", {}))
        q, k, v = (layer(h, attention[name], "attention") for name in ("query", "key", "value"))
        x = x + layer(attend(q, k, v), attention["proj"], "proj")
        x = x + ffn(norm(x, block.get("ffn_norm", {})), block["ffn"])
    return norm(x, params["norm"])


def loss(params, ids, targets, config, mask=None):
    """Mean cross-entropy over the unmasked tokens, in nats, as a torch scalar."""
    losses = F.cross_entropy(forward(params, ids, config).flatten(0, -2), targets.flatten(), reduction="none")
    return losses.mean() if mask is None else losses[mask.flatten()].mean()


def loss_and_grads(params, ids, targets, config, mask=None):
    """As `model.loss_and_grads`: NumPy in, NumPy out, autograd inside."""
    tensors = to_torch(params)
    ids, targets = torch.tensor(ids, dtype=torch.long), torch.tensor(targets, dtype=torch.long)
    value = loss(tensors, ids, targets, config, None if mask is None else torch.tensor(mask))
    value.backward()
    return value.item(), tree_map(lambda tensor: tensor.grad.numpy(), tensors)
