// What opening and converting a large model takes, on files that hold nothing but holes.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "nn/families/family.h"
#include "tests/nn/golden_files.h"
#include "text/convert_model.h"

namespace lathe::text {
namespace {

using nn::golden;
using nn::ModelFiles;
using nn::open_model_files;

namespace fs = std::filesystem;

constexpr int64_t mebibyte = int64_t{1} << 20;

// A Llama of these sizes, f16, without a tokenizer.
struct LargeModel {
  int64_t layers, hidden, intermediate, vocab;

  nlohmann::json config() const {
    return {{"model_type", "llama"},
            {"hidden_size", hidden},
            {"num_hidden_layers", layers},
            {"intermediate_size", intermediate},
            {"vocab_size", vocab},
            {"num_attention_heads", hidden / 128},
            {"num_key_value_heads", 8},
            {"max_position_embeddings", 4096},
            {"tie_word_embeddings", false},
            {"rms_norm_eps", 1e-5},
            {"torch_dtype", "float16"},
            {"hidden_act", "silu"},
            {"architectures", {"LlamaForCausalLM"}}};
  }
  std::vector<std::pair<std::string, Shape>> weights() const {
    std::vector<std::pair<std::string, Shape>> all = {{"model.embed_tokens.weight", {vocab, hidden}},
                                                      {"model.norm.weight", {hidden}},
                                                      {"lm_head.weight", {vocab, hidden}}};
    for (int64_t i = 0; i < layers; ++i) {
      const std::string layer = "model.layers." + std::to_string(i) + ".";
      for (const char* norm : {"input_layernorm", "post_attention_layernorm"})
        all.push_back({layer + norm + ".weight", {hidden}});
      for (const char* name : {"q_proj", "o_proj"})
        all.push_back({layer + "self_attn." + name + ".weight", {hidden, hidden}});
      for (const char* name : {"k_proj", "v_proj"})
        all.push_back({layer + "self_attn." + name + ".weight", {8 * 128, hidden}});
      for (const char* name : {"gate_proj", "up_proj"})
        all.push_back({layer + "mlp." + name + ".weight", {intermediate, hidden}});
      all.push_back({layer + "mlp.down_proj.weight", {hidden, intermediate}});
    }
    return all;
  }
  int64_t bytes() const {
    int64_t bytes = 0;
    for (const auto& [name, shape] : weights()) bytes += 2 * shape.numel();
    return bytes;
  }
  int64_t largest_weight_bytes() const { return 2 * vocab * hidden; }
};

void append_hole(const fs::path& path, int64_t bytes) {
  ASSERT_EQ(::truncate(path.c_str(), static_cast<off_t>(fs::file_size(path)) + bytes), 0);
}

void write_large_directory(const fs::path& folder, const LargeModel& model) {
  fs::create_directories(folder);
  std::ofstream(folder / "config.json") << model.config().dump();
  nlohmann::ordered_json header;
  int64_t offset = 0;
  for (const auto& [name, shape] : model.weights()) {
    const int64_t end = offset + 2 * shape.numel();
    header[name] = {{"dtype", "F16"},
                    {"shape", std::vector<int64_t>(shape.dims().begin(), shape.dims().end())},
                    {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  std::ofstream(folder / "model.safetensors", std::ios::binary)
      << std::string_view(reinterpret_cast<const char*>(&length), 8) << text;
  append_hole(folder / "model.safetensors", offset);
}

// A GGUF file's header, byte by byte.
class GgufHeader {
 public:
  template <class T>
  GgufHeader& put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  GgufHeader& text(const std::string& value) {
    put<uint64_t>(value.size());
    bytes_ += value;
    return *this;
  }
  GgufHeader& count(const std::string& key, int64_t value) {
    return text(key).put<uint32_t>(4).put(static_cast<uint32_t>(value));
  }
  std::string aligned() const { return bytes_ + std::string((32 - bytes_.size() % 32) % 32, '\0'); }

 private:
  std::string bytes_;
};

void write_large_gguf(const fs::path& path, const LargeModel& model) {
  const ModelFiles small = open_model_files(golden("tiny_llama_bias/model.gguf"));
  std::map<std::string, std::string> gguf_names;  // by Hugging Face's
  nn::ModelConfig config = small.config;
  config.attention_bias = nn::AttentionBias::none;
  config.layers.resize(static_cast<size_t>(model.layers));
  config.num_attention_heads = model.hidden / 128;
  config.num_key_value_heads = 8;
  for (const auto& [name, place] : nn::gguf_places(config)) gguf_names[place.name] = name;
  const auto weights = model.weights();
  GgufHeader header;
  header.put<uint32_t>(0x46554747).put<uint32_t>(3).put<uint64_t>(weights.size()).put<uint64_t>(8);
  header.text("general.architecture").put<uint32_t>(8).text("llama");
  header.count("llama.context_length", 4096).count("llama.embedding_length", model.hidden);
  header.count("llama.block_count", model.layers).count("llama.feed_forward_length", model.intermediate);
  header.count("llama.attention.head_count", model.hidden / 128).count("llama.attention.head_count_kv", 8);
  header.text("llama.attention.layer_norm_rms_epsilon").put<uint32_t>(6).put<float>(1e-5f);
  int64_t offset = 0;
  for (const auto& [name, shape] : weights) {
    header.text(gguf_names.at(name)).put(static_cast<uint32_t>(shape.rank()));
    for (int64_t i = shape.rank() - 1; i >= 0; --i) header.put(static_cast<uint64_t>(shape[i]));
    header.put<uint32_t>(1).put(static_cast<uint64_t>(offset));  // F16
    offset += (2 * shape.numel() + 31) / 32 * 32;
  }
  std::ofstream(path, std::ios::binary) << header.aligned();
  append_hole(path, offset);
}

// "VmRSS" or "VmHWM" of this process.
int64_t memory_bytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(field + ":")) return std::stoll(line.substr(field.size() + 1)) * 1024;
  return 0;
}
// From here on VmHWM counts.
void forget_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

int64_t page_faults() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt + usage.ru_majflt;
}

// 13.8 GB.
const LargeModel seven_billion{32, 4096, 11008, 32000};

// Nothing of the weights is read: neither memory nor the pages that were touched depend on their size.
void expect_opened_at_once(const fs::path& model) {
  const int64_t memory = memory_bytes("VmRSS"), faults = page_faults();
  const ModelFiles files = open_model_files(model);
  EXPECT_LT(memory_bytes("VmRSS") - memory, 4 * mebibyte);
  EXPECT_LT(page_faults() - faults, 1000);
  EXPECT_EQ(files.weights->weights().size(), seven_billion.weights().size());
  EXPECT_GT(seven_billion.bytes(), int64_t{10} << 30);
}

TEST(LargeModel, ADirectoryOfTenGigabytesIsOpenedWithoutReadingItsWeights) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the sanitizer's own memory counts";
#endif
  const TemporaryFolder folder;
  write_large_directory(folder.path() / "model", seven_billion);
  expect_opened_at_once(folder.path() / "model");
}

TEST(LargeModel, AGgufFileOfTenGigabytesIsOpenedWithoutReadingItsWeights) {
  const TemporaryFolder folder;
  write_large_gguf(folder.path() / "model.gguf", seven_billion);
  expect_opened_at_once(folder.path() / "model.gguf");
}

// The largest weight, as it lies in the file and as the f32 rows and the bytes that are being written (a few MiB).
TEST(LargeModel, ConvertingHoldsNoMoreThanOneWeight) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the sanitizer's own memory counts";
#endif
  const LargeModel model{5, 1024, 4096, 4096};
  const int64_t allowed = model.largest_weight_bytes() + 40 * mebibyte;
  ASSERT_GT(model.bytes(), 3 * allowed);
  const TemporaryFolder folder;
  write_large_directory(folder.path() / "model", model);
  fs::copy_file(golden("tokenizer/byte_level/tokenizer.json"), folder.path() / "model/tokenizer.json");
  const fs::path gguf = folder.path() / "model.gguf", again = folder.path() / "q8_0.gguf",
                 back = folder.path() / "back";
  fs::create_directory(back);
  const auto expect_small_peak = [&](const char* what, const auto& convert) {
    forget_peak();
    const int64_t before = memory_bytes("VmRSS");
    convert();
    EXPECT_LT(memory_bytes("VmHWM") - before, allowed) << what;
  };
  expect_small_peak("directory to GGUF",
                    [&] { write_gguf_file(gguf, open_model_files(folder.path() / "model"), nn::ggml_writer("F16")); });
  expect_small_peak("GGUF to another type",
                    [&] { write_gguf_file(again, open_model_files(gguf), nn::ggml_writer("Q8_0")); });
  expect_small_peak("GGUF to directory",
                    [&] { write_hf_directory(back, open_model_files(gguf), DType::bf16, int64_t{5} << 30); });
}

}  // namespace
}  // namespace lathe::text
