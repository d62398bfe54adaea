# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Look inside parameter tokens
#
# A weight matrix cannot be asked what its third column is for. A parameter token can: it has a key, which says when it
# speaks, and a value, which says what. You ask the 288 tokens of one layer of the model of lesson 00, silence each of them
# once, grow the model live, and see what the newcomers do.
#
# **You will be able to**
# - read off what a parameter token responds to, and what it then says
# - silence a token in four ways, and say which of them answers your question
# - predict all knock-outs of a model from one backward pass
# - answer two readers: what is a Pattention beyond an FFN (issue #13)? Can tokens be dropped (issue #20)?
#
# **You need**
# - lessons 02 (Pattention), 04 (its backward) and 06 (growing)
#
# **Minutes** 40 to read, 1 to run
#
# **Equations covered** 4 of [arXiv 2410.23168](https://arxiv.org/abs/2410.23168), and the idea of its appendix G.2

# %%
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase

import matplotlib.pyplot as plt
import numpy as np

import minitf
from minitf.checkpoint import load_training
from minitf.checks import check
from minitf.data import CharTokenizer, heldout_batches, load_shakespeare
from minitf.model import block_forward
from minitf.plot import MARKERS, PALETTE, show, style
from minitf.train import progress

style()
np.set_printoptions(precision=3, suppress=True)

# %% [markdown]
# ## 1. By hand: an output is a sum of contributions
#
# Two text tokens, three parameter tokens. $\Theta$ has already made these weights $w_{ti}$:
#
# | | token 0 | token 1 | token 2 |
# |---|---|---|---|
# | text token 0 | 2 | 0 | 1 |
# | text token 1 | 0 | 1 | 1 |
#
# **Derive.** A row of $\Theta(XK^\top)\,V$ is a sum with one term for each parameter token: $\text{out}_t = \sum_i w_{ti} v_i$.
# So token $i$ *contributes* $w_{ti} v_i$ to text token $t$, and without it the output is $\text{out}_t - w_{ti} v_i$.
#
# **Predict**: the values are $(1, 0)$, $(0, 3)$ and $(-1, 0)$. What comes out, and what if token 0 is silent?

# %%
weights = np.array([[2.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
value = np.array([[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])

out = weights @ value
looped = sum(np.outer(weights[:, i], value[i]) for i in range(3))  # one token at a time
print("all three      ", *out, " same as the loop:", (looped == out).all())
print("token 0 silent ", *(out - np.outer(weights[:, 0], value[0])))

# %% [markdown]
# Text token 1 does not notice: it gave token 0 no weight. Whether a token matters depends on the text.
#
# ## 2. The patient
#
# **Code.** We look at the feed-forward Pattention of the last block, while the model reads 2,048 characters of the four held-out
# plays. In float64, so that every machine finds the same.

# %%
saved = load_training(Path("../figures/shakespeare_model.safetensors"))
config, tokenizer = saved.config, CharTokenizer.from_json(saved.extra["tokenizer"])
params = minitf.tree_map(lambda array: array.astype(np.float64), saved.params)

heldout = tokenizer.encode(load_shakespeare("heldout"))
((ids, targets),) = heldout_batches(heldout, 16, config.context, limit=16)  # 16 windows
LAST = f"block_{config.n_layers - 1}"


# %%
def last_layer(params, config):
    """The stream before the final norm, (B T, d), and the cache of the last Pattention."""
    x = params["embedding"]["weight"][ids].reshape(-1, config.d_model)  # (B, T) -> (B T, d)
    for i in range(config.n_layers):
        x, block = block_forward(x, params[f"block_{i}"], config, ids.shape)
    return x, block.ffn


def loss_of(x, params):
    """Nats per character, of a stream before the final norm."""
    h, _ = minitf.layer_norm_forward(x, **params["norm"])
    logits = h @ params["embedding"]["weight"].T  # (B T, d) -> (B T, 65)
    return float(minitf.cross_entropy_forward(logits, targets.ravel())[0])


stream, layer = last_layer(params, config)
weights, value = layer.weights, layer.value  # (B T, n), (n, d)
whole = loss_of(stream, params)
print(f"weights {weights.shape}, values {value.shape}, loss {whole:.3f} nats per character")

# %% [markdown]
# ## 3. Which tokens fire?
#
# Before GeLU a row of scores has the rms 1 (lesson 03). We say that a token **fires** at a text token if its weight is above 1.
#
# > **Exercise 09.1: `firing_rate`** · difficulty ●○○○○ · importance ●●●○○ · 5 minutes; open the solution after 10
# >
# > Return, for every parameter token, the share of all text tokens at which its weight is above the threshold. Any axes may stand before the last.


# %%
def firing_rate(weights, threshold=1.0):
    """weights (..., n) -> (n,)."""
    ...


# %%
firing_rate = check("firing_rate", firing_rate)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `weights > threshold` is an array of True and False. The mean of such an array is a share.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# (..., n) → compare → (..., n) → `reshape(-1, n)` → (text tokens, n) → mean over the text tokens → (n,).
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def firing_rate(weights, threshold=1.0):
#     fires = weights > threshold
#     return fires.reshape(-1, weights.shape[-1]).mean(axis=0)
# ```
#
# </details>
#
# **Predict**: is every token used about equally, or do a few do all the work?

# %%
rate = firing_rate(weights)
print("rate of the busiest, the median and the rarest token:", end=" ")
print(f"{rate.max():.3f} {np.median(rate):.3f} {rate.min():.3f}")
print(f"tokens that never fire: {(rate == 0).sum()} of {len(rate)}")
print(f"at a typical character {np.median((weights > 1).sum(axis=1)):.0f} of them fire")

# %% [markdown]
# ## 4. What does a key wait for, and what does its value say?
#
# The key of a token decides where it fires: list the four characters at which its weight is largest, with what the model had
# just read. The value is added to the stream, and the stream is compared with the embedding of every character to make logits. So
# $(v_i \odot g)\,E^\top$, with $g$ the gain of the final norm, says which characters the token makes likelier.

# %%
TOKENS = (13, 75, 145, 213)  # change me: 0 to 287
promotes = (value * params["norm"]["weight"]) @ params["embedding"]["weight"].T  # (n, 65)
read = [tokenizer.decode(row) for row in ids]  # 16 strings


# %%
def portrait(i):
    places = np.argsort(-weights[:, i])[:4]
    before = [read[t // config.context][: t % config.context + 1][-7:] for t in places]
    likelier = [tokenizer.decode([c]) for c in np.argsort(-promotes[i])[:5]]
    print(f"token {i:3} fires after {before}\n          makes likelier {likelier}")


for i in TOKENS:
    portrait(i)

# %% [markdown]
# **See.** Token 13 waits for the line after a speaker's name, and asks for a capital. Token 75 waits for a consonant at the start of a
# word, and asks for a vowel. Token 145 wants a new line after a colon or semicolon. Token 213 sits in names and stage directions.
#
# **Is that the rule, or four lucky finds?** **Predict**: take the five characters that a token promotes most. How often is the next
# character one of them where the token fires, compared with everywhere?

# %%
favorites = np.argsort(-promotes, axis=1)[:, :5]  # (n, 5)
hit = (targets.ravel()[:, None, None] == favorites).any(axis=-1)  # (B T, n)
fires = weights > 1
often = fires.sum(axis=0) >= 20  # a share of fewer would be noise
here = (hit & fires).sum(axis=0)[often] / fires.sum(axis=0)[often]
anywhere = hit.mean(axis=0)[often]
print(
    f"{often.sum()} tokens: {anywhere.mean():.0%} of all next characters are their favorites,"
)
print(
    f"{here.mean():.0%} where they fire; more there for {(here > anywhere).mean():.0%} of them"
)

# %% [markdown]
# **Explain.** A Pattention is a memory: the key is a pattern, the value a proposal for the next character. Geva et al. (2021) found
# the same in the feed-forward layers of Transformers, and that is the honest half of the answer to **issue #13** (what is the
# difference between Pattention and an FFN?): inside the layer there is little. What differs is the norm in $\Theta$ (lesson
# 03), that queries, keys and values of attention are made of such tokens too, and that the rows may grow.
#
# Which text a token is for, in one table:

# %%
KINDS = {"space": " ", "line end": "\n", "capital": ascii_uppercase, "vowel": "aeiou"}
text = np.array(list("".join(read)))
print("last read  all text" + "".join(f"{f'token {i}':>11}" for i in TOKENS))
for kind, characters in KINDS.items():
    mask = np.isin(text, list(characters))
    shares = [mask[fires[:, i]].mean() for i in TOKENS]
    print(f"{kind:10} {mask.mean():8.0%}" + "".join(f"{share:11.0%}" for share in shares))

# %% [markdown]
# **See.** Token 213 lives among capitals. Token 13 is loudest after names, but fires mostly after spaces: four places are
# not a portrait.
#
# ## 5. Knock-out: four ways to silence a token
#
# To fire is not to matter. So take a token out and look at the loss. But how?
#
# 1. **Value zero**: it gets its weight and says nothing. All others speak as before.
# 2. **Key zero**: it scores 0, so its weight is $\text{GeLU}(0) = 0$. But its score is missing in the norm, so all others get *louder*.
# 3. **Row deleted, $\tau$ held.**
# 4. **Row deleted, $\tau = \sqrt{n - 1}$.**
#
# **Predict** which two are the same (lesson 06 knows), and which is the gentlest.


# %%
def without(i, surgery):
    """The loss of the model after one of the four."""
    key, value, tau = layer.key.copy(), layer.value.copy(), config.tau("ffn")
    if surgery == "value zero":
        value[i] = 0
    elif surgery == "key zero":
        key[i] = 0
    else:
        key, value = np.delete(key, i, axis=0), np.delete(value, i, axis=0)
        tau = tau if surgery == "deleted, tau held" else None  # None: sqrt(n - 1)
    out, _ = minitf.pattention_forward(layer.x, key, value, tau=tau)
    return loss_of(stream - layer.weights @ layer.value + out, params)


# %%
print(
    f"{'thousandths of a nat':22}" + "".join(f"{f'token {i}':>11}" for i in (110, *TOKENS))
)
for surgery in ("value zero", "key zero", "deleted, tau held", "deleted, tau rescaled"):
    rises = [1000 * (without(i, surgery) - whole) for i in (110, *TOKENS)]
    print(f"{surgery:22}" + "".join(f"{rise:11.3f}" for rise in rises))

# %% [markdown]
# **Explain.** Key zero is deleting with $\tau$ held: the theorem of growth, read backwards. Value zero is the gentlest
# here, and it changes one thing only. That is the clean experiment, and here it is also cheap: the last layer's
# output loses $w_{ti} v_i$, and nothing before it moves. So silence all 288:


# %%
def knock_outs(stream, layer, params):
    """The rise of the loss without each token of the last layer, in nats per character: (n,)."""
    whole = loss_of(stream, params)
    pairs = zip(layer.weights.T, layer.value, strict=True)
    pairs = progress(pairs, "knock-outs", total=len(layer.value))
    return np.array([loss_of(stream - np.outer(w, v), params) - whole for w, v in pairs])


effect = knock_outs(stream, layer, params)
print(
    f"most missed: token {effect.argmax()}, {1000 * effect.max():.2f} thousandths of a nat"
)
print(f"better off without: {(effect < 0).sum()} of {len(effect)} tokens")

# %% [markdown]
# **Explain.** No token is vital: the knowledge is spread over hundreds. And a third of the tokens *hurt*, on this text. That is no
# surprise: they were trained on other plays, and 2,048 characters are a small sample.
#
# ## 6. All knock-outs from one backward pass
#
# 288 forward passes for one layer. The model has 15 layers. Can we *predict* a knock-out?
#
# **Derive.** Silencing token $i$ moves the layer's output at every text token $t$ by $-w_{ti} v_i$. A small move $\delta_t$ changes the loss by
# $\sum_t \delta_t \cdot d\text{out}_t$, where $d\text{out}_t = \partial L / \partial\,\text{out}_t$ is what the backward pass hands to the layer. So
#
# $$\text{importance}_i = -\sum_t w_{ti}\,(v_i \cdot d\text{out}_t) \approx L(\text{without } i) - L.$$
#
# > **Exercise 09.2: `token_importance`** · difficulty ●●●○○ · importance ●●●●● · 10 minutes; open the solution after 15
# >
# > Return the predicted rise of the loss without each token.


# %%
def token_importance(weights, value, dout):
    """weights (..., n), value (n, d), dout (..., d) -> (n,)."""
    ...


# %%
token_importance = check("token_importance", token_importance)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# First the number $v_i \cdot d\text{out}_t$ for every $t$ and $i$: that is one matrix product.
#
# </details>
#
# <details><summary>Hint 2: the shapes</summary>
#
# `dout` (..., d) times `value.T` (d, n) → (..., n); times `weights`, entry by entry → (..., n); `reshape(-1, n)`; sum over the text
# tokens → (n,). And the sign.
#
# </details>
#
# <details><summary>Hint 3: the solution</summary>
#
# ```python
# def token_importance(weights, value, dout):
#     along = dout @ value.T  # (..., d) -> (..., n)
#     return -(weights * along).reshape(-1, len(value)).sum(axis=0)
# ```
#
# </details>
#
# **Predict**: which of these foresees the knock-outs best? The firing rate; the size of the contributions, mean
# $\lvert w_{ti}\rvert$ times $\lvert v_i\rvert$; or your importance?

# %%
logits, cache = minitf.forward(params, ids, config)
_, loss_cache = minitf.cross_entropy_forward(logits, targets)
grads = minitf.backward(minitf.cross_entropy_backward(1.0, loss_cache), cache)


def gradient_of_stream():
    """dL/dx before the final norm. A residual stream hands it on to the last layer unchanged."""
    h, norm = minitf.layer_norm_forward(stream, **params["norm"])
    embedding = params["embedding"]["weight"]
    _, loss_cache = minitf.cross_entropy_forward(h @ embedding.T, targets.ravel())
    dh = minitf.cross_entropy_backward(1.0, loss_cache) @ embedding
    return minitf.layer_norm_backward(dh, norm)[0]


importance = token_importance(weights, value, gradient_of_stream())

# %%
size = np.abs(weights).mean(axis=0) * np.linalg.norm(value, axis=1)
missed = set(np.argsort(-effect)[:20])
for name, guess in {"firing rate": rate, "size": size, "importance": importance}.items():
    correlation = np.corrcoef(guess, effect)[0, 1]
    found = len(missed & set(np.argsort(-guess)[:20]))
    print(f"{name:11} correlation {correlation:.2f}, found {found:2} of the 20 most missed")
gap = 1000 * (effect - importance).mean()
print(f"mean of effect - importance: {gap:.2f} thousandths of a nat")

# %% [markdown]
# **Explain.** How often and how loudly a token speaks says little; whether what it says *helps* says nearly all. The prediction is a tangent,
# and the loss bends upwards: it comes out a little too low.
#
# It gets better. $\sum_t w_{ti}\,d\text{out}_t$ is the gradient of $v_i$ (lesson 04: $dV = W^\top d\text{out}$). So
#
# $$\text{importance}_i = -\,v_i \cdot dv_i,$$
#
# and one backward pass, the same that training runs, has the importance of every parameter token of the whole model. **Check** it against yours:


# %%
def all_importances(params, grads):
    """{name of the layer: importance of its tokens}."""
    gradient = dict(minitf.tree_items(grads))
    values = {name: v for name, v in minitf.tree_items(params) if name.endswith(".value")}
    return {name[:-6]: -(v * gradient[name]).sum(axis=1) for name, v in values.items()}


# %%
everything = all_importances(params, grads)
print("same as above:", np.allclose(everything[f"{LAST}.ffn"], importance))
print("spread of importance in thousandths of a nat")
for part in (*(f"attention.{name}" for name in ("query", "key", "value", "proj")), "ffn"):
    spreads = [1000 * everything[f"block_{i}.{part}"].std() for i in range(config.n_layers)]
    print(f"{part:16}" + "".join(f"  block {i} {s:.2f}" for i, s in enumerate(spreads)))

# %% [markdown]
# **See.** Early layers carry more than late ones, and single tokens of `proj` and `value` more than those of `query` and `key`: what is looked *for*
# matters less than what is found.
#
# ### Issue #20: can a model shrink by dropping tokens?
#
# Delete the least important feed-forward tokens in all three blocks, $\tau$ held. **Predict** how much of the layer is superfluous.


# %%
def shrink(share, score, ids, targets):
    """The loss after keeping this share of every feed-forward layer, the tokens with the best score."""
    tokens = round(share * config.ffn_tokens)
    kept = {}
    for name, importance in everything.items():
        if name.endswith("ffn"):
            rows = np.argsort(-score(importance))[:tokens]
            kept |= {f"{name}.key": rows, f"{name}.value": rows}
    items = minitf.tree_items(params)
    items = ((name, array[kept[name]] if name in kept else array) for name, array in items)
    small = replace(config, ffn_tokens=tokens, ffn_tau=config.tau("ffn"))
    logits, _ = minitf.forward(minitf.tree_from_items(items), ids, small)
    return minitf.cross_entropy_forward(logits, targets)[0]


# %%
scenes = tokenizer.encode(load_shakespeare("scenes"))
(other,) = heldout_batches(scenes, 16, config.context, limit=16)
rng = np.random.default_rng(0)
rules = {
    "importance": np.copy,
    "|importance|": np.abs,
    "chance": lambda a: rng.random(len(a)),
}
print("kept" + "".join(f"{rule:>14} other" for rule in rules))
for share in (1.0, 0.9, 0.75, 0.5):
    line = f"{share:4.0%}"
    for rule in rules.values():
        same, others = shrink(share, rule, ids, targets), shrink(share, rule, *other)
        line += f"{same:14.2f}{others:6.2f}"
    print(line)

# %% [markdown]
# **Explain.** Left in each pair: the loss on the text that made the choice. Right: on other text, scenes of plays that the model knows. By importance the first *falls*: the score found the tokens that hurt these very
# lines. They are busy tokens, and elsewhere they are missed: there the choice is worse than chance. Never judge a choice on the text that made it. Taking what matters least *either way* does better, at half the size.
# But nothing is superfluous: a tenth of the tokens costs 0.07 nats. A model that is to shrink has to be trained for it, for instance by dropping tokens during training, as the reader proposes.
#
# ## 7. Old and new tokens after a growth
#
# Grow the feed-forward layers from 288 to 576 tokens in two ways, and train each for 80 steps. **Zero keys**: random values, $\tau$ held at birth and then moved to
# $\sqrt n$ (lesson 06). **Random keys**, as long as the old ones: zero values, $\tau$ rescaled at once, which cancels against the longer rows. **Predict** which newcomers fire more, and which are
# missed more. **Break it**: give the first kind zero values too; lesson 05 says what becomes of them.

# %%
STEPS, std = 80, params[LAST]["ffn"]["key"].std()
BIRTHS = {
    "zero keys": dict(key="zero", value="normal", tau="hold"),
    "random keys": dict(key="normal", value="zero", tau="rescale", key_std=std),
}
train_ids = tokenizer.encode(load_shakespeare("train"))


def grow_and_train(birth):
    """Firing rate and knock-out effect of the last layer's 576 tokens."""
    grown, grown_config = minitf.grow(saved.params, config, ffn_tokens=576, **birth)
    anneal = 0.3 if birth["tau"] == "hold" else 0.0
    settings = minitf.TrainConfig(STEPS, batch_size=8, peak_lr=2e-3, anneal_share=anneal)
    result = minitf.train_model(grown, grown_config, train_ids, settings)
    trained = minitf.tree_map(lambda array: array.astype(np.float64), result.params)
    stream, layer = last_layer(trained, result.config)
    return firing_rate(layer.weights), knock_outs(stream, layer, trained)


atlas = {name: grow_and_train(birth) for name, birth in BIRTHS.items()}

# %% tags=["nbval-ignore-output"]
is_new = np.arange(2 * config.ffn_tokens) >= config.ffn_tokens
print("                    median rate   never fire   mean |effect|, thousandths of a nat")
for name, (rates, effects) in atlas.items():
    for age, mask in (("old", ~is_new), ("new", is_new)):
        never, mean = (rates[mask] == 0).sum(), 1000 * np.abs(effects[mask]).mean()
        print(f"{name:12} {age}   {np.median(rates[mask]):11.3f} {never:12} {mean:15.3f}")

# %% [markdown]
# Training moves the last digits from machine to machine. What must hold everywhere:

# %%
rates, effects = atlas["zero keys"]
assert (rates[is_new] == 0).mean() > 0.9
print("zero keys: nine of ten newcomers never fired")
rates, effects = atlas["random keys"]
assert np.median(rates[is_new]) > 0.2 * np.median(rates[~is_new])
assert np.abs(effects[is_new]).mean() < 0.2 * np.abs(effects[~is_new]).mean()
print("random keys: they fire, and one is missed less than a fifth as much as an old one")

# %% [markdown]
# **Explain.** After 80 steps both kinds are nearly useless, for opposite reasons. With zero keys nobody asks them: a score of 0 has to grow first. With random keys they are asked like anyone, and have nothing to say yet: a
# value starts at 0, and AdamW moves a number by hardly more than the learning rate in a step.
#
# ## 8. The token atlas
#
# Every token of the last layer of the second model: how often it fires, and what the loss does without it. **Predict** where the newcomers lie.

# %%
fig, ax = plt.subplots(figsize=(7, 4.4))
for age, mask, look in (("old", ~is_new, 1), ("new", is_new, 2)):
    ax.plot(
        rates[mask], 1000 * effects[mask], linestyle="none", marker=MARKERS[look],
        color=PALETTE[look], alpha=0.7, label=f"{age} tokens",
    )  # fmt: skip
ax.axhline(0, color="gray", linewidth=1)
ax.set_xscale("symlog", linthresh=0.001)
ax.set(xlim=(-0.0002, 0.5), xlabel="firing rate: share of characters with a weight above 1")
ax.set_ylabel("knock-out effect (thousandths of a nat)")
ax.legend()
loud = [int((np.abs(effects[mask]) > 0.5e-3).sum()) for mask in (~is_new, is_new)]
show(
    fig,
    alt="Scatter plot of 576 parameter tokens, firing rate against knock-out effect. Old tokens, blue squares, scatter widely around "
    "a small positive effect. New tokens, orange triangles, fire about as often and lie on the line of no effect.",
    digest=f"288 old and 288 new tokens; effect above half a thousandth: old more than 50 {loud[0] > 50}, new {loud[1]}",
)

# %% [markdown]
# **Explain.** The old tokens fan out: the busy ones are missed more on average, and a third lies below the line. The newcomers fire at all rates and lie on the line. A stage of growth has done its work when one can no
# longer tell the two apart; lesson 06 asks what gets there soonest.
#
# **What this does not show.** One model, one layer, one seed, 80 steps, 2,048 characters. Two tokens that do the same job hide each other: silence one, and the other covers for it. And a story
# about a token that fits its four loudest places may not fit the hundredth.
#
# > **Paper, release, here**
# >
# > | | paper | release | here |
# > |---|---|---|---|
# > | looking inside | score maps of tokens against parameter tokens (appendix G.2); interpretability as future work (section 5) | nothing | firing, values, knock-outs |
# > | removing a token | | `attn_mask`: score times 0, $\tau$ unchanged; nothing calls it | value zero; the same mask in `pattention_forward` |
# > | old tokens after growing | trained along | trained along (issue #15) | trained along |
# > | shrinking | | asked in issue #20 | measured above |
#
# ## Summary
#
# - An output is a sum of contributions $w_{ti} v_i$, so a single token can be read and silenced.
# - The key says when, the value what: where a token fires, its favorite characters come next twice as often as elsewhere.
# - Value zero is the clean knock-out. Deleting a row makes all others louder.
# - $-v_i \cdot dv_i$ predicts every knock-out from one backward pass. Firing often is not mattering.
# - Score tokens on one text and judge on another. Newcomers fire long before they matter.
#
# ## Quiz
#
# 1. A token fires at every second character, and its knock-out does not change the loss. How can that be?
#
# <details><summary>Answer</summary>
#
# Its value may be short, may point where the final norm and the embedding do not look, or helps as often as it hurts. Or another token says the same.
#
# </details>
#
# 2. Why are the importances of all tokens of a fully trained model near zero in sum, on its training text?
#
# <details><summary>Answer</summary>
#
# The sum over a layer is $-\sum_i v_i \cdot dv_i$: the slope of the loss when the whole value matrix is scaled up or down. At a minimum there is no such slope (weight decay leaves a little).
#
# </details>
#
# 3. You set a token's key to zero instead of its value. Which two things happen at once?
#
# <details><summary>Answer</summary>
#
# The token falls silent, since $\text{GeLU}(0) = 0$. And its score leaves the norm of the row, so that $\tau / \lvert a\rvert$ grows and all other tokens speak louder.
#
# </details>
#
# ## References
#
# - Wang et al., *TokenFormer*, ICLR 2025, arXiv 2410.23168: section 3.2, eq. 4; section 5; appendix G.2.
# - Geva et al., *Transformer Feed-Forward Layers Are Key-Value Memories*, EMNLP 2021: sections 3 and 4.
# - Molchanov et al., *Pruning Convolutional Neural Networks for Resource Efficient Inference*, ICLR 2017: section 2.2, the same first-order score.
# - Released code, github.com/Haiyang-W/TokenFormer: `Pattention` in `megatron/model/tokenformer.py`; issues #13, #15, #20.
#
# **Next**: lesson 10 leaves text: the same tokens see images.
