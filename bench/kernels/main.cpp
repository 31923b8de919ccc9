// lathe-bench: how fast, and how far from what the machine can do.
#include <cstdio>
#include <fstream>
#include <map>

#include "bench/data/reading.h"
#include "bench/data/tokenizing.h"
#include "bench/kernels/clock.h"
#include "bench/kernels/operations.h"
#include "bench/kernels/timing.h"
#include "bench/matmul/matmul.h"
#include "bench/model/model.h"
#include "bench/order/order.h"
#include "bench/serve/serve.h"
#include "core/error.h"
#include "core/json_value.h"
#include "core/thread_pool.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simd/isa.h"
#include "programs/cli/program.h"

namespace lathe::bench {
namespace {

using Json = nlohmann::json;

struct KernelsOptions {
  cli::CommonOptions common;
  TimingOptions timing;
  std::string compare;
  bool cpu_time = false;
};

// Earlier results by name, the last where there are several: what --json printed, or scripts/gpu-check kept of runs.
std::map<std::string, Json> read_earlier(const std::string& path) {
  std::map<std::string, Json> earlier;
  if (path.empty()) return earlier;
  std::ifstream file(path);
  if (!file) throw ConfigError("compare", path + " cannot be opened");
  std::string line;
  bool timed = false;
  const std::string expected = "expected what lathe-bench kernels --json printed";
  for (int64_t number = 1; std::getline(file, line); ++number) {
    const Json result = Json::parse(line, nullptr, false);
    if (!result.is_object()) throw FormatError(path, -1, "line " + std::to_string(number) + ": " + expected);
    timed = timed || result.contains("ceilings");
    if (timed && result.contains("name") && result.contains("seconds")) earlier[result["name"]] = result;
  }
  if (!timed) throw FormatError(path, -1, expected + ", found no line with ceilings");
  return earlier;
}

// Moved: by more than 5 %, and outside what the repetitions of either run spanned.
std::string change(const Timing& now, const std::map<std::string, Json>& earlier) {
  const auto found = earlier.find(now.name);
  if (found == earlier.end()) return "";
  const double before = found->second.at("seconds").get<double>();
  const double ratio = now.seconds / before;
  char text[40];
  std::snprintf(text, sizeof text, "  %+.1f %% time", 100 * (ratio - 1));
  const bool slower = ratio > 1.05 && now.fastest > found->second.value("slowest", before);
  const bool faster = ratio < 0.95 && now.slowest < found->second.value("fastest", before);
  return std::string(text) + (slower ? "  SLOWER" : faster ? "  faster" : "");
}

const char* name_of(Timing::Floor floor) {
  switch (floor) {
    case Timing::Floor::arithmetic: return "arithmetic";
    case Timing::Floor::reading: return "reading";
    case Timing::Floor::bandwidth: break;
  }
  return "bandwidth";
}

Json to_json(const Timing& timing, const Ceilings& ceilings) {
  Json result = {{"name", timing.name},
                 {"seconds", timing.seconds},
                 {"fastest", timing.fastest},
                 {"slowest", timing.slowest},
                 {"gbytes_per_second", timing.bytes / timing.seconds / 1e9},
                 {"gflops", timing.flops / timing.seconds / 1e9}};
  if (timing.peer_seconds) result["cublaslt_seconds"] = *timing.peer_seconds;
  if (ceilings.bytes > 0) {
    result["fraction"] = timing.fraction(ceilings);
    result["bound_by"] = name_of(timing.bound(ceilings).floor);
  }
  return result;
}

void print_line(const Timing& timing, const Ceilings& ceilings, const std::string& change) {
  std::printf("%-64s %10.1f us %8.2f GB/s %9.2f GFLOP/s", timing.name.c_str(), timing.seconds * 1e6,
              timing.bytes / timing.seconds / 1e9, timing.flops / timing.seconds / 1e9);
  if (ceilings.bytes > 0) {
    const Timing::Floor floor = timing.bound(ceilings).floor;
    const char* const peak = timing.dtype == DType::bf16 ? "bf16 peak" : "f32 peak";
    std::printf("  %5.1f %% of %s", 100 * timing.fraction(ceilings),
                floor == Timing::Floor::arithmetic ? peak : name_of(floor));
  }
  if (timing.peer_seconds)
    std::printf("  cuBLASLt %.1f us, %.2f of its speed", *timing.peer_seconds * 1e6,
                *timing.peer_seconds / timing.seconds);
  std::printf("%s\n", change.c_str());
  std::fflush(stdout);
}

void run_kernels(const KernelsOptions& options) {
  TimingOptions timing = options.timing;
  timing.device = parse_device(options.common.device);
  if (const std::string why = kernels::why_unavailable(timing.device); !why.empty()) throw ResourceError(why);
  if (options.cpu_time && options.common.threads != 1)
    throw ConfigError("cpu_time", "counts one thread's time; add --threads 1");
  if (options.cpu_time) clock_in_use = Clock::cpu;
  if (options.common.threads > 0) set_thread_count(options.common.threads);
  const std::map<std::string, Json> earlier = read_earlier(options.compare);
  const bool on_cpu = timing.device.kind == DeviceKind::cpu;
  const Ceilings ceilings = on_cpu ? measure_ceilings() : measure_device_ceilings(timing.device);
  const std::string name = on_cpu ? std::string(name_of(kernels::active_isa())) : kernels::device_name(timing.device);
  Json document = {{"device", to_string(timing.device)}, {on_cpu ? "isa" : "card", name}, {"threads", thread_count()}};
  document["ceilings"] = {{"f32_gflops", ceilings.f32_flops / 1e9},
                          {"bf16_gflops", ceilings.bf16_flops / 1e9},
                          {"gbytes_per_second", ceilings.bytes / 1e9},
                          {"reading_gbytes_per_second", ceilings.reading / 1e9}};
  const auto print_json = [](const Json& line) {
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);  // what is killed later has said this
  };
  if (options.common.json)
    print_json(document);
  else
    std::printf(
        "%s, %d threads. Measured ceilings: f32 %.1f GFLOP/s, bf16 %.1f GFLOP/s, reading %.1f GB/s, "
        "read + written %.1f GB/s\n",
        name.c_str(), thread_count(), ceilings.f32_flops / 1e9, ceilings.bf16_flops / 1e9, ceilings.reading / 1e9,
        ceilings.bytes / 1e9);
  if (const std::string why = kernels::why_no_cublaslt(timing.device);
      timing.device.kind == DeviceKind::cuda && !why.empty())
    std::fprintf(stderr, "Products are timed without a peer: %s\n", why.c_str());
  time_operations(all_operations(), timing, [&](const Timing& result) {
    if (options.common.json) {
      print_json(to_json(result, ceilings));
    } else {
      print_line(result, ceilings, change(result, earlier));
    }
  });
}

}  // namespace
}  // namespace lathe::bench

int main(int argc, char** argv) {
  lathe::bench::KernelsOptions options;
  return lathe::cli::run_program(
      argc, argv, "lathe-bench", "Time Lathe, and say how far it is from what the machine can do.", [&](CLI::App& app) {
        CLI::App* const kernels =
            app.add_subcommand("kernels", "Every operation, from the cases of its tests, at realistic shapes");
        lathe::cli::add_common_options(*kernels, options.common);
        kernels->add_option("--filter", options.timing.filter,
                            "Time only what matches this regular expression, as 'linear_forward.*bf16'");
        kernels
            ->add_option("--seconds", options.timing.seconds,
                         "Time spent on each repetition (default 0.3; 0.03 on a card)")
            ->check(CLI::PositiveNumber);
        kernels->add_option("--repetitions", options.timing.repetitions, "Repetitions; the median is reported")
            ->check(CLI::PositiveNumber)
            ->capture_default_str();
        kernels->add_option(
            "--compare", options.compare,
            "A file that --json printed earlier, or of bench/results that scripts/gpu-check wrote: flags what "
            "moved beyond the noise of the repetitions");
        kernels->add_flag(
            "--cpu_time", options.cpu_time,
            "Count computing time instead of the clock's, on a machine that others use; with --threads 1");
        kernels->footer(
            "A line says: time of one call (median), memory traffic and arithmetic per second, and the share of the "
            "ceiling that\n"
            "bounds the call: arithmetic, memory read alone (reading), or read and written (bandwidth).\n"
            "On a card a product's line has the time of cuBLASLt for the same matrices, where its library is found.\n"
            "Ceilings are measured in the same run, with the same threads and instruction set (LATHE_ISA forces one).\n"
            "--json prints a line for the run (device, ceilings), then one for each operation as soon as it is timed.\n"
            "Example: lathe-bench kernels --filter linear_forward --threads 1");
        kernels->callback([&] { lathe::bench::run_kernels(options); });
        lathe::bench::add_matmul(app);
        lathe::bench::add_order(app);
        lathe::bench::add_data(app);
        lathe::bench::add_tokenize(app);
        lathe::bench::add_model(app);
        lathe::bench::add_train(app);
        lathe::bench::add_serve(app);
        app.require_subcommand(1);
      });
}
