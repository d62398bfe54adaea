// Layer norm along rows, out = normed weight + bias with normed = (x - mean) / sqrt(var + eps)
// (ops.layer_norm_forward, ops.layer_norm_backward). weight, bias and mean may be null.

KERNEL layer_norm_forward(const real *x, const real *weight, const real *bias, real *out, real *mean,
                          real *inverse_std, long long rows, int n, real eps)
{
    const long long row = team_row();
    if (row >= rows)
        return;
    const real *from = x + row * n;
    real *to = out + row * n;
    if (const real *staged = stage<0>(from, n))
        from = staged;

    real sum = 0, squares = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        sum += from[i];
    const real center = team_sum(sum) / n;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        squares += (from[i] - center) * (from[i] - center);
    const real inverse = 1 / sqrt(team_sum(squares) / n + eps);

    if (threadIdx.x == 0) {
        inverse_std[row] = inverse;
        if (mean)
            mean[row] = center;
    }
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        real value = (from[i] - center) * inverse;
        if (weight)
            value *= weight[i];
        if (bias)
            value += bias[i];
        to[i] = value;
    }
}

// What the forward normed is source where mean is null, else (source - center) factor.
__device__ void how_normed(const real *mean, const real *inverse_std, long long row, real &center, real &factor)
{
    center = mean ? mean[row] : 0;
    factor = mean ? inverse_std[row] : 1;
}

// dx = inverse_std (dnormed - avg(dnormed) - normed avg(dnormed normed)),  dnormed = dout weight
KERNEL layer_norm_backward(const real *dout, const real *source, const real *mean, const real *inverse_std,
                           const real *weight, real *dx, long long rows, int n)
{
    const long long row = team_row();
    if (row >= rows)
        return;
    const real *from = source + row * n, *gradient = dout + row * n;
    const real *staged_from = stage<0>(from, n), *staged_gradient = stage<1>(gradient, n);
    if (staged_from)
        from = staged_from, gradient = staged_gradient;
    real center, factor, along_one = 0, along_normed = 0;
    how_normed(mean, inverse_std, row, center, factor);
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const real d = weight ? gradient[i] * weight[i] : gradient[i];
        along_one += d;
        along_normed += d * ((from[i] - center) * factor);
    }
    along_one = team_sum(along_one) / n;
    along_normed = team_sum(along_normed) / n;
    const real inverse = inverse_std[row];
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const real d = weight ? gradient[i] * weight[i] : gradient[i];
        const real along = (from[i] - center) * factor * along_normed;
        dx[row * n + i] = inverse * (d - along - along_one);
    }
}

// dweight = sum over rows of dout normed, dbias = sum of dout. Block (c, s) of 32 x 8 threads adds up 32 columns
// of a stripe of rows, always in the same order, and writes line s of the results; the caller sums the lines.
KERNEL layer_norm_columns(const real *dout, const real *source, const real *mean, const real *inverse_std,
                          real *dweight, real *dbias, long long rows, int n, int stripe)
{
    __shared__ real weights[8][32], biases[8][32];
    const int column = blockIdx.x * 32 + threadIdx.x;
    const long long first = (long long)blockIdx.y * stripe;
    const long long last = first + stripe < rows ? first + stripe : rows;
    real weight = 0, bias = 0;
    if (column < n)
        for (long long row = first + threadIdx.y; row < last; row += 8) {
            const real d = dout[row * n + column];
            real center, factor;
            how_normed(mean, inverse_std, row, center, factor);
            weight += d * ((source[row * n + column] - center) * factor);
            bias += d;
        }
    weights[threadIdx.y][threadIdx.x] = weight;
    biases[threadIdx.y][threadIdx.x] = bias;
    __syncthreads();
    if (threadIdx.y > 0 || column >= n)
        return;
    weight = bias = 0;
    for (int y = 0; y < 8; y++) {
        weight += weights[y][threadIdx.x];
        bias += biases[y][threadIdx.x];
    }
    if (dweight)
        dweight[(long long)blockIdx.y * n + column] = weight;
    if (dbias)
        dbias[(long long)blockIdx.y * n + column] = bias;
}
