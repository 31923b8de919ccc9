// Comparing preference rows with what TRL makes of them (tests/golden/dpo/rows.json).
#pragma once

#include "data/rows/preference_rows.h"
#include "tests/data/golden_cases.h"

namespace lathe::data::golden {

inline void compare_sequence(const SftExample& found, const ordered_json& expected) {
  const auto ids = expected.at("input_ids").get<std::vector<int32_t>>();
  const auto mask = expected.at("completion_mask").get<std::vector<int32_t>>();
  EXPECT_EQ(found.input_ids, ids);
  std::vector<int32_t> labels;
  for (size_t i = 0; i < ids.size(); ++i) labels.push_back(mask[i] != 0 ? ids[i] : ignored_label);
  EXPECT_EQ(found.labels, labels);
}

inline void compare_preference_rows(const Tokenizer& tokenizer, const std::string& name,
                                    const std::filesystem::path& scratch, size_t& compared) {
  for (const ordered_json& test_case : ordered_json::parse(read(folder / "dpo/rows.json"))) {
    if (test_case.at("tokenizer") != name) continue;
    SCOPED_TRACE(test_case.at("name").get<std::string>());
    const auto chat_template =
        ChatTemplate::compile(read(folder / "template" / (test_case.at("template").get<std::string>() + ".jinja")));
    const auto file = scratch / "rows.jsonl";
    {
      std::ofstream stream(file);
      for (const ordered_json& row : test_case.at("rows")) stream << row.dump() << "\n";
    }
    PreferenceOptions options;
    options.max_length = test_case.at("options").value("max_length", 1024);
    if (test_case.at("options").value("truncation_mode", "keep_start") == "keep_end")
      options.truncation_mode = TruncationMode::keep_end;
    options.special_tokens_in_messages = SpecialTokens::recognise;
    const PreferenceRows rows = read_preference_rows(file, tokenizer, chat_template.get(), options);
    // Lathe leaves out pairs of which truncation leaves the same; TRL keeps them.
    ordered_json expected = ordered_json::array();
    for (const ordered_json& row : test_case.at("prepared"))
      if (row.at("chosen") != row.at("rejected")) expected.push_back(row);
    ASSERT_EQ(rows.examples.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      compare_sequence(rows.examples[i].chosen, expected[i].at("chosen"));
      compare_sequence(rows.examples[i].rejected, expected[i].at("rejected"));
    }
    ++compared;
  }
}

}  // namespace lathe::data::golden
