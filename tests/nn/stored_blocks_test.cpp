// A transformer that keeps the blocks of its source: the same model, on the CPU but for its activations' rounding, on
// devices to the bit, in any batch; what trains is widened.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

// A model's weights with every matrix of whole blocks rounded to Q8_0, which it has as blocks, too.
class RoundedToBlocks final : public WeightSource {
 public:
  explicit RoundedToBlocks(const WeightSource& source) : source_(source), infos_(source.weights()) {
    for (WeightInfo& info : infos_) {
      if (info.shape.rank() != 2 || info.shape[1] % 32 != 0) continue;
      info.stored_type = "Q8_0";
      std::vector<float> values(static_cast<size_t>(info.shape.numel()));
      source.read_rows(info.name, 0, info.shape[0], values.data());
      std::vector<std::byte>& bytes = blocks_[info.name];
      for (size_t at = 0; at < values.size(); at += 32) {
        float largest = 0;
        for (size_t i = 0; i < 32; ++i) largest = std::max(largest, std::abs(values[at + i]));
        const f16 scale(largest / 127.0f);
        std::byte block[34];
        std::memcpy(block, &scale.bits, 2);
        for (size_t i = 0; i < 32; ++i) {
          const float code = std::nearbyint(values[at + i] / std::max(static_cast<float>(scale), 1e-20f));
          block[2 + i] = static_cast<std::byte>(static_cast<int8_t>(std::clamp(code, -127.0f, 127.0f)));
        }
        bytes.insert(bytes.end(), block, block + sizeof block);
      }
    }
  }
  const std::vector<WeightInfo>& weights() const override { return infos_; }
  const WeightInfo* find(std::string_view name) const override {
    const auto found = std::ranges::find(infos_, name, &WeightInfo::name);
    return found == infos_.end() ? nullptr : &*found;
  }
  void read_rows(std::string_view name, int64_t first, int64_t count, float* out) const override {
    const auto found = blocks_.find(name);
    if (found == blocks_.end()) return source_.read_rows(name, first, count, out);
    const int64_t row_blocks = find(name)->shape[1] / 32;
    const std::byte* block = found->second.data() + first * row_blocks * 34;
    for (int64_t b = 0; b < count * row_blocks; ++b, block += 34) {
      f16 scale;
      std::memcpy(&scale.bits, block, 2);
      for (int64_t i = 0; i < 32; ++i)
        *out++ = static_cast<float>(static_cast<int8_t>(block[2 + i])) * static_cast<float>(scale);
    }
  }
  std::optional<StoredBlocks> blocks(std::string_view name) const override {
    const auto found = blocks_.find(name);
    if (found == blocks_.end()) return std::nullopt;
    const Shape& shape = find(name)->shape;
    StoredBlocks blocks{kernels::GgmlFormat::q8_0, {}};
    for (int64_t row = 0; row < shape[0]; ++row) blocks.rows.push_back(found->second.data() + row * shape[1] / 32 * 34);
    return blocks;
  }

 private:
  const WeightSource& source_;
  std::vector<WeightInfo> infos_;
  std::map<std::string, std::vector<std::byte>, std::less<>> blocks_;
};

class StoredBlocksTest : public ::testing::TestWithParam<const char*> {
 protected:
  ModelFiles files = open_model_files(golden(GetParam()));
  RoundedToBlocks rounded{*files.weights};
  std::vector<std::vector<int32_t>> ids = golden_json(std::string(GetParam()) + "/expected.json")["input_ids"];

  Transformer model(StoredBlockUse use, DType dtype = DType::f32, WeightMode mode = WeightMode::frozen,
                    Device device = {}) const {
    return Transformer(files.config, rounded,
                       {.dtype = dtype, .weights = mode, .stored_blocks = use, .device = device});
  }
};

TEST_P(StoredBlocksTest, LogitsAreThoseOfTheWidenedWeightsButForTheirActivationsRounding) {
  const Tensor kept = logits_of(model(StoredBlockUse::keep), ids), wide = logits_of(model(StoredBlockUse::widen), ids);
  const double difference = largest_difference(kept, wide);
  EXPECT_GT(difference, 0.0) << "no block was kept";
  // Each activation is off by up to 2^-16 of its block's largest: of the same order in the logits, which are near 1.
  EXPECT_LT(difference, 1e-3);
}

TEST_P(StoredBlocksTest, ASequenceHasTheSameBitsAloneAndInABatch) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Transformer kept = model(StoredBlockUse::keep, dtype);
    const Tensor all = logits_of(kept, ids);
    int64_t row = 0;
    for (const auto& sequence : ids) {
      const auto length = static_cast<int64_t>(sequence.size());
      const Tensor alone = logits_of(kept, {sequence});
      EXPECT_EQ(std::memcmp(alone.raw(), all.slice(0, row, row + length).raw(), static_cast<size_t>(alone.nbytes())),
                0);
      row += length;
    }
  }
}

TEST_P(StoredBlocksTest, TakeTheBytesOfTheFile) {
  const Transformer kept = model(StoredBlockUse::keep);
  const kernels::Weight& weight = kept.output_weight().value();
  ASSERT_NE(weight.ggml(), nullptr);
  EXPECT_EQ(weight.nbytes(), weight.rows() * weight.columns() / 32 * 34);
}

// Both sequences at once, and one token alone: many rows and few.
TEST_P(StoredBlocksTest, OnADeviceTheBitsAreThoseOfTheWidenedWeights) {
  for (const Device device : {Device{DeviceKind::simt}, Device{DeviceKind::cuda}}) {
    if (!kernels::why_unavailable(device).empty()) continue;
    for (const DType dtype : {DType::bf16, DType::f32}) {
      const Transformer kept = model(StoredBlockUse::keep, dtype, WeightMode::frozen, device),
                        wide = model(StoredBlockUse::widen, dtype, WeightMode::frozen, device);
      const kernels::Weight& weight = kept.output_weight().value();
      ASSERT_NE(weight.ggml(), nullptr);
      EXPECT_LT(2 * weight.nbytes(), wide.output_weight().value().nbytes() * 5 / 4);
      for (const auto& batch : {ids, {{ids[0][0]}}}) {
        const Tensor logits = kernels::moved(logits_of(kept, batch), {}),
                     expected = kernels::moved(logits_of(wide, batch), {});
        EXPECT_EQ(std::memcmp(logits.raw(), expected.raw(), static_cast<size_t>(logits.nbytes())), 0)
            << to_string(device) << ", " << name_of(dtype) << ", " << batch.size() << " sequences";
      }
    }
  }
}

TEST_P(StoredBlocksTest, WhatTrainsIsWidened) {
  const Transformer trained = model(StoredBlockUse::keep, DType::f32, WeightMode::trainable);
  EXPECT_NE(trained.output_weight().value().dense(), nullptr);
  EXPECT_EQ(largest_difference(logits_of(trained, ids), logits_of(model(StoredBlockUse::widen), ids)), 0.0);
}

INSTANTIATE_TEST_SUITE_P(Models, StoredBlocksTest, ::testing::Values("tiny_llama/untied", "tiny_llama/tied"),
                         [](const auto& info) { return std::string(info.param).substr(11); });

// The same with every matrix in bf16.
class RoundedToBf16 final : public WeightSource {
 public:
  explicit RoundedToBf16(const WeightSource& source) : source_(source), weights_(source.weights()) {
    for (WeightInfo& info : weights_)
      if (info.shape.rank() == 2) info.stored_type = "BF16";
  }
  const std::vector<WeightInfo>& weights() const override { return weights_; }
  const WeightInfo* find(std::string_view name) const override {
    const auto found = std::ranges::find(weights_, name, &WeightInfo::name);
    return found == weights_.end() ? nullptr : &*found;
  }
  void read_rows(std::string_view name, int64_t first, int64_t count, float* out) const override {
    source_.read_rows(name, first, count, out);
    const Shape& shape = find(name)->shape;
    if (shape.rank() != 2) return;
    for (int64_t i = 0; i < count * shape[1]; ++i) out[i] = static_cast<float>(bf16(out[i]));
  }

 private:
  const WeightSource& source_;
  std::vector<WeightInfo> weights_;
};

TEST(StoredBf16, StaysSoBesideF32InTheSameBits) {
  for (const char* name : {"tiny_llama/untied", "tiny_llama/tied"}) {
    const ModelFiles files = open_model_files(golden(name));
    const RoundedToBf16 rounded(*files.weights);
    const std::vector<std::vector<int32_t>> ids = golden_json(std::string(name) + "/expected.json")["input_ids"];
    const Transformer kept(files.config, rounded, {.dtype = DType::f32, .stored_blocks = StoredBlockUse::keep});
    const Transformer wide(files.config, rounded, {.dtype = DType::f32, .stored_blocks = StoredBlockUse::widen});
    EXPECT_EQ(2 * kept.output_weight().value().nbytes(), wide.output_weight().value().nbytes());
    const Tensor logits = logits_of(kept, ids), expected = logits_of(wide, ids);
    EXPECT_EQ(std::memcmp(logits.raw(), expected.raw(), static_cast<size_t>(logits.nbytes())), 0);
  }
}

TEST(InferencePrecision, FollowsFromWeightsAndDtype) {
  EXPECT_EQ(parse_inference_precision("file", "f32").stored_blocks, StoredBlockUse::keep);
  EXPECT_EQ(parse_inference_precision("file", "f32").dtype, DType::f32);
  EXPECT_EQ(parse_inference_precision("bf16", "auto").dtype, DType::bf16);
  EXPECT_EQ(parse_inference_precision("bf16", "auto").stored_blocks, StoredBlockUse::widen);
  EXPECT_EQ(parse_inference_precision("f32", "float32").dtype, DType::f32);
  EXPECT_THROW(parse_inference_precision("f32", "bf16"), ConfigError);
  EXPECT_THROW(parse_inference_precision("int8", "auto"), ConfigError);
}

}  // namespace
}  // namespace lathe::nn
