#include "core/nearest_name.h"

#include <gtest/gtest.h>

#include <vector>

namespace lathe {
namespace {

TEST(NearestName, IsTheOneThatWasMeant) {
  const std::vector<std::string> options = {"lora_alpha", "lora_r", "num_train_epochs", "learning_rate", "seed"};
  EXPECT_EQ(nearest_name("lora_rank", options), "lora_r");
  EXPECT_EQ(nearest_name("num_epochs", options), "num_train_epochs");
  EXPECT_EQ(nearest_name("lerning_rate", options), "learning_rate");
  EXPECT_EQ(nearest_name("learn", options), "learning_rate");
  EXPECT_EQ(nearest_name("sed", options), "seed");
}

TEST(NearestName, IsNoneWhereNothingComesNear) {
  const std::vector<std::string> options = {"lora_alpha", "seed"};
  EXPECT_EQ(nearest_name("temperature", options), "");
  EXPECT_EQ(nearest_name("", options), "");
  EXPECT_EQ(nearest_name(std::string(100000, 'a'), options), "");
  EXPECT_EQ(nearest_name("seed", {}), "");
}

}  // namespace
}  // namespace lathe
