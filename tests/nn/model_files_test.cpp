// What a model's files say together, and what is said of folders that hold something else.
#include "nn/model_files.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/atomic_write.h"
#include "kernels/copy/copy.h"
#include "nn/weights/safetensors.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

constexpr const char *embedding = "model.embed_tokens.weight", *head = "lm_head.weight";

NamedTensors weights_of(const std::string& folder) {
  const auto file = SafetensorsFile::open(golden(folder) / "model.safetensors");
  NamedTensors tensors;
  for (const std::string& name : file->names()) tensors.emplace_back(name, file->tensor(name));
  return tensors;
}

// A Llama of these weights whose config ties the embeddings.
void write_tied(const std::filesystem::path& folder, const NamedTensors& tensors) {
  std::filesystem::copy_file(golden("tiny_llama/tied/config.json"), folder / "config.json",
                             std::filesystem::copy_options::overwrite_existing);
  write_safetensors(folder / "model.safetensors", tensors);
}

Tensor logits_in(const std::filesystem::path& folder) {
  return logits_of(load(folder, DType::f32), {{3, 50, 100, 7, 99, 200, 12, 45}});
}

// As in transformers, an output projection that differs from the embedding counts, whatever the config says.
TEST(ModelFiles, AnOutputProjectionOfItsOwnCountsAndIsSaid) {
  const TemporaryFolder folder;
  write_tied(folder.path(), weights_of("tiny_llama/untied"));
  const ModelFiles files = open_model_files(folder.path());
  EXPECT_FALSE(files.config.tie_word_embeddings);
  ASSERT_EQ(files.warnings.size(), 1u);
  EXPECT_NE(files.warnings[0].find("tie_word_embeddings"), std::string::npos) << files.warnings[0];
  EXPECT_EQ(largest_difference(logits_in(folder.path()), logits_in(golden("tiny_llama/untied"))), 0.0);
}

TEST(ModelFiles, ATiedWeightMayBeStoredTwiceOrUnderEitherName) {
  const Tensor expected = logits_in(golden("tiny_llama/tied"));
  const TemporaryFolder folder;
  NamedTensors tensors = weights_of("tiny_llama/tied");
  const auto place = std::find_if(tensors.begin(), tensors.end(), [](const auto& t) { return t.first == embedding; });
  ASSERT_NE(place, tensors.end());
  const Tensor tied = place->second;
  const auto expect_tied = [&] {
    write_tied(folder.path(), tensors);
    const ModelFiles files = open_model_files(folder.path());
    EXPECT_TRUE(files.config.tie_word_embeddings);
    EXPECT_TRUE(files.warnings.empty());
    EXPECT_EQ(largest_difference(logits_in(folder.path()), expected), 0.0);
  };
  place->first = head;
  expect_tied();
  tensors.emplace_back(embedding, tied);
  expect_tied();
}

std::string error_of(const std::function<void()>& open) {
  try {
    open();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(ModelFiles, AFolderThatHoldsSomethingElseSaysWhat) {
  const auto expect = [](const std::vector<std::string>& names, bool adapter, const std::string& part) {
    const TemporaryFolder folder;
    for (const std::string& name : names) {
      if (name == "config.json")
        std::filesystem::copy_file(golden("tiny_llama/tied/config.json"), folder.path() / name);
      else
        write_file_atomically(folder.path() / name, name == "adapter_config.json" ? R"({"peft_type": "LORA"})" : "x");
    }
    const std::string error = error_of([&] {
      adapter ? static_cast<void>(read_peft_adapter(folder.path()))
              : static_cast<void>(open_model_files(folder.path()));
    });
    EXPECT_NE(error.find(part), std::string::npos) << error;
  };
  expect({}, false, "config.json: is not there");
  expect({"a.Q4_0.gguf", "b.gguf"}, false, "a.Q4_0.gguf for example");
  expect({"adapter_config.json", "adapter_model.safetensors"}, false, "it holds an adapter");
  expect({"config.json", "pytorch_model.bin"}, false, "pytorch_model.bin is a pickle");
  expect({"config.json", "pytorch_model-00001-of-00002.bin"}, false, "is a pickle");
  expect({"config.json"}, false, "neither model.safetensors nor");
  expect({"adapter_config.json", "adapter_model.bin"}, true, "adapter_model.bin is a pickle");
  expect({"config.json", "model.safetensors"}, true, "it holds a model, not an adapter");
  expect({}, true, "adapter_config.json: is not there");
}

}  // namespace
}  // namespace lathe::nn
