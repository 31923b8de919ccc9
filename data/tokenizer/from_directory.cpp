// A tokenizer from a Hugging Face directory: tokenizer.json, and what stands beside it (tokenizer_config.h).
#include <simdjson.h>

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "core/mapped_file.h"
#include "data/tokenizer/parts.h"
#include "data/tokenizer/tokenizer_config.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

using json = nlohmann::ordered_json;

// Ids beyond this are taken for a broken file, not for a vocabulary.
constexpr int64_t max_vocabulary = 1 << 24;

// WordPiece tries every end of a word: a file may not ask for minutes.
constexpr uint64_t most_word_piece_characters = 1000;

json small_part(const simdjson::dom::object& object, const char* key, const std::string& file) {
  simdjson::dom::element element;
  if (object[key].get(element) != simdjson::SUCCESS) return nullptr;
  return parse_json(simdjson::minify(element), file + ", \"" + key + "\"");
}

class TokenizerFile {
 public:
  // Fills in all but the added tokens, which other files have a say in.
  TokenizerFile(const std::filesystem::path& path, Tokenizer::Parts& parts) : file_(path.string()), parts_(parts) {
    const auto text = simdjson::padded_string(file_text(path));
    simdjson::dom::element document;
    if (const auto error = parser_.parse(text).get(document)) fail(simdjson::error_message(error));
    if (document.get(root_) != simdjson::SUCCESS) fail("is not a JSON object");
    read_model();
    parts_.normalizers = read_normalizers(small_part(root_, "normalizer", file_), file_);
    parts_.pre_tokenizers = read_pre_tokenizers(small_part(root_, "pre_tokenizer", file_), file_);
    parts_.decoder = read_decoder(small_part(root_, "decoder", file_), file_);
    read_added_tokens();
    read_post_processor(small_part(root_, "post_processor", file_));
    make_model();
  }

  std::vector<AddedToken> take_added_tokens() { return std::move(added_tokens_); }

 private:
  [[noreturn]] void fail(const std::string& reason) const { throw FormatError(file_, -1, reason); }

  void read_model() {
    simdjson::dom::object model;
    if (root_["model"].get(model) != simdjson::SUCCESS) fail("has no object \"model\"");
    if (model["type"].get(type_) == simdjson::SUCCESS && type_ != "BPE") {
      if (type_ == "Unigram") return read_unigram(model);
      if (type_ == "WordPiece") return read_word_piece(model);
      throw ConfigError(
          file_, "the tokenizer model '" + std::string(type_) + "' is not supported (BPE, Unigram and WordPiece are)");
    }
    read_bpe(model);
  }

  void make_model() {
    if (type_ == "Unigram") {
      parts_.model.emplace(Unigram({settings_.byte_fallback, settings_.unknown_id}, parts_.vocabulary, scores_));
    } else if (type_ == "WordPiece") {
      parts_.model.emplace(WordPiece(word_piece_));
    } else {
      settings_.alphabet = parts_.pre_tokenizers.byte_level ? BpeAlphabet::bytes : BpeAlphabet::characters;
      parts_.model.emplace(Bpe(settings_, parts_.vocabulary, merges_));
    }
  }

  // A list of pairs of a token and its score; a token's id is its place.
  void read_unigram(const simdjson::dom::object& model) {
    read_flag(model, "byte_fallback", settings_.byte_fallback);
    simdjson::dom::array list;
    if (model["vocab"].get(list) != simdjson::SUCCESS) fail("model has no array \"vocab\"");
    parts_.vocabulary = Vocabulary(list.size());
    for (const simdjson::dom::element entry : list) {
      const auto id = static_cast<int32_t>(scores_.size());
      simdjson::dom::array pair;
      std::string_view token;
      double score = 0;
      if (entry.get(pair) != simdjson::SUCCESS || pair.size() != 2 || pair.at(0).get(token) != simdjson::SUCCESS ||
          pair.at(1).get(score) != simdjson::SUCCESS)
        fail("token " + std::to_string(id) + " of the model is not a pair of a text and a number");
      if (token.size() > most_piece_bytes)
        fail("token " + std::to_string(id) + " has " + std::to_string(token.size()) + " bytes, more than the " +
             std::to_string(most_piece_bytes) + " that a piece may have");
      if (id >= max_vocabulary || !parts_.vocabulary.insert(id, token))
        fail("token '" + std::string(token) + "' with id " + std::to_string(id) + " repeats a token");
      scores_.push_back(unigram_score(score));
    }
    if (scores_.empty()) fail("model has no tokens");
    simdjson::dom::element unknown;
    if (model["unk_id"].get(unknown) != simdjson::SUCCESS || unknown.is_null()) return;
    int64_t id = 0;
    if (unknown.get(id) != simdjson::SUCCESS || id < 0 || id >= static_cast<int64_t>(scores_.size()))
      fail("model.unk_id is no id of its " + std::to_string(scores_.size()) + " tokens");
    settings_.unknown_id = parts_.unknown_id = static_cast<int32_t>(id);
  }

  void read_word_piece(const simdjson::dom::object& model) {
    read_vocabulary(model);
    std::string_view unknown = "[UNK]", prefix = "##";
    if (model["unk_token"].get(unknown) != simdjson::SUCCESS) unknown = "[UNK]";
    const auto id = parts_.vocabulary.find(unknown);
    if (!id) fail("unk_token '" + std::string(unknown) + "' is not in the vocabulary");
    word_piece_.unknown_id = *id;
    parts_.unknown_id = id;
    if (model["continuing_subword_prefix"].get(prefix) == simdjson::SUCCESS) word_piece_.continuing_prefix = prefix;
    simdjson::dom::element most;
    if (model["max_input_chars_per_word"].get(most) != simdjson::SUCCESS) return;
    uint64_t characters = 0;
    if (most.get(characters) != simdjson::SUCCESS) fail("model.max_input_chars_per_word is no number of characters");
    word_piece_.max_characters = std::min<uint64_t>(characters, most_word_piece_characters);
  }

  void read_bpe(const simdjson::dom::object& model) {
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      std::string_view value;
      if (model[key].get(value) == simdjson::SUCCESS && !value.empty()) {
        throw ConfigError(file_, std::string("the BPE option ") + key + " is not supported");
      }
    }
    read_flag(model, "byte_fallback", settings_.byte_fallback);
    read_flag(model, "ignore_merges", settings_.ignore_merges);
    read_flag(model, "fuse_unk", settings_.fuse_unknown);
    read_vocabulary(model);
    std::string_view unknown;
    if (model["unk_token"].get(unknown) == simdjson::SUCCESS) {
      settings_.unknown_id = parts_.unknown_id = parts_.vocabulary.find(unknown);
      if (!settings_.unknown_id) fail("unk_token '" + std::string(unknown) + "' is not in the vocabulary");
    }
    read_merges(model);
  }

  void read_flag(const simdjson::dom::object& model, const char* key, bool& flag) const {
    simdjson::dom::element value;
    if (model[key].get(value) != simdjson::SUCCESS || value.is_null()) return;
    if (value.get(flag) != simdjson::SUCCESS) fail(std::string("model.") + key + " is neither true nor false");
  }

  void read_vocabulary(const simdjson::dom::object& model) {
    simdjson::dom::object entries;
    if (model["vocab"].get(entries) != simdjson::SUCCESS) fail("model has no object \"vocab\"");
    parts_.vocabulary = Vocabulary(entries.size());
    for (const auto& [token, value] : entries) {
      int64_t id = 0;
      if (value.get(id) != simdjson::SUCCESS || id < 0 || id >= max_vocabulary) {
        fail("the id of token '" + std::string(token) + "' is not a number from 0 to " +
             std::to_string(max_vocabulary - 1));
      }
      if (parts_.vocabulary.insert(static_cast<int32_t>(id), token)) continue;
      fail("token '" + std::string(token) + "' with id " + std::to_string(id) + " repeats a token or an id");
    }
  }

  void read_merges(const simdjson::dom::object& model) {
    simdjson::dom::array list;
    if (model["merges"].get(list) != simdjson::SUCCESS) fail("model has no array \"merges\"");
    merges_.reserve(list.size());
    std::string joined;
    for (const simdjson::dom::element entry : list) {
      std::string_view left, right, whole;
      simdjson::dom::array pair;
      if (entry.get(whole) == simdjson::SUCCESS) {
        const size_t space = whole.find(' ');
        if (space == std::string_view::npos || whole.find(' ', space + 1) != std::string_view::npos)
          fail_merge("is not two tokens with a space between");
        left = whole.substr(0, space);
        right = whole.substr(space + 1);
      } else if (entry.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
                 pair.at(0).get(left) != simdjson::SUCCESS || pair.at(1).get(right) != simdjson::SUCCESS) {
        fail_merge("is neither a string nor a pair of strings");
      }
      joined.assign(left).append(right);
      const auto left_id = parts_.vocabulary.find(left), right_id = parts_.vocabulary.find(right),
                 result = parts_.vocabulary.find(joined);
      if (!left_id || !right_id || !result) {
        fail_merge("names a token that is not in the vocabulary: '" +
                   std::string(!left_id    ? left
                               : !right_id ? right
                                           : std::string_view(joined)) +
                   "'");
      }
      merges_.push_back({*left_id, *right_id, *result});
    }
  }

  [[noreturn]] void fail_merge(const std::string& reason) const {
    fail("merge " + std::to_string(merges_.size()) + " " + reason);
  }

  void read_added_tokens() {
    const json added = small_part(root_, "added_tokens", file_);
    if (added.is_null()) return;
    for (const json& entry : added) {
      AddedToken token;
      token.id = id_of(entry.at("id"), "an added token's id");
      token.content = entry.at("content");
      token.special = entry.value("special", false);
      token.normalized = entry.value("normalized", !token.special);
      token.single_word = entry.value("single_word", false);
      token.lstrip = entry.value("lstrip", false);
      token.rstrip = entry.value("rstrip", false);
      added_tokens_.push_back(std::move(token));
    }
  }

  int32_t id_of(const json& value, const std::string& what) const {
    return static_cast<int32_t>(json_integer(value, what, 0, max_vocabulary - 1, file_));
  }

  void read_post_processor(const json& processor) {
    if (processor.is_null()) return;
    const std::string type = processor.at("type");
    if (type == "Sequence") {
      for (const json& part : processor.at("processors")) read_post_processor(part);
    } else if (type == "TemplateProcessing") {
      bool after = false;
      for (const json& part : processor.at("single")) {
        if (part.contains("Sequence")) {
          after = true;
          continue;
        }
        const std::string name = part.at("SpecialToken").at("id");
        for (const json& id : processor.at("special_tokens").at(name).at("ids")) {
          (after ? parts_.after : parts_.before).push_back(id_of(id, "the post-processor's id of " + name));
        }
      }
    } else if (type == "BertProcessing") {  // pairs of a token and its id
      parts_.before.push_back(id_of(processor.at("cls").at(1), "the post-processor's id of cls"));
      parts_.after.push_back(id_of(processor.at("sep").at(1), "the post-processor's id of sep"));
    } else if (type != "ByteLevel") {  // ByteLevel only trims offsets
      throw ConfigError(file_, "the post-processor '" + type +
                                   "' is not supported (TemplateProcessing, BertProcessing, ByteLevel and Sequence "
                                   "are)");
    }
  }

  std::string file_;
  std::vector<AddedToken> added_tokens_;
  Tokenizer::Parts& parts_;
  simdjson::dom::parser parser_;
  simdjson::dom::object root_;
  std::string_view type_ = "BPE";
  BpeSettings settings_;
  std::vector<double> scores_;  // Unigram's
  WordPieceSettings word_piece_;
  std::vector<Bpe::Merge> merges_;
};

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::from_directory(const std::filesystem::path& directory) {
  auto parts = std::make_unique<Parts>();
  const auto path = directory / "tokenizer.json";
  if (!std::filesystem::exists(path)) {
    throw ConfigError(directory.string(),
                      "there is no tokenizer.json (Lathe reads this format and GGUF files; a directory "
                      "with only tokenizer.model has to be converted first)");
  }
  try {
    TokenizerFile file(path, *parts);
    TokenizerConfig config = read_tokenizer_config(directory, parts->vocabulary, file.take_added_tokens());
    for (const AddedToken& token : config.added_tokens) parts->add_token(token, path.string());
    for (const std::vector<int32_t>* ids : {&parts->before, &parts->after})
      for (const int32_t id : *ids) parts->check_id(id, "an id of the post-processor", path.string());
    const auto id_of = [&](const std::optional<std::string>& token) {
      return token ? parts->vocabulary.find(*token) : std::nullopt;
    };
    parts->bos_id = id_of(config.bos);
    parts->eos_id = id_of(config.eos);
    parts->padding_id = id_of(config.padding);
    if (config.unknown) parts->unknown_id = id_of(config.unknown);
    parts->chat_templates = std::move(config.chat_templates);
  } catch (const json::exception& error) {
    throw FormatError(path.string(), -1, error.what());
  }
  return std::make_shared<const Tokenizer>(std::move(parts));
}

}  // namespace lathe::data
