#include "kernels/gradient_norm/gradient_norm.h"

#include <cmath>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/gradient_norm/cpu.h"
#include "kernels/gradient_norm/reference.h"

namespace lathe::kernels {

double sum_of_squares(const Tensor& x) {
  expect("sum_of_squares", "x", x).dtype({DType::f32, DType::bf16, DType::f64}).contiguous();
  expect_cpu("sum_of_squares", x);
  if (x.dtype() == DType::f64) return reference::sum_of_squares(x);
  std::vector<double> sums(static_cast<size_t>((x.numel() + square_block - 1) / square_block));
  const SumOfSquaresArgs args{x.dtype(), x.raw(), x.numel(), sums.data(), 0, 0};
  parallel_for(static_cast<int64_t>(sums.size()), 8, [&](int64_t begin, int64_t end) {
    SumOfSquaresArgs range = args;
    range.begin = begin;
    range.end = end;
    cpu::sum_of_squares_blocks(range);
  });
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

double gradient_norm(std::span<const Tensor> gradients) {
  double total = 0;
  for (const Tensor& gradient : gradients) total += sum_of_squares(gradient);
  return std::sqrt(total);
}

}  // namespace lathe::kernels
