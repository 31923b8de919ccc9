#include "data/shards/source_license.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temporary_folder.h"

namespace lathe::data {
namespace {

class SourceLicense : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) const { std::ofstream(folder_ / name) << text; }
  std::string found() const { return license_beside(folder_ / "rows.jsonl"); }
  TemporaryFolder temporary_;
  std::filesystem::path folder_ = temporary_.path();
};

TEST_F(SourceLicense, IsThatOfTheDatasetsLibraryOrOfTheCard) {
  write("README.md", "---\nlicense: mit\n---\n");
  EXPECT_EQ(found(), "") << "rows that are no file have nothing beside them";
  write("rows.jsonl", "{}\n");
  EXPECT_EQ(found(), "mit");
  write("README.md", "# A card without front matter\nlicense: mit\n");
  EXPECT_EQ(found(), "");
  write("README.md", "---\npretty_name: Rows\nlicense: \"cc-by-4.0\"\r\n---\nlicense: mit\n");
  EXPECT_EQ(found(), "cc-by-4.0");
  write("README.md", "---\nlicense:\n- mit\n- apache-2.0\ntags:\n- more\n---\n");
  EXPECT_EQ(found(), "mit, apache-2.0");
  write("dataset_info.json", R"({"features": {}, "license": ""})");
  EXPECT_EQ(found(), "mit, apache-2.0");
  write("dataset_info.json", R"({"features": {}, "license": "odc-by"})");
  EXPECT_EQ(found(), "odc-by");
  write("dataset_info.json", "no JSON");
  EXPECT_EQ(found(), "mit, apache-2.0") << "what is broken is not what rows are refused for";
}

}  // namespace
}  // namespace lathe::data
