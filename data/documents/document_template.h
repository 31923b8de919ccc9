// Documents as instruction rows: a row in which every string is a Jinja template.
//
//   {"messages": [{"role": "user", "content": "What does {{ source }} say under {{ heading }}?"},
//                 {"role": "assistant", "content": "{{ text }}"}]}
//
// Variables: text, source, line, heading, title (the last part of the heading).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json_value.h"
#include "data/chat_template/chat_template.h"
#include "data/documents/document_rows.h"

namespace lathe::data {

class DocumentTemplate {
 public:
  // FormatError with file and place for what is no row (messages, or prompt with completion, chosen or nothing, or
  // text) or has a string that is no template.
  explicit DocumentTemplate(const std::filesystem::path& file);

  // The row, with source, line and heading beside it; nothing where one of its strings comes out blank: such a piece
  // has not what the template asks for. ConfigError where a template does what Jinja refuses.
  std::optional<nlohmann::ordered_json> row(const DocumentPiece& piece, const std::string& source) const;

 private:
  void compile(const nlohmann::ordered_json& value, const std::string& place);
  // False where a string is blank.
  bool fill(nlohmann::ordered_json& value, size_t& next, const nlohmann::ordered_json& variables) const;

  std::string file_;
  nlohmann::ordered_json row_;
  std::vector<std::shared_ptr<const ChatTemplate>> templates_;  // of its strings, in order
};

}  // namespace lathe::data
