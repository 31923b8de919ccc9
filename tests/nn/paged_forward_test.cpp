// Generation is the training forward: tokens that come in pieces through pages have the bits of the whole sequence.
#include <gtest/gtest.h>

#include <numeric>

#include "kernels/copy/copy.h"
#include "tests/nn/golden_models.h"

namespace lathe::nn {
namespace {

Tensor integers(const std::vector<int32_t>& values, const Shape& shape) { return Tensor::of<int32_t>(values, shape); }

// Logits of every position, [T, vocab], the sequence given in pieces of these lengths.
std::vector<float> logits_in_pieces(const Transformer& model, const std::vector<int32_t>& ids,
                                    const std::vector<int32_t>& pieces) {
  const autograd::NoGradScope no_grad;
  const auto pages = static_cast<int32_t>((ids.size() + 15) / 16);
  const bool has_states = model.config().has_states();
  KvCache cache(model.config(), model.dtype(), pages, KvCache::default_page_size, model.device(), has_states ? 3 : 0);
  const Tensor state = has_states ? integers({2}, {1}) : Tensor();
  std::vector<int32_t> block_table(static_cast<size_t>(pages));
  std::iota(block_table.rbegin(), block_table.rend(), 0);  // any order
  std::vector<float> all;
  int32_t done = 0;
  for (const int32_t length : pieces) {
    std::vector<int32_t> positions(static_cast<size_t>(length));
    std::iota(positions.begin(), positions.end(), done);
    const TokenBatch batch{
        Tensor::of<int32_t>(std::span(ids).subspan(static_cast<size_t>(done), positions.size()), {length}),
        {integers({0, length}, {2}), integers(positions, {length}), integers({0}, {1})}};
    done += length;
    PagedAttention attention(
        model.config(), cache,
        {batch.layout.cu_seqlens, integers({done}, {1}), integers(block_table, {1, pages}), cache.shape(), {}, state});
    const Tensor logits = kernels::moved(model.logits(model.forward(batch, attention).value()), {});
    all.insert(all.end(), logits.data<float>(), logits.data<float>() + logits.numel());
  }
  return all;
}

class PagedForward : public testing::TestWithParam<const char*> {};

TEST_P(PagedForward, HasTheBitsOfThePackedOne) {
  const auto sequences =
      golden_json(std::string(GetParam()) + "/expected.json")["input_ids"].get<std::vector<std::vector<int32_t>>>();
  const std::vector<int32_t>& ids = sequences[1];  // of 37
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Transformer model = load(golden(GetParam()), dtype);
    const Tensor packed = logits_of(model, {ids});
    const std::vector<float> whole(packed.data<float>(), packed.data<float>() + packed.numel());
    EXPECT_EQ(logits_in_pieces(model, ids, {37}), whole) << name_of(dtype);
    EXPECT_EQ(logits_in_pieces(model, ids, {5, 20, 1, 1, 1, 9}), whole) << name_of(dtype);
    EXPECT_EQ(logits_in_pieces(model, ids, std::vector<int32_t>(37, 1)), whole) << name_of(dtype);
  }
}

TEST_P(PagedForward, HasTheBitsOfThePackedOneOnSimt) {
  const auto sequences =
      golden_json(std::string(GetParam()) + "/expected.json")["input_ids"].get<std::vector<std::vector<int32_t>>>();
  const std::vector<int32_t> ids(sequences[1].begin(), sequences[1].begin() + 18);
  const ModelFiles files = open_model_files(golden(GetParam()));
  const auto model_for = [&](WeightMode mode) {
    return Transformer(files.config, *files.weights,
                       {.dtype = DType::bf16, .weights = mode, .max_positions = 64, .device = {DeviceKind::simt}});
  };
  const Transformer model = model_for(WeightMode::frozen);
  const Tensor packed = kernels::moved(logits_of(model, {ids}), {});
  const std::vector<float> whole(packed.data<float>(), packed.data<float>() + packed.numel());
  EXPECT_EQ(logits_in_pieces(model, ids, {5, 11, 1, 1}), whole);
  const Tensor trained = kernels::moved(logits_of(model_for(WeightMode::trainable), {ids}), {});
  EXPECT_EQ(largest_difference(trained, packed), 0.0);
}

INSTANTIATE_TEST_SUITE_P(Golden, PagedForward, testing::ValuesIn(tiny_models));

}  // namespace
}  // namespace lathe::nn
