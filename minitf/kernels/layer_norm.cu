// Layer norm along rows, out = normed weight + bias with normed = (x - mean) / sqrt(var + eps)
// (ops.layer_norm_forward, ops.layer_norm_backward). weight, bias and mean may be null.

INLINED void normalize(const real *x, const real *weight, const real *bias, real *out, int n, real eps, real &center,
                       real &inverse)
{
    real sum = 0, squares = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        sum += x[i];
    center = team_sum(sum) / n;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        squares += (x[i] - center) * (x[i] - center);
    inverse = 1 / sqrt(team_sum(squares) / n + eps);
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        real value = (x[i] - center) * inverse;
        if (weight)
            value *= weight[i];
        if (bias)
            value += bias[i];
        out[i] = value;
    }
}

KERNEL layer_norm_forward(const real *x, const real *weight, const real *bias, real *out, real *mean,
                          real *inverse_std, long long rows, int n, real eps)
{
    const long long row = team_row();
    if (row >= rows)
        return;
    const real *from = x + row * n;
    real center, inverse;
    if (fits(n))
        normalize(stage<0>(from, n), weight, bias, out + row * n, n, eps, center, inverse);
    else
        normalize(from, weight, bias, out + row * n, n, eps, center, inverse);
    if (threadIdx.x == 0) {
        inverse_std[row] = inverse;
        if (mean)
            mean[row] = center;
    }
}

// What the forward normed is source where mean is null, else (source - center) factor.
__device__ void how_normed(const real *mean, const real *inverse_std, long long row, real &center, real &factor)
{
    center = mean ? mean[row] : 0;
    factor = mean ? inverse_std[row] : 1;
}

// dx = inverse_std (dnormed - avg(dnormed) - normed avg(dnormed normed)),  dnormed = dout weight
INLINED void normalize_gradient(const real *dout, const real *source, const real *weight, real *dx, int n,
                                real center, real factor, real inverse)
{
    real along_one = 0, along_normed = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const real d = weight ? dout[i] * weight[i] : dout[i];
        along_one += d;
        along_normed += d * ((source[i] - center) * factor);
    }
    along_one = team_sum(along_one) / n;
    along_normed = team_sum(along_normed) / n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const real d = weight ? dout[i] * weight[i] : dout[i];
        const real along = (source[i] - center) * factor * along_normed;
        dx[i] = inverse * (d - along - along_one);
    }
}

KERNEL layer_norm_backward(const real *dout, const real *source, const real *mean, const real *inverse_std,
                           const real *weight, real *dx, long long rows, int n)
{
    const long long row = team_row();
    if (row >= rows)
        return;
    const real *gradient = dout + row * n, *from = source + row * n, inverse = inverse_std[row];
    real center, factor;
    how_normed(mean, inverse_std, row, center, factor);
    if (fits(n))
        normalize_gradient(stage<0>(gradient, n), stage<1>(from, n), weight, dx + row * n, n, center, factor, inverse);
    else
        normalize_gradient(gradient, from, weight, dx + row * n, n, center, factor, inverse);
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
