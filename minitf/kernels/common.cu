// What the kernels share. cuda.py joins all .cu files into one module and compiles it twice: `real` is float
// or double (-DREAL=...). ASCII only: NVRTC gets its source through a file in the machine's own encoding.
//
// Rows. Most formulas work along the last axis, one row at a time. A team of threads owns a row:
//     a warp, for rows of up to 1024 entries:  blockDim = (32, 4), four rows per block, no barrier;
//     a block, for longer rows:                blockDim = (256, 1).
// A thread works on every blockDim.x-th entry. These kernels are bound by memory, so a row that is needed more than
// once is staged: fetched from memory in one go, and kept on the chip (see `stage`), if it fits. What is done with a
// row is INLINED twice, for rows that are staged and for rows that are not, so that the compiler knows which memory a
// pointer leads to.
//
// Nothing here depends on the order in which blocks or warps happen to run: results repeat to the last bit.

typedef REAL real;

#define THREADS 256
#define MINUS_INFINITY log(real(0))
#define INLINED __device__ __forceinline__
#define ALL_LANES 0xffffffffu
#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

// The row of this thread's team. Teams beyond the last row return at once; a team leaves as a whole, so the
// shuffles and barriers of the others stay complete.
__device__ long long team_row()
{
    return (long long)blockIdx.x * blockDim.y + threadIdx.y;
}

// Whether a row of this team fits into its part of the shared memory.
#define STAGE (16384 / (int)sizeof(real)) // entries for a block: 16 KiB, 1,024 floats for each of four warps
__device__ bool fits(int n)
{
    return n <= STAGE / (int)blockDim.y;
}

// Copy a row that fits to shared memory and return the copy; SLOT tells two copies in one kernel apart. A thread
// copies just the entries that it works on: it needs no barrier to read them, and may change them.
//
// Two reasons (numbers in README.md). The first-level cache would not keep the row: the rows of all
// warps on a multiprocessor are larger. And memory is far away: to keep it busy, a thread has to ask for many entries
// before the first one comes. So AT_ONCE loads stand before the first store, and the warp waits between them: else
// the compiler moves each store up to its load, to save registers.
#define AT_ONCE (64 / (int)sizeof(real)) // 16 floats
template <int SLOT> __device__ real *stage(const real *row, int n)
{
    __shared__ real memory[STAGE];
    const int step = blockDim.x;
    real *copy = memory + threadIdx.y * (STAGE / blockDim.y);
    for (int first = 0; first < n; first += AT_ONCE * step) {
        real held[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++)
            if (const int i = first + k * step + threadIdx.x; i < n)
                held[k] = row[i];
        __syncwarp();
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++)
            if (const int i = first + k * step + threadIdx.x; i < n)
                copy[i] = held[k];
    }
    return copy;
}

__device__ real warp_sum(real value)
{
    for (int lane = 16; lane > 0; lane /= 2)
        value += __shfl_xor_sync(ALL_LANES, value, lane);
    return value; // the same bits in every lane: a + b is b + a
}

__device__ real warp_max(real value)
{
    for (int lane = 16; lane > 0; lane /= 2)
        value = fmax(value, __shfl_xor_sync(ALL_LANES, value, lane));
    return value;
}

// Sum over a team of blockDim.x threads, known to all of them.
__device__ real team_sum(real value)
{
    value = warp_sum(value);
    if (blockDim.x == 32)
        return value;
    __shared__ real partial[THREADS / 32];
    __syncthreads(); // a slow warp may still be reading the last sum
    if (threadIdx.x % 32 == 0)
        partial[threadIdx.x / 32] = value;
    __syncthreads();
    value = 0;
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++)
        value += partial[warp];
    return value;
}

__device__ real team_max(real value)
{
    value = warp_max(value);
    if (blockDim.x == 32)
        return value;
    __shared__ real partial[THREADS / 32];
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        partial[threadIdx.x / 32] = value;
    __syncthreads();
    value = partial[0];
    for (int warp = 1; warp < (int)blockDim.x / 32; warp++)
        value = fmax(value, partial[warp]);
    return value;
}
