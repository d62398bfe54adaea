// Heads and rotary positions (attention.split_heads, merge_heads, rotary_forward and rotary_backward).

// Copy between (batch, T, heads, head_dim) and (batch, heads, T, head_dim), and on the way rotate the channel
// pairs (c, c + half), c < half, by the angle whose cos and sin stand in tables of (T, half):
//
//     first' = first cos - sign second sin        second' = second cos + sign first sin
//
// to_heads: 1 splits heads, 0 merges them. sign: 1 turns, -1 turns back, as the gradient does. half may be 0.
//
// A row is the channels of one head of one token, counted as in `by head` order. 32-bit divisions: there are fewer
// than 2^31 rows, and a division of 64 bits takes longer than the row.
KERNEL rotate_heads(const real *x, real *out, const real *cos, const real *sin, int rows, int length, int heads,
                    int head_dim, int half, int to_heads, real sign)
{
    const int row = team_row();
    if (row >= rows)
        return;
    const int t = row % length, group = row / length, head = group % heads, batch = group / heads;
    const long long by_head = (long long)row * head_dim;
    const long long by_token = (((long long)batch * length + t) * heads + head) * head_dim;
    const real *from = x + (to_heads ? by_token : by_head);
    real *to = out + (to_heads ? by_head : by_token);
    for (int c = threadIdx.x; c < head_dim; c += blockDim.x) {
        real value = from[c];
        if (c < 2 * half) {
            const int pair = t * half + (c < half ? c : c - half);
            const real other = c < half ? -from[c + half] : from[c - half];
            value = value * cos[pair] + sign * other * sin[pair];
        }
        to[c] = value;
    }
}
