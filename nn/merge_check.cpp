// Whether a merged model is its base with the adapter: rows of the weights in f64, and logits.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "autograd/recording.h"
#include "core/error.h"
#include "kernels/copy/copy.h"
#include "nn/attention_context.h"
#include "nn/expert_adapters.h"
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

DType dtype_of_weight(const WeightInfo& info) {
  return info.stored_type == "BF16" ? DType::bf16 : info.stored_type == "F16" ? DType::f16 : DType::f32;
}

// A row of W + s·B·A in f64 (with DoRA scaled), and how far sums in f32 may lie from it.
struct ExactRow {
  std::vector<double> values, errors;
};

ExactRow exact_row(const PeftAdapter& adapter, const std::string& module, int64_t row, std::span<const float> before) {
  const size_t columns = before.size();
  ExactRow exact{std::vector<double>(before.begin(), before.end()), std::vector<double>(columns)};
  if (const auto saved = adapter.saved.find(module); saved != adapter.saved.end()) {
    const Tensor weight = kernels::cast(saved->second, DType::f32);
    const float* values = weight.data<float>() + row * static_cast<int64_t>(columns);
    exact.values.assign(values, values + columns);
    return exact;
  }
  const LoraWeights& lora = adapter.modules.at(module);
  const Tensor a = kernels::cast(lora.a, DType::f32), b = kernels::cast(lora.b, DType::f32);
  const int64_t r = a.dim(0), in = a.dim(1);
  const bool embedding = module == embedding_module;
  const double scaling = adapter.config.scaling_of(module), sum_error = static_cast<double>(r + 2) * f32_roundoff;
  double squares = 0, error_squares = 0;
  for (size_t j = 0; j < columns; ++j) {
    const auto column = static_cast<int64_t>(j);
    const int64_t out_row = embedding ? column : row, in_column = embedding ? row : column;
    double product = 0, magnitude = 0;
    for (int64_t k = 0; k < r; ++k) {
      const double term = double{b.data<float>()[out_row * r + k]} * double{a.data<float>()[k * in + in_column]};
      product += term;
      magnitude += std::fabs(term);
    }
    exact.errors[j] = sum_error * (std::fabs(exact.values[j]) + std::fabs(scaling) * magnitude);
    exact.values[j] += scaling * product;
    squares += exact.values[j] * exact.values[j];
    error_squares += exact.errors[j] * exact.errors[j];
  }
  if (!lora.magnitude.defined() || squares == 0) return exact;
  const double scale = kernels::cast(lora.magnitude, DType::f32).data<float>()[row] / std::sqrt(squares);
  const double norm_error = std::sqrt(error_squares / squares) + f32_roundoff;  // relative
  for (size_t j = 0; j < columns; ++j) {
    exact.values[j] *= scale;
    exact.errors[j] = std::fabs(scale) * exact.errors[j] + norm_error * std::fabs(exact.values[j]);
  }
  return exact;
}

// Eight rows from the first to the last.
void check_rows(const ModelFiles& base, const ModelFiles& merged, const PeftAdapter& adapter,
                const std::string& module) {
  const std::string name = module + ".weight";
  const WeightInfo& info = *merged.weights->find(name);
  // The twin of a tied one may stand under the other's name alone.
  const std::string twin = std::string(module == embedding_module ? output_module : embedding_module) + ".weight";
  const std::string& base_name = base.weights->find(name) ? name : twin;
  const double rounding = roundoff(dtype_of_weight(info));
  const double smallest = info.stored_type == "F16" ? 0x1p-25 : 0x1p-134;  // half a step among the subnormals
  const int64_t rows = info.shape[0], count = std::min(rows_compared, rows);
  std::vector<float> before(static_cast<size_t>(info.shape[1])), after(before.size());
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = count > 1 ? i * (rows - 1) / (count - 1) : 0;
    base.weights->read_rows(base_name, row, 1, before.data());
    merged.weights->read_rows(name, row, 1, after.data());
    const ExactRow exact = exact_row(adapter, module, row, before);
    for (size_t j = 0; j < after.size(); ++j) {
      const double found = after[j], wanted = exact.values[j];
      if (std::fabs(found - wanted) <= exact.errors[j] + rounding * std::fabs(wanted) + smallest) continue;
      char text[160];
      std::snprintf(text, sizeof text, "[%lld, %zu] is %.9g instead of %.9g", static_cast<long long>(row), j, found,
                    wanted);
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
    rounding = std::max(rounding, roundoff(dtype_of_weight(info)));
    if (info.shape.rank() > 1) longest = std::max(longest, static_cast<double>(info.shape[1]));
  }
  for (int64_t i = 0; i < merged.config.num_hidden_layers(); ++i)
    products += static_cast<double>(layer_layout(merged.config, i).linears_and_experts().size());
  return 4 * std::sqrt(products) * (rounding + std::sqrt(longest) * f32_roundoff);
}

}  // namespace

MergeCheck check_merged_model(const std::filesystem::path& directory, const ModelFiles& base,
                              const PeftAdapter& adapter, Device device) {
  const ModelFiles merged = open_model_files(directory);
  const PeftAdapter by_linears = split_expert_adapters(adapter, base.config);
  for (const auto& named : by_linears.modules) check_rows(base, merged, by_linears, named.first);
  for (const auto& named : by_linears.saved) check_rows(base, merged, by_linears, named.first);
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
