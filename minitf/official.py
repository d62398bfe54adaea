"""The officially released weights, read and written without torch.

A released `pytorch_model.bin` is a state dict: names and arrays, 10 per layer and three more. Three details trip
every re-implementation:

    rotary     turns only a quarter of each head's channels (`rotary_pct`), the first ones
    tau        is √n and stands inside theta, GeLU(√n a / |a|): scaling the scores themselves changes nothing
    norms      those of the blocks have no parameters, the final one has weight and bias

The file itself is a pickle, a program that builds objects, with the numbers beside it. Running a stranger's pickle
runs whatever the stranger liked, so `_unpickle` is a machine of its own that knows the few instructions and names
of a state dict, refuses every other one by its name, and can do nothing but make lists, dicts and `_Tensor`s.
"""

import json
import math
import mmap
import os
import pickletools
import re
import struct
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .backend import to_host, tree_from_items, tree_items
from .model import PARTS, TokenformerConfig, check_params, parameter_shapes

WEIGHTS = "pytorch_model.bin"
FIXED = {  # what every released model has in common, and its files therefore do not say
    "theta": "l2_norm_gelu",
    "ffn_blocks": 1,
    "parametric_norm": False,
    "tied": True,
    "approximate": "none",
    "norm_eps": 1e-5,
    "ffn_top_k": None,
}
SETTINGS = {  # what the keys of config.json are about
    "num_attention_heads": "n_heads",
    "rotary_pct": "rotary_fraction",
    "max_position_embeddings": "context",
    "seq_length": "context",
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_layers": "n_layers",
    "qkv_slot_num": "attention_tokens",
    "proj_slot_num": "proj_tokens",
    "ffn_slot_num": "ffn_tokens",
    "norm_activation_type": "theta",
    "layer_norm_eps": "norm_eps",
    "rotary_emb_base": "rotary_base",
}


class CheckpointError(ValueError):
    """A file that cannot be read or written as a checkpoint; the message says what is wrong with it."""


# ------------------------------------------------------------------------------------ names and settings


def official_names(n_layers):
    """{official name: minitf's name} of every array, in the order of the release's state dict.

    The indices count the release's list of modules, of which the second and the one after the blocks have no
    parameters (release: GPT2ModelPipe.to_sequential).

    >>> list(official_names(1).items())[1:3]
    [('sequential.2.attention.query.key_param_tokens', 'block_0.attention.query.key'),
     ('sequential.2.attention.query.value_param_tokens', 'block_0.attention.query.value')]
    """
    names = {"sequential.0.word_embeddings.weight": "embedding.weight"}
    layers = {f"attention.{name}": f"attention.{name}" for name in ("query", "key", "value", "proj")}
    for i in range(n_layers):
        for official, ours in (layers | {"mlp": "ffn"}).items():
            for column in ("key", "value"):
                names[f"sequential.{i + 2}.{official}.{column}_param_tokens"] = f"block_{i}.{ours}.{column}"
    return names | {f"sequential.{n_layers + 3}.norm.{name}": f"norm.{name}" for name in ("weight", "bias")}


def load_official(path, n_heads=None, rotary_fraction=None, context=None, dtype=np.float32):
    """Read (params, config) from a released pytorch_model.bin, or from the folder that holds it.

    Reads both of torch's file formats, with float32, float16, bfloat16 (and float64) arrays, converted to dtype;
    None keeps what NumPy has. Arrays that need no conversion are mapped into memory copy-on-write: they may be
    changed and the file does not, but the file must not be overwritten in place while they live.
    Weights do not say their n_heads: a config.json beside the file does, or the argument must. rotary_fraction
    and context: None takes config.json's, without one 0.25 and 2048. What config.json says is checked.
    Raises FileNotFoundError, and CheckpointError for a file that is damaged, hostile, or another model's.

    >>> load_official("TokenFormer-150M", n_heads=12)  # doctest: +SKIP
    ({'embedding': {'weight': array(...)}, ...}, TokenformerConfig(vocab_size=50304, context=2048, ...))
    """
    path = weights_file(path)
    settings, arrays, chosen = _settings(path), read_state_dict(path, dtype), {}
    for field, value, default in (
        ("n_heads", n_heads, None),
        ("rotary_fraction", rotary_fraction, 0.25),
        ("context", context, 2048),
    ):
        if value is not None:
            _agree(path, settings, {field: value}, "the argument")
        said = (settings[key] for key, about in SETTINGS.items() if about == field and key in settings)
        chosen[field] = next(said, default) if value is None else value
    if chosen["n_heads"] is None:
        raise CheckpointError(
            f"{path} does not say how many heads the model has, and there is no config.json beside it that does: "
            "pass n_heads (the released models have 12 or 16)"
        )
    try:
        params, config = from_official(arrays, **chosen)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    _agree(path, settings, _facts(config), "the weights")
    return params, config


def from_official(arrays, n_heads, rotary_fraction=0.25, context=2048):
    """(params, config) of a state dict that is already in memory: {official name: array}, sizes by the shapes.

    The arrays are taken over, not copied. Raises CheckpointError that names what is missing, unknown or of
    another shape than it must have.
    """
    blocks = {
        found[1] for name in arrays if (found := re.match(r"sequential\.(\d+)\.(attention|mlp)\.", name))
    }
    names = official_names(len(blocks))
    missing, unknown = [n for n in names if n not in arrays], [n for n in arrays if n not in names]
    if missing or unknown or not blocks:
        found = f"{len(blocks)} blocks by its names, but it"
        raise CheckpointError(
            f"this state dict has {found} lacks {_some(missing)} and has the unknown {_some(unknown)}: "
            "is it a model of the TokenFormer release?"
        )
    wrong = [n for n in names if getattr(getattr(arrays[n], "dtype", None), "kind", "") != "f"]
    if wrong:
        raise CheckpointError(f"{_some(wrong)}: these must be float arrays of NumPy or CuPy")
    first = "sequential.2.{}.key_param_tokens".format
    (vocab_size, d_model), (attention, _), (proj, _), (ffn, _) = (
        _two(name, arrays[name].shape)
        for name in (next(iter(names)), first("attention.query"), first("attention.proj"), first("mlp"))
    )
    try:
        config = TokenformerConfig(
            vocab_size=vocab_size,
            context=context,
            n_layers=len(blocks),
            d_model=d_model,
            n_heads=n_heads,
            attention_tokens=attention,
            ffn_tokens=ffn,
            proj_tokens=None if proj == attention else proj,
            rotary_fraction=rotary_fraction,
            **FIXED,
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"shapes and settings make no model: {error}") from error
    shapes = dict(tree_items(parameter_shapes(config)))
    for name, ours in names.items():
        if arrays[name].shape != shapes[ours]:
            raise CheckpointError(
                f"{name} has shape {arrays[name].shape}, beside the others it must have {shapes[ours]}"
            )
    dtypes = sorted({str(arrays[name].dtype) for name in names})
    if len(dtypes) > 1:
        raise CheckpointError(f"the arrays have dtypes {' and '.join(dtypes)}: convert them to one")
    return tree_from_items((ours, arrays[name]) for name, ours in names.items()), config


def to_official(params, config):
    """{official name: array} of a Tokenformer, the way back from `from_official`; arrays on the host, not copied.

    Raises CheckpointError for what the release's code does not compute, above all a tau that growth has held.
    """
    if not isinstance(config, TokenformerConfig):
        raise CheckpointError("the release has Tokenformers only: a Transformer has no official layout")
    check_params(params, config)
    for field, released in FIXED.items():
        if getattr(config, field) != released:
            raise CheckpointError(
                f"{field} is {getattr(config, field)!r} and the release always computes {released!r}: "
                "this model has no official layout"
            )
    for part in PARTS:
        tau, root = config.tau(part), math.sqrt(config.tokens(part))
        if not math.isclose(tau, root, rel_tol=1e-9):
            raise CheckpointError(
                f"{part}_tau is {tau:.6g} and the release always computes sqrt({config.tokens(part)}) = {root:.6g}, "
                "so its code would see another function: train with TrainConfig(anneal_share=...) until "
                "growth.anneal_tau has come to progress 1, or grow with tau='rescale', and save then"
            )
    ours = dict(tree_items(to_host(params)))
    return {official: ours[name] for official, name in official_names(config.n_layers).items()}


def official_files(path, params, config):
    """[(path, bytes or a function that writes to an open file)]: what `checkpoint.save_official` writes where."""
    folder = Path(path).is_dir()
    path = Path(path) / WEIGHTS if folder else Path(path)
    arrays, settings = to_official(params, config), _settings(path)
    for name, array in arrays.items():
        if array.dtype not in STORAGES.values():
            raise CheckpointError(
                f"{name} is {array.dtype}: torch's files are written with float16, 32 or 64"
            )
    _agree(path, settings, _facts(config), "this model")
    files = [(path, lambda file: write_state_dict(file, arrays))]
    if folder and not path.with_name("config.json").exists():
        facts = _facts(config)
        settings = {"architectures": ["TokenFormerForCausalLM"], "vocab_size": config.vocab_size}
        settings |= {
            key: facts[about] for key, about in SETTINGS.items() if key not in ("seq_length", "num_layers")
        }
        files.append((path.with_name("config.json"), (json.dumps(settings, indent=2) + "\n").encode()))
    return files


def weights_file(path):
    """The file of weights that a path means: itself, or pytorch_model.bin in the folder."""
    path = Path(path)
    if path.is_dir():
        if not (path / WEIGHTS).is_file():
            held = _some(sorted(entry.name for entry in path.iterdir()))
            raise FileNotFoundError(f"there is no {WEIGHTS} in the folder {path}; it has {held}")
        return path / WEIGHTS
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():
        raise CheckpointError(f"{path} is a device or a pipe, and no file")
    return path


def _facts(config):
    """What a config.json can say about a model, by our names."""
    fields = {about: getattr(config, about, None) for about in SETTINGS.values()}
    return fields | {"proj_tokens": config.tokens("proj"), "rotary_base": 10000}


def _settings(path):
    """The config.json beside a file of weights, as far as we know its keys; {} without one."""
    path = path.with_name("config.json")
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_bytes()[:TEXT])
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} holds a {type(settings).__name__}, not settings by their names")
    return {key: settings[key] for key in SETTINGS if settings.get(key) is not None}


def _agree(path, settings, facts, source):
    for key, said in settings.items():
        if SETTINGS[key] in facts and facts[SETTINGS[key]] != said:
            raise CheckpointError(
                f"{path.with_name('config.json')} says {key} {_short(said)}, and {source} {SETTINGS[key]} "
                f"{facts[SETTINGS[key]]}: which is right? Correct one, or keep the weights in a folder of their own"
            )


def _two(name, shape):
    if len(shape) != 2:
        raise CheckpointError(f"{name} has shape {shape}: it must be a matrix")
    return shape


def _some(names):
    """A few of many names, for a message."""
    names = [_short(name) for name in names]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") or "nothing"


def _short(value):
    text = value if isinstance(value, str) and value.isprintable() else ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


# ------------------------------------------------------------------------------------- torch's two formats

TEXT = 1 << 20  # bytes of pickle or directory that are read at most; the released models have under 100,000
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how the older format begins
STORAGES = {  # torch's name of an array's numbers: how NumPy reads them
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "DoubleStorage": np.dtype("<f8"),
    "BFloat16Storage": np.dtype("<u2"),  # the upper half of a float32
}


class _StorageType(NamedTuple):
    dtype: np.dtype


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    count: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int  # offset and strides in numbers, not bytes
    shape: tuple
    strides: tuple

    @property
    def span(self):
        """How many numbers lie from the first to the last one."""
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))


def read_state_dict(path, dtype=np.float32):
    """{name: array} of a file that torch.save wrote from a state dict, in either format; torch is not needed.

    dtype: as in `load_official`. Numbers are mapped where they need no conversion. Zip archives carry checksums,
    which are verified; the older stream has none. Neither more memory nor more time is taken than the size of the
    file explains. Raises CheckpointError for every other file, and runs nothing that is in it.
    """
    if dtype is not None and np.dtype(dtype) not in (np.float16, np.float32, np.float64):
        raise ValueError(f"dtype is {dtype}: choose float16, float32, float64, or None to keep the file's")
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(9)
            if not start:
                raise CheckpointError("is empty")
            if start[8:] == b"{":
                raise CheckpointError(
                    "is a safetensors file: checkpoint.load reads one of minitf's, and one with the release's names "
                    "goes through from_official(safetensors.numpy.load_file(path), n_heads)"
                )
            tensors, places = (_read_zip if start.startswith(b"PK") else _read_stream)(file, size)
            # an array must be explained by the bytes of the file, whatever shapes and strides may say
            if sum(tensor.span * tensor.storage.dtype.itemsize for tensor in tensors.values()) > size:
                raise CheckpointError("has tensors that overlap: together they are larger than the file")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            return {
                name: _array(tensor, places[tensor.storage.key], file, mapped, dtype)
                for name, tensor in tensors.items()
            }
    except FileNotFoundError:
        raise
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


def _read_zip(file, size):
    """Tensors by name, and the place in the file of every storage, from the format since torch 1.6."""
    try:
        infos = zipfile.ZipFile(_Cautious(file)).infolist()
    except CheckpointError:
        raise
    except Exception as error:  # zipfile lets many kinds out
        raise CheckpointError(f"is a zip archive that is cut off or damaged ({error})") from error
    entries = {info.orig_filename: info for info in infos}
    roots = [name.removesuffix("data.pkl") for name in entries if re.fullmatch(r"[^/]*/data\.pkl", name)]
    if len(entries) < len(infos) or len(roots) != 1:
        raise CheckpointError(
            f"is a zip archive, but not of torch: it holds {_some(i.filename for i in infos)}"
        )

    def place(name, limit):
        if roots[0] + name not in entries:
            raise CheckpointError(f"lacks {_short(name)}, which its pickle or its format asks for")
        return _entry(file, entries[roots[0] + name], size, limit)

    def text(name):
        at, length = place(name, TEXT)
        file.seek(at)
        return file.read(length)

    if f"{roots[0]}byteorder" in entries and text("byteorder") != b"little":
        raise CheckpointError("has numbers with the highest byte first: load and save it with torch once")
    storages = {}
    tensors = _state_dict(_unpickle(BytesIO(text("data.pkl")), storages))
    if sum(storage.count * storage.dtype.itemsize for storage in storages.values()) > size:
        raise CheckpointError("is cut off, or its pickle asks for more numbers than there are")
    places = {}
    for key, storage in storages.items():
        places[key], length = place(f"data/{key}", size)
        if length != storage.count * storage.dtype.itemsize:
            raise CheckpointError(f"has {length} bytes in data/{_short(key)} for {storage.count} numbers")
    return tensors, places


def _entry(file, info, size, limit):
    """Where the bytes of an entry of a zip archive begin, and how many there are; checked, checksum included."""
    name = _short(info.orig_filename)
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
        raise CheckpointError(
            f"has {name} compressed or encrypted, which torch never does: repack it without"
        )
    if not 0 <= info.file_size <= limit:
        raise CheckpointError(f"has a {name} of {info.file_size} bytes: it is damaged, or no state dict")
    lost = CheckpointError(f"is cut off or damaged: there is no {name} where its directory says")
    if not 0 <= info.header_offset <= size - 30:
        raise lost
    file.seek(info.header_offset)
    signature, *_, n_name, n_extra = struct.unpack("<4s5H3L2H", file.read(30))
    at = info.header_offset + 30 + n_name + n_extra
    encoded = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
    if signature != b"PK\x03\x04" or file.read(n_name) != encoded or at + info.file_size > size:
        raise lost
    file.seek(at)
    checksum = 0
    for start in range(0, info.file_size, TEXT):
        checksum = zlib.crc32(file.read(min(TEXT, info.file_size - start)), checksum)
    if info.CRC not in (checksum, 0):  # 0: torch was told to write none
        raise CheckpointError(f"is damaged: {name} does not match its checksum; use another copy")
    return at, info.file_size


class _Cautious:
    """A file that reads no more than TEXT at once, however large a directory the zip archive says it has."""

    def __init__(self, file):
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size=-1):
        data = self._read(TEXT + 1 if size < 0 else min(size, TEXT + 1))
        if len(data) > TEXT:
            raise CheckpointError(f"has a directory of more than {TEXT} bytes: no state dict needs that")
        return data


def _read_stream(file, size):
    """The same from the older format: five pickles in a row, then all numbers."""
    file.seek(0)
    stream, storages = BytesIO(file.read(TEXT)), {}
    magic, protocol, system = (_unpickle(stream, None) for _ in range(3))
    if magic != MAGIC or protocol != PROTOCOL or not isinstance(system, dict):
        raise CheckpointError("is a pickle, but none that torch.save wrote")
    if system.get("little_endian") is not True:
        raise CheckpointError("has numbers with the highest byte first: load and save it with torch once")
    tensors = _state_dict(_unpickle(stream, storages))
    keys = _unpickle(stream, None)
    if type(keys) is not list or not all(type(key) is str for key in keys) or len(set(keys)) < len(keys):
        raise CheckpointError("is damaged: after its tensors there is no list of storages")
    if set(keys) != set(storages):
        raise CheckpointError(f"has a list of storages that differs: {_some(set(keys) ^ set(storages))}")
    at, places = stream.tell(), {}
    for key in keys:
        file.seek(at)
        counted = file.read(8)
        if counted != struct.pack("<Q", storages[key].count):
            raise CheckpointError(
                f"is cut off or damaged: storage {_short(key)} has another size than announced"
            )
        places[key] = at + 8
        at += 8 + storages[key].count * storages[key].dtype.itemsize
        if at > size:
            raise CheckpointError(f"is cut off in storage {_short(key)}")
    if at != size:
        raise CheckpointError(
            f"goes on for {size - at} bytes after its last storage: it is no state dict alone"
        )
    return tensors, places


def _state_dict(found):
    if type(found) is not dict:
        raise CheckpointError(f"holds one {type(found).__name__} and no state dict: save that alone")
    others = [name for name, tensor in found.items() if type(tensor) is not _Tensor]
    if others:
        raise CheckpointError(
            f"has {_some(others)} that are no tensors: save the state dict alone, without optimizer and settings"
        )
    return found


def _array(tensor, at, file, mapped, dtype):
    """The numbers of a tensor: a part of the mapped file where that will do, a converted copy where not."""
    stored, brain = tensor.storage.dtype, tensor.storage.dtype.kind == "u"  # bfloat16: "brain floating point"
    target = np.dtype(dtype) if dtype is not None else np.dtype(np.float32 if brain else stored)
    at += tensor.offset * stored.itemsize
    if stored == target and at % stored.itemsize == 0:
        numbers = np.frombuffer(mapped, stored, tensor.span, at)
    else:  # read, not mapped, so that what is only converted does not stay in memory
        numbers = np.empty(tensor.span, stored)
        file.seek(at)
        if file.readinto(numbers.view(np.uint8)) < numbers.nbytes:
            raise CheckpointError("became shorter while it was read")
        if brain:
            numbers = (numbers.astype(np.uint32) << np.uint32(16)).view(np.float32)
        numbers = numbers.astype(target, copy=False)
    if tensor.strides == _row_major(tensor.shape):
        return numbers.reshape(tensor.shape)
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides).copy()


def _row_major(shape):
    """The strides of an array without gaps, in numbers."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


# ------------------------------------------------------------------------------------- the pickle machine


def _unpickle(stream, storages):
    """Run one pickle with the instructions and names that a state dict needs; storages collects the _Storages.

    Keys of dicts must be text (hashing nested tuples can take forever) and the memo is a dict (pickle's own is an
    array as long as the largest index). torch's weights_only has such a machine too.
    """
    stack, marks, memo = [], [], {}

    def read(size):
        data = stream.read(size)
        if len(data) < size:
            raise CheckpointError(
                f"has a pickle of more than {TEXT} bytes: no state dict needs that"
                if stream.tell() >= TEXT
                else "is cut off in its pickle, or no file of torch.save"
            )
        return data

    def number(form):
        return struct.unpack(form, read(struct.calcsize(form)))[0]

    def text(size):
        return read(size).decode("utf-8", "surrogatepass")

    def take(at):
        """The items of the stack from `at` on, taken off."""
        if not 0 <= at <= len(stack):
            raise IndexError(at)
        items = stack[at:]
        del stack[at:]
        return items

    def set_items(items):
        if type(stack[-1]) is not dict or not all(type(key) is str for key in items[::2]):
            raise CheckpointError("has something else than text for a name in its pickle")
        stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def extend(items):
        if type(stack[-1]) is not list:
            raise TypeError("no list")
        stack[-1].extend(items)

    try:
        while True:
            match op := read(1):
                case b"\x80":
                    if number("B") > 5:
                        raise ValueError("protocol")
                case b"\x95":  # a frame: a hint for readers of slow files
                    read(8)
                case b"." if len(stack) == 1:
                    return stack.pop()
                case b"(":
                    marks.append(len(stack))
                case b"N" | b"\x88" | b"\x89":
                    stack.append({b"N": None, b"\x88": True, b"\x89": False}[op])
                case b"K" | b"M" | b"J" | b"G":
                    stack.append(number({b"K": "B", b"M": "<H", b"J": "<i", b"G": ">d"}[op]))
                case b"\x8a":
                    stack.append(int.from_bytes(read(number("B")), "little", signed=True))
                case b"X" | b"\x8c":
                    stack.append(text(number("<I" if op == b"X" else "B")))
                case b"}" | b"]" | b")":
                    stack.append({b"}": dict, b"]": list, b")": tuple}[op]())
                case b"t":
                    stack.append(tuple(take(marks.pop())))
                case b"\x85" | b"\x86" | b"\x87":
                    stack.append(tuple(take(len(stack) - (op[0] - 0x84))))
                case b"s":
                    set_items(take(len(stack) - 2))
                case b"u":
                    set_items(take(marks.pop()))
                case b"a":
                    extend(take(len(stack) - 1))
                case b"e":
                    extend(take(marks.pop()))
                case b"q" | b"r":
                    memo[number("B" if op == b"q" else "<I")] = stack[-1]
                case b"\x94":
                    memo[len(memo)] = stack[-1]
                case b"h" | b"j":
                    stack.append(memo[number("B" if op == b"h" else "<I")])
                case b"c":
                    stack.append(_known(*(stream.readline(TEXT).rstrip(b"\n").decode() for _ in range(2))))
                case b"\x93":
                    stack.append(_known(*take(len(stack) - 2)))
                case b"Q":
                    stack.append(_storage(stack.pop(), storages))
                case b"R":
                    function, arguments = take(len(stack) - 2)
                    if function not in CALLS.values():
                        raise CheckpointError("calls something in its pickle that is no function: refused")
                    stack.append(function(*arguments))
                case b"b" if (
                    type(stack[-2]) is dict
                ):  # what torch notes about versions of modules, not needed
                    stack.pop()
                case _:
                    if (known := pickletools.code2op.get(chr(op[0]))) is None:
                        raise ValueError("no instruction")
                    raise CheckpointError(
                        f"has the instruction {known.name} at byte {stream.tell() - 1} of its "
                        "pickle, where no state dict needs it: refused"
                    )
    except (IndexError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"is no file of torch.save, or its pickle is damaged at byte {stream.tell()} ({_short(repr(error))})"
        ) from error


def _known(module, name):
    """What stands for the function or class of this name, if a state dict needs it."""
    if type(module) is not str or type(name) is not str:
        raise TypeError("a name that is no text")
    asked = f"{module}.{name}"
    if asked in CALLS:
        return CALLS[asked]
    if module == "torch" and name in STORAGES:
        return _StorageType(STORAGES[name])
    raise CheckpointError(
        f"has a pickle that asks for {_short(asked)}: a state dict needs {', '.join(CALLS)} and the storages "
        f"{', '.join(STORAGES)} of torch, everything else is refused"
    )


def _storage(persistent_id, storages):
    kind, storage_type, key, device, count, *view = persistent_id
    if (
        storages is None
        or kind != "storage"
        or type(storage_type) is not _StorageType
        or view not in ([], [None])
    ):
        raise CheckpointError("refers to something that is no storage of torch: refused")
    if type(key) is not str or type(device) is not str or type(count) is not int or not 0 < count < 1 << 48:
        raise CheckpointError("has a storage without a name or of an absurd size")
    storage = _Storage(key, storage_type.dtype, count)
    if storages.setdefault(key, storage) != storage:
        raise CheckpointError(f"has two storages with the name {_short(key)}")
    return storage


def _ordered_dict():
    return {}


def _rebuild_tensor(storage, offset, shape, strides, requires_grad, hooks, metadata=None):
    if [type(part) for part in (shape, strides, requires_grad, hooks)] != [tuple, tuple, bool, dict]:
        raise TypeError("a tensor of other arguments")
    if len(shape) != len(strides) or len(shape) > 8:
        raise CheckpointError(f"has a tensor of {len(shape)} dimensions and {len(strides)} strides")
    numbers = (offset, *shape, *strides)
    if type(storage) is not _Storage or not all(type(n) is int and n >= 0 for n in numbers) or 0 in shape:
        raise CheckpointError("has a tensor that is empty, or none")
    tensor = _Tensor(storage, offset, shape, strides)
    if offset + tensor.span > storage.count or math.prod(shape) > tensor.span:
        raise CheckpointError(
            f"has a tensor of shape {_short(str(shape))}, strides {_short(str(strides))} and offset "
            f"{_short(str(offset))}: it does not fit into its storage of {storage.count} numbers"
        )
    return tensor


def _rebuild_parameter(tensor, requires_grad, hooks):
    return tensor


CALLS = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
}


# ------------------------------------------------------------------------------------------------- writing


def write_state_dict(file, arrays):
    """Write {name: array} to an open file as torch.save does since 1.6; torch.load(weights_only=True) reads it.

    Equal arrays give equal bytes. Nothing is copied but arrays that are not in C order.
    """
    with zipfile.ZipFile(file, "w") as archive:

        def write(name, data):
            info = zipfile.ZipInfo(f"archive/{name}")  # with the date 1980-01-01
            gap = (
                -(file.tell() + 30 + len(info.filename) + 4) % 64
            )  # numbers begin at multiples of 64, as torch's
            info.extra = struct.pack("<2sH", b"FB", gap) + b"Z" * gap
            archive.writestr(info, data)

        write("data.pkl", _pickle(arrays))
        write("byteorder", b"little")
        for i, array in enumerate(arrays.values()):
            array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
            write(f"data/{i}", memoryview(array.reshape(-1).view(np.uint8)))
        write("version", b"3\n")


def _pickle(arrays):
    """The pickle of a state dict whose i-th array lies in storage i, as `_unpickle` and torch run it."""

    def text(string):
        return b"X" + struct.pack("<I", len(string.encode())) + string.encode()

    def number(n):
        return b"J" + struct.pack("<i", n) if n < 1 << 31 else b"\x8a\x08" + struct.pack("<q", n)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    ordered_dict = b"ccollections\nOrderedDict\n)R"
    out = [b"\x80\x02", ordered_dict, b"("]
    for i, (name, array) in enumerate(arrays.items()):
        kind = next(kind for kind, dtype in STORAGES.items() if dtype == array.dtype)
        storage = [b"(", text("storage"), b"ctorch\n", kind.encode(), b"\n", text(str(i)), text("cpu")]
        storage += [number(array.size), b"tQ"]
        shape = [numbers(array.shape), numbers(_row_major(array.shape))]
        tensor = [
            b"ctorch._utils\n_rebuild_tensor_v2\n(",
            *storage,
            number(0),
            *shape,
            b"\x89",
            ordered_dict,
            b"tR",
        ]
        out += [text(name), *tensor]
    return b"".join([*out, b"u."])
