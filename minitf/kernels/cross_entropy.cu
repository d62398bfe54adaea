// Cross-entropy, the mean of -log softmax(logits)[target] over the kept tokens (ops.cross_entropy_forward and
// cross_entropy_backward). Mask, number of kept tokens and loss stay on the device: the host waits for nothing.
// Probabilities are not stored: the backward has them back from each row's largest logit and sum of exponentials.

INLINED void top_and_sum(const real *x, int n, real &top, real &sum)
{
    top = MINUS_INFINITY;
    sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        top = fmax(top, x[i]);
    top = team_max(top);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        sum += exp(x[i] - top);
    sum = team_sum(sum);
}

// The loss of every token; 0 where the mask (null: keep all) drops it. A target outside the vocabulary makes it
// NaN: the formula raises IndexError on the CPU, but a GPU cannot tell without making the host wait.
KERNEL cross_entropy_rows(const real *logits, const long long *targets, const unsigned char *mask, real *losses,
                          real *largest, real *total, long long rows, int n)
{
    const long long row = team_row();
    if (row >= rows)
        return;
    const real *x = logits + row * n;
    real top, sum;
    if (fits(n))
        top_and_sum(stage<0>(x, n), n, top, sum);
    else
        top_and_sum(x, n, top, sum);
    if (threadIdx.x > 0)
        return;
    const long long target = targets[row];
    const bool valid = target >= 0 && target < n;
    const real loss = valid ? log(sum) - (x[target] - top) : log(real(-1));
    losses[row] = mask && !mask[row] ? 0 : loss;
    largest[row] = top;
    total[row] = sum;
}

// One block: the mean of the kept losses, and how many there are.
KERNEL cross_entropy_mean(const real *losses, const unsigned char *mask, real *loss, real *count, long long rows)
{
    real sum = 0, kept = 0;
#pragma unroll 8
    for (long long row = threadIdx.x; row < rows; row += blockDim.x) {
        sum += losses[row];
        kept += !mask || mask[row] ? 1 : 0;
    }
    sum = team_sum(sum);
    kept = team_sum(kept);
    if (threadIdx.x == 0) {
        *loss = sum / kept;
        *count = kept;
    }
}

// dlogits = dloss (softmax(logits) - one_hot(target)) / count for a kept token. dloss: null counts as 1.
KERNEL cross_entropy_backward(const real *logits, const long long *targets, const unsigned char *mask,
                              const real *largest, const real *total, const real *count, const real *dloss,
                              real scale, real *dlogits, long long rows, int n)
{
    const long long row = team_row();
    if (row >= rows)
        return;
    const real kept = !mask || mask[row] ? 1 : 0;
    const real share = scale * (dloss ? *dloss : 1) * (kept / *count);
    const real *x = logits + row * n, top = largest[row], to_probability = 1 / total[row];
    const long long target = targets[row];
    if (fits(n)) // for the many loads at a time
        x = stage<0>(x, n);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        dlogits[row * n + i] = share * (exp(x[i] - top) * to_probability - (i == target ? 1 : 0));
}
