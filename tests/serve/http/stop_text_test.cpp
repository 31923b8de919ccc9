// Stop strings: whatever the pieces, the text ends before the first string that is completed.
#include "serve/http/stop_text.h"

#include <gtest/gtest.h>

#include "core/random.h"

namespace lathe::http {
namespace {

// By its definition: the smallest end of an occurrence, of those the longest string.
std::string cut_plainly(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops)
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0)
        longest = std::max(longest, stop.size());
    if (longest > 0) return text.substr(0, end - longest);
  }
  return text;
}

TEST(StopText, AnyPiecesGiveWhatTheDefinitionGives) {
  RandomStream random(5, RandomPurpose::test);
  const auto random_text = [&](uint64_t most) {
    std::string text;
    for (uint64_t i = 0, length = 1 + random.below(most); i < length; ++i)
      text += static_cast<char>('a' + random.below(2));
    return text;
  };
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> stops;
    for (uint64_t i = 0, count = random.below(4); i < count; ++i) stops.push_back(random_text(6));
    const std::string text = random_text(40), expected = cut_plainly(text, stops);
    StopText stop(stops);
    std::string shown;
    for (size_t i = 0; i < text.size();) {
      const size_t length = 1 + random.below(5);
      shown += stop.push(text.substr(i, length));
      EXPECT_TRUE(expected.starts_with(shown)) << "too much was shown";
      i += length;
    }
    if (!stop.stopped()) shown += stop.finish();
    EXPECT_EQ(shown, expected) << text;
  }
}

TEST(StopText, OnlyWhatAStopStringMayBeginWithIsHeldBack) {
  StopText stop({"###", "STOP"});
  EXPECT_EQ(stop.push("one ##"), "one ");
  EXPECT_EQ(stop.push(" two S"), "## two ");
  EXPECT_EQ(stop.push("TO"), "");
  EXPECT_EQ(stop.push("Ne"), "STONe");
  EXPECT_EQ(stop.push("#"), "");
  EXPECT_EQ(stop.finish(), "#");
}

}  // namespace
}  // namespace lathe::http
