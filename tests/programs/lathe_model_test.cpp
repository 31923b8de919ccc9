// lathe-model itself: what its flags mean.
#include "tests/programs/program_test.h"

namespace lathe {
namespace {

class LatheModel : public ProgramTest {
 protected:
  nlohmann::json tokens_with_top_k(const std::string& top_k) const {
    EXPECT_EQ(run({"bin/lathe-model", "generate", (folder_ / "model").string(), "--raw", "--prompt", "it is",
                   "--max_tokens", "6", "--temperature", "1", "--seed", "4", "--json", "--top_k", top_k}),
              0)
        << err();
    return nlohmann::json::parse(out(), nullptr, false)["tokens"];
  }
};

TEST_F(LatheModel, ATopKOfMinusOneKeepsEveryToken) {
  const nlohmann::json every_token = tokens_with_top_k("0");
  EXPECT_EQ(every_token.size(), 6u);
  EXPECT_EQ(tokens_with_top_k("-1"), every_token);
  EXPECT_NE(tokens_with_top_k("1"), every_token);
}

}  // namespace
}  // namespace lathe
