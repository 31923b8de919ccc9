#include "serve/http/generation_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <random>

#include "core/json.h"
#include "core/json_value.h"
#include "serve/http/answer_grammar.h"
#include "serve/http/api_error.h"

namespace lathe::http {
namespace {

using nlohmann::ordered_json;

void read_sampling(const Fields& fields, kernels::SamplingParams& sampling) {
  const auto number = [&](const char* key, double least, double greatest, float fallback) {
    return static_cast<float>(fields.number(key, least, greatest).value_or(fallback));
  };
  sampling.temperature = number("temperature", 0, 100, 1);
  sampling.top_p = number("top_p", 0, 1, 1);
  if (sampling.top_p == 0) throw bad_field(fields.name_of("top_p"), "expected more than 0, up to 1, found 0");
  sampling.top_k = static_cast<int32_t>(fields.integer("top_k", -1, INT32_MAX).value_or(0));
  sampling.min_p = number("min_p", 0, 1, 0);
  sampling.presence_penalty = number("presence_penalty", -2, 2, 0);
  sampling.frequency_penalty = number("frequency_penalty", -2, 2, 0);
  sampling.repetition_penalty = number("repetition_penalty", 0.01, 100, 1);
  const auto seed = fields.integer("seed", INT64_MIN, INT64_MAX);
  sampling.seed = seed ? static_cast<uint64_t>(*seed) : random_seed();
}

std::vector<engine::LogitBias> read_logit_bias(const Fields& fields, int64_t vocabulary) {
  std::vector<engine::LogitBias> biases;
  const ordered_json* value = fields.find("logit_bias");
  if (value == nullptr) return biases;
  const std::string name = fields.name_of("logit_bias");
  if (!value->is_object() || value->size() > most_biased_tokens)
    throw bad_field(name, fmt::format("expected an object of up to {} token ids with biases, found {}",
                                      most_biased_tokens, json_excerpt(*value)));
  for (const auto& [key, bias] : value->items()) {
    int32_t token = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (error != std::errc() || end != key.data() + key.size() || token < 0 || token >= vocabulary)
      throw bad_field(name, fmt::format("expected token ids from 0 to {} as keys, found {}", vocabulary - 1,
                                        json_excerpt(ordered_json(key))));
    if (!bias.is_number() || !(std::abs(bias.get<double>()) <= 100))
      throw bad_field(name, "expected biases from -100 to 100, found " + json_excerpt(bias));
    biases.push_back({token, bias.get<float>()});
  }
  std::ranges::sort(biases, {}, &engine::LogitBias::token);
  if (std::ranges::adjacent_find(biases, {}, &engine::LogitBias::token) != biases.end())
    throw bad_field(name, "names a token twice");
  return biases;
}

void read_stream(const Fields& fields, GenerationSettings& settings) {
  settings.stream = fields.boolean("stream").value_or(false);
  const ordered_json* options = fields.find("stream_options");
  if (options == nullptr) return;
  if (!settings.stream) throw bad_field(fields.name_of("stream_options"), "is only allowed where stream is true");
  settings.include_usage =
      Fields(*options, fields.name_of("stream_options") + ".").boolean("include_usage").value_or(false);
}

}  // namespace

uint64_t random_seed() {
  static thread_local std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

std::vector<std::string> read_stops(const Fields& fields, const char* key) {
  std::vector<std::string> stops = fields.texts(key, most_stops);
  for (const std::string& stop : stops) {
    if (stop.empty()) throw bad_field(fields.name_of(key), "expected strings that are not empty");
    if (stop.size() > most_stop_bytes)
      throw bad_field(fields.name_of(key),
                      fmt::format("expected strings of up to {} bytes, found one of {}", most_stop_bytes, stop.size()));
  }
  std::sort(stops.begin(), stops.end());
  stops.erase(std::unique(stops.begin(), stops.end()), stops.end());
  return stops;
}

GenerationSettings read_generation_settings(const Fields& fields, int64_t vocabulary) {
  GenerationSettings settings;
  settings.model = fields.text("model").value_or("");
  settings.n = fields.integer("n", 1, most_choices).value_or(1);
  read_sampling(fields, settings.sampling);
  settings.min_tokens = fields.integer("min_tokens", 0, most_max_tokens).value_or(0);
  settings.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  settings.stop = read_stops(fields, "stop");
  settings.stop_token_ids = fields.token_ids("stop_token_ids", most_stop_ids, vocabulary);
  settings.logit_bias = read_logit_bias(fields, vocabulary);
  settings.grammar = read_grammar(fields);
  if (settings.grammar && settings.ignore_eos)
    throw bad_field(fields.name_of("ignore_eos"), "an answer of a given form ends where the form does");
  settings.prompt_logprobs = fields.integer("prompt_logprobs", 0, most_alternatives);
  settings.priority = static_cast<int32_t>(fields.integer("priority", INT32_MIN, INT32_MAX).value_or(0));
  settings.cache_salt = fields.text("cache_salt").value_or("");
  settings.skip_special_tokens = fields.boolean("skip_special_tokens").value_or(true);
  read_stream(fields, settings);
  if (settings.stream && settings.prompt_logprobs)
    throw bad_field(fields.name_of("prompt_logprobs"), "is only allowed where stream is false");
  return settings;
}

}  // namespace lathe::http
