"""The CUDA kernels, without a GPU: they compile for three generations of GPUs, and compute what the formulas say.

NVRTC (the compiler that CuPy uses, from the extra `gpu-check`) makes machine code of every kernel; g++ makes a
library of the same sources (cuda_on_cpu.hpp), which the twins of `kernels/cuda.py` then call through a strict
stand-in for CuPy. So names, order and types of arguments, grids and blocks, and the twins' own Python are run as
they stand. What only a GPU can tell is in test_gpu.py.
"""

import os
import re
from pathlib import Path

import cuda_on_cpu
import helpers
import numpy as np
import pytest
from helpers import relative_error

from minitf import attention, backend, checkpoint, growth, model, ops, optim, pattention
from minitf.kernels import cuda

DTYPES = (np.float32, np.float64)
TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}
SIZES = (1, 31, 33, 257, 1000, 1500)  # up to 1024 a warp takes a row, beyond a block
MODULES = {
    name: module
    for module in (ops, pattention, attention, optim)
    for name in vars(module)
    if name.endswith(("_forward", "_backward", "adamw_step", "clip_by_global_norm"))
    and vars(module)[name].__module__ == module.__name__
}


def need(tool, found):
    """Skip visibly without a tool; on CI, where everything is installed, fail."""
    if not found and os.environ.get("MINITF_REQUIRE_TORCH") == "1":
        pytest.fail(f"{tool} is missing, and CI must check the kernels")
    if not found:
        pytest.skip(f"needs {tool}")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    need("g++", cuda_on_cpu.compiler())
    return tmp_path_factory.mktemp("cuda_on_cpu")


@pytest.fixture
def cupy(folder):
    with cuda_on_cpu.installed(folder) as module:
        yield module


def tree_error(got, expected):
    """The largest relative error of any leaf, infinite for NaN, and the leaf's name."""
    errors = backend.tree_items(backend.tree_map(relative_error, got, expected))
    return max((np.inf if np.isnan(error) else error, name) for name, error in errors)


def formula(name):
    function = getattr(MODULES[name], name)
    return getattr(function, "formula", function)


# --------------------------------------------------------------------------------------------- compiling

try:
    from cuda.bindings import nvrtc
except ImportError:
    nvrtc = None


def compile_with_nvrtc(architecture, dtype):
    """PTX, machine code and the compiler's report. Raises ValueError with the compiler's message."""
    options = [*cuda.options(dtype), f"-arch={architecture}", "--ptxas-options=-v"]
    options += ["--device-as-default-execution-space"]  # CuPy adds this one
    error, program = nvrtc.nvrtcCreateProgram(cuda.source().encode(), b"kernels.cu", 0, [], [])
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])

    def read(what):
        _, size = getattr(nvrtc, f"nvrtcGet{what}Size")(program)
        text = b" " * size
        getattr(nvrtc, f"nvrtcGet{what}")(program, text)
        return text

    report = read("ProgramLog").decode().strip("\0 \n")
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise ValueError(report)
    return read("PTX").decode(), read("CUBIN"), report


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90"])
def test_every_kernel_compiles_without_warnings_or_spilled_registers(architecture, dtype):
    need("the extra gpu-check (cuda-bindings, cuda-toolkit[nvrtc,cudart])", nvrtc)
    ptx, machine_code, report = compile_with_nvrtc(architecture, dtype)
    assert set(re.findall(r"\.entry (\w+)\(", ptx)) == set(cuda.signatures())
    assert machine_code.startswith(b"\x7fELF")
    assert "warning" not in report
    memory = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    assert len(memory) == len(cuda.signatures()) and {count for counts in memory for count in counts} == {"0"}
    # a literal like 0.5 instead of real(0.5) would compute in double, many times slower
    if dtype == np.float32:
        assert not re.findall(r"^.*\.f64\b.*$", re.sub(r"%f64\b", "", ptx), re.MULTILINE)


def test_nvrtc_says_where_a_kernel_is_wrong(monkeypatch):
    need("the extra gpu-check (cuda-bindings, cuda-toolkit[nvrtc,cudart])", nvrtc)
    broken = cuda.source().replace("dot = team_sum(dot);", "dot = team_summ(dot);")
    monkeypatch.setattr(cuda, "source", lambda: broken)
    with pytest.raises(ValueError, match=r'softmax.cu.*"team_summ" is undefined'):
        compile_with_nvrtc("sm_80", np.float32)


def test_the_constants_that_python_and_cuda_share_agree():
    files = {path.name for path in Path(cuda.__file__).parent.glob("*.cu")}
    assert set(cuda.SOURCES) == files
    assert cuda.KINDS == pattention.KINDS
    (kinds,) = re.findall(r"enum Kind \{(.*?)\}", cuda.source())
    assert tuple(kind.strip().lower() for kind in kinds.split(",")) == cuda.KINDS
    for name in ("LEAVES", "CHUNK"):
        (value,) = re.findall(rf"#define {name} (\d+)", cuda.source())
        assert int(value) == {"LEAVES": cuda.MAX_LEAVES, "CHUNK": cuda.CHUNK}[name]
    assert cuda.LEAVES_DTYPE.itemsize < 4096 - 8 * 8, "kernel arguments must fit into 4 KB"


# --------------------------------------------------------------------------------- is the stand-in strict?

TOYS = """
typedef REAL real;
extern "C" __global__ void reverse(real *x, int barrier)
{
    __shared__ real shared[64];
    shared[threadIdx.x] = x[threadIdx.x];
    if (barrier) __syncthreads();
    x[threadIdx.x] = shared[63 - threadIdx.x];
}
extern "C" __global__ void half_a_barrier(real *x, int whole)
{
    if (threadIdx.x < 32 || whole) __syncthreads();
    x[threadIdx.x] = 1;
}
extern "C" __global__ void half_a_warp(real *x, int whole)
{
    if (threadIdx.x >= 16 && !whole) return;
    x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
}
extern "C" __global__ void beyond(real *x, int inside)
{
    if (!inside && threadIdx.x == 0) x[64] = 1;
}
"""


@pytest.fixture(scope="session")
def toys(folder):
    names = re.findall(r"void (\w+)\(", TOYS)
    library = cuda_on_cpu.compile_kernels(folder, TOYS, np.float32, names)
    return {name: cuda_on_cpu.Kernel(name, library, []) for name in names}


def run_toy(toy, x, right):
    toy((1,), (64,), (x, np.int32(right)))
    return x.get()


def test_a_missing_barrier_shows_in_the_result(toys):
    x = np.arange(64, dtype=np.float32)
    assert np.array_equal(run_toy(toys["reverse"], cuda_on_cpu.asarray(x), True), x[::-1])
    for _ in range(7):  # in every order of the threads
        assert not np.array_equal(run_toy(toys["reverse"], cuda_on_cpu.asarray(x), False), x[::-1])


@pytest.mark.parametrize(
    "toy, message",
    [
        ("half_a_barrier", "deadlock: 32 of 64 threads wait in __syncthreads, 32 have returned"),
        ("half_a_warp", "waits for a lane that has returned"),
        ("beyond", "wrote outside"),
    ],
)
def test_a_wrong_kernel_is_an_error_and_not_a_hang(toys, toy, message):
    x = np.arange(64, dtype=np.float32)
    run_toy(toys[toy], cuda_on_cpu.asarray(x), True)
    with pytest.raises(RuntimeError, match=message):
        run_toy(toys[toy], cuda_on_cpu.asarray(x), False)


def test_an_argument_of_the_wrong_type_is_an_error(toys):
    x = cuda_on_cpu.asarray(np.zeros(64, np.float32))
    for wrong in ((np.int32(1), x), (x, 1), (x, np.int64(1)), (x, np.float32(1)), (x,), (x._a, np.int32(1))):
        with pytest.raises(TypeError):
            toys["reverse"]((1,), (64,), wrong)


def test_waiting_for_the_device_is_noticed():
    x = cuda_on_cpu.asarray(np.ones(3))
    with cuda_on_cpu.no_waiting():
        for wait in (x.get, x.sum().__float__, x[0].__bool__, lambda: x[x > 0], x[0].__int__):
            with pytest.raises(RuntimeError, match="wait"):
                wait()
    assert float(x.sum()) == 3


def test_arguments_are_checked_by_name_type_and_layout(cupy):
    x = cupy.empty((4, 4), np.float32)
    good = {"x": x, "out": cupy.empty((4, 4), np.float32), "size": 16, "approximate": 0}
    shape, dtype = cuda.flat_shape(16), np.dtype(np.float32)
    cuda.launch("gelu_forward", shape, dtype, **good)
    for change, message in (
        ({"x": x.T}, "contiguous"),
        ({"x": cupy.empty(16, np.float64)}, "float32, not float64"),
        ({"x": np.ones(1, np.float32)}, "to_device"),
        ({"more": 1}, "takes x, out"),
    ):
        with pytest.raises(TypeError, match=message):
            cuda.launch("gelu_forward", shape, dtype, **good | change)


# ---------------------------------------------------------------------------------- twins against formulas


def to_cupy(cupy, tree):
    return backend.tree_map(lambda a: cupy.asarray(a) if isinstance(a, np.ndarray) else a, tree)


def check_pair(cupy, name, dtype, arrays, constants=None, floor=0.0, **options):
    """Forward and backward of a twin in `dtype`, against the formula in float64 on the same numbers.

    Errors are relative to the largest entry; floor: to this where the largest entry is smaller (gradients that are
    zero but for rounding).
    """
    constants = constants or {}
    arrays = {key: None if a is None else np.asarray(a, dtype) for key, a in arrays.items()}
    exact = {key: None if a is None else a.astype(np.float64) for key, a in arrays.items()}
    with np.errstate(all="ignore"):
        expected, cache = formula(f"{name}_forward")(**exact, **constants, **options)
        dout = np.random.default_rng(7).standard_normal(np.shape(expected)).astype(dtype)
        gradients = formula(f"{name}_backward")(dout.astype(np.float64), cache)

    with cuda_on_cpu.no_waiting():
        inputs = to_cupy(cupy, {**arrays, **constants})
        out, cache = cuda.FORWARD[f"{name}_forward"](**inputs, **options)
        backward = cuda.BACKWARD[f"{name}_backward", type(cache)]
        got = backward(cupy.asarray(dout), cache)
    got, gradients = (g if isinstance(g, tuple) else (g,) for g in (got, gradients))
    for result, wanted in zip((out, *got), (expected, *gradients), strict=True):
        result = result.get()
        assert result.dtype == dtype and result.shape == np.shape(wanted)
        scale = max(np.abs(wanted).max(initial=0), floor)
        error = np.abs(result - wanted).max(initial=0)
        assert error <= TOLERANCE[result.dtype] * scale, (
            f"{name}: error {error:.1e} at a scale of {scale:.1e}"
        )


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("approximate", cuda.APPROXIMATE)
@pytest.mark.parametrize("kind", cuda.KINDS)
def test_theta_equals_its_formula(cupy, kind, approximate, dtype):
    options = {"kind": kind, "approximate": approximate}
    for n in SIZES:  # a norm of one entry has a gradient of zero
        check_pair(cupy, "theta", dtype, {"scores": draw(9, n)}, floor=1.0 if n == 1 else 0.0, **options)
    check_pair(cupy, "theta", dtype, {"scores": 3 * draw(2, 3, 40)}, tau=1.7, **options)
    check_pair(cupy, "theta", dtype, {"scores": draw(40)}, **options)


@pytest.mark.parametrize("kind", cuda.KINDS)
@pytest.mark.parametrize("approximate", cuda.APPROXIMATE)
@pytest.mark.parametrize("n", [40, 1500])
def test_theta_of_rows_of_zeros_huge_rows_and_tiny_rows(cupy, kind, approximate, n):
    options = {"kind": kind, "approximate": approximate}
    scores = draw(6, n)
    scores[1] = 0
    scores[2, 1:] = 0
    for dtype in DTYPES:
        check_pair(cupy, "theta", dtype, {"scores": scores}, **options)
    if "norm" in kind:
        subnormal = cupy.asarray((1e-42 * scores).astype(np.float32))  # as good as zero
        weights, cache = cuda.theta_forward(subnormal, **options)
        assert not weights.get().any() and not cuda.theta_backward(weights, cache).get().any()
    for dtype, factor in ((np.float32, 1e30), (np.float64, 1e200)):
        check_pair(cupy, "theta", dtype, {"scores": factor * draw(6, n)}, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_theta_of_rows_longer_than_the_shared_memory_equals_its_formula(cupy, dtype):
    n = 40000 // np.dtype(dtype).itemsize
    check_pair(cupy, "theta", dtype, {"scores": draw(2, n)})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", [(5,), (2, 3), ()])
def test_layers_equal_their_formulas(cupy, lead, dtype):
    x, weight, bias = draw(*lead, 6), draw(4, 6, seed=1), draw(4, seed=2)
    check_pair(cupy, "linear", dtype, {"x": x, "weight": weight})
    check_pair(cupy, "linear", dtype, {"x": x, "weight": weight, "bias": bias})
    check_pair(cupy, "linear", dtype, {"x": x, "weight": np.asfortranarray(weight)})
    tokens = {"x": x, "key": draw(9, 6, seed=1), "value": draw(9, 4, seed=2)}
    for kind in cuda.KINDS:
        check_pair(cupy, "pattention", dtype, tokens, kind=kind, tau=2.0)
    check_pair(cupy, "pattention", dtype, tokens, approximate="tanh")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("approximate", cuda.APPROXIMATE)
def test_gelu_equals_its_formula(cupy, approximate, dtype):
    for n in SIZES:
        check_pair(cupy, "gelu", dtype, {"x": 3 * draw(3, n)}, approximate=approximate)
    for x in ([-40, -6, -0.0, 1e-30, 6, 40], [-1e30, -1e4, 1e4, 1e30]):
        check_pair(cupy, "gelu", dtype, {"x": np.array(x)}, approximate=approximate)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_layer_norm_equals_its_formula(cupy, n, dtype):
    x, floor = 2 + 3 * draw(9, n), 10.0 if n == 1 else 0.0
    weight, bias = 1 + 0.3 * draw(n, seed=1), draw(n, seed=2)
    for weights in ({}, {"weight": weight}, {"bias": bias}, {"weight": weight, "bias": bias}):
        check_pair(cupy, "layer_norm", dtype, {"x": x, **weights}, floor=floor, eps=0.1)


def test_layer_norm_adds_up_many_rows(cupy):
    weight = {"weight": draw(40, seed=1), "bias": draw(40, seed=2)}
    for dtype in DTYPES:
        check_pair(cupy, "layer_norm", dtype, {"x": draw(3, 133, 40), **weight})  # four stripes of 128 rows


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_equals_its_formula(cupy, dtype):
    for n in SIZES:
        check_pair(cupy, "softmax", dtype, {"x": 3 * draw(2, 5, n)}, floor=1.0 if n == 1 else 0.0)
    check_pair(cupy, "softmax", dtype, {"x": 1e3 * draw(9, 1500)}, floor=1.0)  # nearly one-hot
    x = draw(3, 7)
    x[0, 2:], x[1] = -np.inf, 1e4
    check_pair(cupy, "softmax", dtype, {"x": x})


@pytest.mark.parametrize("dtype", DTYPES)
def test_embedding_equals_its_formula(cupy, dtype):
    rng = np.random.default_rng(0)
    for tokens, vocab_size, width in ((1, 1, 1), (700, 5, 33), (300, 40, 257), (33, 3, 600)):
        ids = rng.integers(0, vocab_size, tokens)
        check_pair(cupy, "embedding", dtype, {"weight": draw(vocab_size, width)}, {"ids": ids})
    ids = rng.integers(0, 9, (2, 3)).astype(np.int32)
    check_pair(cupy, "embedding", dtype, {"weight": draw(9, 4)}, {"ids": ids})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_cross_entropy_equals_its_formula(cupy, n, dtype):
    rng = np.random.default_rng(0)
    targets, mask = rng.integers(0, n, (3, 7)), rng.random((3, 7)) < 0.6
    floor = 1.0 if n == 1 else 0.0
    logits = 3 * draw(3, 7, n)
    check_pair(cupy, "cross_entropy", dtype, {"logits": logits}, {"targets": targets}, floor=floor)
    constants = {"targets": targets.astype(np.int32), "mask": mask}
    check_pair(cupy, "cross_entropy", dtype, {"logits": logits}, constants, floor=floor)
    check_pair(cupy, "cross_entropy", dtype, {"logits": 1e4 * logits}, constants, floor=floor)


def test_cross_entropy_takes_a_number_and_many_tokens(cupy):
    logits, targets = draw(900, 4), np.random.default_rng(0).integers(0, 4, 900)
    loss, cache = cuda.cross_entropy_forward(cupy.asarray(logits), cupy.asarray(targets))
    expected, expected_cache = formula("cross_entropy_forward")(logits, targets)
    assert relative_error(loss.get(), expected) < 1e-12
    assert relative_error(cache.probabilities.get(), expected_cache.probabilities) < 1e-12
    for dloss in (1.0, 2, np.float32(0.5)):
        got = cuda.cross_entropy_backward(dloss, cache)
        assert relative_error(got.get(), formula("cross_entropy_backward")(dloss, expected_cache)) < 1e-12


def test_cross_entropy_of_nothing_or_of_ids_beyond_the_vocabulary_is_nan(cupy):
    logits, targets = cupy.asarray(draw(3, 4)), cupy.asarray(np.array([4, 1, 0]))
    assert np.isnan(cuda.cross_entropy_forward(logits, targets)[0].get())
    keep = cupy.asarray(np.array([False, True, True]))
    assert np.isfinite(cuda.cross_entropy_forward(logits, targets, keep)[0].get())
    loss, cache = cuda.cross_entropy_forward(logits, targets, cupy.asarray(np.zeros(3, bool)))
    with np.errstate(invalid="ignore"):
        assert np.isnan(loss.get()) and np.isnan(cuda.cross_entropy_backward(1.0, cache).get()).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape, options",
    [
        ((2, 7, 12), {"n_heads": 3, "rotary_fraction": 0.5}),
        ((1, 33, 8), {"n_heads": 1, "rotary_fraction": 1.0}),
        ((2, 2, 5, 24), {"n_heads": 4}),
        ((40, 6), {"n_heads": 2, "rotary_fraction": 0.25}),
        ((1, 1, 4), {"n_heads": 2, "rotary_fraction": 1.0}),
    ],
)
def test_causal_attention_equals_its_formula(cupy, shape, options, dtype):
    three = {name: draw(*shape, seed=seed) for seed, name in enumerate(("query", "key", "value"))}
    floor = 1.0 if shape[-2] == 1 else 0.0  # one token has nothing to choose
    check_pair(cupy, "causal_attention", dtype, three, floor=floor, **options)


def test_causal_attention_continues_from_its_past(cupy):
    x, options = draw(2, 9, 8), {"n_heads": 2, "rotary_fraction": 0.5}
    whole, expected = formula("causal_attention_forward")(x, x, x, **options)
    past, parts = None, []
    for part in (x[:, :4], x[:, 4:5], x[:, 5:]):
        part = cupy.asarray(part.copy())
        out, cache = cuda.causal_attention_forward(part, part, part, **options, past=past)
        past, parts = cache.past, [*parts, out.get()]
    assert relative_error(np.concatenate(parts, axis=1), whole) < 1e-12
    assert relative_error(past[0].get(), expected.key) < 1e-12
    with pytest.raises(ValueError, match="KV cache"):
        cuda.causal_attention_backward(out, cache)


def test_a_causal_row_may_be_longer_than_a_warp_likes(cupy):
    past, x = (draw(1, 1, 1030, 4, seed=1), draw(1, 1, 1030, 4, seed=2)), draw(1, 5, 4)
    expected, _ = formula("causal_attention_forward")(x, x, x, past=past)
    x, past = cupy.asarray(x), tuple(cupy.asarray(a) for a in past)
    assert relative_error(cuda.causal_attention_forward(x, x, x, past=past)[0].get(), expected) < 1e-12


# ------------------------------------------------------------------------------------------------- trees


def random_tree(seed, leaves):
    shapes = [(), (1,), (7,), (33, 65), (2049,), (64, 64)]
    return {f"a{i}": {"w": draw(*shapes[i % len(shapes)], seed=(seed, i))} for i in range(leaves)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("leaves", [1, 20, 150])
def test_adamw_and_clipping_equal_their_formulas(cupy, leaves, dtype):
    params = cast(random_tree(0, leaves), dtype)
    state = optim.adamw_init(params)
    ours, our_state = to_cupy(cupy, params), to_cupy(cupy, state)
    params, state, tolerance = cast(params, np.float64), cast(state, np.float64), TOLERANCE[np.dtype(dtype)]
    for step in range(1, 4):
        grads = cast(random_tree(step, leaves), dtype)
        max_norm = 1.0 if step == 1 else 1e6
        with cuda_on_cpu.no_waiting():
            clipped, norm = cuda.clip_by_global_norm(to_cupy(cupy, grads), max_norm)
            ours, our_state = cuda.adamw_step(ours, clipped, our_state, lr=0.01, weight_decay=0.3)
        wanted, wanted_norm = formula("clip_by_global_norm")(cast(grads, np.float64), max_norm)
        assert relative_error(norm.get(), wanted_norm) <= tolerance
        assert tree_error(to_host(clipped), wanted)[0] <= tolerance
        params, state = formula("adamw_step")(params, wanted, state, lr=0.01, weight_decay=0.3)
        for got, expected in ((ours, params), (our_state["m"], state["m"]), (our_state["v"], state["v"])):
            assert tree_error(to_host(got), expected)[0] <= tolerance
        assert our_state["step"] == step


def test_a_tree_takes_one_launch_per_64_leaves(cupy):
    tree = to_cupy(cupy, random_tree(0, 150))
    before = len(cuda_on_cpu.RawModule.launches)
    clipped, _ = cuda.clip_by_global_norm(tree, 1.0)
    cuda.adamw_step(tree, clipped, to_cupy(cupy, optim.adamw_init(random_tree(0, 150))), lr=0.1)
    kernels = [kernel for kernel, _, _ in cuda_on_cpu.RawModule.launches[before:]]
    assert kernels == 3 * ["chunk_squares"] + ["clip_factor"] + 3 * ["scale_tree"] + 3 * ["adamw"]


def cast(tree, dtype):
    """A copy with floats in another dtype; the rest stays as it is."""
    floats = lambda a: isinstance(a, np.ndarray) and a.dtype.kind == "f"  # noqa: E731
    return backend.tree_map(lambda a: np.array(a, dtype) if floats(a) else a, tree)


def to_host(tree):
    return backend.tree_map(lambda a: a.get() if hasattr(a, "get") else a, tree)


@pytest.mark.parametrize("n", [100, 1500])
def test_results_repeat_to_the_last_bit_in_any_order_of_the_threads(cupy, monkeypatch, n):
    x, dout = cupy.asarray(draw(5, n)), cupy.asarray(draw(5, n, seed=1))
    weight, ids = cupy.asarray(draw(n, seed=2)), cupy.asarray(np.array([0, 1, 1, 1, 0]))

    def results():
        for forward, backward, arguments in (
            (cuda.theta_forward, cuda.theta_backward, (x,)),
            (cuda.softmax_forward, cuda.softmax_backward, (x,)),
            (cuda.layer_norm_forward, cuda.layer_norm_backward, (x, weight, weight)),
            (cuda.embedding_forward, cuda.embedding_backward, (ids, x)),
        ):
            out, cache = forward(*arguments)
            grads = backward(dout, cache)
            yield from (a.get().tobytes() for a in (out, *(grads if isinstance(grads, tuple) else (grads,))))
        yield cuda.cross_entropy_forward(x, ids)[0].get().tobytes()
        yield cuda.clip_by_global_norm({"x": x}, 1.0)[1].get().tobytes()

    found = set()
    for order in range(7):
        monkeypatch.setattr(cuda_on_cpu, "order_of", lambda launches, order=order: order)
        found.add(tuple(results()))
    assert len(found) == 1


def test_the_norm_adds_up_more_chunks_than_a_block_has_threads(cupy):
    grads = {"w": draw(300 * cuda.CHUNK + 5)}
    clipped, norm = cuda.clip_by_global_norm(to_cupy(cupy, grads), 1.0)
    wanted, wanted_norm = formula("clip_by_global_norm")(grads, 1.0)
    assert relative_error(norm.get(), wanted_norm) < 1e-12
    assert tree_error(to_host(clipped), wanted)[0] < 1e-12


def test_clipping_does_not_hide_a_nan(cupy):
    clipped, norm = cuda.clip_by_global_norm({"w": cupy.asarray(np.array([1.0, np.nan]))}, 1.0)
    assert np.isnan(norm.get()) and np.isnan(clipped["w"].get()).all()


# ------------------------------------------------------------------------- what is left to the formula


def test_a_twin_hands_back_what_it_cannot_do(cupy):
    half, whole = cupy.asarray(np.ones((2, 4), np.float16)), cupy.asarray(np.ones((2, 4)))
    empty = cupy.asarray(np.ones((0, 4)))
    ids, host = cupy.asarray(np.zeros((2,), int)), np.ones((2, 4))
    refused = [
        ("theta_forward", (half,), {}),
        ("theta_forward", (host,), {}),
        ("theta_forward", (whole,), {"kind": "relu"}),
        ("theta_forward", (whole,), {"approximate": "sigmoid"}),
        ("gelu_forward", (whole,), {"approximate": "sigmoid"}),
        ("theta_forward", (empty,), {}),
        ("linear_forward", (whole, half), {}),
        ("linear_forward", (whole, whole[0]), {}),
        ("linear_forward", (whole, whole[:, :3]), {}),
        ("linear_forward", (whole, whole, whole[0]), {}),
        ("pattention_forward", (whole, whole, whole), {"scale": 0.5}),
        ("pattention_forward", (whole, whole, whole), {"scale": "1"}),
        ("pattention_forward", (whole, whole, whole), {"mask": ids == 0}),
        ("pattention_forward", (whole, whole, whole), {"kind": "relu"}),
        ("pattention_forward", (whole, whole, whole[:1]), {}),
        ("pattention_forward", (whole, whole[:, :3], whole), {}),
        ("pattention_forward", (whole, whole[0], whole), {}),
        ("gelu_forward", (half,), {}),
        ("softmax_forward", (half,), {}),
        ("layer_norm_forward", (whole, ids), {}),
        ("layer_norm_forward", (whole, whole), {}),
        ("layer_norm_forward", (whole,), {"eps": -1.0}),
        ("embedding_forward", (whole, whole), {}),
        ("cross_entropy_forward", (whole, whole), {}),
        ("cross_entropy_forward", (whole, ids[:1]), {}),
        ("cross_entropy_forward", (whole, ids, ids), {}),
        ("causal_attention_forward", (whole, whole, half), {}),
        ("causal_attention_forward", (whole, whole, whole), {"n_heads": 3}),
        ("causal_attention_forward", (whole, whole, whole), {"n_heads": 2.0}),
        ("clip_by_global_norm", ({"w": half}, 1.0), {}),
        ("clip_by_global_norm", ({}, 1.0), {}),
        ("clip_by_global_norm", ({"w": whole}, np.nan), {}),
        ("clip_by_global_norm", ({"w": whole}, 0.0), {}),
    ]
    for name, arguments, options in refused:
        assert cuda.FORWARD[name](*arguments, **options) is NotImplemented, name
    tree, state = {"w": whole}, {"step": 0, "m": {"w": whole}, "v": {"w": whole}}
    assert cuda.adamw_step(tree, {"w": whole[:1]}, state, lr=0.1) is NotImplemented
    assert cuda.adamw_step(tree, tree, {"step": 0}, lr=0.1) is NotImplemented
    for options in (
        {"lr": -1},
        {"lr": "0.1"},
        {"lr": 0.1, "betas": (0.9,)},
        {"lr": 0.1, "betas": (0.9, 1.0)},
    ):
        assert cuda.adamw_step(tree, tree, state, **options) is NotImplemented


def test_without_cupy_no_twin_applies(monkeypatch):
    monkeypatch.delitem(__import__("sys").modules, "cupy", raising=False)
    assert cuda.gelu_forward(np.ones(3)) is NotImplemented


@pytest.mark.parametrize("name", ["theta", "gelu", "softmax", "layer_norm"])
def test_arrays_that_are_not_contiguous_are_still_right(cupy, name):
    x, dout = draw(40, 9), draw(40, 9, seed=1)
    out, cache = cuda.FORWARD[f"{name}_forward"](cupy.asarray(x).T)
    got = cuda.BACKWARD[f"{name}_backward", type(cache)](cupy.asarray(dout).T, cache)
    expected, expected_cache = formula(f"{name}_forward")(x.T)
    assert relative_error(out.get(), expected) < 1e-12
    assert relative_error(got.get(), formula(f"{name}_backward")(dout.T, expected_cache)) < 1e-12
    with pytest.raises(ValueError, match="dout"):
        cuda.BACKWARD[f"{name}_backward", type(cache)](cupy.asarray(dout), cache)


def test_caches_show_what_lessons_look_at(cupy):
    x = draw(3, 8)
    for kind in cuda.KINDS:
        (_, got), (_, wanted) = cuda.theta_forward(cupy.asarray(x), kind), formula("theta_forward")(x, kind)
        assert relative_error(got.normed.get(), wanted.normed) < 1e-12
        if wanted.inverse_norm is not None:
            assert relative_error(got.inverse_norm.get(), wanted.inverse_norm) < 1e-12
    for weight in (None, draw(8, seed=1)):
        _, got = cuda.layer_norm_forward(cupy.asarray(x), None if weight is None else cupy.asarray(weight))
        assert relative_error(got.normed.get(), formula("layer_norm_forward")(x, weight)[1].normed) < 1e-12


# --------------------------------------------------------------------------------------- the whole model


@pytest.fixture
def wired(cupy, monkeypatch):
    """Every public formula asks its CUDA twin first, in float64 as well: the registry asks in float32 only."""

    def forward(name, public):
        def call(*args, **kwargs):
            result = cuda.FORWARD[name](*args, **kwargs)
            return public(*args, **kwargs) if result is NotImplemented else result

        return call

    def backward(name, public):
        def call(dout, cache):
            return cuda.BACKWARD.get((name, type(cache)), public)(dout, cache)

        return call

    twins = {name: forward for name in cuda.FORWARD} | {name: backward for name, _ in cuda.BACKWARD}
    for name, wrapper in twins.items():
        public = getattr(MODULES[name], name)
        for module in (ops, pattention, attention, optim, model):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, wrapper(name, public))
    return cupy


def train(params, config, batches, to_device):
    state = to_device(optim.adamw_init(params))
    params = to_device(params)
    losses = []
    for ids, targets, mask in batches:
        data = [to_device({"x": a})["x"] for a in (ids, targets, mask)]
        with cuda_on_cpu.no_waiting():
            loss, grads = model.loss_and_grads(params, *data[:2], config, data[2])
            grads, _ = optim.clip_by_global_norm(grads, 0.5)
            params, state = optim.adamw_step(params, grads, state, lr=0.02)
        losses.append(loss)
    return params, state, losses


@pytest.mark.parametrize("name", helpers.CONFIGS)
def test_training_on_the_kernels_equals_training_on_the_formulas(wired, name):
    config = helpers.CONFIGS[name]
    batches = [helpers.random_batch(config, seed, mask=seed > 0) for seed in range(3)]
    results = [
        train(helpers.random_params(config), config, batches, to_device)
        for to_device in (lambda tree: tree, lambda tree: to_cupy(wired, tree))
    ]
    (params, state, losses), (got_params, got_state, got_losses) = results
    assert [float(loss) for loss in got_losses] == pytest.approx([float(loss) for loss in losses], rel=1e-12)
    assert tree_error(to_host(got_params), params)[0] < 1e-9
    assert tree_error(to_host(got_state["m"]), state["m"])[0] < 1e-9


def test_a_training_step_in_float32_runs_on_the_kernels(cupy):
    """Through the registry, as users get it."""
    config = helpers.CONFIGS["tokenformer parametric, proj_tokens, taus"]
    params, batches = helpers.random_params(config, dtype=np.float32), [helpers.random_batch(config)]
    expected, _, _ = train(params, config, batches, lambda tree: cast(tree, np.float32))
    before = len(cuda_on_cpu.RawModule.launches)
    got, _, _ = train(params, config, batches, lambda tree: to_cupy(cupy, tree))
    used = {kernel for kernel, _, _ in cuda_on_cpu.RawModule.launches[before:]}
    assert used == set(cuda.signatures()) - {"gelu_forward", "gelu_backward"}  # these are the Transformer's
    assert (
        tree_error(to_host(got), expected)[0] < 1e-3
    )  # Adam's first step is a sign: zero gradients may differ


def test_growth_generation_and_checkpoints_take_arrays_on_the_device(wired, tmp_path):
    config = helpers.tokenformer()
    params = helpers.random_params(config)
    grown, larger = growth.grow(to_cupy(wired, params), config, ffn_tokens=12)
    expected, _ = growth.grow(params, config, ffn_tokens=12)
    assert tree_error(to_host(grown), expected)[0] == 0
    prompt = np.array([[1, 2, 3]])
    for options in ({"temperature": 0}, {"temperature": 1.0, "top_k": 5}):
        got = model.generate(grown, prompt, 8, larger, **options)  # three tokens more than the context
        assert np.array_equal(got, model.generate(expected, prompt, 8, larger, **options))
    checkpoint.save(tmp_path / "model.safetensors", grown, larger)
    loaded, loaded_config = checkpoint.load(tmp_path / "model.safetensors")
    assert tree_error(loaded, expected)[0] == 0 and loaded_config == larger


def test_tf32_is_on_inside_and_off_again_outside(cupy):
    events, modes = [], {"compute": 1, "math": 0}
    from types import SimpleNamespace as Namespace

    def setter(which):
        def change(_, value):
            modes[which] = value
            events.append((which, value))

        return change

    cupy._core = Namespace(
        get_compute_type=lambda dtype: modes["compute"],
        set_compute_type=setter("compute"),
        _routines_linalg=Namespace(COMPUTE_TYPE_TF32=7),
    )
    device = Namespace(compute_capability="80", cublas_handle=1)
    cupy.cuda.cublas = Namespace(getMathMode=lambda handle: modes["math"], setMathMode=setter("math"))
    cupy.cuda.Device = lambda: device
    with pytest.raises(KeyError), cuda.tf32():
        assert modes == {"compute": 7, "math": 3}
        raise KeyError
    assert modes == {"compute": 1, "math": 0}
    device.compute_capability = "75"
    events.clear()
    with cuda.tf32():
        assert not events


# ------------------------------------------------------------------------- would these tests notice?

MUTANTS = {
    "no projection in the norm's backward": ("(du - (kind == L1_NORM_GELU ? sign : u) * dot)", "du"),
    "no rule for rows of zeros": ("const bool alive = largest > SMALLEST_NORMAL", "const bool alive = true"),
    "squares of huge rows": ("norm += kind", "norm += alive && kind == L2_NORM_GELU ? a[i] * a[i] : kind"),
    "no barrier before the partial sums are read": (
        "__syncthreads();\n    value = 0;",
        "value = 0;",
    ),
    "no barrier before the partial maxima are read": (
        "__syncthreads();\n    value = partial[0];",
        "value = partial[0];",
    ),
    "no barrier before the partial sums are written": (
        "__syncthreads(); // a slow warp may still be reading the last sum",
        "",
    ),
    "the causal mask shows the next token": ("(int)(row % queries) + 1", "(int)(row % queries) + 2"),
    "rotary turns back the wrong way": ("value * cos[pair] + sign", "value * cos[pair] + 1"),
    "AdamW decays vectors": ("leaves.decays[leaf] ? p[i] * keep : p[i]", "p[i] * keep"),
    "the last warp's sums are forgotten": ("w < 8; w++", "w < 7; w++"),
    "layer norm forgets the mean of the gradient": ("(d - along - along_one)", "(d - along)"),
    "the mask does not count": ("kept += !mask || mask[row] ? 1 : 0", "kept += 1"),
}


def short_checks(cupy, dtype=np.float64):
    """A small selection of the checks above, to be run on mutants."""
    scores = draw(3, 40)
    check_pair(cupy, "theta", dtype, {"scores": scores})
    check_pair(cupy, "theta", dtype, {"scores": 1e200 * scores})
    scores[1] = 0
    check_pair(cupy, "theta", dtype, {"scores": scores})
    check_pair(cupy, "theta", dtype, {"scores": draw(3, 1100)})
    check_pair(cupy, "softmax", dtype, {"x": 1e3 * draw(9, 1100)}, floor=1.0)
    check_pair(cupy, "layer_norm", dtype, {"x": draw(3, 9), "weight": draw(9)})
    for seed in range(7):  # one launch for each order of the threads
        check_pair(cupy, "layer_norm", dtype, {"x": draw(3, 1100, seed=seed)})
    check_pair(cupy, "embedding", dtype, {"weight": draw(3, 5)}, {"ids": np.arange(256) % 3})
    constants = {"targets": np.array([0, 1, 2]), "mask": np.array([True, False, True])}
    check_pair(cupy, "cross_entropy", dtype, {"logits": draw(3, 5)}, constants)
    three = {name: draw(5, 4, seed=seed) for seed, name in enumerate(("query", "key", "value"))}
    check_pair(cupy, "causal_attention", dtype, three, rotary_fraction=1.0)
    test_adamw_and_clipping_equal_their_formulas(cupy, 3, dtype)


@pytest.mark.parametrize("name", [None, *MUTANTS])
def test_a_wrong_kernel_is_noticed(cupy, monkeypatch, name):
    if name is None:
        return short_checks(cupy)
    right, wrong = MUTANTS[name]
    source = cuda.source()
    assert right in source
    monkeypatch.setattr(cuda, "source", lambda: source.replace(right, wrong))
    monkeypatch.setattr(cuda_on_cpu, "FLAGS", (*cuda_on_cpu.FLAGS, "-O0"))
    with pytest.raises(AssertionError, match="error|relative|<="), np.errstate(all="ignore"):
        short_checks(cupy)
