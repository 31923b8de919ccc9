// An adapter merged into its base: the logits that PEFT gives with the adapter beside it, and nothing by halves.
#include "nn/merge_adapter.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "nn/weights/safetensors.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

std::vector<int32_t> input_ids() {
  return golden_json("peft_adapter/input.json")["input_ids"].get<std::vector<int32_t>>();
}

class Merged : public testing::TestWithParam<const char*> {
 protected:
  const ModelFiles base_ = open_model_files(golden("tiny_llama/untied"));
  const PeftAdapter adapter_ = read_peft_adapter(golden(std::string("peft_adapter/") + GetParam()));
  const TemporaryFolder folder_;
};

TEST_P(Merged, GivesTheLogitsOfPeft) {
  write_merged_model(folder_.path(), base_, adapter_);
  const auto expected = SafetensorsFile::open(golden("peft_adapter/logits.safetensors"))->tensor(GetParam());
  EXPECT_LE(largest_difference(logits_of(load(folder_.path(), DType::f32), {input_ids()}), expected), 1e-4);
  const MergeCheck check = check_merged_model(folder_.path(), base_, adapter_);
  EXPECT_LE(check.difference, check.bound);
  EXPECT_LT(check.bound, 1e-4);
}

TEST_P(Merged, InBf16LiesWithinItsRounding) {
  const MergedModel merged = write_merged_model(folder_.path(), base_, adapter_, DType::bf16);
  EXPECT_EQ(merged.bytes, merged.base_bytes / 2);
  EXPECT_EQ(merged.merged, static_cast<int64_t>(adapter_.modules.size() + adapter_.saved.size()));
  const MergeCheck check = check_merged_model(folder_.path(), base_, adapter_);
  EXPECT_GT(check.difference, 0x1p-12);  // it was rounded
  EXPECT_LE(check.difference, check.bound);
  const auto config = nlohmann::json::parse(std::ifstream(folder_.path() / "config.json"));
  EXPECT_EQ(config["dtype"], "bfloat16");
}

INSTANTIATE_TEST_SUITE_P(Golden, Merged,
                         testing::Values("plain", "rslora", "patterns", "all_linear", "modules_to_save"));

// Experts are written as transformers reads them, whatever the base has them in.
TEST(Merge, StackedExpertsStayStacked) {
  const PeftAdapter adapter = read_peft_adapter(golden("family_adapters/gpt_oss"));
  for (const char* name : {"tiny_gpt_oss/dense", "tiny_gpt_oss/mxfp4"}) {
    SCOPED_TRACE(name);
    const ModelFiles base = open_model_files(golden(name));
    const TemporaryFolder folder;
    const MergedModel merged = write_merged_model(folder.path(), base, adapter, DType::bf16);
    EXPECT_EQ(merged.base_was_codes, std::string(name) == "tiny_gpt_oss/mxfp4");
    const MergeCheck check = check_merged_model(folder.path(), base, adapter);
    EXPECT_LE(check.difference, check.bound);
    const auto written = SafetensorsFile::open(folder.path() / "model.safetensors"),
               dense = SafetensorsFile::open(golden("tiny_gpt_oss/dense/model.safetensors"));
    for (const std::string& weight : dense->names())
      EXPECT_EQ(written->tensor(weight).shape(), dense->tensor(weight).shape()) << weight;
    EXPECT_EQ(written->names().size(), dense->names().size());
  }
}

TEST(Merge, AWrongWeightIsFoundWhenItIsReadBack) {
  const ModelFiles base = open_model_files(golden("tiny_llama/untied"));
  PeftAdapter adapter = read_peft_adapter(golden("peft_adapter/plain"));
  const TemporaryFolder folder;
  write_merged_model(folder.path(), base, adapter);
  adapter.config.lora_alpha *= 1.001;
  try {
    check_merged_model(folder.path(), base, adapter);
    FAIL() << "not found";
  } catch (const NumericError& error) {
    EXPECT_NE(std::string(error.what()).find("q_proj.weight["), std::string::npos) << error.what();
  }
}

TEST(Merge, AnAdapterOfAnotherModelIsRefusedByName) {
  const ModelFiles base = open_model_files(golden("tiny_qwen3/untied"));
  const TemporaryFolder folder;
  try {
    write_merged_model(folder.path(), base, read_peft_adapter(golden("peft_adapter/plain")));
    FAIL() << "accepted";
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("made for another model"), std::string::npos) << error.what();
  }
}

TEST(Merge, AGgufBaseIsRefusedWithWhatToDo) {
  const ModelFiles base = open_model_files(golden("tiny_qwen3/untied/model.gguf"));
  const TemporaryFolder folder;
  EXPECT_THROW(write_merged_model(folder.path(), base, read_peft_adapter(golden("tiny_qwen3/adapter"))), ConfigError);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace lathe::nn
