#include "data/tokenizer/gguf_pre_tokenizers.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/json_value.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

const std::string contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const std::string words = R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})";
const std::string blanks = R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string rest = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*)" + blanks;
const std::string llama3_pattern = contractions + words + "{1,3}" + rest;
const std::string qwen2_pattern = contractions + words + rest;
const std::string qwen35_pattern =
    contractions + R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" + blanks;
const std::string seed_coder_pattern = contractions + words + R"({1}| ?[^\s\p{L}\p{N}\r\n]+)" + blanks;
const std::string bailing_pattern =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
const std::string exaone_moe_pattern =
    contractions + R"(|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?)" +
    R"(|\s*[\r\n]|\s+(?!\S)|\s+)";
// Runs of blanks are cut into powers of two.
const std::string jais2_pattern =
    contractions + words + R"({1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S))" +
    R"(|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1})";

// Words that are cut where small letters are followed by a capital one: of letters that end with small ones, or that
// begin with capital ones.
const std::string to_small = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)";
const std::string from_capital = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)";
const std::string cased_words = to_small + contractions + "?|" + from_capital + contractions + R"(?|\p{N})";
const std::string rest_with_slashes = R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*)" + blanks;
const std::string gpt4o_pattern = cased_words + "{1,3}" + rest_with_slashes;
const std::string tekken_pattern = to_small + "|" + from_capital + R"(|\p{N})" + rest_with_slashes;

const std::string deepseek_v3_words =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+)";
const std::string deepseek_v3_pattern = deepseek_v3_words + R"([\r\n]*)" + blanks;
const std::string chinese_or_kana = "[一-龥぀-ゟ゠-ヿ]+";
const std::string chinese_or_hangul = "[一-龥ࠀ-一가-퟿]+";
// The letters of Latin, Greek, Cyrillic, Armenian, Georgian, Cherokee, Glagolitic, Deseret and their like.
const std::string cased_letters =
    R"(A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF})"
    R"(\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1})"
    R"(\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5})"
    R"(\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A})"
    R"(\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B})"
    R"(\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC})"
    R"(\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107})"
    R"(\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134})"
    R"(\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4})"
    R"(\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787})"
    R"(\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A})"
    R"(\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2})"
    R"(\x{118A0}-\x{118DF}\x{1E900}-\x{1E943})";

// Words up to a sentence's marks.
const std::string bloom_pattern = R"( ?[^(\s|.,!?…。，、।۔،)]+)";

enum class Digits { as_they_are, one_by_one };

struct Kind {
  std::vector<std::string> names;
  Digits digits_before = Digits::as_they_are;  // cut before the patterns, or
  std::vector<std::string> patterns;
  Digits digits_after = Digits::as_they_are;  // after them
  bool ignore_merges = false, nfc = false, adds_bos = false;
};

const Kind kinds[] = {
    {.names = {"gpt-2", "gpt2", "phi-2", "jais", "gigachat", "a.x-4.0", "mellum", "exaone4", "trillion",
               "granite-docling"},
     .patterns = {gpt2_pattern}},
    {.names = {"olmo", "mpt"}, .patterns = {gpt2_pattern}, .nfc = true},
    {.names = {"smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"},
     .digits_before = Digits::one_by_one,
     .patterns = {gpt2_pattern}},
    {.names = {"command-r"}, .digits_before = Digits::one_by_one, .patterns = {gpt2_pattern}, .nfc = true},
    {.names = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"},
     .patterns = {llama3_pattern},
     .ignore_merges = true,
     .adds_bos = true},
    {.names = {"glm4", "glm5"}, .patterns = {llama3_pattern}, .ignore_merges = true},
    {.names = {"dbrx", "smaug-bpe", "chatglm-bpe"}, .patterns = {llama3_pattern}},
    {.names = {"qwen2"}, .patterns = {qwen2_pattern}, .nfc = true},
    {.names = {"qwen35"}, .patterns = {qwen35_pattern}},
    {.names = {"deepseek-r1-qwen", "megrez", "kormo", "stablelm2", "hunyuan", "solar-open", "grok-2"},
     .patterns = {qwen2_pattern}},
    {.names = {"ufakzeka"}, .patterns = {words.substr(1) + rest}},
    {.names = {"seed-coder"}, .patterns = {seed_coder_pattern}},
    {.names = {"bailingmoe", "bailingmoe2", "llada-moe"}, .patterns = {bailing_pattern}},
    {.names = {"exaone-moe"}, .patterns = {exaone_moe_pattern}},
    {.names = {"jais-2"}, .patterns = {jais2_pattern}},
    {.names = {"minicpm5"}, .patterns = {R"(\p{N}{1,3})", contractions + words + "+" + rest}, .ignore_merges = true},
    {.names = {"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"}, .patterns = {gpt4o_pattern}},
    {.names = {"tiny_aya", "cohere2moe"}, .patterns = {R"(\d{1,3}(?=(?:\d{3})*\b))", gpt4o_pattern}},
    {.names = {"youtu"},
     .patterns = {"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + chinese_or_kana,
                  cased_words + rest_with_slashes},
     .ignore_merges = true},
    {.names = {"tekken"}, .patterns = {tekken_pattern}, .ignore_merges = true, .adds_bos = true},
    {.names = {"deepseek-llm"},
     .patterns = {R"([\r\n])", R"(\s?[)" + cased_letters + "]+", R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)", R"(\s+$)",
                  chinese_or_hangul},
     .digits_after = Digits::one_by_one},
    {.names = {"deepseek-coder"},
     .patterns = {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", chinese_or_hangul},
     .digits_after = Digits::one_by_one},
    {.names = {"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"},
     .patterns = {R"(\p{N}{1,3})", chinese_or_kana, deepseek_v3_pattern}},
    {.names = {"spark2_5"},
     .patterns = {R"(\p{N}{1,3})", chinese_or_kana, deepseek_v3_words + R"(|[\r\n]|\s+(?!\S)|\s+)", R"(\p{N})"}},
    {.names = {"superbpe"}, .patterns = {R"(\p{N}+)", R"((?=(\d{3})+(?!\d)))"}},
    {.names = {"bloom", "poro-chat", "gpt3-finnish"}, .patterns = {bloom_pattern}},
    {.names = {"viking"}, .patterns = {bloom_pattern, R"(\p{N})"}},
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
