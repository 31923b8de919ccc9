#include "kernels/rope_append/device.h"

#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/paged_attention/device.h"
#include "kernels/rope_append/cuda.h"

namespace lathe::kernels::device {
namespace {

constexpr int64_t warp_elements = 256;  // that a warp holds, eight in each lane

// Of a row of `columns` elements and what lies a stride apart; an undefined tensor is.
bool aligned(const Tensor& tensor, std::initializer_list<int> dimensions) {
  if (!tensor.defined()) return true;
  const int64_t unit = tensor.dtype() == DType::i8 ? 8 : 16;
  bool all = reinterpret_cast<uintptr_t>(tensor.raw()) % static_cast<uintptr_t>(unit) == 0;
  for (const int dimension : dimensions) all = all && tensor.stride(dimension) * size_of(tensor.dtype()) % unit == 0;
  return all;
}

}  // namespace

bool appends_turned(const KvPages& pages, const NewHeads& heads) {
  const int64_t head_dim = heads.q.dim(2), turned = heads.cos_table.defined() ? 2 * heads.cos_table.dim(1) : 0;
  const bool has_body = pages.k.device().kind != DeviceKind::cpu && head_dim <= warp_elements;
  if (!has_body || head_dim % 16 != 0 || turned % 16 != 0) return false;
  return aligned(heads.q, {0, 1}) && aligned(heads.k, {0, 1}) && aligned(heads.v, {0, 1}) &&
         aligned(heads.q_norm, {}) && aligned(heads.k_norm, {}) && aligned(heads.cos_table, {0}) &&
         aligned(heads.sin_table, {0}) && aligned(pages.k, {0, 1, 2}) && aligned(pages.v, {0, 1, 2});
}

void rope_append(const KvPages& pages, const NewHeads& heads, const PagedBatch& batch) {
  RopeAppendCuda args{.dtype = heads.q.dtype(),
                      .q = head_rows_of(heads.q),
                      .k = head_rows_of(heads.k),
                      .v = head_rows_of(heads.v),
                      .q_norm = heads.q_norm.defined() ? heads.q_norm.raw() : nullptr,
                      .k_norm = heads.k_norm.defined() ? heads.k_norm.raw() : nullptr,
                      .eps = heads.eps,
                      .positions = {nullptr, false},
                      .heads = heads.q.dim(1),
                      .append = kv_append_args(pages, heads.k, heads.v, batch)};
  if (heads.cos_table.defined()) {
    const Tensor &cos = heads.cos_table, &sin = heads.sin_table;
    expect("rope_append", "cos_table", cos).dtype(DType::f32).rows_contiguous().device(heads.q.device());
    expect("rope_append", "sin_table", sin).shape(cos.shape()).dtype(DType::f32).rows_contiguous();
    expect("rope_append", "sin_table", sin).device(heads.q.device());
    args.positions = expect_indices("rope_append", "positions", heads.positions, heads.q.dim(0), "cos_table",
                                    cos.dim(0) - heads.query_row, heads.q.device());
    args.cos_table = cos.data<float>(), args.sin_table = sin.data<float>();
    args.cos_row = cos.stride(0), args.sin_row = sin.stride(0);
    args.table_rows = cos.dim(0) - heads.query_row, args.query_row = heads.query_row;
    args.turned = 2 * cos.dim(1);
  }
  with_device(heads.q.device(), [&]<DeviceKind kind>() { rope_append_rows<kind>(args); });
}

}  // namespace lathe::kernels::device
