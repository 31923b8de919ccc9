// Calls of functions found in answers, however the text was cut into pieces.
#include "serve/http/tools/tool_call_parser.h"
#include "core/json_value.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "data/chat_template/chat_template.h"
#include "tests/support/source_dir.h"

namespace lathe::http {
namespace {

struct Call {
  std::string name, arguments;
  bool operator==(const Call&) const = default;
};
struct Found {
  std::string content;
  std::vector<Call> calls;
  bool operator==(const Found&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Found& found) {
  out << "'" << found.content << "'";
  for (const Call& call : found.calls) out << " " << call.name << "(" << call.arguments << ")";
  return out;
}

// In pieces of so many bytes, with what is promised of deltas.
Found parsed(const ToolCallSettings& settings, const std::string& text, size_t piece) {
  ToolCallParser parser(settings);
  Found found;
  const auto take = [&](const ToolAnswer& answer) {
    found.content += answer.content;
    for (const ToolCallDelta& delta : answer.calls) {
      if (delta.index == found.calls.size()) {
        EXPECT_FALSE(delta.id.empty() || delta.name.empty()) << "the first delta names the call";
        found.calls.push_back({delta.name, {}});
      } else {
        EXPECT_EQ(delta.index + 1, found.calls.size()) << "calls come one after another";
        EXPECT_TRUE(delta.id.empty() && delta.name.empty());
      }
      if (delta.index < found.calls.size()) found.calls[delta.index].arguments += delta.arguments;
    }
  };
  for (size_t i = 0; i < text.size(); i += piece) take(parser.push(std::string_view(text).substr(i, piece)));
  take(parser.finish());
  EXPECT_EQ(parser.called(), !found.calls.empty());
  return found;
}

void expect_found(const ToolCallSettings& settings, const std::string& text, const Found& expected) {
  for (const size_t piece : {1, 2, 3, 7, 1000}) EXPECT_EQ(parsed(settings, text, piece), expected) << text << piece;
}

ToolCallSettings with(ToolFormat format) { return {.format = format, .names = {"f", "weather"}}; }

TEST(ToolCallParser, HermesCallsStandBetweenTheirMarks) {
  const ToolCallSettings hermes = with(ToolFormat::hermes);
  expect_found(hermes, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, \"}\"]}}\n</tool_call>",
               {"", {{"f", "{\"a\": [1, \"}\"]}"}}});
  expect_found(hermes, "Let me see.\n<tool_call>{\"name\":\"weather\",\"arguments\":{}}</tool_call>\n",
               {"Let me see.", {{"weather", "{}"}}});
  expect_found(hermes,
               "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n"
               "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"b\": \"\\\"\\\\\"}}\n</tool_call>",
               {"", {{"f", "{\"a\": 1}"}, {"weather", "{\"b\": \"\\\"\\\\\"}"}}});
  expect_found(hermes,
               "<tool_call>[{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"f\", \"arguments\": {}}]</tool_call>",
               {"", {{"f", "{}"}, {"f", "{}"}}});
  expect_found(hermes, "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call> done",
               {" done", {{"f", "{\"a\": 1}"}}});
  expect_found(hermes, "<tool_call>{\"name\": \"f\"}</tool_call>", {"", {{"f", "{}"}}});
  expect_found(hermes, "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>",
               {"", {{"f", "{\"a\": 1}"}}});
}

// What a template of Qwen 3's kind writes for a message with calls is what is read from an answer.
TEST(ToolCallParser, ReadsWhatTheTemplateWrites) {
  std::ifstream file(std::filesystem::path(source_dir) / "tests/golden/template/think.jinja");
  const std::string source{std::istreambuf_iterator<char>(file), {}};
  const nlohmann::ordered_json arguments{{"city", "Köln \"am Rhein\""}, {"days", {1, 2}}};
  const auto call = [&](const char* name) {
    return nlohmann::ordered_json{{"type", "function"}, {"function", {{"name", name}, {"arguments", arguments}}}};
  };
  const nlohmann::ordered_json messages{
      {{"role", "user"}, {"content", "Hi"}},
      {{"role", "assistant"}, {"content", "Let me see."}, {"tool_calls", {call("f"), call("weather")}}}};
  std::string text = data::ChatTemplate::compile(source)->render(messages, {}).text;
  const std::string turn = "<|im_start|>assistant\n";
  text = text.substr(text.find(turn) + turn.size());
  text = text.substr(0, text.find("<|im_end|>"));
  if (const size_t thought = text.find("</think>"); thought != std::string::npos) text = text.substr(thought + 10);
  const Found found = parsed(with(ToolFormat::hermes), text, 3);
  EXPECT_EQ(found.content, "Let me see.");
  ASSERT_EQ(found.calls.size(), 2u) << text;
  EXPECT_EQ(found.calls[0].name, "f");
  EXPECT_EQ(found.calls[1].name, "weather");
  for (const Call& one : found.calls) EXPECT_EQ(nlohmann::ordered_json::parse(one.arguments), arguments);
}

TEST(ToolCallParser, WhatIsNoCallStaysText) {
  const ToolCallSettings hermes = with(ToolFormat::hermes);
  for (const char* text :
       {"", "plain text \n", "a < b <tool", "<tool_call>", "<tool_call> nothing </tool_call>",
        "<tool_call></tool_call>", "<tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": 5, \"arguments\": {}}</tool_call>", "<tool_call>{\"name\": \"f\", \"arguments\": [1]}",
        "<tool_call>{\"name\": \"f\", \"arguments\": \"x\"}", "<tool_call>{name: f}</tool_call>", "x <tool_call>{\"na",
        "<tool_call>{}</tool_call>", "<tool_call>{\"name\": \"f\", \"name\": \"f\"}"})
    expect_found(hermes, text, {text, {}});
  expect_found(hermes, "{\"name\": \"f\", \"arguments\": {}}", {"{\"name\": \"f\", \"arguments\": {}}", {}});
}

TEST(ToolCallParser, ACallThatIsCutKeepsWhatHasCome) {
  expect_found(with(ToolFormat::hermes), "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, ",
               {"", {{"f", "{\"a\": [1, "}}});
}

TEST(ToolCallParser, LlamasAnswerIsTheCall) {
  const ToolCallSettings llama = with(ToolFormat::llama);
  expect_found(llama, "{\"name\": \"f\", \"parameters\": {\"a\": 1}}", {"", {{"f", "{\"a\": 1}"}}});
  expect_found(llama,
               "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"f\", \"parameters\": {\"b\": 2}}",
               {"", {{"f", "{}"}, {"f", "{\"b\": 2}"}}});
  expect_found(llama, "{\"answer\": 5}", {"{\"answer\": 5}", {}});
  expect_found(llama, "It is {\"name\": \"f\", \"parameters\": {}}",
               {"It is {\"name\": \"f\", \"parameters\": {}}", {}});
}

TEST(ToolCallParser, MistralsCallsAreAList) {
  const ToolCallSettings mistral = with(ToolFormat::mistral);
  const std::string calls = " [{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"f\", \"arguments\": {}}]";
  expect_found(mistral, "[TOOL_CALLS]" + calls, {"", {{"f", "{\"a\": 1}"}, {"f", "{}"}}});
  EXPECT_EQ(new_call_id(ToolFormat::mistral).size(), 9u);
}

TEST(ToolCallParser, MistralsNamedCallsEachHaveTheirMark) {
  const ToolCallSettings mistral = with(ToolFormat::mistral_named);
  expect_found(mistral, "Well.[TOOL_CALLS]f[ARGS]{\"a\": {\"b\": \"}\"}}[TOOL_CALLS]weather[ARGS]{}",
               {"Well.", {{"f", "{\"a\": {\"b\": \"}\"}}"}, {"weather", "{}"}}});
  expect_found(mistral, "[TOOL_CALLS] f [ARGS] {} then", {" then", {{"f", "{}"}}});
  for (const char* text : {"[TOOL_CALLS]", "[TOOL_CALLS]g[ARGS]{}", "[TOOL_CALLS]f[ARGS][]", "[TOOL_CALLS]f{}",
                           "[TOOL_CALLS]f[ARG]{}", "[TOOL_CALLS][{\"name\": 1}]"})
    expect_found(mistral, text, {text, {}});
}

TEST(ToolCallParser, AnIdThatMistralWritesIsKept) {
  ToolCallParser parser(with(ToolFormat::mistral_named));
  const ToolAnswer answer = parser.push("[TOOL_CALLS]f[CALL_ID]a1B2c3D4e[ARGS]{\"a\": 1}");
  ASSERT_EQ(answer.calls.size(), 1u);
  EXPECT_EQ(answer.calls[0].id, "a1B2c3D4e");
  EXPECT_EQ(answer.calls[0].arguments, "{\"a\": 1}");
}

TEST(ToolCallParser, LlamasFunctionsStandBetweenTheirTags) {
  const ToolCallSettings llama = with(ToolFormat::llama_function);
  expect_found(llama, "<function=f>{\"a\": [1]}</function>", {"", {{"f", "{\"a\": [1]}"}}});
  expect_found(llama, "So: <function=weather>{}</function> done", {"So: done", {{"weather", "{}"}}});
  for (const char* text : {"<function=g>{}</function>", "<function=f>x</function>", "<function f>{}"})
    expect_found(llama, text, {text, {}});
}

TEST(ToolCallParser, MembersOneByOneBecomeAnObject) {
  ToolCallSettings coder = with(ToolFormat::qwen_coder);
  coder.texts = {{"f", {"code", "id"}}};
  expect_found(coder,
               "Let me see.\n<tool_call>\n<function=f>\n<parameter=code>\nif a < b:\n  \"x\" </para\n\n</parameter>\n"
               "<parameter=id>\n7\n</parameter>\n<parameter=n>\n7\n</parameter>\n<parameter=list>\n[1, \"a\"]\n"
               "</parameter>\n<parameter=on>\nTrue\n</parameter>\n<parameter=free>\nsome words\n</parameter>\n"
               "</function>\n</tool_call>\n<tool_call>\n<function=weather>\n</function>\n</tool_call>",
               {"Let me see.",
                {{"f",
                  "{\"code\": \"if a < b:\\n  \\\"x\\\" </para\\n\", \"id\": \"7\", \"n\": 7, \"list\": [1, \"a\"], "
                  "\"on\": true, \"free\": \"some words\"}"},
                 {"weather", "{}"}}});
  expect_found(coder, "<tool_call><function=f><parameter=n>1</parameter></function></tool_call> end",
               {" end", {{"f", "{\"n\": 1}"}}});
  expect_found(coder, "<tool_call>\n<function=f>\n<parameter=n>\n1\n</parameter>\n<parameter=code>\nabc",
               {"", {{"f", "{\"n\": 1"}}});
  for (const char* text : {"<tool_call>\n<function=g>\n</function>", "<tool_call>\n<funktion=f>",
                           "<tool_call>\n{\"name\": \"f\"}", "<tool_call>\n<function=f"})
    expect_found(coder, text, {text, {}});

  ToolCallSettings glm = with(ToolFormat::glm);
  glm.texts = {{"f", {"city"}}};
  expect_found(glm,
               "<tool_call>f\n<arg_key>city</arg_key>\n<arg_value> 1 </arg_value>\n<arg_key>days</arg_key>\n"
               "<arg_value>2</arg_value>\n</tool_call>\n<tool_call>weather\n</tool_call>",
               {"", {{"f", "{\"city\": \" 1 \", \"days\": 2}"}, {"weather", "{}"}}});
  expect_found(glm, "<tool_call>g\n</tool_call>", {"<tool_call>g\n</tool_call>", {}});
}

TEST(ToolCallParser, DeepSeeksCallsStandInOneSection) {
  const std::string begin = "<｜tool▁calls▁begin｜>", end = "<｜tool▁calls▁end｜>", call = "<｜tool▁call▁begin｜>",
                    sep = "<｜tool▁sep｜>", call_end = "<｜tool▁call▁end｜>";
  const std::string first = call + "function" + sep + "f\n```json\n{\"a\": 1}\n```" + call_end,
                    second = call + "function" + sep + "weather\n```json\n{}\n```" + call_end;
  const ToolCallSettings v3 = with(ToolFormat::deepseek);
  expect_found(v3, "Yes." + begin + first + "\n" + second + end, {"Yes.", {{"f", "{\"a\": 1}"}, {"weather", "{}"}}});
  expect_found(v3, begin + first, {"", {{"f", "{\"a\": 1}"}}});
  expect_found(v3, begin + call + "function" + sep + "g\n```json\n{}",
               {begin + call + "function" + sep + "g\n```json\n{}", {}});
  const ToolCallSettings v31 = with(ToolFormat::deepseek_v31);
  expect_found(v31, begin + call + "f" + sep + "{\"a\": 1}" + call_end + call + "f" + sep + "{}" + call_end + end,
               {"", {{"f", "{\"a\": 1}"}, {"f", "{}"}}});
}

// What the families' own templates write for a message with calls is what is read from an answer.
TEST(ToolCallParser, ReadsWhatTheFamiliesTemplatesWrite) {
  struct Written {
    const char* file;
    ToolFormat format;
    const char *turn, *end;
    bool as_text = false;
  };
  const nlohmann::ordered_json arguments{{"city", "Köln <\"am Rhein\">"}, {"days", {1, 2}}, {"n", 5}};
  for (const Written& one :
       {Written{"qwen3_5_think", ToolFormat::qwen_coder, "<|im_start|>assistant\n", "<|im_end|>"},
        Written{"qwen3_8", ToolFormat::qwen_coder, "<|im_start|>assistant\n", "<|im_end|>"},
        Written{"glm4moe", ToolFormat::glm, "<|assistant|>", "<|observation|>"},
        Written{"qwen2_5", ToolFormat::hermes, "<|im_start|>assistant\n", "<|im_end|>"},
        Written{"deepseekv3", ToolFormat::deepseek, "<｜Assistant｜>", "<｜end▁of▁sentence｜>", true}}) {
    const auto path =
        std::filesystem::path(source_dir) / "tests/golden/template/families" / (std::string(one.file) + ".jinja");
    std::ifstream file(path);
    const std::string source{std::istreambuf_iterator<char>(file), {}};
    ASSERT_FALSE(source.empty()) << path;
    const auto call = [&](const char* name) {
      nlohmann::ordered_json written = arguments;
      if (one.as_text) written = arguments.dump();
      return nlohmann::ordered_json{{"type", "function"}, {"function", {{"name", name}, {"arguments", written}}}};
    };
    const nlohmann::ordered_json messages{
        {{"role", "user"}, {"content", "Hi"}},
        {{"role", "assistant"}, {"content", "Let me see."}, {"tool_calls", {call("f"), call("weather")}}},
        {{"role", "tool"}, {"content", "1"}}};
    std::string text = data::ChatTemplate::compile(source)->render(messages, {}).text;
    text = text.substr(text.find(one.turn) + std::string(one.turn).size());
    text = text.substr(0, text.find(one.end));
    if (const size_t thought = text.find("</think>"); thought != std::string::npos)
      text = text.substr(text.find_first_not_of('\n', thought + 8));
    ToolCallSettings settings = with(one.format);
    settings.texts = {{"f", {"city"}}, {"weather", {"city"}}};
    const Found found = parsed(settings, text, 3);
    EXPECT_EQ(found.content, "Let me see.") << one.file << text;
    ASSERT_EQ(found.calls.size(), 2u) << one.file << text;
    EXPECT_EQ(found.calls[0].name, "f");
    EXPECT_EQ(found.calls[1].name, "weather");
    for (const Call& each : found.calls)
      EXPECT_EQ(nlohmann::ordered_json::parse(each.arguments), arguments) << one.file;
  }
}

TEST(ToolCallParser, WithoutParallelCallsTheFirstOneCounts) {
  ToolCallSettings settings = with(ToolFormat::mistral);
  settings.parallel = false;
  expect_found(settings,
               "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"weather\", \"arguments\": {}}]",
               {"", {{"f", "{}"}}});
}

}  // namespace
}  // namespace lathe::http
