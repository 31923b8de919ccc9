// How much of the memory that sequences own holds no token.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/random.h"
#include "tests/serve/tiny_engine.h"

namespace lathe::engine {
namespace {

constexpr int64_t page = nn::KvCache::default_page_size;

Request request_of(int64_t prompt, int64_t max_tokens, int32_t first) {
  Request request;
  for (int64_t i = 0; i < prompt; ++i)
    request.prompt.push_back((first + static_cast<int32_t>(i) * (37 + 2 * first)) % 320);
  request.max_tokens = max_tokens;
  return request;
}

TEST(CacheWaste, IsTheEndsOfLastPages) {
  const nn::Transformer model = tiny_model(DType::f32);
  Engine engine(model, {.kv_cache_tokens = 32 * page});
  engine.add(request_of(21, 3, 1));
  engine.step();
  EXPECT_EQ(engine.stats().slots_used, 2 * page);
  EXPECT_EQ(engine.stats().slots_empty, 2 * page - 21) << "the token that was drawn has no keys yet";
  engine.add(request_of(16, 3, 2));
  engine.step();
  EXPECT_EQ(engine.stats().slots_used, 3 * page);
  EXPECT_EQ(engine.stats().slots_empty, 2 * page - 22);
  while (!engine.idle()) engine.step();
  EXPECT_EQ(engine.stats().slots_used, 0);
  EXPECT_EQ(engine.stats().slots_empty, 0);
}

TEST(CacheWaste, SharedPagesCountOnce) {
  const nn::Transformer model = tiny_model(DType::f32);
  Engine engine(model, {.kv_cache_tokens = 32 * page});
  const Request request = request_of(2 * page + 5, 8, 1);
  engine.add(request);
  engine.step();
  engine.add(request);
  engine.step();
  EXPECT_EQ(engine.stats().slots_used, 4 * page) << "two pages of both, and a last one of each";
  EXPECT_EQ(engine.stats().slots_empty, (page - 6) + (page - 5));
}

// Lengths as the paper of PagedAttention (Kwon et al. 2023, section 6.2) counts them in ShareGPT's conversations: 161
// tokens asked and 338 answered on average; the logarithm is normal, with a standard deviation of 0.8 here. Their pages
// have 16 tokens, too: half a page of each sequence is empty, and less than 4 % of the memory.
TEST(CacheWaste, IsLessThanFourPercentOverAMixtureOfLengths) {
  const nn::Transformer model = tiny_model(DType::f32, {}, 2048);
  RandomStream random(7, RandomPurpose::test);
  const auto length = [&](double mean) {
    constexpr double deviation = 0.8;
    const double logarithm = deviation * random.normal() - deviation * deviation / 2;
    return std::clamp<int64_t>(std::llround(mean * std::exp(logarithm)), 1, 1000);
  };
  Engine engine(model, {.kv_cache_tokens = 1024 * page, .max_sequences = 16, .enable_prefix_caching = false});
  for (int32_t i = 0; i < 32; ++i) engine.add(request_of(length(161), length(338), i + 1));
  int64_t slots = 0, empty = 0;
  while (!engine.idle()) {
    engine.step();
    slots += engine.stats().slots_used;
    empty += engine.stats().slots_empty;
  }
  EXPECT_GT(slots, 0);
  EXPECT_LT(static_cast<double>(empty), 0.04 * static_cast<double>(slots));
  RecordProperty("empty_percent", std::to_string(100 * static_cast<double>(empty) / static_cast<double>(slots)));
}

}  // namespace
}  // namespace lathe::engine
