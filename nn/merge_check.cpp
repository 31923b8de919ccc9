// Whether a merged model is its base with the adapter: rows of the weights in f64, and logits.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "autograd/recording.h"
#include "core/error.h"
#include "kernels/copy/copy.h"
#include "nn/attention_context.h"
#include "nn/layer_layout.h"
#include "nn/merge_adapter.h"
#include "nn/transformer.h"

namespace lathe::nn {
namespace {

constexpr int64_t rows_compared = 8, tokens_compared = 16;
constexpr double f32_roundoff = 0x1p-24;

// Half the distance between neighbours, relative.
double roundoff(DType dtype) {
  switch (dtype) {
    case DType::bf16: return 0x1p-8;
    case DType::f16: return 0x1p-11;
    default: return f32_roundoff;
  }
}

DType dtype_of(const WeightInfo& info) {
  return info.stored_type == "BF16" ? DType::bf16 : info.stored_type == "F16" ? DType::f16 : DType::f32;
}

// Eight rows from the first to the last.
void check_rows(const WeightSource& base, const WeightSource& merged, const std::string& name, const LoraWeights& lora,
                double scaling) {
  const WeightInfo& info = *merged.find(name);
  const int64_t rows = info.shape[0], columns = info.shape[1], r = lora.a.dim(0);
  const Tensor a = kernels::cast(lora.a, DType::f32), b = kernels::cast(lora.b, DType::f32);
  const double rounding = roundoff(dtype_of(info)), sum_error = static_cast<double>(r + 2) * f32_roundoff;
  const double smallest = info.stored_type == "F16" ? 0x1p-25 : 0x1p-134;  // half a step among the subnormals
  std::vector<float> before(static_cast<size_t>(columns)), after(static_cast<size_t>(columns));
  const int64_t count = std::min(rows_compared, rows);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = count > 1 ? i * (rows - 1) / (count - 1) : 0;
    base.read_rows(name, row, 1, before.data());
    merged.read_rows(name, row, 1, after.data());
    for (int64_t j = 0; j < columns; ++j) {
      double product = 0, magnitude = 0;
      for (int64_t k = 0; k < r; ++k) {
        const double term = double{b.data<float>()[row * r + k]} * double{a.data<float>()[k * columns + j]};
        product += term;
        magnitude += std::fabs(term);
      }
      const double weight = before[static_cast<size_t>(j)], exact = weight + scaling * product;
      const double inexact = sum_error * (std::fabs(weight) + std::fabs(scaling) * magnitude);
      if (std::fabs(after[static_cast<size_t>(j)] - exact) <= inexact + rounding * std::fabs(exact) + smallest)
        continue;
      char text[160];
      std::snprintf(text, sizeof text, "[%lld, %lld] is %.9g instead of %.9g", static_cast<long long>(row),
                    static_cast<long long>(j), static_cast<double>(after[static_cast<size_t>(j)]), exact);
      throw NumericError("the merged " + name + text +
                         "; if it is infinite, its dtype cannot hold it: merge with --dtype bfloat16 or float32");
    }
  }
}

Tensor logits_of(const ModelFiles& files, const PeftAdapter* adapter, const std::vector<int32_t>& ids, Device device) {
  TransformerOptions options;
  options.device = device;
  options.max_positions = tokens_compared;
  Transformer model(files.config, *files.weights, options);
  if (adapter != nullptr) model.load_adapter(*adapter);
  const auto length = static_cast<int32_t>(ids.size());
  const TokenBatch batch = make_token_batch(ids, std::span(&length, 1));
  PackedAttention attention(files.config, batch.layout);
  const autograd::NoGradScope no_grad;
  return kernels::moved(model.logits(model.forward(batch, attention).value()), {});
}

double bound_of(const ModelFiles& merged) {
  double rounding = 0, longest = 0, products = 1;
  for (const WeightInfo& info : merged.weights->weights()) {
    rounding = std::max(rounding, roundoff(dtype_of(info)));
    if (info.shape.rank() > 1) longest = std::max(longest, static_cast<double>(info.shape[1]));
  }
  for (int64_t i = 0; i < merged.config.num_hidden_layers(); ++i)
    products += static_cast<double>(layer_layout(merged.config, i).linears().size());
  return 4 * std::sqrt(products) * (rounding + std::sqrt(longest) * f32_roundoff);
}

}  // namespace

MergeCheck check_merged_model(const std::filesystem::path& directory, const ModelFiles& base,
                              const PeftAdapter& adapter, Device device) {
  const ModelFiles merged = open_model_files(directory);
  for (const auto& [module, lora] : adapter.modules)
    check_rows(*base.weights, *merged.weights, module + ".weight", lora, adapter.config.scaling_of(module));
  std::vector<int32_t> ids;  // spread over the vocabulary
  for (int64_t i = 0; i < tokens_compared; ++i)
    ids.push_back(static_cast<int32_t>((1 + i * 7919) % base.config.vocab_size));
  const Tensor expected = logits_of(base, &adapter, ids, device), found = logits_of(merged, nullptr, ids, device);
  double error = 0, norm = 0;
  for (int64_t i = 0; i < expected.numel(); ++i) {
    const double e = expected.data<float>()[i], difference = found.data<float>()[i] - e;
    error += difference * difference;
    norm += e * e;
  }
  const MergeCheck check{tokens_compared, std::sqrt(error / norm), bound_of(merged)};
  if (check.difference <= check.bound) return check;
  char text[160];
  std::snprintf(text, sizeof text,
                "its logits differ from the base's with the adapter by %.3g of their norm, above %.3g",
                check.difference, check.bound);
  throw NumericError(std::string("the merged model is not written: ") + text +
                     "; a wider --dtype loses less in rounding");
}

}  // namespace lathe::nn
