// Theta, from the scores of n parameter tokens to their weights (pattention.theta_forward and theta_backward):
//
//     l2_norm_gelu   w = GeLU(scale u),     u = a / |a|_2          scale = tau
//     gelu_l2_norm   w = scale u,           u = g / |g|_2, g = GeLU(a)
//     l1_norm_gelu   w = GeLU(scale u),     u = a / |a|_1          scale = tau^2
//     softmax        w = scale softmax(a)                          scale = tau^2
//     gelu           w = GeLU(a)
//
// A row of zeros has no direction: its inverse norm is 0, and so are its weights and gradients.

enum Kind { L2_NORM_GELU, GELU_L2_NORM, SOFTMAX, L1_NORM_GELU, GELU }; // the order of KINDS

#define SMALLEST_NORMAL (sizeof(real) == 8 ? real(2.2250738585072014e-308) : real(1.1754943508222875e-38))

// What the norm is taken of.
__device__ real before_norm(real a, int kind, int approximate)
{
    return kind == GELU_L2_NORM ? gelu(a, approximate) : a;
}

// Gradient of the loss with respect to u.
__device__ real dnormed(real dw, real u, int kind, int approximate, real scale)
{
    return kind == GELU_L2_NORM ? scale * dw : scale * dw * gelu_slope(scale * u, approximate);
}

// A row of weights by way of a norm; gives 1 / |x|. x is divided by its largest entry first: squares of entries above
// 1e19 overflow float.
INLINED real normed_weights(const real *a, real *w, int n, int kind, int approximate, real scale)
{
    real largest = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        largest = fmax(largest, fabs(before_norm(a[i], kind, approximate)));
    largest = team_max(largest);
    const bool alive = largest > SMALLEST_NORMAL;
    const real to_unit = alive ? 1 / largest : 1; // one division for the row: each takes ten instructions
    real norm = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const real unit = before_norm(a[i], kind, approximate) * to_unit;
        norm += kind == L1_NORM_GELU ? fabs(unit) : unit * unit;
    }
    norm = team_sum(norm);
    if (kind != L1_NORM_GELU)
        norm = sqrt(norm);
    const real inverse = alive ? to_unit / norm : 0;

    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const real scaled = scale * (before_norm(a[i], kind, approximate) * inverse);
        w[i] = kind == GELU_L2_NORM ? scaled : gelu(scaled, approximate);
    }
    return inverse;
}

KERNEL theta_forward(const real *scores, real *weights, real *inverse_norm, long long rows, int n, int kind,
                     int approximate, real scale)
{
    const long long row = team_row();
    if (row >= rows)
        return;
    const real *a = scores + row * n;
    real *w = weights + row * n;

    if (kind == SOFTMAX) {
        softmax_row(a, w, n, n, 1, scale);
        return;
    }
    if (kind == GELU) {
        for (int i = threadIdx.x; i < n; i += blockDim.x)
            w[i] = gelu(a[i], approximate);
        return;
    }
    real inverse;
    if (!fits(n))
        inverse = normed_weights(a, w, n, kind, approximate, scale);
    else if (kind == L2_NORM_GELU && !approximate) // the paper's: code without a branch
        inverse = normed_weights(stage<0>(a, n), w, n, L2_NORM_GELU, 0, scale);
    else
        inverse = normed_weights(stage<0>(a, n), w, n, kind, approximate, scale);
    if (threadIdx.x == 0)
        inverse_norm[row] = inverse;
}

// Back through the norm, u = x / |x|:  dx = (du - u (u . du)) / |x|; for |x|_1, sign(x) takes the place of the first
// u (paper, App. A, eq. 25). du is needed twice and is most of the arithmetic: kept is memory for it, or null.
INLINED void normed_gradient(const real *dw, const real *a, real *kept, real *da, int n, int kind, int approximate,
                             real scale, real inverse)
{
    real dot = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const real u = before_norm(a[i], kind, approximate) * inverse;
        const real du = dnormed(dw[i], u, kind, approximate, scale);
        if (kept)
            kept[i] = du;
        dot += u * du;
    }
    dot = team_sum(dot);
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const real u = before_norm(a[i], kind, approximate) * inverse;
        const real du = kept ? kept[i] : dnormed(dw[i], u, kind, approximate, scale);
        const real sign = a[i] > 0 ? 1 : a[i] < 0 ? -1 : 0;
        const real dx = inverse * (du - (kind == L1_NORM_GELU ? sign : u) * dot);
        da[i] = kind == GELU_L2_NORM ? dx * gelu_slope(a[i], approximate) : dx;
    }
}

KERNEL theta_backward(const real *dweights, const real *scores, const real *weights, const real *inverse_norm,
                      real *dscores, long long rows, int n, int kind, int approximate, real scale)
{
    const long long row = team_row();
    if (row >= rows)
        return;
    const real *dw = dweights + row * n, *a = scores + row * n, *w = weights + row * n;
    real *da = dscores + row * n;

    if (kind == GELU) {
        for (int i = threadIdx.x; i < n; i += blockDim.x)
            da[i] = dw[i] * gelu_slope(a[i], approximate);
        return;
    }
    if (kind == SOFTMAX) { // da = w (dw - sum dw softmax), where softmax = w / scale
        real dot = 0;
        for (int i = threadIdx.x; i < n; i += blockDim.x)
            dot += dw[i] * (w[i] / scale);
        dot = team_sum(dot);
        for (int i = threadIdx.x; i < n; i += blockDim.x)
            da[i] = w[i] * (dw[i] - dot);
        return;
    }
    const real inverse = inverse_norm[row];
    if (!fits(n)) {
        normed_gradient(dw, a, nullptr, da, n, kind, approximate, scale, inverse);
        return;
    }
    a = stage<0>(a, n);
    real *staged = stage<1>(dw, n);
    if (kind == L2_NORM_GELU && !approximate)
        normed_gradient(staged, a, staged, da, n, L2_NORM_GELU, 0, scale, inverse);
    else
        normed_gradient(staged, a, staged, da, n, kind, approximate, scale, inverse);
}
