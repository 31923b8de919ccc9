// DoRA, adapted embeddings and modules that an adapter has whole: what PEFT computes with them, both ways.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/copy/copy.h"
#include "nn/merge_adapter.h"
#include "nn/weights/safetensors.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

using Sequences = std::vector<std::vector<int32_t>>;

struct GoldenAdapter {
  const char* name;
  const char* base;
};

class PeftModules : public testing::TestWithParam<GoldenAdapter> {
 protected:
  std::filesystem::path base() const { return golden(std::string("tiny_qwen3/") + GetParam().base); }
  std::filesystem::path adapter() const { return golden(std::string("peft_modules/") + GetParam().name); }
  Transformer model_with(const std::filesystem::path& directory, DType dtype = DType::f32) const {
    Transformer model = load(base(), dtype);
    model.load_adapter(read_peft_adapter(directory));
    return model;
  }
  Tensor expected_logits() const {
    NamedTensors parts;
    const int64_t rows = 5 + 21 + 34;
    Tensor all = Tensor::empty({rows, 96}, DType::f32);
    int64_t row = 0;
    for (int i = 0; i < 3; ++i) {
      const Tensor part = expected_->tensor("logits." + std::to_string(i));
      kernels::copy(all.slice(0, row, row + part.dim(0)), part);
      row += part.dim(0);
    }
    return all;
  }

  const nlohmann::json input_ = golden_json("peft_modules/input.json");
  const Sequences ids_ = input_["input_ids"].get<Sequences>();
  const std::shared_ptr<const SafetensorsFile> expected_ =
      SafetensorsFile::open(golden(std::string("peft_modules/") + GetParam().name + "/expected.safetensors"));
};

TEST_P(PeftModules, HaveTheLogitsAndGradientsOfPeft) {
  Transformer model = model_with(adapter());
  EXPECT_LE(largest_difference(logits_of(model, ids_), expected_logits()), 1e-4);
  EXPECT_GT(largest_difference(logits_of(load(base(), DType::f32), ids_), expected_logits()), 1e-1);
  const auto labels = input_["labels"].get<Sequences>();
  int64_t count = 0;
  for (const auto& sequence : labels)
    count += std::count_if(sequence.begin() + 1, sequence.end(), [](int32_t label) { return label >= 0; });
  for (const bool checkpoint_layers : {false, true}) {
    for (const Parameter& parameter : model.trainable_parameters()) parameter.leaf.zero_grad();
    backward_through(model, ids_, labels, count, checkpoint_layers);
    size_t compared = 0;
    for (const Parameter& parameter : model.trainable_parameters()) {
      const Tensor wanted = expected_->tensor("grad." + parameter.name);
      EXPECT_LE(largest_difference(parameter.leaf.grad(), wanted), 1e-4 * norm(wanted)) << parameter.name;
      ++compared;
    }
    EXPECT_EQ(compared, expected_->names().size() - ids_.size());
  }
}

TEST_P(PeftModules, ComeBackFromDiskAsTheyWere) {
  const Transformer model = model_with(adapter());
  const TemporaryFolder folder;
  write_peft_adapter(folder.path(), model.adapter());
  EXPECT_EQ(largest_difference(logits_of(model_with(folder.path()), ids_), logits_of(model, ids_)), 0.0);
}

TEST_P(PeftModules, MergeIntoTheirBase) {
  const ModelFiles files = open_model_files(base());
  const PeftAdapter peft = read_peft_adapter(adapter());
  const TemporaryFolder folder;
  write_merged_model(folder.path(), files, peft);
  EXPECT_LE(largest_difference(logits_of(load(folder.path(), DType::f32), ids_), expected_logits()), 1e-4);
  const MergeCheck check = check_merged_model(folder.path(), files, peft);
  EXPECT_LE(check.difference, check.bound);
}

TEST_P(PeftModules, StartAsTheirBase) {
  Transformer model = load(base(), DType::f32);
  LoraConfig config = read_peft_adapter(adapter()).config;
  model.add_lora(config, 3);
  // DoRA's magnitudes are the norms: their quotient is one, up to a rounding of each.
  EXPECT_LE(largest_difference(logits_of(model, ids_), logits_of(load(base(), DType::f32), ids_)), 1e-4);
  std::vector<Shape> shapes;
  for (const Parameter& parameter : model.trainable_parameters()) shapes.push_back(parameter.master.shape());
  EXPECT_EQ(shapes, adapter_shapes(model.config(), config));
}

INSTANTIATE_TEST_SUITE_P(Golden, PeftModules,
                         testing::Values(GoldenAdapter{"dora", "untied"}, GoldenAdapter{"saved", "tied"},
                                         GoldenAdapter{"saved_embedding", "tied"}, GoldenAdapter{"embedding", "untied"},
                                         GoldenAdapter{"embedding_tied", "tied"}),
                         [](const auto& info) { return std::string(info.param.name); });

// An adapted embedding beside nothing, and beside another one: the bits of each alone.
TEST(PeftModules, EmbeddingsByRows) {
  const Sequences ids = golden_json("peft_modules/input.json")["input_ids"].get<Sequences>();
  Transformer model = load(golden("tiny_qwen3/untied"), DType::f32);
  model.load_adapter(read_peft_adapter(golden("peft_modules/embedding")), "embedding");
  model.load_adapter(read_peft_adapter(golden("peft_modules/dora")), "dora");
  const auto logits = [&](const Sequences& sequences, std::vector<std::string> names) {
    const autograd::NoGradScope no_grad;
    std::vector<int32_t> all, lengths;
    for (const auto& sequence : sequences) {
      all.insert(all.end(), sequence.begin(), sequence.end());
      lengths.push_back(static_cast<int32_t>(sequence.size()));
    }
    TokenBatch batch = make_token_batch(all, lengths);
    batch.adapters = std::move(names);
    PackedAttention attention(model.config(), batch.layout);
    return model.logits(model.forward(batch, attention).value());
  };
  const std::vector<std::string> names{"", "embedding", "dora"};
  const Tensor together = logits(ids, names);
  int64_t row = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const Tensor alone = logits({ids[i]}, {names[i]});
    EXPECT_EQ(largest_difference(together.slice(0, row, row + alone.dim(0)).clone(), alone), 0.0) << names[i];
    row += alone.dim(0);
  }
}

TEST(PeftModules, AnOutputProjectionOfItsOwnIsUsedAlone) {
  const Sequences ids{{1, 2, 3}};
  Transformer model = load(golden("tiny_qwen3/tied"), DType::f32);
  model.load_adapter(read_peft_adapter(golden("peft_modules/saved")), "saved");
  logits_of(model, ids);
  TokenBatch batch = make_token_batch(ids[0], std::vector<int32_t>{3});
  PackedAttention attention(model.config(), batch.layout);
  batch.adapters = {""};
  EXPECT_THROW(model.forward(batch, attention), ConfigError);
  batch.adapters = {"saved"};
  model.forward(batch, attention);
  model.load_adapter(read_peft_adapter(golden("peft_modules/saved_embedding")), "other");
  EXPECT_THROW(model.forward(batch, attention), ConfigError);
  model.remove_adapter("saved");
  EXPECT_EQ(model.output_weight().dense().defined(), false);  // the base's, packed
}

TEST(PeftModules, TargetsThatCannotBeAreRefusedByName) {
  Transformer model = load(golden("tiny_qwen3/tied"), DType::f32);
  const auto refusal = [&](const LoraConfig& config) {
    try {
      model.add_lora(config, 1);
    } catch (const ConfigError& error) {
      return error.key();
    }
    return std::string("accepted");
  };
  LoraConfig config;
  config.target_modules = {"q_proj", "lm_head"};
  EXPECT_EQ(refusal(config), "lora_target_modules");
  config.target_modules = {"embed_tokens"};
  config.use_dora = true;
  EXPECT_EQ(refusal(config), "use_dora");
  config.use_dora = false;
  config.modules_to_save = {"model.embed_tokens"};
  EXPECT_EQ(refusal(config), "lora_modules_to_save");
  EXPECT_THROW(saved_modules({"norm"}), ConfigError);
  EXPECT_EQ(saved_modules({"lm_head", "embed_tokens", "lm_head"}),
            (std::vector<std::string>{"lm_head", "model.embed_tokens"}));
}

}  // namespace
}  // namespace lathe::nn
