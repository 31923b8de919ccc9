// A decode step's kernels on a device: a layer is few of them, because between the products that read its weights the
// card should have nothing to do.
#include <gtest/gtest.h>

#include "autograd/recording.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simt/options.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

const Device simt_device{DeviceKind::simt};

Tensor numbers(const std::vector<int32_t>& values, const Shape& shape) { return Tensor::of<int32_t>(values, shape); }

// One token of one sequence after `context` others.
int64_t launches_of_step(const std::string& folder) {
  constexpr int32_t context = 7;
  const ModelFiles files = open_model_files(golden(folder));
  const Transformer model(files.config, *files.weights,
                          {.dtype = DType::bf16, .max_positions = 64, .device = simt_device});
  KvCache cache(files.config, DType::bf16, 1, KvCache::default_page_size, simt_device);
  const kernels::PagedBatch batch(numbers({0, 1}, {2}), numbers({context + 1}, {1}), numbers({0}, {1, 1}),
                                  cache.shape());
  PagedAttention attention(files.config, cache, batch);
  const TokenBatch tokens{numbers({5}, {1}), {numbers({0, 1}, {2}), numbers({context}, {1}), numbers({0}, {1})}, {}};
  const autograd::NoGradScope no_grad;
  kernels::synchronize(simt_device);
  const int64_t before = simt::launches_run();
  model.forward(tokens, attention);
  kernels::synchronize(simt_device);
  return simt::launches_run() - before;
}

// norm, q k v, their rotation and append, attention, output; norm, gate and up, down. One after another they were 14.
TEST(DecodeLaunches, ALlamaLayerIsEight) {
  EXPECT_EQ(launches_of_step("tiny_llama/untied"), 2 + 8 * 2) << "embedding, last norm and two layers";
}

// q's and k's norms are in the rotation's.
TEST(DecodeLaunches, AQwen3LayerIsEight) { EXPECT_EQ(launches_of_step("tiny_qwen3/untied"), 2 + 8 * 2); }

// The first five of these; norm, router, what it chooses, gate and up of all experts, down, x + their sum.
TEST(DecodeLaunches, AMixturesLayerIsEleven) {
  EXPECT_EQ(launches_of_step("tiny_qwen3_moe/all"), 2 + 11 * 2);
  EXPECT_EQ(launches_of_step("tiny_mixtral"), 2 + 11 * 2);
}

// And of the expert that all tokens share: gate and up, down, its own gate, what is added by that, and x + it all.
TEST(DecodeLaunches, ASharedExpertIsFiveMore) { EXPECT_EQ(launches_of_step("tiny_qwen2_moe/all"), 2 + 16 * 2); }

}  // namespace
}  // namespace lathe::nn
