// lathe-train dpo: what is direct preference optimisation's own in a run.
#include <fmt/format.h>

#include "programs/train/commands.h"
#include "programs/train/run.h"
#include "train/dpo/dpo_data.h"
#include "train/dpo/dpo_objective.h"
#include "train/dpo/pair_batch.h"

namespace lathe::programs {
namespace {

class Dpo final : public Method {
 public:
  explicit Dpo(const train::DpoConfig& config) : config_(config) {}

  std::string title() const override { return "direct preference optimisation"; }

  std::optional<AssumedRow> assumed_row() const override {
    if (!config_.dataset.empty()) return std::nullopt;
    return AssumedRow{.text = fmt::format("pairs of {} tokens a sequence that share nothing", config_.max_length),
                      .tokens = 2 * config_.max_length,
                      .longest_sequence = config_.max_length};
  }

  RowFacts load_rows(const text::ModelText& text) override {
    data_ = train::load_dpo_data(config_, text, parallel_);
    const train::TrainingSet& set = data_.training;
    RowFacts facts;
    facts.rows = set.rows();
    facts.longest_sequence = data_.longest_sequence();
    facts.largest_forward_tokens = train::largest_pair_forward(
        set, config_, config_.disable_dropout ? train::PromptRows::once : train::PromptRows::twice);
    facts.warnings = data_.warnings;
    facts.plan = {fmt::format("{}: {} rows, {} tokens in pairs, {} of them in completions", config_.dataset, set.rows(),
                              set.tokens(), set.labelled_tokens()),
                  fmt::format("loss: {}, beta {}; reference: {}", config_.loss_type, config_.beta, reference_text())};
    if (set.stream() != nullptr)
      facts.plan[0] = fmt::format("{}: a stream, of which {} rows are drawn", config_.dataset, set.rows());
    facts.counts = {{"tokens", set.tokens()}, {"labelled_tokens", set.labelled_tokens()}};
    facts.report = {{"dataset", train::dataset_title(config_.dataset)},
                    {"rows", fmt::format("{} ({} tokens in pairs)", set.rows(), set.tokens())},
                    {"loss type", config_.loss_type},
                    {"beta", fmt::format("{}", config_.beta)},
                    {"reference", reference_text()}};
    facts.samples = data_.samples;
    if (data_.evaluation)
      facts.plan.push_back(fmt::format("{}: {} rows to evaluate on", config_.eval_dataset, data_.evaluation->rows()));
    return facts;
  }

  std::optional<train::FollowsTheModel> reference() const override {
    return config_.sync_ref_model ? std::optional(train::FollowsTheModel::yes) : std::nullopt;
  }

  std::unique_ptr<train::Objective> make_objective(nn::Transformer& model, uint64_t model_fingerprint) override {
    return std::make_unique<train::DpoObjective>(model, config_, data_, model_fingerprint, parallel_);
  }

  void complete(train::ReportContents& report) const override {
    report.samples_heading = "Rows as the model sees them (what was chosen is coloured, what was rejected below it)";
  }

 private:
  std::string reference_text() const {
    if (config_.sync_ref_model) return "a second model that follows the first";
    if (!config_.use_peft) return "the model before training, computed before the first step";
    return config_.adapter.empty() ? "the model with the adapter off" : "the adapter before training";
  }

  const train::DpoConfig& config_;
  train::DpoData data_;
};

}  // namespace

void add_dpo(CLI::App& app) {
  CLI::App* command = add_method<train::DpoConfig, Dpo>(
      app, "direct preference optimisation: show the model which of two answers is better");
  command->footer(
      "Examples:\n"
      "  lathe-train dpo --model model.gguf --dataset pairs.jsonl --output_dir runs/first --learning_rate 5e-6\n"
      "  lathe-train dpo --model model.gguf --dataset pairs.jsonl --output_dir runs/mpo\n"
      "      --loss_type sigmoid bco_pair sft --loss_weights 0.8 0.2 1.0\n"
      "  lathe-train dpo --model model.gguf --adapter runs/sft --dataset pairs.jsonl --output_dir runs/second\n"
      "  mpirun -n 4 lathe-train dpo --model model.gguf --dataset pairs.jsonl --output_dir runs/large   (docs/data.md)\n"
      "  lathe-train dpo --config examples/preferences/dpo.yaml --model model.gguf --output_dir runs/pref --resume\n"
      "  lathe-train dpo --model DIR --dry_run --load_in_4bit   (the memory of a model of which only config.json is there)\n"
      "Names and defaults are TRL's and PEFT's where they have one; '-' and '_' are alike.");
}

}  // namespace lathe::programs
