#include "programs/train/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <optional>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json_value.h"
#include "core/memory.h"
#include "core/thread_pool.h"
#include "nn/adapter.h"
#include "nn/kv_cache.h"
#include "nn/model_files.h"
#include "programs/cli/messages.h"
#include "programs/cli/progress.h"
#include "programs/cli/stop_signals.h"
#include "programs/train/processes.h"
#include "serve/engine/cache_size.h"
#include "train/memory_estimate.h"
#include "train/run_files.h"
#include "train/trainer.h"

namespace lathe::programs {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

// Paths may hold any bytes, JSON may not.
constexpr auto replace_broken_utf8 = ordered_json::error_handler_t::replace;

// Everything that is known before a weight is read.
struct Plan {
  nn::ModelFiles files;
  RowFacts facts;
  DType dtype = DType::f32;
  std::optional<nn::Quantization> quantization;  // of the layers' linears
  std::optional<nn::PeftAdapter> adapter;        // to train further
  nn::LoraConfig lora;
  train::MemoryEstimate memory;
  int64_t total_steps = 0;
};

RowFacts facts_of(const AssumedRow& row, const train::RunConfig& config) {
  RowFacts facts;
  facts.learnt = row.learnt;
  facts.longest_sequence = row.longest_sequence;
  facts.kv_cache_tokens = row.kv_cache_tokens;
  facts.sequences_at_once = row.sequences_at_once;
  facts.largest_forward_tokens = config.per_device_train_batch_size * row.tokens;
  if (config.max_tokens_per_forward > 0)
    facts.largest_forward_tokens =
        std::min(facts.largest_forward_tokens, std::max(config.max_tokens_per_forward, row.tokens));
  facts.plan = {"no dataset: " + row.text + " are assumed"};
  return facts;
}

Plan make_plan(Method& method, const train::RunConfig& config, Device device) {
  Plan plan;
  plan.files = config.dry_run ? nn::open_model_config(config.model) : nn::open_model_files(config.model);
  if (!config.use_peft && plan.files.gguf)
    throw ConfigError("use_peft",
                      "training every weight needs a Hugging Face directory, whose configuration and tokenizer go "
                      "with the result; " +
                          config.model + " is a GGUF file (train an adapter on it)");
  plan.dtype = nn::parse_compute_dtype(config.dtype, device);
  plan.quantization = nn::resolved_quantization(plan.files, config.quantization());
  if (!config.use_peft && plan.quantization)
    throw ConfigError("use_peft", config.model +
                                      " holds its linears as 4-bit codes, which are not trained: train an adapter "
                                      "beside them, or the model that was quantised");
  const std::optional<AssumedRow> assumed = method.assumed_row();
  plan.facts = assumed ? facts_of(*assumed, config) : method.load_rows(text::load_model_text(plan.files));
  for (const auto& warnings : {nn::quantization_warnings(plan.files, config.quantization()), plan.files.warnings})
    plan.facts.warnings.insert(plan.facts.warnings.begin(), warnings.begin(), warnings.end());
  if (!config.adapter.empty()) {
    plan.adapter = nn::read_peft_adapter(config.adapter, &plan.facts.warnings);
    plan.lora = plan.adapter->config;
  } else if (config.use_peft) {
    plan.lora = train::lora_config(config);
  }
  if (config.use_peft) {
    plan.adapter ? nn::check_adapter_targets(plan.files.config, plan.lora)
                 : nn::check_new_adapter(plan.files.config, plan.lora);
    for (std::string& warning : nn::adapter_warnings(plan.files, plan.lora, plan.quantization))
      plan.facts.warnings.push_back(std::move(warning));
    nn::set_base(plan.lora, plan.files, plan.quantization);
    if (plan.adapter) plan.adapter->config = plan.lora;
  }
  plan.memory = train::estimate_memory(plan.files.config, config.use_peft ? &plan.lora : nullptr,
                                       {.dtype = plan.dtype,
                                        .device = device,
                                        .quantization = plan.quantization,
                                        .forward_tokens = plan.facts.largest_forward_tokens,
                                        .gradient_checkpointing = config.checkpoints_layers(),
                                        .optimizer = config.optimizer(),
                                        .new_adapter = config.adapter.empty(),
                                        .reference = method.reference()});
  if (device.kind == DeviceKind::cuda)
    plan.facts.plan.emplace_back(
        "a card also holds the driver's context and the kernels' code: the table leaves them out, as what it has free "
        "does");
  if (plan.facts.kv_cache_tokens > 0) {
    constexpr int64_t page = nn::KvCache::default_page_size;
    const int64_t pages = (plan.facts.kv_cache_tokens + page - 1) / page;
    const int64_t states = engine::state_count(plan.files.config, plan.facts.sequences_at_once, true);
    plan.memory.lines.push_back({MemoryTag::kv_cache,
                                 pages * nn::KvCache::bytes_per_page(plan.files.config, plan.dtype) +
                                     states * nn::KvCache::bytes_per_state(plan.files.config, plan.dtype),
                                 fmt::format("keys and values of {} tokens", pages * page) +
                                     (states > 0 ? fmt::format(" and states of {} sequences", states) : "")});
  }
  if (!assumed)
    plan.total_steps =
        train::RowOrder(plan.facts.rows, config, plan.facts.updates_per_rows, plan.facts.rows_per_draw).total_steps();
  return plan;
}

void print_plan(const Plan& plan, const train::RunConfig& config) {
  for (const std::string& warning : plan.facts.warnings) cli::print_warning(warning);
  for (const std::string& line : plan.facts.plan) cli::print_note(line);
  const std::string steps = plan.facts.rows > 0 ? fmt::format("{} steps", plan.total_steps) : "steps";
  fmt::print(stderr, "{} of {} {}, {} threads, {}{}\n", steps, config.rows_per_step(), plan.facts.learnt,
             thread_count(), name_of(plan.dtype),
             plan.quantization ? ", linears in " + nn::name_of(*plan.quantization) : "");
  cli::print_note(train::trainable_parameters(plan.files.config, config.use_peft ? &plan.lora : nullptr).text());
  fmt::print(stderr, "memory, estimated:\n{}", plan.memory.table());
}

ordered_json plan_json(const Plan& plan, const train::RunConfig& config) {
  ordered_json memory = ordered_json::object();
  for (const train::MemoryLine& line : plan.memory.lines) {
    const std::string tag(name_of(line.tag));
    memory[tag] = memory.value(tag, int64_t{0}) + line.bytes;
  }
  memory["total"] = plan.memory.total_bytes();
  ordered_json json = {{"rows", plan.facts.rows}};
  for (const auto& [name, count] : plan.facts.counts) json[name] = count;
  json["total_steps"] = plan.total_steps;
  json["rows_per_step"] = config.rows_per_step();
  json["dtype"] = name_of(plan.dtype);
  if (plan.quantization) json["quantization"] = nn::name_of(*plan.quantization);
  const train::ParameterCounts parameters =
      train::trainable_parameters(plan.files.config, config.use_peft ? &plan.lora : nullptr);
  json["trainable_params"] = parameters.trainable;
  json["all_params"] = parameters.all;
  json["memory_bytes"] = memory;
  json["warnings"] = plan.facts.warnings;
  return json;
}

std::unique_ptr<nn::Transformer> load_model(const Plan& plan, const train::RunConfig& config, Device device) {
  const int64_t longest = plan.facts.longest_sequence;
  if (longest > plan.files.config.max_position_embeddings)
    throw ConfigError(plan.facts.longest_setting,
                      fmt::format("the longest row has {} tokens and the model was made for {}; lower {}", longest,
                                  plan.files.config.max_position_embeddings, plan.facts.longest_setting));
  nn::TransformerOptions options;
  options.dtype = plan.dtype;
  options.device = device;
  options.weights = config.use_peft ? nn::WeightMode::frozen : nn::WeightMode::trainable;
  options.quantized_linears = plan.quantization;
  options.max_positions = longest;
  auto model = std::make_unique<nn::Transformer>(plan.files.config, *plan.files.weights, options);
  if (plan.adapter) {
    model->load_adapter(*plan.adapter);
  } else if (config.use_peft) {
    model->add_lora(plan.lora, static_cast<uint64_t>(config.seed));
  }
  return model;
}

// What the loop saw, for the last line and for --json.
struct Totals {
  int64_t tokens = 0;
  double seconds = 0;  // in steps alone
  double loss = 0;     // of the last step
  train::Metrics evaluation;
  double rate() const { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }
};

// What a signal leaves: the checkpoint that this step did not write by itself, and a word about it.
[[noreturn]] void stop(train::Trainer& trainer, const train::StepRecord& record, int signal) {
  const std::filesystem::path saved = record.saved ? *record.saved : trainer.save();
  throw cli::Stopped{
      signal, fmt::format("stopped by {} after step {} of {}; --resume goes on from {}",
                          signal == SIGINT ? "SIGINT" : "SIGTERM", record.step, trainer.total_steps(), saved.string())};
}

// The next step; where it cannot be done for a reason outside of it, what has been learnt is saved first.
train::StepRecord next_step(train::Trainer& trainer) {
  try {
    return trainer.step();
  } catch (const train::StepAbandoned& error) {
    if (trainer.steps_done() == 0) throw;
    throw Error(fmt::format("{}\nThe {} steps before it are in {}: mend the cause, and --resume goes on from there",
                            error.what(), trainer.steps_done(), trainer.save().string()));
  }
}

// "  reward 0.4123" or "  margin 0.4123", where the method has one.
std::string reward_text(const train::Metrics& metrics, const std::string& before) {
  for (const auto& [name, value] : metrics) {
    if (name == "reward") return fmt::format("  reward {:.4f}", value);
    if (name == "rewards/margins") return fmt::format("  margin {:.4f}", value);
  }
  return before;
}

// All processes stop after the same step, whichever of them was told to.
int signal_to_all(const cli::StopSignals& signals, const train::DataParallel& parallel) {
  const int own = signals.received();
  double received = own != 0 ? 1 : 0;
  parallel.sum(std::span(&received, 1));
  return own != 0 || received == 0 ? own : SIGTERM;
}

// cli::Stopped where a signal comes before the last step is done.
Totals run_steps(train::Trainer& trainer, const train::DataParallel& parallel) {
  Totals totals;
  if (trainer.done()) return totals;
  std::optional<cli::Progress> progress;
  if (parallel.is_main_process()) progress.emplace("train", trainer.total_steps() - trainer.steps_done());
  const cli::StopSignals signals;
  const int64_t first = trainer.steps_done();
  std::string rewarded, evaluated;
  while (!trainer.done()) {
    const train::StepRecord record = next_step(trainer);
    totals.tokens += record.tokens;
    totals.seconds += record.seconds;
    totals.loss = record.loss;
    if (!record.evaluation.empty()) {
      totals.evaluation = record.evaluation;
      const auto& [name, value] = record.evaluation[0];
      evaluated = fmt::format("  {} {:.4f}", name, value);
    }
    rewarded = reward_text(record.metrics, rewarded);
    if (progress)
      progress->update(record.step - first,
                       fmt::format("loss {:.4f}{}{}  {:.0f} tok/s", record.loss, rewarded, evaluated, totals.rate()));
    if (const int signal = signal_to_all(signals, parallel); signal != 0 && !trainer.done())
      stop(trainer, record, signal);
  }
  return totals;
}

train::ReportContents report_of(const std::string& title, const train::RunConfig& config, const Plan& plan,
                                const train::Trainer& trainer, const Totals& totals) {
  int64_t trained = 0;
  for (const nn::Parameter& parameter : trainer.optimizer().parameters()) trained += parameter.master.numel();
  train::ReportContents contents;
  contents.title = std::filesystem::path(config.output_dir).filename().string() + ": " + title;
  contents.facts = {{"model", std::filesystem::path(config.model).filename().string()},
                    {"trained", fmt::format("{} of {} parameters", trained, plan.files.config.parameter_count())}};
  contents.facts.insert(contents.facts.end(), plan.facts.report.begin(), plan.facts.report.end());
  contents.facts.emplace_back("steps", fmt::format("{} of {}, {} {} each", trainer.steps_done(), trainer.total_steps(),
                                                   config.rows_per_step(), plan.facts.learnt));
  contents.facts.emplace_back("computed in",
                              std::string(name_of(plan.dtype)) +
                                  (plan.quantization ? ", frozen linears in " + nn::name_of(*plan.quantization) : ""));
  if (totals.seconds > 0)
    contents.facts.emplace_back("speed", fmt::format("{:.0f} tokens/s on {} threads", totals.rate(), thread_count()));
  for (const auto& [name, value] : totals.evaluation) contents.facts.emplace_back(name, fmt::format("{:.4f}", value));
  contents.memory_table =
      memory_table(trainer.model().device()) + "\nestimated before the run:\n" + plan.memory.table();
  contents.samples = plan.facts.samples;
  return contents;
}

void print_summary(const train::RunConfig& config, const Totals& totals, double seconds, const train::Trainer& trainer,
                   bool json) {
  if (json) {
    ordered_json summary = {
        {"output_dir", config.output_dir},
        {"steps", trainer.steps_done()},
        {"loss", totals.loss},
        {"tokens", totals.tokens},
        {"tokens_per_second", totals.rate()},
        {"train_seconds", totals.seconds},
        {"total_seconds", seconds},
        {"peak_memory_bytes", allocator_for(trainer.model().device()).stats().total_peak_bytes},
        {"peak_reserved_bytes", allocator_for(trainer.model().device()).stats().reserved_peak_bytes},
        {"peak_rss_bytes", process_peak_rss_bytes()}};
    for (const auto& [name, value] : totals.evaluation) summary[name] = value;
    fmt::print("{}\n", summary.dump(2, ' ', false, replace_broken_utf8));
    return;
  }
  fmt::print(stderr, "{}", memory_table(trainer.model().device()));
  fmt::print(stderr, "{} steps, {} tokens in {} ({:.0f} tokens/s)\n", trainer.steps_done(), totals.tokens,
             cli::format_duration(totals.seconds), totals.rate());
  fmt::print("{}: {}, metrics.jsonl, report.html\n", config.output_dir, config.use_peft ? "the adapter" : "the model");
}

}  // namespace

void run(Method& method, const train::RunConfig& config, const RecordedSettings& recorded,
         const cli::CommonOptions& options) {
  const auto start = Clock::now();
  const Device device = options.parsed_device();
  if (options.threads > 0) set_thread_count(options.threads);

  const train::DataParallel parallel(config.world_size, processes());
  const bool is_main = parallel.is_main_process();
  if (parallel.world_size() > 1) method.share_steps(parallel);
  const Plan plan = make_plan(method, config, device);
  if (is_main && (!options.json || !config.dry_run)) print_plan(plan, config);
  if (config.dry_run) {
    if (!is_main) return;
    if (const std::string lack = train::lack_of_memory(plan.memory, device); !lack.empty()) cli::print_warning(lack);
    if (options.json) fmt::print("{}\n", plan_json(plan, config).dump(2, ' ', false, replace_broken_utf8));
    return;
  }
  train::expect_fits(plan.memory, device);
  const std::unique_ptr<nn::Transformer> model = load_model(plan, config, device);
  const uint64_t model_fingerprint = nn::model_fingerprint(*plan.files.weights);
  plan.files.weights->release_pages();  // the fingerprint has read some
  const std::unique_ptr<train::Objective> objective = method.make_objective(*model, model_fingerprint);
  train::Trainer trainer(config, *objective, *model,
                         {recorded.result_settings, model_fingerprint, objective->fingerprint()}, parallel);
  for (const std::string& warning : trainer.warnings()) cli::print_warning(warning);
  for (const std::string& note : trainer.notes()) cli::print_note(note);
  const std::filesystem::path output_dir = config.output_dir;
  if (is_main) write_file_atomically(output_dir / "config.yaml", recorded.yaml);
  const Totals totals = run_steps(trainer, parallel);
  if (!is_main) return;
  train::ReportContents report = report_of(method.title(), config, plan, trainer, totals);
  report.config_yaml = recorded.yaml;
  method.complete(report);
  train::write_report(output_dir, report);
  train::write_result(output_dir, *model, trainer.optimizer(), plan.files.path);
  print_summary(config, totals, std::chrono::duration<double>(Clock::now() - start).count(), trainer, options.json);
}

}  // namespace lathe::programs
