#include "data/tokenizer/gguf_tokenizer.h"
#include "core/json_value.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "core/error.h"
#include "core/mapped_file.h"
#include "tests/data/golden_cases.h"
#include "tests/support/temporary_folder.h"

namespace lathe::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const fs::path tokenizers = golden::folder / "tokenizer";

// Texts of the golden corpus, which has scripts, code, spaces and broken UTF-8.
std::vector<std::string> texts() {
  std::vector<std::string> all;
  for (const json& row : json::parse(file_text(tokenizers / "smollm2.json")))
    all.push_back(golden::from_base64(row["bytes_b64"]));
  return all;
}

// Through GGUF's metadata and back: the same ids, and the same text of them, as it had.
void expect_same_there_and_back(
    const fs::path& directory, const std::function<bool(const std::string&)>& is_meant = [](auto&) { return true; }) {
  const auto original = Tokenizer::from_directory(directory);
  const TokenizerMetadata metadata = tokenizer_metadata_of(directory, *original, original->vocab_size() + 3);
  EXPECT_EQ(metadata.tokens.size(), static_cast<size_t>(original->vocab_size()) + 3);
  const auto there = Tokenizer::from_metadata(metadata);
  const TokenizerFiles files = tokenizer_files_of(metadata, "a file");
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "tokenizer.json") << files.tokenizer_json;
  std::ofstream(folder.path() / "tokenizer_config.json") << files.tokenizer_config_json;
  const auto back = Tokenizer::from_directory(folder.path());
  for (const std::string& text : texts()) {
    if (!is_meant(text)) continue;
    for (const SpecialTokens special : {SpecialTokens::as_text, SpecialTokens::recognise}) {
      const std::vector<int32_t> ids = original->encode(text, special, SequenceTokens::add);
      ASSERT_EQ(there->encode(text, special, SequenceTokens::add), ids) << directory << ": " << text;
      ASSERT_EQ(back->encode(text, special, SequenceTokens::add), ids) << directory << ": " << text;
      ASSERT_EQ(back->decode(ids), original->decode(ids));
    }
  }
  EXPECT_EQ(back->eos_id(), original->eos_id());
  EXPECT_EQ(back->chat_templates(), original->chat_templates());
}

// A copy of a golden tokenizer with a change.
fs::path changed(const TemporaryFolder& folder, const char* name, const std::function<void(json&)>& change) {
  json content = json::parse(file_text(tokenizers / name / "tokenizer.json"));
  change(content);
  std::ofstream(folder.path() / "tokenizer.json") << content.dump();
  return folder.path();
}

TEST(GgufTokenizer, ByteLevelGoesThereAndBack) { expect_same_there_and_back(tokenizers / "byte_level"); }

TEST(GgufTokenizer, SentencePieceGoesThereAndBack) {
  expect_same_there_and_back(tokenizers / "sentencepiece");
  // Metaspace puts a mark neither in front of a space nor after a control token, GGUF's prefix does both.
  expect_same_there_and_back(tokenizers / "metaspace", [](const std::string& text) {
    return !text.starts_with(' ') && !text.starts_with("▁") && text.find('<') == text.npos;
  });
}

TEST(GgufTokenizer, ASplitByARegularExpressionGoesThereAndBack) {
  const TemporaryFolder folder;
  expect_same_there_and_back(changed(folder, "split_regex", [](json& content) { content["normalizer"] = nullptr; }));
}

TEST(GgufTokenizer, NamesAndTemplatesGoAlong) {
  const TemporaryFolder folder;
  changed(folder, "byte_level", [](json&) {});
  std::ofstream(folder.path() / "tokenizer_config.json")
      << R"({"eos_token": "<|im_end|>", "chat_template": "{{ messages[0].content }}"})";
  expect_same_there_and_back(folder.path());
}

TEST(GgufTokenizer, WhatGgufHasNoNameForIsAnError) {
  const auto expect_refused = [](const char* name, const char* what, const std::function<void(json&)>& change) {
    const TemporaryFolder folder;
    const fs::path directory = changed(folder, name, change);
    const auto tokenizer = Tokenizer::from_directory(directory);
    try {
      tokenizer_metadata_of(directory, *tokenizer, 600);
      ADD_FAILURE() << what << " was taken";
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
    }
  };
  // NFC belongs to other cuts.
  expect_refused("split_regex", "pre_tokenizer", [](json&) {});
  expect_refused("split_regex", "pre_tokenizer", [](json& content) {
    content["normalizer"] = nullptr;
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\p{L}+";
  });
  expect_refused("byte_level", "normalizer", [](json& content) { content["normalizer"] = {{"type", "Lowercase"}}; });
}

}  // namespace
}  // namespace lathe::data
