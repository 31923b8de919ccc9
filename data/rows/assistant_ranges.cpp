#include "data/rows/assistant_ranges.h"

#include "core/error.h"
#include "core/json_value.h"

namespace lathe::data {

std::vector<TextRange> assistant_ranges_by_prefixes(const nlohmann::ordered_json& messages, std::string_view whole,
                                                    const PrefixRenderer& render) {
  std::vector<TextRange> ranges;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].at("role") != "assistant") continue;
    const auto refuse = [&](const std::string& reason) {
      throw Error("cannot be trained with assistant_only_loss: the chat template has no {% generation %} blocks, and " +
                  reason);
    };
    const std::string number = std::to_string(i + 1);
    std::string asked, answered;
    try {
      asked = render(i, true);
      answered = render(i + 1, false);
    } catch (const Error& error) {
      refuse("it does not write the messages up to message " + number + " alone: " + error.what());
    }
    if (!whole.starts_with(answered))
      refuse("it writes the messages up to message " + number + " otherwise when more of them follow");
    if (answered.size() <= asked.size() || !answered.starts_with(asked))
      refuse("message " + number + " does not begin with what the template asks for an answer with");
    ranges.push_back({asked.size(), answered.size()});
  }
  return ranges;
}

}  // namespace lathe::data
