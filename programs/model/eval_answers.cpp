// Answers to a dataset's prompts against its completions, and the loss on them.
#include <fmt/format.h>

#include <algorithm>

#include "autograd/ops/linear_cross_entropy.h"
#include "autograd/recording.h"
#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json_value.h"
#include "core/printable.h"
#include "data/rows/sft_rows.h"
#include "kernels/copy/copy.h"
#include "nn/attention_context.h"
#include "programs/cli/messages.h"
#include "programs/cli/progress.h"
#include "programs/model/evaluation.h"
#include "programs/model/scoring.h"
#include "serve/engine/engine.h"

namespace lathe::programs {
namespace {

// A row cut where the trained part begins: what is asked, and what should be answered.
struct Question {
  std::vector<int32_t> prompt, reference;
  int64_t line = 0;
  std::string answer;
  bool correct = false;
};

Question question_of(const data::SftExample& example, int64_t line, const std::string& file) {
  const auto first =
      std::find_if(example.labels.begin(), example.labels.end(), [](int32_t id) { return id != data::ignored_label; });
  const auto at = first - example.labels.begin();
  if (at == 0)
    throw FormatError(file, -1,
                      "line " + std::to_string(line) +
                          " has no prompt before what is to be answered; eval takes rows of "
                          "\"prompt\" and \"completion\"");
  Question question;
  question.prompt.assign(example.input_ids.begin(), example.input_ids.begin() + at);
  question.reference.assign(example.input_ids.begin() + at, example.input_ids.end());
  question.line = line;
  return question;
}

// Mean negative log-likelihood of the trained tokens in nats, over all of them.
double mean_loss(const cli::Session& session, const std::vector<data::SftExample>& examples) {
  const autograd::NoGradScope no_grad;
  double sum = 0;
  int64_t count = 0;
  for (const data::SftExample& example : examples) {
    const auto length = static_cast<int32_t>(example.input_ids.size());
    const nn::TokenBatch batch = nn::make_token_batch(example.input_ids, std::span(&length, 1));
    nn::PackedAttention attention(session.config, batch.layout);
    std::vector<int32_t> shifted(example.labels.begin() + 1, example.labels.end());
    shifted.push_back(data::ignored_label);
    const auto result = autograd::linear_cross_entropy(
        session.model->forward(batch, attention), session.model->output_weight(),
        Tensor::of<int32_t>(shifted, {length}), batch.layout, 1.0, session.model->softcap());
    const Tensor loss = kernels::moved(result.loss.value(), {});
    sum += loss.dtype() == DType::f64 ? loss.data<double>()[0] : loss.data<float>()[0];
    count += std::count_if(shifted.begin(), shifted.end(), [](int32_t id) { return id != data::ignored_label; });
  }
  return count > 0 ? sum / static_cast<double>(count) : 0;
}

void answer_all(const cli::Session& session, const EvalOptions& options, std::vector<Question>& questions) {
  std::vector<engine::Request> requests;
  for (const Question& question : questions)
    requests.push_back(session.request(question.prompt, options.sampling, options.max_tokens));
  cli::Progress progress("answering", static_cast<int64_t>(questions.size()));
  int64_t finished = 0;
  const auto completions =
      engine::generate(*session.model, requests, session.engine, [&](const engine::TokenOutput& output) {
        if (output.finish_reason) progress.update(++finished);
      });
  const Metric metric = parse_metric(options.metric);
  for (size_t i = 0; i < questions.size(); ++i) {
    questions[i].answer = session.text.tokenizer->decode(completions[i].tokens, true);
    questions[i].correct =
        matches(metric, questions[i].answer, session.text.tokenizer->decode(questions[i].reference, true));
  }
}

// The last message of a chat prompt, as a person reads it: the control tokens cut the prompt into "role\nmessage"
// parts, the last of which opens the answer. A prompt without control tokens is shown whole.
std::string shown_prompt(const cli::Session& session, const std::vector<int32_t>& prompt) {
  std::vector<std::vector<int32_t>> parts(1);
  for (const int32_t id : prompt) {
    if (session.text.tokenizer->is_special(id)) {
      parts.emplace_back();
    } else {
      parts.back().push_back(id);
    }
  }
  std::vector<std::string> texts;
  for (const auto& part : parts) {
    std::string text = session.text.tokenizer->decode(part);
    if (text.find_first_not_of(" \n") != std::string::npos) texts.push_back(std::move(text));
  }
  if (texts.size() < 2) return texts.empty() ? "" : texts[0];
  const std::string& message = texts[texts.size() - 2];
  return message.substr(message.find('\n') + 1);
}

nlohmann::ordered_json prediction(const cli::Session& session, const Question& question) {
  return {{"line", question.line},
          {"prompt", session.text.tokenizer->decode(question.prompt)},
          {"reference", session.text.tokenizer->decode(question.reference, true)},
          {"answer", question.answer},
          {"correct", question.correct}};
}

}  // namespace

Evaluation evaluate_answers(const cli::Session& session, const EvalOptions& options) {
  data::SftOptions row_options;
  row_options.max_length.reset();
  row_options.vocab_size = session.text.vocab_size;
  data::SftRows rows =
      data::read_sft_rows(options.dataset, *session.text.tokenizer, session.text.chat_template.get(), row_options);
  for (const std::string& warning : rows.warnings) cli::print_warning(options.dataset + ": " + warning);
  if (options.limit > 0 && static_cast<int64_t>(rows.examples.size()) > options.limit)
    rows.examples.resize(static_cast<size_t>(options.limit));
  if (rows.examples.empty()) throw FormatError(options.dataset, -1, "has no row to answer");
  std::vector<Question> questions;
  for (size_t i = 0; i < rows.examples.size(); ++i)
    questions.push_back(question_of(rows.examples[i], rows.lines[i], options.dataset));

  const double loss = mean_loss(session, rows.examples);
  answer_all(session, options, questions);
  const auto correct = std::count_if(questions.begin(), questions.end(), [](const Question& q) { return q.correct; });
  const auto total = static_cast<int64_t>(questions.size());

  if (!options.predictions.empty()) {
    std::string lines;
    for (const Question& question : questions)
      lines +=
          prediction(session, question).dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
    write_file_atomically(options.predictions, lines);
  }
  const bool shown = !options.model.common.json;
  for (size_t i = 0; shown && i < questions.size() && static_cast<int64_t>(i) < options.show; ++i)
    fmt::print("  message    {}\n  answer {}   {}\n  reference  {}\n\n",
               printable(shown_prompt(session, questions[i].prompt)), questions[i].correct ? "✓" : "✗",
               printable(trimmed(questions[i].answer)),
               printable(trimmed(session.text.tokenizer->decode(questions[i].reference, true))));
  const double accuracy = static_cast<double>(correct) / static_cast<double>(total);
  Evaluation result;
  result.facts = {{"dataset", options.dataset}, {"metric", options.metric}, {"rows", total}, {"correct", correct}};
  result.add("accuracy", accuracy);
  result.add("accuracy_stderr", share_stderr(accuracy, total));
  result.add("loss", loss);
  result.sentence =
      fmt::format("{} of {} correct ({:.1f} %, {}), loss {:.4f} on the references", correct, total,
                  100.0 * static_cast<double>(correct) / static_cast<double>(total), options.metric, loss);
  return result;
}

}  // namespace lathe::programs
