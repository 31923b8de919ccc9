// lathe-bench order: what it costs that a product's sums have one order, whatever the batch and the threads. Beside the
// product stands one that may reorder: each thread sums its own share of the reduced index over all columns of the
// result, and the shares are added. It is what libraries choose for few rows (split-K), and gives other bits with
// another number of threads. Both read the same panels with the same loops.
#include "bench/order/order.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

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

using kernels::Weight;

// Weights take turns, so that none is in a cache when it is read, as in a decoding step.
constexpr int64_t weight_bytes_in_turn = 256 << 20;
constexpr int most_copies = 256;

struct OrderOptions {
  TimingOptions timing;
  std::vector<int64_t> rows = {1, 2, 4, 8, 16, 32, 512};
  std::string dtype = "bf16";
};

struct LinearShape {
  int64_t outputs, inputs;
};
// SmolLM2-135M's linears: q and o, k and v, gate and up, down, logits.
constexpr LinearShape linears[] = {{576, 576}, {192, 576}, {1536, 576}, {576, 1536}, {49152, 576}};

// [rows, columns], uniform in [-1, 1), of the dtype.
Tensor random_matrix(int64_t rows, int64_t columns, DType dtype) {
  RandomStream random(1, RandomPurpose::test);
  const Tensor values = Tensor::empty({rows, columns}, DType::f32);
  for (float& value : values.span<float>()) value = 2 * random.uniform() - 1;
  return kernels::cast(values, dtype);
}

// x · weightᵀ both ways. Each copy of the weight stands whole and cut along the reduced index, a piece for each thread.
class TwoOrders {
 public:
  TwoOrders(LinearShape shape, int64_t rows, DType dtype)
      : x_(random_matrix(rows, shape.inputs, dtype)), out_(Tensor::empty({rows, shape.outputs}, DType::f32)) {
    const Tensor dense = random_matrix(shape.outputs, shape.inputs, dtype);
    const int64_t pieces = thread_count();
    for (int64_t piece = 0; piece <= pieces; ++piece) bounds_.push_back(shape.inputs * piece / pieces);
    for (int64_t piece = 0; piece < pieces; ++piece) partial_.push_back(Tensor::empty(out_.shape(), DType::f32));
    const int64_t copies = std::clamp<int64_t>(weight_bytes_in_turn / dense.nbytes(), 1, most_copies);
    for (int64_t copy = 0; copy < copies; ++copy) {
      whole_.emplace_back(kernels::pack_weight(dense, dtype));
      cut_.emplace_back();
      for (size_t piece = 0; piece < partial_.size(); ++piece)
        cut_.back().emplace_back(kernels::pack_weight(dense.slice(1, bounds_[piece], bounds_[piece + 1]), dtype));
    }
  }

  void fixed() { kernels::linear_forward(out_, x_, whole_[next()]); }
  void reordered() {
    const std::vector<Weight>& pieces = cut_[next()];
    parallel_for(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
      for (auto piece = static_cast<size_t>(begin); piece < static_cast<size_t>(end); ++piece)
        kernels::linear_forward(partial_[piece], x_.slice(1, bounds_[piece], bounds_[piece + 1]), pieces[piece]);
    });
    const std::span<float> out = out_.span<float>();
    std::ranges::copy(partial_[0].span<float>(), out.begin());
    for (size_t piece = 1; piece < partial_.size(); ++piece)
      std::ranges::transform(out, partial_[piece].span<float>(), out.begin(), std::plus<>());
  }

 private:
  size_t next() { return turn_++ % whole_.size(); }

  Tensor x_, out_;
  std::vector<int64_t> bounds_;
  std::vector<Tensor> partial_;
  std::vector<Weight> whole_;
  std::vector<std::vector<Weight>> cut_;
  size_t turn_ = 0;
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

struct Seconds {
  double fixed, reordered;
};
// Of one product each: medians of repetitions in turn.
Seconds seconds_of(const OrderOptions& options, LinearShape shape, int64_t rows) {
  TwoOrders orders(shape, rows, options.dtype == "bf16" ? DType::bf16 : DType::f32);
  const auto time = [](int calls, auto&& product) {
    const double start = now_seconds();
    for (int i = 0; i < calls; ++i) product();
    return (now_seconds() - start) / calls;
  };
  const auto fixed = [&] { orders.fixed(); };
  const auto reordered = [&] { orders.reordered(); };
  time(2, reordered);
  const int calls = std::max(1, static_cast<int>(std::ceil(options.timing.seconds / time(2, fixed))));
  std::vector<double> first, second;
  for (int i = 0; i < options.timing.repetitions; ++i) {
    first.push_back(time(calls, fixed));
    second.push_back(time(calls, reordered));
  }
  return {median(first), median(second)};
}

void run(const OrderOptions& options) {
  if (options.timing.common.threads > 0) set_thread_count(options.timing.common.threads);
  const std::string isa(kernels::name_of(kernels::active_isa()));
  nlohmann::ordered_json document = {{"isa", isa},
                                     {"threads", thread_count()},
                                     {"dtype", options.dtype},
                                     {"results", nlohmann::ordered_json::array()}};
  if (!options.timing.common.json)
    std::printf("%s, %d threads, %s; microseconds of a product\n%16s %6s %10s %10s %9s\n", isa.c_str(), thread_count(),
                options.dtype.c_str(), "linear", "rows", "fixed", "reordered", "price");
  for (const LinearShape& shape : linears) {
    for (const int64_t rows : options.rows) {
      const Seconds seconds = seconds_of(options, shape, rows);
      // Who may choose takes the faster one.
      const double price = seconds.fixed / std::min(seconds.fixed, seconds.reordered) - 1;
      document["results"].push_back({{"outputs", shape.outputs},
                                     {"inputs", shape.inputs},
                                     {"rows", rows},
                                     {"fixed_us", 1e6 * seconds.fixed},
                                     {"reordered_us", 1e6 * seconds.reordered},
                                     {"price", price}});
      if (options.timing.common.json) continue;
      std::printf("%8lld × %5lld %6lld %10.1f %10.1f %7.1f %%\n", static_cast<long long>(shape.outputs),
                  static_cast<long long>(shape.inputs), static_cast<long long>(rows), 1e6 * seconds.fixed,
                  1e6 * seconds.reordered, 100 * price);
      std::fflush(stdout);
    }
  }
  if (options.timing.common.json) std::printf("%s\n", document.dump(2).c_str());
}

}  // namespace

void add_order(CLI::App& app) {
  auto options = std::make_shared<OrderOptions>();
  CLI::App* command = app.add_subcommand(
      "order", "What a fixed order of sums costs: SmolLM2's linears beside products that each thread sums a share of");
  command->add_option("--rows", options->rows, "rows of the batch")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{32768}))
      ->capture_default_str();
  command->add_option("--dtype", options->dtype, "of the operands; results are f32")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  add_timing_options(*command, options->timing);
  command->callback([options] { run(*options); });
}

}  // namespace lathe::bench
