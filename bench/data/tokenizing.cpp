#include "bench/data/tokenizing.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <limits>
#include <memory>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "nn/model_path.h"
#include "programs/cli/program.h"
#include "text/model_text.h"

namespace lathe::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

struct TokenizeOptions {
  cli::CommonOptions common;
  std::string model, file;
  int repeat = 5;
};

std::vector<std::string> texts_of(const std::string& path) {
  std::ifstream stream(path);
  if (!stream) throw ConfigError("TEXT", "cannot read " + path);
  std::vector<std::string> texts;
  for (std::string line; std::getline(stream, line);) {
    const nlohmann::ordered_json row = parse_json(line, path + ", row " + std::to_string(texts.size()));
    if (!row.is_object() || !row.contains("text") || !row["text"].is_string())
      throw FormatError(path, -1, "row " + std::to_string(texts.size()) + " has no \"text\" that is a string");
    texts.push_back(row["text"].get<std::string>());
  }
  return texts;
}

void measure(const TokenizeOptions& options) {
  const auto tokenizer = text::load_tokenizer(nn::resolve_model_path(options.model));
  const std::vector<std::string> texts = texts_of(options.file);
  size_t bytes = 0, tokens = 0;
  for (const std::string& text : texts) bytes += text.size();
  double seconds = std::numeric_limits<double>::infinity();
  for (int i = 0; i < options.repeat; ++i) {
    const auto start = SteadyClock::now();
    tokens = 0;
    for (const std::string& text : texts) tokens += tokenizer->encode(text).size();
    seconds = std::min(seconds, std::chrono::duration<double>(SteadyClock::now() - start).count());
  }
  const double rate = static_cast<double>(bytes) / seconds;
  if (options.common.json) {
    const nlohmann::ordered_json result = {{"model", options.model}, {"rows", texts.size()},
                                           {"text_bytes", bytes},    {"tokens", tokens},
                                           {"seconds", seconds},     {"bytes_per_second", rate}};
    fmt::print("{}\n", result.dump(1));
    return;
  }
  fmt::print("{}: {} rows, {:.1f} MB, {} tokens, {:.1f} MB/s on one thread\n", options.model, texts.size(),
             static_cast<double>(bytes) / 1e6, tokens, rate / 1e6);
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto* command = app.add_subcommand("tokenize", "How fast a tokenizer reads text, on one thread");
  auto options = std::make_shared<TokenizeOptions>();
  command->add_option("MODEL", options->model, "a .gguf file, a directory with a tokenizer, or ORG/NAME")->required();
  command->add_option("TEXT", options->file, "JSON Lines of rows with a \"text\"")->required();
  command->add_option("--repeat", options->repeat, "the best of so many")
      ->capture_default_str()
      ->check(CLI::Range(1, 100));
  cli::add_common_options(*command, options->common);
  command->callback([options] { measure(*options); });
}

}  // namespace lathe::bench
