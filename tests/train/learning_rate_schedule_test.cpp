// The schedules against transformers' get_scheduler (tests/golden/kernels/schedules.json).
#include "train/learning_rate_schedule.h"
#include "core/json_value.h"

#include <gtest/gtest.h>

#include "tests/train/tiny_run.h"

namespace lathe::train {
namespace {

TEST(LearningRateSchedule, IsTransformersAtEveryStep) {
  const auto cases = nlohmann::json::parse(bytes_of(golden("kernels/schedules.json")));
  ASSERT_GE(cases.size(), 12u);
  for (const auto& row : cases) {
    const std::string name = row["lr_scheduler_type"];
    const auto schedule = parse_schedule(name);
    ASSERT_TRUE(schedule.has_value()) << name;
    const LearningRateSchedule rates{*schedule, 1.0, row["warmup_steps"], row["max_steps"]};
    for (size_t step = 0; step < row["learning_rate"].size(); ++step)
      // A few operations in double: within 2 units in the last place of 1.
      EXPECT_NEAR(rates.rate(static_cast<int64_t>(step)), row["learning_rate"][step].get<double>(), 4.5e-16)
          << name << " step " << step << " warmup " << row["warmup_steps"];
  }
}

TEST(LearningRateSchedule, WarmupRatioCountsOnlyWithoutWarmupSteps) {
  TrainingSettings config;
  config.warmup_ratio = 0.1;
  EXPECT_EQ(make_schedule(config, 1.0, 101).warmup_steps, 11);  // rounded up, as transformers does
  config.warmup_steps = 3;
  EXPECT_EQ(make_schedule(config, 1.0, 101).warmup_steps, 3);
}

TEST(LearningRateSchedule, AnUnknownNameIsNone) { EXPECT_FALSE(parse_schedule("polynomial").has_value()); }

}  // namespace
}  // namespace lathe::train
