#include "kernels/mamba2/cpu/state.h"

namespace lathe::kernels::LATHE_ISA::mamba2 {
namespace {

// What the parts of a group's heads gave, summed.
template <class T>
LATHE_INLINE void sum_parts(T* to, const float* from, int64_t parts, int64_t size) {
  for_row(size, [&](int64_t i, int n) {
    Vec sum = load_some(from + i, n);
    for (int64_t part = 1; part < parts; ++part) sum = sum + load_some(from + part * size + i, n);
    store_some(to + i, sum, n);
  });
}

template <class T>
void grad_row(const Mamba2BackwardArgs& args, int64_t row) {
  const int64_t parts = mamba2_parts_of_group(args.heads_of_group());
  T* const to = row_of<T>(args.grad_xbc, row);
  for (int64_t group = 0; group < args.groups; ++group) {
    const int64_t head = group * args.heads_of_group();
    const int64_t from = (row * args.parts() + group * parts) * args.state_size;
    sum_parts(to + args.b_column(head), args.work.grad_b + from, parts, args.state_size);
    sum_parts(to + args.c_column(head), args.work.grad_c + from, parts, args.state_size);
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA::mamba2

namespace lathe::kernels {

template <Isa>
void mamba2_grad_rows(Mamba2BackwardArgs args, int64_t begin, int64_t end) {
  LATHE_ISA::with_element(args.dtype, [&]<class T>(T) {
    for (int64_t row = begin; row < end; ++row) LATHE_ISA::mamba2::grad_row<T>(args, row);
  });
}
template void mamba2_grad_rows<Isa::LATHE_ISA>(Mamba2BackwardArgs, int64_t, int64_t);

}  // namespace lathe::kernels
