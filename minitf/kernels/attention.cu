// Heads and rotary positions (attention.split_heads, merge_heads, rotary_forward and rotary_backward).

// Copy between (batch, T, heads, head_dim) and (batch, heads, T, head_dim), and on the way rotate the channel
// pairs (c, c + half), c < half, by the angle whose cos and sin stand in tables of (T, half):
//
//     first' = first cos - sign second sin        second' = second cos + sign first sin
//
// to_heads: 1 splits heads, 0 merges them. sign: 1 turns, -1 turns back, as the gradient does. half may be 0.
KERNEL rotate_heads(const real *x, real *out, const real *cos, const real *sin, long long size, int length,
                    int heads, int head_dim, int half, int to_heads, real sign)
{
    const long long by_head = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (by_head >= size)
        return;
    const int c = by_head % head_dim, t = by_head / head_dim % length;
    const long long group = by_head / head_dim / length, head = group % heads, batch = group / heads;
    const long long by_token = ((batch * length + t) * heads + head) * head_dim + c;
    const long long source = to_heads ? by_token : by_head;

    real value = x[source];
    if (c < 2 * half) {
        const int pair = t * half + c % half;
        const real other = c < half ? -x[source + half] : x[source - half];
        value = value * cos[pair] + sign * other * sin[pair];
    }
    out[to_heads ? by_head : by_token] = value;
}
