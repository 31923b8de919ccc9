// --config files within bounds.
#include "programs/cli/yaml_arguments.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "tests/support/temporary_folder.h"

namespace lathe::cli {
namespace {

using Settings = std::vector<std::pair<std::string, std::string>>;

class YamlArguments : public testing::Test {
 protected:
  Settings read(const std::string& text) const {
    const auto file = folder_.path() / "config.yaml";
    std::ofstream(file, std::ios::binary) << text;
    return read_yaml_settings(file.string());
  }
  std::string refusal(const std::string& text) const {
    try {
      read(text);
    } catch (const Error& error) {
      return error.what();
    }
    return "taken";
  }

  TemporaryFolder folder_;
};

TEST_F(YamlArguments, ValuesAndListsAreRead) {
  EXPECT_EQ(read("a: 1\nb: [x, 'y z']\nc:\n  - p\n  - q\nd:\ne: \"\"\n"),
            (Settings{{"a", "1"}, {"b", "x,y z"}, {"c", "p,q"}, {"e", ""}}));
  EXPECT_TRUE(read("").empty());
}

TEST_F(YamlArguments, AnchorsAndAliasesAreRefusedByTheirLine) {
  for (const char* text : {"b: 1\na: &x [1, *x]\n", "b: 1\na: &x 1\nc: *x\n", "b: 1\na: &x {}\n"})
    EXPECT_NE(refusal(text).find("line 2: anchors (&) and aliases (*) are not read"), std::string::npos)
        << text << refusal(text);
  std::string laughs = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n";
  for (char name = 'b'; name < 'z'; ++name) {
    laughs += std::string(1, name) + ": &" + name + " [";
    for (int i = 0; i < 9; ++i) laughs += std::string(i == 0 ? "*" : ", *") + static_cast<char>(name - 1);
    laughs += "]\n";
  }
  EXPECT_NE(refusal(laughs).find("anchors"), std::string::npos);
}

TEST_F(YamlArguments, DepthAndSizeAreBounded) {
  for (const char* level : {"[", "{a: ", "- ", "? "}) {
    std::string text = "a: ";
    if (level[0] == '-' || level[0] == '?') text = "";
    for (int i = 0; i < 100000; ++i) text += level;
    EXPECT_NE(refusal(text), "taken") << level;
    EXPECT_LT(refusal(text).size(), 300u) << level;
  }
  EXPECT_NE(refusal("a: " + std::string(2 << 20, 'x')).find("1 MiB"), std::string::npos);
}

TEST_F(YamlArguments, WhatIsNoMappingOfValuesIsASentence) {
  for (const char* text :
       {"- a\n", "just text\n", "a: {b: c}\n", "a: [[b]]\n", "[a, b]: c\n", "a: 'open\n", "a: [\n", "a: b: c\n",
        "\t- a", "%YAML 9.9\n---\na: 1\n", "a: !!binary [x]\n\x01", "\xff\xfe", "? [a]\n", "? \n: a\n"})
    EXPECT_NO_THROW(refusal(text)) << text;
  EXPECT_NE(refusal("- a\n").find("expected a YAML mapping"), std::string::npos);
  EXPECT_NE(refusal("a: 1\nb: {c: d}\n").find("b: expected a value or a list"), std::string::npos);
  EXPECT_NE(refusal("[a, b]: c\n").find("name of a flag"), std::string::npos);
  EXPECT_THROW(read_yaml_settings(folder_.path().string()), ConfigError) << "a folder";
  EXPECT_THROW(read_yaml_settings((folder_.path() / "none.yaml").string()), ConfigError);
}

}  // namespace
}  // namespace lathe::cli
