// What lathe-model eval measures, and how it is told.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/json_value.h"
#include "kernels/sampling/sampling.h"
#include "programs/cli/session.h"

namespace lathe::programs {

struct EvalOptions {
  cli::ModelOptions model;
  kernels::SamplingParams sampling;
  int64_t max_tokens = 128, show = 0, limit = 0;
  int64_t max_length = 0, stride = 0;  // of windows over a text; 0: from the model, and half of it
  std::string dataset, text, metric = "exact", predictions, gate;
};

// Names and values in the order in which they are told: "accuracy", "accuracy_stderr", "loss", … Without a value:
// a standard error of too few rows.
struct Evaluation {
  nlohmann::ordered_json facts;  // what was measured: "dataset", "rows", …
  std::vector<std::pair<std::string, std::optional<double>>> metrics;
  std::string sentence;  // for a person

  void add(const std::string& name, std::optional<double> value) { metrics.emplace_back(name, value); }
  std::optional<double> find(const std::string& name) const;
};

// Answers to prompts against completions (--metric exact, json).
Evaluation evaluate_answers(const cli::Session& session, const EvalOptions& options);
// Which of several choices is the likeliest (--metric choice). Rows {"question", "choices", "answer"}: the answer is
// the index of the right choice, its letter, or its text; "choices" may be {"text": […], "label": […]} with the answer
// a label. As in lm-evaluation-harness, a choice's score is the log-likelihood of " " + choice after the question, as
// the question's tokens are those of the whole text; `accuracy_norm` divides it by the choice's characters.
Evaluation evaluate_choices(const cli::Session& session, const EvalOptions& options);
// Perplexity of a text (--text), in windows of max_length tokens that begin stride apart; each token is scored once,
// with what stands before it in the first window that reaches it (Hugging Face's "Perplexity of fixed-length models").
Evaluation evaluate_text(const cli::Session& session, const EvalOptions& options);

// √(p(1 − p)/(n − 1)), the standard error of a share of n rows.
std::optional<double> share_stderr(double share, int64_t count);

// What of the evaluation lies beyond the bounds of a YAML file of metrics by their names, sentence by sentence: a loss
// or a perplexity may be at most that, anything else must be at least. ConfigError for a metric that was not measured
// or a bound that is no number.
std::vector<std::string> gate_failures(const std::string& file, const Evaluation& evaluation);

}  // namespace lathe::programs
