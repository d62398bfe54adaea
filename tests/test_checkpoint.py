"""A checkpoint comes back bit for bit, or the error says what is wrong; the old file survives a failed save."""

import dataclasses
import errno
import json
import os
import pickle

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from minitf import checkpoint
from minitf.backend import tree_from_items, tree_items, tree_map
from minitf.checkpoint import CheckpointError
from minitf.model import TokenformerConfig, TransformerConfig, init_params
from minitf.optim import adamw_init, adamw_step

TOKENFORMER = TokenformerConfig(7, 5, n_layers=1, d_model=4, n_heads=1, attention_tokens=3, ffn_tokens=6)
TRANSFORMER = TransformerConfig(7, 5, n_layers=1, d_model=4, n_heads=1, d_ff=8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(path):
    checkpoint.save(path, init_params(TOKENFORMER), TOKENFORMER, extra={"step": 3})
    return path


def assert_same(tree, other):
    """The same names in the same order, and the same leaves to the bit."""
    items, others = list(tree_items(tree)), list(tree_items(other))
    assert [name for name, _ in items] == [name for name, _ in others]
    for (_, leaf), (_, came) in zip(items, others, strict=True):
        assert type(leaf) is type(came)
        if isinstance(leaf, np.ndarray):
            assert leaf.dtype == came.dtype and leaf.shape == came.shape and leaf.tobytes() == came.tobytes()
        else:
            assert leaf == came


# ---------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("config", [TOKENFORMER, TRANSFORMER])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_model_comes_back(path, config, dtype):
    params = init_params(config, dtype=dtype)
    checkpoint.save(path, params, config)
    loaded, its_config = checkpoint.load(path)
    assert its_config == config and type(its_config) is type(config)
    assert_same(loaded, params)
    assert all(type(leaf) is np.ndarray and leaf.flags.writeable for _, leaf in tree_items(loaded))


def test_a_run_comes_back_and_goes_on_alike(path):
    params = init_params(TOKENFORMER)
    rng = np.random.default_rng(0)
    grads = {name: rng.normal(size=leaf.shape) for name, leaf in tree_items(params)}
    grads = tree_from_items((name, g.astype(np.float32)) for name, g in grads.items())
    params, state = adamw_step(params, grads, adamw_init(params), 0.01)
    extra = {
        "tokenizer": "a\u00e9\U0001f600",
        "history": [{"loss": 0.1 + 0.2, "heldout": None}],
        "nan": float("inf"),
    }
    checkpoint.save(str(path), params, TOKENFORMER, state=state, extra=extra)
    run = checkpoint.load_training(str(path))
    assert run.config == TOKENFORMER and run.extra == extra and type(run.state["step"]) is int
    assert_same(run.params, params)
    assert_same(run.state, state)
    assert_same(adamw_step(run.params, grads, run.state, 0.01)[0], adamw_step(params, grads, state, 0.01)[0])


def test_without_state_and_extra_there_are_none(saved):
    params, config = checkpoint.load(saved)
    checkpoint.save(saved, params, config)
    assert checkpoint.load_training(saved)[2:] == (None, None)


def test_every_field_of_a_config_comes_back(path):
    config = TokenformerConfig(
        7,
        5,
        1,
        4,
        2,
        3,
        6,
        2,
        "softmax",
        0.5,
        True,
        False,
        1 / 3,
        2.0,
        5,
        7.5,
        (1.5, 2.5, 1 / 3),
        "tanh",
        0.03,
        1e-6,
        4,
        2,
    )
    assert all(getattr(config, field.name) != field.default for field in dataclasses.fields(config)), (
        "a new field: add it"
    )
    checkpoint.save(path, init_params(config), config)
    assert checkpoint.load(path)[1] == config


def test_numpy_numbers_in_config_and_extra_become_python_numbers(path):
    config = dataclasses.replace(TOKENFORMER, d_model=np.int64(4), ffn_tau=np.float64(2.5))
    checkpoint.save(path, init_params(config), config, extra={"loss": np.float32(0.5), "step": np.int32(2)})
    run = checkpoint.load_training(path)
    assert run.config == config and type(run.config.d_model) is int and type(run.config.ffn_tau) is float
    assert run.extra == {"loss": 0.5, "step": 2}


LEAF = st.one_of(
    npst.arrays(
        npst.floating_dtypes() | npst.integer_dtypes() | npst.boolean_dtypes(),
        npst.array_shapes(min_dims=0, min_side=0),
    ),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.booleans(),
)
NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="."), min_size=1, max_size=5)
TREE = st.recursive(LEAF, lambda t: st.dictionaries(NAME, t, min_size=1, max_size=3), max_leaves=6)


@given(state=st.dictionaries(NAME, TREE, max_size=3))
def test_every_tree_comes_back(tmp_path_factory, state):
    path = tmp_path_factory.getbasetemp() / "tree.safetensors"
    checkpoint.save(path, init_params(TRANSFORMER), TRANSFORMER, state=state)
    came = checkpoint.load_training(path).state or {}
    native = tree_map(
        lambda leaf: leaf.astype(leaf.dtype.newbyteorder("=")) if isinstance(leaf, np.ndarray) else leaf,
        state,
    )
    assert_same(came, native)


def test_arrays_that_do_not_lie_in_c_order_come_back(path):
    state = {
        "t": np.arange(6.0).reshape(2, 3).T,
        "reversed": np.arange(9)[::-2],
        "broadcast": np.broadcast_to(1.5, (2, 2)),
    }
    checkpoint.save(path, init_params(TRANSFORMER), TRANSFORMER, state=state)
    came = checkpoint.load_training(path).state
    assert all((came[name] == state[name]).all() for name in state)


def test_what_is_loaded_is_not_the_file(saved):
    before = saved.read_bytes()
    params, _ = checkpoint.load(saved)
    params["embedding"]["weight"] += 1
    assert saved.read_bytes() == before
    saved.write_bytes(b"")  # a mapped file that shrinks would crash the reader
    assert params["embedding"]["weight"].sum() != 0


def test_equal_content_gives_equal_bytes(saved, path):
    before = saved.read_bytes()
    checkpoint.save(saved, *checkpoint.load(saved), extra={"step": 3})
    assert saved.read_bytes() == before


def test_a_tree_on_the_gpu_is_saved_from_the_host(path, monkeypatch):
    moved = []
    monkeypatch.setattr(checkpoint, "to_host", lambda tree: (moved.append(tree), tree)[1])
    params, state = init_params(TRANSFORMER), {"step": 1}
    checkpoint.save(path, params, TRANSFORMER, state=state)
    assert moved == [params, state]


def test_save_needs_no_change_of_permissions_to_be_shared(saved):
    umask = os.umask(0)
    os.umask(umask)
    assert saved.stat().st_mode & 0o777 == 0o666 & ~umask


# --------------------------------------------------------------------------------------- what save refuses


def test_save_refuses_what_would_not_come_back(saved):
    before = saved.read_bytes()
    params = init_params(TOKENFORMER)
    for error, message, arguments in [
        (TypeError, "config is a dict: pass a TokenformerConfig", {"config": {}}),
        (ValueError, "params", {"config": TRANSFORMER}),
        (
            ValueError,
            r"embedding.weight has shape \(7, 4\), but \(8, 4\)",
            {"config": dataclasses.replace(TOKENFORMER, vocab_size=8)},
        ),
        (TypeError, "state.m is complex128", {"state": {"m": np.ones(2, complex)}}),
        (TypeError, "state.m is list", {"state": {"m": [1, 2]}}),
        (TypeError, "state.m is object", {"state": {"m": np.array([None])}}),
        (TypeError, "name with a dot", {"state": {"a.b": 1}}),
        (TypeError, "empty branch", {"state": {"a": {}, "b": 1}}),
        (TypeError, "JSON.*set", {"extra": {"a": {1}}}),
        (TypeError, "JSON.*ndarray", {"extra": {"a": np.ones(2)}}),
    ]:
        with pytest.raises(error, match=message):
            checkpoint.save(saved, params, **{"config": TOKENFORMER, **arguments})
    assert saved.read_bytes() == before


# -------------------------------------------------------------------------------- damaged and foreign files


def test_no_file_and_a_folder(path):
    for read in (checkpoint.load, checkpoint.load_training):
        with pytest.raises(FileNotFoundError, match=r"no checkpoint .*model\.safetensors"):
            read(path)
        with pytest.raises(CheckpointError, match="is a folder"):
            read(path.parent)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty"),
        (b"{}", "cut off, damaged or no safetensors file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "is a PNG picture"),
        (b"PK\x03\x04" + bytes(99), "is a zip archive, as PyTorch"),
        (pickle.dumps({"a": 1}), "is a pickle"),
        (b"\x93NUMPY\x01\x00" + bytes(99), r"NumPy \.npy file"),
        (b"To be, or not to be, that is the question", "cut off, damaged or no safetensors file"),
        (bytes(1000), "cut off, damaged or no safetensors file"),
        (safetensors.numpy.save({"weight": np.ones(3)}), "minitf did not write"),
        (safetensors.numpy.save({"weight": np.ones(3)}, {"format": "pt"}), "minitf did not write"),
        (safetensors.numpy.save({}, {"minitf": "{"}), "metadata cannot be read"),
        (safetensors.numpy.save({}, {"minitf": "[]"}), "metadata cannot be read"),
        (safetensors.numpy.save({}, {"minitf": "{}"}), "metadata cannot be read.*format"),
    ],
)
def test_foreign_files_are_named(path, content, message):
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)


def flips(data, n):
    """n copies of the data with one bit wrong, a third of them in the header."""
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(data[:8], "little")
    for i in range(n):
        at = int(rng.integers(header if i % 3 == 0 else len(data)))
        yield data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]


def test_a_wrong_bit_is_noticed(saved):
    params, config = checkpoint.load(saved)
    noticed = 0
    for damaged in flips(saved.read_bytes(), 400):
        saved.write_bytes(damaged)
        try:
            run = checkpoint.load_training(saved)
        except CheckpointError:
            noticed += 1
        else:  # as in the space after the header: nothing that is read has changed
            assert run.config == config and run.extra == {"step": 3}
            assert_same(run.params, params)
    assert noticed > 390


def test_a_file_cut_off_anywhere_is_noticed(saved):
    whole = saved.read_bytes()
    for length in np.random.default_rng(1).integers(1, len(whole), size=100):
        saved.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="cut off"):
            checkpoint.load(saved)


def test_a_changed_weight_is_called_damage(saved):
    whole = bytearray(saved.read_bytes())
    whole[-2] ^= 1
    saved.write_bytes(whole)
    with pytest.raises(CheckpointError, match="damaged: its content does not match its checksum"):
        checkpoint.load(saved)


def rewrite(path, change):
    """Change the record of a checkpoint, and sign it again: what another version might have written."""
    with safetensors.safe_open(path, "np") as file:
        record = json.loads(file.metadata()["minitf"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del record["sha256"]
    change(record, arrays)
    signed = {"sha256": checkpoint._digest(record, arrays), **record}
    path.write_bytes(safetensors.numpy.save(arrays, {"minitf": json.dumps(signed)}))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda record, _: record.update(format=2), "has format 2 and this minitf reads 1"),
        (
            lambda record, _: record["config"].update(kind="MambaConfig"),
            "holds a MambaConfig.*TokenformerConfig",
        ),
        (lambda record, _: record["config"]["fields"].update(experts=4), r"\['experts'\].*newer"),
        (lambda record, _: record["config"]["fields"].pop("d_model"), "makes no model: .*d_model"),
        (lambda record, _: record["config"]["fields"].update(n_heads=3), "makes no model: .*3"),
        (
            lambda record, _: record["config"]["fields"].update(ffn_tokens=5),
            r"ffn.* has shape \(6, 4\), but \(5, 4\)",
        ),
        (
            lambda record, _: record["config"]["fields"].update(n_layers=2),
            "do not belong together: params lack block_1",
        ),
        (lambda record, _: record["config"]["fields"].update(tied=False), "params lack unembedding.weight"),
        (lambda record, _: record["names"].remove("params.norm.bias"), "params lack norm.bias"),
        (lambda _, arrays: arrays.pop("params.norm.bias"), "lacks params.norm.bias, which its own list"),
    ],
)
def test_a_record_that_does_not_fit_says_where(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(saved)


# ------------------------------------------------------------------------------------------------ atomicity


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_only_the_file_remains_after_a_save(saved):
    checkpoint.save(saved, init_params(TOKENFORMER, seed=1), TOKENFORMER)
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_save_leaves_the_old_file(saved, monkeypatch, call):
    before = saved.read_bytes()
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(CheckpointError, match="untouched: No space left on device") as caught:
        checkpoint.save(saved, init_params(TOKENFORMER, seed=1), TOKENFORMER)
    assert caught.value.__cause__.errno == errno.ENOSPC and str(saved) in str(caught.value)
    assert os.listdir(saved.parent) == [saved.name] and saved.read_bytes() == before


def test_a_failed_first_save_leaves_nothing(path, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(CheckpointError, match="nothing was written: No space left"):
        checkpoint.save(path, init_params(TOKENFORMER), TOKENFORMER)
    assert os.listdir(path.parent) == []


def test_an_interrupted_save_leaves_the_old_file(saved, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = saved.read_bytes()
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(saved, init_params(TOKENFORMER, seed=1), TOKENFORMER)
    assert os.listdir(saved.parent) == [saved.name] and saved.read_bytes() == before


def test_a_folder_that_cannot_be_written_to(saved, monkeypatch):
    def read_only(name, mode):  # root may write everywhere, so permissions alone would not test this
        raise PermissionError(errno.EACCES, "Permission denied")

    before = saved.read_bytes()
    monkeypatch.setattr(checkpoint, "open", read_only, raising=False)
    with pytest.raises(CheckpointError, match="untouched: Permission denied"):
        checkpoint.save(saved, init_params(TOKENFORMER, seed=1), TOKENFORMER)
    assert saved.read_bytes() == before


def test_the_content_is_on_the_disk_before_it_gets_its_name(path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("fsync"))
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), real(*names)))
    checkpoint.save(path, init_params(TOKENFORMER), TOKENFORMER)
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, the folder


def test_a_folder_that_cannot_be_synced_does_not_lose_the_file(path, monkeypatch):
    real = os.open

    def no_folders(name, *args, **kwargs):
        if os.path.isdir(name):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(os, "open", no_folders)
    checkpoint.save(path, init_params(TOKENFORMER), TOKENFORMER)
    assert checkpoint.load(path)[1] == TOKENFORMER


def test_saving_where_there_is_no_folder_or_only_one(path):
    params = init_params(TOKENFORMER)
    with pytest.raises(FileNotFoundError, match="no folder .*missing.*make it first"):
        checkpoint.save(path.parent / "missing" / path.name, params, TOKENFORMER)
    with pytest.raises(CheckpointError, match="could not be written"):
        checkpoint.save(path.parent, params, TOKENFORMER)
    assert os.listdir(path.parent) == [] and not [
        name for name in os.listdir(path.parent.parent) if "tmp" in name
    ]
