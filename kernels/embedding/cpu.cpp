#include "kernels/embedding/cpu.h"

#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

template <class T>
void add_run(const EmbeddingBackwardArgs& args, int64_t first, int64_t last) {
  float* row = args.grad_weight + args.ids[args.order[first]] * args.grad_weight_stride;
  const T* grad_out = static_cast<const T*>(args.grad_out);
  for_row(args.columns, [&](int64_t i, int count) {
    Vec total = load_some(row + i, count);
    for (int64_t k = first; k < last;) {
      const int32_t sequence = args.sequence_of[args.order[k]];
      Vec sum = zero();
      for (; k < last && args.sequence_of[args.order[k]] == sequence; ++k) {
        sum = sum + load_some(grad_out + args.order[k] * args.grad_out_stride + i, count);
      }
      total = total + sum;
    }
    store_some(row + i, total, count);
  });
}

}  // namespace

void embedding_backward_runs(EmbeddingBackwardArgs args) {
  for (int64_t r = args.begin; r < args.end; ++r) {
    args.dtype == DType::f32 ? add_run<float>(args, args.runs[r], args.runs[r + 1])
                             : add_run<bf16>(args, args.runs[r], args.runs[r + 1]);
  }
}

}  // namespace lathe::kernels::LATHE_ISA
