// One call as a name with its arguments behind it: a JSON object, or members one by one.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "serve/engine/grammar/grammar.h"
#include "serve/http/tools/call_reader.h"
#include "serve/http/tools/json_extent.h"

namespace lathe::http {

// The members of a function's arguments that are strings and nothing else: what is written for them is their text.
struct TextMembers {
  std::string function;
  std::set<std::string> names;
};

// Blanks are free wherever a mark may stand. Members are told when they are whole. A value that is no text by
// TextMembers is the JSON that it is, Python's True, False and None included; where it is none, a string.
class NamedCallReader final : public CallReader {
 public:
  // `before_name`: what of the form stands between the mark that was read and the name.
  NamedCallReader(const engine::CallForm& form, std::string_view before_name, const std::vector<std::string>& names,
                  const std::vector<TextMembers>& texts);
  Progress push(char next) override;

 private:
  enum class Place { before_name, name, id, after_name, object, member, key, before_value, value };

  Status advance(char next);
  Status read_name(char next);
  Status read_mark_after_name(char next);
  Status end_name();
  Status read_object(char next);
  Status read_member(char next);
  Status read_value(char next);
  // Adds the byte to what has come of a mark; broken where none of the marks begins so, whole where one is there.
  Status follow(char next, std::string_view mark, std::string_view other = {});

  const engine::CallForm* form_;
  const std::vector<std::string>* names_;
  const std::vector<TextMembers>* texts_;
  std::string before_name_, after_name_;  // without blanks
  std::string member_, before_value_, value_,
      end_;  // the marks of members: what stands around names and values, and ends them
  Place place_ = Place::before_name;
  std::string come_;        // of a mark
  std::string key_, text_;  // of a member
  JsonExtent extent_;
  bool begun_ = false, named_ = false;
  bool any_member_ = false;
  std::string arguments_;  // that have come and were not told
};

}  // namespace lathe::http
