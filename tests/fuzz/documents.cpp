// Documents of text and Markdown, however they are cut: pieces are of the document, none is blank, and lines ascend.
// After the first line of the input, which is a template.
#include "core/error.h"
#include "data/documents/document_rows.h"
#include "data/documents/document_template.h"
#include "data/tokenizer/utf8.h"
#include "tests/fuzz/input_file.h"

namespace {

using namespace lathe;

void require(bool good) {
  if (!good) __builtin_trap();
}

void cut(const std::string& document, data::DocumentFormat format, const data::DocumentSettings& settings) {
  int64_t line = 1;
  for (const data::DocumentPiece& piece : data::pieces_of(document, format, settings)) {
    require(piece.text.find_first_not_of(" \t\n") != std::string::npos);
    require(piece.line >= line);
    require(settings.split != data::DocumentSplit::tokens || piece.text.size() <= 64);
    line = piece.line;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  const std::string_view text = fuzz::text_of(input, size);
  const size_t line_end = std::min(text.find('\n'), text.size());
  try {
    const data::DocumentTemplate row_template(fuzz::write_input("row.json", text.substr(0, line_end)));
    row_template.row({"Some {{ text }}.", 7, "One > Two"}, "a.md");
  } catch (const Error&) {
  }
  const std::string document(text.substr(std::min(line_end + 1, text.size())));
  if (!data::is_valid_utf8(document)) return 0;
  data::DocumentSettings settings;
  settings.max_tokens = 16;
  // Four bytes a token at most: a character is never cut.
  settings.count_tokens = [](std::string_view piece) { return static_cast<int64_t>((piece.size() + 3) / 4); };
  for (const auto format : {data::DocumentFormat::text, data::DocumentFormat::markdown})
    for (const auto split :
         {data::DocumentSplit::document, data::DocumentSplit::paragraph, data::DocumentSplit::tokens}) {
      settings.split = split;
      cut(document, format, settings);
    }
  return 0;
}
