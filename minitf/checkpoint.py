"""A model in one safetensors file: tensors, and in the metadata everything else that it needs to live again.

A file is written whole or not at all: first under a temporary name beside the old one, then, when it is safely
on the disk, renamed over it. A checksum over names, shapes, settings and every byte tells damage on loading.
"""

import contextlib
import dataclasses
import glob
import hashlib
import json
import os
import secrets
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from .backend import to_host, tree_from_items, tree_items, tree_map
from .model import TokenformerConfig, TransformerConfig, check_params, config_fields
from .official import CheckpointError, from_official, load_official, official_files  # noqa: F401 (the contract's)

FORMAT = 1  # of the metadata; to raise when an older minitf could not read what is written
CONFIGS = {config.__name__: config for config in (TokenformerConfig, TransformerConfig)}
FOREIGN = {  # how files begin that are given by mistake
    b"\x89PNG": "a PNG picture",
    b"PK\x03\x04": "a zip archive, as PyTorch and np.savez write them",
    b"\x80": "a pickle",
    b"\x93NUMPY": "a NumPy .npy file",
}


class Checkpoint(NamedTuple):
    params: dict
    config: object
    state: dict | None  # of the optimizer
    extra: dict | None


def save(path, params, config, state=None, extra=None):
    """Write a model, and what a run needs to go on, to a safetensors file, atomically.

    params, state: nested dicts of arrays, on the CPU or the GPU; state may also hold numbers, as the "step" of
    `adamw_init`. extra: whatever JSON can say, a tokenizer's to_json() say (tuples come back as lists).
    Equal content gives equal bytes. Needs the memory of one more copy.
    Raises TypeError for what cannot be stored, ValueError for params that do not fit the config,
    FileNotFoundError without the folder, CheckpointError where writing fails; a file of before is untouched then.
    """
    if type(config) not in CONFIGS.values():
        raise TypeError(f"config is a {type(config).__name__}: pass a {' or a '.join(CONFIGS)}")
    leaves = _leaves("params", params) | _leaves("state", state or {})
    check_params(params, config)
    arrays = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, np.ndarray)}
    record = {
        "format": FORMAT,
        "config": {"kind": type(config).__name__, "fields": config_fields(config)},
        "names": list(leaves),  # safetensors sorts its tensors, a sum over them would come out differently
        "numbers": {name: leaf for name, leaf in leaves.items() if name not in arrays},
        "extra": extra,
    }
    try:
        record = json.loads(json.dumps(record, default=_number))  # as it will be read
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"config and extra must be JSON: numbers, strings, lists, dicts, None ({error})"
        ) from error
    metadata = {"minitf": json.dumps({"sha256": _digest(record, arrays), **record})}
    _write(Path(path), safetensors.numpy.save(arrays, metadata))


def load(path):
    """Read (params, config) from a file that `save` wrote: NumPy arrays with the dtypes that were saved.

    Raises FileNotFoundError, and CheckpointError for a file that is damaged, or not a checkpoint of minitf.
    """
    return load_training(path)[:2]


def load_training(path):
    """Read a Checkpoint (params, config, state, extra); state and extra are None where none were saved.

    Raises FileNotFoundError, and CheckpointError for a file that is damaged, or not a checkpoint of minitf.
    """
    path = Path(path)
    record, arrays = _read(path)
    _check_record(path, record)
    config = _config(path, record["config"])
    leaves = arrays | record["numbers"]
    lost = [name for name in record["names"] if name not in leaves]
    if lost:
        raise CheckpointError(f"{path} lacks {', '.join(lost)}, which its own list of names has")
    try:
        if config.n_layers > len(leaves):  # a million layers would take long to list
            raise ValueError(f"n_layers is {config.n_layers}, and there are {len(leaves)} tensors")
        trees = tree_from_items((name, leaves[name]) for name in record["names"])
        check_params(trees.get("params"), config)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: config and tensors do not belong together: {error}") from error
    return Checkpoint(trees["params"], config, trees.get("state"), record["extra"])


def save_official(path, params, config):
    """Write a Tokenformer as the release's code reads it: a state dict in torch's zip format, atomically.

    path: the file, or a folder, which gets pytorch_model.bin and, if it has none, a config.json.
    The numbers keep their dtype: float16, float32 or float64.
    Raises CheckpointError for what the release does not compute, such as a tau that growth holds, and as `save`.
    """
    for file, data in official_files(path, params, config):
        _write(file, data)


def _leaves(name, tree):
    """{dotted name: array or number} of a tree, arrays as safetensors takes them: on the host, in C order."""
    tree = to_host(tree)
    items = {}
    for dotted, leaf in tree_items(tree, f"{name}."):
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub":
            items[dotted] = np.asarray(leaf, leaf.dtype.newbyteorder("="), order="C")
        elif isinstance(leaf, int | float | np.generic):
            items[dotted] = leaf
        else:
            found = getattr(leaf, "dtype", type(leaf).__name__)
            raise TypeError(f"{dotted} is {found}: a checkpoint holds arrays of numbers, and numbers")
    if tree_map(lambda _: 0, tree_from_items(items.items()).get(name, {})) != tree_map(lambda _: 0, tree):
        raise TypeError(f"{name} has an empty branch, or a name with a dot in it: neither would come back")
    return items


def _number(value):
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _digest(record, arrays):
    sha = hashlib.sha256(json.dumps(record).encode())
    for name, array in sorted(arrays.items()):
        sha.update(f"{name} {array.dtype} {array.shape}".encode())
        sha.update(array.reshape(-1).view(np.uint8))
    return sha.hexdigest()


def _write(path, data):
    """Write bytes, or what data(file) writes, so that path holds all or what it held before, power cuts included."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            data(file) if callable(data) else file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there is no folder {path.parent} to write {path.name} to: make it first"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        before = "the file of before is untouched" if os.path.isfile(path) else "nothing was written"
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path} could not be written, {before}: {reason}") from error
    finally:
        with contextlib.suppress(
            OSError, ValueError
        ):  # after the rename there is none; an error above says more
            temporary.unlink()
    _remove_leftovers(path)
    with contextlib.suppress(OSError):  # Windows cannot open folders, some network disks cannot sync them
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remove_leftovers(path):
    """Remove the temporary files of saves to this path that were killed: those an hour old, so nobody's at work."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink()


def _check_record(path, record):
    """Raise CheckpointError unless the record has the form that `save` gives it, whoever signed it."""
    config, names, numbers = (record.get(name) for name in ("config", "names", "numbers"))
    if not (
        "extra" in record
        and isinstance(config, dict)
        and isinstance(config.get("kind"), str)
        and isinstance(config.get("fields"), dict)
        and isinstance(names, list)
        and all(isinstance(name, str) and name.count(".") < 100 for name in names)
        and isinstance(numbers, dict)
        and all(isinstance(number, int | float) for number in numbers.values())
    ):
        raise CheckpointError(f"{path} is damaged: its metadata lack a part, or have it in another form")


def _read(path):
    """The record and the arrays of a file, after every check that needs no config."""
    if not os.path.exists(path):  # path.exists() raises for a name that no file can have
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if not os.path.isfile(path):
        raise CheckpointError(f"{path} is a folder, or a device, and no file: name the file in it")
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if not start:
        raise CheckpointError(f"{path} is empty")
    for signature, kind in FOREIGN.items():
        if start.startswith(signature) and start[8:] != b"{":  # where the header of a safetensors file starts
            raise CheckpointError(f"{path} is {kind}: a checkpoint of minitf is a safetensors file")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if "minitf" not in metadata:
                raise CheckpointError(
                    f"{path} is a safetensors file that minitf did not write: its metadata lacks 'minitf'"
                )
            # a copy, because the file may be mapped into memory
            arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (
        safetensors.SafetensorError,
        OSError,
        TypeError,
        AttributeError,
    ) as error:  # the last two: bfloat16
        raise CheckpointError(
            f"{path} is cut off, damaged or no safetensors file (safetensors says: {error})"
        ) from error
    try:
        record = json.loads(metadata["minitf"])
        written, sha256 = record["format"], record.pop("sha256")
        computed = _digest(record, arrays)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: its metadata cannot be read ({error!r})") from error
    if written != FORMAT:
        raise CheckpointError(
            f"{path} has format {written} and this minitf reads {FORMAT}: use another version"
        )
    if computed != sha256:
        raise CheckpointError(f"{path} is damaged: its content does not match its checksum; use another copy")
    return record, arrays


def _config(path, saved):
    """The config dataclass that `save` took apart."""
    kind, fields = saved["kind"], saved["fields"]
    if kind not in CONFIGS:
        raise CheckpointError(f"{path} holds a {kind}: this minitf knows {' and '.join(CONFIGS)}")
    unknown = fields.keys() - {field.name for field in dataclasses.fields(CONFIGS[kind])}
    if unknown:
        raise CheckpointError(
            f"{path} has {sorted(unknown)} in its {kind}: was it written by a newer minitf?"
        )
    try:
        return CONFIGS[kind](**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has a {kind} that makes no model: {error}") from error
