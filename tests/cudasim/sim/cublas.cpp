// cuBLAS: matrix products. Operands are rounded according to the compute type and math mode. Sums
// are computed in the compute type, in an order that differs from cuBLAS: compare with tolerances.
#include <cstring>
#include <set>
#include <type_traits>
#include <vector>

#include "device.h"
#include "include/cudasim_half.h"
#include "memory.h"
#include "state.h"
#include "stream.h"

namespace cudasim {
namespace {

enum BlasStatus {
  ok = 0,
  not_initialized_status = 1,
  alloc_failed_status = 3,
  invalid_value_status = 7,
  execution_failed = 13,
  internal_error = 14,
  not_supported_status = 15,
};

enum Type { f32 = 0, f64 = 1, f16 = 2, bf16 = 14 };
enum Compute {
  compute_f32 = 68,
  compute_f32_pedantic = 69,
  compute_fast_f16 = 74,
  compute_fast_bf16 = 75,
  compute_fast_tf32 = 77,
  compute_f64 = 70,
  compute_f64_pedantic = 71,
};
enum MathMode { tf32_math = 3, mode_bits = 15 };

/// Device memory that the library takes for a handle.
constexpr size_t handle_bytes = 64 << 10;

struct Handle {
  StreamHandle stream = nullptr;
  int math = 0;
  int pointer_mode = 0;
  bool workspace = false;
};

std::set<Handle*> handles;

enum class Rounding { none, tf32, bf16, f16 };

struct Matrix {
  const void* data;
  int type;
  int leading;
  long long stride;
};

/// C[m,n] = alpha op(A)[m,k] op(B)[k,n] + beta C, column-major, for each of `batch` matrices.
struct Product {
  bool transpose_a, transpose_b;
  int m, n, k;
  const void *alpha, *beta;
  Matrix a, b, c;
  int batch;
  int compute;
  Rounding rounding;
};

size_t size_of(int type) { return type == f64 ? 8 : type == f32 ? 4 : 2; }

float rounded(float x, Rounding rounding) {
  switch (rounding) {
    case Rounding::tf32: return float_of_bits(float_to_tf32(x));
    case Rounding::bf16: return bf16_to_float(float_to_bf16(x));
    case Rounding::f16: return half_to_float(float_to_half(x));
    default: return x;
  }
}

template <class T>
T load(const void* data, int type, size_t at) {
  switch (type) {
    case f64: return static_cast<T>(static_cast<const double*>(data)[at]);
    case f32: return static_cast<T>(static_cast<const float*>(data)[at]);
    case f16: return static_cast<T>(half_to_float(static_cast<const unsigned short*>(data)[at]));
    default: return static_cast<T>(bf16_to_float(static_cast<const unsigned short*>(data)[at]));
  }
}

template <class T>
void store(void* data, int type, size_t at, T value) {
  switch (type) {
    case f64: static_cast<double*>(data)[at] = static_cast<double>(value); break;
    case f32: static_cast<float*>(data)[at] = static_cast<float>(value); break;
    case f16:
      static_cast<unsigned short*>(data)[at] = float_to_half(static_cast<float>(value));
      break;
    default: static_cast<unsigned short*>(data)[at] = float_to_bf16(static_cast<float>(value));
  }
}

/// A dense, column-major copy of op(M) with `rows` rows, rounded.
template <class T>
std::vector<T> unpack(const Matrix& matrix, size_t offset, bool transposed, int rows, int columns,
                      Rounding rounding) {
  std::vector<T> out(static_cast<size_t>(rows) * static_cast<size_t>(columns));
  size_t leading = static_cast<size_t>(matrix.leading), at = 0;
  for (size_t j = 0; j < static_cast<size_t>(columns); j++)
    for (size_t i = 0; i < static_cast<size_t>(rows); i++) {
      T x = load<T>(matrix.data, matrix.type,
                    offset + (transposed ? j + i * leading : i + j * leading));
      if constexpr (std::is_same_v<T, float>) x = rounded(x, rounding);
      out[at++] = x;
    }
  return out;
}

template <class T>
void multiply(const Product& p, size_t batch, T alpha, T beta) {
  auto offset = [batch](const Matrix& m) { return batch * static_cast<size_t>(m.stride); };
  std::vector<T> a = unpack<T>(p.a, offset(p.a), p.transpose_a, p.m, p.k, p.rounding);
  std::vector<T> b = unpack<T>(p.b, offset(p.b), p.transpose_b, p.k, p.n, p.rounding);
  std::vector<T> column(static_cast<size_t>(p.m));
  const size_t m = column.size(), k = static_cast<size_t>(p.k);
  void* c = const_cast<void*>(p.c.data);
  for (size_t j = 0; j < static_cast<size_t>(p.n); j++) {
    column.assign(m, T(0));
    for (size_t q = 0; q < k; q++) {
      const T factor = b[j * k + q];
      const T* from = &a[q * m];
      for (size_t i = 0; i < m; i++) column[i] += from[i] * factor;
    }
    for (size_t i = 0; i < m; i++) {
      size_t at = offset(p.c) + j * static_cast<size_t>(p.c.leading) + i;
      T old = beta == T(0) ? T(0) : beta * load<T>(c, p.c.type, at);  // with beta 0, C is not read
      store<T>(c, p.c.type, at, alpha * column[i] + old);
    }
  }
}

bool check_matrix(const Matrix& matrix, int rows, int columns, int batch, const char* name) {
  if (rows == 0 || columns == 0 || batch == 0) return true;
  size_t last = static_cast<size_t>(batch - 1) * static_cast<size_t>(matrix.stride) +
                static_cast<size_t>(columns - 1) * static_cast<size_t>(matrix.leading) +
                static_cast<size_t>(rows);
  return check_access(matrix.data, last * size_of(matrix.type),
                      std::string("matrix ") + name + " of a product");
}

void execute(const Product& p, double alpha, double beta) {
  bool fine = check_matrix(p.c, p.m, p.n, p.batch, "C");
  if (p.k > 0 && alpha != 0)
    fine = fine &&
           check_matrix(p.a, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.batch, "A") &&
           check_matrix(p.b, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.batch, "B");
  if (!fine) return;
  Product product = p;
  if (alpha == 0) product.k = 0;  // A and B are not read
  for (size_t i = 0; i < static_cast<size_t>(p.batch); i++) {
    if (p.compute == compute_f64 || p.compute == compute_f64_pedantic)
      multiply<double>(product, i, alpha, beta);
    else
      multiply<float>(product, i, static_cast<float>(alpha), static_cast<float>(beta));
  }
}

double scalar(const void* pointer, int compute) {
  bool wide = compute == compute_f64 || compute == compute_f64_pedantic;
  return wide ? *static_cast<const double*>(pointer)
              : static_cast<double>(*static_cast<const float*>(pointer));
}

/// The type combinations of cuBLAS: A and B of one type, C of that type or float.
bool supported(const Product& p) {
  if (p.a.type != p.b.type) return false;
  if (p.compute == compute_f64 || p.compute == compute_f64_pedantic)
    return p.a.type == f64 && p.c.type == f64;
  if (p.compute != compute_f32 && p.compute != compute_f32_pedantic &&
      p.compute != compute_fast_f16 && p.compute != compute_fast_bf16 &&
      p.compute != compute_fast_tf32)
    return false;
  if (p.a.type == f32) return p.c.type == f32;
  return (p.a.type == f16 || p.a.type == bf16) && (p.c.type == p.a.type || p.c.type == f32);
}

Rounding rounding_of(const Handle& handle, const Product& p) {
  if (p.a.type != f32) return Rounding::none;
  switch (p.compute) {
    case compute_fast_tf32: return Rounding::tf32;
    case compute_fast_bf16: return Rounding::bf16;
    case compute_fast_f16: return Rounding::f16;
    case compute_f32:
      return (handle.math & mode_bits) == tf32_math ? Rounding::tf32 : Rounding::none;
    default: return Rounding::none;
  }
}

int multiply(Handle* handle, int op_a, int op_b, Product p) {
  Lock lock(mutex);
  if (!handles.count(handle) || released_beneath_cublas()) return not_initialized_status;
  if (usable()) return execution_failed;
  if (op_a < 0 || op_a > 2 || op_b < 0 || op_b > 2 || p.m < 0 || p.n < 0 || p.k < 0 || p.batch < 0)
    return invalid_value_status;
  p.transpose_a = op_a != 0;
  p.transpose_b = op_b != 0;
  auto leading = [](const Matrix& m, int rows) { return m.leading >= rows && m.leading >= 1; };
  if (!leading(p.a, p.transpose_a ? p.k : p.m) || !leading(p.b, p.transpose_b ? p.n : p.k) ||
      !leading(p.c, p.m)) {
    report("a product with a leading dimension that is less than the rows");
    return invalid_value_status;
  }
  if (!supported(p)) return not_supported_status;
  p.rounding = rounding_of(*handle, p);
  Stream* stream = stream_of(handle->stream);
  if (!stream) return execution_failed;
  if (capturing(*stream) && !handle->workspace) {
    violate_capture(*stream,
                    "a product by cuBLAS without cublasSetWorkspace after cublasSetStream");
    return internal_error;
  }
  if (p.m == 0 || p.n == 0 || p.batch == 0) return ok;
  int status;
  if (handle->pointer_mode == 0) {
    double alpha = scalar(p.alpha, p.compute), beta = scalar(p.beta, p.compute);
    status = submit(*stream, [=] { execute(p, alpha, beta); });
  } else {
    status =
        submit(*stream, [=] { execute(p, scalar(p.alpha, p.compute), scalar(p.beta, p.compute)); });
  }
  return status ? execution_failed : ok;
}

}  // namespace

CUDASIM_EXPORT int cublasCreate_v2(Handle** handle) {
  Lock lock(mutex);
  if (usable() || released_beneath_cublas()) return not_initialized_status;
  break_captures("cublasCreate");
  if (!reserve(handle_bytes)) return alloc_failed_status;
  use_in_cublas();
  *handle = *handles.insert(new Handle).first;
  return ok;
}

CUDASIM_EXPORT int cublasDestroy_v2(Handle* handle) {
  Lock lock(mutex);
  if (!handles.erase(handle)) return not_initialized_status;
  break_captures("cublasDestroy");
  unreserve(handle_bytes);
  delete handle;
  return ok;
}

CUDASIM_EXPORT int cublasGetVersion_v2(Handle*, int* version) {
  *version = settings.products_version * 10;
  return ok;
}

/// The parts of the version by number: 0 major, 1 minor, 2 patch.
CUDASIM_EXPORT int cublasGetProperty(int part, int* value) {
  const int version = settings.products_version;
  *value = part == 0 ? version / 1000 : part == 1 ? version % 1000 / 10 : 0;
  return ok;
}

template <class Change>
static int with(Handle* handle, Change change) {
  Lock lock(mutex);
  if (!handles.count(handle)) return not_initialized_status;
  return change(*handle);
}

CUDASIM_EXPORT int cublasSetStream_v2(Handle* handle, StreamHandle stream) {
  return with(handle, [=](Handle& h) {
    h.stream = stream;
    h.workspace = false;  // as documented: setting the stream resets the workspace to the default
    return ok;
  });
}
CUDASIM_EXPORT int cublasGetStream_v2(Handle* handle, StreamHandle* stream) {
  return with(handle, [=](Handle& h) { return *stream = h.stream, ok; });
}
CUDASIM_EXPORT int cublasSetWorkspace_v2(Handle* handle, void* memory, size_t bytes) {
  return with(handle, [=](Handle& h) {
    if (bytes && !on_device(memory, bytes)) return invalid_value_status;
    h.workspace = bytes != 0;
    return ok;
  });
}
CUDASIM_EXPORT int cublasSetMathMode(Handle* handle, int mode) {
  return with(handle, [=](Handle& h) { return h.math = mode, ok; });
}
CUDASIM_EXPORT int cublasGetMathMode(Handle* handle, int* mode) {
  return with(handle, [=](Handle& h) { return *mode = h.math, ok; });
}
CUDASIM_EXPORT int cublasSetPointerMode_v2(Handle* handle, int mode) {
  return with(handle, [=](Handle& h) { return h.pointer_mode = mode, ok; });
}
CUDASIM_EXPORT int cublasGetPointerMode_v2(Handle* handle, int* mode) {
  return with(handle, [=](Handle& h) { return *mode = h.pointer_mode, ok; });
}
// These products use no atomics in any mode.
CUDASIM_EXPORT int cublasSetAtomicsMode(Handle* handle, int) {
  return with(handle, [](Handle&) { return ok; });
}

static const char* status_text(int status, bool name) {
  switch (status) {
    case ok: return name ? "CUBLAS_STATUS_SUCCESS" : "success";
    case not_initialized_status:
      return name ? "CUBLAS_STATUS_NOT_INITIALIZED" : "the library was not initialized";
    case alloc_failed_status:
      return name ? "CUBLAS_STATUS_ALLOC_FAILED" : "the resource allocation failed";
    case invalid_value_status:
      return name ? "CUBLAS_STATUS_INVALID_VALUE" : "an unsupported value or parameter was passed";
    case execution_failed:
      return name ? "CUBLAS_STATUS_EXECUTION_FAILED" : "the GPU program failed to execute";
    case internal_error:
      return name ? "CUBLAS_STATUS_INTERNAL_ERROR" : "an internal operation failed";
    case not_supported_status:
      return name ? "CUBLAS_STATUS_NOT_SUPPORTED" : "the functionality requested is not supported";
    default: return name ? "CUBLAS_STATUS_UNKNOWN" : "unknown status";
  }
}
CUDASIM_EXPORT const char* cublasGetStatusName(int status) { return status_text(status, true); }
CUDASIM_EXPORT const char* cublasGetStatusString(int status) { return status_text(status, false); }

CUDASIM_EXPORT int cublasSgemm_v2(Handle* handle, int op_a, int op_b, int m, int n, int k,
                                  const float* alpha, const float* a, int lda, const float* b,
                                  int ldb, const float* beta, float* c, int ldc) {
  return multiply(handle, op_a, op_b,
                  {false,
                   false,
                   m,
                   n,
                   k,
                   alpha,
                   beta,
                   {a, f32, lda, 0},
                   {b, f32, ldb, 0},
                   {c, f32, ldc, 0},
                   1,
                   compute_f32,
                   Rounding::none});
}
CUDASIM_EXPORT int cublasDgemm_v2(Handle* handle, int op_a, int op_b, int m, int n, int k,
                                  const double* alpha, const double* a, int lda, const double* b,
                                  int ldb, const double* beta, double* c, int ldc) {
  return multiply(handle, op_a, op_b,
                  {false,
                   false,
                   m,
                   n,
                   k,
                   alpha,
                   beta,
                   {a, f64, lda, 0},
                   {b, f64, ldb, 0},
                   {c, f64, ldc, 0},
                   1,
                   compute_f64,
                   Rounding::none});
}
CUDASIM_EXPORT int cublasSgemmStridedBatched(Handle* handle, int op_a, int op_b, int m, int n,
                                             int k, const float* alpha, const float* a, int lda,
                                             long long stride_a, const float* b, int ldb,
                                             long long stride_b, const float* beta, float* c,
                                             int ldc, long long stride_c, int batch) {
  return multiply(handle, op_a, op_b,
                  {false,
                   false,
                   m,
                   n,
                   k,
                   alpha,
                   beta,
                   {a, f32, lda, stride_a},
                   {b, f32, ldb, stride_b},
                   {c, f32, ldc, stride_c},
                   batch,
                   compute_f32,
                   Rounding::none});
}
CUDASIM_EXPORT int cublasDgemmStridedBatched(Handle* handle, int op_a, int op_b, int m, int n,
                                             int k, const double* alpha, const double* a, int lda,
                                             long long stride_a, const double* b, int ldb,
                                             long long stride_b, const double* beta, double* c,
                                             int ldc, long long stride_c, int batch) {
  return multiply(handle, op_a, op_b,
                  {false,
                   false,
                   m,
                   n,
                   k,
                   alpha,
                   beta,
                   {a, f64, lda, stride_a},
                   {b, f64, ldb, stride_b},
                   {c, f64, ldc, stride_c},
                   batch,
                   compute_f64,
                   Rounding::none});
}
CUDASIM_EXPORT int cublasGemmEx(Handle* handle, int op_a, int op_b, int m, int n, int k,
                                const void* alpha, const void* a, int type_a, int lda,
                                const void* b, int type_b, int ldb, const void* beta, void* c,
                                int type_c, int ldc, int compute, int) {
  return multiply(handle, op_a, op_b,
                  {false,
                   false,
                   m,
                   n,
                   k,
                   alpha,
                   beta,
                   {a, type_a, lda, 0},
                   {b, type_b, ldb, 0},
                   {c, type_c, ldc, 0},
                   1,
                   compute,
                   Rounding::none});
}
CUDASIM_EXPORT int cublasGemmStridedBatchedEx(Handle* handle, int op_a, int op_b, int m, int n,
                                              int k, const void* alpha, const void* a, int type_a,
                                              int lda, long long stride_a, const void* b,
                                              int type_b, int ldb, long long stride_b,
                                              const void* beta, void* c, int type_c, int ldc,
                                              long long stride_c, int batch, int compute, int) {
  return multiply(handle, op_a, op_b,
                  {false,
                   false,
                   m,
                   n,
                   k,
                   alpha,
                   beta,
                   {a, type_a, lda, stride_a},
                   {b, type_b, ldb, stride_b},
                   {c, type_c, ldc, stride_c},
                   batch,
                   compute,
                   Rounding::none});
}

}  // namespace cudasim
