// Shapes that the tests of paged attention share, and what they compare with.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <ostream>
#include <string>
#include <vector>

#include "core/random.h"
#include "core/tensor.h"
#include "core/thread_pool.h"
#include "kernels/attention/attention.h"
#include "kernels/simd/isa.h"
#include "tests/support/kernel_checks.h"

namespace lathe::kernels::paged_tests {

inline Tensor i32(std::vector<int32_t> values) {
  return Tensor::of<int32_t>(values, {static_cast<int64_t>(values.size())});
}

inline Tensor random_tensor(RandomStream& random, const Shape& shape, DType dtype) {
  const Tensor x = Tensor::empty(shape, dtype);
  for (int64_t i = 0; i < x.numel(); ++i)
    lathe::testing::store_element(static_cast<std::byte*>(x.raw()) + i * size_of(dtype), dtype, random.normal());
  return x;
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.nbytes() == b.nbytes() && std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.nbytes())) == 0;
}

struct Model {
  const char* name;
  int64_t heads, kv_heads, head_dim;
  AttentionParams params;
  DType dtype;
  DType page_dtype = dtype;
  friend void PrintTo(const Model& model, std::ostream* stream) { *stream << model.name; }
};

// Runs the body on every instruction set of this machine with 1, 2 and 3 threads.
template <class Body>
void everywhere(Body body) {
  const Isa isa_before = active_isa();
  const int threads_before = thread_count();
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_bf16}) {
    if (!machine_has(isa)) continue;
    set_active_isa(isa);
    for (const int threads : {1, 2, 3}) {
      set_thread_count(threads);
      SCOPED_TRACE(std::string(name_of(isa)) + ", " + std::to_string(threads) + " threads");
      body();
    }
  }
  set_active_isa(isa_before);
  set_thread_count(threads_before);
}

}  // namespace lathe::kernels::paged_tests
