// Documents of text and Markdown as rows {"text", "source", "line", "heading"} for continued pre-training: cut into
// pieces, each text once, each with the place that it is from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::data {

// A run of text between blank lines; in Markdown a fenced block of code is one, whatever is in it.
struct Paragraph {
  std::string_view text;  // of the document
  int64_t line = 0;       // where it begins, from 1
  std::string heading;    // of Markdown: those that it stands under, "Install > From source"; its own where it is one
};
enum class DocumentFormat { text, markdown };
std::vector<Paragraph> paragraphs_of(std::string_view document, DocumentFormat format);

enum class DocumentSplit { document, paragraph, tokens };

struct DocumentSettings {
  DocumentSplit split = DocumentSplit::document;
  // `tokens`: whole paragraphs as long as they fit, so many tokens by `count_tokens`. A longer paragraph is cut between
  // lines, sentences or words, as late as fits.
  int64_t max_tokens = 1024;
  std::function<int64_t(std::string_view)> count_tokens;
};

struct DocumentPiece {
  std::string text;
  int64_t line = 0;
  std::string heading;
};
// Line ends become \n and what stands around a piece is blank no more; pieces that are blank are left out.
std::vector<DocumentPiece> pieces_of(std::string document, DocumentFormat format, const DocumentSettings& settings);

// Whether a text has come before, whatever its spaces, line ends and capitals are.
class SeenTexts {
 public:
  bool insert(std::string_view text);  // true: it is new

 private:
  std::set<std::pair<uint64_t, uint64_t>> hashes_;  // XXH3, 128 bits
};

struct DocumentFile {
  std::filesystem::path path;
  std::string source;  // its path below the folder that was named
};
// Files as they are, and those of folders below them that end in .txt, .text, .md or .markdown, in the order of their
// paths. ConfigError where there is none.
std::vector<DocumentFile> document_files(const std::vector<std::string>& inputs);
DocumentFormat document_format(const std::filesystem::path& path);
// FormatError for one that is not UTF-8, or has more than 1 GiB.
std::string read_document(const std::filesystem::path& path);

}  // namespace lathe::data
