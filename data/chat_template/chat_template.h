// Chat templates: from messages to the text that a model was trained on, byte for byte what transformers renders.
//
// Templates come with model files and are not to be trusted: this is an interpreter of Jinja's expressions, loops,
// macros and filters alone, with limits on steps, time, nesting and size. Each byte of a result is known to be the
// template's own or inserted from a message, so that only the template's text can become control tokens.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace lathe::data {

struct TemplateLimits {
  uint64_t steps = 10'000'000;     // nodes evaluated, with a surcharge for large strings and lists
  size_t output_bytes = 64 << 20;  // of the result, and of any one string on the way
  double seconds = 10;
  int nesting = 100;  // of expressions and blocks, and of calls
};

struct ChatOptions {
  bool add_generation_prompt = false;
  const nlohmann::ordered_json* tools = nullptr;      // JSON schemas; none: the variable is None
  const nlohmann::ordered_json* variables = nullptr;  // an object: more variables, such as enable_thinking
  std::map<std::string, std::string> special_tokens;  // bos_token, eos_token, …: trusted as the template's own text
  std::optional<int64_t> now_seconds;  // for strftime_now; since 1970, as local time shows it. Default: now
  TemplateLimits limits;
};

// bos_token, eos_token, pad_token and unk_token, as far as the tokenizer has them.
std::map<std::string, std::string> special_token_variables(const Tokenizer& tokenizer);

struct RenderedChat {
  std::string text;
  std::vector<TextRange> control;    // the template's own text; the rest came from messages, tools or variables
  std::vector<TextRange> assistant;  // what {% generation %} blocks wrote
};

class ChatTemplate {
 public:
  // Throws ConfigError with the line for what is no Jinja, or no part of it that chat templates use.
  static std::shared_ptr<const ChatTemplate> compile(std::string_view source);
  // The templates that came with a tokenizer; null where there is none. A chat with tools is rendered by the one named
  // "tool_use" where there is one, all others by "default".
  static std::shared_ptr<const ChatTemplate> of(const Tokenizer& tokenizer);
  ~ChatTemplate();

  // `messages`: an array of {"role", "content", …}. Throws ConfigError where the template raises one, does what
  // Jinja refuses, or passes a limit.
  RenderedChat render(const nlohmann::ordered_json& messages, const ChatOptions& options) const;
  // The same, but where the template goes through a content's parts and would leave a text out, which transformers
  // lets it do, each text is one part: {"type": "text", "text": …}. As TRL and vLLM do.
  RenderedChat render_texts(const nlohmann::ordered_json& messages, const ChatOptions& options) const;

  // Whether it has {% generation %} blocks, so that assistant masks can be had (all of the templates, where there are
  // several).
  bool marks_assistant() const;

  struct Program;
  explicit ChatTemplate(std::map<std::string, Program> programs);

 private:
  const Program& program_for(const ChatOptions& options) const;
  std::map<std::string, Program> programs_;  // by name
};

}  // namespace lathe::data
