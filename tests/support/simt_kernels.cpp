#include "tests/support/simt_kernels.h"

#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/cuda/row.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using lathe::testing::Collective;
using lathe::testing::Planted;
using lathe::testing::Tile;

struct Row {
  float at[256];
};

__global__ void planted_kernel(Planted fault, float* out, const float* in, int count) {
  Row& row = block_shared<Row>();
  float* dynamic = dynamic_shared<float>();
  const int i = threadIdx.x;
  switch (fault) {
    case Planted::none:
      row.at[i] = in[i];
      __syncthreads();
      out[i] = row.at[count - 1 - i];
      break;
    case Planted::halves_of_words:
    case Planted::half_of_a_word_read:
    case Planted::half_of_a_word_written: {
      uint16_t* const halves = reinterpret_cast<uint16_t*>(&row);
      halves[i] = static_cast<uint16_t>(in[i]);
      if (fault == Planted::half_of_a_word_written && i % 2 != 0) row.at[i / 2] = in[i];
      if (fault != Planted::half_of_a_word_read) __syncthreads();
      uint32_t word = 0;
      memcpy(&word, &row.at[i / 2], sizeof word);
      out[i] = static_cast<float>((word & 0xffffu) + (word >> 16));
      __syncthreads();
      row.at[i] = 0;  // nobody's halves any more
      break;
    }
    case Planted::missing_barrier:
      row.at[i] = in[i];
      out[i] = row.at[count - 1 - i];
      break;
    case Planted::race_between_warps:
      row.at[i % 32] = in[i];
      __syncthreads();
      out[i] = row.at[i % 32];
      break;
    case Planted::missing_warp_barrier:
      row.at[i] = in[i];
      out[i] = row.at[i ^ 1];
      break;
    case Planted::off_by_one_shared:
      dynamic[i] = in[i];
      __syncthreads();
      out[i] = dynamic[i + 1];
      break;
    case Planted::off_by_one_global: out[i] = in[i + 1]; break;
    case Planted::barrier_in_a_branch:
      if (i < 32) {
        __syncthreads();
      } else {
        __syncthreads();
      }
      out[i] = in[i];
      break;
    case Planted::exit_before_barrier:
      if (i == count - 1) return;
      __syncthreads();
      out[i] = in[i];
      break;
    case Planted::exit_before_shuffle:
      if (i % 32 == 7) return;
      out[i] = __shfl_xor_sync(full_warp, in[i], 1);
      break;
    case Planted::shuffle_from_outside_the_mask:
      if (i % 32 < 16) out[i] = __shfl_sync(0xffffu, in[i], 20);
      break;
    case Planted::copy_never_waited_for:
      cp_async_16(dynamic + 4 * i, in);
      cp_async_commit();
      out[i] = 0;
      break;
    case Planted::read_before_copy_arrived:
      cp_async_16(dynamic + 4 * i, in);
      cp_async_commit();
      out[i] = dynamic[4 * i];
      cp_async_wait<0>();
      break;
    case Planted::misaligned_vector: out[i] = load_vector<float4>(in + i).x; break;
    case Planted::misaligned_scalar:
      out[i] = *reinterpret_cast<const float*>(reinterpret_cast<const char*>(in) + 2);
      break;
    case Planted::unwritten_shared: out[i] = row.at[i]; break;
    case Planted::read_before_grid_wait:
      row.at[i] = in[i];
      grid_dependency_wait();
      out[i] = row.at[i];
      break;
    case Planted::copy_before_grid_wait:
      cp_async_16(dynamic + 4 * i, in);
      cp_async_commit();
      grid_dependency_wait();
      cp_async_wait<0>();
      out[i] = dynamic[4 * i];
      break;
    case Planted::exit_before_grid_wait:
      if (i == count - 1) return;
      grid_dependency_wait();
      out[i] = in[i];
      break;
    case Planted::order_dependent_sum:
      if (i == 0) row.at[0] = 0;
      __syncthreads();
      atomicAdd(&row.at[0], in[i]);
      __syncthreads();
      out[i] = row.at[0];
      break;
  }
}

__global__ void collective_kernel(Collective collective, uint32_t* out, const uint32_t* in) {
  const int lane = threadIdx.x;
  const uint32_t value = in[lane];
  uint32_t result = 0;
  switch (collective) {
    case Collective::shuffle_up: result = __shfl_up_sync(full_warp, value, 3); break;
    case Collective::shuffle_down: result = __shfl_down_sync(full_warp, value, 3); break;
    case Collective::shuffle_xor: result = __shfl_xor_sync(full_warp, value, 5); break;
    case Collective::shuffle_of_quarters: result = __shfl_sync(full_warp, value, 2, 8); break;
    case Collective::ballot: result = __ballot_sync(full_warp, value % 3 == 0); break;
    case Collective::reduce_max: result = __reduce_max_sync(full_warp, value); break;
    case Collective::match: result = __match_any_sync(full_warp, value % 4); break;
  }
  out[lane] = result;
}

// Fragments straight from memory, after the PTX manual: words of `e` neighbours along k.
template <class Sum, class Multiply>
__device__ void multiply_fragments(Sum* out, const uint32_t* a, const uint32_t* b, Multiply multiply) {
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  const uint32_t left[4] = {a[g * 8 + t], a[(g + 8) * 8 + t], a[g * 8 + t + 4], a[(g + 8) * 8 + t + 4]};
  const uint32_t right[2] = {b[g * 8 + t], b[g * 8 + t + 4]};
  Sum c[4] = {};
  multiply(c, left, right);
  for (int i = 0; i < 4; ++i) out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = c[i];
}

__global__ void tile_kernel(Tile tile, void* out, const void* a, const void* b) {
  const uint32_t* left = static_cast<const uint32_t*>(a);
  const uint32_t* right = static_cast<const uint32_t*>(b);
  float* sums = static_cast<float*>(out);
  switch (tile) {
    case Tile::bf16:
      multiply_fragments(sums, left, right, [](auto& c, auto& x, auto& y) { mma_m16n8k16_bf16(c, x, y); });
      break;
    case Tile::f16:
      multiply_fragments(sums, left, right, [](auto& c, auto& x, auto& y) { mma_m16n8k16_f16(c, x, y); });
      break;
    case Tile::tf32:
      multiply_fragments(sums, left, right, [](auto& c, auto& x, auto& y) { mma_m16n8k8_tf32(c, x, y); });
      break;
    case Tile::s8:
      multiply_fragments(static_cast<int32_t*>(out), left, right,
                         [](auto& c, auto& x, auto& y) { mma_m16n8k32_s8(c, x, y); });
      break;
    case Tile::bf16_through_shared: {
      bf16_t* shared = dynamic_shared<bf16_t>();  // a [16, 16], then b [8, 16], then b again as [16, 8]
      bf16_t* b_across = shared + 16 * 16 + 8 * 16;
      const bf16_t* b_rows = static_cast<const bf16_t*>(b);
      const int lane = threadIdx.x;
      cp_async_16(shared + lane * 8, static_cast<const bf16_t*>(a) + lane * 8);
      if (lane < 16) cp_async_16(shared + 16 * 16 + lane * 8, b_rows + lane * 8);
      cp_async_commit();
      for (int i = lane; i < 128; i += 32) b_across[i % 16 * 8 + i / 16] = b_rows[i];
      cp_async_wait<0>();
      __syncwarp();
      uint32_t x[4], y[4], z[4];
      ldmatrix_x4(x, shared + lane % 16 * 16 + lane / 16 * 8);
      ldmatrix_x4(y, shared + 16 * 16 + lane % 8 * 16 + lane / 8 % 2 * 8);
      ldmatrix_x4_transposed(z, b_across + lane % 16 * 8);
      const uint32_t along[2] = {y[0], y[1]}, across[2] = {z[0], z[1]};
      float c[4] = {}, d[4] = {};
      mma_m16n8k16_bf16(c, x, along);
      mma_m16n8k16_bf16(d, x, across);
      const int g = lane / 4, t = lane % 4;
      for (int i = 0; i < 4; ++i)
        sums[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = c[i] == d[i] ? c[i] : __int_as_float(0x7fc00000);
      break;
    }
  }
}

// One long row: three sums with nothing between them.
__global__ void row_sums_kernel(float* out, const float* in) {
  RowSum<warps_of_long_row> row_sum;
  for (int s = 0; s < 3; ++s) {
    const float sum = row_sum(in[threadIdx.x] * static_cast<float>(s + 1));
    out[s * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)] = sum;
  }
}

__global__ void empty_kernel() {}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::testing {

using namespace kernels::LATHE_CUDA_NAMESPACE;

void launch_planted(Planted fault, float* out, const float* in, int count) {
  const auto threads = static_cast<unsigned>(count);
  const bool copies = fault == Planted::copy_never_waited_for || fault == Planted::read_before_copy_arrived ||
                      fault == Planted::copy_before_grid_wait;
  const bool dependent = fault == Planted::read_before_grid_wait || fault == Planted::copy_before_grid_wait ||
                         fault == Planted::exit_before_grid_wait;
  launch_unclaimed({.name = "planted", .grid = dim3(1), .block = dim3(threads), .dependent = dependent},
                   threads * (copies ? 16u : 4u), planted_kernel, fault, out, in, count);
}

void launch_collective(Collective collective, uint32_t* out, const uint32_t* in) {
  launch({.name = "collective", .grid = dim3(1), .block = dim3(32)}, collective_kernel, collective, out, in);
}

void launch_tile(Tile tile, void* out, const void* a, const void* b) {
  launch_unclaimed({.name = "tile", .grid = dim3(1), .block = dim3(32)}, 1024, tile_kernel, tile, out, a, b);
}

void launch_row_sums(float* out, const float* in) {
  launch({.name = "row_sums", .grid = dim3(1), .block = dim3(row_sum_threads)}, row_sums_kernel, out, in);
}

void launch_shape(unsigned threads, unsigned long shared_bytes) {
  launch_unclaimed({.name = "empty", .grid = dim3(1), .block = dim3(threads)}, shared_bytes, empty_kernel);
}

}  // namespace lathe::testing
