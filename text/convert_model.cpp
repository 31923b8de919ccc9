#include "text/convert_model.h"

#include <algorithm>
#include <map>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json_value.h"
#include "data/tokenizer/gguf_tokenizer.h"
#include "nn/convert/gguf_model.h"
#include "nn/convert/hf_model.h"
#include "nn/model_directory.h"
#include "text/model_text.h"

namespace lathe::text {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

// In which most elements of the matrices are stored; bf16 for blocks and codes.
DType dense_dtype(const nn::ModelFiles& files) {
  std::map<std::string, int64_t> elements;
  for (const nn::WeightInfo& info : files.weights->weights())
    if (info.shape.rank() > 1) elements[info.stored_type] += info.shape.numel();
  const auto most = std::max_element(elements.begin(), elements.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most == elements.end() || most->first == "F32" || most->first == "F64") return DType::f32;
  return most->first == "F16" ? DType::f16 : DType::bf16;
}

const char* name_in_files(DType dtype) { return dtype == DType::f32 ? "F32" : dtype == DType::f16 ? "F16" : "BF16"; }

void write_files_of_gguf(const fs::path& directory, const nn::ModelFiles& files, DType dtype) {
  const data::TokenizerMetadata metadata = tokenizer_metadata_of(*files.gguf);
  const data::TokenizerFiles tokenizer = data::tokenizer_files_of(metadata, files.path.string());
  write_file_atomically(directory / "tokenizer.json", tokenizer.tokenizer_json);
  write_file_atomically(directory / "tokenizer_config.json", tokenizer.tokenizer_config_json);

  ordered_json config = nn::hf_config_of(files.config, dtype), generation = ordered_json::object();
  ordered_json end = ordered_json::array();
  for (const std::optional<int64_t>& id : {metadata.eos_id, metadata.eot_id, metadata.eom_id})
    if (id && std::find(end.begin(), end.end(), *id) == end.end()) end.push_back(*id);
  for (ordered_json* json : {&config, &generation}) {
    // Where there is none, some configs of transformers have one of their own.
    for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) (*json)[key] = nullptr;
    if (metadata.bos_id) (*json)["bos_token_id"] = *metadata.bos_id;
    if (!end.empty()) (*json)["eos_token_id"] = end.size() == 1 ? end[0] : end;
    if (metadata.padding_id) (*json)["pad_token_id"] = *metadata.padding_id;
  }
  write_file_atomically(directory / "config.json", json_file_text(config, 2));
  write_file_atomically(directory / "generation_config.json", json_file_text(generation, 2));
}

// tokenizer.ggml.* as llama.cpp reads them.
void add_tokenizer(const data::TokenizerMetadata& tokenizer, nn::GgufMetadata& metadata) {
  const auto add = [&](const std::string& key, nn::GgufValue value) { metadata.emplace_back(key, std::move(value)); };
  const std::string prefix = "tokenizer.ggml.";
  add(prefix + "model", tokenizer.model);
  add(prefix + "pre", tokenizer.pre);
  add(prefix + "tokens", tokenizer.tokens);
  if (!tokenizer.scores.empty())
    add(prefix + "scores", std::vector<double>(tokenizer.scores.begin(), tokenizer.scores.end()));
  add(prefix + "token_type", std::vector<int64_t>(tokenizer.token_types.begin(), tokenizer.token_types.end()));
  if (!tokenizer.merges.empty()) add(prefix + "merges", tokenizer.merges);
  const auto id = [&](const char* name, const std::optional<int64_t>& value) {
    if (value) add(prefix + name + "_token_id", *value);
  };
  id("bos", tokenizer.bos_id);
  id("eos", tokenizer.eos_id);
  id("unknown", tokenizer.unknown_id);
  id("padding", tokenizer.padding_id);
  if (tokenizer.add_bos) add(prefix + "add_bos_token", *tokenizer.add_bos);
  if (tokenizer.add_eos) add(prefix + "add_eos_token", *tokenizer.add_eos);
  if (tokenizer.add_space_prefix) add(prefix + "add_space_prefix", *tokenizer.add_space_prefix);
  for (const auto& [name, source] : tokenizer.chat_templates)
    add("tokenizer.chat_template" + (name == "default" ? std::string() : "." + name), source);
}

// A sentence where the tokenizer that GGUF's readers make of the metadata cuts a text otherwise; "" where it does not.
std::string tokenizer_difference(const data::Tokenizer& tokenizer, const data::TokenizerMetadata& metadata) {
  const auto written = data::Tokenizer::from_metadata(metadata);
  std::vector<std::string> texts = {"Hello, world",          " a",          "  two spaces",   "a line\n\nanother\tone",
                                    "1234567 + 89",          "don't WE'LL", "naïve Ångström", "日本語 한국어 عربى",
                                    "🙂👩‍👩‍👧"};
  for (const auto& id : {tokenizer.bos_id(), tokenizer.eos_id()})
    if (id) texts.push_back(std::string(tokenizer.token(*id)) + "word");
  for (const std::string& text : texts) {
    const auto expected = tokenizer.encode(text, data::SpecialTokens::recognise),
               found = written->encode(text, data::SpecialTokens::recognise);
    if (found == expected) continue;
    return "the tokenizer in the GGUF file cuts \"" + text + "\" into " + std::to_string(found.size()) +
           " tokens, tokenizer.json into " + std::to_string(expected.size()) +
           ": GGUF has no way to say the difference";
  }
  return "";
}

// What was read of the file for a weight is let go with it: converting holds one weight, not the file.
template <class Weight>
void release_after_each(std::vector<Weight>& weights, const nn::ModelFiles& files) {
  for (Weight& written : weights) written.weight.finished = [&files] { files.weights->release_pages(); };
}

}  // namespace

ConvertedModel write_hf_directory(const fs::path& directory, const nn::ModelFiles& files, std::optional<DType> dtype,
                                  int64_t max_shard_bytes) {
  const DType written = dtype.value_or(dense_dtype(files));
  if (files.gguf) {
    write_files_of_gguf(directory, files, written);
  } else {
    nn::write_model_config(files.path, directory, written, files.config.tie_word_embeddings);
    nn::copy_text_files(files.path, directory);
  }
  std::vector<nn::SafetensorsToWrite> weights = nn::hf_weights_of(files, written);
  release_after_each(weights, files);
  nn::write_safetensors_shards(directory, weights, max_shard_bytes);
  return {static_cast<int64_t>(weights.size()), name_in_files(written), {}};
}

ConvertedModel write_gguf_file(const fs::path& path, const nn::ModelFiles& files, const nn::GgmlWriter* type) {
  if (type == nullptr) type = nn::ggml_writer(name_in_files(dense_dtype(files)));
  nn::GgufModel model = nn::gguf_model_of(files, *type);
  release_after_each(model.tensors, files);
  if (files.gguf) {  // its tokenizer is among its metadata
    nn::write_gguf(path, model.metadata, model.tensors);
    return {static_cast<int64_t>(model.tensors.size()), std::string(type->name), {}};
  }
  const auto tokenizer = load_tokenizer(files);
  model.metadata.emplace_back("general.name", files.path.filename().string());
  const data::TokenizerMetadata metadata = data::tokenizer_metadata_of(files.path, *tokenizer, files.config.vocab_size);
  if (std::string sentence = tokenizer_difference(*tokenizer, metadata); !sentence.empty())
    model.warnings.push_back(std::move(sentence));
  add_tokenizer(metadata, model.metadata);
  nn::write_gguf(path, model.metadata, model.tensors);
  return {static_cast<int64_t>(model.tensors.size()), std::string(type->name), std::move(model.warnings)};
}

}  // namespace lathe::text
