#include "kernels/embedding/embedding.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/embedding/cpu.h"
#include "kernels/embedding/ids.h"
#include "kernels/embedding/reference.h"

namespace lathe::kernels {
namespace {

int64_t row_grain(int64_t columns) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, columns)); }

void backward_on_cpu(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& ids, const Tensor& cu_seqlens) {
  const auto id = ids.span<int32_t>();
  const auto ends = cu_seqlens.span<int32_t>();
  std::vector<int32_t> order(id.size()), sequence_of(id.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return id[static_cast<size_t>(a)] < id[static_cast<size_t>(b)]; });
  for (size_t s = 0; s + 1 < ends.size(); ++s) {
    std::fill(sequence_of.begin() + ends[s], sequence_of.begin() + ends[s + 1], static_cast<int32_t>(s));
  }
  std::vector<int64_t> runs{0};
  for (size_t k = 1; k < order.size(); ++k) {
    if (id[static_cast<size_t>(order[k])] != id[static_cast<size_t>(order[k - 1])]) {
      runs.push_back(static_cast<int64_t>(k));
    }
  }
  runs.push_back(static_cast<int64_t>(order.size()));

  EmbeddingBackwardArgs args{};
  args.dtype = grad_out.dtype();
  args.grad_weight = grad_weight.data<float>();
  args.grad_weight_stride = grad_weight.stride(0);
  args.grad_out = grad_out.raw();
  args.grad_out_stride = grad_out.stride(0);
  args.ids = id.data();
  args.order = order.data();
  args.sequence_of = sequence_of.data();
  args.runs = runs.data();
  args.columns = grad_weight.dim(1);
  parallel_for(static_cast<int64_t>(runs.size()) - 1, row_grain(args.columns), [&](int64_t begin, int64_t end) {
    EmbeddingBackwardArgs range = args;
    range.begin = begin;
    range.end = end;
    cpu::embedding_backward_runs(range);
  });
}

}  // namespace

void embedding_forward(const Tensor& out, const Tensor& weight, const Tensor& ids) {
  const char* operation = "embedding_forward";
  expect(operation, "weight", weight)
      .rank(2)
      .dtype({DType::f32, DType::bf16, DType::f16, DType::f64})
      .rows_contiguous();
  expect_cpu(operation, weight);
  expect_ids(operation, ids, weight.dim(0));
  expect(operation, "out", out).shape({ids.dim(0), weight.dim(1)}).dtype(weight.dtype()).rows_contiguous();
  expect(operation, "out", out).device(weight.device());
  const int64_t element = size_of(weight.dtype());
  const size_t row_bytes = static_cast<size_t>(weight.dim(1) * element);
  if (row_bytes == 0) return;
  const int32_t* id = ids.data<int32_t>();
  parallel_for(ids.dim(0), row_grain(weight.dim(1)), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      std::memcpy(static_cast<char*>(out.raw()) + t * out.stride(0) * element,
                  static_cast<const char*>(weight.raw()) + id[t] * weight.stride(0) * element, row_bytes);
    }
  });
}

void embedding_backward(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& ids,
                        const Tensor& cu_seqlens) {
  const char* operation = "embedding_backward";
  expect(operation, "grad_weight", grad_weight).rank(2).dtype({DType::f32, DType::f64}).rows_contiguous();
  expect_cpu(operation, grad_weight);
  expect_ids(operation, ids, grad_weight.dim(0));
  expect(operation, "grad_out", grad_out).shape({ids.dim(0), grad_weight.dim(1)}).rows_contiguous();
  if (grad_weight.dtype() == DType::f64) {
    expect(operation, "grad_out", grad_out).dtype(DType::f64);
  } else {
    expect(operation, "grad_out", grad_out).dtype({DType::f32, DType::bf16});
  }
  expect_cu_seqlens(operation, cu_seqlens, ids.dim(0));
  if (grad_out.numel() == 0) return;
  if (grad_weight.dtype() == DType::f64) return reference::embedding_backward(grad_weight, grad_out, ids, cu_seqlens);
  backward_on_cpu(grad_weight, grad_out, ids, cu_seqlens);
}

}  // namespace lathe::kernels
