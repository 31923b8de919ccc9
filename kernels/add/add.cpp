#include "kernels/add/add.h"

#include "core/thread_pool.h"
#include "kernels/add/cpu.h"
#include "kernels/add/reference.h"
#include "kernels/checks/expect.h"

namespace lathe::kernels {
namespace {

constexpr int64_t grain = 32768;  // elements: some microseconds

void check(const char* operation, const char* argument, const Tensor& tensor, const Tensor& out) {
  expect(operation, argument, tensor)
      .shape(out.shape())
      .dtype({DType::f32, DType::bf16, DType::f64})
      .contiguous()
      .device(out.device());
}

void run_on_cpu(AddArgs args, int64_t count) {
  parallel_for(count, grain, [&](int64_t begin, int64_t end) {
    AddArgs range = args;
    range.begin = begin;
    range.end = end;
    cpu::add_range(range);
  });
}

bool is_f64(const Tensor& tensor) { return tensor.dtype() == DType::f64; }

}  // namespace

void add(const Tensor& out, const Tensor& a, const Tensor& b, double scale) {
  expect("add", "out", out);
  check("add", "out", out, out);
  check("add", "a", a, out);
  check("add", "b", b, out);
  expect_cpu("add", out);
  if (is_f64(out) || is_f64(a) || is_f64(b)) return reference::add(out, a, b, scale);
  run_on_cpu({out.dtype(), a.dtype(), b.dtype(), out.raw(), a.raw(), b.raw(), static_cast<float>(scale), 0, 0},
             out.numel());
}

void scale(const Tensor& out, const Tensor& a, double scale) {
  expect("scale", "out", out);
  check("scale", "out", out, out);
  check("scale", "a", a, out);
  expect_cpu("scale", out);
  if (is_f64(out) || is_f64(a)) return reference::scale(out, a, scale);
  run_on_cpu({out.dtype(), a.dtype(), DType::f32, out.raw(), a.raw(), nullptr, static_cast<float>(scale), 0, 0},
             out.numel());
}

}  // namespace lathe::kernels
