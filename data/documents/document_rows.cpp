#include "data/documents/document_rows.h"

#include <xxhash.h>

#include <algorithm>

#include "core/error.h"
#include "core/mapped_file.h"
#include "data/readers/text_lines.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

namespace fs = std::filesystem;

constexpr size_t most_document_bytes = size_t{1} << 30, longest_token_bytes = 128;

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1);
}

bool is_blank(std::string_view line) { return trimmed(line).empty(); }

// The characters of a fence that opens a block of code, or nothing.
std::string_view fence_of(std::string_view line) {
  const size_t begin = line.find_first_not_of(' ');
  if (begin == std::string_view::npos || begin > 3 || (line[begin] != '`' && line[begin] != '~')) return {};
  const size_t end = std::min(line.find_first_not_of(line[begin], begin), line.size());
  return end - begin >= 3 ? line.substr(begin, end - begin) : std::string_view();
}

// The level of an ATX heading ("## Install"), 0 for any other line.
size_t heading_level(std::string_view line) {
  const size_t level = std::min(line.find_first_not_of('#'), line.size());
  return level >= 1 && level <= 6 && level < line.size() && line[level] == ' ' ? level : 0;
}

std::string joined(const std::vector<std::string>& headings) {
  std::string path;
  for (const std::string& heading : headings)
    if (!heading.empty()) path += (path.empty() ? "" : " > ") + heading;
  return path;
}

std::string with_unix_line_ends(std::string text) {
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
    result += text[i] == '\r' ? '\n' : text[i];
  }
  return result;
}

// Where a text that is too long may be cut so that `fits` takes the first part: after a line, a sentence or a word, the
// last such place; between characters where there is none.
size_t cut_of(std::string_view text, const std::function<bool(std::string_view)>& fits) {
  size_t low = 0, high = text.size();  // the longest beginning that fits, to the byte, found by halves
  while (low + 1 < high) {
    const size_t middle = (low + high) / 2;
    (fits(text.substr(0, middle)) ? low : high) = middle;
  }
  const auto continues = [&](size_t at) { return (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80; };
  while (low > 0 && continues(low)) --low;
  if (low == 0)
    for (low = 1; low < text.size() && continues(low);) ++low;
  // No place in the first half: that would leave crumbs.
  for (const std::string_view place : {"\n", ". ", " "}) {
    const size_t found = text.substr(0, low).rfind(place);
    if (found != std::string_view::npos && found >= low / 2) return found + place.size();
  }
  return low;
}

void add_in_tokens(std::vector<DocumentPiece>& pieces, std::string_view document,
                   const std::vector<Paragraph>& paragraphs, const DocumentSettings& settings) {
  // So long a text is not tokenised to find that it is too long: that would cost its square.
  const auto most_bytes = static_cast<size_t>(settings.max_tokens) * longest_token_bytes;
  const auto fits = [&](std::string_view text) {
    return text.size() <= most_bytes && settings.count_tokens(text) <= settings.max_tokens;
  };
  for (size_t i = 0; i < paragraphs.size();) {
    const Paragraph& first = paragraphs[i];
    const char* const begin = first.text.data();
    std::string_view piece = first.text;
    for (++i; i < paragraphs.size(); ++i) {
      const auto longer = static_cast<size_t>(paragraphs[i].text.data() + paragraphs[i].text.size() - begin);
      const std::string_view more = document.substr(static_cast<size_t>(begin - document.data()), longer);
      if (!fits(more)) break;
      piece = more;
    }
    int64_t line = first.line;
    while (!fits(piece)) {
      const size_t cut = cut_of(piece, fits);
      const std::string_view part = piece.substr(0, cut);
      if (!is_blank(part)) pieces.push_back({std::string(trimmed(part)), line, first.heading});
      line += std::count(part.begin(), part.end(), '\n');
      piece.remove_prefix(cut);
    }
    if (!is_blank(piece)) pieces.push_back({std::string(trimmed(piece)), line, first.heading});
  }
}

}  // namespace

std::vector<Paragraph> paragraphs_of(std::string_view document, DocumentFormat format) {
  std::vector<Paragraph> paragraphs;
  std::vector<std::string> headings(6);
  std::string_view fence;  // that the block of code began with
  bool inside = false;     // a paragraph that goes on
  int64_t number = 0;
  for (size_t begin = 0; begin < document.size();) {
    const size_t end = std::min(document.find('\n', begin), document.size());
    const std::string_view line = document.substr(begin, end - begin);
    ++number;
    const std::string_view own_fence = format == DocumentFormat::markdown ? fence_of(line) : std::string_view();
    if (fence.empty() && is_blank(line)) {
      inside = false;
    } else {
      const size_t level = format == DocumentFormat::markdown && fence.empty() ? heading_level(line) : 0;
      if (level > 0) {
        headings[level - 1] = std::string(trimmed(line.substr(level)));
        std::fill(headings.begin() + static_cast<std::ptrdiff_t>(level), headings.end(), "");
      }
      if (!inside || level > 0) paragraphs.push_back({line, number, joined(headings)});
      const char* const first = paragraphs.back().text.data();
      paragraphs.back().text = {first, static_cast<size_t>(line.data() + line.size() - first)};
      inside = true;
    }
    if (fence.empty()) {
      fence = own_fence;
    } else if (own_fence.starts_with(fence) && is_blank(line.substr(line.find(own_fence) + own_fence.size()))) {
      fence = {};
    }
    begin = end + 1;
  }
  return paragraphs;
}

std::vector<DocumentPiece> pieces_of(std::string document, DocumentFormat format, const DocumentSettings& settings) {
  document = with_unix_line_ends(std::move(document));
  const std::string_view text = document;
  const std::vector<Paragraph> paragraphs = paragraphs_of(text, format);
  std::vector<DocumentPiece> pieces;
  if (paragraphs.empty()) return pieces;
  switch (settings.split) {
    case DocumentSplit::document:
      pieces.push_back({std::string(trimmed(text)), paragraphs[0].line, paragraphs[0].heading});
      break;
    case DocumentSplit::paragraph:
      for (const Paragraph& paragraph : paragraphs)
        pieces.push_back({std::string(trimmed(paragraph.text)), paragraph.line, paragraph.heading});
      break;
    case DocumentSplit::tokens: add_in_tokens(pieces, text, paragraphs, settings); break;
  }
  return pieces;
}

bool SeenTexts::insert(std::string_view text) {
  std::string plain;
  for (const char c : text) {
    const bool space = c == ' ' || c == '\t' || c == '\n' || c == '\r';
    if (space && (plain.empty() || plain.back() == ' ')) continue;
    plain += space ? ' ' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  if (plain.ends_with(' ')) plain.pop_back();
  const XXH128_hash_t hash = XXH3_128bits(plain.data(), plain.size());
  return hashes_.emplace(hash.high64, hash.low64).second;
}

DocumentFormat document_format(const fs::path& path) {
  return path.extension() == ".md" || path.extension() == ".markdown" ? DocumentFormat::markdown : DocumentFormat::text;
}

std::vector<DocumentFile> document_files(const std::vector<std::string>& inputs) {
  std::vector<DocumentFile> files;
  for (const std::string& input : inputs) {
    if (!fs::is_directory(input)) {
      if (!fs::is_regular_file(input)) throw ConfigError("input", input + " is neither a file nor a folder");
      files.push_back({input, fs::path(input).filename().string()});
      continue;
    }
    std::vector<DocumentFile> found;
    for (const auto& entry : fs::recursive_directory_iterator(input)) {
      const std::string end = entry.path().extension().string();
      if (entry.is_regular_file() && (end == ".txt" || end == ".text" || end == ".md" || end == ".markdown"))
        found.push_back({entry.path(), fs::relative(entry.path(), input).generic_string()});
    }
    if (found.empty()) throw ConfigError("input", input + " holds no .txt, .text, .md or .markdown file");
    std::ranges::sort(found, {}, &DocumentFile::source);
    files.insert(files.end(), found.begin(), found.end());
  }
  return files;
}

std::string read_document(const fs::path& path) {
  const auto file = MappedFile::open(path);
  std::string_view text(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  if (text.size() > most_document_bytes)
    throw FormatError(path.string(), -1, "has more than 1 GiB; cut it into several");
  expect_utf8(text, path.string());
  text.remove_prefix(byte_order_mark_bytes(text));
  if (!is_valid_utf8(text)) throw FormatError(path.string(), -1, "is not valid UTF-8; --skip_bad_files leaves it out");
  return std::string(text);
}

}  // namespace lathe::data
