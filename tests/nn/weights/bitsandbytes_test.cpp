// bitsandbytes' 4-bit checkpoints, both ways, against transformers and bitsandbytes (tests/golden/bitsandbytes).
#include "nn/weights/bitsandbytes.h"
#include "core/digits.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>

#include "core/json.h"
#include "kernels/copy/copy.h"
#include "nn/quantize_model.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string hash_of(const Tensor& tensor) {
  return hash_digits(XXH64(tensor.raw(), static_cast<size_t>(tensor.nbytes()), 0));
}

// What a weight stands for, read row by row and rounded once.
Tensor values_of(const WeightSource& source, const std::string& name, DType dtype) {
  const Shape& shape = source.find(name)->shape;
  const Tensor values = Tensor::empty(shape, DType::f32);
  for (int64_t row = 0; row < shape[0]; ++row) source.read_rows(name, row, 1, values.data<float>() + row * shape[1]);
  return kernels::cast(values, dtype);
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.nbytes())) == 0;
}

struct Checkpoint {
  const char* name;
  DType dtype;
  kernels::Nf4Scales scales;
};

class Bitsandbytes : public testing::TestWithParam<Checkpoint> {
 protected:
  fs::path folder = golden(std::string("bitsandbytes/") + GetParam().name);
  json answers = golden_json("bitsandbytes/expected.json");
  json expected = answers[GetParam().name];
};

TEST_P(Bitsandbytes, AWeightStandsForWhatBitsandbytesDequantises) {
  const ModelFiles files = open_model_files(folder);
  for (const auto& [name, hash] : expected["dequantized_xxh64"].items()) {
    EXPECT_EQ(files.weights->find(name)->stored_type, "NF4");
    EXPECT_EQ(hash_of(values_of(*files.weights, name, GetParam().dtype)), hash) << name;
  }
}

TEST_P(Bitsandbytes, TheModelComputesFromTheFilesCodes) {
  const ModelFiles files = open_model_files(folder);
  const Transformer model(files.config, *files.weights, {.dtype = DType::f32});
  const std::vector<int32_t> ids = answers["input_ids"];
  const Tensor logits = logits_of(model, {ids});
  double worst = 0;
  for (size_t token = 0; token < ids.size(); ++token)
    for (size_t word = 0; word < expected["logits"][token].size(); ++word)
      worst = std::max(worst, std::abs(expected["logits"][token][word].get<double>() -
                                       logits.data<float>()[token * expected["logits"][token].size() + word]));
  // bitsandbytes rounds to its dtype, here f32 is kept: half a unit of bf16's last place in each of 64 … 128 products.
  EXPECT_LT(worst, GetParam().dtype == DType::bf16 ? 0.02 : 1e-5);
  ASSERT_TRUE(resolved_quantization(files, {}));
  EXPECT_EQ(resolved_quantization(files, {})->scales, GetParam().scales);
}

TEST_P(Bitsandbytes, WeightsThatWereNotQuantisedStayDense) {
  const ModelFiles files = open_model_files(folder);
  for (const WeightInfo& info : files.weights->weights()) {
    const bool coded = expected["dequantized_xxh64"].contains(info.name);
    EXPECT_EQ(files.weights->codes(info.name).has_value(), coded) << info.name;
    EXPECT_EQ(info.stored_type == "NF4", coded) << info.name;
  }
  const std::string skipped = "model.layers.0.self_attn.v_proj.weight";
  EXPECT_EQ(expected["dequantized_xxh64"].contains(skipped), GetParam().scales == kernels::Nf4Scales::plain);
}

TEST_P(Bitsandbytes, QuantisingGivesTheCodesOfBitsandbytes) {
  TemporaryFolder out;
  const ModelFiles source = open_model_files(golden("bitsandbytes/source"));
  const QuantizedModel written =
      write_quantized_model(out.path() / "model", source, GetParam().dtype, GetParam().scales);
  EXPECT_EQ(written.linears, 7);
  const auto ours = SafetensorsFile::open(out.path() / "model/model.safetensors"),
             theirs = SafetensorsFile::open(folder / "model.safetensors");
  for (const auto& [name, hash] : expected["dequantized_xxh64"].items()) {
    const Tensor codes = ours->tensor(name), their_codes = theirs->tensor(name);
    // They give a block of zeros (the seventh of gate_proj, 64 elements) the code of −1, or another.
    const bool zeros = name.find("gate_proj") != std::string::npos;
    ASSERT_EQ(codes.shape(), their_codes.shape());
    for (int64_t i = 0; i < codes.numel(); ++i)
      if (!zeros || i / 32 != 7) {
        EXPECT_EQ(codes.data<uint8_t>()[i], their_codes.data<uint8_t>()[i]) << name << i;
      }
    EXPECT_TRUE(same_bytes(ours->tensor(name + ".quant_map"), theirs->tensor(name + ".quant_map"))) << name;
    if (GetParam().scales == kernels::Nf4Scales::plain) {
      EXPECT_TRUE(same_bytes(ours->tensor(name + ".absmax"), theirs->tensor(name + ".absmax"))) << name;
    } else {
      EXPECT_TRUE(same_bytes(ours->tensor(name + ".nested_quant_map"), theirs->tensor(name + ".nested_quant_map")));
      EXPECT_EQ(ours->tensor(name + ".absmax").shape(), theirs->tensor(name + ".absmax").shape());
    }
  }
  const auto config = read_json_file(out.path() / "model/config.json"),
             their_config = read_json_file(folder / "config.json");
  EXPECT_EQ(config["dtype"], their_config["dtype"]);
  for (const auto& [key, value] : their_config["quantization_config"].items())
    if (key != "llm_int8_skip_modules") {
      EXPECT_EQ(config["quantization_config"][key], value) << key;
    }
}

TEST_P(Bitsandbytes, WhatWasWrittenReadsBackAsTheQuantisedModel) {
  TemporaryFolder out;
  const ModelFiles source = open_model_files(golden("bitsandbytes/source"));
  write_quantized_model(out.path() / "model", source, DType::bf16, GetParam().scales);
  const ModelFiles files = open_model_files(out.path() / "model");
  const std::vector<int32_t> ids = answers["input_ids"];
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Transformer read(files.config, *files.weights, {.dtype = dtype});
    const Transformer quantised(
        source.config, *source.weights,
        {.dtype = dtype, .quantized_linears = Quantization{kernels::QuantizedFormat::nf4, GetParam().scales}});
    EXPECT_EQ(largest_difference(logits_of(read, {ids}), logits_of(quantised, {ids})), 0.0);
  }
  // What transformers and bitsandbytes dequantised from such a file (check_written.py).
  const nlohmann::json written = golden_json("bitsandbytes/written.json")[GetParam().name];
  for (const auto& [name, hash] : written.items())
    EXPECT_EQ(hash_of(values_of(*files.weights, name, DType::bf16)), hash) << name;
  const Tensor zeros = values_of(*files.weights, "model.layers.0.mlp.gate_proj.weight", DType::f32);
  for (int64_t i = 0; i < zeros.dim(1); ++i) EXPECT_EQ(zeros.data<float>()[7 * zeros.dim(1) + i], 0.0f);
}

TEST_P(Bitsandbytes, CodesAreNeitherTrainedNorQuantisedAgain) {
  const ModelFiles files = open_model_files(folder);
  EXPECT_THROW(Transformer(files.config, *files.weights, {.weights = WeightMode::trainable}), ConfigError);
  TemporaryFolder out;
  EXPECT_THROW(write_quantized_model(out.path() / "model", files, DType::bf16, kernels::Nf4Scales::plain), ConfigError);
  EXPECT_FALSE(fs::exists(out.path() / "model"));
  EXPECT_THROW(resolved_quantization(files, Quantization{kernels::QuantizedFormat::int8}), ConfigError);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Bitsandbytes,
                         testing::Values(Checkpoint{"plain", DType::f32, kernels::Nf4Scales::plain},
                                         Checkpoint{"nested", DType::bf16, kernels::Nf4Scales::nested}),
                         [](const auto& info) { return info.param.name; });

// A copy of the plain checkpoint in which one thing is wrong.
class BadBitsandbytes : public testing::Test {
 protected:
  void SetUp() override {
    fs::copy(golden("bitsandbytes/plain"), folder_.path(), fs::copy_options::recursive);
    const auto file = SafetensorsFile::open(golden("bitsandbytes/plain/model.safetensors"));
    for (const std::string& name : file->names()) tensors_.emplace_back(name, file->tensor(name));
  }
  Tensor& tensor(const std::string& part) {
    for (auto& [name, tensor] : tensors_)
      if (name == "model.layers.0.mlp.up_proj.weight" + part) return tensor;
    throw ShapeError(part);
  }
  void set_state(const std::string& text) {
    tensor(".quant_state.bitsandbytes__nf4") = Tensor::of<uint8_t>(
        std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size()), {static_cast<int64_t>(text.size())});
  }
  std::string complaint() {
    write_safetensors(folder_.path() / "model.safetensors", tensors_);
    try {
      open_model_files(folder_.path());
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing";
  }
  std::string complaint_about(const std::string& key, const json& value) {
    json config = json::parse(std::ifstream(golden("bitsandbytes/plain/config.json")));
    config["quantization_config"][key] = value;
    std::ofstream(folder_.path() / "config.json") << config.dump();
    return complaint();
  }

  TemporaryFolder folder_;
  NamedTensors tensors_;
};

TEST_F(BadBitsandbytes, PartsThatDoNotFitAreNamed) {
  EXPECT_EQ(complaint(), "nothing");
  const Tensor absmax = tensor(".absmax");
  tensor(".absmax") = absmax.slice(0, 0, absmax.dim(0) - 1).clone();
  EXPECT_NE(complaint().find("up_proj.weight: bitsandbytes: absmax"), std::string::npos) << complaint();
  tensor(".absmax") = kernels::cast(absmax, DType::bf16);
  EXPECT_NE(complaint().find("expected f32 in its model.layers.0.mlp.up_proj.weight.absmax"), std::string::npos);
  tensor(".absmax") = absmax;
  const Tensor map = tensor(".quant_map").clone();
  map.data<float>()[3] = 0.5f;
  tensor(".quant_map") = map;
  EXPECT_NE(complaint().find("other values than bitsandbytes' nf4"), std::string::npos) << complaint();
}

TEST_F(BadBitsandbytes, AQuantStateIsReadWithinBounds) {
  const std::string shape = "\"shape\": [128, 64]}";
  for (const std::string& text :
       {std::string("{"), std::string("[1]"), std::string("{\"quant_type\": \"nf4\"}"),
        "{\"quant_type\": \"fp4\", \"blocksize\": 64, " + shape,
        "{\"quant_type\": \"nf4\", \"blocksize\": 63, " + shape,
        "{\"quant_type\": \"nf4\", \"blocksize\": 1e30, " + shape,
        std::string("{\"quant_type\": \"nf4\", \"blocksize\": 64, \"shape\": [128]}"),
        std::string("{\"quant_type\": \"nf4\", \"blocksize\": 64, \"shape\": [2147483647, 2147483647]}"),
        std::string("{\"quant_type\": \"nf4\", \"blocksize\": 64, \"shape\": [64, 64]}"),
        "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"nested_offset\": 0.1, \"nested_blocksize\": 128, " + shape}) {
    set_state(text);
    EXPECT_NE(complaint(), "nothing") << text;
  }
}

TEST_F(BadBitsandbytes, OtherQuantisationsAreRefusedByName) {
  EXPECT_NE(complaint_about("bnb_4bit_quant_type", "fp4").find("fp4"), std::string::npos);
  EXPECT_NE(complaint_about("load_in_8bit", true).find("LLM.int8"), std::string::npos);
  EXPECT_NE(complaint_about("quant_method", "hqq").find("hqq"), std::string::npos);
}

TEST_F(BadBitsandbytes, AFolderWithFilesIsNotWrittenTo) {
  const ModelFiles source = open_model_files(golden("bitsandbytes/source"));
  EXPECT_THROW(write_quantized_model(folder_.path(), source, DType::f32, kernels::Nf4Scales::plain), ConfigError);
}

}  // namespace
}  // namespace lathe::nn
