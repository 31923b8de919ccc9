// What a terminal would obey is shown instead.
#include "core/printable.h"

#include <gtest/gtest.h>

namespace lathe {
namespace {

TEST(Printable, TextStaysWithItsLines) {
  for (const char* text : {"", "plain\ttext\n", "größer → 模型 🙂", "a back\\slash \\x1b", "\xC2\xA0"})
    EXPECT_EQ(printable(text), text);
}

TEST(Printable, ControlCharactersAreShownByteForByte) {
  EXPECT_EQ(printable("\x1b[2J\r\x7f"), "\\x1b[2J\\x0d\\x7f");
  EXPECT_EQ(printable(std::string_view("before\0after", 12)), "before\\x00after");
  EXPECT_EQ(printable("\xC2\x9B"
                      "31m"),
            "\\xc2\\x9b31m")
      << "C1's CSI";
}

TEST(Printable, BytesThatAreNoUtf8AreShown) {
  EXPECT_EQ(printable("\x9b"), "\\x9b");
  EXPECT_EQ(printable("\xC0\x9B"), "\\xc0\\x9b") << "an escape character in too many bytes";
  EXPECT_EQ(printable("\xED\xA0\x80"), "\\xed\\xa0\\x80") << "a surrogate";
  EXPECT_EQ(printable("é\xE2\x86"), "é\\xe2\\x86") << "cut off";
}

}  // namespace
}  // namespace lathe
