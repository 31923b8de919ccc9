// Multiple choice by likelihood.
#include <fmt/format.h>

#include <algorithm>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json.h"
#include "data/rows/json_lines.h"
#include "programs/cli/progress.h"
#include "programs/model/evaluation.h"
#include "programs/model/likelihood.h"

namespace lathe::programs {
namespace {

using nlohmann::ordered_json;

struct ChoiceRow {
  std::string question;
  std::vector<std::string> choices;
  size_t answer = 0;
  int64_t line = 0;
};

class RowReader {
 public:
  RowReader(const std::string& file, int64_t line) : file_(file), line_(line) {}

  ordered_json parsed(const data::JsonLines& lines, int64_t row) const {
    try {
      return lines.parse(row);
    } catch (const FormatError&) {
      throw;
    } catch (const Error& error) {
      fail(error.what());
    }
  }

  ChoiceRow read(const ordered_json& row) const {
    ChoiceRow result;
    result.line = line_;
    if (!row.is_object()) fail("expected an object, found " + json_excerpt(row));
    result.question = text(field(row, "question"), "question");
    const ordered_json* choices = &field(row, "choices");
    std::vector<std::string> labels;
    if (choices->is_object()) {
      labels = texts(field(*choices, "label"), "choices.label");
      choices = &field(*choices, "text");
    }
    result.choices = texts(*choices, "choices");
    if (result.choices.size() < 2) fail("expected at least two choices");
    if (!labels.empty() && labels.size() != result.choices.size())
      fail("choices.label has another length than choices.text");
    const char* key = row.contains("answer") || !row.contains("answerKey") ? "answer" : "answerKey";
    result.answer = answer_of(field(row, key), result.choices, labels);
    return result;
  }

 private:
  [[noreturn]] void fail(const std::string& reason) const {
    throw FormatError(file_, -1, "line " + std::to_string(line_) + ": " + reason);
  }
  const ordered_json& field(const ordered_json& object, const char* key) const {
    const auto found = object.find(key);
    if (found == object.end())
      fail(std::string("has no \"") + key +
           "\"; --metric choice takes rows of \"question\", \"choices\" and \"answer\"");
    return *found;
  }
  std::string text(const ordered_json& value, const char* key) const {
    if (!value.is_string()) fail(std::string(key) + ": expected a text, found " + json_excerpt(value));
    if (value.get_ref<const std::string&>().empty()) fail(std::string(key) + ": an empty text has no likelihood");
    return value.get<std::string>();
  }
  std::vector<std::string> texts(const ordered_json& value, const char* key) const {
    if (!value.is_array()) fail(std::string(key) + ": expected a list of texts, found " + json_excerpt(value));
    std::vector<std::string> result;
    for (const ordered_json& item : value) result.push_back(text(item, key));
    return result;
  }
  // An index, a label, a letter or the choice itself.
  size_t answer_of(const ordered_json& value, const std::vector<std::string>& choices,
                   const std::vector<std::string>& labels) const {
    if (value.is_number_integer() && labels.empty())
      return static_cast<size_t>(json_integer(value, "answer", 0, static_cast<int64_t>(choices.size()) - 1,
                                              file_ + ", line " + std::to_string(line_)));
    if (value.is_string()) {
      const auto& answer = value.get_ref<const std::string&>();
      for (const auto& names : {labels, choices})
        if (const auto found = std::find(names.begin(), names.end(), answer); found != names.end())
          return static_cast<size_t>(found - names.begin());
      if (answer.size() == 1 && labels.empty() && answer[0] >= 'A' &&
          static_cast<size_t>(answer[0] - 'A') < choices.size())
        return static_cast<size_t>(answer[0] - 'A');
    }
    fail("answer: expected the index, the letter or the text of one of " + std::to_string(choices.size()) +
         " choices, found " + json_excerpt(value));
  }

  std::string file_;
  int64_t line_;
};

std::vector<ChoiceRow> read_rows(const std::string& file, int64_t limit) {
  std::vector<ChoiceRow> rows;
  const data::JsonLines lines = data::JsonLines::open(file);
  const int64_t count = limit > 0 ? std::min(limit, lines.size()) : lines.size();
  for (int64_t i = 0; i < count; ++i) {
    const RowReader reader(lines.file(), lines.line(i));
    rows.push_back(reader.read(reader.parsed(lines, i)));
  }
  if (rows.empty()) throw FormatError(file, -1, "has no row to answer");
  return rows;
}

double characters(const std::string& text) {
  return static_cast<double>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// The log-likelihood of each choice after the question.
std::vector<double> scores_of(const cli::Session& session, const ChoiceRow& row, const std::string& file) {
  const auto encode = [&](const std::string& text) {
    return session.text.tokenizer->encode(text, data::SpecialTokens::as_text, data::SequenceTokens::add);
  };
  // Spaces at the question's end belong to what follows, as in lm-evaluation-harness.
  const size_t last = row.question.find_last_not_of(' ');
  const std::string spaces = row.question.substr(last == std::string::npos ? 0 : last + 1);
  const std::string question = row.question.substr(0, row.question.size() - spaces.size());
  const size_t asked = encode(question).size();
  std::vector<std::vector<int32_t>> sequences;
  for (const std::string& choice : row.choices) {
    sequences.push_back(encode(question + spaces + " " + choice));
    if (static_cast<int64_t>(sequences.back().size()) > session.config.max_position_embeddings)
      throw FormatError(file, -1,
                        "line " + std::to_string(row.line) + ": a question and a choice of " +
                            std::to_string(sequences.back().size()) + " tokens are longer than the model's context");
    if (asked == 0 || sequences.back().size() <= asked)
      throw FormatError(file, -1, "line " + std::to_string(row.line) + ": a question or a choice without a token");
  }
  std::vector<double> scores;
  for (const std::vector<double>& logprobs : token_loglikelihoods(session, sequences)) {
    double sum = 0;
    for (size_t i = asked - 1; i < logprobs.size(); ++i) sum += logprobs[i];
    scores.push_back(sum);
  }
  return scores;
}

size_t best_of(const std::vector<double>& scores) {
  return static_cast<size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

}  // namespace

Evaluation evaluate_choices(const cli::Session& session, const EvalOptions& options) {
  const std::vector<ChoiceRow> rows = read_rows(options.dataset, options.limit);
  cli::Progress progress("answering", static_cast<int64_t>(rows.size()));
  int64_t correct = 0, correct_norm = 0, done = 0;
  std::string predictions;
  for (const ChoiceRow& row : rows) {
    const std::vector<double> scores = scores_of(session, row, options.dataset);
    std::vector<double> norm = scores;
    for (size_t i = 0; i < norm.size(); ++i) norm[i] /= characters(row.choices[i]);
    const size_t chosen = best_of(scores), chosen_norm = best_of(norm);
    correct += chosen == row.answer;
    correct_norm += chosen_norm == row.answer;
    const ordered_json line = {
        {"line", row.line},           {"question", row.question}, {"answer", row.answer},           {"chosen", chosen},
        {"chosen_norm", chosen_norm}, {"logprobs", scores},       {"correct", chosen == row.answer}};
    if (!options.predictions.empty())
      predictions += line.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
    progress.update(++done);
  }
  if (!options.predictions.empty()) write_file_atomically(options.predictions, predictions);

  const auto total = static_cast<int64_t>(rows.size());
  const double accuracy = static_cast<double>(correct) / static_cast<double>(total);
  const double accuracy_norm = static_cast<double>(correct_norm) / static_cast<double>(total);
  Evaluation result;
  result.facts = {{"dataset", options.dataset}, {"metric", "choice"}, {"rows", total}, {"correct", correct}};
  result.add("accuracy", accuracy);
  result.add("accuracy_stderr", share_stderr(accuracy, total));
  result.add("accuracy_norm", accuracy_norm);
  result.add("accuracy_norm_stderr", share_stderr(accuracy_norm, total));
  result.sentence =
      fmt::format("{} of {} right ({:.1f} % ± {:.1f}); by likelihood per character {} ({:.1f} %)", correct, total,
                  100 * accuracy, 100 * share_stderr(accuracy, total).value_or(0), correct_norm, 100 * accuracy_norm);
  return result;
}

}  // namespace lathe::programs
