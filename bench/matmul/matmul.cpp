// lathe-bench matmul: square products one after the other, operands where the caches left them, as benchmarks of a BLAS
// time them (bench/peers/blas_products.py does the same with OpenBLAS, MKL and oneDNN).
#include "bench/matmul/matmul.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "bench/kernels/ceilings.h"
#include "bench/kernels/clock.h"
#include "bench/timing_options.h"
#include "core/json_value.h"
#include "core/random.h"
#include "core/tensor.h"
#include "core/thread_pool.h"
#include "kernels/copy/copy.h"
#include "kernels/matmul/matmul.h"
#include "kernels/simd/isa.h"

namespace lathe::bench {
namespace {

struct MatmulOptions {
  TimingOptions timing{.common = {}, .seconds = 0.1, .repetitions = 5};
  std::vector<int64_t> sizes = {512, 1024, 2048, 3072};
  std::string dtype = "f32", right = "transposed";
};

// [size, size], uniform in [-1, 1), of the dtype.
Tensor random_matrix(int64_t size, DType dtype, uint64_t step) {
  RandomStream random(1, RandomPurpose::test, step);
  const Tensor values = Tensor::empty({size, size}, DType::f32);
  for (float& value : values.span<float>()) value = 2 * random.uniform() - 1;
  return kernels::cast(values, dtype);
}

// Seconds of one product: the median of the repetitions, each of as many calls as fill the time.
double seconds_of_product(const MatmulOptions& options, int64_t size) {
  const DType dtype = options.dtype == "bf16" ? DType::bf16 : DType::f32;
  const Tensor a = random_matrix(size, dtype, 0), out = Tensor::empty({size, size}, dtype);
  kernels::Weight b = random_matrix(size, dtype, 1);
  if (options.right == "packed") b = kernels::pack_weight(*b.dense(), dtype);
  const kernels::Layout layout = options.right == "plain" ? kernels::Layout::plain : kernels::Layout::transposed;
  const auto seconds_of = [&](int calls) {
    const double start = now_seconds();
    for (int i = 0; i < calls; ++i) kernels::matmul(out, a, b, layout);
    return (now_seconds() - start) / calls;
  };
  seconds_of(1);
  const int calls = std::max(1, static_cast<int>(std::ceil(options.timing.seconds / seconds_of(1))));
  std::vector<double> seconds;
  for (int i = 0; i < options.timing.repetitions; ++i) seconds.push_back(seconds_of(calls));
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

void run(const MatmulOptions& options) {
  if (options.timing.common.threads > 0) set_thread_count(options.timing.common.threads);
  const double peak = measure_peak_flops(options.dtype == "bf16" ? DType::bf16 : DType::f32);
  const std::string isa(kernels::name_of(kernels::active_isa()));
  nlohmann::ordered_json document = {{"isa", isa},
                                     {"threads", thread_count()},
                                     {"dtype", options.dtype},
                                     {"right", options.right},
                                     {"peak_gflops", peak / 1e9},
                                     {"results", nlohmann::ordered_json::array()}};
  if (!options.timing.common.json)
    std::printf("%s, %d threads, measured peak %.1f GFLOP/s\n", isa.c_str(), thread_count(), peak / 1e9);
  for (const int64_t size : options.sizes) {
    const double flops = 2 * std::pow(static_cast<double>(size), 3) / seconds_of_product(options, size);
    document["results"].push_back({{"size", size}, {"gflops", flops / 1e9}, {"fraction", flops / peak}});
    if (options.timing.common.json) continue;
    std::printf("%5lld  %9.1f GFLOP/s  %5.1f %% of the peak\n", static_cast<long long>(size), flops / 1e9,
                100 * flops / peak);
    std::fflush(stdout);
  }
  if (options.timing.common.json) std::printf("%s\n", document.dump(2).c_str());
}

}  // namespace

void add_matmul(CLI::App& app) {
  auto options = std::make_shared<MatmulOptions>();
  CLI::App* command = app.add_subcommand("matmul", "Square matrix products, and their share of the CPU's peak");
  command->add_option("--sizes", options->sizes, "rows = columns = reduced length")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{32768}))
      ->capture_default_str();
  command->add_option("--dtype", options->dtype, "of the operands and the result")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  command
      ->add_option("--right", options->right,
                   "how the right operand lies: its rows along the reduced index (as a linear layer's weight), across "
                   "it, or packed beforehand (as a model's frozen weights)")
      ->check(CLI::IsMember({"transposed", "plain", "packed"}))
      ->capture_default_str();
  add_timing_options(*command, options->timing);
  command->callback([options] { run(*options); });
}

}  // namespace lathe::bench
