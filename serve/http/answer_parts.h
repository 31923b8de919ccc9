// What an answer is made of.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace lathe::http {

// What became certain of a call: its id and name on its first delta, then more of its arguments' text.
struct ToolCallDelta {
  size_t index = 0;
  std::string id, name;
  std::string arguments;
};

// What became certain with one more piece of it, in this order.
struct AnswerParts {
  std::string reasoning, content;
  std::vector<ToolCallDelta> calls;
};

// Calls come one after another.
inline void append(AnswerParts& all, const AnswerParts& more) {
  all.reasoning += more.reasoning;
  all.content += more.content;
  for (const ToolCallDelta& call : more.calls) {
    if (call.index == all.calls.size()) {
      all.calls.push_back(call);
    } else {
      all.calls.back().arguments += call.arguments;
    }
  }
}

}  // namespace lathe::http
