#include "data/tokenizer/tokenizer_config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <unordered_map>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "core/mapped_file.h"

namespace lathe::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr std::array named_tokens = {"bos_token", "eos_token", "unk_token", "sep_token",
                                     "pad_token", "cls_token", "mask_token"};

// A JSON object from a file of the directory; an empty one where there is no such file.
ordered_json object_of(const fs::path& path) {
  if (!fs::exists(path)) return ordered_json::object();
  ordered_json object = read_json_file(path);
  if (!object.is_object())
    throw FormatError(path.string(), -1, "expected a JSON object, found " + json_excerpt(object));
  return object;
}

bool flag_of(const ordered_json& token, const char* key, bool otherwise, const std::string& file) {
  const auto found = token.find(key);
  if (found == token.end() || found->is_null()) return otherwise;
  if (!found->is_boolean())
    throw FormatError(file, -1, std::string(key) + ": expected true or false, found " + json_excerpt(*found));
  return found->get<bool>();
}

// "<s>" or {"content": "<s>", …}. A named token is special whatever its flags say.
AddedToken token_of(const ordered_json& value, const std::string& key, const std::string& file) {
  AddedToken token;
  const ordered_json* content = &value;
  if (value.is_object()) {
    const auto found = value.find("content");
    if (found == value.end()) throw FormatError(file, -1, key + ": has no \"content\"");
    content = &*found;
    token.special = flag_of(value, "special", false, file);
    token.normalized = flag_of(value, "normalized", !token.special, file);
    token.single_word = flag_of(value, "single_word", false, file);
    token.lstrip = flag_of(value, "lstrip", false, file);
    token.rstrip = flag_of(value, "rstrip", false, file);
  }
  if (!content->is_string())
    throw FormatError(file, -1, key + ": expected a token's text, found " + json_excerpt(*content));
  token.content = content->get<std::string>();
  token.id = -1;
  return token;
}

// Builds the list of added tokens. An index by content: a file may list as many as a vocabulary has.
class AddedTokens {
 public:
  AddedTokens(const Vocabulary& vocabulary, std::vector<AddedToken> added)
      : vocabulary_(vocabulary), tokens_(std::move(added)) {
    for (int32_t id = 0; id < vocabulary.size(); ++id) next_id_ += vocabulary.contains(id) ? 1 : 0;
    for (size_t i = 0; i < tokens_.size(); ++i) index(i);
  }

  const AddedToken* find(const std::string& content) const {
    const auto at = places_.find(content);
    return at == places_.end() ? nullptr : &tokens_[at->second];
  }

  // What is said of a known token replaces its flags; an unknown one gets the vocabulary's id, or the next free one.
  void add(AddedToken token) {
    if (token.content.empty()) return;
    if (const auto known = places_.find(token.content); known != places_.end()) {
      token.id = tokens_[known->second].id;
      tokens_[known->second] = std::move(token);
      return;
    }
    token.id = vocabulary_.find(token.content).value_or(next_id_);
    tokens_.push_back(std::move(token));
    index(tokens_.size() - 1);
  }

  std::vector<AddedToken> take() { return std::move(tokens_); }

 private:
  void index(size_t place) {
    places_.emplace(tokens_[place].content, place);  // the first of a name counts
    next_id_ = std::max(next_id_, tokens_[place].id + 1);
  }

  const Vocabulary& vocabulary_;
  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, size_t> places_;
  // As tokenizers' AddedVocabulary counts: past its own largest id, or past the number of the model's entries.
  int32_t next_id_ = 0;
};

// "added_tokens_decoder": {"315": {"content": "<tool>", …}}, by ascending id.
std::vector<AddedToken> decoder_tokens(const ordered_json& decoder, const std::string& file) {
  if (!decoder.is_object())
    throw FormatError(file, -1, "added_tokens_decoder: expected an object, found " + json_excerpt(decoder));
  std::vector<std::pair<int64_t, AddedToken>> tokens;
  for (const auto& [id, value] : decoder.items()) {
    const std::string key = "added_tokens_decoder." + id.substr(0, 20);
    int64_t number = -1;
    const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), number);
    if (error != std::errc{} || end != id.data() + id.size() || number < 0)
      throw FormatError(file, -1, key + ": expected a token's id");
    if (!value.is_object()) throw FormatError(file, -1, key + ": expected an object, found " + json_excerpt(value));
    tokens.emplace_back(number, token_of(value, key, file));
  }
  std::stable_sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<AddedToken> result;
  for (auto& [number, token] : tokens) result.push_back(std::move(token));
  return result;
}

// Files from before added_tokens_decoder: special_tokens_map.json's keys count before the config's, added_tokens.json
// gives text → id.
std::vector<AddedToken> legacy_tokens(const fs::path& directory, ordered_json& config) {
  const fs::path map_path = directory / "special_tokens_map.json", added_path = directory / "added_tokens.json";
  const ordered_json map = object_of(map_path), added = object_of(added_path);
  // config[key] = value walks along the object: with 100,000 keys that took 10 s.
  std::vector<std::pair<std::string, ordered_json>> members;
  for (const ordered_json* object : {&std::as_const(config), &map})
    for (const auto& [key, value] : object->items()) members.emplace_back(key, value);
  config = json_object(std::move(members));
  std::vector<std::pair<int64_t, AddedToken>> tokens;
  for (const auto& [content, id] : added.items()) {
    AddedToken token;
    token.content = content;
    token.normalized = true;  // until it is found to be a named one
    tokens.emplace_back(json_integer(id, content, 0, INT32_MAX, added_path.string()), std::move(token));
  }
  std::stable_sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<AddedToken> result;
  for (auto& [number, token] : tokens) result.push_back(std::move(token));
  return result;
}

// Named special tokens and further ones ("additional_special_tokens", "image_token": …), in transformers' order.
std::vector<std::pair<std::string, AddedToken>> special_tokens(const ordered_json& config, const std::string& file) {
  std::vector<std::pair<std::string, AddedToken>> tokens;
  const auto add = [&](const std::string& key, const ordered_json& value) {
    if (!value.is_null()) tokens.emplace_back(key, token_of(value, key, file));
  };
  for (const char* key : named_tokens)
    if (config.contains(key)) add(key, config.at(key));
  for (const char* key : {"extra_special_tokens", "additional_special_tokens"}) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null()) continue;
    if (!found->is_array() && !found->is_object())
      throw FormatError(file, -1, std::string(key) + ": expected a list of tokens, found " + json_excerpt(*found));
    for (const ordered_json& value : *found) add(key, value);
  }
  for (const auto& [key, value] : config.items()) {
    const bool named = std::find(named_tokens.begin(), named_tokens.end(), key) != named_tokens.end();
    if (!named && key.ends_with("_token") && value.is_string()) add(key, value);
  }
  return tokens;
}

// What a model's processor of pictures or sounds has, in the file that it had before chat_template.jinja; a tokenizer
// that has none of its own is meant to be used with it.
std::map<std::string, std::string> processor_template(const fs::path& directory) {
  const fs::path path = directory / "chat_template.json";
  const ordered_json json = object_of(path);
  const auto found = json.find("chat_template");
  if (found == json.end()) return {};
  if (!found->is_string())
    throw FormatError(path.string(), -1, "chat_template: expected a text, found " + json_excerpt(*found));
  return {{"default", found->get<std::string>()}};
}

// One template, or several by name; files beside the config take the place of all of it.
std::map<std::string, std::string> chat_templates(const fs::path& directory, const ordered_json& config,
                                                  const std::string& file) {
  std::map<std::string, std::string> templates;
  if (const fs::path path = directory / "chat_template.jinja"; fs::exists(path)) templates["default"] = file_text(path);
  if (const fs::path more = directory / "additional_chat_templates"; fs::is_directory(more)) {
    for (const auto& entry : fs::directory_iterator(more))
      if (entry.path().extension() == ".jinja") templates[entry.path().stem().string()] = file_text(entry.path());
  }
  const auto found = config.find("chat_template");
  if (templates.empty() && (found == config.end() || found->is_null())) return processor_template(directory);
  if (!templates.empty()) return templates;
  if (found->is_string()) return {{"default", found->get<std::string>()}};
  const auto add = [&](const ordered_json& name, const ordered_json& source) {
    if (!name.is_string() || !source.is_string())
      throw FormatError(file, -1,
                        "chat_template: expected templates with a name and a text, found " + json_excerpt(*found));
    templates[name.get<std::string>()] = source.get<std::string>();
  };
  if (found->is_object()) {
    for (const auto& [name, source] : found->items()) add(name, source);
  } else if (found->is_array()) {
    for (const ordered_json& entry : *found) {
      const bool whole = entry.is_object() && entry.contains("name") && entry.contains("template");
      add(whole ? entry.at("name") : ordered_json(), whole ? entry.at("template") : ordered_json());
    }
  } else {
    throw FormatError(file, -1,
                      "chat_template: expected a text or a list of named ones, found " + json_excerpt(*found));
  }
  return templates;
}

}  // namespace

TokenizerConfig read_tokenizer_config(const fs::path& directory, const Vocabulary& vocabulary,
                                      std::vector<AddedToken> added) {
  const fs::path path = directory / "tokenizer_config.json";
  const std::string file = path.string();
  ordered_json config = object_of(path);
  AddedTokens tokens(vocabulary, std::move(added));
  const auto decoder = config.find("added_tokens_decoder");
  const bool has_decoder = decoder != config.end() && !decoder->is_null();
  if (has_decoder) {
    for (AddedToken& token : decoder_tokens(*decoder, file)) tokens.add(std::move(token));
  } else {
    // tokenizer.json's own word counts before the old file's.
    for (AddedToken& token : legacy_tokens(directory, config))
      if (!tokens.find(token.content)) tokens.add(std::move(token));
  }
  TokenizerConfig result;
  for (auto& [key, token] : special_tokens(config, file)) {
    const std::string content = token.content;
    if (const AddedToken* known = tokens.find(content)) token = *known;
    token.special = true;
    tokens.add(std::move(token));
    if (key == "bos_token") result.bos = content;
    if (key == "eos_token") result.eos = content;
    if (key == "unk_token") result.unknown = content;
    if (key == "pad_token") result.padding = content;
  }
  result.added_tokens = tokens.take();
  result.chat_templates = chat_templates(directory, config, file);
  return result;
}

}  // namespace lathe::data
