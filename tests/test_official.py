"""The released weights: every format and dtype comes back right, and a hostile file is refused and runs nothing."""

import contextlib
import copy
import io
import itertools
import json
import math
import os
import pickle
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from helpers import random_params, relative_error, tokenformer, transformer

from minitf import checkpoint, growth, model, official
from minitf.backend import tree_items, tree_map
from minitf.checkpoint import CheckpointError

torch = pytest.importorskip("torch", reason="needs torch: pip install 'minitf[oracle]'")
nn, F = torch.nn, torch.nn.functional

CONFIG = tokenformer(vocab_size=23, context=2048, d_model=16, n_heads=2, n_layers=3, proj_tokens=6)
FORMATS = {"zip": True, "stream": False}
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}

# ------------------------------------------------------------------- the release's model, by its own names


class Pattention(nn.Module):
    def __init__(self, d, n):
        super().__init__()
        self.key_param_tokens = nn.Parameter(0.3 * torch.randn(n, d))
        self.value_param_tokens = nn.Parameter(0.3 * torch.randn(n, d))

    def forward(self, x):
        scores = x @ self.key_param_tokens.T
        scores = scores / scores.norm(dim=-1, keepdim=True) * math.sqrt(scores.shape[-1])
        return F.gelu(scores) @ self.value_param_tokens


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads, self.share = config.n_heads, config.rotary_fraction
        sizes = {"query": "attention", "key": "attention", "value": "attention", "proj": "proj"}
        for name, part in sizes.items():
            setattr(self, name, Pattention(config.d_model, config.tokens(part)))

    def forward(self, x):
        def split(part):  # (B, T, d) -> (B, H, T, head)
            return part.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query, key, value = (split(layer(x)) for layer in (self.query, self.key, self.value))
        r = int(query.shape[-1] * self.share)
        angle = torch.outer(torch.arange(x.shape[1]).to(x), 10000 ** -(torch.arange(0, r, 2).to(x) / r))
        angle = torch.cat([angle, angle], dim=-1)

        def turn(part):
            first, rest = part[..., :r], part[..., r:]
            half = torch.cat([-first[..., r // 2 :], first[..., : r // 2]], dim=-1)
            return torch.cat([first * angle.cos() + half * angle.sin(), rest], dim=-1)

        out = F.scaled_dot_product_attention(turn(query), turn(key), value, is_causal=True)
        return self.proj(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention = Attention(config)
        self.mlp = Pattention(config.d_model, config.ffn_tokens)

    def forward(self, x):
        x = x + self.attention(F.layer_norm(x, x.shape[-1:]))
        return x + self.mlp(F.layer_norm(x, x.shape[-1:]))


class Holder(nn.Module):
    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)


class Released(nn.Module):
    """The list of modules that the release's to_sequential makes; those without parameters do nothing here."""

    def __init__(self, config):
        super().__init__()
        torch.manual_seed(0)
        embedding = Holder(word_embeddings=nn.Embedding(config.vocab_size, config.d_model))
        norm = Holder(norm=nn.LayerNorm(config.d_model))
        nn.init.normal_(norm.norm.bias)
        nn.init.normal_(norm.norm.weight)
        blocks = [Block(config) for _ in range(config.n_layers)]
        self.sequential = nn.Sequential(embedding, nn.Identity(), *blocks, nn.Identity(), norm, nn.Identity())

    def forward(self, ids):
        embedding, _, *blocks, _, norm, _ = self.sequential
        x = embedding.word_embeddings(ids)
        for block in blocks:
            x = block(x)
        return norm.norm(x) @ embedding.word_embeddings.weight.T


@pytest.fixture(scope="module")
def released():
    return Released(CONFIG).double()


def torch_save(path, state, form="zip", **options):
    torch.save(state, path, _use_new_zipfile_serialization=FORMATS[form], **options)
    return path


@pytest.fixture
def write(tmp_path, released):
    """Function that writes the released state dict, or a changed one, to pytorch_model.bin."""

    def write(form="zip", dtype="float32", state=None, **options):
        if state is None:
            state = copy.deepcopy(released).to(DTYPES[dtype]).state_dict()
        return torch_save(tmp_path / "pytorch_model.bin", state, form, **options)

    return write


@pytest.fixture
def arrays(released):
    return {name: tensor.numpy().copy() for name, tensor in released.state_dict().items()}


def load(path, n_heads=2, **options):
    return checkpoint.load_official(path, n_heads, **options)


def same(params, other):
    return all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for (_, a), (_, b) in zip(tree_items(params), tree_items(other), strict=True)
    )


# --------------------------------------------------------------------------------- what is in the file


def test_our_names_are_those_of_the_release(released):
    state = released.state_dict()
    assert len(state) == 10 * CONFIG.n_layers + 3
    assert list(state) == list(official.official_names(CONFIG.n_layers))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_format_and_dtype_comes_back(write, form, dtype):
    path = write(form, dtype)
    params, config = load(path)
    assert config == CONFIG
    expected = torch.load(path, weights_only=True)
    for name, array in official.to_official(params, config).items():
        assert array.dtype == np.float32 and array.flags.c_contiguous and array.flags.writeable
        assert np.array_equal(array, expected[name].float().numpy())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", [np.float16, np.float64, None])
def test_dtype_is_a_choice(write, form, dtype):
    for stored in DTYPES:
        params, _ = load(write(form, stored), dtype=dtype)
        kept = "float32" if stored == "bfloat16" else stored
        assert params["norm"]["bias"].dtype == np.dtype(dtype or kept)
    with pytest.raises(ValueError, match="choose float16"):
        load(write(form, stored), dtype=np.int32)


@pytest.mark.parametrize("form", FORMATS)
def test_logits_are_the_releases_and_the_oracles(write, released, form):
    from minitf import oracle

    params, config = load(write(form, "float64"), dtype=np.float64)
    ids = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (2, 12))
    logits, _ = model.forward(params, ids, config)
    with torch.no_grad():
        theirs = released(torch.tensor(ids)).numpy()
        by_oracle = oracle.forward(oracle.to_torch(params, False), torch.tensor(ids), config).numpy()
    assert relative_error(logits, theirs) < 1e-12
    assert relative_error(logits, by_oracle) < 1e-12


def test_float32_in_a_zip_is_mapped_and_writing_leaves_the_file_alone(write):
    path = write()
    before = path.read_bytes()
    params, _ = load(path)
    for _, array in tree_items(params):
        assert type(array) is np.ndarray and not array.flags.owndata and array.flags.aligned
        array += 1
    assert path.read_bytes() == before
    path.unlink()  # what is mapped lives on
    assert np.isfinite(params["embedding"]["weight"]).all()


def test_views_parameters_and_strides_are_read_as_torch_reads_them(write, released):
    state = copy.deepcopy(released).float().state_dict()
    flat = torch.cat([tensor.flatten() for tensor in state.values()])  # as zero_to_fp32.py leaves them
    parts = flat.split([tensor.numel() for tensor in state.values()])
    views = OrderedDict((n, part.view(t.shape)) for (n, t), part in zip(state.items(), parts, strict=True))
    turned = OrderedDict((n, t.t().contiguous().t() if t.ndim == 2 else t) for n, t in state.items())
    gaps = OrderedDict((n, torch.cat([t, t])[::2] if n.endswith("weight") else t) for n, t in state.items())
    parameters = {name: nn.Parameter(tensor) for name, tensor in state.items()}
    for changed in (views, turned, gaps, parameters):
        for form in FORMATS:
            for dtype in ("float32", "bfloat16"):
                cast = type(changed)((n, t.to(DTYPES[dtype])) for n, t in changed.items())
                params, config = load(write(form, state=cast))
                for name, array in official.to_official(params, config).items():
                    assert np.array_equal(array, cast[name].detach().float().numpy()), name


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_later_pickle_protocols(write, form, protocol):
    assert load(write(form, pickle_protocol=protocol))[1] == CONFIG


def test_a_zip_without_checksums(write):
    torch.serialization.set_crc32_options(False)
    try:
        path = write()
    finally:
        torch.serialization.set_crc32_options(True)
    assert load(path)[1] == CONFIG


# --------------------------------------------------------------------------------- what it has to be


def test_from_official_takes_arrays_over(arrays):
    params, config = checkpoint.from_official(arrays, 2)
    assert config == CONFIG
    assert params["block_1"]["ffn"]["key"] is arrays["sequential.3.mlp.key_param_tokens"]
    model.check_params(params, config)
    assert checkpoint.from_official(arrays, 4, rotary_fraction=0.5, context=7)[1].context == 7


QUERY = "sequential.2.attention.query.key_param_tokens"
NORM = "sequential.6.norm.weight"
WRONG = {
    "missing": (lambda a: a.pop(QUERY), QUERY),
    "another name": (lambda a: a.update({QUERY + "s": a.pop(QUERY)}), QUERY + "s"),
    "extra": (lambda a: a.update({"lm_head.weight": a[QUERY]}), "lm_head.weight"),
    "one block less": (lambda a: [a.pop(n) for n in [*a] if n.startswith("sequential.3.")], "sequential.3."),
    "all others": (lambda a: (a.clear(), a.update({"wte": np.zeros(3)})), "wte"),
    "nothing": (lambda a: a.clear(), "nothing"),
    "no blocks": (
        lambda a: (
            [a.pop(n) for n in [*a] if "_param_" in n]
            + [
                a.update(
                    {f"sequential.3.norm.{n}": a.pop(f"sequential.6.norm.{n}") for n in ("weight", "bias")}
                )
            ]
        ),
        "0 blocks",
    ),
    "integers": (lambda a: a.update({NORM: np.ones(16, int)}), NORM),
    "a list": (lambda a: a.update({NORM: [1.0]}), NORM),
    "another width": (lambda a: a.update({QUERY: np.zeros((5, 15))}), r"\(5, 15\), beside .*\(5, 16\)"),
    "uneven queries and keys": (
        lambda a: a.update({QUERY: np.zeros((4, 16))}),
        r"\(5, 16\), beside .*\(4, 16\)",
    ),
    "a vector": (lambda a: a.update({QUERY: np.zeros(5)}), "must be a matrix"),
    "a long norm": (lambda a: a.update({NORM: np.zeros(17)}), NORM),
    "two dtypes": (lambda a: a.update({NORM: np.zeros(16, "f4")}), "float32 and float64"),
    "no tokens": (lambda a: a.update({n: v[:0] for n, v in a.items() if "mlp" in n}), "ffn_tokens"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_another_models_arrays_are_refused_by_name(arrays, wrong):
    spoil, message = WRONG[wrong]
    spoil(arrays)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.from_official(arrays, 2)


def test_heads_that_do_not_divide(arrays, write):
    with pytest.raises(CheckpointError, match="3 heads do not divide"):
        checkpoint.from_official(arrays, 3)
    path = write()
    with pytest.raises(CheckpointError, match=rf"{path}.*3 heads do not divide"):
        load(path, 3)


def test_a_folder_and_its_config_json(write):
    path = write()
    with pytest.raises(CheckpointError, match="pass n_heads"):
        checkpoint.load_official(path)
    settings = {
        "num_attention_heads": 2,
        "rotary_pct": 0.5,
        "max_position_embeddings": 99,
        "torch_dtype": "float16",
    }
    path.with_name("config.json").write_text(json.dumps(settings))
    _, config = checkpoint.load_official(path.parent)
    assert (config.n_heads, config.rotary_fraction, config.context) == (2, 0.5, 99)
    assert load(str(path.parent), 2, rotary_fraction=0.5, context=99)[1] == config


SAID = {
    "num_attention_heads": (4, "num_attention_heads 4, and the argument n_heads 2"),
    "rotary_pct": (1.0, "rotary_pct 1.0, and the argument rotary_fraction 0.25"),
    "max_position_embeddings": (1024, "max_position_embeddings 1024, and the argument context 2048"),
    "seq_length": (1024, "seq_length 1024, and the argument context 2048"),
    "hidden_size": (768, "hidden_size 768, and the weights d_model 16"),
    "num_hidden_layers": (12, "num_hidden_layers 12, and the weights n_layers 3"),
    "num_layers": ("3", "num_layers 3, and the weights n_layers 3"),
    "ffn_slot_num": (8, "ffn_slot_num 8, and the weights ffn_tokens 7"),
    "norm_activation_type": ("softmax", "norm_activation_type softmax, and the weights theta l2_norm_gelu"),
    "rotary_emb_base": (500000, "rotary_emb_base 500000, and the weights rotary_base 10000"),
    "layer_norm_eps": (1e-6, "layer_norm_eps 1e-06, and the weights norm_eps 1e-05"),
}


@pytest.mark.parametrize("key", SAID)
def test_a_config_json_that_contradicts_is_refused_with_both_values(write, key):
    path = write()
    value, message = SAID[key]
    path.with_name("config.json").write_text(json.dumps({key: value}))
    with pytest.raises(CheckpointError, match=message):
        load(path, 2, rotary_fraction=0.25, context=2048)


@pytest.mark.parametrize(
    "content", ["{", "[]", "null", '"x"', '{"num_attention_heads": "x"}', '{"num_attention_heads": [2]}',
                '{"num_attention_heads": -2}', '{"rotary_pct": "x"}', '{"rotary_pct": NaN}', '{"seq_length": 1e999}',
                "[" * 100_000, '{"seq_length": ' + "9" * 5000 + "}", b"\xff\xfe\x00"]
)  # fmt: skip
def test_a_config_json_that_makes_no_sense(write, content):
    path = write()
    data = content if isinstance(content, bytes) else content.encode()
    path.with_name("config.json").write_bytes(data)
    with pytest.raises(CheckpointError):
        checkpoint.load_official(path, None if "heads" in str(content) else 2)


def test_files_that_are_not_there_or_something_else(tmp_path, write):
    with pytest.raises(FileNotFoundError, match="no file"):
        load(tmp_path / "nothing.bin")
    with pytest.raises(CheckpointError, match="a device"):
        load(os.devnull)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(FileNotFoundError, match=r"no pytorch_model.bin.*it has model.safetensors"):
        load(tmp_path)
    others = {
        "empty": b"",
        "text": b"hello world\n" * 9,
        "zip": b"PK\x03\x04" + bytes(90),
        "zeros": bytes(100),
        "pickle": pickle.dumps([1, 2], 2),
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{tmp_path / name} "):
            load(tmp_path / name)
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(CheckpointError, match=r"not of torch: it holds x.npy"):
        load(tmp_path / "a.npz")
    checkpoint.save(tmp_path / "m.safetensors", random_params(CONFIG), CONFIG)
    with pytest.raises(CheckpointError, match=r"safetensors file: checkpoint.load reads"):
        load(tmp_path / "m.safetensors")
    path = write(state={"module": {"a": torch.zeros(2)}, "iteration": 3})
    with pytest.raises(CheckpointError, match="module, iteration that are no tensors"):
        load(path)


# ------------------------------------------------------------------------------------- the way back


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_save_official_is_read_by_torch_and_by_us(tmp_path, dtype):
    params = random_params(CONFIG, dtype=dtype)
    path = tmp_path / "pytorch_model.bin"
    checkpoint.save_official(path, params, CONFIG)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    ours = official.to_official(params, CONFIG)
    for options in ({}, {"mmap": True}):
        theirs = torch.load(path, weights_only=True, **options)
        assert list(theirs) == list(ours)
        assert all(np.array_equal(theirs[name].numpy(), ours[name]) for name in ours)
    Released(CONFIG).load_state_dict(theirs, strict=True)
    loaded, config = load(path, dtype=dtype)
    assert config == CONFIG and same(loaded, params)
    written = path.read_bytes()
    assert zipfile.ZipFile(path).testzip() is None
    checkpoint.save_official(path, loaded, config)  # onto the file that is mapped
    assert path.read_bytes() == written
    assert same(loaded, params)


def test_a_folder_gets_a_config_json_once(tmp_path):
    params = random_params(CONFIG)
    checkpoint.save_official(tmp_path, params, CONFIG)
    loaded, config = checkpoint.load_official(tmp_path, dtype=None)
    assert config == CONFIG and same(loaded, params)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["num_attention_heads"] == 2 and settings["proj_slot_num"] == 6
    (tmp_path / "config.json").write_text(json.dumps(settings | {"mine": 1}))
    checkpoint.save_official(tmp_path, params, CONFIG)
    assert "mine" in (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text('{"of": "another program"}')
    checkpoint.save_official(tmp_path, params, CONFIG)
    assert "another program" in (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(json.dumps(settings))
    grown, larger = growth.grow(params, CONFIG, ffn_tokens=9, tau="rescale")
    with pytest.raises(CheckpointError, match="ffn_slot_num 7, and this model ffn_tokens 9"):
        checkpoint.save_official(tmp_path, grown, larger)
    assert same(checkpoint.load_official(tmp_path, dtype=None)[0], params)


def test_a_grown_model_goes_back_when_tau_has_arrived(tmp_path):
    params, config = growth.grow(random_params(CONFIG), CONFIG, attention_tokens=8, ffn_tokens=10)
    path = tmp_path / "grown.bin"
    with pytest.raises(CheckpointError, match=r"attention_tau is 2.236.*sqrt\(8\) = 2.828.*anneal_tau"):
        checkpoint.save_official(path, params, config)
    assert not path.exists()
    config = growth.anneal_tau(config, 1)
    checkpoint.save_official(path, params, config)
    loaded, its = load(path, dtype=None)
    ids = np.arange(5)
    assert np.array_equal(model.forward(loaded, ids, its)[0], model.forward(params, ids, config)[0])
    with torch.no_grad():
        theirs = Released(its).double()
        theirs.load_state_dict(torch.load(path, weights_only=True))
        logits = theirs(torch.tensor(ids)[None])[0].numpy()
    assert relative_error(model.forward(params, ids, config)[0], logits) < 1e-12


@pytest.mark.parametrize("change", [{"theta": "softmax"}, {"ffn_blocks": 2}, {"parametric_norm": True}, {"tied": False},
                                    {"approximate": "tanh"}, {"norm_eps": 1e-6}, {"proj_tau": 3.0}])  # fmt: skip
def test_what_the_release_does_not_compute_is_not_written(tmp_path, change):
    config = tokenformer(**change)
    with pytest.raises(CheckpointError, match=f"{next(iter(change))} is"):
        checkpoint.save_official(tmp_path / "x.bin", random_params(config), config)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(CheckpointError, match="a Transformer has no official layout"):
        checkpoint.save_official(tmp_path, random_params(transformer()), transformer())
    with pytest.raises(ValueError, match="shape"):
        checkpoint.save_official(tmp_path, random_params(transformer()), CONFIG)
    wide = tree_map(lambda a: a.astype(np.longdouble), random_params(CONFIG))
    if np.dtype(np.longdouble).itemsize > 8:
        with pytest.raises(CheckpointError, match="float16, 32 or 64"):
            checkpoint.save_official(tmp_path, wide, CONFIG)
    with pytest.raises(FileNotFoundError, match="no folder"):
        checkpoint.save_official(tmp_path / "no" / "x.bin", random_params(CONFIG), CONFIG)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.bin"
    checkpoint.save_official(path, random_params(CONFIG), CONFIG)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile._ZipWriteFile, "write", full)
    with pytest.raises(CheckpointError, match=r"before is untouched: No space left"):
        checkpoint.save_official(path, random_params(CONFIG, seed=1), CONFIG)
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == [path.name]


# ------------------------------------------------------------------------------------- hostile files


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def as_file(path, form, data_pkl):
    """A file of torch's format around a pickle."""
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", data_pkl)
            archive.writestr("x/data/0", bytes(16))
        return path
    head = [official.MAGIC, official.PROTOCOL, {"protocol_version": 1001, "little_endian": True}]
    head = b"".join(pickle.dumps(part, 2) for part in head)
    path.write_bytes(head + data_pkl + pickle.dumps(["0"], 2) + struct.pack("<Q", 4) + bytes(16))
    return path


def glob(name):
    module, name = name.rsplit(".", 1)
    return f"c{module}\n{name}\n".encode()


def text(string):
    return b"X" + struct.pack("<I", len(string)) + string.encode()


STORAGE = b"(" + text("storage") + glob("torch.FloatStorage") + text("0") + text("cpu") + b"K\x04tQ"
REBUILD = glob("torch._utils._rebuild_tensor_v2")
EMPTY = glob("collections.OrderedDict") + b")R"


def tensor(offset=b"K\x00", shape=b"K\x02K\x02\x86", strides=b"K\x02K\x01\x86", storage=STORAGE):
    return REBUILD + b"(" + storage + offset + shape + strides + b"\x89" + EMPTY + b"tR"


def state(value, name=b"X\x01\x00\x00\x00a"):
    return b"\x80\x02" + EMPTY + b"(" + name + value + b"u."


def hostile(canary):
    """{label: (pickle, what the error names)}; each would make the canary if it ran."""
    command = f"touch {canary}"
    python = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    run = glob("os.system") + text(command) + b"\x85R"
    instance = f"S'{command}'\n".encode()
    return {
        "os.system": (pickle.dumps({"a": Calls(os.system, command)}, 2), "posix.system|nt.system"),
        "protocol 5": (pickle.dumps({"a": Calls(os.system, command)}, 5), "posix.system|nt.system"),
        "protocol 0": (pickle.dumps({"a": Calls(os.system, command)}, 0), "DICT|PUT|posix.system"),
        "eval": (pickle.dumps({"a": Calls(eval, python)}, 2), "__builtin__.eval"),
        "exec": (pickle.dumps({"a": Calls(exec, python)}, 4), "builtins.exec"),
        "Popen": (pickle.dumps({"a": Calls(subprocess.Popen, ["touch", str(canary)])}, 4), "subprocess.Popen"),
        "getattr": (state(glob("builtins.getattr") + glob("os.system") + text("a") + b"\x86R"), "builtins.getattr"),
        "in the shape": (state(tensor(shape=run)), "os.system"),
        "in the storage": (state(tensor(storage=b"(" + text("storage") + run + b"tQ")), "os.system"),
        "as a name": (state(b"N", name=run), "os.system"),
        "in the hooks": (state(REBUILD + b"(" + STORAGE + b"K\x00))\x89" + run + b"tR"), "os.system"),
        "in the metadata": (b"\x80\x02" + EMPTY + b"}" + text("_metadata") + run + b"sb.", "os.system"),
        "a parameter of it": (state(glob("torch._utils._rebuild_parameter") + b"(" + run + b"\x88" + EMPTY + b"tR"),
                              "os.system"),
        "dotted": (state(glob("torch._utils.os") + b")R"), "torch._utils.os"),
        "dotted in the class": (b"\x80\x04" + text("collections") + text("OrderedDict.__class__") + b"\x93.",
                                "collections.OrderedDict.__class__"),
        "torch.load": (state(glob("torch.load") + text(str(canary)) + b"\x85R"), "torch.load"),
        "torch's other storages": (state(glob("torch.LongStorage")), "torch.LongStorage"),
        "INST": (state(b"(" + instance + b"ios\nsystem\n"), "STRING"),
        "INST with text": (state(b"(" + text(command) + b"ios\nsystem\n"), "INST"),
        "OBJ": (state(b"(" + glob("collections.OrderedDict") + text(command) + b"o"), "OBJ"),
        "NEWOBJ": (state(glob("collections.OrderedDict") + b")\x81"), "NEWOBJ"),
        "EXT1": (state(b"\x82\x01"), "EXT1"),
        "calls a dict": (state(b"}" + text(command) + b"\x85R"), "no function"),
        "calls a storage": (state(glob("torch.FloatStorage") + b"K\x04\x85R"), "no function"),
        "calls text": (state(text("os.system") + text(command) + b"\x85R"), "no function"),
        "builds a tensor": (state(tensor() + b"}b"), "BUILD"),
        "no storage": (state(STORAGE.replace(text("storage"), text("module"))), "no storage"),
        "another thing for a storage": (state(tensor(storage=text("0"))), "no.*tensor|empty, or none"),
        "long name": (state(glob("a." + "b" * 5000)), "asks for a.bbb"),
    }  # fmt: skip


LABELS = [*hostile("x")]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("label", LABELS)
def test_hostile_pickles_are_refused_by_name_and_run_nothing(tmp_path, form, label):
    canary = tmp_path / "canary"
    data, named = hostile(canary)[label]
    path = as_file(tmp_path / "x.bin", form, data)
    with pytest.raises(CheckpointError, match=named) as refused:
        load(path)
    assert not canary.exists() and len(str(refused.value)) < 1000
    path.write_bytes(data)  # and the bare pickle
    with pytest.raises(CheckpointError):
        load(path)
    assert not canary.exists()


def test_the_hostile_pickles_are_what_they_claim(tmp_path):
    canary = tmp_path / "canary"
    for label in ("os.system", "eval", "exec", "protocol 0", "protocol 5"):
        pickle.loads(hostile(canary)[label][0])
        assert canary.exists(), label
        canary.unlink()


def test_a_hostile_pickle_in_each_place_of_the_stream(tmp_path, write):
    good = write("stream").read_bytes()
    canary = tmp_path / "canary"
    bad = hostile(canary)["os.system"][0]
    stream, ends = io.BytesIO(good), [0]
    for _ in range(5):
        official._unpickle(stream, {})
        ends.append(stream.tell())
    for start, end in itertools.pairwise(ends):
        (tmp_path / "x.bin").write_bytes(good[:start] + bad + good[end:])
        with pytest.raises(CheckpointError, match="posix.system|nt.system"):
            load(tmp_path / "x.bin")
    assert not canary.exists()


def int1(n):
    data = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


HUGE = int1(1 << 2000)
ABSURD = {
    "a large shape": tensor(shape=int1(1 << 40) + b"K\x01\x86"),
    "a huge shape": tensor(shape=HUGE + HUGE + b"\x86"),
    "a negative shape": tensor(shape=int1(-2) + int1(-2) + b"\x86"),
    "an empty shape": tensor(shape=b"K\x00K\x02\x86"),
    "a shape of bools": tensor(shape=b"\x88\x88\x86"),
    "a shape of floats": tensor(shape=b"G" + struct.pack(">d", 2) + b"K\x02\x86"),
    "a shape that is a number": tensor(shape=b"K\x04"),
    "many dimensions": tensor(shape=b"(" + b"K\x01" * 90 + b"t", strides=b"(" + b"K\x01" * 90 + b"t"),
    "dimensions of huge numbers": tensor(
        shape=HUGE + b"q\x07(" + b"h\x07" * 200_000 + b"t\x86", strides=b"(" + b"h\x07" * 200_000 + b"t"
    ),
    "strides of zero": tensor(strides=b"K\x00K\x00\x86"),
    "expanded": tensor(shape=b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", strides=b"K\x00K\x00\x86"),
    "overlapping strides": tensor(strides=b"K\x01K\x01\x86"),
    "large strides": tensor(strides=HUGE + b"K\x01\x86"),
    "negative strides": tensor(offset=b"K\x03", strides=int1(-2) + int1(-1) + b"\x86"),
    "fewer strides": tensor(strides=b"K\x01\x85"),
    "an offset": tensor(offset=b"K\x01"),
    "a negative offset": tensor(offset=int1(-1)),
    "a huge offset": tensor(offset=HUGE),
    "a storage larger than the file": tensor(storage=STORAGE.replace(b"K\x04tQ", int1(1 << 40) + b"tQ")),
    "a storage of huge size": tensor(storage=STORAGE.replace(b"K\x04tQ", HUGE + b"tQ")),
    "a storage without a size": tensor(storage=STORAGE.replace(b"K\x04tQ", b"tQ")),
    "a storage of another size": tensor(storage=STORAGE.replace(b"K\x04tQ", b"K\x05tQ")),
    "a storage that is not there": tensor(storage=STORAGE.replace(text("0"), text("../0"))),
    "a memo of huge index": b"Nr\xff\xff\xff\xff",
    "a memo that is not there": b"j\xff\xff\xff\xff",
    "text longer than the file": b"X\xff\xff\xff\xffabc",
    "long text of later protocols": b"\x8d" + struct.pack("<Q", 1 << 62) + b"abc",
    "bytes of huge size": b"\x8e" + struct.pack("<Q", 1 << 62),
    "a huge frame": b"\x95" + struct.pack("<Q", 1 << 62) + b"X\xff\xff\xff\x7f",
    "decimals": b"I" + b"9" * 10_000 + b"\n",
    "long decimals": b"L" + b"9" * 500_000 + b"L\n",
    "nested tuples as a name": b"}" + b")" + b"q\x01h\x01\x86" * 60 + b"Ns",
    "nested lists": b"]" * 30_000 + b"a" * 29_999,
    "nested tuples": b"N" + b"\x85" * 100_000,
    "a list of itself": b"]q\x01h\x01a",
    "a dict of itself": b"}q\x01" + text("a") + b"h\x01s",
    "text that is no text": b"X\x02\x00\x00\x00\xff\xff",
    "a name without an end": b"c" + b"a" * 500_000,
    "an empty stack": b"ttt",
    "no mark": b"u",
    "no pair": b"}(" + text("a") + b"u",
    "ends": b"",
    "a future protocol": b"\x80\x99",
    "more text than there may be": b"N" * (official.TEXT + 10),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("label", ABSURD)
def test_absurd_files_are_refused_in_little_time_and_memory(tmp_path, form, label):
    whole = state(ABSURD[label])
    path = as_file(tmp_path / "x.bin", form, whole[:-2] if label == "ends" else whole)
    refused_soon(path)


def refused_soon(path, match=None, megabytes=200):
    """A CheckpointError within a second or two (the machine may be busy), and with little memory."""
    tracemalloc.start(1)
    start = time.process_time()
    try:
        with pytest.raises(CheckpointError, match=match) as refused:
            load(path)
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1e6
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 5
    assert len(str(refused.value)) < 1000


def test_the_frame_of_the_absurd_files_is_good(tmp_path):
    for form in FORMATS:
        path = as_file(tmp_path / "x.bin", form, state(tensor()))
        assert np.array_equal(official.read_state_dict(path)["a"], np.zeros((2, 2), np.float32))


def test_zip_bombs_are_refused(tmp_path, write):
    good = write()
    path = tmp_path / "bomb.bin"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
    refused_soon(path, "compressed or encrypted")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(1 << 28))
    refused_soon(path, "compressed or encrypted")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", bytes(official.TEXT + 1))
    refused_soon(path, "bytes: it is damaged")
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(30_000):
            archive.writestr(f"x/data/{i}", b"")
    refused_soon(path, "directory of more than")


def test_entries_and_tensors_that_share_bytes_do_not_multiply_them(tmp_path):
    """A file of 4 MB whose 500 storages are all the same 4 MB, and one storage with 500 tensors of all of it."""
    path, count = tmp_path / "x.bin", 1 << 20

    def storage(key):
        return (
            b"("
            + text("storage")
            + glob("torch.FloatStorage")
            + text(key)
            + text("cpu")
            + int1(count)
            + b"tQ"
        )

    def build(storages):
        whole = b"".join(
            text(f"t{i}") + tensor(shape=int1(count) + b"\x85", strides=b"K\x01\x85", storage=storage(key))
            for i, key in enumerate(storages)
        )
        data = b"\x80\x02" + EMPTY + b"(" + whole + b"u."
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", data)
            archive.writestr("x/data/0", bytes(4 * count))
            first = archive.infolist()[-1]
            for key in sorted(set(storages) - {"0"}):
                copy = zipfile.ZipInfo(f"x/data/{key}")
                copy.header_offset, copy.file_size, copy.compress_size = (
                    first.header_offset,
                    4 * count,
                    4 * count,
                )
                copy.CRC = first.CRC
                archive.filelist.append(copy)
                archive.NameToInfo[copy.filename] = copy

    build([str(i) for i in range(500)])
    refused_soon(path, "more numbers than there are", megabytes=20)
    build(["0"] * 500)
    refused_soon(path, "overlap", megabytes=20)


def test_a_directory_that_says_something_else_than_the_entries(tmp_path, write):
    good = write().read_bytes()
    renamed = good.replace(b"/data/1", b"/data/x", 1)  # the entry, not the directory
    path = tmp_path / "x.bin"
    path.write_bytes(renamed)
    with pytest.raises(CheckpointError, match="no .*data/1 where its directory says"):
        load(path)
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x/data.pkl", state(tensor()))
        archive.writestr("x/data/0", bytes(16))
        archive.writestr("x/data/0", bytes(16))
    with pytest.raises(CheckpointError, match="not of torch"):
        load(path)


# --------------------------------------------------------------------------------------------- mutations


def mutate(data, rng):
    """A damaged copy: flipped bits, bytes overwritten, cut off, grown, a piece moved, zeroed or repeated."""
    data = bytearray(data)
    kind = rng.randrange(8)
    at = min(rng.randrange(len(data)), rng.randrange(len(data)))
    size = rng.choice((1, 2, 4, 8, 64, 1000))
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, ord("."), ord("R"), ord("c"), rng.randrange(256)))
    elif kind == 2:
        del data[at:]
    elif kind == 3:
        data[at:at] = rng.randbytes(size)
    elif kind == 4:
        del data[at : at + size]
    elif kind == 5:
        data[at : at + size] = bytes(len(data[at : at + size]))
    elif kind == 6:
        other = rng.randrange(len(data))
        data[at : at + size] = data[other : other + len(data[at : at + size])]
    else:
        for _ in range(rng.randrange(2, 20)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_700_mutations_of_a_file_are_read_as_torch_reads_them_or_refused(tmp_path, write, form, dtype):
    """2,800 over both formats: in pickle and directory, where it hurts, as often as in the numbers."""
    good = write(form, dtype).read_bytes()
    path, rng = tmp_path / "mutant.bin", random.Random(f"{form} {dtype}")
    original = official.read_state_dict(write(form, dtype))
    refused = read = 0
    for _ in range(700):
        mutant = mutate(good, rng)
        path.write_bytes(mutant)
        try:
            found = official.read_state_dict(path)
        except CheckpointError as error:
            assert str(path) in str(error) and len(str(error)) < 1000
            refused += 1
            continue
        read += 1
        right = original
        if (
            form == "stream"
        ):  # has no checksums: what torch reads is right, and where it stumbles, what was there
            with contextlib.suppress(Exception):
                right = torch.load(path, map_location="cpu", weights_only=True)
                right = {name: tensor.float().detach().numpy() for name, tensor in right.items()}
        assert found.keys() == right.keys()
        for name, array in found.items():
            assert array.shape == right[name].shape
            assert array.tobytes() == right[name].tobytes()
    assert refused > 300 and read > 0, (refused, read)


@pytest.mark.parametrize("form", FORMATS)
def test_mutations_of_a_whole_model_are_loaded_or_refused(tmp_path, write, form):
    """The same one floor up: names, shapes and config.json may now contradict each other."""
    path, rng = write(form), random.Random(f"model {form}")
    settings = path.with_name("config.json")
    said = {
        "num_attention_heads": 2,
        "hidden_size": 16,
        "num_layers": 3,
        "rotary_pct": 0.25,
        "seq_length": 64,
    }
    good, text_good = path.read_bytes(), json.dumps(said).encode()
    for i in range(200):
        path.write_bytes(mutate(good, rng) if i % 2 else good)
        settings.write_bytes(text_good if i % 2 else mutate(text_good, rng))
        try:
            params, config = checkpoint.load_official(path)
        except CheckpointError:
            continue
        model.check_params(params, config)
        assert config.d_model == 16


# ------------------------------------------------------------------------------------------------ memory

MEMORY = """
import sys
from minitf import checkpoint
from minitf.backend import tree_items

def peak():  # of this process alone; ru_maxrss would begin with the parent's
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024

before = peak()
params, config = checkpoint.load_official(sys.argv[1], 4)
total = sum(float(array.sum()) for _, array in tree_items(params))  # touches every number
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux's /proc")
@pytest.mark.parametrize("form", FORMATS)
def test_loading_takes_at_most_1_3_times_the_file(tmp_path, form):
    config = tokenformer(
        vocab_size=20_000, context=2048, d_model=256, n_heads=4, attention_tokens=1024, ffn_tokens=4096
    )
    arrays = official.to_official(model.init_params(config), config)
    path = torch_save(tmp_path / "x.bin", {n: torch.from_numpy(a) for n, a in arrays.items()}, form)
    size = path.stat().st_size
    assert size > 50e6
    result = subprocess.run([sys.executable, "-c", MEMORY, path], cwd=Path(official.__file__).parents[1],
                            capture_output=True, text=True)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert 0.9 < int(result.stdout) / size < 1.3
