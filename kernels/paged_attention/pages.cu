// kv_append and kv_copy_pages: bound by bandwidth.
#include "kernels/cuda/element.h"
#include "kernels/cuda/launch.h"
#include "kernels/paged_attention/append.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

// ---- append: a warp for each row of keys or values ----

constexpr int append_warps = 4;

// Whole groups of eight where `aligned`; i8 groups are 8 bytes.
template <class T>
__device__ __forceinline__ Group load_some(const T* row, int64_t d, int64_t dim, bool aligned) {
  const int count = group_size(dim, d);
  return aligned ? load_group<true>(row + d, count) : load_group<false>(row + d, count);
}
template <class T>
__device__ __forceinline__ void store_some(T* row, int64_t d, int64_t dim, bool aligned, const Group& group) {
  const int count = group_size(dim, d);
  aligned ? store_group<true>(row + d, group, count) : store_group<false>(row + d, group, count);
}

template <class T, class To>
__device__ __forceinline__ void convert_row(const T* from, To* to, int64_t dim, bool aligned) {
  for (int64_t d = threadIdx.x % 32 * group_elements; d < dim; d += 32 * group_elements)
    store_some(to, d, dim, aligned, load_some(from, d, dim, aligned));
}

template <class T>
__device__ __forceinline__ void quantise_row(const T* from, int8_t* to, float* scale, int64_t dim, bool aligned) {
  const int lane = threadIdx.x % 32;
  float most = 0.0f;
  for (int64_t d = lane * group_elements; d < dim; d += 32 * group_elements) {
    const Group group = load_some(from, d, dim, aligned);
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) most = fmaxf(most, fabsf(group.at[j]));
  }
  most = warp_max(most);
  const ByteScale of_row = byte_scale(most);
  if (lane == 0) *scale = of_row.scale;
  for (int64_t d = lane * group_elements; d < dim; d += 32 * group_elements)
    store_i8(to, d, dim, aligned, load_some(from, d, dim, aligned), of_row.factor);
}

template <class T>
__global__ void __launch_bounds__(append_warps * 32) kv_append_kernel(KvAppendCuda a, bool aligned) {
  const int64_t row = int64_t{blockIdx.x} * append_warps + threadIdx.x / 32;
  if (row >= 2 * a.batch.tokens * a.kv_heads) return;  // a whole warp leaves
  const bool is_value = row % 2 != 0;
  const int64_t head = row / 2 % a.kv_heads, token = row / 2 / a.kv_heads;
  const HeadRows& x = is_value ? a.v : a.k;
  const PageSide& side = is_value ? a.v_pages : a.k_pages;
  const int64_t page = a.batch.token_page[token], offset = a.batch.token_offset[token];
  const T* from = static_cast<const T*>(x.data) + token * x.token + head * x.head;
  const int64_t to = page * side.page + head * side.head + offset * side.token;
  switch (a.page_dtype) {
    case DType::f32: return convert_row(from, static_cast<float*>(side.data) + to, a.head_dim, aligned);
    case DType::bf16: return convert_row(from, static_cast<bf16_t*>(side.data) + to, a.head_dim, aligned);
    case DType::f16: return convert_row(from, static_cast<f16_t*>(side.data) + to, a.head_dim, aligned);
    default:
      quantise_row(from, static_cast<int8_t*>(side.data) + to,
                   side.scales + (page * a.kv_heads + head) * a.page_size + offset, a.head_dim, aligned);
  }
}

// ---- copy-on-write: a column of blocks for each tensor and pair of pages ----

constexpr int pairs_per_launch = 256;  // 2 KiB of arguments
constexpr int copy_threads = 256;

struct PagePairs {
  int32_t from[pairs_per_launch], to[pairs_per_launch];
};

template <class Word>
__global__ void __launch_bounds__(copy_threads)
    kv_copy_pages_kernel(KvCopyCuda::Pages pages, PagePairs pairs, int64_t words) {
  const int64_t i = int64_t{blockIdx.x} * copy_threads + threadIdx.x;
  if (i >= words) return;
  char* const data = static_cast<char*>(pages.data) + i * static_cast<int64_t>(sizeof(Word));
  const auto* source = data + pairs.from[blockIdx.y] * pages.page_bytes;
  store_vector<Word>(data + pairs.to[blockIdx.y] * pages.page_bytes, load_vector<Word>(source));
}

template <class Word>
void copy_side(const KvCopyCuda::Pages& pages, const PagePairs& pairs, int count) {
  const int64_t words = pages.page_bytes / static_cast<int64_t>(sizeof(Word));
  launch({.name = "kv_copy_pages",
          .grid = dim3(static_cast<unsigned>((words + copy_threads - 1) / copy_threads), static_cast<unsigned>(count)),
          .block = dim3(copy_threads)},
         kv_copy_pages_kernel<Word>, pages, pairs, words);
}

// Pairs run at once within a launch: one that touches what an earlier pair wrote or read must be in a later one.
bool meets(const PagePairs& pairs, int count, int32_t from, int32_t to) {
  for (int i = 0; i < count; ++i)
    if (pairs.to[i] == from || pairs.to[i] == to || pairs.from[i] == to) return true;
  return false;
}

void copy_pairs(const KvCopyCuda& args, const PagePairs& pairs, int count) {
  if (count == 0) return;
  for (const KvCopyCuda::Pages& pages : args.sides) {
    if (pages.data == nullptr) continue;
    const bool whole = groups_aligned(pages.data, pages.page_bytes, DType::u8);
    whole ? copy_side<uint4>(pages, pairs, count) : copy_side<unsigned char>(pages, pairs, count);
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void kv_append_rows(const KvAppendCuda& args) {
  const int64_t rows = 2 * args.batch.tokens * args.kv_heads;
  const bool whole_groups = groups_aligned(args.k, args.dtype) && groups_aligned(args.v, args.dtype) &&
                            groups_aligned(args.k_pages, args.page_dtype) &&
                            groups_aligned(args.v_pages, args.page_dtype);
  const LaunchConfig config{.name = "kv_append",
                            .grid = dim3(static_cast<unsigned>((rows + append_warps - 1) / append_warps)),
                            .block = dim3(append_warps * 32)};
  with_element(args.dtype, [&]<class T>(T) { launch(config, kv_append_kernel<T>, args, whole_groups); });
}
template void kv_append_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const KvAppendCuda&);

template <DeviceKind>
void kv_copy_page_pairs(const KvCopyCuda& args) {
  PagePairs pairs{};
  int count = 0;
  for (int64_t i = 0; i < args.count; ++i) {
    if (args.from[i] == args.to[i]) continue;
    if (count == pairs_per_launch || meets(pairs, count, args.from[i], args.to[i])) {
      copy_pairs(args, pairs, count);
      count = 0;
    }
    pairs.from[count] = args.from[i];
    pairs.to[count++] = args.to[i];
  }
  copy_pairs(args, pairs, count);
}
template void kv_copy_page_pairs<DeviceKind::LATHE_CUDA_NAMESPACE>(const KvCopyCuda&);

}  // namespace lathe::kernels
