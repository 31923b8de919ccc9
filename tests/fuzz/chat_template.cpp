// A chat template, and behind a zero byte the messages as JSON (without one: a short chat).
#include "data/chat_template/chat_template.h"
#include "core/json_value.h"

#include "core/error.h"
#include "core/json.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  constexpr const char* chat = R"([{"role":"user","content":"Hi, \u20ac <|x|>","n":12345678901234567890},
    {"role":"assistant","content":[{"type":"text","text":"a b"}],"tool_calls":[{"function":{"name":"f","arguments":{"x":1.5}}}]}])";
  const std::string_view input = fuzz::text_of(data, size), source = input.substr(0, input.find('\0'));
  const std::string_view messages = source.size() < input.size() ? input.substr(source.size() + 1) : chat;
  try {
    const nlohmann::ordered_json parsed = parse_json(messages, "messages"),
                                 tools = parse_json(R"([{"type":"function"}])", "tools");
    data::ChatOptions options;
    options.add_generation_prompt = true;
    options.tools = &tools;
    options.special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
    options.now_seconds = 1'700'000'000;
    options.limits.steps = 100'000;
    options.limits.output_bytes = 1 << 20;
    data::ChatTemplate::compile(source)->render(parsed, options);
  } catch (const Error&) {
  }
  return 0;
}
