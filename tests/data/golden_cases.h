// Comparing a tokenizer and the rows made with it against tests/golden: the tiny tokenizers in tests/data, the one in
// the model's file where a program reads it.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/json_value.h"
#include "data/packing/packing.h"
#include "data/rows/sft_rows.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/utf8.h"
#include "tests/support/source_dir.h"

namespace lathe::data::golden {

using nlohmann::json;
using nlohmann::ordered_json;

inline const std::filesystem::path folder = std::filesystem::path(source_dir) / "tests/golden";

inline std::string from_base64(const std::string& text) {
  const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = (bits << 6) | static_cast<uint32_t>(alphabet.find(c));
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>((bits >> count) & 0xFF);
    }
  }
  return bytes;
}

inline std::string excerpt(const std::string& text) { return replace_invalid_utf8(text.substr(0, 200)); }

inline void compare_with_library(const std::shared_ptr<const Tokenizer>& tokenizer, const std::filesystem::path& file) {
  std::ifstream stream(file);
  ASSERT_TRUE(stream) << "there is no " << file;
  const json rows = json::parse(stream);
  ASSERT_GT(rows.size(), 100u);
  for (const json& row : rows) {
    const std::string text = from_base64(row.at("bytes_b64"));
    const auto ids = row.at("ids").get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer->encode(text, SpecialTokens::recognise), ids) << excerpt(text);
    EXPECT_EQ(tokenizer->encode(text), row.at("ids_no_special").get<std::vector<int32_t>>()) << excerpt(text);
    const std::string decoded = from_base64(row.at("decoded_b64"));
    EXPECT_EQ(tokenizer->decode(ids), decoded) << excerpt(text);
    StreamDecoder stream_decoder(tokenizer, false);
    std::string streamed;
    for (const int32_t id : ids) {
      streamed += stream_decoder.push(id);
      EXPECT_TRUE(is_valid_utf8(streamed)) << excerpt(text);
    }
    streamed += stream_decoder.finish();
    EXPECT_EQ(streamed, decoded) << excerpt(text);
    if (row.contains("ids_with_post_processor")) {
      EXPECT_EQ(tokenizer->encode(text, SpecialTokens::recognise, SequenceTokens::add),
                row.at("ids_with_post_processor").get<std::vector<int32_t>>());
    }
  }
}

inline std::string read(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  EXPECT_TRUE(stream) << "there is no " << path;
  return {std::istreambuf_iterator<char>(stream), {}};
}

inline SftOptions options_of(const ordered_json& given) {
  SftOptions options;
  for (const auto& [name, value] : given.items()) {
    if (name == "max_length") {
      options.max_length = value.get<int64_t>();
    } else if (name == "truncation_mode") {
      options.truncation_mode = value == "keep_end" ? TruncationMode::keep_end : TruncationMode::keep_start;
    } else if (name == "completion_only_loss") {
      options.completion_only_loss = value.get<bool>();
    } else if (name == "assistant_only_loss") {
      options.assistant_only_loss = value.get<bool>();
    } else if (name == "dataset_text_field") {
      options.dataset_text_field = value.get<std::string>();
    } else if (name == "packing") {
      options.packing = value.get<bool>();
    } else {
      EXPECT_EQ(name, "packing_strategy");
    }
  }
  return options;
}

// The cases of rows/ that were made with the tokenizer of that name; counts them. Files go to `scratch`.
inline void compare_rows(const Tokenizer& tokenizer, const std::string& name, const std::filesystem::path& scratch,
                         size_t& compared) {
  for (const ordered_json& test_case : ordered_json::parse(read(folder / "rows/cases.json"))) {
    if (test_case.at("tokenizer") != name) continue;
    SCOPED_TRACE(test_case.at("name").get<std::string>());
    const auto chat_template =
        ChatTemplate::compile(read(folder / "template" / (test_case.at("template").get<std::string>() + ".jinja")));
    const auto file = scratch / "rows.jsonl";
    {
      std::ofstream stream(file);
      for (const ordered_json& row : test_case.at("rows")) stream << row.dump() << "\n";
    }
    SftOptions options = options_of(test_case.at("options"));
    options.special_tokens_in_messages = SpecialTokens::recognise;
    const SftRows rows = read_sft_rows(file, tokenizer, chat_template.get(), options);
    const ordered_json& expected = test_case.at("prepared");
    if (!options.packing) {
      ASSERT_EQ(rows.examples.size(), expected.size());
      EXPECT_EQ(rows.examples.size() + rows.dropped.size(), test_case.at("rows").size());
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(rows.examples[i].input_ids, expected[i].at("input_ids").get<std::vector<int32_t>>()) << i;
        EXPECT_EQ(rows.examples[i].labels, expected[i].at("labels").get<std::vector<int32_t>>()) << i;
      }
    } else {
      const PackingStrategy strategy = packing_strategy(test_case.at("options").at("packing_strategy"));
      std::vector<int64_t> lengths;
      for (const SftExample& example : rows.examples) lengths.push_back(static_cast<int64_t>(example.input_ids.size()));
      const auto packed = pack_rows(lengths, *options.max_length, strategy);
      ASSERT_EQ(packed.size(), expected.size());
      for (size_t i = 0; i < expected.size(); ++i) {
        const PackedExample example = packed_example(rows.examples, packed[i], strategy);
        EXPECT_EQ(example.input_ids, expected[i].at("input_ids").get<std::vector<int32_t>>()) << i;
        EXPECT_EQ(example.labels, expected[i].at("labels").get<std::vector<int32_t>>()) << i;
        if (expected[i].contains("seq_lengths")) {
          EXPECT_EQ(example.sample_lengths, expected[i].at("seq_lengths").get<std::vector<int32_t>>()) << i;
        }
      }
    }
    ++compared;
  }
}

}  // namespace lathe::data::golden
