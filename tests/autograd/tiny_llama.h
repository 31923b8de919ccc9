// A two-layer Llama-shaped model built from the operations alone: grouped query heads, rope, SwiGLU, a fused
// loss.
#pragma once

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "autograd/ops/arithmetic.h"
#include "autograd/ops/attention.h"
#include "autograd/ops/checkpoint.h"
#include "autograd/ops/embedding.h"
#include "autograd/ops/gated.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/linear_cross_entropy.h"
#include "autograd/ops/rms_norm.h"
#include "autograd/ops/rope.h"
#include "autograd/ops/view.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "tests/autograd/tensors.h"

namespace lathe::autograd::testing {

enum class Training { full, lora, lora_with_dropout };
enum class Checkpointing { none, layers, nested };

struct TinyLlama {
  static constexpr int64_t vocabulary = 37, hidden = 24, heads = 4, kv_heads = 2, head_dim = 8, ffn = 40, rank = 3;
  static constexpr int layer_count = 2;
  static constexpr float eps = 1e-5f;

  struct Projection {
    LinearWeight weight;
    Variable a, b;
    uint16_t stream;
  };
  struct Layer {
    Variable attention_norm, mlp_norm;
    Projection q, k, v, o, gate, up, down;
  };

  DType dtype;
  Training training;
  RandomStream random{7, RandomPurpose::test};
  int streams = 0;
  Checkpointing checkpointing = Checkpointing::none;
  uint32_t step = 0;
  std::vector<std::pair<std::string, Variable>> leaves;  // what trains
  std::vector<Layer> layers;
  LinearWeight embedding_weight, output_weight;
  Variable final_norm;
  RopeTables tables;

  TinyLlama(DType type, Training how)
      : dtype(type),
        training(how),
        embedding_weight(matrix("embedding", vocabulary, hidden, 1.0)),
        output_weight(matrix("output", vocabulary, hidden, 0.3)) {
    for (int i = 0; i < layer_count; ++i) {
      const std::string layer = std::to_string(i) + ".";
      layers.push_back({vector(layer + "attention_norm"), vector(layer + "mlp_norm"),
                        projection(layer + "q", heads * head_dim, hidden),
                        projection(layer + "k", kv_heads * head_dim, hidden),
                        projection(layer + "v", kv_heads * head_dim, hidden),
                        projection(layer + "o", hidden, heads * head_dim), projection(layer + "gate", ffn, hidden),
                        projection(layer + "up", ffn, hidden), projection(layer + "down", hidden, ffn)});
    }
    final_norm = vector("final_norm");
    tables = rope_tables(64);
  }

  std::vector<Variable> leaf_variables() const {
    std::vector<Variable> result;
    for (const auto& [name, leaf] : leaves) result.push_back(leaf);
    return result;
  }

  Variable loss(const Tensor& ids, const Tensor& labels, const SequenceLayout& layout, double scale) const {
    return result(ids, labels, layout, scale).loss;
  }

  CrossEntropyResult result(const Tensor& ids, const Tensor& labels, const SequenceLayout& layout, double scale) const {
    Variable x = embedding(embedding_weight, ids, layout);
    for (const Layer& layer : layers) {
      if (checkpointing == Checkpointing::none) {
        x = run(layer, x, layout);
      } else {
        x = checkpoint(
            [this, &layer, layout](std::span<const Variable> in) { return std::vector{run(layer, in[0], layout)}; },
            {x})[0];
      }
    }
    const Variable normed = rms_norm(x, final_norm, eps, layout);
    return linear_cross_entropy(normed, output_weight, labels, layout, scale);
  }

 private:
  Variable run(const Layer& layer, const Variable& x, const SequenceLayout& layout) const {
    const Variable normed = rms_norm(x, layer.attention_norm, eps, layout);
    const auto heads_of = [&](const Projection& p, int64_t count) {
      return view(project(p, normed, layout), {normed.dim(0), count, head_dim});
    };
    const Variable q = rope(heads_of(layer.q, heads), tables, layout);
    const Variable k = rope(heads_of(layer.k, kv_heads), tables, layout);
    kernels::AttentionParams params;
    params.scale = 0.353553f;
    const Variable mixed = attention(q, k, heads_of(layer.v, kv_heads), layout, params);
    const Variable after = project(layer.o, view(mixed, {x.dim(0), heads * head_dim}), layout, x);
    if (checkpointing != Checkpointing::nested) return mlp(layer, after, layout);
    return checkpoint(
        [this, &layer, layout](std::span<const Variable> in) { return std::vector{mlp(layer, in[0], layout)}; },
        {after})[0];
  }

  Variable mlp(const Layer& layer, const Variable& x, const SequenceLayout& layout) const {
    const Variable normed = rms_norm(x, layer.mlp_norm, eps, layout);
    const Variable inner = swiglu(project(layer.gate, normed, layout), project(layer.up, normed, layout));
    return project(layer.down, inner, layout, x);
  }

  Variable project(const Projection& p, const Variable& x, const SequenceLayout& layout,
                   const Variable& residual = {}) const {
    LinearTerms terms{.residual = residual};
    if (p.a.defined()) {
      terms.lora = {LoraTerm{p.a, p.b, 2.0f, {}}};
      if (training == Training::lora_with_dropout) {
        terms.lora[0].dropout = {.probability = 0.25f, .seed = 5, .step = step, .stream = p.stream};
      }
    }
    return linear(x, p.weight, layout, terms);
  }

  Variable train(const std::string& name, Tensor value) {
    leaves.emplace_back(name, Variable::leaf(std::move(value)));
    return leaves.back().second;
  }

  // Frozen weights are packed, as for training with LoRA.
  LinearWeight matrix(const std::string& name, int64_t rows, int64_t columns, double size) {
    Tensor value = random_tensor(random, {rows, columns}, dtype, size);
    if (training == Training::full) return LinearWeight(train(name, value));
    return LinearWeight(kernels::pack_weight(value, dtype));
  }

  Variable vector(const std::string& name) {
    Tensor value = random_tensor(random, {hidden}, dtype, 0.2);
    Tensor around_one = Tensor::empty(value.shape(), dtype);
    Tensor exact = Tensor::empty(value.shape(), DType::f64);
    kernels::copy(exact, value);
    for (double& weight : exact.span<double>()) weight += 1.0;
    kernels::copy(around_one, exact);
    return training == Training::full ? train(name, around_one) : Variable(around_one);
  }

  Projection projection(const std::string& name, int64_t rows, int64_t columns) {
    Projection result{matrix(name, rows, columns, 1.0 / std::sqrt(static_cast<double>(columns))),
                      {},
                      {},
                      static_cast<uint16_t>(streams++)};
    if (training != Training::full) {
      result.a = train(name + ".lora_a", random_tensor(random, {rank, columns}, dtype, 0.3));
      result.b = train(name + ".lora_b", random_tensor(random, {rows, rank}, dtype, 0.3));
    }
    return result;
  }

  RopeTables rope_tables(int64_t positions) const {
    const DType table_dtype = dtype == DType::f64 ? DType::f64 : DType::f32;
    Tensor cosine = Tensor::empty({positions, head_dim / 2}, DType::f64), sine = empty_like(cosine);
    for (int64_t p = 0; p < positions; ++p) {
      for (int64_t d = 0; d < head_dim / 2; ++d) {
        const double angle = static_cast<double>(p) / std::pow(100.0, 2.0 * static_cast<double>(d) / head_dim);
        cosine.data<double>()[p * head_dim / 2 + d] = std::cos(angle);
        sine.data<double>()[p * head_dim / 2 + d] = std::sin(angle);
      }
    }
    return {kernels::cast(cosine, table_dtype), kernels::cast(sine, table_dtype)};
  }

  static Tensor empty_like(const Tensor& tensor) { return Tensor::empty(tensor.shape(), tensor.dtype()); }
};

// Random tokens for these sequences; the labels are the next tokens, a third of them ignored.
struct TinyBatch {
  Tensor ids, labels;
  SequenceLayout layout;

  static TinyBatch random(const std::vector<int32_t>& lengths) {
    RandomStream random(11, RandomPurpose::test);
    TinyBatch batch;
    batch.layout = layout_of(lengths);
    const int64_t tokens = batch.layout.tokens();
    batch.ids = integers(random, tokens, TinyLlama::vocabulary);
    batch.labels = integers(random, tokens, TinyLlama::vocabulary);
    for (int64_t t = 0; t < tokens; t += 3) batch.labels.data<int32_t>()[t] = kernels::ignored_label;
    return batch;
  }

  // Sequences [first, last) as a batch of their own.
  TinyBatch part(int64_t first, int64_t last) const {
    const auto bounds = layout.cu_seqlens.span<int32_t>();
    const int64_t begin = bounds[static_cast<size_t>(first)], end = bounds[static_cast<size_t>(last)];
    std::vector<int32_t> lengths;
    for (auto s = static_cast<size_t>(first); s < static_cast<size_t>(last); ++s)
      lengths.push_back(bounds[s + 1] - bounds[s]);
    return {ids.slice(0, begin, end), labels.slice(0, begin, end), layout_of(lengths, static_cast<int32_t>(first))};
  }
};

}  // namespace lathe::autograd::testing
