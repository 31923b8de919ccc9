#include "data/tokenizer/gguf_pre_tokenizers.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/error.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

const std::string contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const std::string rest = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string llama3_pattern = contractions + R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})" + rest;
const std::string qwen2_pattern = contractions + R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})" + rest;

// Words that are cut where small letters are followed by a capital one: of letters that end with small ones, or that
// begin with capital ones.
const std::string to_small = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)";
const std::string from_capital = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)";
const std::string rest_with_slashes = R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string gpt4o_pattern =
    to_small + contractions + "?|" + from_capital + contractions + R"(?|\p{N}{1,3})" + rest_with_slashes;
const std::string tekken_pattern = to_small + "|" + from_capital + R"(|\p{N})" + rest_with_slashes;

const std::string deepseek_v3_pattern =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
    R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

enum class Digits { as_they_are, one_by_one };

struct Kind {
  std::vector<std::string> names;
  Digits digits_before = Digits::as_they_are;  // cut before the patterns, or
  std::vector<std::string> patterns;
  Digits digits_after = Digits::as_they_are;  // after them
  bool ignore_merges = false, nfc = false, adds_bos = false;
};

const Kind kinds[] = {
    {.names = {"gpt-2", "gpt2", "phi-2"}, .patterns = {gpt2_pattern}},
    {.names = {"olmo"}, .patterns = {gpt2_pattern}, .nfc = true},
    {.names = {"smollm", "starcoder", "refact"}, .digits_before = Digits::one_by_one, .patterns = {gpt2_pattern}},
    {.names = {"llama-bpe", "llama3"}, .patterns = {llama3_pattern}, .ignore_merges = true, .adds_bos = true},
    {.names = {"dbrx"}, .patterns = {llama3_pattern}},
    {.names = {"qwen2"}, .patterns = {qwen2_pattern}, .nfc = true},
    {.names = {"deepseek-r1-qwen"}, .patterns = {qwen2_pattern}},
    {.names = {"gpt-4o", "llama4"}, .patterns = {gpt4o_pattern}},
    {.names = {"tekken"}, .patterns = {tekken_pattern}, .ignore_merges = true, .adds_bos = true},
    {.names = {"deepseek-coder"},
     .patterns = {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", R"([一-龥ࠀ-一가-퟿]+)"},
     .digits_after = Digits::one_by_one},
    {.names = {"deepseek-v3"}, .patterns = {R"(\p{N}{1,3})", R"([一-龥぀-ゟ゠-ヿ]+)", deepseek_v3_pattern}},
};

std::string known_names() {
  std::string names;
  for (const Kind& kind : kinds)
    for (const std::string& name : kind.names) names += (names.empty() ? "" : ", ") + name;
  return names;
}

const Kind& kind_named(const std::string& name, const std::string& file) {
  const auto kind = std::find_if(std::begin(kinds), std::end(kinds), [&](const Kind& candidate) {
    return std::find(candidate.names.begin(), candidate.names.end(), name) != candidate.names.end();
  });
  if (kind == std::end(kinds))
    throw ConfigError("tokenizer.ggml.pre",
                      "the pre-tokenizer '" + name + "' of " + file + " is not supported (" + known_names() +
                          " are); the model's Hugging Face directory with its tokenizer.json may be used instead");
  return *kind;
}

ordered_json json_of(const Kind& kind) {
  ordered_json steps = ordered_json::array();
  const ordered_json digits = {{"type", "Digits"}, {"individual_digits", true}};
  const bool gpt2 = kind.patterns.size() == 1 && kind.patterns[0] == gpt2_pattern;  // a part of ByteLevel
  if (kind.digits_before == Digits::one_by_one) steps.push_back(digits);
  for (const std::string& pattern : kind.patterns)
    if (!gpt2)
      steps.push_back(
          {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  if (kind.digits_after == Digits::one_by_one) steps.push_back(digits);
  steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", gpt2}});
  if (steps.size() == 1) return steps[0];
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

// The cuts as a text that is the same for all ways of saying them.
void describe_cuts(const ordered_json& step, std::string& text, bool& byte_level) {
  const std::string type = step.is_object() ? step.value("type", "") : "";
  if (type == "Sequence") {
    for (const ordered_json& part : step.value("pretokenizers", ordered_json::array()))
      describe_cuts(part, text, byte_level);
  } else if (type == "Digits") {
    text += step.value("individual_digits", false) ? "digit;" : "digits;";
  } else if (type == "Split" && step.contains("pattern") && step["pattern"].is_object()) {
    const std::string behavior = step.value("behavior", "");
    text += behavior + (step.value("invert", false) ? " invert " : " ") +
            step["pattern"].value("Regex", "no regular expression") + ";";
  } else if (type == "ByteLevel" && !step.value("add_prefix_space", true)) {
    if (step.value("use_regex", true)) text += std::string("Isolated ") + gpt2_pattern + ";";
    byte_level = true;
  } else {
    text += "another step " + type + ";";
  }
}

}  // namespace

ordered_json pre_tokenizer_json(const std::string& name, const std::string& file) {
  return json_of(kind_named(name, file));
}

std::optional<std::string> gguf_pre_tokenizer_name(const ordered_json& pre_tokenizer, bool nfc, bool ignore_merges) {
  std::string wanted;
  bool byte_level = false;
  describe_cuts(pre_tokenizer, wanted, byte_level);
  if (!byte_level) return std::nullopt;
  for (const Kind& kind : kinds) {
    std::string text;
    bool ignored = false;
    describe_cuts(json_of(kind), text, ignored);
    if (text == wanted && kind.nfc == nfc && kind.ignore_merges == ignore_merges) return kind.names[0];
  }
  return std::nullopt;
}

GgufPreTokenizer gguf_pre_tokenizer(const std::string& name, const std::string& file) {
  const Kind& kind = kind_named(name, file);
  GgufPreTokenizer result;
  auto& steps = result.pre_tokenizers.steps;
  result.pre_tokenizers.byte_level = true;
  if (kind.digits_before == Digits::one_by_one) steps.push_back(digits_pre_tokenizer(true));
  for (const std::string& pattern : kind.patterns) steps.push_back(split_pre_tokenizer(pattern, file));
  if (kind.digits_after == Digits::one_by_one) steps.push_back(digits_pre_tokenizer(true));
  result.ignore_merges = kind.ignore_merges;
  result.nfc = kind.nfc;
  result.adds_bos = kind.adds_bos;
  return result;
}

}  // namespace lathe::data
