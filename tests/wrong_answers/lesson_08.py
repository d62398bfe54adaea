"""Wrong answers to the exercises of lesson 08, each with a word that must be in what the check says."""

from minitf.checks.lesson_08 import run_kernel

HEAD = """
extern "C" __global__ void scale_gelu(const float *scores, const float *inverse_norm, float *weights,
                                      float tau, int n, int size)
{
"""
INDEX = "const int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
Z = "const float z = tau * inverse_norm[i / n] * scores[i];\n"
GELU = "weights[i] = 0.5f * z * erfc(-z * 0.70710678f);\n"


def kernel(index=INDEX, guard="if (i < size)", z=Z, gelu=GELU, head=HEAD):
    """The right kernel but for one part."""
    source = f"{head}{index}{guard} {{\n{z}{gelu}}}\n}}\n"
    return lambda scores, inverse_norm, tau: run_kernel(source, scores, inverse_norm, tau)


WRONG = {
    "least_time": [
        (lambda f, b, p, m: f / p + b / m, "sum"),
        (lambda f, b, p, m: min(f / p, b / m), "smaller"),
        (lambda f, b, p, m: f / p, "memory"),
        (lambda f, b, p, m: b / m, "arithmetic"),
        (lambda f, b, p, m: max(f / m, b / p), "swapped"),
        (lambda f, b, p, m: min(p, m * f / b), "rate"),
        (lambda f, b, p, m: max(f * p, b * m), "multiply"),
        (lambda f, b, p, m: f / b, "intensity"),
        (lambda f, b, p, m: max(p / f, m / b), "wrong values"),
        (lambda f, b, p, m: (f / p, b / m), "a tuple"),
    ],
    "scale_gelu": [
        (kernel(guard=""), "guard"),
        (kernel(guard="if (i <= size)"), "guard"),
        (kernel(index="const int i = threadIdx.x;\n"), "never written"),
        (kernel(index="const int i = blockIdx.x * blockDim.x;\n"), "never written"),
        (kernel(index="const int i = blockIdx.x + threadIdx.x;\n"), "never written"),
        (kernel(index="const int i = threadIdx.x * blockDim.x + blockIdx.x;\n"), "never written"),
        (kernel(z=Z.replace("i / n", "i")), "outside"),
        (kernel(z=Z.replace("i / n", "i % n")), "outside"),
        (kernel(z=Z.replace("i / n", "0")), "first row"),
        (kernel(z=Z.replace("tau * ", "")), "tau"),
        (kernel(z=Z.replace("* inverse_norm", "/ inverse_norm")), "1 over the norm"),
        (kernel(z=Z.replace("* inverse_norm[i / n]", "")), "inverse_norm missing"),
        (kernel(gelu="weights[i] = z;\n"), "GeLU"),
        (kernel(gelu="weights[i] = 0.5f * erfc(-z * 0.70710678f);\n"), "Φ"),
        (kernel(gelu="weights[i] = 0.5f * z * erfc(-z);\n"), "√2"),
        (kernel(gelu="weights[i] = 0.5f * z * erfc(z * 0.70710678f);\n"), "minus"),
        (kernel(gelu="weights[i] = z * erfc(-z * 0.70710678f);\n"), "½"),
        (kernel(gelu="weights[i] = 0.5f * z * erf(z * 0.70710678f);\n"), "erf where"),
        (kernel(gelu="weights[i] = z > 0 ? z : 0;\n"), "ReLU"),
        (kernel(gelu="weights[i] = z / (1 + exp(-1.702f * z));\n"), "sigmoid"),
        (
            kernel(gelu="weights[i] = 0.5f * z * (1 + tanh(0.79788456f * (z + 0.044715f * z * z * z)));\n"),
            "tanh",
        ),
        (kernel(gelu=GELU.replace("0.5f", "0.5")), "double"),
        (kernel(gelu=GELU.replace(";", "")), "error"),
        (kernel(gelu="weights[i * 100000000] = z;\n"), "crashes"),
        (kernel(gelu="while (z == z);\n" + GELU), "does not end"),
        (kernel(head=HEAD.replace('extern "C" ', "")), 'extern "C"'),
        (kernel(head=HEAD.replace("const float *scores, ", "")), "error"),
    ],
}
