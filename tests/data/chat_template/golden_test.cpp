// Chats as transformers renders them, byte for byte. See tests/golden/README.md.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "core/error.h"
#include "core/json_value.h"
#include "data/chat_template/chat_template.h"
#include "tests/support/source_dir.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

const std::filesystem::path golden = std::filesystem::path(source_dir) / "tests/golden/template";

std::string read(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  EXPECT_TRUE(stream) << "there is no " << path;
  return {std::istreambuf_iterator<char>(stream), {}};
}

struct Compared {
  size_t rendered = 0, refused = 0;
};

// The rows of folder/cases.json, each with the template of its name in the folder.
Compared compare(const std::filesystem::path& folder) {
  std::map<std::string, std::shared_ptr<const ChatTemplate>> templates;
  Compared compared;
  for (const ordered_json& row : ordered_json::parse(read(folder / "cases.json"))) {
    const std::string name = row.at("template");
    SCOPED_TRACE(name + " " + row.at("messages").dump().substr(0, 300));
    auto& chat_template = templates[name];
    if (!chat_template) chat_template = ChatTemplate::compile(read(folder / (name + ".jinja")));
    ChatOptions options;
    options.add_generation_prompt = row.at("add_generation_prompt");
    options.now_seconds = 1769860800;  // 31 January 2026, noon
    if (row.contains("tools")) options.tools = &row.at("tools");
    ordered_json variables = row.at("variables");
    for (const char* token : {"bos_token", "eos_token"}) {
      options.special_tokens[token] = variables.at(token);
      variables.erase(token);
    }
    options.variables = &variables;
    if (row.contains("error")) {
      EXPECT_THROW(chat_template->render(row.at("messages"), options), ConfigError) << row.at("error");
      ++compared.refused;
      continue;
    }
    try {
      const RenderedChat chat = chat_template->render(row.at("messages"), options);
      EXPECT_EQ(chat.text, row.at("expected").get<std::string>());
      if (row.contains("assistant_spans")) {
        ordered_json spans = ordered_json::array();
        for (const TextRange& range : chat.assistant) spans.push_back({range.begin, range.end});
        EXPECT_EQ(spans, row.at("assistant_spans"));
      }
    } catch (const Error& error) {
      ADD_FAILURE() << error.what();
    }
    ++compared.rendered;
  }
  return compared;
}

TEST(ChatTemplateGolden, RendersWhatTransformersRenders) {
  const Compared compared = compare(golden);
  EXPECT_GT(compared.rendered, 100u);
  EXPECT_GT(compared.refused, 0u);
}

// Templates that came with models.
TEST(ChatTemplateGolden, RendersTheTemplatesOfFamiliesAsTransformersDoes) {
  EXPECT_GT(compare(golden / "families").rendered, 200u);
}

// One small template for each filter, method and construct.
TEST(ChatTemplateGolden, FiltersMethodsAndLoopsAreJinjas) {
  const ordered_json cases = ordered_json::parse(read(golden / "builtins.json"));
  ChatOptions options;
  options.variables = &cases.at("variables");
  size_t compared = 0;
  for (const ordered_json& row : cases.at("rows")) {
    const std::string source = row.at("template");
    SCOPED_TRACE(source);
    if (row.contains("error")) {
      EXPECT_THROW(ChatTemplate::compile(source)->render(cases.at("messages"), options), ConfigError)
          << row.at("error");
      continue;
    }
    try {
      EXPECT_EQ(ChatTemplate::compile(source)->render(cases.at("messages"), options).text,
                row.at("expected").get<std::string>());
    } catch (const ConfigError& error) {
      ADD_FAILURE() << error.what();
    }
    ++compared;
  }
  EXPECT_GT(compared, 60u);
}

}  // namespace
}  // namespace lathe::data
