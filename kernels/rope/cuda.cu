// Bound by bandwidth: a thread turns eight elements of a head's lower half with the eight of its upper half. The
// table's rows come from the cache for all heads but the first.
#include "kernels/rope/bodies.h"

#include "kernels/cuda/element.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/indices.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

// The tiling's rows are tokens, counted from `first`; its columns are the groups of all heads' halves, eight elements
// each.
template <class T, class Positions, bool aligned>
__global__ void __launch_bounds__(elementwise_threads)
    rope_kernel(RopeArgs a, Tiling tiling, Positions positions, int64_t first) {
  const auto [row, column, some] = elements_of_thread(tiling);
  if (some == 0) return;
  const int64_t token = first + row;
  const unsigned group = static_cast<unsigned>(column / group_elements);
  const unsigned groups_of_half = static_cast<unsigned>((a.half + group_elements - 1) / group_elements);
  const int64_t head = group / groups_of_half, d = int64_t{group % groups_of_half} * group_elements;
  const int count = group_size(a.half, d);
  const int64_t position = positions[row];

  const T* x = static_cast<const T*>(a.x) + token * a.x_token + head * a.x_head + d;
  const Group lower = load_group<aligned>(x, count), upper = load_group<aligned>(x + a.half, count);
  Group cosine, sine;
  if (position >= 0 && position < a.table_rows) {
    cosine = load_group<aligned>(a.cos_table + position * a.cos_row + d, count);
    sine = load_group<aligned>(a.sin_table + position * a.sin_row + d, count);
  } else {
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) cosine.at[j] = sine.at[j] = nanf("");
  }
  Group out_lower, out_upper;
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) {
    const float s = sine.at[j] * a.direction;
    out_lower.at[j] = fmaf(lower.at[j], cosine.at[j], -(upper.at[j] * s));
    out_upper.at[j] = fmaf(upper.at[j], cosine.at[j], lower.at[j] * s);
  }
  T* out = static_cast<T*>(a.out) + token * a.out_token + head * a.out_head + d;
  store_group<aligned>(out, out_lower, count);
  store_group<aligned>(out + a.half, out_upper, count);
}

template <class T>
void turn(const RopeArgs& a) {
  const T *x = static_cast<const T*>(a.x), *out = static_cast<const T*>(a.out);
  const bool aligned = rows_aligned(x, a.x_token) && rows_aligned(x, a.x_head) && rows_aligned(x, a.half) &&
                       rows_aligned(out, a.out_token) && rows_aligned(out, a.out_head) &&
                       rows_aligned(a.cos_table, a.cos_row) && rows_aligned(a.sin_table, a.sin_row);
  const int64_t columns = a.heads * ((a.half + group_elements - 1) / group_elements) * group_elements;
  const auto start = [&]<class Positions>(const Positions& positions, int64_t first, int64_t count) {
    launch_elementwise("rope", count, columns,
                       aligned ? rope_kernel<T, Positions, true> : rope_kernel<T, Positions, false>, a, positions,
                       first);
  };
  for_each_launch_of_positions(a.positions, a.end, start);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void rope_tokens(const RopeArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { turn<T>(args); });
}
template void rope_tokens<DeviceKind::LATHE_CUDA_NAMESPACE>(const RopeArgs&);

}  // namespace lathe::kernels
