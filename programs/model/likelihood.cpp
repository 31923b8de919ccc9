#include "programs/model/likelihood.h"

#include "autograd/ops/token_logprobs.h"
#include "autograd/recording.h"
#include "data/rows/sft_rows.h"
#include "kernels/copy/copy.h"
#include "nn/attention_context.h"

namespace lathe::programs {

std::vector<std::vector<double>> token_loglikelihoods(const cli::Session& session,
                                                      const std::vector<std::vector<int32_t>>& sequences) {
  const autograd::NoGradScope no_grad;
  std::vector<int32_t> ids, targets, lengths;
  for (const std::vector<int32_t>& sequence : sequences) {
    ids.insert(ids.end(), sequence.begin(), sequence.end());
    targets.insert(targets.end(), sequence.begin() + 1, sequence.end());
    targets.push_back(data::ignored_label);
    lengths.push_back(static_cast<int32_t>(sequence.size()));
  }
  const nn::TokenBatch batch = nn::make_token_batch(ids, lengths);
  nn::PackedAttention attention(session.config, batch.layout);
  const auto result = autograd::token_logprobs(session.model->forward(batch, attention), session.model->output_weight(),
                                               Tensor::of<int32_t>(targets, {static_cast<int64_t>(targets.size())}),
                                               batch.layout, session.model->softcap());
  const Tensor logprobs = kernels::moved(result.value(), {});
  const bool wide = logprobs.dtype() == DType::f64;
  std::vector<std::vector<double>> found;
  int64_t at = 0;
  for (const std::vector<int32_t>& sequence : sequences) {
    found.emplace_back();
    for (size_t i = 0; i + 1 < sequence.size(); ++i, ++at)
      found.back().push_back(wide ? logprobs.data<double>()[at] : logprobs.data<float>()[at]);
    ++at;
  }
  return found;
}

}  // namespace lathe::programs
