// dweight[v] = sum of dout over the tokens with id v (ops.embedding_backward).
//
// Not by atomicAdd: the order of its additions, and with it the last bits of every training run, would change from
// run to run. Not by sorting either: the sort that CuPy calls makes the host wait. Instead one block per row of the
// vocabulary looks through all ids: vocab_size comparisons per token, 32 in one instruction and out of the cache,
// beside the 2 d vocab_size FLOPs per token of the unembedding. Ids outside the vocabulary belong to no row.
//
// Block (v, g) of 32 x 8 threads sums columns 256 g to 256 g + 255. Warp y takes ids 32 y + 256 k + (0 to 31); its
// lanes compare one id each and share the hits; each lane adds up 8 columns. The warps' sums meet in order.
KERNEL embedding_backward(const real *dout, const long long *ids, real *dweight, long long tokens, int width)
{
    __shared__ real sums[8][256];
    const int lane = threadIdx.x, warp = threadIdx.y, first = blockIdx.y * 256 + lane;
    real sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (long long start = 32 * warp; start < tokens; start += 256) {
        const bool mine = start + lane < tokens && ids[start + lane] == blockIdx.x;
        for (unsigned hits = __ballot_sync(ALL_LANES, mine); hits; hits &= hits - 1) {
            const real *row = dout + (start + __ffs(hits) - 1) * width;
            for (int k = 0; k < 8; k++)
                if (first + 32 * k < width)
                    sum[k] += row[first + 32 * k];
        }
    }
    for (int k = 0; k < 8; k++)
        sums[warp][lane + 32 * k] = sum[k];
    __syncthreads();
    const int column = blockIdx.y * 256 + 32 * warp + lane; // 256 threads, one column each
    if (column >= width)
        return;
    real total = 0;
    for (int w = 0; w < 8; w++)
        total += sums[w][32 * warp + lane];
    dweight[(long long)blockIdx.x * width + column] = total;
}
