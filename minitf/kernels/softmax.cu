// Softmax along rows, plain and causal (ops.softmax_forward, and the middle of attention.causal_attention_forward).
//
//     w = softmax(scale x)        over the first `visible` entries of the row; the rest get weight zero
//
// The largest entry is subtracted first. x and out may be the same array.

// exponentials: memory for them, which may be x.
INLINED void softmax_of(const real *x, real *exponentials, real *out, int n, int visible, real scale, real times)
{
    real largest = MINUS_INFINITY;
    for (int i = threadIdx.x; i < visible; i += blockDim.x)
        largest = fmax(largest, scale * x[i]);
    largest = team_max(largest);
    real total = 0;
    for (int i = threadIdx.x; i < visible; i += blockDim.x) {
        const real exponential = exp(scale * x[i] - largest);
        exponentials[i] = exponential;
        total += exponential;
    }
    const real factor = times / team_sum(total);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        out[i] = i < visible ? factor * exponentials[i] : real(0);
}

__device__ void softmax_row(const real *x, real *out, int n, int visible, real scale, real times)
{
    if (fits(visible)) {
        real *staged = stage<0>(x, visible);
        softmax_of(staged, staged, out, n, visible, scale, times);
    } else
        softmax_of(x, out, out, n, visible, scale, times);
}

// Causal where queries > 0: rows are the queries of one head after another, and the query at position p
// = past + row % queries sees the keys 0 to p.
KERNEL softmax_forward(const real *x, real *out, long long rows, int n, real scale, int queries, int past)
{
    const long long row = team_row();
    if (row >= rows)
        return;
    const int visible = queries > 0 ? past + (int)(row % queries) + 1 : n;
    softmax_row(x + row * n, out + row * n, n, visible < n ? visible : n, scale, 1);
}

// dx = scale w (dw - sum dw w); zero where w is, so the causal mask needs no second thought. dout may be dx.
INLINED void softmax_gradient(const real *dw, const real *w, real *dx, int n, real scale)
{
    real dot = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        dot += dw[i] * w[i];
    dot = team_sum(dot);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        dx[i] = scale * w[i] * (dw[i] - dot);
}

KERNEL softmax_backward(const real *dout, const real *out, real *dx, long long rows, int n, real scale)
{
    const long long row = team_row();
    if (row >= rows)
        return;
    const real *dw = dout + row * n, *w = out + row * n;
    if (fits(n))
        softmax_gradient(stage<0>(dw, n), stage<1>(w, n), dx + row * n, n, scale);
    else
        softmax_gradient(dw, w, dx + row * n, n, scale);
}
