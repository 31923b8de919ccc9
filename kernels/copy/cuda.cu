// Bound by bandwidth where both sides are contiguous. What is not moved as vectors goes element by element: a
// transposed side takes a memory transaction for each of its elements.
#include "kernels/copy/cuda.h"

#include <type_traits>

#include "kernels/cuda/elementwise.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

struct Offsets {
  int64_t out, in;
};

// Unrolled to constant indices: indexed by a variable, the walk would be copied into local memory.
__device__ __forceinline__ Offsets offsets_of_row(const Walk& walk, int64_t row) {
  Offsets offsets{0, 0};
  LATHE_UNROLL
  for (int k = 0; k < Walk::max_rank; ++k) {
    if (k >= walk.rank) break;
    const int64_t index = k + 1 < walk.rank ? row % walk.extent[k] : row;
    row = k + 1 < walk.rank ? row / walk.extent[k] : 0;
    offsets.out += index * walk.out_stride[k];
    offsets.in += index * walk.in_stride[k];
  }
  return offsets;
}

// Rounds to odd: a further rounding to 16 bits gives what rounding the double once would (kernels/reference/element.h).
__device__ __forceinline__ float float_for_rounding(double value) {
  const float nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || value != value) return nearest;
  const unsigned bits = __float_as_uint(nearest);
  if (bits & 1u) return nearest;
  const bool short_of = fabs(static_cast<double>(nearest)) < fabs(value);
  return __uint_as_float(short_of ? bits + 1u : bits - 1u);
}

template <class Out, class In>
__device__ __forceinline__ Out convert(In value) {
  if constexpr (std::is_same_v<Out, In>) {
    return value;
  } else if constexpr (std::is_same_v<In, double>) {
    if constexpr (std::is_same_v<Out, float>)
      return static_cast<float>(value);
    else
      return from_float<Out>(float_for_rounding(value));
  } else if constexpr (std::is_same_v<Out, double>) {
    return static_cast<double>(to_float(value));
  } else {
    return from_float<Out>(to_float(value));
  }
}

template <class Out, class In, bool aligned>
__global__ void __launch_bounds__(elementwise_threads) copy_kernel(CopyCuda a, Tiling tiling) {
  const auto [row, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const Offsets start = offsets_of_row(a.walk, row);
  const In* in = static_cast<const In*>(a.in) + start.in + column * a.walk.in_step;
  Out* out = static_cast<Out*>(a.out) + start.out + column * a.walk.out_step;
  if constexpr (aligned) {
    if (count == group_elements) {
      const GroupBits<In> from = load_bits(in);
      GroupBits<Out> to;
      LATHE_UNROLL
      for (int j = 0; j < group_elements; ++j) to.elements[j] = convert<Out, In>(from.elements[j]);
      store_bits(out, to);
      return;
    }
  }
  for (int j = 0; j < count; ++j) out[j * a.walk.out_step] = convert<Out, In>(in[j * a.walk.in_step]);
}

template <class Bits, bool aligned>
__global__ void __launch_bounds__(elementwise_threads) fill_kernel(FillCuda a, Tiling tiling) {
  const auto [row, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const Bits value = static_cast<Bits>(a.pattern);
  Bits* out = static_cast<Bits*>(a.out) + offsets_of_row(a.walk, row).out + column * a.walk.out_step;
  if constexpr (aligned) {
    if (count == group_elements) {
      GroupBits<Bits> to;
      LATHE_UNROLL
      for (int j = 0; j < group_elements; ++j) to.elements[j] = value;
      store_bits(out, to);
      return;
    }
  }
  for (int j = 0; j < count; ++j) out[j * a.walk.out_step] = value;
}

// Memory without gaps: a warp stores 512 consecutive bytes at a time. (Groups of eight f32 lie 32 bytes apart, so that
// each of their two stores fills half of every sector: 56 % of the bandwidth.)
constexpr int fill_threads = 256, fill_vectors = 4;  // of a thread

template <class Bits>
union FillVector {
  uint4 vector;
  Bits elements[16 / sizeof(Bits)];
};

template <class Bits>
__global__ void __launch_bounds__(fill_threads) fill_vectors_kernel(Bits* out, int64_t count, FillVector<Bits> value) {
  constexpr int width = 16 / sizeof(Bits);
  const int64_t first = int64_t{blockIdx.x} * fill_threads * fill_vectors + threadIdx.x;
  LATHE_UNROLL
  for (int i = 0; i < fill_vectors; ++i) {
    const int64_t at = (first + i * fill_threads) * width;
    if (at + width <= count) {
      store_vector<uint4>(out + at, value.vector);
    } else {
      for (int64_t j = at; j < count; ++j) out[j] = value.elements[0];
    }
  }
}

template <class T>
bool vectors_fit(const void* data, int64_t step, const int64_t (&strides)[Walk::max_rank], int rank) {
  bool fit = step == 1;
  for (int k = 0; k < rank; ++k) fit = fit && rows_aligned(static_cast<const T*>(data), strides[k]);
  return fit && rows_aligned(static_cast<const T*>(data), 0);
}

template <class Out, class In>
void copy(const CopyCuda& a) {
  // Element by element go single bytes, of which a group is no whole vector, and f64 beside another dtype, which is
  // rare.
  constexpr bool as_vectors = sizeof(In) > 1 && (sizeof(In) + sizeof(Out) <= 8 || sizeof(In) == sizeof(Out));
  void (*kernel)(CopyCuda, Tiling) = copy_kernel<Out, In, false>;
  if constexpr (as_vectors) {
    if (vectors_fit<Out>(a.out, a.walk.out_step, a.walk.out_stride, a.walk.rank) &&
        vectors_fit<In>(a.in, a.walk.in_step, a.walk.in_stride, a.walk.rank))
      kernel = copy_kernel<Out, In, true>;
  }
  launch_elementwise("copy", a.walk.rows, a.walk.run, kernel, a);
}

template <class Bits>
void fill(const FillCuda& a) {
  if (a.walk.rows == 1 && a.walk.out_step == 1 && rows_aligned(static_cast<const Bits*>(a.out), 0)) {
    FillVector<Bits> value;
    for (Bits& element : value.elements) element = static_cast<Bits>(a.pattern);
    constexpr int64_t of_block = int64_t{fill_threads} * fill_vectors * 16 / sizeof(Bits);
    return launch({.name = "fill",
                   .grid = dim3(static_cast<unsigned>((a.walk.run + of_block - 1) / of_block)),
                   .block = dim3(fill_threads)},
                  fill_vectors_kernel<Bits>, static_cast<Bits*>(a.out), a.walk.run, value);
  }
  void (*kernel)(FillCuda, Tiling) = fill_kernel<Bits, false>;
  if constexpr (sizeof(Bits) > 1) {
    if (vectors_fit<Bits>(a.out, a.walk.out_step, a.walk.out_stride, a.walk.rank)) kernel = fill_kernel<Bits, true>;
  }
  launch_elementwise("fill", a.walk.rows, a.walk.run, kernel, a);
}

template <class Out, class In>
void cast(const CopyCuda& a) {
  if constexpr (!std::is_same_v<Out, In>) copy<Out, In>(a);
}

template <class Out>
void cast_to(const CopyCuda& a) {
  switch (a.in_dtype) {
    case DType::bf16: return cast<Out, bf16_t>(a);
    case DType::f16: return cast<Out, f16_t>(a);
    case DType::f64: return cast<Out, double>(a);
    default: return cast<Out, float>(a);
  }
}

void copy_bits(const CopyCuda& a, int64_t element_bytes) {
  if (a.walk.rows == 1 && a.walk.out_step == 1 && a.walk.in_step == 1) {
    const size_t bytes = static_cast<size_t>(a.walk.run * element_bytes);
    return check(cudaMemcpyAsync(a.out, a.in, bytes, cudaMemcpyDeviceToDevice, current_stream()), "copy");
  }
  switch (element_bytes) {
    case 8: return copy<uint64_t, uint64_t>(a);
    case 4: return copy<uint32_t, uint32_t>(a);
    case 2: return copy<uint16_t, uint16_t>(a);
    default: return copy<uint8_t, uint8_t>(a);
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void copy_rows(const CopyCuda& args) {
  if (args.out_dtype == args.in_dtype) return copy_bits(args, size_of(args.out_dtype));
  switch (args.out_dtype) {
    case DType::bf16: return cast_to<bf16_t>(args);
    case DType::f16: return cast_to<f16_t>(args);
    case DType::f64: return cast_to<double>(args);
    default: return cast_to<float>(args);
  }
}
template void copy_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const CopyCuda&);

template <DeviceKind>
void fill_rows(const FillCuda& args) {
  switch (args.element_bytes) {
    case 8: return fill<uint64_t>(args);
    case 4: return fill<uint32_t>(args);
    case 2: return fill<uint16_t>(args);
    default: return fill<uint8_t>(args);
  }
}
template void fill_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const FillCuda&);

}  // namespace lathe::kernels
