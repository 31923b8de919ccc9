#include "tests/support/warpgroup_kernels.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx/tensor_copy.h"
#include "kernels/cuda/ptx/wgmma.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using lathe::testing::BoxOfSeveral;
using lathe::testing::WarpgroupFault;
using lathe::testing::WgmmaA;
using lathe::testing::WgmmaCase;

constexpr int block_k = 64, stages = 2;
constexpr unsigned tile_bytes = 64 * block_k * 2;

struct Stages {
  alignas(1024) SwizzledTile<bf16_t, 64, block_k> a[stages], b[stages];
  MBarrier full[stages], empty[stages];
};

template <int count>
__device__ __forceinline__ void store_sums(float* out, const float (&sums)[count]) {
  constexpr int columns = 2 * count;
  const int warp = static_cast<int>(threadIdx.x) % 128 / 32, lane = threadIdx.x % 32;
  LATHE_UNROLL
  for (int e = 0; e < columns / 2; ++e) {
    const int row = 16 * warp + lane / 4 + e / 2 % 2 * 8, column = e / 4 * 8 + lane % 4 * 2 + e % 2;
    out[row * columns + column] = sums[e];
  }
}

__device__ __forceinline__ void produce(WarpgroupFault fault, Stages& shared, const TensorMap& a, const TensorMap& b,
                                        int steps, void* map_room) {
  for (int step = 0; step < steps; ++step) {
    const int stage = step % stages;
    mbarrier_wait(shared.empty[stage], (step / stages & 1) ^ 1);
    const unsigned surplus = fault == WarpgroupFault::too_many_bytes_expected ? tile_bytes : 0;
    mbarrier_arrive_expect_tx(shared.full[stage], 2 * tile_bytes + surplus);
    if (fault == WarpgroupFault::too_many_arrivals) mbarrier_arrive(shared.full[stage]);
    const bool global = fault == WarpgroupFault::map_in_global_memory;
    bf16_t* to = shared.a[stage].elements + (fault == WarpgroupFault::misaligned_swizzle ? 64 : 0);
    tensor_copy(to, global ? *static_cast<const TensorMap*>(map_room) : a, 0, step * block_k, shared.full[stage]);
    tensor_copy(shared.b[stage].elements, b, 0, step * block_k, shared.full[stage]);
  }
}

__device__ __forceinline__ void consume(WarpgroupFault fault, Stages& shared, float* out, int steps) {
  float sums[32] = {};
  AFragment<bf16_t> registers{{1, 2, 3, 4}};
  for (int step = 0; step < steps; ++step) {
    const int stage = step % stages;
    const auto wait = [&] {
      mbarrier_wait(shared.full[stage], (step / stages & 1) ^ (fault == WarpgroupFault::wrong_parity ? 1 : 0));
    };
    const bool late = fault == WarpgroupFault::stage_waited_for_after_its_wgmma;
    if (fault != WarpgroupFault::stage_read_before_it_arrived && !late) wait();
    if (fault != WarpgroupFault::wgmma_without_fence) wgmma_fence();
    const int shift = fault == WarpgroupFault::misaligned_operand ? 64 : 0;
    const auto a = wgmma_operand<Major::k>(shared.a[stage].elements + shift);
    const auto b = wgmma_operand<Major::k>(shared.b[stage].elements);
    LATHE_UNROLL
    for (int k = 0; k < block_k / 16; ++k) {
      const bool other = fault == WarpgroupFault::other_operand_in_one_warp && threadIdx.x / 32 == 5;
      wgmma(sums, a.next_k16(k), b.next_k16(other ? 3 - k : k));
    }
    if (fault == WarpgroupFault::a_registers_written_in_flight) wgmma(sums, registers, b);
    wgmma_commit();
    if (fault == WarpgroupFault::a_registers_written_in_flight) registers.registers[0] = threadIdx.x;
    if (fault == WarpgroupFault::accumulator_read_in_flight) out[threadIdx.x] = sums[0];
    if (fault == WarpgroupFault::stage_released_before_the_wait) mbarrier_arrive(shared.empty[stage]);
    if (fault == WarpgroupFault::stage_released_before_the_wait && step + 1 < steps) continue;
    if (late) wait();
    if (fault != WarpgroupFault::wgmma_never_waited_for) wgmma_wait<0>();
    mbarrier_arrive(shared.empty[stage]);
  }
  store_sums(out, sums);
}

__global__ void warpgroup_kernel(WarpgroupFault asked, const __grid_constant__ TensorMap a,
                                 const __grid_constant__ TensorMap b, float* out, int steps, void* map_room) {
  const WarpgroupFault fault = LATHE_SIMT ? asked : WarpgroupFault::none;  // a card runs the sound one only
  Stages& shared = *swizzled_shared<Stages>();
  if (threadIdx.x == 0 && fault != WarpgroupFault::mbarrier_never_initialised) {
    for (int stage = 0; stage < stages; ++stage) {
      mbarrier_init(shared.full[stage], 1);
      mbarrier_init(shared.empty[stage], 128);
    }
    if (fault != WarpgroupFault::mbarrier_not_fenced) fence_mbarrier_init();
    if (fault == WarpgroupFault::map_in_global_memory) *static_cast<TensorMap*>(map_room) = a;
  }
  if (fault != WarpgroupFault::mbarrier_without_block_barrier) __syncthreads();
  if (threadIdx.x < 128) {
    if (threadIdx.x == (fault == WarpgroupFault::mbarrier_without_block_barrier ? 1 : 0))
      produce(fault, shared, a, b, steps, map_room);
  } else if (fault != WarpgroupFault::copy_never_waited_for) {
    consume(fault, shared, out, steps);
  }
}

template <class T, int n, Major a_major, Major b_major>
__device__ void multiply_shared(float* out, const T* a_tile, const T* b_tile) {
  float sums[n / 2];
  wgmma_fence();
  const auto a = wgmma_operand<a_major>(a_tile);
  const auto b = wgmma_operand<b_major>(b_tile, 64 * 128);
  LATHE_UNROLL
  for (int k = 0; k < 4; ++k) wgmma(sums, a.next_k16(k), b.next_k16(k), k != 0);
  wgmma_commit();
  wgmma_wait<0>();
  store_sums(out, sums);
}

template <class T, int n, Major b_major>
__device__ void multiply_registers(float* out, const uint32_t* a_words, const T* b_tile) {
  float sums[n / 2];
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  AFragment<T> a[4];
  LATHE_UNROLL
  for (int k = 0; k < 4; ++k) {
    LATHE_UNROLL
    for (int i = 0; i < 4; ++i) a[k].registers[i] = a_words[(16 * warp + g + i % 2 * 8) * 32 + 8 * k + t + i / 2 * 4];
  }
  wgmma_fence();
  const auto b = wgmma_operand<b_major>(b_tile, 64 * 128);
  LATHE_UNROLL
  for (int k = 0; k < 4; ++k) wgmma(sums, a[k], b.next_k16(k), k != 0);
  wgmma_commit();
  wgmma_wait<0>();
  store_sums(out, sums);
}

// Lines of 64 elements; an operand along m or n has a panel of 64 lines (k) for every 64 of its rows.
template <class T>
__device__ void lay(T* tile, const T* from, int rows, bool along_mn) {
  using Lines = SwizzledTile<T, 64, 64>;
  for (int i = threadIdx.x; i < rows * 64; i += 128) {
    const int row = i / 64, k = i % 64;
    tile[along_mn ? row / 64 * 4096 + Lines::offset(k, row % 64) : row / 64 * 4096 + Lines::offset(row % 64, k)] =
        from[i];
  }
}

template <class T, int n>
__global__ void wgmma_kernel(WgmmaA where, bool b_along_n, bool fence, float* out, const T* a, const T* b) {
  T* a_tile = swizzled_shared<T>();
  T* b_tile = a_tile + 64 * 64;
  lay(a_tile, a, 64, where == WgmmaA::shared_mn);
  lay(b_tile, b, n, b_along_n);
  if (fence) fence_proxy_async();
  __syncthreads();
  const auto* words = reinterpret_cast<const uint32_t*>(a);
  switch (where) {
    case WgmmaA::shared_k:
      return b_along_n ? multiply_shared<T, n, Major::k, Major::mn>(out, a_tile, b_tile)
                       : multiply_shared<T, n, Major::k, Major::k>(out, a_tile, b_tile);
    case WgmmaA::shared_mn:
      return b_along_n ? multiply_shared<T, n, Major::mn, Major::mn>(out, a_tile, b_tile)
                       : multiply_shared<T, n, Major::mn, Major::k>(out, a_tile, b_tile);
    case WgmmaA::registers:
      return b_along_n ? multiply_registers<T, n, Major::mn>(out, words, b_tile)
                       : multiply_registers<T, n, Major::k>(out, words, b_tile);
  }
}

template <class T>
__global__ void mma_kernel(float* out, const uint32_t* a, const uint32_t* b) {
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  float sums[4] = {};
  LATHE_UNROLL
  for (int k = 0; k < 4; ++k) {
    AFragment<T> left;
    BFragment<T> right;
    LATHE_UNROLL
    for (int i = 0; i < 4; ++i) left.registers[i] = a[(16 * warp + g + i % 2 * 8) * 32 + 8 * k + t + i / 2 * 4];
    LATHE_UNROLL
    for (int i = 0; i < 2; ++i) right.registers[i] = b[g * 32 + 8 * k + t + i * 4];
    mma(sums, left, right);
  }
  store_sums(out, sums);
}

// copy(tile, barrier) brings a box, by one thread.
template <class Copy>
__device__ __forceinline__ void store_box(bf16_t* out, int box_rows, const Copy& copy) {
  bf16_t* tile = swizzled_shared<bf16_t>();
  MBarrier& arrived = block_shared<MBarrier>();
  if (threadIdx.x == 0) {
    mbarrier_init(arrived, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expect_tx(arrived, box_rows * 128);
    copy(tile, arrived);
  }
  __syncthreads();
  mbarrier_wait(arrived, 0);
  for (int i = threadIdx.x; i < box_rows * 64; i += 32)
    out[i] = tile[SwizzledTile<bf16_t, 64, 64>::offset(i / 64, i % 64)];
}

__global__ void tensor_copy_kernel(bf16_t* out, const __grid_constant__ TensorMap map, int row, int column,
                                   int box_rows) {
  store_box(out, box_rows, [&](bf16_t* tile, MBarrier& arrived) { tensor_copy(tile, map, row, column, arrived); });
}

__global__ void put_map_kernel(void* map_room, const __grid_constant__ TensorMap map) {
  *static_cast<TensorMap*>(map_room) = map;
}
__global__ void tensor_copy_of_kernel(bf16_t* out, BoxOfSeveral box) {
  const TensorMap& map = *static_cast<const TensorMap*>(box.map_room);
  store_box(out, box.box_rows, [&](bf16_t* tile, MBarrier& arrived) {
    if (box.acquires) acquire_map(map);
    tensor_copy_of(box.matrix, tile, map, box.row, box.column, arrived);
  });
}

template <class T, int n>
void start_case(const WgmmaCase& wanted, float* out, const void* a, const void* b) {
  constexpr int columns = (n + 63) / 64 * 64;
  launch_unclaimed({.name = "wgmma", .grid = dim3(1), .block = dim3(128)}, (64 + columns) * 128, wgmma_kernel<T, n>,
                   wanted.a, wanted.b_along_n, wanted.proxy_fence, out, static_cast<const T*>(a),
                   static_cast<const T*>(b));
}

template <class T>
void start_case(const WgmmaCase& wanted, float* out, const void* a, const void* b) {
  switch (wanted.n) {
    case 8: return start_case<T, 8>(wanted, out, a, b);
    case 16: return start_case<T, 16>(wanted, out, a, b);
    case 32: return start_case<T, 32>(wanted, out, a, b);
    case 64: return start_case<T, 64>(wanted, out, a, b);
    case 96: return start_case<T, 96>(wanted, out, a, b);
    case 128: return start_case<T, 128>(wanted, out, a, b);
    default: return start_case<T, 256>(wanted, out, a, b);
  }
}

void launch_warpgroup_product(WarpgroupFault fault, float* out, const void* a, const void* b, int k, void* map_room) {
  const auto map = [&](const void* data) {
    return make_tensor_map(
        {.data = data, .rows = 64, .columns = k, .row_stride = k, .box_rows = 64, .box_columns = block_k});
  };
  launch_unclaimed({.name = "warpgroup",
                    .grid = dim3(1),
                    .block = dim3(256),
                    .dependent = fault == WarpgroupFault::copy_before_grid_wait},
                   sizeof(Stages), warpgroup_kernel, fault, map(a), map(b), out, (k + block_k - 1) / block_k, map_room);
}

void launch_wgmma_case(const WgmmaCase& wanted, float* out, const void* a, const void* b) {
  wanted.dtype == DType::bf16 ? start_case<bf16_t>(wanted, out, a, b) : start_case<f16_t>(wanted, out, a, b);
}

void launch_mma_case(DType dtype, float* out, const void* a, const void* b) {
  const auto* left = static_cast<const uint32_t*>(a);
  const auto* right = static_cast<const uint32_t*>(b);
  const LaunchConfig config{.name = "mma", .grid = dim3(1), .block = dim3(128)};
  dtype == DType::bf16 ? launch(config, mma_kernel<bf16_t>, out, left, right)
                       : launch(config, mma_kernel<f16_t>, out, left, right);
}

void launch_tensor_copy(void* out, const void* matrix, int matrix_rows, int columns, int row, int column,
                        int box_rows) {
  const TensorMap map = make_tensor_map({.data = matrix,
                                         .rows = matrix_rows,
                                         .columns = columns,
                                         .row_stride = columns,
                                         .box_rows = box_rows,
                                         .box_columns = 64});
  launch_unclaimed({.name = "tensor_copy", .grid = dim3(1), .block = dim3(32)}, static_cast<size_t>(box_rows) * 128,
                   tensor_copy_kernel, static_cast<bf16_t*>(out), map, row, column, box_rows);
}

void launch_tensor_copy_of(void* out, const BoxOfSeveral& box) {
  const TensorMap map = make_tensor_map({.data = box.matrices,
                                         .rows = box.rows,
                                         .columns = box.columns,
                                         .row_stride = box.columns,
                                         .box_rows = box.box_rows,
                                         .box_columns = 64,
                                         .matrices = box.count});
  launch({.name = "put_map", .grid = dim3(1), .block = dim3(1)}, put_map_kernel, box.map_room, map);
  launch_unclaimed({.name = "tensor_copy_of", .grid = dim3(1), .block = dim3(32)},
                   static_cast<size_t>(box.box_rows) * 128, tensor_copy_of_kernel, static_cast<bf16_t*>(out), box);
}

bool run_here() {
#if LATHE_SIMT
  return true;
#else
  int device = 0, major = 0;
  check(cudaGetDevice(&device), "asking for the device");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "asking for its capability");
  return major == 9;
#endif
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::testing {

template <DeviceKind>
WarpgroupKernels warpgroup_kernels() {
  using namespace kernels::LATHE_CUDA_NAMESPACE;
  return {.run_here = run_here,
          .product = launch_warpgroup_product,
          .wgmma = launch_wgmma_case,
          .mma = launch_mma_case,
          .tensor_copy = launch_tensor_copy,
          .tensor_copy_of = launch_tensor_copy_of};
}
template WarpgroupKernels warpgroup_kernels<DeviceKind::LATHE_CUDA_NAMESPACE>();

}  // namespace lathe::testing
