#include "train/report.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/train/tiny_run.h"
#include "train/line_plot.h"

namespace lathe::train {
namespace {

TEST(Report, HoldsPlotsFactsAndRowsAndReachesForNothing) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "metrics.jsonl") << "{\"step\":1,\"loss\":2.5,\"learning_rate\":0.1}\n"
                                                    "{\"step\":2,\"loss\":1.5,\"learning_rate\":0.05}\n"
                                                    "{\"step\":2,\"eval_loss\":1.75}\n";
  write_report(folder.path(), {.title = "A <run>",
                               .facts = {{"rows", "12"}},
                               .config_yaml = "seed: 1\n",
                               .memory_table = "total 3",
                               .samples = {{"<|im_start|>user", "an \"answer\""}}});
  const std::string html = bytes_of(folder.path() / "report.html");
  for (const char* part : {"A &lt;run&gt;", "eval_loss 1.75 at 2", "&lt;|im_start|&gt;user", "an &quot;answer&quot;",
                           "seed: 1", "total 3"})
    EXPECT_NE(html.find(part), std::string::npos) << part;
  size_t plots = 0;
  for (size_t at = 0; (at = html.find("<svg", at)) != std::string::npos; ++at) ++plots;
  EXPECT_EQ(plots, 2u) << "loss and learning rate; nothing was logged of the others";
  for (const char* outside : {"http:", "https:", "src=", "href=", "@import", "url("})
    EXPECT_EQ(html.find(outside), std::string::npos) << outside;
}

TEST(Report, PlotsWhateverAMethodLogs) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "metrics.jsonl")
      << "{\"step\":1,\"epoch\":0.5,\"loss\":2.5,\"num_tokens\":9,\"mean_reward\":0.25,\"eval_margin\":0.75}\n";
  write_report(folder.path(), {});
  const std::string html = bytes_of(folder.path() / "report.html");
  for (const char* part : {"aria-label='loss'", "aria-label='mean reward'", "aria-label='margin'", "eval_margin 0.75"})
    EXPECT_NE(html.find(part), std::string::npos) << part;
  EXPECT_EQ(html.find("aria-label='epoch'"), std::string::npos);
}

TEST(LinePlot, TicksAreRoundAndInside) {
  EXPECT_EQ(ticks(0.0, 10.0, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  for (const auto& [low, high] : {std::pair{1.7, 2.1}, {-3.0, 400.0}, {1e-9, 3e-9}}) {
    const auto positions = ticks(low, high, 5);
    EXPECT_GE(positions.size(), 3u);
    EXPECT_LE(positions.size(), 7u);
    for (const double position : positions) EXPECT_TRUE(position >= low * (1 - 1e-12) && position <= high) << position;
  }
  EXPECT_TRUE(ticks(1.0, 1.0, 5).empty());
}

TEST(LinePlot, OnePointAndMissingValuesStillMakeAPlot) {
  EXPECT_EQ(line_plot("none", "step", {{"a", {}, false}}), "");
  const std::string one = line_plot("one", "step", {{"a", {{1.0, 2.0}, {2.0, NAN}}, false}});
  EXPECT_NE(one.find("<polyline"), std::string::npos);
  EXPECT_EQ(one.find("nan"), std::string::npos);
}

}  // namespace
}  // namespace lathe::train
