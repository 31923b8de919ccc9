#include "data/documents/document_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "core/error.h"
#include "tests/support/temporary_folder.h"

namespace lathe::data {
namespace {

// A token is a word.
int64_t words(std::string_view text) {
  int64_t count = 0;
  bool inside = false;
  for (const char c : text) {
    const bool space = c == ' ' || c == '\n';
    count += !space && !inside;
    inside = !space;
  }
  return count;
}

constexpr const char* page =
    "# Guide\n\nFirst words here.\nStill the first.\n\n## Install\nRun this:\n\n```sh\nmake\n\n# no heading\nmake "
    "install\n```\n\n## Use\n### Now\nLast.\n";

TEST(DocumentRows, MarkdownIsParagraphsUnderTheirHeadingsAndCodeStaysWhole) {
  const auto paragraphs = paragraphs_of(page, DocumentFormat::markdown);
  ASSERT_EQ(paragraphs.size(), 6u);
  EXPECT_EQ(paragraphs[0].text, "# Guide");
  EXPECT_EQ(paragraphs[1].text, "First words here.\nStill the first.");
  EXPECT_EQ(paragraphs[1].heading, "Guide");
  EXPECT_EQ(paragraphs[2].text, "## Install\nRun this:");
  EXPECT_EQ(paragraphs[3].text, "```sh\nmake\n\n# no heading\nmake install\n```");
  EXPECT_EQ(paragraphs[3].heading, "Guide > Install");
  EXPECT_EQ(paragraphs[3].line, 9);
  EXPECT_EQ(paragraphs[4].text, "## Use");
  EXPECT_EQ(paragraphs[5].text, "### Now\nLast.");
  EXPECT_EQ(paragraphs[5].heading, "Guide > Use > Now");
  EXPECT_EQ(paragraphs_of(page, DocumentFormat::text).size(), 6u) << "a fence is a line like any other there";
  EXPECT_TRUE(paragraphs_of(" \n\n", DocumentFormat::text).empty());
}

TEST(DocumentRows, TokensTakeWholeParagraphsAndNothingIsLost) {
  DocumentSettings settings;
  settings.split = DocumentSplit::tokens;
  settings.count_tokens = words;
  std::string all;
  for (int i = 0; i < 40; ++i)
    all += "Paragraph " + std::to_string(i) + " has a few words.\n" + (i % 3 == 0 ? "\n" : "\n\n\n");
  all += std::string(300, 'x') + "\n\n";
  for (int i = 0; i < 100; ++i) all += "Word" + std::to_string(i) + (i % 9 == 8 ? ". " : " ");
  for (const int64_t most : {16, 20, 64, 10000}) {
    settings.max_tokens = most;
    const auto pieces = pieces_of(all, DocumentFormat::text, settings);
    std::string joined;
    for (const DocumentPiece& piece : pieces) {
      EXPECT_LE(words(piece.text), most);
      joined += piece.text + " ";
      const auto line_begin = [&] {
        size_t at = 0;
        for (int64_t line = 1; line < piece.line; ++line) at = all.find('\n', at) + 1;
        return at;
      };
      EXPECT_NE(all.find(piece.text.substr(0, 10), line_begin()), std::string::npos) << "where its line says";
    }
    const auto plain = [](std::string text) {
      std::erase_if(text, [](char c) { return c == ' ' || c == '\n'; });
      return text;
    };
    EXPECT_EQ(plain(joined), plain(all)) << most;
    EXPECT_EQ(pieces.size() == 1, most == 10000);
  }
}

TEST(DocumentRows, CharactersStayWholeWhereThereIsNoOtherPlaceToCut) {
  DocumentSettings settings;
  settings.split = DocumentSplit::tokens;
  settings.max_tokens = 16;
  settings.count_tokens = [](std::string_view text) { return std::ssize(text); };
  std::string text, joined;
  for (int i = 0; i < 50; ++i) text += i % 2 ? "漢" : "é";
  for (const DocumentPiece& piece : pieces_of(text, DocumentFormat::text, settings)) {
    EXPECT_LE(piece.text.size(), 16u);
    EXPECT_NE(static_cast<unsigned char>(piece.text[0]) & 0xC0, 0x80) << "begins within a character";
    joined += piece.text;
  }
  EXPECT_EQ(joined, text);
}

TEST(DocumentRows, TextsThatDifferInSpacesAndCapitalsAloneAreSeen) {
  SeenTexts seen;
  EXPECT_TRUE(seen.insert("Some text here"));
  EXPECT_FALSE(seen.insert("  some\n TEXT   here\t"));
  EXPECT_TRUE(seen.insert("Sometext here"));
}

TEST(DocumentRows, FoldersAreReadInTheOrderOfTheirPathsAndBadOnesAreNamed) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder.path() / "b/c");
  for (const char* file : {"z.txt", "b/a.md", "b/c/k.markdown", "b/picture.png", "a.text"})
    std::ofstream(folder.path() / file) << "text\r\n";
  std::vector<std::string> sources;
  for (const DocumentFile& file : document_files({folder.path().string()})) sources.push_back(file.source);
  EXPECT_EQ(sources, (std::vector<std::string>{"a.text", "b/a.md", "b/c/k.markdown", "z.txt"}));
  EXPECT_EQ(pieces_of(read_document(folder.path() / "z.txt"), DocumentFormat::text, {}).at(0).text, "text");
  std::filesystem::create_directory(folder.path() / "empty");
  EXPECT_THROW(document_files({(folder.path() / "empty").string()}), ConfigError);
  EXPECT_THROW(document_files({(folder.path() / "none").string()}), ConfigError);
  std::ofstream(folder.path() / "z.txt") << "\xC3\x28";
  EXPECT_THROW(read_document(folder.path() / "z.txt"), FormatError);
  std::ofstream(folder.path() / "z.txt", std::ios::binary) << std::string("\xFF\xFEh\0i\0", 6);
  EXPECT_THROW(read_document(folder.path() / "z.txt"), FormatError);
}

}  // namespace
}  // namespace lathe::data
