#include "kernels/copy/copy.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/copy/cpu.h"
#include "kernels/copy/cuda.h"
#include "kernels/cuda/runtime.h"
#include "kernels/dispatch.h"
#include "kernels/reference/element.h"

namespace lathe::kernels {
namespace {

constexpr int64_t grain = 32768;  // elements: some microseconds

static_assert(Walk::max_rank == Shape::max_rank);

Walk fold(const Tensor& out, const Tensor& in) {
  Walk walk;
  int d = out.rank() - 1;
  while (d >= 0 && out.dim(d) == 1) --d;
  if (d >= 0) {
    walk.run = out.dim(d);
    walk.out_step = out.stride(d);
    walk.in_step = in.stride(d);
    --d;
  }
  for (; d >= 0; --d) {
    const int64_t extent = out.dim(d);
    if (extent == 1) continue;
    if (walk.rank == 0 && out.stride(d) == walk.run * walk.out_step && in.stride(d) == walk.run * walk.in_step) {
      walk.run *= extent;
      continue;
    }
    const int k = walk.rank++;
    walk.extent[k] = extent;
    walk.out_stride[k] = out.stride(d);
    walk.in_stride[k] = in.stride(d);
    walk.rows *= extent;
  }
  return walk;
}

// Offsets of row `row`, in elements.
void locate(const Walk& walk, int64_t row, int64_t& out_offset, int64_t& in_offset) {
  out_offset = in_offset = 0;
  for (int k = 0; k < walk.rank; ++k) {
    const int64_t index = row % walk.extent[k];
    row /= walk.extent[k];
    out_offset += index * walk.out_stride[k];
    in_offset += index * walk.in_stride[k];
  }
}

template <class Bits>
void copy_bits(char* out, const char* in, int64_t count, int64_t out_step, int64_t in_step) {
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(out + i * out_step * static_cast<int64_t>(sizeof(Bits)),
                in + i * in_step * static_cast<int64_t>(sizeof(Bits)), sizeof(Bits));
  }
}

// `count` elements of one run.
void copy_run(DType out_dtype, char* out, int64_t out_step, DType in_dtype, const char* in, int64_t in_step,
              int64_t count) {
  const bool contiguous = out_step == 1 && in_step == 1;
  if (out_dtype == in_dtype) {
    const int64_t element = size_of(out_dtype);
    if (contiguous) {
      std::memcpy(out, in, static_cast<size_t>(count * element));
      return;
    }
    switch (element) {
      case 8: return copy_bits<uint64_t>(out, in, count, out_step, in_step);
      case 4: return copy_bits<uint32_t>(out, in, count, out_step, in_step);
      case 2: return copy_bits<uint16_t>(out, in, count, out_step, in_step);
      default: return copy_bits<uint8_t>(out, in, count, out_step, in_step);
    }
  }
  if (contiguous && out_dtype != DType::f64 && in_dtype != DType::f64) {
    return with_isa([&]<Isa isa>() { cast_run<isa>({out_dtype, in_dtype, out, in, count}); });
  }
  for (int64_t i = 0; i < count; ++i) {
    reference::write(out_dtype, out, i * out_step, reference::read(in_dtype, in, i * in_step));
  }
}

void store(DType dtype, void* data, double value) {
  switch (dtype) {
    case DType::i64: *static_cast<int64_t*>(data) = static_cast<int64_t>(value); return;
    case DType::i32: *static_cast<int32_t*>(data) = static_cast<int32_t>(value); return;
    case DType::u32: *static_cast<uint32_t*>(data) = static_cast<uint32_t>(value); return;
    case DType::u16: *static_cast<uint16_t*>(data) = static_cast<uint16_t>(value); return;
    case DType::u8: *static_cast<uint8_t*>(data) = static_cast<uint8_t>(value); return;
    case DType::i8: *static_cast<int8_t*>(data) = static_cast<int8_t>(value); return;
    case DType::boolean: *static_cast<bool*>(data) = value != 0; return;
    default: reference::write(dtype, data, 0, value);
  }
}

void copy_on_cpu(const Tensor& out, const Tensor& in, const Walk& walk) {
  char* to = static_cast<char*>(out.raw());
  const char* from = static_cast<const char*>(in.raw());
  const int64_t out_bytes = size_of(out.dtype()), in_bytes = size_of(in.dtype());
  if (walk.rows == 1) {  // one long run is cut, many rows are dealt out
    parallel_for(walk.run, grain, [&](int64_t begin, int64_t end) {
      copy_run(out.dtype(), to + begin * walk.out_step * out_bytes, walk.out_step, in.dtype(),
               from + begin * walk.in_step * in_bytes, walk.in_step, end - begin);
    });
    return;
  }
  parallel_for(walk.rows, std::max<int64_t>(1, grain / walk.run), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      int64_t out_offset, in_offset;
      locate(walk, row, out_offset, in_offset);
      copy_run(out.dtype(), to + out_offset * out_bytes, walk.out_step, in.dtype(), from + in_offset * in_bytes,
               walk.in_step, walk.run);
    }
  });
}

void fill_on_cpu(const Tensor& out, const char* pattern, const Walk& walk) {
  const int64_t element = size_of(out.dtype());
  char* to = static_cast<char*>(out.raw());
  // A step of 0 on the input side repeats the pattern.
  const auto fill_run = [&](int64_t offset, int64_t count) {
    copy_run(out.dtype(), to + offset * element, walk.out_step, out.dtype(), pattern, 0, count);
  };
  if (walk.rows == 1) {
    parallel_for(walk.run, grain, [&](int64_t begin, int64_t end) { fill_run(begin * walk.out_step, end - begin); });
    return;
  }
  parallel_for(walk.rows, std::max<int64_t>(1, grain / walk.run), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      int64_t out_offset, in_offset;
      locate(walk, row, out_offset, in_offset);
      fill_run(out_offset, walk.run);
    }
  });
}

void copy_to_other_device(const Tensor& out, const Tensor& in) {
  expect("copy", "out", out).dtype(in.dtype()).contiguous();
  expect("copy", "in", in).contiguous();
  copy_bytes(out.device(), out.raw(), in.device(), in.raw(), in.nbytes());
}

}  // namespace

void copy(const Tensor& out, const Tensor& in) {
  expect("copy", "in", in);
  expect("copy", "out", out).shape(in.shape());
  if (out.dtype() != in.dtype()) {
    expect("copy", "in", in).dtype({DType::f32, DType::bf16, DType::f16, DType::f64});
    expect("copy", "out", out).dtype({DType::f32, DType::bf16, DType::f16, DType::f64});
  }
  if (in.numel() == 0) return;
  if (out.device() != in.device()) return copy_to_other_device(out, in);
  const Walk walk = fold(out, in);
  if (in.device().kind == DeviceKind::cpu) return copy_on_cpu(out, in, walk);
  with_device(in.device(), [&]<DeviceKind kind>() {
    copy_rows<kind>({out.dtype(), in.dtype(), out.raw(), in.raw(), walk});
  });
}

void fill(const Tensor& out, double value) {
  expect("fill", "out", out);
  if (out.numel() == 0) return;
  alignas(8) char pattern[8] = {};
  store(out.dtype(), pattern, value);
  const Walk walk = fold(out, out);
  if (out.device().kind == DeviceKind::cpu) return fill_on_cpu(out, pattern, walk);
  FillCuda args{.element_bytes = size_of(out.dtype()), .pattern = 0, .out = out.raw(), .walk = walk};
  std::memcpy(&args.pattern, pattern, sizeof pattern);
  with_device(out.device(), [&]<DeviceKind kind>() { fill_rows<kind>(args); });
}

Tensor moved(const Tensor& in, Device device, std::optional<MemoryTag> tag) {
  if (in.device() == device && in.is_contiguous()) return in;
  Tensor source = in;
  if (!in.is_contiguous()) {
    source = Tensor::empty(in.shape(), in.dtype(), in.device(), in.device() == device ? tag : MemoryTag::workspace);
    copy(source, in);
    if (in.device() == device) return source;
  }
  Tensor out = Tensor::empty(in.shape(), in.dtype(), device, tag);
  copy(out, source);
  return out;
}

Tensor cast(const Tensor& in, DType dtype) {
  expect("cast", "in", in);
  if (in.dtype() == dtype && in.is_contiguous()) return in;
  Tensor out = Tensor::empty(in.shape(), dtype, in.device());
  copy(out, in);
  return out;
}

}  // namespace lathe::kernels
