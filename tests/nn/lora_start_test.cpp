// Adapters that begin as init_lora_weights says, and the singular vectors that PiSSA takes.
#include "nn/lora_start.h"

#include <gtest/gtest.h>

#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "nn/singular_vectors.h"
#include "nn/symmetric_eigen.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

Tensor random_matrix(int64_t rows, int64_t columns, uint64_t seed) {
  Tensor matrix = Tensor::empty({rows, columns}, DType::f32);
  RandomStream random(seed, RandomPurpose::test);
  for (float& value : matrix.span<float>()) value = random.normal();
  return matrix;
}

double dot(const double* a, const double* b, int64_t length) {
  double sum = 0;
  for (int64_t i = 0; i < length; ++i) sum += a[i] * b[i];
  return sum;
}

// |uᵢ·uⱼ − δᵢⱼ|, the largest.
double away_from_orthonormal(const std::vector<double>& rows, int64_t length) {
  const auto count = static_cast<int64_t>(rows.size()) / length;
  double worst = 0;
  for (int64_t i = 0; i < count; ++i)
    for (int64_t j = 0; j <= i; ++j)
      worst = std::max(worst, std::abs(dot(rows.data() + i * length, rows.data() + j * length, length) - (i == j)));
  return worst;
}

// The largest element of W·v − σ·u over all.
double residual(const Tensor& weight, const SingularVectors& found) {
  const int64_t rows = weight.dim(0), columns = weight.dim(1);
  double worst = 0;
  for (size_t i = 0; i < found.values.size(); ++i)
    for (int64_t k = 0; k < rows; ++k) {
      double product = 0;
      for (int64_t j = 0; j < columns; ++j)
        product += static_cast<double>(weight.data<float>()[k * columns + j]) *
                   found.right[i * static_cast<size_t>(columns) + static_cast<size_t>(j)];
      worst = std::max(
          worst,
          std::abs(product - found.values[i] * found.left[i * static_cast<size_t>(rows) + static_cast<size_t>(k)]));
    }
  return worst;
}

TEST(SymmetricEigen, FindsEqualAndZeroValuesWithVectorsAtRightAngles) {
  // Q·diag(5, 3, 3, 3, 0, …)·Qᵀ.
  constexpr int64_t n = 23;
  std::vector<double> q(n * n), matrix(n * n, 0.0);
  RandomStream random(4, RandomPurpose::test);
  for (double& value : q) value = random.normal();
  orthonormalise(q, n);
  const std::vector<double> values = {5, 3, 3, 3};
  for (size_t v = 0; v < values.size(); ++v)
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < n; ++j) matrix[i * n + j] += values[v] * q[v * n + i] * q[v * n + j];
  const EigenPairs pairs = largest_eigenpairs(matrix, n, 6);
  for (size_t v = 0; v < 6; ++v) EXPECT_NEAR(pairs.values[v], v < 4 ? values[v] : 0, 1e-13) << v;
  EXPECT_LT(away_from_orthonormal(pairs.vectors, n), 1e-12);
  for (size_t v = 0; v < 6; ++v)
    for (size_t i = 0; i < n; ++i)
      EXPECT_NEAR(dot(&matrix[i * n], &pairs.vectors[v * n], n), pairs.values[v] * pairs.vectors[v * n + i], 1e-12);
  EXPECT_LT(away_from_orthonormal(largest_eigenpairs(std::vector<double>(25), 5, 3).vectors, 5), 1e-15);
  EXPECT_NEAR(largest_eigenpairs({7.0}, 1, 1).values[0], 7.0, 1e-14);
}

TEST(SingularVectors, AreThoseOfWideAndTallMatrices) {
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{40, 90}, {90, 40}, {33, 33}}) {
    const Tensor weight = random_matrix(rows, columns, 9);
    const SingularVectors found = leading_singular_vectors(weight, 12);
    EXPECT_LT(away_from_orthonormal(found.left, rows), 1e-11);
    EXPECT_LT(away_from_orthonormal(found.right, columns), 1e-11);
    EXPECT_LT(residual(weight, found), 1e-11);
    EXPECT_TRUE(std::is_sorted(found.values.rbegin(), found.values.rend()));
    // All of them together are the whole matrix: nothing larger was passed over.
    const SingularVectors whole = leading_singular_vectors(weight, std::min(rows, columns));
    double squares = 0, expected = 0;
    for (const double value : whole.values) squares += value * value;
    for (const float value : weight.span<float>()) expected += static_cast<double>(value) * value;
    EXPECT_NEAR(squares, expected, 1e-9 * expected);
    EXPECT_NEAR(whole.values[11], found.values[11], 1e-11);
  }
}

TEST(SingularVectors, AtRandomComeNearThem) {
  // Values that fall by a third each: the eighth is far above what follows the twelfth.
  Tensor weight = Tensor::zeros({60, 48}, DType::f32);
  const Tensor left = random_matrix(60, 48, 2), right = random_matrix(48, 48, 3);
  double scale = 1;
  for (int64_t v = 0; v < 48; ++v, scale *= 0.66)
    for (int64_t i = 0; i < 60; ++i)
      for (int64_t j = 0; j < 48; ++j)
        weight.data<float>()[i * 48 + j] +=
            static_cast<float>(scale * left.data<float>()[i * 48 + v] * right.data<float>()[v * 48 + j]);
  const SingularVectors exact = leading_singular_vectors(weight, 8), near = random_singular_vectors(weight, 8, 4, 1, 1);
  for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(near.values[i], exact.values[i], 1e-3 * exact.values[i]) << i;
  EXPECT_LT(away_from_orthonormal(near.left, 60), 1e-5);
  EXPECT_NE(random_singular_vectors(weight, 8, 0, 2, 1).values, random_singular_vectors(weight, 8, 0, 3, 1).values);
}

LoraConfig all_linear(const std::string& start) {
  LoraConfig config;
  config.r = 4;
  config.lora_alpha = 6;
  config.target_modules_regex = "all-linear";
  config.init_lora_weights = start;
  return config;
}

const std::vector<int32_t> ids = {5, 17, 300, 2, 44, 101, 7};

double effect_of(const Transformer& model) {
  return largest_difference(logits_of(model, {ids}), logits_of(load(golden("tiny_llama/untied"), DType::f32), {ids}));
}

TEST(LoraStart, HasNoEffectButFalse) {
  for (const char* start : {"true", "gaussian", "orthogonal", "pissa", "pissa_niter_2", "olora", "false"}) {
    Transformer model = load(golden("tiny_llama/untied"), DType::f32);
    model.add_lora(all_linear(start), 3);
    if (std::string(start) == "false") {
      EXPECT_GT(effect_of(model), 1e-2);
    } else {
      EXPECT_LT(effect_of(model), 2e-5) << start;
    }
  }
}

// s·B·A of PiSSA leaves the smaller singular values alone: σ₅, σ₆, … are the rest's.
TEST(LoraStart, PissaTakesTheLargestSingularValues) {
  Transformer model = load(golden("tiny_llama/untied"), DType::f32);
  LoraConfig config = all_linear("pissa");
  config.rank_pattern = {{"down_proj", 6}};
  model.add_lora(config, 3);
  const PeftAdapter adapter = model.adapter();
  const ModelFiles files = open_model_files(golden("tiny_llama/untied"));
  for (const auto& [name, lora] : adapter.modules) {
    const int64_t out = lora.b.dim(0), in = lora.a.dim(1), r = config.rank_of(name);
    ASSERT_EQ(lora.a.dim(0), 2 * r);
    Tensor weight = Tensor::empty({out, in}, DType::f32), rest = Tensor::empty({out, in}, DType::f32);
    files.weights->read_rows(name + ".weight", 0, out, weight.data<float>());
    for (int64_t i = 0; i < out; ++i)
      for (int64_t j = 0; j < in; ++j) {
        double product = 0;
        for (int64_t k = 0; k < r; ++k)
          product += static_cast<double>(lora.b.data<float>()[i * 2 * r + k]) * lora.a.data<float>()[k * in + j];
        rest.data<float>()[i * in + j] =
            static_cast<float>(weight.data<float>()[i * in + j] - config.scaling_of(name) * product);
      }
    const SingularVectors all = leading_singular_vectors(weight, r + 2), left = leading_singular_vectors(rest, 2);
    for (size_t i = 0; i < 2; ++i)
      EXPECT_NEAR(left.values[i], all.values[static_cast<size_t>(r) + i], 1e-5 * all.values[0]) << name;
  }
}

// What is saved of an adapter that began as a part of the base goes with the base as it is, at any scale and rank.
TEST(LoraStart, SavedFromTheBaseItGivesTheSameLogitsBesideIt) {
  for (const bool rslora : {false, true})
    for (const char* start : {"pissa", "olora"}) {
      Transformer model = load(golden("tiny_llama/untied"), DType::f32);
      LoraConfig config = all_linear(start);
      config.use_rslora = rslora;
      config.rank_pattern = {{"q_proj", 2}};
      config.alpha_pattern = {{"up_proj", 5}};
      model.add_lora(config, 3);
      for (Parameter& parameter : model.trainable_parameters()) {
        RandomStream random(parameter.name.size(), RandomPurpose::test);
        for (float& value : parameter.master.span<float>()) value += 0.05f * random.normal();
        parameter.refresh();
      }
      EXPECT_GT(effect_of(model), 1e-2);
      const TemporaryFolder folder;
      write_peft_adapter(folder.path(), model.adapter());
      Transformer again = load(golden("tiny_llama/untied"), DType::f32);
      again.load_adapter(read_peft_adapter(folder.path()));
      EXPECT_LT(largest_difference(logits_of(again, {ids}), logits_of(model, {ids})), 1e-5) << start << rslora;
    }
}

TEST(LoraStart, DoesNotDependOnThreadsOrOtherTargets) {
  const auto value_of = [](const std::string& targets, int threads) {
    const int before = thread_count();
    set_thread_count(threads);
    Transformer model = load(golden("tiny_llama/untied"), DType::f32);
    LoraConfig config = all_linear("pissa");
    config.target_modules_regex = targets;
    model.add_lora(config, 3);
    set_thread_count(before);
    const Tensor a = model.adapter().modules.at("model.layers.1.mlp.down_proj").a;
    return std::vector<float>(a.span<float>().begin(), a.span<float>().end());
  };
  EXPECT_EQ(value_of("all-linear", 1), value_of("all-linear", 3));
  EXPECT_EQ(value_of("all-linear", 2), value_of(".*down_proj", 2));
}

TEST(LoraStart, BesideAnotherAdapterInABatchItHasTheBitsOfABatchOfItsOwnAlsoOnceChanged) {
  Transformer model = load(golden("tiny_llama/untied"), DType::f32);
  model.add_lora(all_linear("pissa"), 3, "begun");
  model.add_lora(all_linear("false"), 4, "plain");
  const auto rows_of = [&](const std::vector<std::string>& adapters) {
    const autograd::NoGradScope no_grad;
    std::vector<int32_t> all, lengths;
    for (size_t i = 0; i < adapters.size(); ++i) {
      all.insert(all.end(), ids.begin(), ids.end());
      lengths.push_back(static_cast<int32_t>(ids.size()));
    }
    TokenBatch batch = make_token_batch(all, lengths);
    batch.adapters = adapters;
    PackedAttention attention(model.config(), batch.layout);
    return kernels::moved(model.forward(batch, attention, {}).value(), {});
  };
  const auto length = static_cast<int64_t>(ids.size());
  for (int changes = 0; changes < 3; ++changes) {
    const Tensor mixed = rows_of({"begun", "plain"});
    EXPECT_EQ(largest_difference(mixed.slice(0, 0, length), rows_of({"begun"})), 0.0) << changes;
    EXPECT_EQ(largest_difference(mixed.slice(0, length, 2 * length), rows_of({"plain"})), 0.0) << changes;
    for (Parameter& parameter : model.trainable_parameters("begun")) {
      kernels::scale(parameter.master, parameter.master, 1.25);
      parameter.refresh();
    }
    EXPECT_GT(largest_difference(mixed.slice(0, 0, length), rows_of({"begun"})), 0.0) << changes;
  }
}

TEST(LoraStart, OnADeviceIsThatOfTheCpu) {
  const ModelFiles files = open_model_files(golden("tiny_llama/untied"));
  const auto changed = [&](Device device) {
    TransformerOptions options;
    options.device = device;
    auto model = std::make_unique<Transformer>(files.config, *files.weights, options);
    model->add_lora(all_linear("pissa"), 3);
    for (Parameter& parameter : model->trainable_parameters()) {
      kernels::scale(parameter.master, parameter.master, 1.25);
      parameter.refresh();
    }
    return model;
  };
  const auto here = changed({}), there = changed({DeviceKind::simt, 0});
  const PeftAdapter ours = here->adapter(), theirs = there->adapter();
  for (const auto& [name, lora] : ours.modules) {
    EXPECT_EQ(largest_difference(theirs.modules.at(name).a, lora.a), 0.0) << name;
    EXPECT_EQ(largest_difference(theirs.modules.at(name).b, lora.b), 0.0) << name;
  }
  EXPECT_GT(effect_of(*here), 1e-2);
  EXPECT_LT(largest_difference(kernels::moved(logits_of(*there, {ids}), {}), logits_of(*here, {ids})), 1e-4);
}

TEST(LoraStart, WhatCannotBeIsToldByName) {
  const auto refusal = [](const LoraConfig& config) -> std::string {
    try {
      Transformer model = load(golden("tiny_llama/untied"), DType::f32);
      model.add_lora(config, 1);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(refusal(all_linear("loftq")).find("pissa_niter_N"), std::string::npos);
  LoraConfig config = all_linear("pissa");
  config.use_dora = true;
  EXPECT_NE(refusal(config).find("use_dora"), std::string::npos);
  config = all_linear("olora");
  config.rank_pattern = {{"k_proj", 33}};
  EXPECT_NE(refusal(config).find("at most 32"), std::string::npos);
  config = all_linear("orthogonal");
  config.r = 3;
  EXPECT_NE(refusal(config).find("even"), std::string::npos);
  config = all_linear("pissa");
  config.target_modules_regex = ".*(embed_tokens|q_proj)";
  EXPECT_NE(refusal(config).find("embed_tokens"), std::string::npos);
  EXPECT_FALSE(parse_lora_start("pissa_niter_").has_value());
  EXPECT_FALSE(parse_lora_start("pissa_niter_4x").has_value());
  EXPECT_EQ(parse_lora_start("pissa_niter_16")->iterations, 16);
}

}  // namespace
}  // namespace lathe::nn
