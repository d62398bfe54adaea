"""Exercises of lesson 08: the roofline, and a CUDA kernel that a machine without a GPU can check.

`run_kernel` runs the learner's CUDA source. NVRTC, the compiler that CuPy uses, reads it where the package
cuda-bindings is installed; a C++ compiler runs it, one thread after the other, in a process of its own, so that a
kernel that writes where it should not ends that process and not the lesson. Kernels with barriers or shuffles need
more: tests/cuda_on_cpu.hpp runs those.
"""

import functools
import math
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from .. import ops
from .core import Exercise, NotAttempted

# ------------------------------------------------------------------------------------------- least_time


def least_time(flops, bytes_moved, peak, bandwidth):
    return max(flops / peak, bytes_moved / bandwidth)


def tasks_and_machines(rng):
    """Tasks on both sides of the ridge."""
    for intensity in (0.1, 0.5, 2.0, 40.0):
        peak, bandwidth, bytes_moved = (float(number) for number in rng.uniform(1, 9, 3))
        yield intensity * peak / bandwidth * bytes_moved, bytes_moved, peak, bandwidth


LEAST_TIME = Exercise(
    reference=least_time,
    sample=tasks_and_machines,
    mistakes={
        "is this the sum? Arithmetic and memory work at the same time, so the slower one decides": lambda f, b, p, m: (
            f / p + b / m
        ),
        "is this the smaller one? Both must be finished": lambda f, b, p, m: min(f / p, b / m),
        "is the memory missing?": lambda f, b, p, m: f / p,
        "is the arithmetic missing?": lambda f, b, p, m: b / m,
        "are peak and bandwidth swapped?": lambda f, b, p, m: max(f / m, b / p),
        "is this the rate, in FLOP/s? A time was asked for": lambda f, b, p, m: min(p, m * f / b),
        "did you multiply? Work divided by speed is time": lambda f, b, p, m: max(f * p, b * m),
        "is this the intensity, FLOPs per byte?": lambda f, b, p, m: f / b,
    },
)

# ------------------------------------------------------------------------------------------- scale_gelu


def scale_gelu(scores, inverse_norm, tau):
    return ops.gelu_forward(tau * inverse_norm * scores)[0]


def score_tables(rng):
    """Tables of more than one block of threads, none of them a whole number of blocks; last, a row of zeros."""
    for rows, n in ((7, 5), (3, 50)):
        scores = 3 * rng.standard_normal((rows, n))
        inverse_norm = 1 / np.linalg.norm(scores, axis=1, keepdims=True)
        yield scores, inverse_norm, float(rng.uniform(1, 3) * math.sqrt(n))
    alive = np.arange(rows)[:, None] != 1
    yield alive * scores, alive * inverse_norm, 2.0


def _gelu_of(z):
    """scale_gelu with another z."""
    return lambda scores, inverse_norm, tau: ops.gelu_forward(z(scores, inverse_norm, tau))[0]


def _bend(f):
    """scale_gelu with another function instead of GeLU."""
    return lambda scores, inverse_norm, tau: f(tau * inverse_norm * scores)


def _phi(z):
    return ops.normal_cdf_pdf(z)[0]


SCALE_GELU = Exercise(
    reference=scale_gelu,
    sample=score_tables,
    mistakes={
        "is tau missing?": _gelu_of(lambda a, inverse, tau: inverse * a),
        "is inverse_norm missing?": _gelu_of(lambda a, inverse, tau: tau * a),
        "did you divide by inverse_norm? It is 1 over the norm already": _gelu_of(
            lambda a, inverse, tau: tau * a / inverse
        ),
        "is it the norm of the first row for all? Entry i belongs to row i / n": _gelu_of(
            lambda a, inverse, tau: tau * a * inverse[0]
        ),
        "is GeLU missing?": _bend(lambda z: z),
        "is this Φ? GeLU is z times Φ": _bend(_phi),
        "is 1/√2 missing in erfc?": _bend(lambda z: z * _phi(math.sqrt(2) * z)),
        "is the minus sign in erfc missing? Φ(z) = ½ erfc(-z/√2)": _bend(lambda z: z * _phi(-z)),
        "is ½ missing?": _bend(lambda z: 2 * z * _phi(z)),
        "is this erf where erfc should be? Φ(z) = ½ (1 + erf(z/√2))": _bend(lambda z: z * (_phi(z) - 0.5)),
        "is this ReLU?": _bend(lambda z: np.maximum(z, 0)),
        "is this the tanh formula for GeLU? The exact one was asked for": _bend(
            lambda z: ops.gelu_forward(z, approximate="tanh")[0]
        ),
        "is this z times a sigmoid? The exact GeLU was asked for": _bend(
            lambda z: z / (1 + np.exp(-1.702 * z))
        ),
    },
    tolerance=1e-5,  # kernels compute in float32
)

EXERCISES = {"least_time": LEAST_TIME, "scale_gelu": SCALE_GELU}

# -------------------------------------------------------------------------------------- running a kernel

BLOCK = 32  # threads per block: small, so that small arrays need several blocks
GUARD = 64  # entries before and behind the weights that no thread may touch
# NaNs that arithmetic hands on but does not make: of a weight that no thread wrote, of what lies behind the inputs
UNTOUCHED, OUTSIDE = np.array([0x7FC0BEEF, 0x7FC0F00D], np.uint32).view(np.float32)
TOO_LONG = 3  # how a kernel exits that takes a second of processor time

# what CUDA adds to C++, as far as a kernel without barriers needs it
CUDA_WORDS = """
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>
#ifndef _WIN32
#include <csignal>
#include <sys/resource.h>
#include <unistd.h>
#endif
#define __global__
#define __device__ static
#define __forceinline__ inline
#define __restrict__
using std::erf, std::erfc, std::exp, std::fabs, std::fmax, std::fmin, std::sqrt, std::tanh;
struct Index { unsigned x = 0, y = 0, z = 0; };
static Index threadIdx, blockIdx, blockDim, gridDim;
#line 1 "scale_gelu.cu"
"""
LAUNCH = """
#line 1 "launch"
int main(int, char **arguments)
{
#ifndef _WIN32
    const rlimit seconds = {1, 2}; // of processor time; at the first the signal, at the second the end
    signal(SIGXCPU, [](int) { _exit(TOO_LONG); });
    setrlimit(RLIMIT_CPU, &seconds);
#endif
    const int size = atoi(arguments[1]), n = atoi(arguments[2]), guard = atoi(arguments[4]);
    const float tau = atof(arguments[3]);
    std::vector<float> scores(size + guard), inverse_norm(size + guard), weights(size + 2 * guard);
    for (std::vector<float> *array : {&scores, &inverse_norm, &weights})
        if (fread(array->data(), 4, array->size(), stdin) != array->size())
            return 1;
    blockDim.x = atoi(arguments[5]);
    gridDim.x = (size + blockDim.x - 1) / blockDim.x;
    for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++)
        for (threadIdx.x = 0; threadIdx.x < blockDim.x; threadIdx.x++)
            scale_gelu(scores.data(), inverse_norm.data(), weights.data() + guard, tau, n, size);
    return fwrite(weights.data(), 4, weights.size(), stdout) != weights.size();
}
"""


def run_kernel(source, scores, inverse_norm, tau):
    """Run the CUDA kernel scale_gelu of this source, slowly, to see what it computes: weights (rows, n), float32.

    scores: (rows, n)   inverse_norm: (rows, 1)   tau: number
    Raises NotImplementedError for an empty kernel, ValueError where the source is no CUDA or a thread writes or
    reads where it should not, and NotAttempted on a machine without a C++ compiler.
    """
    _require_kernel(source)
    _compile_for_gpu(source)
    return _run_on_cpu(source, scores, inverse_norm, tau)


def tools():
    """Names of the compilers that this machine has for a kernel."""
    return [name for name, found in (("NVRTC", _nvrtc()), ("a C++ compiler", _cpp())) if found]


def _require_kernel(source):
    """What can be seen without a compiler."""
    code = re.sub(r"//.*|/\*[\s\S]*?\*/", "", source)
    body = re.search(r"\{([\s\S]*)\}", code)
    if body and not body[1].strip():
        raise NotImplementedError
    if not re.search(r'extern\s+"C"\s+__global__\s+void\s+scale_gelu\b', code):
        raise ValueError('a kernel begins with extern "C" __global__ void and its name, scale_gelu')
    double = re.search(r"(?<![\w.])(\d+\.\d*|\.\d+)(e[-+]?\d+)?(?![\w.])", code)
    if double:
        number = double[0]
        raise ValueError(f"{number} is a double, which most GPUs compute many times slower: write {number}f")


@functools.cache
def _nvrtc():
    """The compiler for GPUs, if the package cuda-bindings is here and finds its library."""
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError):
        return None
    return nvrtc


def _cpp():
    return next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)


@functools.lru_cache
def _compile_for_gpu(source):
    """Raise ValueError where the compiler for GPUs, if there is one, finds an error."""
    nvrtc = _nvrtc()
    if nvrtc is None:
        return
    _, program = nvrtc.nvrtcCreateProgram(source.encode(), b"scale_gelu.cu", 0, [], [])
    (error,) = nvrtc.nvrtcCompileProgram(program, 2, [b"-std=c++17", b"-arch=sm_75"])
    if error == nvrtc.nvrtcResult.NVRTC_SUCCESS:
        return
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = bytearray(size)
    nvrtc.nvrtcGetProgramLog(program, log)
    raise ValueError(_first_error(log.decode()))


@functools.lru_cache
def _compile_for_cpu(source):
    """(folder, program); the folder lives as long as the cache holds it."""
    if _cpp() is None:
        raise NotAttempted("not checked: this takes a C++ compiler (g++ on Linux, Xcode's tools on a Mac)")
    folder = tempfile.TemporaryDirectory()
    program = Path(folder.name) / "scale_gelu"
    text = program.with_suffix(".cpp")
    text.write_text(CUDA_WORDS + source + LAUNCH, encoding="utf-8")
    command = [_cpp(), "-std=c++17", "-O1", "-w", f"-DTOO_LONG={TOO_LONG}", text, "-o", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(_first_error(done.stderr))
    return folder, program


def _first_error(report):
    """The compiler's first error in one line, without the path."""
    line = next((line for line in report.splitlines() if "error" in line), report.strip())
    return re.sub(r"^.*scale_gelu\.cu", "scale_gelu.cu", line)


def _run_on_cpu(source, scores, inverse_norm, tau):
    _, program = _compile_for_cpu(source)
    rows, n = scores.shape
    size = rows * n

    inputs = [np.full(size + GUARD, OUTSIDE) for _ in range(2)]
    for padded, array in zip(inputs, (scores, inverse_norm), strict=True):
        padded[: array.size] = array.ravel()
    weights = np.full(size + 2 * GUARD, UNTOUCHED)
    command = [program, *map(str, (size, n, tau, GUARD, BLOCK))]
    stdin = b"".join(array.tobytes() for array in (*inputs, weights))
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)
    if done.returncode == TOO_LONG:
        raise ValueError("the kernel does not end: does a loop count the wrong way?")
    if done.returncode:
        raise ValueError("the kernel crashes: an index is far outside its array")
    weights = np.frombuffer(done.stdout, np.float32)
    untouched = _is(UNTOUCHED, weights)
    inside = slice(GUARD, GUARD + size)
    if not (untouched[:GUARD].all() and untouched[GUARD + size :].all()):
        raise ValueError("a thread writes outside weights: is the guard `if (i < size)` missing?")
    if untouched[inside].any():
        raise ValueError(
            f"{untouched[inside].sum()} of {size} weights are never written: "
            "is i = blockIdx.x * blockDim.x + threadIdx.x?"
        )
    if _is(OUTSIDE, weights[inside]).any():
        raise ValueError("a thread reads outside its arrays: entry i belongs to row i / n of inverse_norm")
    return weights[inside].reshape(rows, n)


def _is(nan, array):
    """Where an array has this very NaN, with either sign."""
    return array.view(np.uint32) << 1 == nan.view(np.uint32) << 1
