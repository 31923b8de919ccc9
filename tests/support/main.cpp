// gtest's main, and --file=nn/families_test.cpp: the tests of that source alone. A folder's tests are one program,
// which ctest runs once for each source.
#include <gtest/gtest.h>

#include <iostream>
#include <string>
#include <string_view>

namespace {

constexpr std::string_view file_flag = "--file=";

// As --gtest_filter has it; empty where the source has no test.
std::string filter_of_file(std::string_view file) {
  const std::string end = "tests/" + std::string(file);
  std::string filter;
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int s = 0; s < all.total_test_suite_count(); ++s) {
    const testing::TestSuite& suite = *all.GetTestSuite(s);
    for (int t = 0; t < suite.total_test_count(); ++t) {
      const testing::TestInfo& test = *suite.GetTestInfo(t);
      if (std::string_view(test.file()).ends_with(end)) filter += std::string(suite.name()) + "." + test.name() + ":";
    }
  }
  return filter;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (!argument.starts_with(file_flag)) {
      std::cerr << argv[0] << ": expected " << file_flag << "FOLDER/NAME_test.cpp or gtest's flags, found " << argument
                << '\n';
      return 2;
    }
    const std::string filter = filter_of_file(argument.substr(file_flag.size()));
    if (filter.empty()) {
      std::cerr << argv[0] << ": there is no test in " << argument.substr(file_flag.size()) << '\n';
      return 2;
    }
    GTEST_FLAG_SET(filter, filter);
  }
  return RUN_ALL_TESTS();
}
