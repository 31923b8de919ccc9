// lathe-model tokenize: a text as the tokens that a model reads, from its tokenizer alone.
#include <fmt/format.h>

#include <iostream>
#include <iterator>
#include <memory>

#include "core/error.h"
#include "core/json_value.h"
#include "core/mapped_file.h"
#include "core/printable.h"
#include "nn/model_path.h"
#include "programs/cli/program.h"
#include "programs/model/commands.h"
#include "text/model_text.h"

namespace lathe::programs {
namespace {

struct TokenizeOptions {
  cli::CommonOptions common;
  std::string model, prompt, file;
  bool parse_special = false, add_special_tokens = false, ids = false;
};

std::string text_of(const TokenizeOptions& options) {
  if (options.file.empty()) return options.prompt;
  if (options.file == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  const auto file = MappedFile::open(options.file);
  return {reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()};
}

// In quotation marks, so that blanks are seen; a line end as \n, a tab as \t.
std::string quoted(const std::string& bytes) {
  std::string text(1, '"');
  for (const char c : bytes) text += c == '\n' ? R"(\n)" : c == '\t' ? R"(\t)" : std::string(1, c);
  return printable(text + '"');
}

void print_json(const data::Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  nlohmann::ordered_json tokens = nlohmann::ordered_json::array();
  for (const int32_t id : ids) tokens.push_back(tokenizer.token(id));
  const nlohmann::ordered_json body{{"count", ids.size()}, {"ids", ids}, {"tokens", std::move(tokens)}};
  fmt::print("{}\n", body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

void run(const TokenizeOptions& options) {
  const auto tokenizer = text::load_tokenizer(nn::resolve_model_path(options.model));
  const std::vector<int32_t> ids = tokenizer->encode(
      text_of(options), options.parse_special ? data::SpecialTokens::recognise : data::SpecialTokens::as_text,
      options.add_special_tokens ? data::SequenceTokens::add : data::SequenceTokens::none);
  if (options.common.json) return print_json(*tokenizer, ids);
  for (const int32_t id : ids) {
    if (options.ids) {
      fmt::print("{}\n", id);
    } else {
      fmt::print("{:>8}  {}\n", id, quoted(tokenizer->bytes(id)));
    }
  }
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command = app.add_subcommand("tokenize", "a text as the model's tokens, each with its id");
  cli::add_common_options(*command, options->common);
  command->add_option("model", options->model, "a .gguf file, a directory with a tokenizer, or ORG/NAME")
      ->required()
      ->type_name("MODEL");
  CLI::Option* prompt = command->add_option("--prompt,-p", options->prompt, "the text");
  command->add_option("--file,-f", options->file, "or a file that has it; '-' reads standard input")->excludes(prompt);
  command->add_flag("--parse_special", options->parse_special,
                    "control tokens that are written in the text, such as <|im_start|>, are these tokens");
  command->add_flag("--add_special_tokens", options->add_special_tokens,
                    "with what the tokenizer puts around a text, such as the beginning of a sequence");
  command->add_flag("--ids", options->ids, "ids alone, one to a line");
  command->callback([options, prompt] {
    if (options->file.empty() && prompt->count() == 0) throw ConfigError("prompt", "give --prompt TEXT or --file FILE");
    run(*options);
  });
}

}  // namespace lathe::programs
