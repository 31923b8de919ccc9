#include "data/tokenizer/gguf_tokenizer.h"

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "data/tokenizer/gguf_pre_tokenizers.h"
#include "data/tokenizer/gguf_words.h"
#include "data/tokenizer/parts.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

// The ids that SequenceTokens::add puts before and after a text.
struct AroundText {
  std::vector<int32_t> before, after;
};
AroundText around_text(const Tokenizer& tokenizer) {
  const std::vector<int32_t> bare = tokenizer.encode("a"),
                             whole = tokenizer.encode("a", SpecialTokens::as_text, SequenceTokens::add);
  const auto at = std::search(whole.begin(), whole.end(), bare.begin(), bare.end());
  return {{whole.begin(), at}, {at == whole.end() ? at : at + static_cast<std::ptrdiff_t>(bare.size()), whole.end()}};
}

ordered_json post_processor(const Tokenizer& tokenizer) {
  const AroundText around = around_text(tokenizer);
  if (around.before.empty() && around.after.empty()) return nullptr;
  ordered_json single = ordered_json::array(), pair = ordered_json::array(), tokens = ordered_json::object();
  const auto add = [&](const std::vector<int32_t>& ids, int type) {
    for (const int32_t id : ids) {
      const std::string text(tokenizer.token(id));
      const ordered_json entry = {{"SpecialToken", {{"id", text}, {"type_id", type}}}};
      if (type == 0) single.push_back(entry);
      pair.push_back(entry);
      tokens[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
    }
  };
  const auto add_sequence = [&](const char* name, int type) {
    const ordered_json entry = {{"Sequence", {{"id", name}, {"type_id", type}}}};
    if (type == 0) single.push_back(entry);
    pair.push_back(entry);
  };
  for (const auto& [name, type] : {std::pair{"A", 0}, {"B", 1}}) {
    add(around.before, type);
    add_sequence(name, type);
    add(around.after, type);
  }
  return {{"type", "TemplateProcessing"},
          {"single", std::move(single)},
          {"pair", std::move(pair)},
          {"special_tokens", std::move(tokens)}};
}

ordered_json added_tokens(const TokenizerMetadata& metadata, bool sentence_piece) {
  ordered_json list = ordered_json::array();
  for (size_t id = 0; id < metadata.token_types.size() && id < metadata.tokens.size(); ++id) {
    const auto type = static_cast<TokenType>(metadata.token_types[id]);
    const bool special = type == TokenType::control || (type == TokenType::unknown && sentence_piece);
    if (!special && type != TokenType::user_defined) continue;
    list.push_back({{"id", id},
                    {"content", metadata.tokens[id]},
                    {"single_word", false},
                    {"lstrip", false},
                    {"rstrip", false},
                    {"normalized", false},
                    {"special", special}});
  }
  return list;
}

ordered_json model_json(const TokenizerMetadata& metadata, bool sentence_piece, bool ignore_merges,
                        const std::string& file) {
  Vocabulary vocabulary(metadata.tokens.size());
  std::vector<std::pair<std::string, ordered_json>> entries;
  for (size_t id = 0; id < metadata.tokens.size(); ++id) {
    vocabulary.insert(static_cast<int32_t>(id), metadata.tokens[id]);
    entries.emplace_back(metadata.tokens[id], id);
  }
  ordered_json merges = ordered_json::array();
  const bool has_merges = sentence_piece || !metadata.merges.empty();
  for (const Bpe::Merge& merge : has_merges ? merges_of(metadata, vocabulary, file) : std::vector<Bpe::Merge>())
    merges.push_back(
        {metadata.tokens[static_cast<size_t>(merge.left)], metadata.tokens[static_cast<size_t>(merge.right)]});
  ordered_json unknown = nullptr;
  if (sentence_piece && metadata.unknown_id) unknown = metadata.tokens.at(static_cast<size_t>(*metadata.unknown_id));
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", std::move(unknown)},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", sentence_piece},
          {"byte_fallback", sentence_piece},
          {"ignore_merges", ignore_merges},
          {"vocab", json_object(std::move(entries))},
          {"merges", std::move(merges)}};
}

ordered_json replace_step(std::string_view from, std::string_view to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

void set_sentence_piece(bool space_prefix, ordered_json& json) {
  ordered_json normalizers = ordered_json::array(), decoders = ordered_json::array();
  if (space_prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", space_mark}});
  normalizers.push_back(replace_step(" ", space_mark));
  json["normalizer"] = {{"type", "Sequence"}, {"normalizers", std::move(normalizers)}};
  json["pre_tokenizer"] = nullptr;
  decoders.push_back(replace_step(space_mark, " "));
  decoders.push_back({{"type", "ByteFallback"}});
  decoders.push_back({{"type", "Fuse"}});
  if (space_prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  json["decoder"] = {{"type", "Sequence"}, {"decoders", std::move(decoders)}};
}

ordered_json tokenizer_config(const Tokenizer& tokenizer) {
  ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  const auto name = [&](const char* key, const std::optional<int32_t>& id) {
    if (id) config[key] = tokenizer.token(*id);
  };
  name("bos_token", tokenizer.bos_id());
  name("eos_token", tokenizer.eos_id());
  name("unk_token", tokenizer.unknown_id());
  name("pad_token", tokenizer.padding_id());
  const auto& templates = tokenizer.chat_templates();
  if (templates.size() == 1 && templates.contains("default")) {
    config["chat_template"] = templates.at("default");
  } else if (!templates.empty()) {
    for (const auto& [key, source] : templates)
      config["chat_template"].push_back({{"name", key}, {"template", source}});
  }
  return config;
}

// Of a directory's tokenizer.json: its normaliser's and pre-tokeniser's steps in one list.
void flatten(const ordered_json& step, const char* inner, std::vector<ordered_json>& steps) {
  if (step.is_null()) return;
  if (step.is_object() && step.value("type", "") == "Sequence") {
    for (const ordered_json& part : step.value(inner, ordered_json::array())) flatten(part, inner, steps);
  } else {
    steps.push_back(step);
  }
}

class DirectoryMetadata {
 public:
  DirectoryMetadata(const std::filesystem::path& directory, const Tokenizer& tokenizer, int64_t vocab_size)
      : path_(directory / "tokenizer.json"), tokenizer_(tokenizer), json_(read_json_file(path_)) {
    const ordered_json& model = json_["model"];  // the tokenizer was made of it: it is well formed
    const bool sentence_piece = model.value("byte_fallback", false);
    sentence_piece ? set_sentence_piece_model() : set_byte_level_model(model);
    fill_tokens(vocab_size, sentence_piece);
    fill_merges(model, sentence_piece);
    fill_ids();
  }
  TokenizerMetadata take() { return std::move(metadata_); }

 private:
  [[noreturn]] void refuse(const std::string& part) const {
    throw ConfigError("tokenizer.json", path_.string() + ": GGUF has no name for " + part);
  }

  void set_byte_level_model(const ordered_json& model) {
    std::vector<ordered_json> normalizers;
    flatten(json_.value("normalizer", ordered_json()), "normalizers", normalizers);
    const bool nfc = normalizers.size() == 1 && normalizers[0].value("type", "") == "NFC";
    if (!normalizers.empty() && !nfc) refuse("its normalizer " + json_excerpt(json_["normalizer"]));
    const ordered_json pre_tokenizer = json_.value("pre_tokenizer", ordered_json());
    const bool ignore_merges = model.value("ignore_merges", false);
    const auto name = gguf_pre_tokenizer_name(pre_tokenizer, nfc, ignore_merges);
    if (!name) {
      if (gguf_pre_tokenizer_name(pre_tokenizer, nfc, !ignore_merges)) refuse("these cuts with another ignore_merges");
      refuse("its pre_tokenizer " + json_excerpt(pre_tokenizer));
    }
    metadata_.model = "gpt2";
    metadata_.pre = *name;
  }

  // A space becomes the mark, with one in front of the text or without; no cuts, or those at spaces, which merges do
  // not cross anyway.
  void set_sentence_piece_model() {
    metadata_.model = "llama";
    metadata_.pre = "default";
    bool prefix = false, marked = false;
    std::vector<ordered_json> steps;
    flatten(json_.value("normalizer", ordered_json()), "normalizers", steps);
    flatten(json_.value("pre_tokenizer", ordered_json()), "pretokenizers", steps);
    for (const ordered_json& step : steps) {
      const std::string type = step.value("type", "");
      if (type == "Prepend" && step.value("prepend", "") == space_mark) {
        prefix = true;
      } else if (type == "Replace" && step.value("content", "") == space_mark) {
        marked = true;
      } else if (type == "Metaspace" && step.value("replacement", "") == space_mark) {
        marked = true;
        prefix = step.value("prepend_scheme", "always") != "never";
      } else if (type != "Split" || step.value("behavior", "") != "MergedWithPrevious") {
        refuse("its step " + json_excerpt(step));
      }
    }
    if (!marked) refuse("a SentencePiece tokenizer whose spaces have no mark");
    metadata_.add_space_prefix = prefix;
  }

  void fill_tokens(int64_t vocab_size, bool sentence_piece) {
    const auto count = static_cast<size_t>(std::max<int64_t>(vocab_size, tokenizer_.vocab_size()));
    metadata_.tokens.resize(count);
    metadata_.token_types.assign(count, static_cast<int32_t>(TokenType::normal));
    for (size_t id = 0; id < count; ++id) {
      const auto number = static_cast<int32_t>(id);
      std::string token(number < tokenizer_.vocab_size() ? tokenizer_.token(number) : std::string_view());
      TokenType type = TokenType::normal;
      if (token.empty()) {
        token = "[PAD" + std::to_string(id) + "]";
        type = TokenType::unused;
      } else if (tokenizer_.is_special(number)) {
        type = sentence_piece && tokenizer_.unknown_id() == number ? TokenType::unknown : TokenType::control;
      } else if (sentence_piece && token.size() == 6 && token.starts_with("<0x") && token.ends_with('>')) {
        type = TokenType::byte;
      }
      metadata_.tokens[id] = std::move(token);
      metadata_.token_types[id] = static_cast<int32_t>(type);
    }
    for (const ordered_json& added : json_.value("added_tokens", ordered_json::array())) {
      const auto id =
          static_cast<size_t>(json_integer(added.at("id"), "an added token's id", 0, INT32_MAX, path_.string()));
      if (id < count && metadata_.token_types[id] == static_cast<int32_t>(TokenType::normal))
        metadata_.token_types[id] = static_cast<int32_t>(TokenType::user_defined);
    }
  }

  void fill_merges(const ordered_json& model, bool sentence_piece) {
    std::vector<std::string> merges;
    std::vector<double> scores(metadata_.tokens.size(), -1e6);
    int64_t rank = 0;
    for (const ordered_json& merge : model.at("merges")) {
      const bool pair = merge.is_array();
      const std::string whole = pair ? "" : merge.get<std::string>();
      const size_t space = whole.find(' ');
      const std::string left = pair ? merge.at(0).get<std::string>() : whole.substr(0, space);
      const std::string right = pair ? merge.at(1).get<std::string>() : whole.substr(space + 1);
      merges.push_back(left + " " + right);
      // llama.cpp merges the pair whose result has the highest score: the first merge that gives it.
      if (const auto id = tokenizer_.token_id(left + right); id && scores[static_cast<size_t>(*id)] < -1e5)
        scores[static_cast<size_t>(*id)] = -static_cast<double>(rank);
      ++rank;
    }
    if (!sentence_piece) {
      metadata_.merges = std::move(merges);
      return;
    }
    for (size_t id = 0; id < scores.size(); ++id) {
      if (metadata_.token_types[id] != static_cast<int32_t>(TokenType::normal)) scores[id] = 0;
      metadata_.scores.push_back(static_cast<float>(scores[id]));
    }
  }

  void fill_ids() {
    metadata_.bos_id = tokenizer_.bos_id();
    metadata_.eos_id = tokenizer_.eos_id();
    metadata_.unknown_id = tokenizer_.unknown_id();
    metadata_.padding_id = tokenizer_.padding_id();
    const AroundText around = around_text(tokenizer_);
    // A token that stands before every text is BOS, whether a file names it so or not.
    const auto is_only = [](const std::vector<int32_t>& ids, std::optional<int64_t>& id) {
      if (ids.size() == 1 && !id) id = ids[0];
      return ids.empty() || (ids.size() == 1 && ids[0] == id);
    };
    if (!is_only(around.before, metadata_.bos_id) || !is_only(around.after, metadata_.eos_id))
      refuse("tokens around a text that are not BOS and EOS");
    metadata_.add_bos = !around.before.empty();
    metadata_.add_eos = !around.after.empty();
    metadata_.chat_templates = tokenizer_.chat_templates();
  }

  std::filesystem::path path_;
  const Tokenizer& tokenizer_;
  ordered_json json_;
  TokenizerMetadata metadata_;
};

}  // namespace

TokenizerFiles tokenizer_files_of(const TokenizerMetadata& metadata, const std::string& file) {
  const auto tokenizer = Tokenizer::from_metadata(metadata, file);  // which refuses what cannot be one
  if (metadata.model != "gpt2" && metadata.model != "llama")
    throw ConfigError("tokenizer.ggml.model",
                      "the tokenizer model '" + metadata.model + "' of " + file + " is read, but not converted");
  const bool sentence_piece = metadata.model == "llama";
  const GgufPreTokenizer cuts = sentence_piece ? GgufPreTokenizer() : gguf_pre_tokenizer(metadata.pre, file);
  ordered_json json = {{"version", "1.0"},
                       {"truncation", nullptr},
                       {"padding", nullptr},
                       {"added_tokens", added_tokens(metadata, sentence_piece)},
                       {"normalizer", nullptr},
                       {"pre_tokenizer", nullptr},
                       {"post_processor", post_processor(*tokenizer)},
                       {"decoder", nullptr},
                       {"model", model_json(metadata, sentence_piece, cuts.ignore_merges, file)}};
  if (sentence_piece) {
    set_sentence_piece(metadata.add_space_prefix.value_or(true), json);
  } else {
    if (cuts.nfc) json["normalizer"] = {{"type", "NFC"}};
    json["pre_tokenizer"] = pre_tokenizer_json(metadata.pre, file);
    json["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  }
  return {json_file_text(json, 2), json_file_text(tokenizer_config(*tokenizer), 2)};
}

TokenizerMetadata tokenizer_metadata_of(const std::filesystem::path& directory, const Tokenizer& tokenizer,
                                        int64_t vocab_size) {
  try {
    return DirectoryMetadata(directory, tokenizer, vocab_size).take();
  } catch (const nlohmann::json::exception& error) {
    throw FormatError((directory / "tokenizer.json").string(), -1, error.what());
  }
}

}  // namespace lathe::data
