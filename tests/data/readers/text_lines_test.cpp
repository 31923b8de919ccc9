// Lines of plain and packed files alike; packed files that are cut, broken or made to fill memory.
#include "data/readers/text_lines.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <fstream>

#include "core/error.h"
#include "data/rows/json_lines.h"
#include "tests/data/readers/packed_text.h"
#include "tests/support/temporary_folder.h"

namespace lathe::data {
namespace {

using Lines = std::vector<std::pair<int64_t, std::string>>;

class TextLinesTest : public testing::Test {
 protected:
  std::string write(std::string_view bytes) {
    const auto path = folder_.path() / "input";
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return path.string();
  }
  Lines lines(std::string_view bytes, int64_t max_line_bytes = TextLines::default_max_line_bytes) {
    TextLines stream(write(bytes), max_line_bytes);
    Lines result;
    while (const auto line = stream.next()) result.emplace_back(line->number, line->text);
    EXPECT_EQ(stream.source().bytes, static_cast<int64_t>(bytes.size()));
    EXPECT_EQ(stream.source().xxh64, XXH64(bytes.data(), bytes.size(), 0));
    return result;
  }
  std::string error(std::string_view bytes, int64_t max_line_bytes = TextLines::default_max_line_bytes) {
    try {
      lines(bytes, max_line_bytes);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  TemporaryFolder folder_;
};

// Longer than every buffer on the way, and hard to pack.
std::string long_text() {
  std::string text;
  uint64_t state = 1;
  for (int line = 0; line < 40000; ++line) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    text += std::to_string(state) + std::string(state >> 57, static_cast<char>('a' + line % 26)) + "\n";
  }
  return text;
}

TEST_F(TextLinesTest, PackedFilesHaveTheLinesOfThePlainOne) {
  const std::string text = long_text();
  const Lines plain = lines(text);
  EXPECT_EQ(plain.size(), 40000u);
  EXPECT_EQ(lines(gzip(text)), plain);
  EXPECT_EQ(lines(zstd(text)), plain);
  const std::string half = text.substr(0, text.size() / 2), rest = text.substr(text.size() / 2);
  EXPECT_EQ(lines(gzip(half) + gzip(rest)), plain);  // several members, frames
  EXPECT_EQ(lines(zstd(half) + zstd(rest)), plain);
  EXPECT_EQ(lines(gzip(text) + std::string(512, '\0')), plain);
}

TEST_F(TextLinesTest, BlankLinesAreCountedAndLeftOut) {
  EXPECT_EQ(lines("\xEF\xBB\xBF"
                  "a\r\n\n \t\nb"),
            (Lines{{1, "a\r"}, {4, "b"}}));
  EXPECT_EQ(lines(""), Lines{});
  EXPECT_EQ(lines(gzip("")), Lines{});
  EXPECT_EQ(lines(zstd("")), Lines{});
}

TEST_F(TextLinesTest, APackedFileCutAnywhereIsAnErrorWithItsOffset) {
  const std::string text = long_text().substr(0, 3000);
  for (const std::string& packed : {gzip(text), zstd(text)}) {
    for (size_t length = 4; length < packed.size(); ++length) {
      const std::string reason = error(packed.substr(0, length));
      EXPECT_NE(reason.find("at byte " + std::to_string(length)), std::string::npos) << length << ": " << reason;
      EXPECT_NE(reason.find("cut short"), std::string::npos) << reason;
    }
  }
}

TEST_F(TextLinesTest, BrokenPackedFilesAreErrors) {
  std::string packed = gzip(long_text());
  packed[packed.size() / 2] ^= 1;
  EXPECT_NE(error(packed).find("the gzip data is broken"), std::string::npos);
  EXPECT_NE(error(gzip("a\n") + "garbage").find("gzip"), std::string::npos);
  packed = zstd("a\n");
  packed[5] = '\xFF';
  EXPECT_NE(error(packed), "no error");
}

TEST_F(TextLinesTest, AFileThatUnpacksToOneEndlessLineStopsAtTheBound) {
  const std::string zeros(64 << 20, 'x');
  for (const std::string& bomb : {gzip(zeros), zstd(zeros)}) {
    ASSERT_LT(bomb.size(), size_t{100} << 10);
    const std::string reason = error(bomb, 1 << 20);
    EXPECT_NE(reason.find("line 1: is longer than 1 MiB"), std::string::npos) << reason;
  }
}

// Each layer multiplies by some thousands: two of them would make a terabyte of what is 100 kB here.
TEST_F(TextLinesTest, WhatIsPackedTwiceIsUnpackedOnceAndRefused) {
  const std::string zeros(64 << 20, 'x');
  for (const std::string& inner : {gzip(zeros), zstd(zeros), zstd("{}\n")})
    for (const std::string& outer : {gzip(inner), zstd(inner)}) {
      const std::string reason = error(outer);
      EXPECT_NE(reason.find("is packed twice"), std::string::npos) << reason;
    }
}

TEST_F(TextLinesTest, WideEncodingsAndFoldersAreRefused) {
  EXPECT_NE(error({"\xFF\xFE{\0", 4}).find("UTF-16"), std::string::npos);
  EXPECT_NE(error(gzip({"{\0\0\0\"\0\0\0", 8})).find("UTF-32"), std::string::npos);
  EXPECT_THROW(TextLines(folder_.path().string()), ResourceError);
  EXPECT_THROW(TextLines((folder_.path() / "missing").string()), ResourceError);
}

TEST_F(TextLinesTest, JsonLinesReadsPackedFilesAsPlainOnes) {
  const std::string text = "{\"a\": 1}\n\n{\"a\": 2}";
  for (const std::string& bytes : {text, gzip(text), zstd(text)}) {
    const JsonLines rows = JsonLines::open(write(bytes));
    ASSERT_EQ(rows.size(), 2);
    EXPECT_EQ(rows.text(1), "{\"a\": 2}");
    EXPECT_EQ(rows.line(1), 3);
  }
  EXPECT_THROW(JsonLines::open(write(gzip("[1]\n"))), FormatError);
}

}  // namespace
}  // namespace lathe::data
