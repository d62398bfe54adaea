"""A damaged or hostile safetensors file is loaded right or refused with a reason, in little memory; nothing runs.

Every mutation is loaded in one child process whose address space is limited, so that a file which makes the
loader allocate too much kills the child instead of the machine, and in which Python's audit hook forbids
to unpickle, compile, start or connect to anything. As a program:

    python tests/test_fuzz_files.py 20000        # so many mutations; prints what was tried and what came of it
"""

import copy
import gzip
import io
import json
import math
import os
import pickle
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from helpers import fingerprint, tokenformer, transformer

from minitf import checkpoint, init_params, optim
from minitf.backend import tree_from_items, tree_map
from minitf.checkpoint import CheckpointError

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="memory is limited through /proc"
)
ROOT = Path(checkpoint.__file__).parents[1]
ROOM = (
    64 << 20
)  # bytes that loading any of the small files may take, beside a multiple of the file's own size
SECONDS = 20  # for one file: a loader that hangs is stopped
FORBIDDEN = (
    "pickle.",
    "marshal.",
    "compile",
    "exec",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.",
    "socket.",
)


class Forbidden(BaseException):
    """A file made the loader do what no file may make it do."""


# --------------------------------------------------------------------------------------------- the originals


def originals(folder):
    """Three valid files with everything that a checkpoint can hold: [(bytes, what load_training returns)]."""
    files = []
    for i, (config, dtype) in enumerate(
        [
            (tokenformer(ffn_tau=2.5), np.float32),
            (transformer(tied=False), np.float64),
            (tokenformer(), np.float16),
        ]
    ):
        params = init_params(config, seed=i, dtype=dtype)
        state = optim.adamw_init(params) if i < 2 else None
        extra = {"tokenizer": "aé😀", "history": [{"loss": 0.5}]} if i else None
        path = folder / "original.safetensors"
        checkpoint.save(path, params, config, state=state, extra=extra)
        files.append((path.read_bytes(), checkpoint.load_training(path)))
    return files


def taken_apart(content):
    """(header, data) of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put_together(header, data):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


# --------------------------------------------------------------------------------------------- the mutations
# Each takes (rng, content, other valid content) and returns a file.


def flipped_bits(rng, content, _):
    content = bytearray(content)
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(rng.choice([1, 1, 2, 8])):
        content[rng.randrange(rng.choice([8, header, len(content)]))] ^= 1 << rng.randrange(8)
    return bytes(content)


def overwritten_block(rng, content, other):
    at, length = rng.randrange(len(content)), rng.choice([1, 8, 64, 512])
    block = rng.choice([bytes(length), b"\xff" * length, rng.randbytes(length), other[at : at + length]])
    return content[:at] + block + content[at + length :]


def cut_or_extended(rng, content, other):
    at = rng.randrange(len(content))
    return rng.choice(
        [content[:at], content[at:], content + other[at:], content + bytes(8), content[:at] + other[at:]]
    )


def swapped_header(rng, content, other):
    header, data = taken_apart(content)
    other_header, other_data = taken_apart(other)
    return rng.choice(
        [
            put_together(other_header, data),
            put_together(header, other_data),
            put_together(header | {"__metadata__": other_header["__metadata__"]}, data),
            put_together(other_header | {"__metadata__": header["__metadata__"]}, other_data),
            put_together({k: v for k, v in header.items() if k != "__metadata__"}, data),
        ]
    )


def absurd_header_length(rng, content, _):
    near = int.from_bytes(content[:8], "little") + rng.randrange(-9, 10)
    lengths = [
        0,
        1,
        len(content),
        len(content) - 8,
        100_000_000,
        2**31,
        2**63,
        2**64 - 1,
        rng.getrandbits(64),
        near,
    ]
    return struct.pack("<Q", rng.choice(lengths)) + content[8:]


ODD_SIZES = (
    -1,
    0,
    1,
    7,
    2**31,
    2**32 + 1,
    2**62,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    1.5,
    1e308,
    "8",
    None,
    True,
    [],
    [1],
    {},
)
ODD_DTYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "F8_E4M3",
    "F8_E5M2",
    "I64",
    "U8",
    "BOOL",
    "C64",
    "F4",
    "O",
    "object",
    "",
    None,
    32,
    "f32",
)


def absurd_tensors(rng, content, _):
    """Shapes, dtypes and offsets that lie, overlap, repeat, or are no shapes, dtypes and offsets."""
    header, data = taken_apart(content)
    name = rng.choice([n for n in header if n != "__metadata__"])
    other = rng.choice([n for n in header if n != "__metadata__"])
    tensor = header[name]
    what = rng.randrange(10)
    if what == 0:
        tensor["shape"] = [rng.choice(ODD_SIZES) for _ in range(rng.randrange(4))]
    elif what == 1:
        tensor["shape"] = rng.choice(
            [[0, 2**62], [2**62, 4, 0], [1] * 70, [1] * 5000, [*tensor["shape"][::-1], 1]]
        )
    elif what == 2:
        same_size = {"F16": ["BF16", "I16", "U16"], "F32": ["I32", "U32"], "F64": ["I64", "U64", "C64"]}
        tensor["dtype"] = rng.choice([*same_size[tensor["dtype"]] * 5, *ODD_DTYPES])
    elif what == 3:
        tensor["data_offsets"] = [rng.choice(ODD_SIZES), rng.choice(ODD_SIZES)]
    elif what == 4:  # two tensors on the same bytes
        tensor["data_offsets"] = header[other]["data_offsets"]
    elif what == 5:
        header[name] = rng.choice([*ODD_SIZES, [tensor], {"dtype": "F32"}, tensor | {"extra": 1}])
    elif what == 6:  # a name twice: JSON allows it
        again = json.dumps({name: header[other]})[1:]
        return put_together(json.dumps(header).encode()[:-1] + b"," + again.encode(), data)
    elif what == 7:
        header[rng.choice(["", ".", "params", f"{name}.x", "params..", "__class__", "a" * 10000])] = (
            header.pop(name)
        )
    elif what == 8:
        header["__metadata__"] = rng.choice(
            [*ODD_SIZES, {"minitf": 3}, {"minitf": {}}, {}, {"minitf": "null"}]
        )
    else:  # an empty tensor more, and bytes that belong to no tensor
        end = max(t["data_offsets"][1] for n, t in header.items() if n != "__metadata__")
        header["params.more"] = {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}
        data += bytes(rng.choice([0, 4]))
    return put_together(header, data)


ODD_VALUES = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        3,
        10**9,
        10**18,
        10**40,
        0.5,
        -0.0,
        math.inf,
        math.nan,
        1e308,
        "",
        "a",
        "a.b",
    ),
    *(
        "TransformerConfig",
        "params",
        "__class__",
        "\x00",
        "\ud800",
        "é" * 1000,
        [],
        [[]],
        [1, 2, 3],
        {},
        {"a": 1},
    ),
)


def odd_record(rng, record):
    """Change one random node of what minitf stores beside the tensors."""
    node = record
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = rng.choice(list(keys))
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.8:
            node = node[key]
            continue
        what = rng.randrange(4)
        if what == 0:
            del node[key]
        elif what == 1 and isinstance(node, dict):
            node[rng.choice([v for v in ODD_VALUES if isinstance(v, str)])] = node.pop(key)
        else:
            node[key] = copy.deepcopy(rng.choice(ODD_VALUES))
        return record


def unsigned_record(rng, content, _):
    header, data = taken_apart(content)
    record = odd_record(rng, json.loads(header["__metadata__"]["minitf"]))
    header["__metadata__"]["minitf"] = json.dumps(record)
    return put_together(header, data)


def signed_record(rng, content, _):
    """A record changed by somebody who can compute a checksum: a newer minitf, a bug, or an enemy."""
    header, data = taken_apart(content)
    record = json.loads(header["__metadata__"]["minitf"])
    del record["sha256"]
    for _ in range(rng.choice([1, 1, 2, 3])):
        record = odd_record(rng, record)
    return sign(record, safetensors.numpy.load(put_together(header, data)))


def signed_tensors(rng, content, other):
    """Tensors of another shape, dtype or name, or values that are not finite, with a checksum that fits."""
    header, data = taken_apart(content)
    record = json.loads(header["__metadata__"]["minitf"])
    del record["sha256"]
    arrays = safetensors.numpy.load(put_together(header, data))
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    arrays[name] = rng.choice(
        [
            array[:1],
            array.T.copy(),
            array[..., None],
            array.astype(rng.choice(["f2", "f8", "i4", "u1", "bool", "complex64"])),
            array * np.nan,
            np.zeros((0, 2**40), array.dtype),
            np.array(1.0),
        ]
    )
    if rng.random() < 0.2:
        odd = rng.choice(["params", "params.norm", f"{name}.x", ".", "state.step", "x." * 3000])
        record["names"].append(odd)
        arrays[odd] = np.zeros(1)
    return sign(record, arrays)


def sign(record, arrays):
    """A file with this record and a checksum that fits, if such a record can be written at all."""
    try:
        text = json.dumps({"sha256": checkpoint._digest(record, arrays), **record})
        return safetensors.numpy.save(arrays, {"minitf": text})
    except (UnicodeEncodeError, TypeError, AttributeError, ValueError) as error:
        return f"unwritable: {error!r}".encode()


def nested_or_huge(rng, content, _):
    """JSON that is deep or long, in the header or in the metadata."""
    header, data = taken_apart(content)
    depth, size = rng.choice([100, 1000, 10_000, 100_000]), rng.choice([10, 1000, 100_000])
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}")])
    deep = opening * depth + "1" + closing * rng.choice([depth, depth, 0])
    what = rng.randrange(7)
    if what == 0:
        return put_together(deep.encode(), data)
    if what == 1:
        return put_together(b'{"params.norm.bias":' + deep.encode() + b"}", data)
    if what == 2:
        header["__metadata__"]["minitf"] = deep
    elif what == 3:
        record = header["__metadata__"]["minitf"]
        header["__metadata__"]["minitf"] = record[:-1] + f', "extra": {deep}}}'
    elif what == 4:
        header["__metadata__"]["minitf"] = "9" * size
    elif what == 5:
        header["__metadata__"] |= {f"k{i}": "x" for i in range(size)}
    else:
        header |= {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(size // 10)}
    return put_together(header, data)


class Hostile:
    """Unpickled, it would write a file."""

    marker = ""

    def __reduce__(self):
        return exec, (f"open({self.marker!r}, 'w').close()",)


def foreign(rng, content, other):
    """Files of other kinds under a checkpoint's name: hostile pickles, zip bombs, pictures, pages, noise."""
    bomb = io.BytesIO()
    kind = rng.randrange(8)
    if kind == 0:
        return pickle.dumps({"params": Hostile()}, protocol=rng.randrange(6))
    if kind == 1:  # 8 MB of zeros in 8 kB; loading must not even try
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(rng.choice(["archive/data.pkl", "params.npy", "a"]), bytes(8 << 20))
        return bomb.getvalue()
    if kind == 2:  # what torch.save writes, with a hostile pickle
        with zipfile.ZipFile(bomb, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Hostile()))
        return bomb.getvalue()
    if kind == 3:
        np.save(bomb, np.array([Hostile()], dtype=object), allow_pickle=True)
        return bomb.getvalue()
    if kind == 4:
        return gzip.compress(content)
    if kind == 5:  # a pickle where the header, the record, or a tensor should be
        header, data = taken_apart(content)
        hostile = pickle.dumps(Hostile(), protocol=0)
        header["__metadata__"]["minitf"] = hostile.decode()
        return rng.choice(
            [put_together(hostile, data), put_together(header, data), put_together({}, hostile)]
        )
    if kind == 6:
        return rng.choice(
            [b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\n", b"{}", b"[]", b"\x00"]
        )
    return rng.randbytes(rng.choice([1, 7, 8, 9, 100, 5000]))


MUTATIONS = (
    *(flipped_bits, overwritten_block, cut_or_extended, swapped_header, absurd_header_length, absurd_tensors),
    *(unsigned_record, signed_record, signed_tensors, nested_or_huge, foreign),
)


# ---------------------------------------------------------------------------------------------- the judgment


def judge(path, content, allowed):
    """ "loaded" or the reason of the refusal; raises for anything that is neither."""
    path.write_bytes(content)
    guard.active = True
    signal.alarm(SECONDS)
    try:
        run = checkpoint.load_training(path)
    except CheckpointError as error:
        reason = str(error)
        assert str(path) in reason and len(reason) > len(str(path)) + 10, f"no reason: {reason!r}"
        assert len(reason) < 5000, f"a reason of {len(reason)} characters"
        return reason.replace(str(path), "FILE")
    finally:
        signal.alarm(0)
        guard.active = False
    if "".join(describe(run)) not in allowed:
        record = json.loads(taken_apart(content)[0]["__metadata__"]["minitf"])
        arrays = safetensors.numpy.load(content)
        leaves = arrays | record["numbers"]
        trees = tree_from_items((name, leaves[name]) for name in record["names"])
        signed = checkpoint._digest({k: v for k, v in record.items() if k != "sha256"}, arrays)
        assert signed == record["sha256"], "a file with a wrong checksum was loaded"
        assert hashed(run.params, run.state or {}) == hashed(trees["params"], trees.get("state") or {})
        assert json.dumps(run.extra) == json.dumps(record["extra"])
        checkpoint.check_params(run.params, run.config)
    return "loaded"


def hashed(*trees):
    """`fingerprint`, for trees with numbers of any size in them."""
    return fingerprint(
        *(tree_map(lambda a: a if isinstance(a, np.ndarray) else np.array(repr(a)), t) for t in trees)
    )


def describe(run):
    return hashed(run.params, run.state or {}), repr(run.config), json.dumps(run.extra)


def guard(event, arguments):
    if guard.active and event.startswith(FORBIDDEN):
        raise Forbidden(event, arguments)


guard.active = False


def too_slow(*_):
    raise Forbidden(f"more than {SECONDS} seconds for one file")


def limit_memory(extra):
    """Let this process take so many bytes more than it has."""
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + extra, resource.RLIM_INFINITY))


def try_mutations(count, seed=0):
    """Load so many mutations; {kind: {"tried", "loaded"}, "reasons"}, or the first file judged wrong."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        Hostile.marker = str(folder / "executed")
        files = originals(folder)
        valid = {content for content, _ in files}
        path, allowed = folder / "fuzzed.safetensors", {"".join(describe(run)) for _, run in files}
        for content, _ in files:
            assert judge(path, content, allowed) == "loaded"
        signal.signal(signal.SIGALRM, too_slow)
        sys.addaudithook(guard)
        tried, loaded, reasons = Counter(), Counter(), Counter()
        for i in range(count):
            mutate = MUTATIONS[i % len(MUTATIONS)]
            content, other = (file[0] for file in rng.sample(files, 2))
            while (fuzzed := mutate(rng, content, other)) in valid:  # a change that changed nothing
                pass
            limit_memory(ROOM + 20 * len(fuzzed))
            try:
                outcome = judge(path, fuzzed, allowed)
            except BaseException as error:
                kept = Path(tempfile.gettempdir()) / f"minitf-fuzz-{seed}-{i}.safetensors"
                kept.write_bytes(fuzzed)
                error.add_note(f"mutation {i}, {mutate.__name__}, seed {seed}; the file is {kept}")
                raise
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            tried[mutate.__name__] += 1
            loaded[mutate.__name__] += outcome == "loaded"
            reasons[outcome.split(":")[0][:60]] += 1
            assert not Path(Hostile.marker).exists(), f"mutation {i} was executed"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {"tried": tried, "loaded": loaded, "peak MB": peak, "reasons": reasons.most_common()}


def test_2200_mutations_are_loaded_right_or_refused_with_a_reason_in_little_memory():
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, os.environ.get("MINITF_FUZZ_FILES", "2200")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout)
    assert sum(found["tried"].values()) >= 2000 and len(found["reasons"]) > 10
    for kind in ("absurd_header_length", "nested_or_huge", "foreign", "cut_or_extended"):
        assert found["tried"][kind] >= 200
    assert found["loaded"]["foreign"] == found["loaded"]["cut_or_extended"] == 0


# ------------------------------------------------------------------------------------ what is not even a file


@pytest.fixture
def saved(tmp_path):
    config = tokenformer()
    checkpoint.save(tmp_path / "model.safetensors", init_params(config), config)
    return tmp_path / "model.safetensors"


def test_pipes_devices_and_links_in_a_circle_are_refused_and_nothing_waits_for_them(tmp_path):
    pipe, circle = tmp_path / "pipe", tmp_path / "circle"
    os.mkfifo(pipe)
    circle.symlink_to(circle)
    for path, error in (
        (pipe, CheckpointError),
        (Path("/dev/zero"), CheckpointError),
        (circle, (OSError, CheckpointError)),
    ):
        with pytest.raises(error, match=str(path)):
            checkpoint.load(path)


@pytest.mark.parametrize("name", ["a" * 300, "nul\0byte"], ids=["too long", "a NUL byte"])
def test_names_that_no_file_can_have_are_refused(tmp_path, name):
    config = transformer()
    with pytest.raises((FileNotFoundError, CheckpointError)):
        checkpoint.load(tmp_path / name)
    with pytest.raises((FileNotFoundError, CheckpointError)):
        checkpoint.save(tmp_path / name, init_params(config), config)


def test_a_file_that_may_not_be_read_is_refused_by_name(saved, monkeypatch):
    def locked(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkpoint, "open", locked, raising=False)  # root may read everything
    with pytest.raises(CheckpointError, match="model.safetensors .*Permission denied"):
        checkpoint.load(saved)


def test_a_million_layers_promised_in_a_small_file_are_refused_before_they_are_counted(saved):
    header, data = taken_apart(saved.read_bytes())
    record = json.loads(header["__metadata__"]["minitf"])
    del record["sha256"]
    record["config"]["fields"]["n_layers"] = 10**12
    saved.write_bytes(sign(record, safetensors.numpy.load(put_together(header, data))))
    with pytest.raises(CheckpointError, match="1000000000000 layers|n_layers"):
        checkpoint.load(saved)


if __name__ == "__main__":
    print(json.dumps(try_mutations(*map(int, sys.argv[1:]))))
