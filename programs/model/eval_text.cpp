// Perplexity of a text, window by window.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/digits.h"
#include "core/error.h"
#include "core/mapped_file.h"
#include "programs/cli/progress.h"
#include "programs/model/evaluation.h"
#include "programs/model/likelihood.h"

namespace lathe::programs {
namespace {

constexpr int64_t usual_window = 2048;

struct Window {
  double loss = 0;  // sum over its scored tokens, in nats
  int64_t tokens = 0;
};

// The mean over all tokens is a ratio of two sums over windows; its standard error takes the windows as independent.
std::optional<double> mean_stderr(const std::vector<Window>& windows, double mean, int64_t tokens) {
  if (windows.size() < 2) return std::nullopt;
  double squares = 0;
  for (const Window& window : windows) {
    const double deviation = window.loss - mean * static_cast<double>(window.tokens);
    squares += deviation * deviation;
  }
  const auto count = static_cast<double>(windows.size());
  return std::sqrt(squares * count / (count - 1)) / static_cast<double>(tokens);
}

}  // namespace

Evaluation evaluate_text(const cli::Session& session, const EvalOptions& options) {
  const int64_t context = session.config.max_position_embeddings;
  const int64_t max_length = options.max_length > 0 ? options.max_length : std::min(context, usual_window);
  const int64_t stride = options.stride > 0 ? options.stride : std::max<int64_t>(max_length / 2, 1);
  if (max_length < 2 || max_length > context)
    throw ConfigError("max_length",
                      fmt::format("expected 2 to {}, the model's context, found {}", context, max_length));
  if (stride >= max_length)
    throw ConfigError("stride", fmt::format("expected less than max_length ({}), found {}: each window's first token "
                                            "has nothing before it and would not be scored",
                                            max_length, stride));
  const std::vector<int32_t> ids =
      session.text.tokenizer->encode(file_text(options.text), data::SpecialTokens::as_text, data::SequenceTokens::add);
  if (ids.size() < 2) throw FormatError(options.text, -1, "has fewer than two tokens: nothing can be scored");

  const auto count = static_cast<int64_t>(ids.size());
  cli::Progress progress("scoring", count);
  std::vector<Window> windows;
  double loss = 0;
  int64_t tokens = 0;
  for (int64_t begin = 0, scored = 1; scored < count; begin += stride) {
    const int64_t end = std::min(begin + max_length, count);
    const auto logprobs = token_loglikelihoods(session, {{ids.begin() + begin, ids.begin() + end}});
    Window window;
    for (int64_t i = scored; i < end; ++i, ++window.tokens)
      window.loss -= logprobs[0][static_cast<size_t>(i - begin - 1)];
    scored = end;
    loss += window.loss;
    tokens += window.tokens;
    windows.push_back(window);
    progress.update(end);
  }
  const double mean = loss / static_cast<double>(tokens), perplexity = std::exp(mean);
  const std::optional<double> stderr_of_mean = mean_stderr(windows, mean, tokens);
  Evaluation result;
  result.facts = {{"text", options.text},
                  {"tokens", tokens},
                  {"windows", windows.size()},
                  {"max_length", max_length},
                  {"stride", stride}};
  result.add("loss", mean);
  result.add("loss_stderr", stderr_of_mean);
  result.add("perplexity", perplexity);
  result.add("perplexity_stderr", stderr_of_mean ? std::optional(perplexity * *stderr_of_mean) : std::nullopt);
  result.sentence =
      fmt::format("perplexity {:.4f}{}, loss {:.4f} over {} tokens in {} windows of {} every {}", perplexity,
                  stderr_of_mean ? fmt::format(" ± {:.4f}", perplexity * *stderr_of_mean) : "", mean,
                  grouped_digits(tokens), windows.size(), max_length, stride);
  return result;
}

}  // namespace lathe::programs
