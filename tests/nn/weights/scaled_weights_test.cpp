#include "nn/weights/scaled_weights.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/json.h"
#include "core/json_value.h"
#include "kernels/copy/copy.h"
#include "nn/weights/safetensors.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

constexpr const char* kinds[] = {"fp8_blocks",    "fp8_ragged",   "fp8_tensor",     "modelopt",
                                 "float_channel", "float_tensor", "float_block",    "int_channel",
                                 "int_zeros",     "packed_4",     "packed_4_zeros", "packed_8"};

std::unique_ptr<WeightSource> open(const std::filesystem::path& folder) {
  const auto quantization = scaled_quantization_of(folder);
  return quantization ? open_scaled_weights(folder, *quantization) : nullptr;
}

class ScaledWeights : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Golden, ScaledWeights, testing::ValuesIn(kinds),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(ScaledWeights, AreWhatTheirOwnersMakeOfThem) {
  const auto source = open(golden("scaled_weights") / GetParam());
  ASSERT_NE(source, nullptr);
  const Tensor expected = SafetensorsFile::open(golden("scaled_weights/expected.safetensors"))->tensor(GetParam());
  const WeightInfo* info = source->find("q_proj.weight");
  ASSERT_NE(info, nullptr);
  ASSERT_EQ(info->shape, expected.shape());
  EXPECT_EQ(source->weights().size(), 2u) << "the norm and the linear";
  const int64_t rows = info->shape[0], columns = info->shape[1];
  std::vector<float> values(static_cast<size_t>(rows * columns));
  source->read_rows("q_proj.weight", 0, 5, values.data());  // in parts, as a loader reads them
  source->read_rows("q_proj.weight", 5, rows - 5, values.data() + 5 * columns);
  const Tensor wanted = kernels::cast(expected, DType::f32);
  for (int64_t i = 0; i < rows * columns; ++i)
    ASSERT_EQ(values[static_cast<size_t>(i)], wanted.data<float>()[i]) << i / columns << ", " << i % columns;
  EXPECT_THROW(source->read_rows("q_proj.weight", rows, 1, values.data()), ShapeError);
  source->read_rows("norm.weight", 0, 1, values.data());
  EXPECT_EQ(values[2], 1);
}

// A directory whose one file is written by hand, so that it may hold types that Lathe does not write.
class ChangedWeights : public testing::Test {
 protected:
  struct Part {
    std::string name, type;
    std::vector<int64_t> shape;
    int64_t bytes;
  };
  std::string error_of(const nlohmann::json& quantization, const std::vector<Part>& parts) const {
    nlohmann::ordered_json header;
    int64_t end = 0;
    for (const Part& part : parts) {
      header["q_proj." + part.name] = {
          {"dtype", part.type}, {"shape", part.shape}, {"data_offsets", {end, end + part.bytes}}};
      end += part.bytes;
    }
    const std::string text = header.dump();
    const uint64_t length = text.size();
    std::ofstream file(folder_.path() / "model.safetensors", std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), sizeof(length));
    file << text << std::string(static_cast<size_t>(end), '\1');
    file.close();
    std::ofstream(folder_.path() / "config.json") << nlohmann::json{{"quantization_config", quantization}}.dump();
    try {
      open(folder_.path());
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  std::string error_of(const nlohmann::json& quantization) const {
    return error_of(quantization, {{"weight", "F8_E4M3", {4, 8}, 32}, {"weight_scale_inv", "F32", {}, 4}});
  }

  const nlohmann::json fp8_ = {{"quant_method", "fp8"}},
                       compressed_ = {{"quant_method", "compressed-tensors"}, {"format", "pack-quantized"}};
  TemporaryFolder folder_;
};

void expect_says(const std::string& error, const std::string& part) {
  EXPECT_NE(error.find(part), std::string::npos) << error;
}

TEST_F(ChangedWeights, PartsThatDoNotFitAreNamed) {
  EXPECT_EQ(error_of(fp8_), "no error");
  const Part codes{"weight", "F8_E4M3", {4, 8}, 32}, words{"weight_packed", "I32", {4, 2}, 32};
  expect_says(error_of(fp8_, {codes}), "q_proj.weight_scale_inv is missing");
  expect_says(error_of(fp8_, {codes, {"weight_scale_inv", "F32", {3, 1}, 12}}), "do not divide");
  expect_says(error_of(fp8_, {codes, {"weight_scale_inv", "I32", {4, 1}, 16}}), "floating scales");
  expect_says(error_of(fp8_, {{"weight", "F8_E4M3", {32}, 32}, {"weight_scale_inv", "F32", {}, 4}}), "matrix");
  expect_says(error_of(fp8_, {{"weight", "F8_E5M2", {4, 8}, 32}, {"weight_scale_inv", "F32", {}, 4}}),
              "none of 8 bits");
  expect_says(error_of(fp8_, {{"weight", "BF16", {4, 4}, 32}}), "none of 8 bits");
  expect_says(error_of(compressed_, {words, {"weight_scale", "BF16", {4, 1}, 8}}), "weight_shape is missing");
  const auto with_shape = [&](const std::vector<Part>& more) {
    std::vector<Part> parts{words, {"weight_scale", "BF16", {4, 1}, 8}, {"weight_shape", "I32", {2}, 8}};
    parts.insert(parts.end(), more.begin(), more.end());
    return error_of(compressed_, parts);
  };
  expect_says(with_shape({}), "in codes of 4 or 8 bits");
}

// "quant_method": "fp8" with one scale of each linear, which are called as compressed-tensors calls them.
TEST_F(ChangedWeights, AutoFp8sScalesAreFound) {
  EXPECT_EQ(error_of(fp8_, {{"weight", "F8_E4M3", {4, 8}, 32},
                            {"weight_scale", "F32", {}, 4},
                            {"input_scale", "F32", {1}, 4},
                            {"kv_scale", "I32", {1}, 4}}),
            "no error");
}

// As transformers holds them, and as Granite's directories do: what quantises linears passes them over.
TEST_F(ChangedWeights, StackedExpertsBesideTheLinearsAreApart) {
  for (const std::string module : {"mlp.experts.gate_up_proj", "block_sparse_moe.input_linear.weight"}) {
    EXPECT_EQ(error_of(fp8_, {{"weight", "F8_E4M3", {4, 8}, 32},
                              {"weight_scale_inv", "F32", {}, 4},
                              {module, "F32", {3, 4, 5}, 240}}),
              "no error");
    const auto source = open(folder_.path());
    const std::string prefix = "q_proj." + module.substr(0, module.find('.')) + ".experts.2.";
    for (const char* linear : {"gate_proj.weight", "up_proj.weight"}) {
      const WeightInfo* const info = source->find(prefix + linear);
      ASSERT_NE(info, nullptr) << module << ": " << linear;
      EXPECT_EQ(info->shape, (Shape{2, 5}));
    }
    EXPECT_NE(source->find("q_proj.weight"), nullptr);
  }
}

TEST_F(ChangedWeights, WhatIsNotReadIsRefusedByItsKey) {
  const auto with = [](nlohmann::json config, const char* key, const nlohmann::json& value) {
    config[key] = value;
    return config;
  };
  expect_says(error_of(with(fp8_, "scale_fmt", "ue8m0")), "scale_fmt");
  expect_says(error_of(with(fp8_, "weight_block_size", 128)), "weight_block_size");
  expect_says(error_of(with(fp8_, "weight_block_size", {0, 128})), "weight_block_size");
  expect_says(error_of(with(compressed_, "format", "nvfp4-pack-quantized")), "nvfp4-pack-quantized");
  expect_says(error_of(with(compressed_, "sparsity_config", {{"format", "sparse-24-bitmask"}})), "sparsity_config");
  expect_says(error_of(with(compressed_, "transform_config", {{"config_groups", {{"v", 1}}}})), "transform_config");
  expect_says(error_of({{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}}), "NVFP4");
  expect_says(error_of({{"quant_method", 8}}), "quant_method");
  EXPECT_EQ(error_of({{"quant_method", "gptq"}}), "no error") << "another's";
}

}  // namespace
}  // namespace lathe::nn
