"""Products by cuBLAS and recordings, as far as they can be seen without a GPU; the rest is in test_gpu.py."""

import itertools

import cuda_on_cpu
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cuda_kernels import need

from minitf.kernels import Replayed, cublas, cuda_graph


@pytest.fixture(scope="module")
def cupy(tmp_path_factory):
    need("g++", cuda_on_cpu.compiler())
    with cuda_on_cpu.installed(tmp_path_factory.mktemp("unused")) as module:
        yield module


# ----------------------------------------------------------------------------------------------- products

AXES = {"as it is": lambda a: a, "transposed": lambda a: a.swapaxes(-1, -2)}
CUTS = {
    "whole": lambda a: a,
    "columns of a wider one": lambda a: np.concatenate([a, a], axis=-1)[..., : a.shape[-1]],
    "every other row": lambda a: np.repeat(a, 2, axis=-2)[..., ::2, :],
    "every other column": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "backwards": lambda a: a[..., ::-1, ::-1].copy()[..., ::-1, ::-1],
    "first axis last": lambda a: np.moveaxis(np.moveaxis(a, 0, -1).copy(), -1, 0),
    "one for all": lambda a: np.broadcast_to(a[:1], a.shape) if a.ndim > 2 else a,
}


def lay(a, axes, cut):
    """The array in another place of memory: transposed there, or with gaps."""
    return AXES[axes](CUTS[cut](AXES[axes](a)))


@given(
    lead=st.sampled_from([(), (3,), (1,), (2, 3), (2, 1), (1, 2)]),
    sizes=st.tuples(*[st.integers(1, 5)] * 3),
    left=st.tuples(st.sampled_from(list(AXES)), st.sampled_from(list(CUTS))),
    right=st.tuples(st.sampled_from(list(AXES)), st.sampled_from(list(CUTS))),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_a_product_is_right_wherever_its_operands_lie(cupy, lead, sizes, left, right, dtype):
    rows, inner, columns = sizes
    rng = np.random.default_rng(0)
    a = lay(rng.integers(-9, 9, (*lead, rows, inner)).astype(dtype), *left)
    b = lay(rng.integers(-9, 9, (*lead, inner, columns)).astype(dtype), *right)
    got = cublas.product(cuda_on_cpu.ndarray(a), cuda_on_cpu.ndarray(b))
    assert got.dtype == dtype and got.flags.c_contiguous
    assert np.array_equal(got.get(), a @ b)  # small integers: no rounding


def test_transposed_operands_are_not_copied(cupy, monkeypatch):
    monkeypatch.setattr(cupy, "ascontiguousarray", None)
    heads = cupy.asarray(np.ones((2, 3, 5, 4), np.float32))
    assert cublas.product(heads, heads.swapaxes(-1, -2)).shape == (2, 3, 5, 5)
    assert cublas.product(heads.swapaxes(-1, -2), heads).shape == (2, 3, 4, 4)
    tokens = cupy.asarray(np.ones((6, 4), np.float32))
    assert cublas.product(tokens[:2], tokens.T).shape == (2, 6)


# ---------------------------------------------------------------------------------------------- recordings


@pytest.fixture
def recorded(cupy, monkeypatch):
    """What was recorded: each entry is the number of launches of one recording so far."""
    recordings = []

    class Recording:
        def __init__(self, function, tree, args):
            self.function, self.tree, self.args = function, tree, args
            self.number = len(recordings)
            recordings.append(0)

        def replay(self, tree, args):
            assert tree["x"] is self.tree["x"] and len(args) == len(self.args)
            recordings[self.number] += 1
            return self.function(tree, *args)

    monkeypatch.setattr(cuda_graph, "Recording", Recording)
    monkeypatch.setattr(cublas, "can_record", lambda: True)
    monkeypatch.setattr(cublas, "math_mode", lambda: 0)
    return recordings


def tree_of(cupy, *shape):
    return {"x": cupy.asarray(np.ones(shape))}


def test_the_second_like_call_is_recorded_and_replayed(cupy, recorded):
    double = Replayed(lambda tree, ids, factor: (tree["x"] * factor, ids))
    tree = tree_of(cupy, 2)
    for i in range(5):  # other ids each time, of one shape
        out, ids = double(tree, cupy.asarray(np.full(3, i)), 2)
        assert out.get().tolist() == [2, 2] and ids.get().tolist() == [i] * 3
    assert recorded == [4]


@pytest.mark.parametrize("change", ["tree", "shape", "dtype", "argument", "precision", "resting"])
def test_a_call_unlike_the_last_one_is_no_replay(cupy, recorded, monkeypatch, change):
    from contextlib import nullcontext

    from minitf import kernels

    double = Replayed(lambda tree, ids, factor: tree["x"] * factor)
    tree, other = tree_of(cupy, 2), tree_of(cupy, 2)
    modes = itertools.count()
    if change == "precision":
        monkeypatch.setattr(cublas, "math_mode", lambda: next(modes))
    for i in range(4):
        odd = i % 2 == 1
        ids = cupy.asarray(np.zeros(3 if odd and change == "shape" else 2, "i8"))
        ids = ids.astype("i4") if odd and change == "dtype" else ids
        with kernels.resting() if odd and change == "resting" else nullcontext():
            double(other if odd and change == "tree" else tree, ids, 3 if odd and change == "argument" else 2)
    assert recorded == []


def test_arrays_on_the_cpu_are_never_recorded(recorded):
    double = Replayed(lambda tree, factor: tree["x"] * factor)
    tree = {"x": np.ones(2)}
    assert [double(tree, 2).tolist() for _ in range(4)] == [[2, 2]] * 4
    assert recorded == []


@pytest.fixture
def pretended(cupy, monkeypatch):
    """CuPy's part in a recording: everything is there, and launch() counts."""
    from contextlib import nullcontext
    from unittest.mock import MagicMock

    monkeypatch.setattr(cupy, "cuda", MagicMock())
    monkeypatch.setattr(cupy, "get_default_memory_pool", MagicMock(), raising=False)
    cupy.cuda.runtime.CUDARuntimeError = type("CUDARuntimeError", (RuntimeError,), {})
    monkeypatch.setattr(cublas, "recording", lambda stream: nullcontext())
    return cupy


def test_a_recording_copies_new_inputs_to_where_it_reads_them(pretended):
    calls = []

    def double(tree, ids, factor):
        calls.append(ids)
        return ids * factor, tree

    tree, first = tree_of(pretended, 2), pretended.asarray(np.array([1, 2]))
    recording = cuda_graph.Recording(double, tree, (first, 2))
    assert len(calls) == 2 and calls[0] is calls[1] is not first  # once to fill the pool, once to record
    out, same = recording.replay(tree, (pretended.asarray(np.array([3, 4])), 2))
    assert recording.graph.launch.call_count == 1 and len(calls) == 2
    assert calls[1].get().tolist() == [3, 4]
    assert same is tree and out is not recording.out[0]


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("calling cuBLAS API during stream capture is currently unsupported"),
        RuntimeError("the current stream is capturing, so D2H transfers are disallowed"),
        MemoryError("out of memory"),
    ],
)
@pytest.mark.parametrize("failing_call", [1, 2])
def test_what_cannot_be_recorded_is_called_as_it_is(pretended, error, failing_call):
    calls = []

    def fails_in_a_recording(tree):
        calls.append(1)
        if len(calls) == failing_call:
            raise error
        return tree

    tree = tree_of(pretended, 2)
    recording = cuda_graph.Recording(fails_in_a_recording, tree, ())
    assert recording.graph is None and recording.pool is None
    assert recording.replay(tree, ()) is tree


def test_an_error_of_the_function_is_raised(pretended):
    def wrong(tree):
        raise RuntimeError("cuBLAS returned status 7")

    with pytest.raises(RuntimeError, match="status 7"):
        cuda_graph.Recording(wrong, tree_of(pretended, 2), ())


def test_results_outside_of_trees_are_copies():
    loss, grads = np.ones(()), {"x": np.ones(2)}
    own_loss, own_grads = cuda_graph._own((loss, grads))
    assert own_loss == loss and own_loss is not loss and own_grads is grads
