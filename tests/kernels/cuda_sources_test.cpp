// No .cu file is left out of the tests, or uses what nvcc refuses.
#include "tests/support/cuda_sources.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/source_dir.h"
#include "tests/support/temporary_folder.h"

namespace lathe::testing {
namespace {

const std::filesystem::path tree = source_dir;

TEST(CudaSources, EveryFolderOfKernelsHasATest) {
  if (!std::filesystem::is_directory(tree / "kernels")) GTEST_SKIP() << "the source tree is not here";
  int folders = 0;
  for (const auto& entry : std::filesystem::directory_iterator(tree / "kernels")) {
    const std::string operation = entry.path().filename();
    if (operation == "cuda" || cuda_sources(tree, operation).empty()) continue;
    ++folders;
    EXPECT_TRUE(std::filesystem::exists(tree / "tests/kernels" / (operation + "_test.cpp")))
        << "kernels/" << operation << " has a .cu file that nothing runs: tests/kernels/" << operation
        << "_test.cpp is missing";
  }
  EXPECT_GE(folders, 10);
}

class CudaSourcesOf : public ::testing::Test {
 protected:
  void write(const std::string& text) const {
    std::filesystem::create_directories(folder_.path() / "kernels/scale");
    std::ofstream(folder_.path() / "kernels/scale/cuda.cu") << text;
  }
  std::vector<std::string> faults(bool cuda_body) const {
    return faults_of_cuda_sources(folder_.path(), "scale", {{.name = "scale", .cases = {}, .cuda_body = cuda_body}});
  }

 private:
  TemporaryFolder folder_;
};

TEST_F(CudaSourcesOf, AnUnclaimedBodyIsAFault) {
  EXPECT_TRUE(faults(false).empty());
  write("// std::max is not for kernels\n");
  EXPECT_TRUE(faults(true).empty());
  ASSERT_EQ(faults(false).size(), 1u);
  EXPECT_EQ(
      faults(false)[0],
      "kernels/scale/cuda.cu runs in no test: no operation of tests/kernels/scale_cases.h says .cuda_body = true");
}

TEST_F(CudaSourcesOf, AFunctionOfTheHostIsAFault) {
  write("static_assert(std::is_same_v<T, float>);\nconst float a = std::max(b, c);\n");
  ASSERT_EQ(faults(true).size(), 1u);
  EXPECT_EQ(faults(true)[0].find("kernels/scale/cuda.cu:2 uses std::max. nvcc refuses"), 0u) << faults(true)[0];
}

}  // namespace
}  // namespace lathe::testing
