// GeLU(x) = x Phi(x), and its derivative Phi(x) + x phi(x) (ops.gelu_forward, ops.gelu_backward). The backward
// computes Phi and phi anew: that costs less than writing both in the forward and reading them here.

// Phi and phi, the cumulative distribution and density of the standard normal, or with `approximate`
// Phi = (1 + tanh(slope (x + 0.044715 x^3))) / 2 and its derivative.
__device__ void cdf_and_pdf(real x, int approximate, real &cdf, real &pdf)
{
    if (approximate) {
        const real slope = real(0.79788456080286535588), cubic = real(0.044715); // sqrt(2 / pi)
        const real near = fmin(fmax(x, real(-40)), real(40)); // beyond, t is -1 or 1, and cubes overflow
        const real t = tanh(slope * (near + cubic * near * near * near));
        cdf = real(0.5) * (1 + t);
        pdf = real(0.5) * (1 - t * t) * slope * (1 + 3 * cubic * near * near);
    } else {
        // erf takes half the instructions of erfc; what its tail lacks, 3e-8 in float, is nothing beside x = 5
        cdf = real(0.5) + real(0.5) * erf(x * real(0.70710678118654752440)); // 1 / sqrt(2)
        pdf = exp(real(-0.5) * x * x) * real(0.39894228040143267794); // 1 / sqrt(2 pi)
    }
}

__device__ real gelu(real x, int approximate)
{
    real cdf, pdf;
    cdf_and_pdf(x, approximate, cdf, pdf);
    return x * cdf;
}

__device__ real gelu_slope(real x, int approximate)
{
    real cdf, pdf;
    cdf_and_pdf(x, approximate, cdf, pdf);
    return cdf + x * pdf;
}

// Each thread has four entries, 256 apart: four loads on their way at a time instead of one.
#define ENTRIES 4

KERNEL gelu_forward(const real *x, real *out, long long size, int approximate)
{
    const long long first = (long long)blockIdx.x * ENTRIES * blockDim.x + threadIdx.x;
    real held[ENTRIES];
#pragma unroll
    for (int k = 0; k < ENTRIES; k++)
        if (first + k * blockDim.x < size)
            held[k] = x[first + k * blockDim.x];
#pragma unroll
    for (int k = 0; k < ENTRIES; k++)
        if (first + k * blockDim.x < size)
            out[first + k * blockDim.x] = gelu(held[k], approximate);
}

KERNEL gelu_backward(const real *dout, const real *x, real *dx, long long size, int approximate)
{
    const long long first = (long long)blockIdx.x * ENTRIES * blockDim.x + threadIdx.x;
    real held[ENTRIES], gradient[ENTRIES];
#pragma unroll
    for (int k = 0; k < ENTRIES; k++)
        if (first + k * blockDim.x < size) {
            held[k] = x[first + k * blockDim.x];
            gradient[k] = dout[first + k * blockDim.x];
        }
#pragma unroll
    for (int k = 0; k < ENTRIES; k++)
        if (first + k * blockDim.x < size)
            dx[first + k * blockDim.x] = gradient[k] * gelu_slope(held[k], approximate);
}
