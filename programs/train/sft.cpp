// lathe-train sft: what is supervised fine-tuning's own in a run.
#include <fmt/format.h>

#include <algorithm>

#include "programs/train/commands.h"
#include "programs/train/run.h"
#include "train/memory_estimate.h"
#include "train/sft/sft_data.h"
#include "train/sft/sft_objective.h"

namespace lathe::programs {
namespace {

class Sft final : public Method {
 public:
  explicit Sft(const train::SftConfig& config) : config_(config) {}

  std::string title() const override { return "supervised fine-tuning"; }

  std::optional<AssumedRow> assumed_row() const override {
    if (!config_.dataset.empty()) return std::nullopt;
    return AssumedRow{.text = fmt::format("rows of {} tokens", config_.max_length),
                      .tokens = config_.max_length,
                      .longest_sequence = config_.max_length};
  }

  RowFacts load_rows(const text::ModelText& text) override {
    data_ = train::load_sft_data(config_, text, parallel_);
    const train::TrainingSet& set = data_.training;
    RowFacts facts;
    facts.rows = set.rows();
    facts.longest_sequence = set.longest_sequence();
    facts.largest_forward_tokens = train::largest_forward_tokens(set, config_);
    facts.warnings = data_.warnings;
    facts.plan = {fmt::format("{}: {} rows, {} tokens, {} of them learnt", config_.dataset, set.rows(), set.tokens(),
                              set.labelled_tokens())};
    if (set.stream())
      facts.plan = {fmt::format("{}: a stream, of which {} rows are drawn", config_.dataset, set.rows())};
    facts.counts = {{"tokens", set.tokens()}, {"labelled_tokens", set.labelled_tokens()}};
    facts.report = {
        {"dataset", train::dataset_title(config_.dataset)},
        {"rows", fmt::format("{} ({} tokens, {} learnt)", set.rows(), set.tokens(), set.labelled_tokens())}};
    facts.samples = data_.samples;
    if (data_.evaluation) {
      facts.longest_sequence = std::max(facts.longest_sequence, data_.evaluation->longest_sequence());
      facts.plan.push_back(fmt::format("{}: {} rows to evaluate on", config_.eval_dataset, data_.evaluation->rows()));
    }
    return facts;
  }

  std::unique_ptr<train::Objective> make_objective(nn::Transformer& model, uint64_t /*fingerprint*/) override {
    return std::make_unique<train::SftObjective>(model, data_.training, data_.evaluation ? &*data_.evaluation : nullptr,
                                                 config_, parallel_);
  }

 private:
  const train::SftConfig& config_;
  train::SftData data_;
};

}  // namespace

void add_sft(CLI::App& app) {
  CLI::App* command = add_method<train::SftConfig, Sft>(app, "supervised fine-tuning: show the model what to answer");
  command->footer(
      "Examples:\n"
      "  lathe-train sft --model model.gguf --dataset rows.jsonl --output_dir runs/first\n"
      "  lathe-train sft --config examples/extract/sft.yaml --model model.gguf --output_dir runs/extract --resume\n"
      "  lathe-train sft --model DIR --dataset rows.jsonl --output_dir runs/full --use_peft false --bf16\n"
      "  lathe-train sft --model model.gguf --dataset rows.jsonl --dry_run\n"
      "  lathe-train sft --model model.gguf --dataset shards --output_dir runs/large   (of lathe-data tokenize)\n"
      "  lathe-train sft --model model.gguf --dataset shards:0.7 --dataset rows.jsonl:0.3 --output_dir runs/mixed\n"
      "  mpirun -n 4 lathe-train sft --model model.gguf --dataset shards --output_dir runs/large   (docs/data.md)\n"
      "Names and defaults are TRL's and PEFT's where they have one; '-' and '_' are alike.");
}

}  // namespace lathe::programs
