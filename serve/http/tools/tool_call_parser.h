// Calls of functions in an answer that comes in pieces.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "serve/http/answer_parts.h"
#include "serve/http/tools/call_reader.h"
#include "serve/http/tools/named_call_reader.h"
#include "serve/http/tools/tool_format.h"

namespace lathe::http {

struct ToolAnswer {
  std::string content;
  std::vector<ToolCallDelta> calls;
};

struct ToolCallSettings {
  ToolFormat format = ToolFormat::hermes;
  std::vector<std::string> names;  // of the functions; what calls any other stays text
  std::vector<TextMembers> texts;  // of their arguments
  bool parallel = true;            // false: nothing after the first call counts
};

// Deltas, joined, do not depend on how the text was cut into pieces. What is no call of a known function, with an
// object for arguments, is content, with its marks. Blanks between content and calls belong to neither.
class ToolCallParser {
 public:
  explicit ToolCallParser(ToolCallSettings settings);
  ToolAnswer push(std::string_view text);
  ToolAnswer finish();  // when no more text comes
  bool called() const { return calls_ > 0; }

 private:
  enum class State {
    content,   // what the model says
    expected,  // after a mark, or a call: the next call, or the end of calls
    after,     // after a call that stands by its name: what closes it, the next one, or the end of calls
    call,      // within a call's object
    over,      // after the only call that counts
  };
  // Each takes what it can of the text, and answers how many bytes; the rest waits for more.
  size_t read(std::string_view text, ToolAnswer& answer);
  size_t read_content(std::string_view text, ToolAnswer& answer);
  size_t read_expected(std::string_view text, ToolAnswer& answer);
  size_t read_after_call(std::string_view text, ToolAnswer& answer);
  size_t begin_call(std::string_view text, size_t first);
  size_t read_call(std::string_view text, ToolAnswer& answer);
  void show(std::string_view content, ToolAnswer& answer);
  void give_up(ToolAnswer& answer);  // what was a call so far is content
  void take(CallReader::Progress& progress, ToolAnswer& answer);

  const ToolCallSettings settings_;
  const ToolMarks& marks_;
  const engine::CallForm& form_;
  const bool in_json_;  // calls are JSON objects
  State state_ = State::content;
  bool begun_ = false;       // something other than blanks has come
  bool last_ = false;        // no more text comes
  std::string held_;         // not read yet
  std::string raw_;          // since the last mark or call, as long as it may still turn out to be content
  bool told_ = false;        // a call has been told of since the last mark
  bool after_call_ = false;  // nothing but blanks has come since
  std::unique_ptr<CallReader> reader_;
  bool named_ = false;  // the call that is being read has been told of
  size_t calls_ = 0;
};

}  // namespace lathe::http
