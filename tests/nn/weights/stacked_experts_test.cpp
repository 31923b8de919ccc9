// Experts stacked as gpt-oss and Granite have them: apart and together again, and what is not whole.
#include "nn/weights/stacked_experts.h"

#include <gtest/gtest.h>

#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

void expect_same_bits(const WeightSource& found, const SafetensorsFile& expected, const std::string& name) {
  SCOPED_TRACE(name);
  const WeightInfo* info = found.find(name);
  ASSERT_NE(info, nullptr);
  const Tensor b = expected.tensor(name), a = read_weight(found, *info, b.dtype());
  ASSERT_EQ(a.shape(), b.shape());
  EXPECT_EQ(std::memcmp(a.raw(), b.raw(), static_cast<size_t>(b.nbytes())), 0);
}

TEST(StackedExperts, AreApartAndTogetherAgainToTheBit) {
  for (const std::string model : {"tiny_gpt_oss/dense", "tiny_granite_moe"}) {
    const ModelFiles files = open_model_files(golden(model));
    const auto stacked = stack_experts(*files.weights, files.config);
    const auto stored = SafetensorsFile::open(golden(model + "/model.safetensors"));
    EXPECT_EQ(stacked->weights().size(), stored->names().size());
    for (const std::string& name : stored->names()) expect_same_bits(*stacked, *stored, name);
  }
}

TEST(StackedExperts, InMxfp4AreWhatTransformersWidensThemTo) {
  const ModelFiles files = open_model_files(golden("tiny_gpt_oss/mxfp4"));
  EXPECT_EQ(files.weights->find("model.layers.1.mlp.experts.3.up_proj.weight")->stored_type, "MXFP4");
  const auto stacked = stack_experts(*files.weights, files.config);
  const auto widened = SafetensorsFile::open(golden("tiny_gpt_oss/mxfp4/widened.safetensors"));
  for (const std::string& name : widened->names()) expect_same_bits(*stacked, *widened, name);
}

// Any piece of a stacked tensor, whichever experts it touches.
// Products read an expert in MXFP4 as it is: the blocks that the same model's GGUF file has.
// The format has one order, whatever a family's other tensors have.
TEST(StackedExperts, InMxfp4AreInTurnForEveryFamily) {
  const SafetensorsTensors tensors = safetensors_tensors(golden("tiny_gpt_oss/mxfp4"));
  const auto in_turn = split_experts(tensors, StackedExperts::gate_and_up_in_turn),
             upright = split_experts(tensors, StackedExperts::gate_before_up);
  for (const char* linear : {"gate_proj", "up_proj", "down_proj"}) {
    const std::string name = std::string("model.layers.1.mlp.experts.3.") + linear + ".weight";
    const Tensor a = read_weight(*upright, *upright->find(name), DType::f32),
                 b = read_weight(*in_turn, *in_turn->find(name), DType::f32);
    ASSERT_EQ(a.shape(), b.shape()) << name;
    EXPECT_EQ(std::memcmp(a.raw(), b.raw(), static_cast<size_t>(b.nbytes())), 0) << name;
  }
}

TEST(StackedExperts, InMxfp4AreBlocksOfGgmls) {
  const ModelFiles directory = open_model_files(golden("tiny_gpt_oss/mxfp4"));
  const ModelFiles gguf = open_model_files(golden("tiny_gpt_oss/mxfp4/model.gguf"));
  int experts = 0;
  for (const WeightInfo& weight : directory.weights->weights()) {
    const auto found = directory.weights->blocks(weight.name), expected = gguf.weights->blocks(weight.name);
    ASSERT_EQ(found.has_value(), weight.stored_type == "MXFP4") << weight.name;
    if (!found) continue;
    ++experts;
    ASSERT_TRUE(expected.has_value()) << weight.name;
    ASSERT_EQ(found->format, expected->format);
    ASSERT_EQ(found->rows.size(), static_cast<size_t>(weight.shape[0]));
    const auto bytes = static_cast<size_t>(weight.shape[1] / 32 * 17);
    for (size_t row = 0; row < found->rows.size(); ++row)
      EXPECT_EQ(std::memcmp(found->rows[row], expected->rows[row], bytes), 0) << weight.name << ", row " << row;
  }
  EXPECT_GT(experts, 0);
}

TEST(StackedExperts, PiecesAreThoseOfTheWhole) {
  struct Stacked {
    const char *model, *name;
    int64_t rows, columns;
  };
  for (const Stacked& one : {Stacked{"tiny_gpt_oss/dense", "mlp.experts.gate_up_proj", 4 * 32, 64},
                             Stacked{"tiny_granite_moe", "block_sparse_moe.input_linear.weight", 6 * 24, 32}}) {
    SCOPED_TRACE(one.name);
    const ModelFiles files = open_model_files(golden(one.model));
    const auto stacked = stack_experts(*files.weights, files.config);
    const std::string name = std::string("model.layers.0.") + one.name;
    const Tensor whole = read_weight(*stacked, *stacked->find(name), DType::f32);
    std::vector<float> piece(static_cast<size_t>(one.rows * one.columns));
    for (const auto& [first, count] :
         {std::pair<int64_t, int64_t>{0, 1}, {31, 2}, {70, 50}, {one.rows - 1, 1}, {3, one.rows - 3}}) {
      stacked->read_rows(name, first, count, piece.data());
      EXPECT_EQ(std::memcmp(piece.data(), whole.data<float>() + first * one.columns,
                            static_cast<size_t>(count * one.columns) * sizeof(float)),
                0)
          << first;
    }
  }
}

// A directory with one of its tensors changed.
std::string error_of(const std::string& name, const Tensor& changed, const char* model = "tiny_gpt_oss/mxfp4") {
  const auto file = SafetensorsFile::open(golden(std::string(model) + "/model.safetensors"));
  NamedTensors tensors;
  for (const std::string& stored : file->names())
    if (stored != name) tensors.emplace_back(stored, file->tensor(stored));
  if (changed.defined()) tensors.emplace_back(name, changed);
  const TemporaryFolder folder;
  write_safetensors(folder.path() / "model.safetensors", tensors);
  try {
    split_experts(safetensors_tensors(folder.path()), StackedExperts::gate_and_up_in_turn);
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no error";
}

TEST(StackedExperts, WhatDoesNotFitTogetherIsNamed) {
  const std::string stem = "model.layers.0.mlp.experts.down_proj";
  const auto expect_error = [&](const std::string& name, const Tensor& changed, const char* part) {
    const std::string error = error_of(name, changed);
    EXPECT_NE(error.find(part), std::string::npos) << error;
  };
  expect_error(stem + "_scales", {}, "down_proj_scales");
  expect_error(stem + "_blocks", {}, "has no down_proj_blocks");
  expect_error(stem + "_scales", Tensor::zeros({4, 32, 2}, DType::u8), "expected u8 [4, 32, 1]");
  expect_error(stem + "_blocks", Tensor::zeros({4, 32, 16}, DType::u8), "[experts, rows, blocks, 16]");
  expect_error(stem + "_bias", Tensor::zeros({4}, DType::f32), "2 floating dimensions");
  expect_error(stem, Tensor::zeros({4, 32, 32}, DType::f32), "as another tensor does");
  expect_error("model.layers.0.mlp.experts.gate_up_proj_bias", Tensor::zeros({4, 63}, DType::f32), "odd number");
  const std::string input = "model.layers.1.block_sparse_moe.input_linear.weight";
  for (const auto& [tensor, part] : {std::pair{Tensor::zeros({6, 23, 32}, DType::f32), "odd number"},
                                     {Tensor::zeros({24, 32}, DType::f32), "3 floating dimensions"}}) {
    const std::string error = error_of(input, tensor, "tiny_granite_moe");
    EXPECT_NE(error.find(input + ": expected"), std::string::npos) << error;
    EXPECT_NE(error.find(part), std::string::npos) << error;
  }
}

}  // namespace
}  // namespace lathe::nn
