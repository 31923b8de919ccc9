// lathe-model eval: answers, choices or a text, measured, and held to bounds.
#include <fmt/format.h>

#include <memory>

#include "core/error.h"
#include "core/json_value.h"
#include "core/memory.h"
#include "programs/cli/messages.h"
#include "programs/cli/session.h"
#include "programs/model/commands.h"
#include "programs/model/evaluation.h"
#include "programs/model/scoring.h"

namespace lathe::programs {
namespace {

using nlohmann::ordered_json;

// What is wrong with the flags is told before a model is loaded.
void check(const EvalOptions& options) {
  if (options.dataset.empty() == options.text.empty())
    throw ConfigError("dataset", "give --dataset (rows to answer) or --text (a text whose perplexity is measured)");
  if (options.text.empty() && options.metric != "choice") parse_metric(options.metric);
}

ordered_json json_of(const Evaluation& evaluation, const EvalOptions& options,
                     const std::vector<std::string>& failures) {
  ordered_json result = evaluation.facts;
  for (const auto& [name, value] : evaluation.metrics) {
    result[name] = nullptr;
    if (value) result[name] = *value;
  }
  if (!options.gate.empty())
    result["gate"] = {{"file", options.gate}, {"passed", failures.empty()}, {"failures", failures}};
  return result;
}

void run(const EvalOptions& options) {
  check(options);
  const cli::Session session = cli::Session::open(options.model);
  const Evaluation evaluation = !options.text.empty()        ? evaluate_text(session, options)
                                : options.metric == "choice" ? evaluate_choices(session, options)
                                                             : evaluate_answers(session, options);
  const std::vector<std::string> failures =
      options.gate.empty() ? std::vector<std::string>() : gate_failures(options.gate, evaluation);
  if (options.model.common.json) {
    fmt::print("{}\n",
               json_of(evaluation, options, failures).dump(2, ' ', false, ordered_json::error_handler_t::replace));
  } else {
    fmt::print(stderr, "{}", memory_table(session.model->device()));
    fmt::print("{}\n", evaluation.sentence);
  }
  if (failures.empty()) return;
  std::string sentence = options.gate + " is not passed:";
  for (const std::string& failure : failures) sentence += "\n  " + failure;
  throw cli::GateFailed{sentence};
}

}  // namespace

void add_eval(CLI::App& app) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* command =
      app.add_subcommand("eval", "measure a model: answers to prompts, multiple choice, or the perplexity of a text");
  cli::add_model_options(*command, options->model);
  command->add_option("--dataset", options->dataset,
                      "JSONL of {\"prompt\", \"completion\"} rows, strings or message lists; for --metric choice of "
                      "{\"question\", \"choices\", \"answer\"}");
  command->add_option("--text", options->text, "a text file: its perplexity, in place of --dataset");
  command
      ->add_option(
          "--metric", options->metric,
          "json: answers equal as JSON values; exact: equal text; choice: the likeliest choice is the right one")
      ->capture_default_str();
  command->add_option("--max_length", options->max_length,
                      "of --text: tokens in a window (0: the model's context, at most 2048)");
  command->add_option("--stride", options->stride, "of --text: tokens from window to window (0: half a window)");
  command->add_option(
      "--gate", options->gate,
      "YAML of metrics and their bounds (accuracy: 0.9, perplexity: 20); exit code 3 where one is missed");
  command->add_option("--show", options->show, "print the first N messages with answer and reference")
      ->capture_default_str();
  command->add_option("--limit", options->limit, "take the first N rows only (0: all)")->capture_default_str();
  command->add_option("--predictions", options->predictions,
                      "write every prompt, answer and reference to this JSONL file");
  cli::add_sampling_options(*command, options->sampling, options->max_tokens);
  command->callback([options] { run(*options); });
}

}  // namespace lathe::programs
