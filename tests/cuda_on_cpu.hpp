// CUDA on a CPU: runs the very .cu sources that a GPU gets, slowly, to see what they compute.
//
// Threads of a block are fibers of one OS thread. A fiber runs until it reaches __syncthreads or a warp function;
// when all whom it waits for have come, they go on. Blocks run one after the other, upwards or (odd orders) downwards.
// What this finds:
//     wrong arithmetic and indices;  a missing barrier (see `order`);  barriers and shuffles that not all threads
//     reach (an error, not a hang);  shared memory read before it is written (it starts as NaN, in every block);
//     results that need the blocks in one order;
//     kernel arguments in the wrong order or of the wrong size (see CUDA_ON_CPU).
// What it cannot find: most races between blocks, and between threads on global memory without a barrier in reach;
// misaligned accesses; what a GPU's own exp and erfc round to; anything about speed.
// Supported: the names below. Not supported: extern __shared__, textures, streams, atomics, warps that are not full.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <strings.h>
#include <ucontext.h>

#define __global__
#define __device__ static
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(threads)
// all __shared__ variables lie together, so that a block can start with NaN in each of them
#define __shared__ static __attribute__((section("cuda_shared")))

// the overloads for float, as in CUDA C++
using std::erf, std::erfc, std::exp, std::fabs, std::fmax, std::fmin, std::log, std::sqrt, std::tanh;

struct uint3 {
    unsigned x, y, z;
};
static uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_cpu {

extern "C" {
extern char __start_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_cuda_shared[] __attribute__((weak, visibility("hidden")));
}

enum State { READY, AT_BARRIER, AT_SHUFFLE, AT_BALLOT, DONE };

struct Thread {
    ucontext_t context;
    uint3 index;
    State state;
    unsigned mask;       // of a warp function: who takes part
    int partner;         // shuffle: the lane whose value is wanted
    uint64_t value;      // what this lane gives, then what it gets
};

constexpr size_t STACK = 64 * 1024;
static std::vector<Thread> threads;
static std::unique_ptr<char[]> stacks; // pages that no fiber touches cost nothing
static size_t stacks_for = 0;
static ucontext_t scheduler;
static size_t current;
static void (*body)(void *);
static void *body_data;

static void entry()
{
    body(body_data);
    threads[current].state = DONE;
    swapcontext(&threads[current].context, &scheduler); // for good
}

static void start(Thread &thread, char *stack)
{
    thread.state = READY;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = stack;
    thread.context.uc_stack.ss_size = STACK;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, entry, 0);
}

static void wait(State state)
{
    threads[current].state = state;
    swapcontext(&threads[current].context, &scheduler);
}

// Let the lanes of one warp go on whose partners have all come to the same warp function.
static std::string release_warp(size_t first, bool &moved)
{
    for (size_t i = first; i < first + 32; i++) {
        const Thread &asker = threads[i];
        if (asker.state != AT_SHUFFLE && asker.state != AT_BALLOT)
            continue;
        bool complete = true;
        uint64_t ballot = 0, values[32];
        for (int lane = 0; lane < 32; lane++) {
            const Thread &other = threads[first + lane];
            values[lane] = other.value;
            if (!(asker.mask >> lane & 1))
                continue;
            if (other.state == DONE)
                return "a warp function waits for a lane that has returned";
            complete = complete && other.state == asker.state && other.mask == asker.mask;
            ballot |= uint64_t(other.value != 0) << lane;
        }
        if (!(asker.mask >> (i - first) & 1))
            return "a lane calls a warp function whose mask leaves it out";
        if (!complete)
            continue;
        const unsigned mask = asker.mask;
        const State kind = asker.state;
        for (int lane = 0; lane < 32; lane++) {
            Thread &thread = threads[first + lane];
            if (!(mask >> lane & 1))
                continue;
            if (kind == AT_SHUFFLE && !(mask >> thread.partner & 1))
                return "a shuffle reads a lane that takes no part in it";
            thread.value = kind == AT_SHUFFLE ? values[thread.partner] : ballot;
            thread.state = READY;
        }
        moved = true;
    }
    return "";
}

// Whose turn it is. order 0: threads upwards; 1: downwards; else shuffled, and warps are slow for a while: the others
// run ahead as far as the barriers let them. A result that depends on the order lacks a barrier.
static std::string run_block(unsigned order)
{
    const size_t count = threads.size();
    memset(__start_cuda_shared, 0xff, __stop_cuda_shared - __start_cuda_shared);
    std::vector<size_t> turn(count);
    uint64_t state = order + 1000 * uint64_t(blockIdx.x) + 7 * blockIdx.y;
    const auto random = [&state] { return (state = state * 6364136223846793005u + 1442695040888963407u) >> 33; };
    std::vector<bool> slow(count / 32);
    for (size_t i = 0; i < count; i++) {
        turn[i] = order == 1 ? count - 1 - i : i;
        if (order > 1)
            std::swap(turn[i], turn[random() % (i + 1)]);
        Thread &thread = threads[i];
        const unsigned n = i;
        thread.index = {n % blockDim.x, n / blockDim.x % blockDim.y, n / blockDim.x / blockDim.y};
        start(thread, stacks.get() + i * STACK);
    }
    while (true) {
        bool moved = false;
        for (size_t warp = 0; order > 1 && warp < slow.size(); warp++)
            slow[warp] = slow[warp] != (random() % 8 == 0);
        for (size_t i : turn)
            if (threads[i].state == READY) {
                moved = true; // or will, once its warp is not slow
                if (slow[i / 32])
                    continue;
                current = i;
                threadIdx = threads[i].index;
                swapcontext(&scheduler, &threads[i].context);
            }
        for (size_t first = 0; first < count; first += 32) {
            const std::string error = release_warp(first, moved);
            if (!error.empty())
                return error;
        }
        size_t at_barrier = 0, done = 0;
        for (const Thread &thread : threads) {
            at_barrier += thread.state == AT_BARRIER;
            done += thread.state == DONE;
        }
        if (done == count)
            return "";
        if (at_barrier == count) {
            for (Thread &thread : threads)
                thread.state = READY;
            moved = true;
        }
        if (!moved)
            return "deadlock: " + std::to_string(at_barrier) + " of " + std::to_string(count) +
                   " threads wait in __syncthreads, " + std::to_string(done) + " have returned";
    }
}

static std::string run_grid(const unsigned *grid, const unsigned *block, unsigned order)
{
    const size_t count = size_t(block[0]) * block[1] * block[2];
    if (count < 1 || count > 1024 || block[2] > 64)
        return "a block has 1 to 1024 threads, at most 64 along z";
    if (count % 32)
        return "a warp that is not full: this stand-in takes multiples of 32 threads";
    if (grid[0] < 1 || grid[0] > 0x7fffffffu || grid[1] < 1 || grid[1] > 65535 || grid[2] < 1 || grid[2] > 65535)
        return "a grid has 1 to 2^31 - 1 blocks along x, 1 to 65535 along y and z";
    if (count > stacks_for) {
        stacks.reset(new char[count * STACK]);
        stacks_for = count;
    }
    threads.resize(count);
    blockDim = {block[0], block[1], block[2]};
    gridDim = {grid[0], grid[1], grid[2]};
    const size_t blocks = size_t(grid[0]) * grid[1] * grid[2];
    for (size_t i = 0; i < blocks; i++) {
        const size_t block = order % 2 ? blocks - 1 - i : i;
        blockIdx.x = block % grid[0];
        blockIdx.y = block / grid[0] % grid[1];
        blockIdx.z = block / grid[0] / grid[1];
        const std::string error = run_block(order);
        if (!error.empty())
            return error;
    }
    return "";
}

// Arguments come as cuLaunchKernel takes them: an array of pointers to the bytes of each.
template <class... A> struct Call {
    void (*kernel)(A...);
    void **arguments;
};

template <class... A, size_t... I> void call(const Call<A...> &c, std::index_sequence<I...>)
{
    c.kernel(*static_cast<std::remove_const_t<A> *>(c.arguments[I])...);
}

template <class... A>
const char *launch(void (*kernel)(A...), void **arguments, const unsigned *grid, const unsigned *block, unsigned order)
{
    static std::string error;
    Call<A...> c{kernel, arguments};
    body_data = &c;
    body = [](void *data) { call(*static_cast<Call<A...> *>(data), std::index_sequence_for<A...>()); };
    error = run_grid(grid, block, order);
    return error.c_str();
}

template <class A> std::string type_name()
{
    if (std::is_pointer_v<A>)
        return "pointer ";
    const char *kind = std::is_floating_point_v<A> ? "f" : std::is_integral_v<A> ? "i" : "struct";
    return kind + std::to_string(sizeof(A)) + " ";
}

// The types of the arguments as the compiler sees them: "pointer i8 i4 f4 struct3080 ".
template <class... A> const char *types(void (*)(A...))
{
    static const std::string names = (type_name<std::remove_const_t<A>>() + ... + "");
    return names.c_str();
}

} // namespace cuda_on_cpu

static void __syncthreads()
{
    cuda_on_cpu::wait(cuda_on_cpu::AT_BARRIER);
}

template <class T> static T __shfl_xor_sync(unsigned mask, T value, int lanes)
{
    using namespace cuda_on_cpu;
    static_assert(sizeof(T) <= 8);
    const size_t me = current; // another fiber will have moved it
    threads[me].mask = mask;
    threads[me].partner = (me % 32) ^ lanes;
    threads[me].value = 0;
    memcpy(&threads[me].value, &value, sizeof value);
    wait(AT_SHUFFLE);
    memcpy(&value, &threads[me].value, sizeof value);
    return value;
}

[[maybe_unused]] static unsigned __ballot_sync(unsigned mask, int vote)
{
    using namespace cuda_on_cpu;
    const size_t me = current;
    threads[me].mask = mask;
    threads[me].value = vote != 0;
    wait(AT_BALLOT);
    return threads[me].value;
}

[[maybe_unused]] static void __syncwarp(unsigned mask = 0xffffffffu)
{
    __ballot_sync(mask, 0);
}

[[maybe_unused]] static int __ffs(int bits)
{
    return ffs(bits);
}

#define CUDA_ON_CPU(kernel)                                                                                     \
    extern "C" __attribute__((visibility("default"))) const char *launch_##kernel(                              \
        void **arguments, const unsigned *grid, const unsigned *block, unsigned order)                          \
    {                                                                                                           \
        return cuda_on_cpu::launch(kernel, arguments, grid, block, order);                                      \
    }                                                                                                           \
    extern "C" __attribute__((visibility("default"))) const char *types_##kernel()                              \
    {                                                                                                           \
        return cuda_on_cpu::types(kernel);                                                                      \
    }
