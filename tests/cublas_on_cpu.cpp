// cuBLAS's gemm as its manual has it, in plain loops on the CPU: matrices lie column by column, "leading" entries
// from one column to the next. A leading dimension that is too small is refused, as there (CUBLAS_STATUS_INVALID_VALUE).

template <typename real>
static int gemm(int transpose_a, int transpose_b, int m, int n, int k, real alpha, const real *a, int lda,
                const real *b, int ldb, real beta, real *c, int ldc)
{
    if (lda < (transpose_a ? k : m) || ldb < (transpose_b ? n : k) || ldc < m)
        return 7;
    for (long long column = 0; column < n; column++)
        for (long long row = 0; row < m; row++) {
            real sum = 0;
            for (long long i = 0; i < k; i++)
                sum += a[transpose_a ? i + row * lda : row + i * lda] *
                       b[transpose_b ? column + i * ldb : i + column * ldb];
            real &entry = c[row + column * ldc];
            entry = alpha * sum + (beta == 0 ? 0 : beta * entry);
        }
    return 0;
}

#define GEMM(letter, real)                                                                                       \
    extern "C" int cublas##letter##gemm_v2(void *, int transpose_a, int transpose_b, int m, int n, int k,        \
                                           const real *alpha, const real *a, int lda, const real *b, int ldb,    \
                                           const real *beta, real *c, int ldc)                                   \
    {                                                                                                            \
        return gemm(transpose_a, transpose_b, m, n, k, *alpha, a, lda, b, ldb, *beta, c, ldc);                   \
    }                                                                                                            \
    extern "C" int cublas##letter##gemmStridedBatched(                                                           \
        void *, int transpose_a, int transpose_b, int m, int n, int k, const real *alpha, const real *a,         \
        int lda, long long step_a, const real *b, int ldb, long long step_b, const real *beta, real *c, int ldc, \
        long long step_c, int count)                                                                             \
    {                                                                                                            \
        for (int i = 0; i < count; i++)                                                                          \
            if (int status = gemm(transpose_a, transpose_b, m, n, k, *alpha, a + i * step_a, lda,                \
                                  b + i * step_b, ldb, *beta, c + i * step_c, ldc))                              \
                return status;                                                                                   \
        return 0;                                                                                                \
    }

GEMM(S, float)
GEMM(D, double)

extern "C" int cublasSetStream_v2(void *, void *)
{
    return 0;
}

extern "C" int cublasSetWorkspace_v2(void *, void *, unsigned long)
{
    return 0;
}
