// Softmax along rows, plain and causal (ops.softmax_forward, and the middle of attention.causal_attention_forward).
//
//     w = softmax(scale x)        over the first `visible` entries of the row; the rest get weight zero
//
// The largest entry is subtracted first. x and out may be the same array.

__device__ void softmax_row(const real *x, real *out, int n, int visible, real scale, real times)
{
    real *staged = stage<0>(x, visible);
    const real *from = staged ? staged : x;
    real *exponentials = staged ? staged : out;
    real largest = scale * x[0];
    for (int i = threadIdx.x; i < visible; i += blockDim.x)
        largest = fmax(largest, scale * from[i]);
    largest = team_max(largest); // also a barrier, as is team_sum: x[0] has been read before it is overwritten
    real total = 0;
    for (int i = threadIdx.x; i < visible; i += blockDim.x) {
        const real exponential = exp(scale * from[i] - largest);
        exponentials[i] = exponential;
        total += exponential;
    }
    const real factor = times / team_sum(total);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        out[i] = i < visible ? factor * exponentials[i] : real(0);
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
KERNEL softmax_backward(const real *dout, const real *out, real *dx, long long rows, int n, real scale)
{
    const long long row = team_row();
    if (row >= rows)
        return;
    const real *dw = dout + row * n, *w = out + row * n;
    const real *staged_dw = stage<0>(dw, n), *staged_w = stage<1>(w, n);
    if (staged_dw)
        dw = staged_dw, w = staged_w;
    real dot = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        dot += dw[i] * w[i];
    dot = team_sum(dot);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        dx[row * n + i] = scale * w[i] * (dw[i] - dot);
}
