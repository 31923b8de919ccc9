// lathe-bench model: tokens a second of one model, prompt and answer apart, as llama-bench times them.
#include "bench/model/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>

#include "bench/kernels/ceilings.h"
#include "bench/model/profile.h"
#include "core/fork_count.h"
#include "core/json_value.h"
#include "core/memory.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/simd/isa.h"
#include "programs/cli/session.h"

namespace lathe::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct ModelBenchOptions {
  cli::ModelOptions model;
  int64_t prompt_tokens = 512, new_tokens = 128, sequences = 1, repetitions = 5;
  bool profile = false;
};

struct Seconds {
  double prompt = 0, answer = 0;  // to the last first token, and from there on
};

// `sequences` prompts of random tokens, answered at once.
Seconds run_once(const cli::Session& session, int64_t prompt_tokens, int64_t new_tokens, int64_t sequences,
                 uint64_t seed) {
  RandomStream random(seed, RandomPurpose::test);
  std::vector<engine::Request> requests;
  for (int64_t s = 0; s < sequences; ++s) {
    std::vector<int32_t> prompt(static_cast<size_t>(prompt_tokens));
    for (int32_t& id : prompt)
      id = static_cast<int32_t>(random.below(static_cast<uint64_t>(session.config.vocab_size)));
    kernels::SamplingParams sampling;
    sampling.temperature = 0;
    requests.push_back({.prompt = std::move(prompt), .sampling = sampling, .max_tokens = new_tokens});
  }
  engine::EngineOptions options = session.engine;
  options.enable_prefix_caching = false;
  options.max_tokens_per_step = std::max<int64_t>(options.max_tokens_per_step, prompt_tokens);
  Seconds seconds;
  int64_t begun = 0;
  std::map<engine::RequestId, int64_t> tokens;
  const auto start = Clock::now();
  const auto since = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  engine::generate(*session.model, requests, options, [&](const engine::TokenOutput& output) {
    if (++tokens[output.request] == 1 && ++begun == sequences) seconds.prompt = since();
  });
  seconds.answer = since() - seconds.prompt;
  return seconds;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// A test's tokens a second: the median of the repetitions after one that warms up.
template <class Run>
double tokens_per_second(int64_t tokens, int64_t repetitions, const Run& run) {
  run(0);
  std::vector<double> rates;
  for (int64_t i = 1; i <= repetitions; ++i) rates.push_back(static_cast<double>(tokens) / run(i));
  return median(std::move(rates));
}

// One more run, of one test, by operation.
template <class Run>
void add_profile(nlohmann::ordered_json& result, const std::string& test, bool print, const Run& run) {
  const autograd::OperationTimes times;
  const auto start = Clock::now();
  run();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  result["profile"][test] = profile_json(times);
  if (print) fmt::print("{}", profile_table(times, seconds));
}

// One sequence reads every weight for each token of its answer, but for an embedding that is not the output projection:
// the tokens a second at which a loop that does nothing else reads as many bytes.
double reading_limit(const cli::Session& session) {
  int64_t bytes = allocator_for({}).stats().live_bytes[static_cast<size_t>(MemoryTag::weights)];
  if (!session.config.tie_word_embeddings)
    bytes -= session.config.vocab_size * session.config.hidden_size * size_of(session.model->dtype());
  return measure_reading(bytes) / static_cast<double>(bytes);
}

void run(const ModelBenchOptions& options) {
  const cli::Session session = cli::Session::open(options.model);
  const int64_t sequences = options.sequences;
  nlohmann::ordered_json result = {{"model", options.model.model},
                                   {"weights", options.model.weights},
                                   {"isa", kernels::name_of(kernels::active_isa())},
                                   {"threads", thread_count()},
                                   {"sequences", sequences}};
  const auto report = [&](const std::string& name, double rate) {
    result[name] = rate;
    if (!options.model.common.json) fmt::print("{:<8} {:>10.2f} tokens/s\n", name, rate);
  };
  if (options.prompt_tokens > 0) {
    const double rate = tokens_per_second(options.prompt_tokens * sequences, options.repetitions, [&](int64_t i) {
      return run_once(session, options.prompt_tokens, 1, sequences, static_cast<uint64_t>(i)).prompt;
    });
    const std::string test = "pp" + std::to_string(options.prompt_tokens);
    report(test, rate);
    if (options.profile)
      add_profile(result, test, !options.model.common.json,
                  [&] { run_once(session, options.prompt_tokens, 1, sequences, 0); });
  }
  if (options.new_tokens > 0) {
    const double rate = tokens_per_second(options.new_tokens * sequences, options.repetitions, [&](int64_t i) {
      return run_once(session, 1, options.new_tokens + 1, sequences, static_cast<uint64_t>(i)).answer;
    });
    const std::string test = "tg" + std::to_string(options.new_tokens);
    report(test, rate);
    const bool alone_on_cpu = sequences == 1 && session.model->device().kind == DeviceKind::cpu;
    if (alone_on_cpu && session.config.experts.num_experts == 0) {  // of experts a token reads some
      const double limit = reading_limit(session);
      result["reading_limit"] = limit;
      if (!options.model.common.json)
        fmt::print("  {:.0f} % of {:.0f}, at which the weights' bytes are read and nothing else is done\n",
                   100 * rate / limit, limit);
    }
    if (options.profile) {
      add_profile(result, test, !options.model.common.json,
                  [&] { run_once(session, 1, options.new_tokens + 1, sequences, 0); });
      if (alone_on_cpu) {
        const int64_t forks = fork_count();
        run_once(session, 1, options.new_tokens + 1, 1, 0);
        result["forks_per_token"] =
            static_cast<double>(fork_count() - forks) / static_cast<double>(options.new_tokens + 1);
        if (!options.model.common.json) fmt::print("  {:.0f} forks a token\n", result["forks_per_token"].get<double>());
      }
    }
  }
  if (options.model.common.json) fmt::print("{}\n", result.dump(2));
}

}  // namespace

void add_model(CLI::App& app) {
  auto options = std::make_shared<ModelBenchOptions>();
  CLI::App* command = app.add_subcommand("model", "Tokens a second of a model: prompt and answer apart");
  cli::add_model_options(*command, options->model);
  command->add_option("--prompt_tokens,-p", options->prompt_tokens, "tokens of a prompt (0: no such test)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--new_tokens,-n", options->new_tokens, "tokens of an answer after one of prompt (0: no such test)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--sequences", options->sequences, "sequences at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--repetitions,-r", options->repetitions, "repetitions; the median counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_flag("--profile", options->profile, "print the time by operation");
  command->footer("llama-bench -p 512 -n 128 times the same.");
  command->callback([options] { run(*options); });
}

}  // namespace lathe::bench
