#include "nn/weights/gptq_awq.h"
#include "core/json_value.h"

#include <gtest/gtest.h>

#include <fstream>

#include "nn/weights/safetensors.h"
#include "tests/nn/golden_files.h"
#include "tests/support/golden.h"

namespace lathe::nn {
namespace {

using nlohmann::json;

// A directory with one linear of the golden file.
class GptqAwq : public ::testing::Test {
 protected:
  void write(const std::string& name, json quantization, const std::function<void(NamedTensors&)>& change = {}) {
    std::ofstream(folder_.path() / "config.json") << json{{"quantization_config", std::move(quantization)}}.dump();
    NamedTensors tensors = {{"model.norm.weight", Tensor::of<float>({{1.0f, 2.0f}}, {2})}};
    for (const auto& [key, tensor] : golden_)
      if (key.starts_with(name + ".") && !key.ends_with(".dequantized"))
        tensors.emplace_back("q_proj" + key.substr(name.size()), tensor);
    if (change) change(tensors);
    write_safetensors(folder_.path() / "model.safetensors", tensors);
  }
  std::unique_ptr<WeightSource> open() const {
    const auto quantization = packed_quantization_of(folder_.path());
    return quantization ? open_packed_weights(folder_.path(), *quantization) : nullptr;
  }
  void expect_golden(const std::string& name) const {
    const auto source = open();
    ASSERT_NE(source, nullptr);
    const Tensor& expected = golden_.at(name + ".dequantized");
    const WeightInfo* info = source->find("q_proj.weight");
    ASSERT_NE(info, nullptr);
    ASSERT_EQ(info->shape, expected.shape()) << name;
    const int64_t rows = info->shape[0], columns = info->shape[1];
    std::vector<float> values(static_cast<size_t>(rows * columns));
    source->read_rows("q_proj.weight", 0, 5, values.data());  // in parts, as a loader reads them
    source->read_rows("q_proj.weight", 5, rows - 5, values.data() + 5 * columns);
    for (int64_t i = 0; i < rows * columns; ++i)
      ASSERT_EQ(values[static_cast<size_t>(i)], static_cast<float>(expected.data<f16>()[i])) << name << " " << i;
  }
  std::string complaint() const {
    try {
      open();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  TemporaryFolder folder_;
  const testing::GoldenTensors golden_ = testing::golden_tensors("gptq_awq/linears.safetensors");
};

json gptq(int bits, int group_size) {
  return {{"quant_method", "gptq"}, {"bits", bits}, {"group_size", group_size}, {"desc_act", false}};
}

TEST_F(GptqAwq, DequantisesToTheBitAsThePackages) {
  for (const auto& [name, bits] :
       {std::pair{"gptq4", 4}, {"gptq4_act_order", 4}, {"gptq2", 2}, {"gptq3", 3}, {"gptq8", 8}}) {
    write(name, gptq(bits, 32));
    expect_golden(name);
  }
  write("gptq4_one_group", gptq(4, -1));
  expect_golden("gptq4_one_group");
  json second = gptq(4, 32);
  second["checkpoint_format"] = "gptq_v2";
  write("gptq4_v2", second);
  expect_golden("gptq4_v2");
  write("awq4", {{"quant_method", "awq"}, {"bits", 4}, {"group_size", 32}, {"version", "GEMM"}, {"zero_point", true}});
  expect_golden("awq4");
}

// Whole models: GPTQ symmetric with columns out of order, AWQ with zeros.
TEST_F(GptqAwq, AModelHasTheLogitsOfTheWeightsThatItsCodesStandFor) {
  for (const std::string form : {"gptq_awq/gptq", "gptq_awq/awq"}) {
    const json expected = golden_json(form + "/expected.json");
    const auto logits = expected["logits"].get<std::vector<float>>();
    const Tensor found = logits_of(load(golden(form), DType::f32), {expected["input_ids"].get<std::vector<int32_t>>()});
    const auto last = found.span<float>().last(logits.size());
    for (size_t i = 0; i < logits.size(); ++i) ASSERT_NEAR(last[i], logits[i], 1e-4) << form << ", token " << i;
  }
}

TEST_F(GptqAwq, WithoutGroupsOfColumnsTheyAreNeighbours) {
  write("gptq4", gptq(4, 32), [](NamedTensors& tensors) {
    std::erase_if(tensors, [](const auto& tensor) { return tensor.first == "q_proj.g_idx"; });
  });
  expect_golden("gptq4");
}

TEST_F(GptqAwq, EarlyCheckpointsSayItInAFileOfTheirOwn) {
  write("gptq4", nullptr);
  EXPECT_FALSE(packed_quantization_of(folder_.path()));
  std::ofstream(folder_.path() / "quantize_config.json") << R"({"bits": 4, "group_size": 32, "desc_act": false})";
  expect_golden("gptq4");
}

TEST_F(GptqAwq, ABiasOfZerosIsListedOnlyWhereItSaysSomething) {
  for (const float value : {0.0f, 0.5f}) {
    write("gptq4", gptq(4, 32), [&](NamedTensors& tensors) {
      const std::vector<float> bias(32, value);
      tensors.emplace_back("q_proj.bias", Tensor::of<float>(bias, {32}));
    });
    const auto source = open();
    const auto& weights = source->weights();
    const bool listed =
        std::any_of(weights.begin(), weights.end(), [](const auto& info) { return info.name == "q_proj.bias"; });
    EXPECT_EQ(listed, value != 0);
    EXPECT_NE(source->find("q_proj.bias"), nullptr);
  }
}

TEST_F(GptqAwq, PartsThatDoNotFitTogetherAreNamed) {
  const auto complaint_with = [&](const char* part, std::optional<Tensor> other, json quantization = gptq(4, 32)) {
    write("gptq4", std::move(quantization), [&](NamedTensors& tensors) {
      std::erase_if(tensors, [&](const auto& tensor) { return tensor.first == std::string("q_proj.") + part; });
      if (other) tensors.emplace_back(std::string("q_proj.") + part, *other);
    });
    return complaint();
  };
  const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  EXPECT_TRUE(has(complaint_with("scales", std::nullopt), "q_proj.scales is missing"));
  EXPECT_TRUE(has(complaint_with("qzeros", std::nullopt), "q_proj.qzeros is missing"));
  EXPECT_TRUE(has(complaint_with("scales", Tensor::of<float>({{1.0f}}, {1, 1})), "qzeros [1, 4]"));
  EXPECT_TRUE(has(complaint_with("qzeros", Tensor::of<int32_t>({{1, 2}}, {1, 2})), "qzeros [4, 4]"));
  EXPECT_TRUE(has(complaint_with("qweight", std::nullopt), "no .qweight"));
  std::vector<int32_t> groups(128, 0);
  groups[7] = 4;
  EXPECT_TRUE(has(complaint_with("g_idx", Tensor::of<int32_t>(groups, {128})), "column 7 is of group 4"));
  groups[7] = -1;
  EXPECT_TRUE(has(complaint_with("g_idx", Tensor::of<int32_t>(groups, {128})), "column 7 is of group -1"));
  EXPECT_TRUE(has(complaint_with("g_idx", Tensor::of<int32_t>({{0, 1}}, {2})), "128 columns"));
  EXPECT_TRUE(has(complaint_with("g_idx", std::nullopt, gptq(4, 64)), "group_size"));
}

TEST_F(GptqAwq, SettingsThatAreNotReadAreNamed) {
  const auto complaint_of = [&](json quantization) {
    write("gptq4", std::move(quantization));
    return complaint();
  };
  EXPECT_NE(complaint_of({{"quant_method", "awq"}, {"version", "gemv"}}).find("gemv"), std::string::npos);
  EXPECT_NE(complaint_of({{"quant_method", "awq"}, {"bits", 3}}).find("4 bits"), std::string::npos);
  EXPECT_NE(complaint_of(gptq(5, 32)).find("2, 3, 4 and 8"), std::string::npos);
  EXPECT_NE(complaint_of(gptq(4, 0)).find("group_size"), std::string::npos);
  EXPECT_NE(complaint_of({{"quant_method", "gptq"}, {"bits", "four"}}).find("bits"), std::string::npos);
  EXPECT_NE(complaint_of({{"quant_method", "gptq"}, {"checkpoint_format", "marlin"}}).find("marlin"),
            std::string::npos);
  EXPECT_NE(complaint_of({{"quant_method", "gptq"}, {"checkpoint_format", 3}}).find("a word"), std::string::npos);
}

}  // namespace
}  // namespace lathe::nn
