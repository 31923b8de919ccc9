#include "kernels/add/add.h"

#include <algorithm>
#include <initializer_list>
#include <string>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/add/bodies.h"
#include "kernels/add/reference.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"

namespace lathe::kernels {
namespace {

constexpr int64_t grain = 32768;  // elements: some microseconds

void check(const char* operation, const char* argument, const Tensor& tensor, const Tensor& out) {
  expect(operation, argument, tensor)
      .shape(out.shape())
      .dtype({DType::f32, DType::bf16, DType::f16, DType::f64})
      .contiguous()
      .device(out.device());
  expect_body(operation, argument, tensor);
}

void run(const AddArgs& args, Device device) {
  if (device.kind != DeviceKind::cpu) return with_device(device, [&]<DeviceKind kind>() { add_range<kind>(args); });
  parallel_for(args.end, grain, [&](int64_t begin, int64_t end) {
    AddArgs range = args;
    range.begin = begin;
    range.end = end;
    with_isa([&]<Isa isa>() { add_range<isa>(range); });
  });
}

// The one dtype of 16 bits among the arguments; bf16 where there is none.
DType half_of(const char* operation, std::initializer_list<Tensor> tensors) {
  bool f16 = false, bf16 = false;
  for (const Tensor& tensor : tensors) {
    f16 |= tensor.dtype() == DType::f16;
    bf16 |= tensor.dtype() == DType::bf16;
  }
  if (f16 && bf16)
    throw ShapeError(std::string(operation) + ": bf16 and f16 in one sum are not expected; cast one of them first");
  return f16 ? DType::f16 : DType::bf16;
}

bool is_f64(const Tensor& tensor) { return tensor.dtype() == DType::f64; }

AddArgs scale_args(const Tensor& out, const Tensor& a) {
  return {.out_dtype = out.dtype(),
          .a_dtype = a.dtype(),
          .b_dtype = DType::f32,
          .half = half_of("scale", {out, a}),
          .out = out.raw(),
          .a = a.raw(),
          .b = nullptr,
          .scale = 1.0f,
          .begin = 0,
          .end = out.numel()};
}

// Each row is scale()'s.
void scale_rows_on_cpu(const Tensor& out, const Tensor& a, const Tensor& scales) {
  const int64_t rows = out.dim(0), columns = out.dim(1);
  parallel_for(rows, std::max<int64_t>(1, grain / columns), [&](int64_t begin, int64_t end) {
    AddArgs row = scale_args(out, a);
    for (int64_t t = begin; t < end; ++t) {
      row.scale = scales.data<float>()[t];
      row.begin = t * columns;
      row.end = row.begin + columns;
      with_isa([&]<Isa isa>() { add_range<isa>(row); });
    }
  });
}

}  // namespace

void add(const Tensor& out, const Tensor& a, const Tensor& b, double scale) {
  expect("add", "out", out);
  check("add", "out", out, out);
  check("add", "a", a, out);
  check("add", "b", b, out);
  if (out.numel() == 0) return;
  if (is_f64(out) || is_f64(a) || is_f64(b)) return reference::add(out, a, b, scale);
  run({.out_dtype = out.dtype(),
       .a_dtype = a.dtype(),
       .b_dtype = b.dtype(),
       .half = half_of("add", {out, a, b}),
       .out = out.raw(),
       .a = a.raw(),
       .b = b.raw(),
       .scale = static_cast<float>(scale),
       .begin = 0,
       .end = out.numel()},
      out.device());
}

void scale(const Tensor& out, const Tensor& a, double scale) {
  expect("scale", "out", out);
  check("scale", "out", out, out);
  check("scale", "a", a, out);
  if (out.numel() == 0) return;
  if (is_f64(out) || is_f64(a)) return reference::scale(out, a, scale);
  AddArgs args = scale_args(out, a);
  args.scale = static_cast<float>(scale);
  run(args, out.device());
}

void scale_rows(const Tensor& out, const Tensor& a, const Tensor& scales) {
  expect("scale_rows", "out", out).rank(2);
  check("scale_rows", "out", out, out);
  check("scale_rows", "a", a, out);
  expect("scale_rows", "a", a).dtype(out.dtype());
  const Device device = out.device();
  expect("scale_rows", "scales", scales)
      .shape({out.dim(0)})
      .dtype(is_f64(out) ? DType::f64 : DType::f32)
      .contiguous()
      .device(device);
  if (out.numel() == 0) return;
  if (is_f64(out)) return reference::scale_rows(out, a, scales);
  if (device.kind == DeviceKind::cpu) return scale_rows_on_cpu(out, a, scales);
  with_device(device, [&]<DeviceKind kind>() {
    scale_rows<kind>({.dtype = out.dtype(),
                      .out = out.raw(),
                      .a = a.raw(),
                      .scales = scales.data<float>(),
                      .rows = out.dim(0),
                      .columns = out.dim(1)});
  });
}

}  // namespace lathe::kernels
