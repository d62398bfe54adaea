"""The same code on a GPU: everything runs on a strict stand-in for CuPy and gives NumPy's numbers."""

import ast
import inspect
import sys

import fake_cupy
import helpers
import numpy as np
import pytest

from minitf import (
    attention,
    backend,
    growth,
    kernels,
    merge,
    model,
    nested,
    ops,
    optim,
    pattention,
    top_k,
    transfer,
    vision,
)
from minitf.backend import array_module, to_device, to_host, tree_from_items, tree_items, tree_map

configs = pytest.mark.parametrize("config", helpers.CONFIGS.values(), ids=helpers.CONFIGS)


@pytest.fixture
def cupy():
    with fake_cupy.installed() as module:
        yield module


def on_device(value):
    """Arrays anywhere in a tree or a tuple."""
    return (
        tuple(map(on_device, value))
        if isinstance(value, tuple)
        else tree_map(fake_cupy.asarray, {"": value})[""]
    )


def same(got, expected):
    """Equal to the last bit, and really on the device."""
    for (name, a), (_, b) in zip(tree_items({"": got}), tree_items({"": expected}), strict=True):
        assert isinstance(a, fake_cupy.ndarray), name
        assert a.dtype == b.dtype, name
        assert np.array_equal(a.get(), b), name


# ------------------------------------------------------------------------ everything runs on the device


@pytest.mark.parametrize("pair", helpers.PAIRS, ids=lambda pair: pair.name)
def test_every_pair_gives_numpys_numbers(cupy, pair):
    out, cache = pair.forward(*pair.arrays.values(), **pair.extra)
    device_out, device_cache = pair.forward(*map(on_device, pair.arrays.values()), **on_device(pair.extra))
    same(device_out, out)
    dout = np.asarray(np.random.default_rng(0).standard_normal(out.shape))
    grads, device_grads = pair.backward(dout, cache), pair.backward(on_device(dout), device_cache)
    if not isinstance(grads, tuple):
        grads, device_grads = (grads,), (device_grads,)
    for got, expected in zip(device_grads, grads, strict=True):
        same(got, expected)


@pytest.fixture
def formulas_only():
    """NumPy's fused twins round differently from the formulas, which are what runs on the stand-in."""
    with kernels.resting():
        yield


@configs
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_whole_models_gives_numpys_numbers(cupy, formulas_only, config, dtype):
    params = helpers.random_params(config, dtype=dtype)
    batch = helpers.random_batch(config)
    device_params = to_device(params, "cuda")
    device_batch = tuple(fake_cupy.asarray(array) for array in batch)
    state, device_state = optim.adamw_init(params), optim.adamw_init(device_params)
    for _ in range(2):
        for moments in ("m", "v"):
            same(device_state[moments], state[moments])
        loss, grads = model.loss_and_grads(params, *batch[:2], config, batch[2])
        device_loss, device_grads = model.loss_and_grads(
            device_params, *device_batch[:2], config, device_batch[2]
        )
        same(device_loss, np.asarray(loss))
        same(device_grads, grads)
        grads, norm = optim.clip_by_global_norm(grads, 0.5)
        device_grads, device_norm = optim.clip_by_global_norm(device_grads, 0.5)
        same(device_norm, np.asarray(norm))
        params, state = optim.adamw_step(params, grads, state, lr=0.01)
        device_params, device_state = optim.adamw_step(device_params, device_grads, device_state, lr=0.01)
        same(device_params, params)


@configs
def test_generation_on_the_device_returns_the_same_ids_on_the_host(cupy, config):
    params = helpers.random_params(config)
    device_params = to_device(params, "cuda")
    for options in ({"temperature": 0}, {"seed": 3}, {"top_k": 3, "seed": 3}):
        prompt = np.array([[3, 1, 4], [1, 5, 9]])
        expected = model.generate(params, prompt, 9, config, **options)
        for given in (prompt, fake_cupy.asarray(prompt)):
            ids = model.generate(device_params, given, 9, config, **options)
            assert type(ids) is np.ndarray
            assert ids.tolist() == expected.tolist()


@pytest.mark.parametrize(
    "options", [{}, {"key": "normal", "tau": "rescale"}, {"key": "copy", "value": "halved"}]
)
def test_growth_annealing_and_the_state_stay_on_the_device(cupy, options):
    config = helpers.tokenformer()
    params = helpers.random_params(config)
    device_params = to_device(params, "cuda")
    state = to_device({"step": 1, "m": params, "v": params}, "cuda")
    expected, new = growth.grow(params, config, 9, 15, 8, **options)
    grown, device_new = growth.grow(device_params, config, 9, 15, 8, **options)
    assert new == device_new
    same(grown, expected)
    grown_state = growth.grow_state(state, grown)
    same(grown_state["m"], growth.grow_state({"step": 1, "m": params, "v": params}, expected)["m"])
    if new.held_tau:
        new = growth.anneal_tau(new, 0.5)
    ids = np.array([[1, 2, 3]])
    same(model.forward(grown, fake_cupy.asarray(ids), new)[0], model.forward(expected, ids, new)[0])


@pytest.mark.parametrize("d_model", [12, 16])
def test_widening_comes_back_to_the_device(cupy, d_model):
    config = helpers.transformer(parametric_norm=True)
    params = helpers.random_params(config)
    expected, _ = growth.net2net_widen(params, config, d_model=d_model, d_ff=20)
    wide, _ = growth.net2net_widen(to_device(params, "cuda"), config, d_model=d_model, d_ff=20)
    same(wide, expected)


# --------------------------------------------------------------------------------- there and back again


def test_a_tree_goes_to_the_device_and_back_with_numbers_and_words_as_they_are(cupy):
    tree = {
        "a": np.arange(3.0),
        "b": {"c": np.ones((2, 2), np.float32), "step": 7, "name": "x", "none": None},
    }
    device = to_device(tree, "cuda")
    assert isinstance(device["a"], fake_cupy.ndarray)
    assert {name: device["b"][name] for name in ("step", "name", "none")} == {
        "step": 7,
        "name": "x",
        "none": None,
    }
    for back in (to_host(device), to_device(device, "cpu")):
        assert helpers.fingerprint({"a": back["a"], "c": back["b"]["c"]}) == helpers.fingerprint(
            {"a": tree["a"], "c": tree["b"]["c"]}
        )
    device["a"] += 1
    assert tree["a"].tolist() == [0, 1, 2]


def test_a_single_array_moves_as_well_and_what_is_there_stays(cupy):
    x = np.arange(3.0)
    device = to_device(x, "cuda")
    assert isinstance(device, fake_cupy.ndarray)
    assert to_device(device, "cuda") is device
    assert to_host(x) is x
    assert to_host(device).tolist() == x.tolist()


def test_without_cupy_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # what makes `import cupy` fail
    with pytest.raises(ImportError, match=r"pip install 'minitf\[cuda12\]' or 'minitf\[cuda13\]'"):
        to_device({"x": np.ones(2)}, "cuda")
    assert to_device({"x": np.ones(2)}, "cpu")["x"].tolist() == [1, 1]
    assert to_host(np.ones(2)).tolist() == [1, 1]
    assert array_module(np.ones(2)) is np


def test_with_cupy_but_no_gpu_the_error_says_what_to_look_at(monkeypatch):
    module = fake_cupy.broken("CUDARuntimeError", "cudaErrorInsufficientDriver: driver too old")
    monkeypatch.setitem(sys.modules, "cupy", module)
    with pytest.raises(RuntimeError, match=r"cudaErrorInsufficientDriver.*nvidia-smi.*stay on 'cpu'"):
        to_device({"x": np.ones(2)}, "cuda")


def test_another_error_of_cupy_is_not_dressed_up(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.broken("OutOfMemoryError", "out of memory"))
    with pytest.raises(RuntimeError, match="^out of memory$"):
        to_device({"x": np.ones(2)}, "cuda")


@pytest.mark.parametrize("device", ["gpu", "cuda:0", "", None])
def test_a_device_that_does_not_exist_is_refused(device):
    with pytest.raises(ValueError, match="choose 'cuda' or 'cpu'"):
        to_device({"x": np.ones(2)}, device)


# ------------------------------------------------------------------------------------- whose array is it


def test_the_arrays_decide_which_library_computes(cupy):
    x = np.ones(2)
    assert array_module(x, None, 2.0, np.float32(1)) is np
    assert array_module(cupy.asarray(x), None, 2.0) is cupy
    assert array_module() is np


def test_mixing_devices_asks_the_question_that_helps(cupy):
    x = np.ones((2, 3))
    key, value = to_device(np.ones((4, 3)), "cuda"), np.ones((4, 2))
    with pytest.raises(TypeError, match=r"key is on the GPU and x is not: did you call to_device\?"):
        pattention.pattention_forward(x, key, value)
    with pytest.raises(TypeError, match="x is on the GPU and key is not"):
        pattention.pattention_forward(to_device(x, "cuda"), to_host(key), value)


def test_forgetting_to_move_the_ids_or_the_targets_or_the_mask_is_noticed(cupy):
    config = helpers.tokenformer()
    ids, targets, mask = helpers.random_batch(config)
    params = to_device(helpers.random_params(config), "cuda")
    move = fake_cupy.asarray
    for batch, name in (
        ((ids, move(targets), move(mask)), "ids"),
        ((move(ids), targets, move(mask)), "targets"),
        ((move(ids), move(targets), mask), "mask"),
    ):
        with pytest.raises(TypeError, match=f"on the GPU and {name} is not: did you call to_device"):
            model.loss_and_grads(params, *batch[:2], config, batch[2])


@pytest.mark.parametrize("module", ["list", "torch"])
def test_what_is_no_array_of_either_library_is_refused_with_the_way_to_make_one(module):
    x = [1.0, 2.0] if module == "list" else pytest.importorskip("torch").ones(2)
    with pytest.raises(
        TypeError, match=rf"x is a .*{'list' if module == 'list' else 'torch.Tensor'}.*np.asarray"
    ):
        array_module(x=x)
    with pytest.raises(TypeError, match="argument 2 is a"):
        array_module(np.ones(2), x)


# ------------------------------------------------------------------------------------------------- trees


def test_trees_are_taken_apart_and_put_together_again():
    params = helpers.random_params(helpers.CONFIGS["tokenformer untied, two ffn blocks"])
    assert helpers.fingerprint(tree_from_items(tree_items(params))) == helpers.fingerprint(params)


@pytest.mark.parametrize("other", [{"a": 1}, {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": {"c": 2}}, 5], ids=str)
def test_trees_that_differ_are_refused(other):
    with pytest.raises(ValueError, match="the trees differ"):
        tree_map(lambda a, b: None, {"a": 1, "b": 2}, other)


# ------------------------------------------------------------------------- does the stand-in stand in?


def device(*shape):
    return fake_cupy.asarray(np.arange(1.0, 1 + np.prod(shape, dtype=int)).reshape(shape))


HOST = np.ones(3)
REFUSED = {
    "np.asarray": lambda x: np.asarray(x),
    "np.array": lambda x: np.array(x),
    "a list into np.array": lambda x: np.array([x, x]),
    "a list into np.asarray of numbers": lambda x: np.asarray(list(x)),
    "np.stack of a mixture": lambda x: np.stack([x, HOST]),
    "adding a host array": lambda x: x + HOST,
    "a host array, adding": lambda x: HOST + x,
    "np.add": lambda x: np.add(HOST, x),
    "in-place addition of a host array": lambda x: x.__iadd__(HOST),
    "in-place addition to a host array": lambda x: HOST.copy().__iadd__(x),
    "matmul with a host array": lambda x: x @ HOST,
    "a host array, matmul": lambda x: HOST @ x,
    "comparing with a host array": lambda x: x < HOST,
    "where with a host array": lambda x: fake_cupy.where(x > 1, x, HOST),
    "a function of the device on a host array": lambda x: fake_cupy.exp(HOST),
    "concatenating with a host array": lambda x: fake_cupy.concatenate([x, HOST]),
    "indexing with a host array": lambda x: x[np.array([0, 1])],
    "masking with a host array": lambda x: x[HOST > 0],
    "indexing with a list of arrays": lambda x: x[[fake_cupy.asarray(0), fake_cupy.asarray(1)]],
    "assigning a host array": lambda x: x.__setitem__(slice(None), HOST),
    "indexing a host array with a device array": lambda x: HOST[x.astype(int) - 1],
    "assigning into a host array": lambda x: HOST.copy().__setitem__(slice(None), x),
    "scattering host values": lambda x: fake_cupy.add.at(x, fake_cupy.asarray([0]), np.ones(1)),
    "scattering into a host array": lambda x: fake_cupy.add.at(HOST, fake_cupy.asarray([0]), x),
    "a list of device arrays to the device": lambda x: fake_cupy.asarray([x, x]),
    "adding a list": lambda x: x.__add__([1.0, 2.0, 3.0]),
    "a function that CuPy lacks": lambda x: fake_cupy.broadcast_shapes((1,), (2,)),
    "a method that CuPy lacks": lambda x: x.newbyteorder(),
    "a scatter that CuPy lacks": lambda x: fake_cupy.multiply.at(x, fake_cupy.asarray([0]), x),
    "np.linalg": lambda x: np.linalg.eigvals(x),
}


@pytest.mark.parametrize("action", REFUSED.values(), ids=REFUSED)
def test_the_stand_in_refuses(cupy, action):
    with pytest.raises((TypeError, AttributeError, ValueError)):
        action(device(3))


def test_reductions_of_the_stand_in_stay_on_the_device(cupy):
    x = device(2, 3)
    for number in (
        x.sum(),
        x.max(),
        x[0, 0],
        cupy.sqrt(x.sum()),
        x.sum() * 2,
        sum([x.sum(), x.sum()]),
        np.sum(x),
    ):
        assert isinstance(number, fake_cupy.ndarray)
        assert number.shape == ()
    assert float(x.sum()) == 21.0
    assert f"{x.sum():.1f}" == "21.0"


def test_the_stand_in_does_what_cupy_does(cupy):
    x = device(2, 3)
    assert isinstance(np.exp(x), fake_cupy.ndarray)  # NumPy's functions are sent to CuPy's
    assert isinstance(np.concatenate([x, x]), fake_cupy.ndarray)
    assert (2.0 - x).tolist() == [[1, 0, -1], [-2, -3, -4]]
    assert (x @ x.T).shape == (2, 2)
    x[:, 1:] = 0
    x += 1
    assert x.tolist() == [[2, 1, 1], [5, 1, 1]]
    cupy.add.at(x, cupy.asarray([0, 0]), cupy.ones(3))
    assert x.tolist() == [[4, 3, 3], [5, 1, 1]]
    assert x[x > 3].tolist() == [4, 5]
    assert cupy.get_array_module(x) is cupy
    assert cupy.get_array_module(HOST) is np


def test_the_stand_in_is_gone_after_a_test():
    with fake_cupy.installed():
        assert sys.modules["cupy"] is fake_cupy
    assert sys.modules.get("cupy") is not fake_cupy


# ---------------------------------------------------------------------- only what CuPy has is called

# By hand from CuPy's API reference; names beyond FUNCTIONS are dtypes and such that both libraries have.
SHARED = {
    *fake_cupy.FUNCTIONS,
    "asarray",
    "array",
    "finfo",
    "ndarray",
    "float32",
    "float64",
    "inf",
    "newaxis",
}
HOST_ONLY = {"broadcast_shapes"}  # np.…: computes on shapes, never on arrays


def names_used_of(alias, module, function=None):
    """Attributes that are read from a name such as xp in the code of a module."""
    tree = ast.parse(inspect.getsource(function or module))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == alias
    }


def called_on_array_module(module):
    """array_module(...).name, without a variable between."""
    return {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Call)
        and getattr(node.value.func, "id", "") in ("array_module", "float_module")
    }


@pytest.mark.parametrize(
    "module",
    [ops, pattention, top_k, attention, model, growth, nested, optim, transfer, vision, merge],
    ids=lambda m: m.__name__,
)
def test_only_names_that_numpy_and_cupy_share_are_called(module):
    used = names_used_of("xp", module) | called_on_array_module(module)
    assert used
    assert used <= SHARED
    assert all(hasattr(np, name) for name in used)


@pytest.mark.parametrize("module", [pattention, attention], ids=lambda m: m.__name__)
def test_numpy_itself_is_called_for_shapes_only(module):
    assert names_used_of("np", module) <= HOST_ONLY


def test_in_ops_numpy_itself_is_called_for_constants_and_checks_on_the_host_only():
    at_import = names_used_of("np", ops, ops._erfcx_polynomial)
    assert names_used_of("np", ops) - at_import == set()
    assert backend.array_module(np.ones(1)) is np
