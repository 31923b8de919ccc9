#include "serve/http/embedding.h"

#include <cmath>

#include "autograd/recording.h"
#include "kernels/copy/copy.h"
#include "nn/attention_context.h"

namespace lathe::http {

std::vector<float> embedding_of(const nn::Transformer& model, std::span<const int32_t> tokens, Pooling pooling,
                                const std::string& adapter) {
  const autograd::NoGradScope no_grad;
  const auto length = static_cast<int32_t>(tokens.size());
  nn::TokenBatch batch = nn::make_token_batch(tokens, std::span(&length, 1));
  batch.adapters = {adapter};
  nn::PackedAttention attention(model.config(), batch.layout);
  const Tensor hidden = model.forward(batch, attention).value();
  const int64_t first = pooling == Pooling::mean ? 0 : hidden.dim(0) - 1;
  const Tensor rows = kernels::cast(kernels::moved(hidden.slice(0, first, hidden.dim(0)), {}), DType::f32);

  const int64_t width = rows.dim(1);
  std::vector<double> sums(static_cast<size_t>(width), 0.0);
  for (int64_t row = 0; row < rows.dim(0); ++row)
    for (int64_t i = 0; i < width; ++i) sums[static_cast<size_t>(i)] += rows.data<float>()[row * width + i];
  double squares = 0;
  for (const double sum : sums) squares += sum * sum;
  const double scale = squares > 0 ? 1 / std::sqrt(squares) : 0;
  std::vector<float> embedding;
  for (const double sum : sums) embedding.push_back(static_cast<float>(sum * scale));
  return embedding;
}

}  // namespace lathe::http
