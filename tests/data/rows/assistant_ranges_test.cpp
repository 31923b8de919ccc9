#include "data/rows/assistant_ranges.h"
#include "core/json_value.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "data/chat_template/chat_template.h"
#include "tests/data/golden_cases.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

std::shared_ptr<const ChatTemplate> template_of(const char* name) {
  return ChatTemplate::compile(golden::read(golden::folder / "template/families" / name));
}

ordered_json conversation(std::initializer_list<std::pair<const char*, const char*>> turns) {
  ordered_json messages = ordered_json::array();
  for (const auto& [role, content] : turns) messages.push_back({{"role", role}, {"content", content}});
  return messages;
}

std::vector<std::string> answers(const ChatTemplate& chat_template, const ordered_json& messages) {
  const std::string whole = chat_template.render(messages, {}).text;
  const auto render = [&](size_t count, bool add_generation_prompt) {
    ordered_json first = ordered_json::array();
    for (size_t i = 0; i < count; ++i) first.push_back(messages[i]);
    ChatOptions options;
    options.add_generation_prompt = add_generation_prompt;
    return chat_template.render(first, options).text;
  };
  std::vector<std::string> texts;
  for (const TextRange& range : assistant_ranges_by_prefixes(messages, whole, render))
    texts.push_back(whole.substr(range.begin, range.end - range.begin));
  return texts;
}

std::string refusal(const ChatTemplate& chat_template, const ordered_json& messages) {
  try {
    answers(chat_template, messages);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

const ordered_json two_turns = conversation(
    {{"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Hello é"}, {"user", "More?"}, {"assistant", "No."}});

// TRL's copy of the template marks the same, and the line break before the answer, which its prompt ends with.
TEST(AssistantRanges, AreWhatTrlMarksInTheTemplateThatItTrainsWith) {
  const auto plain = template_of("qwen2_5.jinja"), marked = template_of("qwen2_5_training.jinja");
  const RenderedChat expected = marked->render(two_turns, {});
  ASSERT_EQ(plain->render(two_turns, {}).text, expected.text);
  std::vector<std::string> marks;
  for (const TextRange& range : expected.assistant)
    marks.push_back(expected.text.substr(range.begin + 1, range.end - range.begin - 1));
  EXPECT_EQ(answers(*plain, two_turns), marks);
  EXPECT_EQ(marks, (std::vector<std::string>{"Hello é<|im_end|>\n", "No.<|im_end|>\n"}));
}

TEST(AssistantRanges, AnswersThatQuoteThePromptAreWhole) {
  const auto quoting = conversation({{"user", "a"}, {"assistant", "<|im_start|>assistant\na"}, {"user", "assistant"}});
  EXPECT_EQ(answers(*template_of("qwen2_5.jinja"), quoting),
            (std::vector<std::string>{"<|im_start|>assistant\na<|im_end|>\n"}));
  EXPECT_EQ(answers(*template_of("qwen2_5.jinja"), conversation({{"user", "a"}})), std::vector<std::string>());
}

TEST(AssistantRanges, ATemplateThatRewritesWhatIsPastIsRefusedWithTheMessage) {
  const std::string past = refusal(*template_of("qwen3.jinja"), two_turns);  // drops empty thoughts of earlier turns
  EXPECT_NE(past.find("up to message 3 otherwise when more of them follow"), std::string::npos) << past;
  const auto no_prompt = ChatTemplate::compile(
      "{% for m in messages %}{{ m.role }}: {{ m.content }};{% endfor %}{% if add_generation_prompt %}?{% endif %}");
  EXPECT_NE(refusal(*no_prompt, two_turns).find("message 3 does not begin with"), std::string::npos);
  const auto needs_an_answer = ChatTemplate::compile(
      "{% if messages[-1].role != 'assistant' %}{{ raise_exception('unanswered') }}{% endif %}{{ messages[0].content }}");
  EXPECT_NE(refusal(*needs_an_answer, two_turns).find("unanswered"), std::string::npos);
}

}  // namespace
}  // namespace lathe::data
