"""Every fused twin of `minitf.kernels.cpu` against the formula that it stands for, and the threads below it."""

import importlib.metadata
import math
import os
import subprocess
import sys
import threading
from itertools import product

import numpy as np
import pytest

from minitf import attention, ops, optim, pattention
from minitf.kernels import memory, resting, threads
from minitf.kernels.cpu import BACKWARD, FORWARD
from minitf.kernels.cpu.common import compiled, uses_mkl
from minitf.kernels.cpu.gelu import ERF_COEFFICIENTS

MODULES = (ops, pattention, attention, optim)
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}  # relative to the largest entry
needs_loops = pytest.mark.skipif(compiled(np.float32) is None, reason="needs numba and SciPy")


def formula(name):
    """The formula, which takes no twin inside either."""
    function = next(getattr(module, name) for module in MODULES if hasattr(module, name))

    def alone(*args, **kwargs):
        with resting():
            return function(*args, **kwargs)

    return alone


def theta_shapes(kind, approximate):
    for shape in ((3, 67, 130), (1, 513), (7,), (4, 1)):
        yield "theta", (shape,), {"kind": kind, "approximate": approximate, "tau": 7.0}
    yield "theta", ("hard rows",), {"kind": kind, "approximate": approximate}
    for rows, n, d in (((2, 300), 130, 24), ((1,), 5, 3), ((41,), 700, 16)):
        arguments = ((*rows, d), (n, d), (n, d + 1))
        yield "pattention", arguments, {"kind": kind, "approximate": approximate, "scale": 0.3}
    yield "pattention", ((300, 24), (130, 24), (130, 25)), {"kind": kind, "approximate": approximate}
    yield "pattention", ("hard rows", (30, 50), (30, 7)), {"kind": kind, "approximate": approximate}


def cases():
    for kind, approximate in product(pattention.KINDS, ("none", "tanh")):
        yield from theta_shapes(kind, approximate)
    yield (
        "pattention",
        ((4100, 8), (130, 8), (130, 9)),
        {"approximate": "none"},
    )  # blocks that share their sums
    for shape, approximate in product(((333, 700), (5,), (1, 1, 1), ()), ("none", "tanh")):
        yield "gelu", (shape,), {"approximate": approximate}
    for shape in ((7, 150, 65), (1, 3), (9,), (700, 128)):
        d = shape[-1:]
        yield from (
            ("layer_norm", arrays, {}) for arrays in ((shape,), (shape, d), (shape, None, d), (shape, d, d))
        )
        yield from (("linear", arrays, {}) for arrays in ((shape, (33, *d)), (shape, (33, *d), (33,))))
    for shape in ((5, 500, 65), (1, 3)):
        ids = ("ids", shape[:-1], shape[-1])
        yield "cross_entropy", (shape, ids), {}
        yield "cross_entropy", (shape, ids, ("mask", shape[:-1])), {}
    for vocabulary in (65, 3000):
        yield "embedding", (("ids", (9, 70), vocabulary), (vocabulary, 24)), {}
    heads = (
        (1, 1, 4, 0.0),
        (2, 1, 4, 0.5),
        (5, 2, 8, 0.25),
        (64, 4, 64, 1.0),
        (130, 3, 48, 0.25),
        (200, 4, 64, 0.5),
        (300, 2, 16, 0.25),
    )
    for length, n_heads, d, fraction in heads:
        yield from (
            ("causal_attention", (shape,) * 3, {"n_heads": n_heads, "rotary_fraction": fraction})
            for shape in ((3, length, d), (2, 1, length, d), (length, d))
        )
    yield "causal_attention", (("large", (3, 130, 32)),) * 2 + ((3, 130, 32),), {"n_heads": 2}


def make(rng, spec, dtype, layout):
    """An array for the spec of an argument, in the memory layout asked for."""
    if spec is None:
        return None
    if spec == "hard rows":
        array = rng.standard_normal((9, 50))
        huge, tiny = (1e30, 1e-30) if dtype == np.float32 else (1e200, 1e-200)
        array[1], array[2], array[5], array[7] = 0, array[2] * huge, array[5] * tiny, 0
        array[8, 1:] = 0
    elif spec[:1] == ("ids",):
        return rng.integers(0, spec[2], spec[1])
    elif spec[:1] == ("mask",):
        mask = rng.random(spec[1]) < 0.7
        mask[(0,) * mask.ndim] = True
        return mask
    elif spec[:1] == (
        "large",
    ):  # scores in the thousands: exact in whole numbers, else their rounding would decide
        array = rng.integers(-30, 31, spec[1])
    else:
        array = rng.standard_normal(spec)
    array = np.array(array, dtype)
    if layout == "Fortran":
        return np.asfortranarray(array)
    if layout == "strided" and array.ndim:
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), dtype)
        wide[..., ::2] = array
        return wide[..., ::2][::-1]
    return array


def close(found, wanted, tolerance, floor=0.05, weight=1):
    """Equal in shape and dtype, and in value up to the tolerance times the largest entry; NaN is NaN."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    if wanted.size:
        assert np.array_equal(np.isnan(found), np.isnan(wanted))
        found, wanted = (np.nan_to_num(np.float64(a)) * weight for a in (found, wanted))
        assert np.abs(found - wanted).max() <= tolerance * max(np.abs(wanted).max(), floor)


def results(forward, backward, arguments, options, dout):
    out, cache = forward(*arguments, **options)
    grads = backward(dout, cache)
    return [out, *(grads if isinstance(grads, tuple) else (grads,))], cache


def label(case):
    if not isinstance(case, tuple):
        return getattr(case, "__name__", case)
    name, shapes, options = case
    return f"{name}-{shapes}-{'-'.join(map(str, options.values()))}".replace(" ", "")


@pytest.fixture
def any_threads():
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


def runs_of(case):
    """numba compiles float32, and only a part of some twins."""
    name, _, options = case
    yield case, "numpy", np.float32
    yield case, "numpy", np.float64
    compiles = name in ("layer_norm", "causal_attention") or options.get("approximate") == "none"
    if compiles and compiled(np.float32) is not None:
        yield case, "numba", np.float32


@pytest.mark.parametrize("case, engine, dtype", [run for case in cases() for run in runs_of(case)], ids=label)
def test_twin_is_its_formula(case, engine, dtype, any_threads, monkeypatch):
    name, specs, options = case
    forward, backward = formula(f"{name}_forward"), formula(f"{name}_backward")
    for layout in ("C", "Fortran", "strided"):
        rng = np.random.default_rng(0)
        arguments = [make(rng, spec, dtype, layout) for spec in specs]
        copies = [None if a is None else a.copy() for a in arguments]
        twin = FORWARD.get(f"{name}_forward", forward)
        with np.errstate(all="ignore"):
            out = forward(*arguments, **options)[0]
            dout = 1.5 if name == "cross_entropy" else make(rng, out.shape, dtype, layout)
            dcopy = np.copy(dout)
            wanted, cache = results(forward, backward, arguments, options, dout)
            if twin(*arguments, **options) is NotImplemented:
                assert name == "causal_attention" and specs[0][-2] == 1
                return
            runs = []
            if engine == "numpy":
                monkeypatch.setenv("MINITF_NUMBA", "0")
            for n in (1, 2, 3):
                threads.set_num_threads(n)
                twin_backward = lambda d, c: BACKWARD[f"{name}_backward", type(c)](d, c)  # noqa: E731
                found, twin_cache = results(twin, twin_backward, arguments, options, dout)
                runs.append(found)
        tolerance = TOLERANCE[dtype]
        if specs == ("hard rows",):  # a gradient of a norm is as large as the row is small
            size = np.abs(np.float64(arguments[0])).max(axis=1)
            for row, weight in enumerate(size if "norm" in options["kind"] else np.ones(len(size))):
                close(runs[0][0][row], wanted[0][row], tolerance)
                close(runs[0][1][row], wanted[1][row], tolerance, weight=weight or 1)
        else:
            # the direction of a single number cannot change: its gradient is rounding error, and zero
            floor = 5 if name == "theta" and specs[0][-1] == 1 else 0.05
            for a, b in zip(runs[0], wanted, strict=True):
                close(a, b, tolerance, floor)
        for other in runs[1:]:
            assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(other, runs[0], strict=True))
        for a, b in zip((*arguments, dout), (*copies, dcopy), strict=True):
            assert np.array_equal(a, b), "an input was changed"
        if name == "causal_attention":
            close(twin_cache.weights, cache.weights, tolerance)
        elif name == "theta" and specs != ("hard rows",):
            close(twin_cache.normed, cache.normed, tolerance)


@pytest.mark.parametrize("layout", ["C", "Fortran", "strided"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_optimizer_twin_is_its_formula(dtype, layout, any_threads):
    def tree(seed):
        rng = np.random.default_rng(seed)
        shapes = {"a": (300, 400), "b": (7,), "d": (1, 70_000), "f": (4, 5, 6)}
        return {"x": {name: make(rng, shape, dtype, layout) for name, shape in shapes.items()}}

    runs = []
    for n in (0, 1, 2, 3):  # 0: the formula
        threads.set_num_threads(max(n, 1))
        step, clip = ("adamw_step", "clip_by_global_norm")
        step, clip = (formula(step), formula(clip)) if n == 0 else (FORWARD[step], FORWARD[clip])
        params, state = tree(0), optim.adamw_init(tree(0))
        for seed in (1, 2):
            grads, norm = clip(tree(seed), 0.5 if seed == 1 else 1e9)
            params, state = step(params, grads, state, 1e-2)
        runs.append([norm, *params["x"].values(), *state["m"]["x"].values(), *state["v"]["x"].values()])
    for a, b in zip(runs[1], runs[0], strict=True):
        close(a, b, TOLERANCE[dtype])
    for other in runs[2:]:
        assert all(np.array_equal(a, b) for a, b in zip(other, runs[1], strict=True))


def test_twins_leave_the_rest_to_the_formula():
    class Counted(np.ndarray):
        pass

    x = np.ones((3, 4))
    for array in (x.astype(np.float16), x.view(Counted), x.astype(int), [1.0]):
        assert FORWARD["gelu_forward"](array) is NotImplemented
        assert FORWARD["theta_forward"](array) is NotImplemented
    assert FORWARD["theta_forward"](x, kind="no such") is NotImplemented
    assert FORWARD["pattention_forward"](x, x, x, mask=np.ones((3, 3), bool)) is NotImplemented
    assert FORWARD["pattention_forward"](x, x, np.ones((2, 4))) is NotImplemented
    assert FORWARD["linear_forward"](x, np.ones((4, 3))) is NotImplemented
    assert FORWARD["cross_entropy_forward"](x, np.array([0, 1, 4])) is NotImplemented
    assert FORWARD["adamw_step"]({"a": x}, {"b": x}, {"m": {"a": x}, "v": {"a": x}}, 1.0) is NotImplemented
    frozen = np.ones((3, 4), np.float32)
    frozen.flags.writeable = False
    state = optim.adamw_init({"a": frozen})
    assert FORWARD["adamw_step"]({"a": frozen}, {"a": frozen}, state, 1.0) is NotImplemented
    assert FORWARD["theta_forward"](x[:0]) is NotImplemented
    assert FORWARD["layer_norm_forward"](x, eps=-1) is NotImplemented
    assert FORWARD["causal_attention_forward"](x, x, x, n_heads=3) is NotImplemented
    _, cache = FORWARD["theta_forward"](x)
    with pytest.raises(ValueError, match="dweights|dout"):
        BACKWARD["theta_backward", type(cache)](x[:2], cache)
    with pytest.raises(TypeError, match="float32"):
        BACKWARD["theta_backward", type(cache)](x.astype(np.float32), cache)


def fit_erf(degree, z_max=5.0, points=1500, rounds=150):
    """Coefficients, highest first, of p with tanh(y p(y²)) = erf(z/√2), y = z/2, and the largest error in Φ.

    Minimax by Lawson's algorithm: least squares, in which points of large error gain weight.
    """
    z = z_max * np.sin(np.linspace(1 / points, 1, points) * np.pi / 2)
    erf, erfc = (np.array([f(v / math.sqrt(2)) for v in z]) for f in (math.erf, math.erfc))
    square, top = (z / 2) ** 2, (z_max / 2) ** 2
    powers, target = np.vander(square / top, degree + 1), (np.log1p(erf) - np.log(erfc)) / z
    weight, best = np.ones_like(z), (1.0, None)
    for _ in range(rounds):
        # an error of p is an error of erf times z/2 · tanh'
        scale = (np.sqrt(weight) * (1 - erf**2) * z / 2)[:, None]
        p = np.linalg.lstsq(powers * scale, target[:, None] * scale, rcond=None)[0][:, 0]
        error = np.abs(np.tanh(z / 2 * (powers @ p)) - erf)
        if error.max() / 2 < best[0]:
            best = error.max() / 2, p / top ** np.arange(degree, -1, -1)
        weight *= error / error.max() + 0.03
        weight /= weight.max()
    return best


def test_erf_is_as_exact_as_promised(monkeypatch):
    monkeypatch.setenv("MINITF_NUMBA", "0")
    error, coefficients = fit_erf(len(ERF_COEFFICIENTS) - 1)
    assert error < 5e-8
    assert np.allclose(coefficients, ERF_COEFFICIENTS, rtol=1e-3)
    x = np.concatenate([np.linspace(-12, 12, 100_001), [-1e10, -1e3, -60, 60, 1e3, 1e10]])
    single = x.astype(np.float32)
    exact = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in np.float64(single)])
    out, cache = FORWARD["gelu_forward"](single)
    inside = np.abs(single) > 1e-3
    cdf = out[inside] / np.float64(single[inside])
    assert np.abs(2 * (cdf - exact[inside])).max() < 1e-6  # as an error of erf
    slope = exact + np.float64(single) * np.exp(-0.5 * np.float64(single) ** 2) / math.sqrt(2 * math.pi)
    assert np.abs(cache.twice_slope / 2 - slope).max() < 1e-6
    monkeypatch.undo()
    out, cache = FORWARD["gelu_forward"](single)  # with numba, where it is installed
    assert np.abs(2 * (out[inside] / np.float64(single[inside]) - exact[inside])).max() < 1e-6
    assert np.abs(cache.twice_slope / 2 - slope).max() < 1e-6


# ---------------------------------------------------------------------------------------------- threads


def test_run_calls_each_task_once_nested_or_not(any_threads):
    threads.set_num_threads(3)
    calls = np.zeros((50, 4), int)

    def task(i):
        threads.run(lambda j: calls.__setitem__((i, j), calls[i, j] + 1), 4)

    threads.run(task, 50)
    assert (calls == 1).all()
    threads.run(task, 0)


def test_run_raises_what_a_task_raises_and_goes_on_working(any_threads):
    threads.set_num_threads(2)

    def fail(i):
        if i == 3:
            raise ArithmeticError("task 3")

    before = [library.get_num_threads() for library in threads._state.blas]
    for _ in range(5):
        with pytest.raises(ArithmeticError, match="task 3"):
            threads.run(fail, 10)
    assert [library.get_num_threads() for library in threads._state.blas] == before
    done = []
    threads.run(done.append, 10)
    assert sorted(done) == list(range(10))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_user_threads_may_train_at_once(any_threads, dtype):
    threads.set_num_threads(2)
    rng = np.random.default_rng(0)
    x, key = (rng.standard_normal(shape).astype(dtype) for shape in ((1000, 40), (90, 40)))

    def work(results, i):
        for _ in range(3):
            out, cache = FORWARD["pattention_forward"](x, key, key)
            results[i] = BACKWARD["pattention_backward", type(cache)](out, cache)

    results = [None] * 4
    users = [threading.Thread(target=work, args=(results, i)) for i in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_memory_of_a_living_array_is_not_given_away():
    first = memory.empty((1000, 30), np.float32)
    view, address = first[5:7], first.ctypes.data
    assert address % memory.ALIGNMENT == 0
    del first
    other = memory.empty((1000, 30), np.float32)
    assert not np.shares_memory(view, other)
    del view
    again = memory.empty((1000, 30), np.float32)
    assert again.ctypes.data == address
    assert not np.shares_memory(again, other)


def script(code, **environment):
    code = f"import numpy as np\nfrom minitf.kernels import threads\nfrom minitf.kernels.cpu import FORWARD\n{code}"
    environment = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_environment_sets_block_and_blas_threads():
    show = "print(threads.get_num_threads(), *[b.get_num_threads() for b in threads._state.blas])"
    assert set(script(show, MINITF_NUM_THREADS="1")) == {"1"}
    assert script(show, MINITF_NUM_THREADS="3")[0] == "3"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_forked_child_works_and_the_interpreter_ends(dtype):
    assert script(
        f"import os\nx = np.ones((3000, 100), np.{dtype})\na = FORWARD['gelu_forward'](x)[0]\nchild = os.fork()\n"
        "b = FORWARD['gelu_forward'](x)[0]\nassert np.allclose(a, b)\n"
        "if child: print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))",
        MINITF_NUM_THREADS="3",
    ) == ["0"]


@needs_loops
def test_numba_keeps_the_number_of_threads_that_its_user_set(any_threads):
    numba = pytest.importorskip("numba")
    threads.set_num_threads(1)
    before = numba.get_num_threads()
    FORWARD["gelu_forward"](np.ones((30, 40), np.float32))
    assert numba.get_num_threads() == before
    assert {library.get_num_threads() for library in threads._state.blas} == {1}, (
        "SciPy's BLAS is one of them"
    )
    assert len(threads._state.blas) >= 2


# ------------------------------------------------------------------------------------- the product of the loops


def at(offset, array):
    """A copy that begins `offset` numbers after a cache line."""
    memory = np.empty(array.size + 32, array.dtype)
    start = -memory.ctypes.data % 64 // 4 + offset
    copy = memory[start : start + array.size].reshape(array.shape)
    copy[...] = array
    return copy


@needs_loops
@pytest.mark.parametrize("m, n, k", [(1, 1, 1), (5, 1, 3), (1, 6, 4), (7, 5, 1), (64, 32, 50), (67, 65, 300)])
def test_product_of_views_and_their_transposes(m, n, k):
    loops, rng = compiled(np.float32), np.random.default_rng(0)
    for turned_left, turned_right, add in product((False, True), repeat=3):
        left, right, before = (rng.standard_normal(s, np.float32) for s in ((m, k), (k, n), (m, n)))
        wanted = np.float64(left) @ right + (before if add else 0)
        runs = []
        for offset in range(0, 16, 5):  # nor does it matter where in memory they lie
            a = at(offset, left.T).T if turned_left else at(offset, left)
            b = at(offset, right.T).T if turned_right else at(offset, right)
            wide = np.full((m, n + 3), 7, np.float32)
            wide[:, :n] = before
            loops.product(a, b, wide[:, :n], add)
            close(wide[:, :n], np.float32(wanted), 1e-5)
            assert (wide[:, n:] == 7).all()
            runs.append(wide)
        assert all(np.array_equal(other, runs[0]) for other in runs)


def is_installed(name):
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


@needs_loops
def test_compiled_twins_multiply_by_the_other_blas_too():
    """The loops of a process have one product: another process runs their tests with the other one."""
    if not is_installed("mkl"):
        pytest.skip("needs mkl: the loops multiply by SciPy's BLAS alone")
    other = not uses_mkl()
    torch = "import torch\n" if is_installed("torch") else ""  # MKL waits for it
    code = (
        f"{torch}import sys, pytest\nfrom minitf.kernels.cpu.common import uses_mkl\nassert uses_mkl() is {other}\n"
        "options = ['-q', '-p', 'no:cacheprovider', '-k', 'numba and (linear or attention) or product_of']\n"
        f"sys.exit(pytest.main([*options, {__file__!r}]))"
    )
    script(code, MINITF_MKL=str(int(other)))  # fails where a test does, or none runs


@needs_loops
def test_mkl_does_not_come_before_torch_nor_unasked():
    if not is_installed("torch"):
        pytest.skip("without torch installed, MKL need not wait for it")
    show = "from minitf.kernels.cpu.common import uses_mkl\nprint(uses_mkl())"
    assert script(show) == ["False"]
    assert script(f"import torch\n{show}", MINITF_MKL="0") == ["False"]
