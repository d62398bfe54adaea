"""Merged models: what routing keeps, what sharing a norm does, captions, their gradients, and the experiment."""

import json
import math
from dataclasses import replace
from pathlib import Path

import fake_cupy
import helpers
import numpy as np
import pytest
import small_experiment

from minitf import checkpoint, cost, data, merge, model, pattention, vision
from minitf.backend import to_device, to_host, tree_items, tree_map
from minitf.train import TrainConfig, descend

FIGURES = Path(__file__).parents[1] / "figures"
both_ways = pytest.mark.parametrize("config", helpers.MERGED_CONFIGS.values(), ids=helpers.MERGED_CONFIGS)


def parents(dtype=np.float64, **changes):
    """A text model and a causal image classifier of the same sizes: params and config of each."""
    text = helpers.tokenformer(context=12, **changes)
    image = replace(text, vocab_size=4, context=6)
    return (
        *(helpers.random_params(text, 1, dtype), text),
        *(helpers.random_image_params(image, 2, dtype), image),
    )


def logits_of_parts(params, config, **options):
    """Of text alone and of pictures alone."""
    ids, _, _ = helpers.random_batch(config.text)
    images, _ = helpers.random_images(config.image)
    text, classifier = (part(params, config, **options) for part in (merge.text_part, merge.image_part))
    return (
        model.forward(text[0], ids, text[1])[0],
        vision.image_forward(classifier[0], images, classifier[1], causal=True)[0],
    )


def logits_of_parents(text, text_config, image, image_config):
    ids, _, _ = helpers.random_batch(text_config)
    images, _ = helpers.random_images(image_config)
    return (
        model.forward(text, ids, text_config)[0],
        vision.image_forward(image, images, image_config, causal=True)[0],
    )


def largest_change(before, after):
    return max(helpers.relative_error(b, a) for a, b in zip(before, after, strict=True))


# ------------------------------------------------------------------------------------- what is kept


@pytest.mark.parametrize("theta", [kind for kind in helpers.KINDS if kind != "softmax"])
@pytest.mark.parametrize("ffn_blocks", [1, 2])
def test_routed_parents_are_unchanged_at_birth(theta, ffn_blocks):
    pair = parents(theta=theta, ffn_blocks=ffn_blocks, attention_tau=1.7, ffn_tau=2.2)
    params, config = merge.merge_models(*pair, attention_tokens=3, ffn_tokens=4)
    assert config.body.tokens("attention") == config.body.tokens("proj") == 5 + 5 + 3
    assert config.body.tokens("ffn") == 7 + 7 + 4 and config.tokens("ffn", "new") == 4
    assert largest_change(logits_of_parents(*pair), logits_of_parts(params, config)) < 1e-13


def test_left_out_the_new_tokens_leave_the_parents_bit_for_bit_even_after_training():
    pair = parents()
    params, config = merge.merge_models(*pair, attention_tokens=3, ffn_tokens=4)
    rng = np.random.default_rng(0)
    trained = tree_map(lambda rows: rows + rng.standard_normal(rows.shape), merge.take_new(params, config))
    moved = merge.put_new(params, trained, config)
    assert largest_change(logits_of_parents(*pair), logits_of_parts(moved, config)) > 0.01
    for got, expected in zip(
        logits_of_parts(moved, config, new=False), logits_of_parents(*pair), strict=True
    ):
        assert np.array_equal(got, expected)
    text, _ = merge.text_part(moved, config, new=False)
    image, _ = merge.image_part(moved, config, new=False)
    assert helpers.fingerprint(text) == helpers.fingerprint(pair[0])
    assert dict(tree_items(image)).keys() == dict(tree_items(pair[2])).keys()
    assert helpers.tree_error(image, pair[2])[0] == 0


@pytest.mark.parametrize("tau", ["hold", "rescale"])
def test_a_shared_norm_keeps_neither_parent(tau):
    pair = parents()
    params, config = merge.merge_models(*pair, routed=False, tau=tau)
    for got, expected in zip(logits_of_parts(params, config), logits_of_parents(*pair), strict=True):
        assert helpers.relative_error(got, expected) > 0.05


def test_the_trap_by_formula_the_norm_scales_a_groups_scores_and_the_other_groups_values_come_on_top():
    rng = np.random.default_rng(0)
    x, one, two = rng.standard_normal((3, 4)), rng.standard_normal((2, 5, 4)), rng.standard_normal((2, 6, 4))
    tau = math.sqrt(11)
    together, _ = pattention.pattention_forward(
        x, *(np.concatenate(both) for both in zip(one, two, strict=True))
    )
    norms = [np.linalg.norm(x @ key.T, axis=1) for key in (one[0], two[0])]
    length = np.hypot(*norms)
    expected = []
    for (key, value), norm in zip((one, two), norms, strict=True):
        gains = tau * norm / length  # the tau that a group alone would have to have
        rows = [
            pattention.pattention_forward(x[i : i + 1], key, value, tau=g)[0] for i, g in enumerate(gains)
        ]
        expected.append(np.concatenate(rows))
    assert helpers.relative_error(together, expected[0] + expected[1]) < 1e-13
    # scores of equal root mean square leave each group its own tau: then the norm does no harm at all
    assert tau * math.sqrt(5) / math.hypot(math.sqrt(5), math.sqrt(6)) == pytest.approx(math.sqrt(5))


def test_routing_by_mask_is_a_model_of_fewer_tokens():
    """What a patch or a character reads in the merged model, against the tokens themselves cut out."""
    config = helpers.MERGED_CONFIGS["routed"]
    params = helpers.random_merged_params(config)
    images, inputs, *_ = helpers.random_captions(config)
    _, cache = merge.caption_forward(params, images, inputs, config)
    for part, layer in (("attention", cache.blocks[0].query), ("ffn", cache.blocks[0].ffn)):
        owners, weights = config.owners(part), layer.weights.reshape(2, 11, -1)
        assert np.all(weights[:, :6, owners == 0] == 0) and np.all(weights[:, 6:, owners == 1] == 0)
        assert np.all(np.abs(weights[:, :6, owners != 0]).sum(axis=-1) > 0)
    bias = merge.masks(config, 5, 2)["ffn"]
    assert bias.shape == (22, 17) and np.array_equal(bias[:11], bias[11:])


@both_ways
def test_pictures_see_no_characters(config):
    params = helpers.random_merged_params(config)
    images, inputs, *_ = helpers.random_captions(config)
    others = (inputs + 1) % config.body.vocab_size
    caches = [merge.caption_forward(params, images, ids, config)[1] for ids in (inputs, others)]
    keys = [cache.blocks[-1].attention.key for cache in caches]
    assert np.array_equal(keys[0][..., :6, :], keys[1][..., :6, :])
    assert not np.array_equal(keys[0][..., 6:, :], keys[1][..., 6:, :])
    logits = [merge.caption_forward(params, a, inputs, config)[0] for a in (images, 1 - images)]
    assert helpers.relative_error(*logits) > 0.01


def test_the_parts_are_ordinary_models(tmp_path):
    params, config = merge.merge_models(*parents(), attention_tokens=3, ffn_tokens=4)
    text, small = merge.text_part(params, config)
    checkpoint.save(tmp_path / "text.safetensors", text, small)
    again, _ = checkpoint.load(tmp_path / "text.safetensors")
    assert helpers.fingerprint(again) == helpers.fingerprint(text)
    assert small.attention_tokens == 8 and small.tau("attention") == math.sqrt(5)
    assert model.generate(text, np.array([1, 2]), 4, small, temperature=0).shape == (6,)
    checkpoint.save(tmp_path / "body.safetensors", params["body"], config.body)


def test_nothing_is_shared_with_the_parents_and_nothing_of_theirs_is_changed():
    pair = parents()
    before = helpers.fingerprint(pair[0], pair[2])
    params, config = merge.merge_models(*pair, attention_tokens=3, ffn_tokens=4)
    for _, array in tree_items(params):
        array += 1
    assert helpers.fingerprint(pair[0], pair[2]) == before


# ----------------------------------------------------------------------------------------- gradients


@both_ways
def test_gradients_are_right_along_a_random_direction(config):
    assert helpers.merged_gradient_error(config) < 1e-6


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_of_a_causal_classifier_are_right(causal):
    from minitf import gradcheck

    config = helpers.IMAGE_CONFIGS["tokenformer"]
    images, labels = helpers.random_images(config)

    def loss_and_grads(params):
        return vision.image_loss_and_grads(params, images, labels, config, causal)

    assert (
        gradcheck.tree_directional_error(loss_and_grads, helpers.random_image_params(config), step=1e-5)
        < 1e-6
    )


def in_torch(params, images, ids, config):
    """Logits by cutting out the tokens that each row may read, where minitf masks them."""
    torch = pytest.importorskip("torch")
    oracle = pytest.importorskip("minitf.oracle")
    functional, body, patches = torch.nn.functional, config.body, config.image.context

    def layer(x, leaf, part):
        if "first" in leaf:
            return layer(layer(x, leaf["first"], part), leaf["second"], part)
        n_text, n_image = config.text.tokens(part), config.image.tokens(part)
        key, value, tau = leaf["key"], leaf["value"], body.tau(part)

        def read(rows, *slices):
            own = (torch.cat([a[s] for s in slices]) for a in (key, value))
            return oracle.pattention(rows, *own, body.theta, tau, approximate=body.approximate)

        text, image, new = slice(n_text), slice(n_text, n_text + n_image), slice(n_text + n_image, None)
        if not config.routed:
            return read(x, slice(None))
        return torch.cat([read(x[:, :patches], image, new), read(x[:, patches:], text, new)], dim=1)

    def norm(x, weight=None, bias=None):
        return functional.layer_norm(x, x.shape[-1:], weight, bias, body.norm_eps)

    table = params["body"]["embedding"]["weight"]
    picture = oracle.patch_embedding(images, **params["patch_embedding"])
    x = torch.cat([picture, functional.embedding(ids, table)], dim=1)
    for i in range(body.n_layers):
        block = params["body"][f"block_{i}"]
        h = norm(x)
        q, k, v = (layer(h, block["attention"][name], "attention") for name in ("query", "key", "value"))
        h = oracle.causal_attention(q, k, v, body.n_heads, body.rotary_fraction)
        x = x + layer(h, block["attention"]["proj"], "proj")
        x = x + layer(norm(x), block["ffn"], "ffn")
    return functional.linear(norm(x[:, patches:], **params["body"]["norm"]), table)


@both_ways
def test_captions_and_gradients_are_those_of_torch(config):
    torch = pytest.importorskip("torch")
    oracle = pytest.importorskip("minitf.oracle")
    torch.set_num_threads(1)
    params = helpers.random_merged_params(config)
    images, inputs, targets, mask = helpers.random_captions(config)
    loss, grads = merge.caption_loss_and_grads(params, images, inputs, targets, config, mask)
    tensors = oracle.to_torch(params)
    logits = in_torch(tensors, torch.tensor(images), torch.tensor(inputs), config)
    assert (
        helpers.relative_error(
            merge.caption_forward(params, images, inputs, config)[0], logits.detach().numpy()
        )
        < 1e-12
    )
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(targets).flatten(), reduction="none"
    )
    expected = losses[torch.tensor(mask).flatten()].mean()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    classes = grads.pop("classes")
    assert all(np.all(grad == 0) for _, grad in tree_items(classes))
    tensors.pop("classes")
    error, name = helpers.tree_error(grads, tree_map(lambda tensor: tensor.grad.numpy(), tensors))
    assert error < 1e-10, name


def test_new_tokens_with_zero_keys_learn():
    params, config = merge.merge_models(*parents(), attention_tokens=3, ffn_tokens=4)
    images, inputs, targets, mask = helpers.random_captions(config)
    _, grads = merge.caption_loss_and_grads(params, images, inputs, targets, config, mask)
    new = dict(tree_items(merge.take_new(grads, config)))
    assert {name.split(".", 1)[0] for name in new} == {"block_0", "block_1"}
    assert all(np.abs(grad).max() > 0 for name, grad in new.items() if name.endswith(".key"))


def test_training_the_new_tokens_changes_nothing_else_and_lowers_the_loss():
    params, config = merge.merge_models(*parents(np.float32), attention_tokens=3, ffn_tokens=4)
    images, inputs, targets, mask = helpers.random_captions(config, dtype=np.float32)
    before = helpers.fingerprint(params)

    def gradients(new, step):
        whole = merge.put_new(params, new, config)
        loss, grads = merge.caption_loss_and_grads(whole, images, inputs, targets, config, mask)
        return loss, merge.take_new(grads, config)

    steps = list(descend(merge.take_new(params, config), gradients, TrainConfig(60, peak_lr=0.03)))
    losses, new = [float(step[1]) for step in steps], steps[-1][2]
    assert losses[-1] < 0.5 * losses[0]
    assert helpers.fingerprint(params) == before
    whole, untouched = merge.put_new(params, new, config), {"patch_embedding", "classes"}
    assert all(whole[name] is params[name] for name in untouched)
    old = merge.text_part(whole, config, new=False)[0]
    assert helpers.fingerprint(old) == helpers.fingerprint(merge.text_part(params, config, new=False)[0])


# ------------------------------------------------------------------------------------------ captions


def test_words_are_spelled_with_an_end_and_a_mask():
    tokenizer = data.CharTokenizer("\nefghinostuvwxrz")
    inputs, targets, mask = merge.spell(("six", "seven"), tokenizer)
    assert [tokenizer.decode(row) for row in inputs] == ["\nsix\n\n", "\nseven"]
    assert [tokenizer.decode(row[keep]) for row, keep in zip(targets, mask, strict=True)] == [
        "six\n",
        "seven\n",
    ]
    assert np.array_equal(inputs[:, 1:], targets[:, :-1])


def test_one_pass_over_the_right_captions_says_what_greedy_decoding_gets_right():
    config = helpers.MERGED_CONFIGS["routed"]
    params = helpers.random_merged_params(config, dtype=np.float32)
    images = np.random.default_rng(0).random((40, 4, 6), dtype=np.float32)
    greedy = merge.caption_images(params, images, 4, config, start=3)
    targets = greedy.copy()
    targets[::3, 2] = (targets[::3, 2] + 1) % config.body.vocab_size  # spoil every third
    mask = np.ones(targets.shape, bool)
    mask[:, 3] = False
    targets[:, 3] = 0
    inputs = np.concatenate([np.full((40, 1), 3), targets[:, :-1]], axis=1)
    _, accuracy = merge.evaluate_captions(params, images, inputs, targets, config, mask)
    assert accuracy == pytest.approx(np.mean((greedy[:, :3] == targets[:, :3]).all(axis=1))) == 26 / 40


def test_the_flops_of_a_routed_model_are_those_of_all_its_tokens():
    config = helpers.MERGED_CONFIGS["routed"]
    params = helpers.random_merged_params(config)
    images, inputs, targets, mask = helpers.random_captions(config)
    counter = cost.FlopCounter()
    merge.caption_loss_and_grads(tree_map(counter.wrap, params), images, inputs, targets, config, mask)
    rows, length, d = 2, 6 + 5, config.body.d_model
    layers = 2 * cost.count_layer_parameters(config.body) * length
    between = 4 * config.body.n_layers * d * length**2
    ends = 2 * 4 * d * 6 + 2 * config.body.vocab_size * d * 5
    assert counter.flops == 3 * rows * (layers + between + ends)


@both_ways
def test_everything_runs_on_the_stand_in_for_cupy(config):
    params = helpers.random_merged_params(config)
    captions = helpers.random_captions(config)
    images, inputs, targets, mask = captions
    loss, grads = merge.caption_loss_and_grads(params, images, inputs, targets, config, mask)
    ids = merge.caption_images(params, images, 3, config, start=1)
    with fake_cupy.installed():
        moved = to_device(params, "cuda")
        images, inputs, targets, mask = map(fake_cupy.asarray, captions)
        device_loss, device_grads = merge.caption_loss_and_grads(moved, images, inputs, targets, config, mask)
        assert float(device_loss) == float(loss)
        assert all(isinstance(leaf, fake_cupy.ndarray) for _, leaf in tree_items(device_grads))
        assert helpers.fingerprint(to_host(device_grads)) == helpers.fingerprint(grads)
        assert np.array_equal(merge.caption_images(moved, images, 3, config, start=1).get(), ids)
        new = merge.take_new(moved, config)
        again = to_host(merge.put_new(moved, new, config))
        assert helpers.fingerprint(again) == helpers.fingerprint(params)
        for part in (merge.text_part, merge.image_part):
            got, expected = to_host(part(moved, config)[0]), part(params, config)[0]
            assert helpers.fingerprint(got) == helpers.fingerprint(expected)
        with pytest.raises(TypeError, match="did you call to_device"):
            merge.caption_forward(params, images, inputs, config)


def test_parents_on_the_stand_in_merge_there():
    pair = parents()
    expected, config = merge.merge_models(*pair, attention_tokens=3, ffn_tokens=4)
    with fake_cupy.installed():
        text, image = to_device(pair[0], "cuda"), to_device(pair[2], "cuda")
        params, _ = merge.merge_models(text, pair[1], image, pair[3], attention_tokens=3, ffn_tokens=4)
        assert helpers.fingerprint(to_host(params)) == helpers.fingerprint(expected)
        with pytest.raises(TypeError, match="did you call to_device"):
            merge.merge_models(text, pair[1], pair[2], pair[3])


# -------------------------------------------------------------------------------------------- errors

PAIR = parents()
CONFIG = helpers.MERGED_CONFIGS["routed"]
PARAMS = helpers.random_merged_params(CONFIG)
IMAGES, INPUTS, TARGETS, MASK = helpers.random_captions(CONFIG)


def merged(**changes):
    """merge_models with the configs of both parents changed."""
    text, image = parents(**changes)[:2], parents(**changes)[2:]
    return merge.merge_models(*text, *image)


def with_image(**changes):
    config = replace(PAIR[3], **changes)
    return merge.merge_models(*PAIR[:2], helpers.random_image_params(config), config)


ERRORS = {
    "another width": (lambda: with_image(d_model=12, n_heads=2), "d_model is 8 of the text model and 12"),
    "another depth": (lambda: with_image(n_layers=1), "n_layers is 2 of the text model and 1"),
    "other taus": (lambda: with_image(ffn_tokens=9), "different taus: train them with as many tokens, or pass tau"),
    "block norms": (lambda: merged(parametric_norm=True), "tied=True, parametric_norm=True: merging takes"),
    "no tied table": (
        lambda: merge.MergedConfig(CONFIG.body, replace(CONFIG.text, tied=False), CONFIG.image),
        "tied=False",
    ),
    "softmax": (lambda: merged(theta="softmax"), "a theta that gives a zero score 0"),
    "routed and rescaled": (lambda: merge.merge_models(*PAIR, tau="rescale"), "it needs tau='hold'"),
    "an unknown tau": (lambda: merge.merge_models(*PAIR, tau="sqrt"), "choose 'hold' or 'rescale'"),
    "tokens below zero": (lambda: merge.merge_models(*PAIR, ffn_tokens=-1), "ffn_tokens is -1"),
    "exchanged": (
        lambda: merge.merge_models(PAIR[2], PAIR[3], PAIR[0], PAIR[1]),
        "params lack embedding.weight|params have patch_embedding",
    ),
    "a body too small": (
        lambda: merge.MergedConfig(PAIR[1], PAIR[1], PAIR[3]),
        "the parents' tokens are 5 more than the body's",
    ),
    "an unmerged model": (
        lambda: merge.caption_forward(PAIR[2], IMAGES, INPUTS, CONFIG),
        r"params must be \{'patch_embedding', 'classes', 'body'\}",
    ),
    "other captions": (
        lambda: merge.caption_forward(PARAMS, IMAGES, INPUTS[:1], CONFIG),
        r"images have shape \(2, 4, 6\) and ids \(1, 5\)",
    ),
    "captions too long": (
        lambda: merge.caption_forward(PARAMS, IMAGES, np.zeros((2, 7), int), CONFIG),
        "6 patches and 7 characters are more than the context of 12",
    ),
    "no captions": (lambda: merge.caption_images(PARAMS, IMAGES, 0, CONFIG, 0), "n_new is 0"),
    "a gradient of another shape": (
        lambda: merge.caption_backward(
            np.zeros((2, 4, 11)), merge.caption_forward(PARAMS, IMAGES, INPUTS, CONFIG)[1]
        ),
        r"dlogits has shape \(2, 4, 11\), but \(2, 5, 11\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_character_that_is_none_is_named():
    with pytest.raises(IndexError, match="ids contain 2.*the vocabulary has ids 0 to 10"):
        merge.caption_forward(PARAMS, IMAGES, INPUTS + 20, CONFIG)


def test_a_transformer_and_a_plain_config_are_refused():
    with pytest.raises(TypeError, match="only Tokenformers merge"):
        merge.MergedConfig(CONFIG.body, helpers.transformer(), CONFIG.image)
    with pytest.raises(TypeError, match="pass the MergedConfig"):
        merge.caption_forward(PARAMS, IMAGES, INPUTS, CONFIG.body)


# ------------------------------------------------------------------------------------- the experiment


@pytest.fixture
def figure():
    return small_experiment.load("merge")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"new_tokens": 0}, "new_tokens is 0"),
        ({"lrs": ()}, "must not be empty"),
        ({"d_model": 41}, "do not divide"),
        ({"lrs": (-1.0,)}, "peak_lr"),
        ({"seeds": (-1,)}, "seed"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(figure, change, message):
    with pytest.raises(ValueError, match=message):
        figure.Plan(**change)


def test_rivals_get_the_flops_of_the_whole(figure):
    plan = figure.Plan()
    merged = plan.captioner("routed, trained", 1e-2, 0, plan.steps)
    total = merged.parents_flops() + plan.steps * merged.step_flops()
    for name in ("text parent alone", "joint from scratch", "captions from scratch"):
        rival = plan.captioner(name, 1e-2, 0, plan.length(name))
        spent = rival.parents_flops() + rival.steps * rival.step_flops()
        assert spent == pytest.approx(total, rel=0.005), name
    sizes = {
        name: plan.captioner(name, 1e-2, 0, 1).step_flops()
        for name in ("routed, frozen", "shared, trained", "text parent alone", "captions from scratch")
    }
    assert len(set(sizes.values())) == 1  # one size of model, so a step costs all the same


def test_a_small_version_has_its_direction_and_never_runs_twice(figure, tmp_path, monkeypatch):
    monkeypatch.setattr("minitf.laboratory.stage.FINAL_WINDOWS", 16)
    monkeypatch.setattr(figure, "TEXT_WINDOWS", 16)
    train, (images, labels) = data.load_digits("train"), data.load_digits("heldout")
    monkeypatch.setattr(figure, "digits", lambda: (train, (images[:100], labels[:100])))
    plan = {"tokens": 8, "new_tokens": 4, "d_model": 20, "text_steps": 20, "digit_steps": 80, "steps": 30}
    plan |= {"lrs": (1e-2,), "seeds": (0,)}
    stem, measure = small_experiment.prepare(vars(figure), "merge", tmp_path, plan)
    first = measure()
    measured = json.loads(first)
    assert stem.with_suffix(".svg").exists() and len(measured["headlines"]) >= 1

    def last(arm):
        return measured["runs"][measured["arms"][arm]["keys"]["0"]]

    text, digits = last("text parent"), last("digits parent")
    frozen, shared = last("routed, frozen"), last("shared, frozen")
    assert frozen["logit_change_birth"] < 1e-10 < 0.1 < shared["logit_change_birth"]
    assert frozen["digit_accuracy_birth"] == frozen["digit_accuracy_left_out"] == digits["accuracy"] > 0.3
    for field in ("text_loss_left_out", "text_loss_birth"):
        assert frozen[field] == pytest.approx(frozen["text_loss_parent"], abs=1e-4)
    assert frozen["text_loss_parent"] == pytest.approx(text["heldout"], abs=0.3)
    assert shared["text_loss_birth"] > frozen["text_loss_birth"]
    for arm in figure.ARMS:  # captions are being learned, least where only few tokens are
        start, *_, end = (point[1] for point in last(arm)["curve"])
        assert end < 0.95 * start, arm

    small_experiment.forbid_runs(monkeypatch, figure.Captioner, figure.Digits)
    assert measure() == first
