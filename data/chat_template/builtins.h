// What templates may call: filters ("x | trim"), tests ("x is string"), methods ("x.split()").
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "data/chat_template/value.h"

namespace lathe::data::jinja {

// Evaluated arguments, with the checks that calls need. Keyword arguments that nobody asks for are an error.
class CallArguments {
 public:
  CallArguments(std::string function, std::vector<Value> positional, std::vector<std::pair<std::string, Value>> named,
                Budget& budget)
      : function_(std::move(function)), positional_(std::move(positional)), named_(std::move(named)), budget_(budget) {}

  // The argument at `index` or of that name; null where it is absent.
  const Value* find(size_t index, const char* name) const;
  const Value& need(size_t index, const char* name) const;
  Value value_or(size_t index, const char* name, const Value& otherwise) const;
  int64_t integer_or(size_t index, const char* name, int64_t otherwise) const;
  bool flag_or(size_t index, const char* name, bool otherwise) const;
  const Text* text_or_null(size_t index, const char* name) const;  // null where absent or None
  Text need_text(size_t index, const char* name) const;

  std::vector<Value> after(size_t index) const;  // positional ones from `index` on
  const std::vector<Value>& positional() const { return positional_; }
  const std::vector<std::pair<std::string, Value>>& named() const { return named_; }
  const std::string& function() const { return function_; }

 private:
  std::string function_;
  std::vector<Value> positional_;
  std::vector<std::pair<std::string, Value>> named_;
  Budget& budget_;
};

Value apply_filter(const std::string& name, const Value& value, const CallArguments& arguments, Budget& budget);
bool apply_test(const std::string& name, const Value& value, const CallArguments& arguments, Budget& budget);
Value call_text_method(const Text& text, const CallArguments& arguments, Budget& budget);
bool has_method(const Value& receiver, const std::string& name);
Value call_method(const Value& receiver, const CallArguments& arguments, Budget& budget);

// x.name as Jinja reads it in a template, and where a filter takes attribute="a.b" or an index.
Value attribute_of(const Value& value, const std::string& name, Budget& budget);
Value item_of(const Value& value, const Value& key, Budget& budget);
Value attribute_path(const Value& value, const Value& path, Budget& budget);

// "%s: %d" % values
Text percent_format(const Text& format, const Value& values, Budget& budget);
// text.replace(from, to), at most `count` times where count >= 0; each byte keeps its origin (text.h).
Text replaced(const Text& text, const Text& from, const Text& to, int64_t count, Budget& budget);
// Filled up with `fill`, one character, to `width` characters.
enum class Alignment { left, center, right };
Text padded(const Text& text, int64_t width, Alignment alignment, const std::string& fill, Budget& budget);
// Letters of single characters, as far as Unicode's simple mappings go.
std::string upper_case(std::string_view text);
std::string lower_case(std::string_view text);

}  // namespace lathe::data::jinja
