// Rows as TRL prepares them, truncated and packed. See tests/golden/README.md.
#include "tests/data/golden_cases.h"

namespace lathe::data {
namespace {

TEST(RowsGolden, AreWhatTrlPrepares) {
  // tokenizer/byte_level with the special tokens that rows/ was made with.
  const auto directory = std::filesystem::path(testing::TempDir()) / "lathe_rows_golden";
  std::filesystem::create_directories(directory);
  std::filesystem::copy_file(golden::folder / "tokenizer/byte_level/tokenizer.json", directory / "tokenizer.json",
                             std::filesystem::copy_options::overwrite_existing);
  std::ofstream(directory / "tokenizer_config.json") << R"({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})";
  size_t compared = 0;
  golden::compare_rows(*Tokenizer::from_directory(directory), "byte_level", directory, compared);
  EXPECT_GT(compared, 20u);
}

}  // namespace
}  // namespace lathe::data
