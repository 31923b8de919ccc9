#include "kernels/gradient_norm/gradient_norm.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/cuda/runtime.h"
#include "kernels/dispatch.h"
#include "kernels/gradient_norm/cpu.h"
#include "kernels/gradient_norm/cuda.h"
#include "kernels/gradient_norm/reference.h"

namespace lathe::kernels {
namespace {

int64_t blocks_of(const Tensor& x) { return (x.numel() + square_block - 1) / square_block; }

void check(const Tensor& x) {
  const Expect checked = expect("sum_of_squares", "x", x).contiguous();
  if (x.device().kind == DeviceKind::cpu) {
    checked.dtype({DType::f32, DType::bf16, DType::f16, DType::f64});
  } else {
    checked.dtype({DType::f32, DType::bf16, DType::f16});
  }
}

double on_cpu(const Tensor& x) {
  if (x.dtype() == DType::f64) return reference::sum_of_squares(x);
  std::vector<double> sums(static_cast<size_t>(blocks_of(x)));
  const SumOfSquaresArgs args{x.dtype(), x.raw(), x.numel(), sums.data(), 0, 0};
  parallel_for(static_cast<int64_t>(sums.size()), 8, [&](int64_t begin, int64_t end) {
    SumOfSquaresArgs range = args;
    range.begin = begin;
    range.end = end;
    with_isa([&]<Isa isa>() { sum_of_squares_blocks<isa>(range); });
  });
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

// The sums of all the tensors' blocks, one after another; undefined where there is none.
Tensor queue_block_sums(std::span<const Tensor> tensors) {
  int64_t blocks = 0;
  for (const Tensor& x : tensors) blocks += blocks_of(x);
  if (blocks == 0) return {};
  const Device device = tensors.front().device();
  Tensor all = Tensor::empty({blocks}, DType::f64, device, MemoryTag::workspace);
  double* next = all.data<double>();
  // Neighbours of one dtype together.
  for (auto first = tensors.begin(); first != tensors.end();) {
    const DType dtype = first->dtype();
    std::vector<SquaredTensor> squared;
    for (; first != tensors.end() && first->dtype() == dtype; next += blocks_of(*first), ++first)
      squared.push_back({first->raw(), next, first->numel()});
    with_device(device, [&]<DeviceKind kind>() {
      sum_of_squares_blocks<kind>({dtype, squared.data(), std::ssize(squared)});
    });
  }
  return all;
}

// One wait for all the tensors; their blocks' sums are added here, in the order of the specification.
void on_device(std::span<const Tensor> tensors, std::span<double> totals) {
  const Tensor on_device = queue_block_sums(tensors);
  if (!on_device.defined()) return;
  std::vector<double> sums(static_cast<size_t>(on_device.numel()));
  copy_bytes({}, sums.data(), on_device.device(), on_device.raw(), on_device.nbytes());
  auto sum = sums.begin();
  for (size_t t = 0; t < tensors.size(); ++t) {
    for (int64_t block = 0; block < blocks_of(tensors[t]); ++block) totals[t] += *sum++;
  }
}

void check_all(const char* operation, const char* name, std::span<const Tensor> tensors, Device device) {
  for (const Tensor& tensor : tensors) {
    check(tensor);
    expect(operation, name, tensor).device(device);
  }
}

void clip_factor_on_cpu(double* clip, std::span<const Tensor> gradients, std::span<const Tensor> watched,
                        const ClipParams& params) {
  const double norm = gradient_norm(gradients) / params.loss_scale;
  double squares = 0;
  for (const Tensor& x : watched) squares += on_cpu(x);
  const double factor = params.max_norm > 0 ? std::min(1.0, params.max_norm / (norm + 1e-6)) : 1.0;
  clip[0] = norm;
  clip[1] = std::isfinite(norm) && std::isfinite(squares) ? factor / params.loss_scale
                                                          : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

double sum_of_squares(const Tensor& x) {
  check(x);
  if (x.device().kind == DeviceKind::cpu) return on_cpu(x);
  double total = 0;
  on_device({&x, 1}, {&total, 1});
  return total;
}

double gradient_norm(std::span<const Tensor> gradients) {
  if (!gradients.empty()) check_all("gradient_norm", "gradients", gradients, gradients.front().device());
  std::vector<double> totals(gradients.size());
  if (!gradients.empty() && gradients.front().device().kind != DeviceKind::cpu) {
    on_device(gradients, totals);
  } else {
    std::transform(gradients.begin(), gradients.end(), totals.begin(), on_cpu);
  }
  double total = 0;
  for (const double squares : totals) total += squares;
  return std::sqrt(total);
}

void clip_factor(const Tensor& clip, std::span<const Tensor> gradients, std::span<const Tensor> watched,
                 const ClipParams& params) {
  const char* operation = "clip_factor";
  expect(operation, "clip", clip).shape({2}).dtype(DType::f64).contiguous();
  const Device device = clip.device();
  check_all(operation, "gradients", gradients, device);
  check_all(operation, "watched", watched, device);
  if (device.kind == DeviceKind::cpu) return clip_factor_on_cpu(clip.data<double>(), gradients, watched, params);
  std::vector<Tensor> all(gradients.begin(), gradients.end());
  all.insert(all.end(), watched.begin(), watched.end());
  const Tensor sums = queue_block_sums(all);
  std::vector<BlockSums> of_tensors;
  const double* next = sums.defined() ? sums.data<double>() : nullptr;
  for (const Tensor& x : all) {
    of_tensors.push_back({next, blocks_of(x)});
    next += blocks_of(x);
  }
  with_device(device, [&]<DeviceKind kind>() {
    clip_factor<kind>({.tensors = of_tensors.data(),
                       .count = std::ssize(of_tensors),
                       .gradients = std::ssize(gradients),
                       .max_norm = params.max_norm,
                       .loss_scale = params.loss_scale,
                       .clip = clip.data<double>()});
  });
}

}  // namespace lathe::kernels
