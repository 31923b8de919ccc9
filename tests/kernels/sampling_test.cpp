// sampling: against the f64 reference in every instruction set, the filters' sets against its sorting of everything,
// draws that depend on (seed, position) alone, frequencies that follow the weights, and log-probabilities that are
// token_logprobs' bits.
#include "kernels/sampling/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/copy/copy.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/sampling/reference.h"
#include "kernels/simd/isa.h"
#include "tests/kernels/sampling_cases.h"
#include "tests/support/kernel_checks.h"

namespace lathe::kernels {
namespace {

LATHE_CHECK_OPERATIONS(lathe::testing::sampling_operations());

std::vector<float> random_logits(int64_t n, uint64_t seed, float scale = 3.0f) {
  std::vector<float> logits(static_cast<size_t>(n));
  RandomStream random(seed, RandomPurpose::test);
  for (float& x : logits) x = scale * random.normal();
  return logits;
}

struct Drawn {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
};
Drawn draw(const std::vector<std::vector<float>>& logits, const std::vector<SamplingRow>& rows) {
  const int64_t b = static_cast<int64_t>(logits.size()), v = static_cast<int64_t>(logits.front().size());
  const Tensor matrix = Tensor::empty({b, v}, DType::f32), tokens = Tensor::empty({b}, DType::i32),
               logprobs = Tensor::empty({b}, DType::f32);
  for (int64_t i = 0; i < b; ++i)
    std::copy(logits[static_cast<size_t>(i)].begin(), logits[static_cast<size_t>(i)].end(),
              matrix.data<float>() + i * v);
  sample(tokens, logprobs, matrix, rows);
  const auto t = tokens.span<int32_t>();
  const auto p = logprobs.span<float>();
  return {{t.begin(), t.end()}, {p.begin(), p.end()}};
}
int32_t draw_one(const std::vector<float>& logits, const SamplingParams& params, uint64_t position = 0) {
  return draw({logits}, {{.params = params, .position = position}}).tokens[0];
}

// By sorting the whole vocabulary in double.
std::vector<int32_t> plain_filter(const std::vector<float>& logits, const SamplingParams& params) {
  return reference::kept_tokens(std::vector<double>(logits.begin(), logits.end()), params);
}

std::vector<int32_t> ids_of(const std::vector<Kept>& kept) {
  std::vector<int32_t> ids;
  for (const Kept& token : kept) ids.push_back(token.token);
  return ids;
}

TEST(Sampling, FiltersKeepWhatSortingEverythingKeeps) {
  const SamplingParams settings[] = {{.top_k = 1},
                                     {.top_k = 5},
                                     {.top_k = 50},
                                     {.top_k = 100000},
                                     {.top_p = 0.1f},
                                     {.top_p = 0.5f},
                                     {.top_p = 0.9f},
                                     {.top_p = 0.999f},
                                     {.min_p = 0.01f},
                                     {.min_p = 0.3f},
                                     {.min_p = 1.0f},
                                     {.temperature = 0.3f, .top_p = 0.7f},
                                     {.temperature = 3.0f, .top_p = 0.95f},
                                     {.top_k = 40, .top_p = 0.8f},
                                     {.temperature = 1.7f, .top_k = 300, .top_p = 0.9f, .min_p = 0.05f},
                                     {.top_p = 0.6f, .min_p = 0.2f}};
  for (const int64_t n : {1, 2, 17, 1000, 5003}) {
    for (const float scale : {0.1f, 3.0f}) {
      std::vector<float> logits = random_logits(n, static_cast<uint64_t>(n), scale);
      if (n > 10) logits[3] = logits[7] = -INFINITY;
      for (const SamplingParams& params : settings) {
        EXPECT_EQ(ids_of(kept_tokens(logits, params)), plain_filter(logits, params))
            << n << " tokens × " << scale << ": temperature " << params.temperature << ", top_k " << params.top_k
            << ", top_p " << params.top_p << ", min_p " << params.min_p;
      }
    }
  }
}

// Every instruction set's bits; 3 units in the last place of the fraction (2^-24 at most each), then cut at 2^-40.
TEST(Sampling, WeightsAreTheExponential) {
  std::vector<float> logits = {0.0f};
  for (float z = -1e-6f; z > -45.0f; z *= 1.003f) logits.push_back(z);
  const Isa before = active_isa();
  std::vector<uint64_t> anywhere;
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_bf16}) {
    if (!machine_has(isa)) continue;
    set_active_isa(isa);
    std::vector<uint64_t> weights(logits.size());
    for (const Kept& kept : kept_tokens(logits, {})) weights[static_cast<size_t>(kept.token)] = kept.weight;
    for (size_t i = 0; i < logits.size(); ++i) {
      const double expected = std::exp(static_cast<double>(logits[i])),
                   found = static_cast<double>(weights[i]) * 0x1p-40;
      EXPECT_LE(found, expected * (1 + 3 * 0x1p-24)) << logits[i];
      EXPECT_GE(found, expected * (1 - 3 * 0x1p-24) - 0x1p-40) << logits[i];
    }
    if (anywhere.empty()) anywhere = weights;
    EXPECT_EQ(weights, anywhere) << name_of(isa);
  }
  set_active_isa(before);
}

TEST(Sampling, TiesAtTopKStayAndTiesAtTopPGoToTheLowerId) {
  const std::vector<float> logits = {0, 2, 1, 1, 1, -5, 2};
  EXPECT_EQ(ids_of(kept_tokens(logits, {.top_k = 3})), (std::vector<int32_t>{1, 2, 3, 4, 6}));
  EXPECT_EQ(ids_of(kept_tokens(std::vector<float>(8, 1.0f), {.top_p = 0.5f})), (std::vector<int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(kept_tokens(std::vector<float>(3000, 1.0f), {.top_k = 2}).size(), 3000u);  // all are equal
  std::vector<int32_t> lower_half(1500);
  std::iota(lower_half.begin(), lower_half.end(), 0);
  EXPECT_EQ(ids_of(kept_tokens(std::vector<float>(3000, 1.0f), {.top_p = 0.5f})), lower_half);
}

TEST(Sampling, GreedyIsTheFirstMaximum) {
  for (const int n : {1, 15, 16, 17, 33, 5000}) {
    std::vector<float> logits = random_logits(n, 9);
    const int first = n / 3, last = n - 1;
    logits[static_cast<size_t>(first)] = logits[static_cast<size_t>(last)] = 100.0f;
    EXPECT_EQ(draw_one(logits, {.temperature = 0.0f, .top_k = 7, .top_p = 0.3f}), first) << n;
  }
}

TEST(Sampling, OneTokenLeftIsAlwaysDrawn) {
  const std::vector<float> logits = random_logits(300, 4);
  const int32_t best = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  for (uint64_t position = 0; position < 50; ++position) {
    EXPECT_EQ(draw_one(logits, {.temperature = 5.0f, .top_k = 1}, position), best);
    EXPECT_EQ(draw_one(logits, {.temperature = 5.0f, .top_p = 1e-6f}, position), best);
    EXPECT_EQ(draw_one(logits, {.temperature = 1e-4f}, position), best);
  }
  std::vector<float> banned(40, -INFINITY);
  banned[23] = -7.0f;
  EXPECT_EQ(draw_one(banned, {}), 23);
}

// The inverse of the distribution function at u, in double: the draw is this token, or its neighbour where u lies
// within the rounding of a step.
TEST(Sampling, TheDrawIsTheInverseOfTheDistributionAtU) {
  for (const int64_t n : {5, 1000, 1024, 1025, 7000}) {
    const std::vector<float> logits = random_logits(n, static_cast<uint64_t>(n) + 1);
    for (const SamplingParams& params : {SamplingParams{}, SamplingParams{.temperature = 0.7f, .top_k = 100},
                                         SamplingParams{.temperature = 1.3f, .top_p = 0.9f, .seed = 77}}) {
      const std::vector<int32_t> kept = plain_filter(logits, params);
      std::vector<double> cumulative;
      double total = 0;
      for (const int32_t id : kept)
        cumulative.push_back(total += std::exp(static_cast<double>(logits[static_cast<size_t>(id)]) /
                                               static_cast<double>(params.temperature)));
      for (uint64_t position = 0; position < 200; ++position) {
        const auto bits = random_bits(params.seed, RandomPurpose::sampling, 0, position);
        const double u = (static_cast<double>(bits[0]) + static_cast<double>(bits[1]) * 0x1p-32) * 0x1p-32;
        const int32_t drawn = draw_one(logits, params, position);
        const auto at = std::lower_bound(kept.begin(), kept.end(), drawn) - kept.begin();
        ASSERT_TRUE(at < static_cast<std::ptrdiff_t>(kept.size()) && kept[static_cast<size_t>(at)] == drawn)
            << drawn << " was filtered away";
        // f32 weights: two ulp of exp, the rounding of z and of sums of 1024 in 32 partials; 64 roundings at most.
        const double slack = 64 * 0x1p-24 * total;
        const double below = at == 0 ? 0.0 : cumulative[static_cast<size_t>(at - 1)],
                     above = cumulative[static_cast<size_t>(at)];
        EXPECT_LE(below, u * total + slack) << n << " " << position;
        EXPECT_GE(above, u * total - slack) << n << " " << position;
      }
    }
  }
}

// 4000 independent draws of a token with probability p: the count leaves n·p ± 6·√(n·p·(1−p)) + 1 with probability
// below 1e-8 (Bernstein); the draws are fixed by their seed, so that this holds or does not, for good.
TEST(Sampling, FrequenciesFollowTheWeights) {
  const std::vector<float> logits = {0.0f, 1.0f, -1.0f, 2.0f, 0.5f, -INFINITY, 1.5f};
  double total = 0;
  for (const float z : logits) total += std::exp(static_cast<double>(z));
  std::map<int32_t, int> counts;
  const int draws = 4000;
  for (int i = 0; i < draws; ++i) ++counts[draw_one(logits, {.seed = 123}, static_cast<uint64_t>(i))];
  for (size_t i = 0; i < logits.size(); ++i) {
    const double p = std::exp(static_cast<double>(logits[i])) / total;
    EXPECT_NEAR(counts[static_cast<int32_t>(i)], draws * p, 6 * std::sqrt(draws * p * (1 - p)) + (p > 0 ? 1 : 0)) << i;
  }
}

TEST(Sampling, DrawsDependOnSeedAndPositionAlone) {
  const std::vector<float> logits = random_logits(400, 8, 0.5f);
  int differs_by_seed = 0, differs_by_position = 0;
  for (uint64_t i = 0; i < 40; ++i) {
    const int32_t token = draw_one(logits, {.seed = 5}, i);
    EXPECT_EQ(token, draw_one(logits, {.seed = 5}, i));
    differs_by_seed += token != draw_one(logits, {.seed = 6}, i);
    differs_by_position += token != draw_one(logits, {.seed = 5}, i + 1);
  }
  EXPECT_GT(differs_by_seed, 30);
  EXPECT_GT(differs_by_position, 30);
}

TEST(Sampling, ARowIsTheSameAloneInAnyBatchAndInstructionSet) {
  std::vector<std::vector<float>> logits;
  std::vector<SamplingRow> rows;
  const std::vector<int32_t> seen = {1, 5, 5, 9};
  for (uint64_t i = 0; i < 24; ++i) {
    logits.push_back(random_logits(2500, 100 + i));
    SamplingRow row;
    row.position = i * 3;
    row.params.seed = i / 4;
    row.params.temperature = i % 5 == 0 ? 0.0f : 0.5f + 0.1f * static_cast<float>(i);
    row.params.top_k = i % 3 == 0 ? 40 : 0;
    row.params.top_p = i % 2 == 0 ? 0.9f : 1.0f;
    row.params.min_p = i % 7 == 0 ? 0.02f : 0.0f;
    row.params.repetition_penalty = i % 4 == 0 ? 1.3f : 1.0f;
    row.output_tokens = seen;
    rows.push_back(row);
  }
  const int threads = thread_count();
  const Isa before = active_isa();
  std::vector<int32_t> anywhere;
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_bf16}) {
    if (!machine_has(isa)) continue;
    set_active_isa(isa);
    set_thread_count(1);
    const Drawn all = draw(logits, rows);
    if (anywhere.empty()) anywhere = all.tokens;
    EXPECT_EQ(all.tokens, anywhere) << name_of(isa);
    for (const int count : {2, 3}) {
      set_thread_count(count);
      const Drawn again = draw(logits, rows);
      EXPECT_EQ(again.tokens, all.tokens);
      EXPECT_EQ(again.logprobs, all.logprobs);
    }
    for (size_t i = 0; i < logits.size(); ++i) {
      const Drawn alone = draw({logits[i]}, {rows[i]});
      EXPECT_EQ(alone.tokens[0], all.tokens[i]) << i;
      EXPECT_EQ(std::bit_cast<uint32_t>(alone.logprobs[0]), std::bit_cast<uint32_t>(all.logprobs[i])) << i;
    }
  }
  set_active_isa(before);
  set_thread_count(threads);
}

constexpr Device simt = {DeviceKind::simt};
Tensor moved(const Tensor& from, Device to) {
  const Tensor copied = Tensor::empty(from.shape(), from.dtype(), to);
  copy(copied, from);
  return copied;
}

// Ties, banned tokens, nuclei that end among equals, and more rows than go into one launch.
TEST(Sampling, ADeviceDrawsTheTokensOfTheCpu) {
  const SamplingParams settings[] = {{},
                                     {.temperature = 0.0f},
                                     {.top_k = 1},
                                     {.top_k = 40, .top_p = 0.9f},
                                     {.temperature = 0.6f, .top_p = 0.95f},
                                     {.temperature = 3.0f, .top_p = 0.3f, .min_p = 0.1f},
                                     {.top_k = 900, .min_p = 0.01f},
                                     {.top_p = 0.5f, .repetition_penalty = 1.2f, .presence_penalty = 0.3f}};
  for (const auto& [vocabulary, rows, scale] : {std::tuple{3, 66, 2.0f}, {700, 16, 3.0f}, {2500, 8, 0.2f}}) {
    const Tensor logits = Tensor::empty({rows, vocabulary}, DType::f32);
    std::vector<SamplingRow> each(static_cast<size_t>(rows));
    const std::vector<int32_t> seen = {1, 0, 1, 2};
    for (int b = 0; b < rows; ++b) {
      std::vector<float> row = random_logits(vocabulary, static_cast<uint64_t>(vocabulary + b), scale);
      if (b % 3 == 0)
        for (float& z : row) z = std::round(2 * z) / 2;
      if (b % 4 == 1) row[0] = -INFINITY;
      std::copy(row.begin(), row.end(), logits.data<float>() + b * vocabulary);
      SamplingRow& settings_of_row = each[static_cast<size_t>(b)];
      settings_of_row.params = settings[b % 8];
      settings_of_row.params.seed = static_cast<uint64_t>(b);
      settings_of_row.position = static_cast<uint64_t>(7 * b);
      settings_of_row.output_tokens = seen;
    }
    const Tensor on_device = moved(logits, simt), tokens = Tensor::empty({rows}, DType::i32, simt),
                 logprobs = Tensor::empty({rows}, DType::f32, simt), expected = Tensor::empty({rows}, DType::i32);
    const Tensor device_only = moved(logits, simt), without_logprobs = Tensor::empty({rows}, DType::i32, simt);
    sample(tokens, logprobs, on_device, each);
    sample(without_logprobs, {}, device_only, each);
    sample(expected, {}, logits, each);
    const Tensor found = moved(tokens, {}), again = moved(without_logprobs, {}), penalised = moved(on_device, {});
    for (int b = 0; b < rows; ++b) {
      EXPECT_EQ(found.data<int32_t>()[b], expected.data<int32_t>()[b]) << vocabulary << " " << b;
      EXPECT_EQ(again.data<int32_t>()[b], expected.data<int32_t>()[b]) << vocabulary << " " << b;
    }
    EXPECT_EQ(std::memcmp(penalised.raw(), logits.raw(), static_cast<size_t>(logits.nbytes())), 0);
  }
}

// As a captured graph does: 70 rows are two launches of sample(), one of sample_with().
TEST(Sampling, SettingsInDeviceMemoryDrawTheSame) {
  constexpr int64_t rows = 70, vocabulary = 200;
  const Tensor logits = Tensor::empty({rows, vocabulary}, DType::f32);
  std::vector<SamplingRow> each(rows);
  for (size_t b = 0; b < rows; ++b) {
    const std::vector<float> row = random_logits(vocabulary, b, 3.0f);
    std::copy(row.begin(), row.end(), logits.data<float>() + b * vocabulary);
    each[b].params = {.temperature = b % 5 == 0 ? 0.0f : 0.8f,
                      .top_k = static_cast<int32_t>(b % 4 * 10),
                      .top_p = b % 3 == 0 ? 0.7f : 1.0f,
                      .min_p = b % 7 == 0 ? 0.05f : 0.0f,
                      .seed = b};
    each[b].position = 3 * b;
  }
  const Tensor on_device = moved(logits, simt), settings = moved(sampling_settings(each), simt);
  std::vector<Tensor> found;
  for (const bool stored : {true, false}) {
    const Tensor tokens = Tensor::empty({rows}, DType::i32, simt), logprobs = Tensor::empty({rows}, DType::f32, simt);
    stored ? sample_with(tokens, logprobs, on_device, settings) : sample(tokens, logprobs, on_device, each);
    for (const Tensor& result : {tokens, logprobs}) found.push_back(moved(result, {}));
  }
  for (const size_t i : {0u, 1u})
    EXPECT_EQ(std::memcmp(found[i].raw(), found[i + 2].raw(), sizeof(float) * rows), 0) << i;

  each[1].params.presence_penalty = 0.1f;
  EXPECT_THROW(sampling_settings(each), ConfigError);
  const Tensor tokens = Tensor::empty({rows}, DType::i32);
  EXPECT_THROW(sample_with(tokens, {}, logits, Tensor::empty({rows, sampling_setting_words}, DType::i32)), ShapeError);
}

TEST(Sampling, BrokenLogitsOnADeviceAreFoundInTheTokens) {
  std::vector<float> values(4 * 40, 1.0f);
  values[45] = NAN;
  values[46] = INFINITY;
  values[95] = INFINITY;
  std::fill(values.begin() + 120, values.end(), -INFINITY);
  for (const float temperature : {0.0f, 1.0f}) {
    const Tensor tokens = Tensor::empty({4}, DType::i32, simt), logprobs = Tensor::empty({4}, DType::f32, simt);
    sample(tokens, logprobs, moved(Tensor::of<float>(values, {4, 40}), simt),
           std::vector<SamplingRow>(4, {.params = {.temperature = temperature}}));
    const Tensor found = moved(tokens, {}), probabilities = moved(logprobs, {});
    EXPECT_GE(found.data<int32_t>()[0], 0);
    for (int b = 1; b < 4; ++b) {
      EXPECT_EQ(found.data<int32_t>()[b], -b);
      EXPECT_TRUE(std::isnan(probabilities.data<float>()[b]));
    }
    EXPECT_NO_THROW(expect_sampled(found.span<int32_t>().first(1)));
    try {
      expect_sampled(found.span<int32_t>());
      ADD_FAILURE() << "broken logits were sampled from";
    } catch (const NumericError& error) {
      EXPECT_NE(std::string(error.what()).find("row 1 of the logits holds NaN"), std::string::npos) << error.what();
    }
  }
}

TEST(Sampling, LogprobsAreTheBitsOfTokenLogprobs) {
  const std::vector<int32_t> seen = {2, 2, 2, 11};
  for (const int64_t n : {12, 17, 3001}) {
    const std::vector<float> logits = random_logits(n, static_cast<uint64_t>(n));
    for (const SamplingParams& params :
         {SamplingParams{.temperature = 0.0f}, SamplingParams{.temperature = 2.0f},
          SamplingParams{.temperature = 0.5f, .top_k = 5},
          SamplingParams{.top_p = 0.5f, .repetition_penalty = 1.5f, .presence_penalty = -8.0f}}) {
      const Drawn drawn = draw({logits}, {{.params = params, .position = 3, .output_tokens = seen}});
      const Tensor expected = Tensor::empty({1}, DType::f32);
      token_logprobs(expected, Tensor::of<float>(logits, {1, n}), Tensor::of<int32_t>(drawn.tokens, {1}));
      EXPECT_EQ(std::bit_cast<uint32_t>(drawn.logprobs[0]), std::bit_cast<uint32_t>(expected.data<float>()[0])) << n;
    }
  }
}

TEST(Sampling, PenaltiesChangeTheLogitsOfTokensSeenOnce) {
  const std::vector<float> values = {2.0f, -2.0f, 3.0f, -3.0f, 4.0f, 0.0f};
  const Tensor logits = Tensor::of<float>(values, {1, 6}), tokens = Tensor::empty({1}, DType::i32);
  const std::vector<int32_t> prompt = {0, 1, 0, 2}, output = {2, 3, 3, 3};
  const SamplingRow row{
      .params = {.temperature = 0.0f, .repetition_penalty = 2.0f, .presence_penalty = 0.25f, .frequency_penalty = 0.5f},
      .prompt_tokens = prompt,
      .output_tokens = output};
  sample(tokens, {}, logits, {&row, 1});
  const float expected[] = {1.0f, -4.0f, 3.0f / 2 - 0.75f, -6.0f - 1.75f, 4.0f, 0.0f};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(logits.data<float>()[i], expected[i]) << i;
  EXPECT_EQ(tokens.data<int32_t>()[0], 4);
}

TEST(Sampling, WithoutPenaltiesTheLogitsStayAsTheyAre) {
  const std::vector<float> values = random_logits(50, 1);
  const std::vector<int32_t> seen = {1, 1, 9999};  // not read: no penalty is set
  const Tensor logits = Tensor::of<float>(values, {1, 50}), tokens = Tensor::empty({1}, DType::i32);
  const SamplingRow row{.params = {.temperature = 0.7f, .top_k = 4}, .prompt_tokens = seen, .output_tokens = seen};
  sample(tokens, {}, logits, {&row, 1});
  EXPECT_TRUE(std::equal(values.begin(), values.end(), logits.data<float>()));
}

TEST(Sampling, BrokenLogitsAreAnErrorThatNamesTheRow) {
  std::vector<float> whole = random_logits(40, 2), nan = whole, infinite = whole, empty(40, -INFINITY),
                     late = random_logits(35, 2);
  nan[5] = NAN;
  infinite[5] = INFINITY;
  for (const auto& broken : {nan, infinite, empty}) {
    for (const float temperature : {0.0f, 1.0f}) {
      const SamplingRow row{.params = {.temperature = temperature}};
      try {
        draw({whole, broken}, {row, row});
        FAIL() << "broken logits were sampled from";
      } catch (const NumericError& error) {
        EXPECT_NE(std::string(error.what()).find("row 1"), std::string::npos) << error.what();
      }
    }
  }
  late[34] = NAN;  // past the last whole vector
  EXPECT_THROW(draw_one(late, {}), NumericError);
}

TEST(Sampling, RefusesParametersOutOfTheirRange) {
  const std::vector<float> logits = {1, 2, 3};
  for (const auto& [params, key] : {std::pair{SamplingParams{.temperature = -1}, "temperature"},
                                    {SamplingParams{.temperature = NAN}, "temperature"},
                                    {SamplingParams{.top_k = -2}, "top_k"},
                                    {SamplingParams{.top_p = 0}, "top_p"},
                                    {SamplingParams{.top_p = 1.5f}, "top_p"},
                                    {SamplingParams{.min_p = -0.1f}, "min_p"},
                                    {SamplingParams{.repetition_penalty = 0}, "repetition_penalty"},
                                    {SamplingParams{.presence_penalty = INFINITY}, "presence_penalty"},
                                    {SamplingParams{.frequency_penalty = NAN}, "frequency_penalty"}}) {
    try {
      draw_one(logits, params);
      ADD_FAILURE() << key << " was taken";
    } catch (const ConfigError& error) {
      EXPECT_EQ(error.key(), key);
    }
  }
  const Tensor tokens = Tensor::zeros({2}, DType::i32), matrix = Tensor::zeros({2, 3}, DType::f32);
  const SamplingRow row{};
  EXPECT_THROW(sample(tokens, {}, matrix, {&row, 1}), ShapeError);
  EXPECT_THROW(sample(Tensor::zeros({2}, DType::i64), {}, matrix, std::vector<SamplingRow>(2)), ShapeError);
  const std::vector<int32_t> outside = {3};
  EXPECT_THROW(draw({logits}, {{.params = {.presence_penalty = 1}, .output_tokens = outside}}), ShapeError);
}

}  // namespace
}  // namespace lathe::kernels
