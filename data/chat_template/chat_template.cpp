#include "data/chat_template/chat_template.h"

#include <algorithm>

#include "core/error.h"
#include "core/json_value.h"
#include "data/chat_template/interpreter.h"
#include "data/chat_template/parser.h"

namespace lathe::data {

struct ChatTemplate::Program {
  jinja::Body body;
  bool marks_assistant = false;
  bool reads_parts = false;  // of a message's content: a content that is a text it leaves out
};

namespace {

bool has_generation(const jinja::Body& body) {
  for (const jinja::Statement& statement : body) {
    if (statement.kind == jinja::StatementKind::generation) return true;
    for (const jinja::Body& inner : statement.bodies) {
      if (has_generation(inner)) return true;
    }
  }
  return false;
}

std::vector<TextRange> gaps_between(const std::vector<TextRange>& ranges, size_t size) {
  std::vector<TextRange> gaps;
  size_t at = 0;
  for (const TextRange& range : ranges) {
    if (range.begin > at) gaps.push_back({at, range.begin});
    at = range.end;
  }
  if (size > at) gaps.push_back({at, size});
  return gaps;
}

}  // namespace

std::map<std::string, std::string> special_token_variables(const Tokenizer& tokenizer) {
  std::map<std::string, std::string> variables;
  const auto add = [&](const char* name, std::optional<int32_t> id) {
    if (id) variables[name] = tokenizer.token(*id);
  };
  add("bos_token", tokenizer.bos_id());
  add("eos_token", tokenizer.eos_id());
  add("pad_token", tokenizer.padding_id());
  add("unk_token", tokenizer.unknown_id());
  return variables;
}

ChatTemplate::ChatTemplate(std::map<std::string, Program> programs) : programs_(std::move(programs)) {}
ChatTemplate::~ChatTemplate() = default;

namespace {

using nlohmann::ordered_json;

jinja::Text run(const jinja::Body& body, const ordered_json& messages, const ChatOptions& options) {
  jinja::Budget budget(options.limits);
  jinja::Scope variables;
  variables.set("tools", jinja::None{});
  variables.set("documents", jinja::None{});
  if (options.variables) {
    if (!options.variables->is_object()) throw ConfigError("chat template", "its variables must be an object");
    for (const auto& [name, value] : options.variables->items()) variables.set(name, jinja::value_of(value, budget));
  }
  for (const auto& [name, token] : options.special_tokens) variables.set(name, jinja::Text::own(token));
  variables.set("messages", jinja::messages_value(messages, budget));
  if (options.tools && !options.tools->is_null()) variables.set("tools", jinja::value_of(*options.tools, budget));
  variables.set("add_generation_prompt", options.add_generation_prompt);
  return jinja::Interpreter(options, budget).run(body, variables);
}

ordered_json as_parts(ordered_json messages) {
  for (ordered_json& message : messages)
    if (const auto content = message.find("content"); content != message.end() && content->is_string())
      *content = ordered_json::array({{{"type", "text"}, {"text", *content}}});
  return messages;
}

// By what becomes of a message, which takes a template that means no harm some hundred steps.
bool reads_parts(const jinja::Body& body) {
  const std::string text = "a text to be found again";
  ChatOptions options;
  options.limits.steps = 100'000;
  options.limits.output_bytes = 1 << 20;
  options.limits.seconds = 0.5;
  const auto keeps = [&](const ordered_json& messages) {
    try {
      return run(body, messages, options).bytes.find(text) != std::string::npos;
    } catch (const Error&) {
      return false;  // one that refuses this chat is to say so of the user's
    }
  };
  const ordered_json chat = ordered_json::array({{{"role", "user"}, {"content", text}}});
  return !keeps(chat) && keeps(as_parts(chat));
}

ChatTemplate::Program program_of(std::string_view source) {
  if (source.size() > (1 << 20)) throw ConfigError("chat template", "it has more than 1 MiB of source");
  ChatTemplate::Program program;
  program.body = jinja::parse_template(source, TemplateLimits{}.nesting);
  program.marks_assistant = has_generation(program.body);
  program.reads_parts = reads_parts(program.body);
  return program;
}

}  // namespace

std::shared_ptr<const ChatTemplate> ChatTemplate::compile(std::string_view source) {
  std::map<std::string, Program> programs;
  programs.emplace("default", program_of(source));
  return std::make_shared<const ChatTemplate>(std::move(programs));
}

std::shared_ptr<const ChatTemplate> ChatTemplate::of(const Tokenizer& tokenizer) {
  std::map<std::string, Program> programs;
  for (const auto& [name, source] : tokenizer.chat_templates()) {
    if (name == "default" || name == "tool_use") programs.emplace(name, program_of(source));
  }
  return programs.empty() ? nullptr : std::make_shared<const ChatTemplate>(std::move(programs));
}

bool ChatTemplate::marks_assistant() const {
  return std::all_of(programs_.begin(), programs_.end(),
                     [](const auto& entry) { return entry.second.marks_assistant; });
}

const ChatTemplate::Program& ChatTemplate::program_for(const ChatOptions& options) const {
  const bool with_tools = options.tools && !options.tools->is_null();
  if (const auto found = programs_.find("tool_use"); with_tools && found != programs_.end()) return found->second;
  if (const auto found = programs_.find("default"); found != programs_.end()) return found->second;
  throw ConfigError("chat template", "the model has one for chats with tools alone (tool_use) and no default one");
}

RenderedChat ChatTemplate::render(const ordered_json& messages, const ChatOptions& options) const {
  jinja::Text text = run(program_for(options).body, messages, options);
  RenderedChat chat;
  chat.control = gaps_between(text.inserted, text.bytes.size());
  chat.assistant = std::move(text.generated);
  chat.text = std::move(text.bytes);
  return chat;
}

RenderedChat ChatTemplate::render_texts(const ordered_json& messages, const ChatOptions& options) const {
  return program_for(options).reads_parts ? render(as_parts(messages), options) : render(messages, options);
}

}  // namespace lathe::data
