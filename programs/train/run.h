// One training run for every method, from a parsed config to its records: plan, load, steps, report, summary.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "nn/transformer.h"
#include "programs/train/settings.h"
#include "text/model_text.h"
#include "train/data_parallel.h"
#include "train/objective.h"
#include "train/reference_model.h"
#include "train/report.h"
#include "train/settings/run_config.h"

namespace lathe::programs {

// What the plan, the memory estimate and the report say about a method's rows.
struct RowFacts {
  int64_t rows = 0;
  int64_t updates_per_rows = 1;  // as the objective has it
  std::optional<int64_t> rows_per_draw;
  std::string learnt = "rows";    // what a step learns from, rows_per_step of them: "completions"
  int64_t kv_cache_tokens = 0;    // held while generating
  int64_t sequences_at_once = 0;  // which then have states, where the model keeps them
  int64_t longest_sequence = 0;   // tokens: the positions that the model must have
  int64_t largest_forward_tokens = 0;
  std::vector<std::string> warnings;                    // each one sentence
  std::vector<std::string> plan;                        // lines: "rows.jsonl: 24 rows, 285 tokens, 261 of them learnt"
  std::vector<std::pair<std::string, int64_t>> counts;  // of --dry_run --json: {"labelled_tokens", 261}
  std::vector<std::pair<std::string, std::string>> report;  // name, value: {"dataset", "rows.jsonl"}
  std::vector<train::SampleRow> samples;
  std::string longest_setting = "max_length";  // what lowers longest_sequence
};

// What a dry run without a dataset takes each row to be.
struct AssumedRow {
  std::string text;             // "rows of 1024 tokens"
  std::string learnt = "rows";  // as RowFacts has it
  int64_t tokens = 0;           // of it in a forward
  int64_t longest_sequence = 0;
  int64_t kv_cache_tokens = 0;  // held while generating
  int64_t sequences_at_once = 0;
};

// What is a method's own: its rows, its objective, its words.
class Method {
 public:
  virtual ~Method() = default;
  virtual std::string title() const = 0;  // of the report: "supervised fine-tuning"
  // Nothing where there is a dataset.
  virtual std::optional<AssumedRow> assumed_row() const = 0;
  // Reads and checks the rows, which the method keeps.
  virtual RowFacts load_rows(const text::ModelText& text) = 0;
  // Of a second model beside the one that is trained; nothing where there is none.
  virtual std::optional<train::FollowsTheModel> reference() const { return std::nullopt; }
  // Of a run that has several ranks, before load_rows().
  void share_steps(const train::DataParallel& parallel) { parallel_ = parallel; }
  // After load_rows(). The model outlives the objective; the fingerprint is that of its files' weights.
  virtual std::unique_ptr<train::Objective> make_objective(nn::Transformer& model, uint64_t model_fingerprint) = 0;
  // What the end of the run has to add to the report.
  virtual void complete(train::ReportContents& /*report*/) const {}

 protected:
  train::DataParallel parallel_;
};

// What is written down of a config.
struct RecordedSettings {
  std::string yaml;                    // config.yaml
  train::NamedValues result_settings;  // what a resumed run must agree in
};

void run(Method& method, const train::RunConfig& config, const RecordedSettings& recorded,
         const cli::CommonOptions& options);

// The subcommand of a method: its config's fields as flags, and a run with them. MethodType is made from the parsed
// config, which it may keep a reference to.
template <class Config, class MethodType>
CLI::App* add_method(CLI::App& app, const std::string& description) {
  CLI::App* command = app.add_subcommand(Config::command, description);
  auto arguments = std::make_shared<TrainArguments>();
  Config defaults;
  add_settings(*command, fields_of(defaults), *arguments);
  command->callback([arguments] {
    const Config config = parse_config<Config>(*arguments);
    MethodType method(config);
    run(method, config, {train::resolved_yaml(config), train::result_settings(config)}, arguments->common);
  });
  return command;
}

}  // namespace lathe::programs
