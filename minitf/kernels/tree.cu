// Whole trees of arrays in one launch: AdamW (optim.adamw_step) and clipping (optim.clip_by_global_norm).
//
// A table of up to 64 leaves travels as a kernel argument, by value: no copy to the device, nothing to wait for.
// Every block works on CHUNK entries of one leaf; leaf l owns the blocks first_block[l] to first_block[l + 1] - 1.
// What the four addresses of a leaf mean is the kernel's business.

#define LEAVES 64
#define CHUNK 2048

struct Leaves { // cuda.py: LEAVES_DTYPE
    real *array[4][LEAVES];
    long long size[LEAVES];
    int first_block[LEAVES + 1];
    int decays[LEAVES]; // 1: weight decay acts on this leaf
};

__device__ int leaf_of_block(const Leaves &leaves)
{
    int leaf = 0;
    while ((int)blockIdx.x >= leaves.first_block[leaf + 1])
        leaf++;
    return leaf;
}

__device__ long long chunk_start(const Leaves &leaves, int leaf)
{
    return (long long)((int)blockIdx.x - leaves.first_block[leaf]) * CHUNK;
}

__device__ long long chunk_end(const Leaves &leaves, int leaf)
{
    const long long end = chunk_start(leaves, leaf) + CHUNK;
    return end < leaves.size[leaf] ? end : leaves.size[leaf];
}

// Arrays: p, g, m, v. The host gives step = lr / (1 - beta1^t), unbias = 1 / sqrt(1 - beta2^t), keep = 1 - lr wd.
//
//     m = beta1 m + (1 - beta1) g      v = beta2 v + (1 - beta2) g^2      p = keep p - step m / (sqrt(v) unbias + eps)
KERNEL adamw(const Leaves leaves, real beta1, real one_minus_beta1, real beta2, real one_minus_beta2, real keep,
             real step, real unbias, real eps)
{
    const int leaf = leaf_of_block(leaves);
    real *p = leaves.array[0][leaf], *m = leaves.array[2][leaf], *v = leaves.array[3][leaf];
    const real *gradient = leaves.array[1][leaf];
    const long long end = chunk_end(leaves, leaf);
    for (long long i = chunk_start(leaves, leaf) + threadIdx.x; i < end; i += blockDim.x) {
        const real g = gradient[i];
        const real first = beta1 * m[i] + one_minus_beta1 * g;
        const real second = beta2 * v[i] + one_minus_beta2 * g * g;
        const real kept = leaves.decays[leaf] ? p[i] * keep : p[i];
        m[i] = first;
        v[i] = second;
        p[i] = kept - step * first / (sqrt(second) * unbias + eps);
    }
}

// Arrays: g. The sum of squares of every chunk.
KERNEL chunk_squares(const Leaves leaves, real *squares)
{
    const int leaf = leaf_of_block(leaves);
    const real *g = leaves.array[0][leaf];
    const long long end = chunk_end(leaves, leaf);
    real sum = 0;
    for (long long i = chunk_start(leaves, leaf) + threadIdx.x; i < end; i += blockDim.x)
        sum += g[i] * g[i];
    sum = team_sum(sum);
    if (threadIdx.x == 0)
        squares[blockIdx.x] = sum;
}

// One block: norm = sqrt(sum of squares), factor = min(1, max_norm / (norm + 1e-6)). A norm of NaN makes the factor
// NaN, as in NumPy: fmin would hide it.
KERNEL clip_factor(const real *squares, real *norm, real *factor, long long count, real max_norm)
{
    real sum = 0;
    for (long long i = threadIdx.x; i < count; i += blockDim.x)
        sum += squares[i];
    sum = sqrt(team_sum(sum));
    if (threadIdx.x == 0) {
        const real ratio = max_norm / (sum + real(1e-6));
        *norm = sum;
        *factor = ratio > 1 ? 1 : ratio;
    }
}

// Arrays: g, out. out = factor g.
KERNEL scale_tree(const Leaves leaves, const real *factor)
{
    const int leaf = leaf_of_block(leaves);
    const long long end = chunk_end(leaves, leaf);
    for (long long i = chunk_start(leaves, leaf) + threadIdx.x; i < end; i += blockDim.x)
        leaves.array[1][leaf][i] = *factor * leaves.array[0][leaf][i];
}
