// lathe-train sft: supervised fine-tuning, from files to an adapter (or a whole model) with its records.
#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "programs/cli/progress.h"
#include "programs/train/commands.h"
#include "programs/train/settings.h"
#include "train/memory_estimate.h"
#include "train/report.h"
#include "train/run_files.h"
#include "train/sft/sft_data.h"
#include "train/sft/sft_objective.h"
#include "text/model_text.h"
#include "train/trainer.h"

namespace lathe::programs {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

// Everything that is known before a weight is read.
struct Plan {
  nn::ModelFiles files;
  train::SftData data;
  DType dtype = DType::f32;
  std::optional<nn::PeftAdapter> adapter;  // to train further
  nn::LoraConfig lora;
  train::MemoryEstimate memory;
  int64_t total_steps = 0;
};

Plan make_plan(const train::SftConfig& config, Device device) {
  Plan plan;
  plan.files = nn::open_model_files(config.model);
  if (!config.use_peft && plan.files.gguf)
    throw ConfigError("use_peft",
                      "training every weight needs a Hugging Face directory, whose configuration and tokenizer go "
                      "with the result; " +
                          config.model + " is a GGUF file (train an adapter on it)");
  plan.dtype = nn::parse_compute_dtype(config.dtype, device);
  plan.data = train::load_sft_data(config, text::load_model_text(plan.files));
  if (!config.adapter.empty()) {
    plan.adapter = nn::read_peft_adapter(config.adapter);
    plan.lora = plan.adapter->config;
  } else if (config.use_peft) {
    plan.lora = train::lora_config(config);
  }
  plan.memory = train::estimate_memory(
      plan.files.config, config.use_peft ? &plan.lora : nullptr, plan.dtype,
      train::largest_forward_tokens(plan.data.training, config), config.gradient_checkpointing,
      config.moments_in_8_bits() ? train::MomentsIn::eight_bits : train::MomentsIn::masters_dtype);
  plan.total_steps = train::RowOrder(plan.data.training.rows(), config).total_steps();
  return plan;
}

void print_plan(const Plan& plan, const train::SftConfig& config) {
  const train::TrainingSet& set = plan.data.training;
  for (const std::string& warning : plan.data.warnings) fmt::print(stderr, "warning: {}\n", warning);
  fmt::print(stderr, "{}: {} rows, {} tokens, {} of them learnt\n", config.dataset, set.rows(), set.tokens(),
             set.labelled_tokens());
  if (plan.data.evaluation)
    fmt::print(stderr, "{}: {} rows to evaluate on\n", config.eval_dataset, plan.data.evaluation->rows());
  fmt::print(stderr, "{} steps of {} rows, {} threads, {}\n", plan.total_steps, config.rows_per_step(), thread_count(),
             name_of(plan.dtype));
  fmt::print(stderr, "memory, estimated:\n{}", plan.memory.table());
}

ordered_json plan_json(const Plan& plan, const train::SftConfig& config) {
  const train::TrainingSet& set = plan.data.training;
  ordered_json memory = ordered_json::object();
  for (const train::MemoryLine& line : plan.memory.lines) {
    const std::string tag(name_of(line.tag));
    memory[tag] = memory.value(tag, int64_t{0}) + line.bytes;
  }
  memory["total"] = plan.memory.total_bytes();
  return {{"rows", set.rows()},
          {"tokens", set.tokens()},
          {"labelled_tokens", set.labelled_tokens()},
          {"total_steps", plan.total_steps},
          {"rows_per_step", config.rows_per_step()},
          {"dtype", name_of(plan.dtype)},
          {"memory_bytes", memory},
          {"warnings", plan.data.warnings}};
}

std::unique_ptr<nn::Transformer> load_model(const Plan& plan, const train::SftConfig& config, Device device) {
  nn::TransformerOptions options;
  options.dtype = plan.dtype;
  options.device = device;
  options.weights = config.use_peft ? nn::WeightMode::frozen : nn::WeightMode::trainable;
  int64_t longest = plan.data.training.longest_sequence();
  if (plan.data.evaluation) longest = std::max(longest, plan.data.evaluation->longest_sequence());
  if (longest > plan.files.config.max_position_embeddings)
    throw ConfigError("max_length",
                      fmt::format("the longest row has {} tokens and the model was made for {}; lower max_length",
                                  longest, plan.files.config.max_position_embeddings));
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

Totals run_steps(train::Trainer& trainer) {
  Totals totals;
  if (trainer.done()) return totals;
  cli::Progress progress("train", trainer.total_steps() - trainer.steps_done());
  const int64_t first = trainer.steps_done();
  std::string evaluated;
  while (!trainer.done()) {
    const train::StepRecord record = trainer.step();
    totals.tokens += record.tokens;
    totals.seconds += record.seconds;
    totals.loss = record.loss;
    if (!record.evaluation.empty()) {
      totals.evaluation = record.evaluation;
      evaluated = fmt::format("  eval_loss {:.4f}", record.evaluation[0].second);
    }
    progress.update(record.step - first,
                    fmt::format("loss {:.4f}{}  {:.0f} tok/s", record.loss, evaluated, totals.rate()));
  }
  return totals;
}

void write_report(const train::SftConfig& config, const Plan& plan, const train::Trainer& trainer,
                  const Totals& totals) {
  const train::TrainingSet& set = plan.data.training;
  int64_t trained = 0;
  for (const nn::Parameter& parameter : trainer.optimizer().parameters()) trained += parameter.master.numel();
  const int64_t weights = plan.files.config.parameter_count();
  train::ReportContents contents;
  contents.title = std::filesystem::path(config.output_dir).filename().string() + ": supervised fine-tuning";
  contents.facts = {{"model", std::filesystem::path(config.model).filename().string()},
                    {"trained", fmt::format("{} of {} parameters", trained, weights)},
                    {"dataset", std::filesystem::path(config.dataset).filename().string()},
                    {"rows", fmt::format("{} ({} tokens, {} learnt)", set.rows(), set.tokens(), set.labelled_tokens())},
                    {"steps", fmt::format("{} of {}, {} rows each", trainer.steps_done(), trainer.total_steps(),
                                          config.rows_per_step())},
                    {"computed in", std::string(name_of(plan.dtype))}};
  if (totals.seconds > 0)
    contents.facts.emplace_back("speed", fmt::format("{:.0f} tokens/s on {} threads", totals.rate(), thread_count()));
  for (const auto& [name, value] : totals.evaluation) contents.facts.emplace_back(name, fmt::format("{:.4f}", value));
  contents.config_yaml = train::resolved_yaml(config);
  contents.memory_table = memory_table(trainer.model().device()) + "\nestimated before the run:\n" + plan.memory.table();
  contents.samples = plan.data.samples;
  train::write_report(config.output_dir, contents);
}

void print_summary(const train::SftConfig& config, const Totals& totals, double seconds, const train::Trainer& trainer,
                   bool json) {
  if (json) {
    ordered_json summary = {{"output_dir", config.output_dir},
                            {"steps", trainer.steps_done()},
                            {"loss", totals.loss},
                            {"tokens", totals.tokens},
                            {"tokens_per_second", totals.rate()},
                            {"train_seconds", totals.seconds},
                            {"total_seconds", seconds},
                            {"peak_memory_bytes", allocator_for(trainer.model().device()).stats().total_peak_bytes},
                            {"peak_rss_bytes", process_peak_rss_bytes()}};
    for (const auto& [name, value] : totals.evaluation) summary[name] = value;
    fmt::print("{}\n", summary.dump(2));
    return;
  }
  fmt::print(stderr, "{}", memory_table(trainer.model().device()));
  fmt::print(stderr, "{} steps, {} tokens in {} ({:.0f} tokens/s)\n", trainer.steps_done(), totals.tokens,
             cli::format_duration(totals.seconds), totals.rate());
  fmt::print("{}: {}, metrics.jsonl, report.html\n", config.output_dir, config.use_peft ? "the adapter" : "the model");
}

void run(const TrainArguments& arguments) {
  const auto start = Clock::now();
  const train::SftConfig config = parse_config<train::SftConfig>(arguments);
  const Device device = arguments.common.parsed_device();
  if (arguments.common.threads > 0) set_thread_count(arguments.common.threads);
  const bool json = arguments.common.json;

  const Plan plan = make_plan(config, device);
  if (!json || !config.dry_run) print_plan(plan, config);
  train::expect_fits(plan.memory, device);
  if (config.dry_run) {
    if (json) fmt::print("{}\n", plan_json(plan, config).dump(2));
    return;
  }
  const std::unique_ptr<nn::Transformer> model = load_model(plan, config, device);
  train::SftObjective objective(*model, plan.data.training, plan.data.evaluation ? &*plan.data.evaluation : nullptr,
                                config);
  train::Trainer trainer(
      config, objective, *model,
      {train::result_settings(config), train::model_fingerprint(*plan.files.weights), objective.fingerprint()});
  for (const std::string& note : trainer.notes()) fmt::print(stderr, "{}\n", note);
  const std::filesystem::path output_dir = config.output_dir;
  write_file_atomically(output_dir / "config.yaml", train::resolved_yaml(config));
  const Totals totals = run_steps(trainer);
  write_report(config, plan, trainer, totals);
  train::write_result(output_dir, *model, trainer.optimizer(), config.model);
  print_summary(config, totals, std::chrono::duration<double>(Clock::now() - start).count(), trainer, json);
}

}  // namespace

void add_sft(CLI::App& app) {
  auto arguments = std::make_shared<TrainArguments>();
  CLI::App* command = app.add_subcommand("sft", "supervised fine-tuning: show the model what to answer");
  train::SftConfig defaults;
  add_settings(*command, fields_of(defaults), *arguments);
  command->footer(
      "Examples:\n"
      "  lathe-train sft --model model.gguf --dataset rows.jsonl --output_dir runs/first\n"
      "  lathe-train sft --config examples/extract/sft.yaml --model model.gguf --output_dir runs/extract --resume\n"
      "  lathe-train sft --model DIR --dataset rows.jsonl --output_dir runs/full --use_peft false --bf16\n"
      "  lathe-train sft --model model.gguf --dataset rows.jsonl --dry_run\n"
      "Names and defaults are TRL's and PEFT's where they have one; '-' and '_' are alike.");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace lathe::programs
