#include "data/documents/document_template.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "tests/support/temporary_folder.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

class DocumentTemplateTest : public testing::Test {
 protected:
  DocumentTemplate made_of(const std::string& text) const {
    std::ofstream(file_) << text;
    return DocumentTemplate(file_);
  }
  std::string refusal_of(const std::string& text) const {
    try {
      made_of(text);
      return "taken";
    } catch (const FormatError& error) {
      return error.what();
    }
  }
  TemporaryFolder folder_;
  std::filesystem::path file_ = folder_.path() / "row.json";
};

TEST_F(DocumentTemplateTest, EveryStringIsFilledAndWhatTextHoldsIsText) {
  const DocumentTemplate row_template = made_of(
      R"({"messages": [{"role": "user", "content": "Explain {{ title | lower }} of {{ source }}, line {{ line }}"},
                       {"role": "assistant", "content": "{{ text }}"}], "n": 3})");
  const auto row = row_template.row({"Say \"{{ text }}\"\n{% raw %}", 7, "One > Two"}, "a.md");
  ASSERT_TRUE(row.has_value());
  EXPECT_EQ(*row, ordered_json::parse(R"({"messages": [{"role": "user", "content": "Explain two of a.md, line 7"},
      {"role": "assistant", "content": "Say \"{{ text }}\"\n{% raw %}"}], "n": 3, "source": "a.md", "line": 7,
      "heading": "One > Two"})"));
}

TEST_F(DocumentTemplateTest, APieceWithoutWhatTheTemplateAsksForGivesNoRow) {
  const DocumentTemplate row_template =
      made_of(R"({"prompt": "{% if heading %}On {{ heading }}:{% endif %}", "completion": "{{ text }}"})");
  EXPECT_FALSE(row_template.row({"Some text.", 1, ""}, "b.txt").has_value());
  EXPECT_EQ(row_template.row({"Some text.", 1, "H"}, "b.txt")->at("prompt"), "On H:");
}

TEST_F(DocumentTemplateTest, WhatIsNoRowOrNoTemplateIsNamed) {
  EXPECT_NE(refusal_of("[1]").find("is no row to fill"), std::string::npos);
  EXPECT_NE(refusal_of(R"({"question": "{{ text }}"})").find("prompt and completion"), std::string::npos);
  EXPECT_NE(refusal_of(R"({"prompt": [], "n": 1})").find("no string to fill"), std::string::npos);
  EXPECT_NE(refusal_of(R"({"text": "{{ text }}", "line": "1"})").find("\"line\", which rows get"), std::string::npos);
  const std::string broken = refusal_of(R"({"messages": [{"role": "user", "content": "{% if %}"}]})");
  EXPECT_NE(broken.find("row.json"), std::string::npos) << broken;
  EXPECT_NE(broken.find("messages.0.content"), std::string::npos) << broken;
}

}  // namespace
}  // namespace lathe::data
