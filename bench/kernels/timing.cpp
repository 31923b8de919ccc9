#include "bench/kernels/timing.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <regex>

#include "bench/kernels/clock.h"
#include "core/error.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/graph.h"
#include "kernels/cuda/runtime.h"
#include "tests/support/operation_run.h"

namespace lathe::bench {
namespace {

using testing::BoundCase;
using testing::Case;
using testing::Operand;

constexpr size_t most_buffers = 256;
constexpr double most_bytes = 600e6;

double operand_bytes(const Operand& operand) {
  return static_cast<double>(operand.shape.numel() * size_of(operand.dtype));
}

double bytes_of(const Case& test_case) {
  if (test_case.bytes > 0) return test_case.bytes;
  double bytes = 0;
  for (const Operand& input : test_case.inputs) bytes += operand_bytes(input);
  for (const Operand& output : test_case.outputs) bytes += operand_bytes(output) * (output.accumulates ? 2 : 1);
  return bytes;
}

double bytes_written_of(const Case& test_case) {
  double bytes = 0;
  for (const Operand& output : test_case.outputs) bytes += operand_bytes(output);
  return bytes;
}

const Case& largest(const std::vector<Case>& cases) {
  return *std::max_element(cases.begin(), cases.end(),
                           [](const Case& a, const Case& b) { return bytes_of(a) < bytes_of(b); });
}

DType dtype_of_case(const Case& test_case) {
  for (const Operand& input : test_case.inputs)
    if (is_floating(input.dtype)) return input.dtype;
  return DType::f32;
}

// The calls of one case, each on tensors of its own.
struct Rotation {
  std::vector<std::unique_ptr<BoundCase>> bound;
  std::vector<std::function<void()>> calls;
};

Rotation rotate(const testing::Operation& operation, const Case& test_case, Device device) {
  double bytes = test_case.started_bytes;
  for (const auto* operands : {&test_case.inputs, &test_case.outputs})
    for (const Operand& operand : *operands) bytes += operand_bytes(operand);
  const double wanted = 3.0 * static_cast<double>(last_cache_bytes(device));
  // A call that touches only a part of its tensors would find that part in the cache again: then there are more of
  // them.
  const double touched = std::max(1.0, std::min(bytes, bytes_of(test_case)));
  const double copies =
      std::max(wanted / std::max(bytes, 1.0), std::min(wanted / touched, most_bytes / std::max(bytes, 1.0)));
  const size_t buffers = std::clamp<size_t>(static_cast<size_t>(copies) + 1, 2, most_buffers);
  Rotation rotation;
  for (size_t i = 0; i < buffers; ++i) {
    rotation.bound.push_back(
        i > 0 ? BoundCase::copy_of(test_case, *rotation.bound.front())
              : std::make_unique<BoundCase>(test_case, testing::make_repeating_contents(operation, test_case),
                                            testing::BindOptions{.device = device, .inputs_may_change = true}));
    const testing::Arguments& arguments = rotation.bound.back()->arguments();
    rotation.calls.push_back(test_case.start ? test_case.start(arguments) : [&] { test_case.run(arguments); });
  }
  return rotation;
}

// A round is one call on each of the buffers.
class Rounds {
 public:
  Rounds(const Rotation& rotation, Device device) : rotation_(rotation), device_(device), graph_(device) {
    call_all();
    kernels::synchronize(device_);
    if (device_.kind == DeviceKind::cpu) return;
    try {  // as a graph: a short kernel would be timed by its launch
      graph_.run([this] { call_all(); });
      captured_ = true;
    } catch (const Error&) {  // an operation that waits for the device: its launches and its wait are part of it
    }
    // On a card: enough rounds that the one wait at their end hardly counts.
    if (device_.kind == DeviceKind::cuda) count_ = std::clamp(static_cast<int>(2e-3 / seconds()), 1, 1000);
    seconds();
  }

  // Of one iteration: Google Benchmark repeats until the iterations' times add up to what was asked for.
  double seconds() {
    kernels::synchronize(device_);
    const double start = now_seconds();
    for (int i = 0; i < count_; ++i) captured_ ? graph_.replay() : call_all();
    kernels::synchronize(device_);
    return now_seconds() - start;
  }
  double calls() const { return static_cast<double>(rotation_.calls.size()) * count_; }  // in an iteration

 private:
  void call_all() const {
    for (const auto& call : rotation_.calls) call();
  }

  const Rotation& rotation_;
  Device device_;
  kernels::DeviceGraph graph_;
  bool captured_ = false;
  int count_ = 1;
};

// Keeps each repetition's time for one call and prints nothing.
class Collector final : public benchmark::BenchmarkReporter {
 public:
  explicit Collector(double calls) : calls_(calls) {}
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs)
      if (run.run_type == Run::RT_Iteration)
        seconds.push_back(run.real_accumulated_time / static_cast<double>(run.iterations) / calls_);
  }
  std::vector<double> seconds;

 private:
  double calls_;
};

// Seconds of one call in each repetition, ascending.
std::vector<double> time_calls(const std::string& name, const Rotation& rotation, const TimingOptions& options) {
  Rounds rounds(rotation, options.device);
  benchmark::ClearRegisteredBenchmarks();
  benchmark::RegisterBenchmark(name.c_str(),
                               [&](benchmark::State& state) {
                                 for ([[maybe_unused]] auto iteration : state) state.SetIterationTime(rounds.seconds());
                               })
      ->UseManualTime()
      ->MinTime(options.seconds.value_or(options.device.kind == DeviceKind::cuda ? 0.03 : 0.3))
      ->Repetitions(options.repetitions);
  Collector collector(rounds.calls());
  benchmark::RunSpecifiedBenchmarks(&collector);
  std::sort(collector.seconds.begin(), collector.seconds.end());
  return collector.seconds;
}

double median(const std::vector<double>& ascending) { return ascending.at(ascending.size() / 2); }

// The same tensors, multiplied by cuBLASLt.
double time_peer(const testing::ProductOf& product, Rotation& rotation, const TimingOptions& options) {
  rotation.calls.clear();
  for (const auto& bound : rotation.bound) {
    const testing::Arguments& arguments = bound->arguments();
    const auto peer = std::make_shared<kernels::CublasltProduct>(
        kernels::CublasltArgs{.layout = product.layout,
                              .out = arguments[product.out],
                              .left = arguments[product.left],
                              .right = arguments[product.right],
                              .accumulates = product.layout == kernels::ProductLayout::columns_plain});
    rotation.calls.push_back([peer] { peer->queue(); });
  }
  return median(time_calls("cublaslt", rotation, options));
}

Timing time_case(const testing::Operation& operation, const Case& test_case, const TimingOptions& options) {
  Rotation rotation = rotate(operation, test_case, options.device);
  Timing timing{.name = operation.name + "/" + test_case.name, .dtype = dtype_of_case(test_case)};
  const std::vector<double> seconds = time_calls(timing.name, rotation, options);
  timing.seconds = median(seconds);
  timing.fastest = seconds.front();
  timing.slowest = seconds.back();
  if (test_case.product && kernels::why_no_cublaslt(options.device).empty())
    timing.peer_seconds = time_peer(*test_case.product, rotation, options);
  timing.flops = test_case.flops;
  timing.bytes = bytes_of(test_case);
  timing.bytes_read = std::max(0.0, timing.bytes - bytes_written_of(test_case));
  return timing;
}

}  // namespace

Timing::Bound Timing::bound(const Ceilings& ceilings) const {
  const Bound bounds[] = {{Floor::arithmetic, flops / ceilings.flops(dtype)},
                          {Floor::reading, bytes_read / ceilings.reading},
                          {Floor::bandwidth, bytes / ceilings.bytes}};
  return *std::max_element(std::begin(bounds), std::end(bounds),
                           [](const Bound& a, const Bound& b) { return a.seconds < b.seconds; });
}

void time_operations(const std::vector<testing::Operation>& operations, const TimingOptions& options,
                     const std::function<void(const Timing&)>& report) {
  char program[] = "lathe-bench";
  char* arguments[] = {program, nullptr};
  int count = 1;
  benchmark::Initialize(&count, arguments);
  const std::regex filter(options.filter);
  for (const testing::Operation& operation : operations) {
    if (options.device.kind != DeviceKind::cpu && !operation.cuda_body) continue;
    // simt runs a few hundred MFLOP/s: the largest of the tests' small cases shows that the bench works.
    const bool emulated = options.device.kind == DeviceKind::simt;
    std::vector<Case> cases = emulated ? std::vector<Case>{largest(operation.cases)} : operation.timed;
    if (options.device.kind == DeviceKind::cuda)
      cases.insert(cases.end(), operation.timed_on_cards.begin(), operation.timed_on_cards.end());
    for (const Case& test_case : cases)
      if (std::regex_search(operation.name + "/" + test_case.name, filter))
        report(time_case(operation, test_case, options));
  }
}

}  // namespace lathe::bench
