// Text Generation Inference's endpoints: POST /generate, /generate_stream and /, GET /info.
#include <algorithm>
#include <ctime>

#include "core/json.h"
#include "core/json_value.h"
#include "serve/http/answer_grammar.h"
#include "serve/http/generation.h"
#include "serve/http/prompt_tokens.h"

namespace lathe::http {
namespace {

using nlohmann::ordered_json;

struct TgiRequest {
  GenerationSettings settings;
  std::string inputs;
  std::optional<int64_t> truncate;  // the last so many tokens of the prompt
  bool sampled = false;
  TgiOptions options;
};

// What would change the answer, and is not there: refused instead of left out.
void refuse_unsupported(const Fields& parameters) {
  if (parameters.find("typical_p") != nullptr)
    throw bad_field(parameters.name_of("typical_p"), "this server does not know it");
  for (const char* key : {"watermark", "decoder_input_details"})
    if (parameters.boolean(key).value_or(false)) throw bad_field(parameters.name_of(key), "this server has none");
  parameters.integer("best_of", 1, 1);  // refuses any other number
}

// TGI is greedy unless a field asks for sampling.
void read_tgi_sampling(const Fields& parameters, TgiRequest& request) {
  kernels::SamplingParams& sampling = request.settings.sampling;
  const auto number = [&](const char* key, double least, double greatest) {
    const auto value = parameters.number(key, least, greatest);
    if (value && (std::string_view(key) == "temperature" || std::string_view(key) == "top_p") && *value == 0)
      throw bad_field(parameters.name_of(key), "expected more than 0; greedy is do_sample: false");
    return value;
  };
  const auto temperature = number("temperature", 0, 100), top_p = number("top_p", 0, 1);
  const auto top_k = parameters.integer("top_k", 1, INT32_MAX);
  const auto seed = parameters.integer("seed", 0, INT64_MAX);
  request.sampled = parameters.boolean("do_sample").value_or(false) || temperature || top_p || top_k;
  sampling.temperature = request.sampled ? static_cast<float>(temperature.value_or(1)) : 0.0f;
  sampling.top_p = static_cast<float>(top_p.value_or(1));
  sampling.top_k = static_cast<int32_t>(top_k.value_or(0));
  sampling.repetition_penalty = static_cast<float>(number("repetition_penalty", 0.01, 100).value_or(1));
  sampling.frequency_penalty = static_cast<float>(number("frequency_penalty", -2, 2).value_or(0));
  sampling.seed = seed ? static_cast<uint64_t>(*seed) : random_seed() >> 1;
}

TgiRequest read_tgi_request(const ordered_json& body) {
  const Fields fields(body);
  TgiRequest request;
  const ordered_json& inputs = fields.required("inputs", "a string");
  if (!inputs.is_string() || inputs.get_ref<const std::string&>().empty())
    throw bad_field("inputs", "expected a string that is not empty, found " + json_excerpt(inputs));
  request.inputs = inputs.get<std::string>();
  request.settings.stream = fields.boolean("stream").value_or(false);
  static const ordered_json nothing = ordered_json::object();
  const ordered_json* given = fields.find("parameters");
  const Fields parameters(given == nullptr ? nothing : *given, "parameters.");
  read_tgi_sampling(parameters, request);
  refuse_unsupported(parameters);
  request.settings.model = parameters.text("adapter_id").value_or("");
  request.settings.max_tokens = parameters.integer("max_new_tokens", 1, most_max_tokens).value_or(100);
  request.settings.stop = read_stops(parameters, "stop");
  request.settings.grammar = read_tgi_grammar(parameters);
  request.settings.top_logprobs = parameters.integer("top_n_tokens", 0, most_alternatives);
  request.truncate = parameters.integer("truncate", 1, most_max_tokens);
  request.options.return_full_text = parameters.boolean("return_full_text").value_or(false);
  request.options.details = parameters.boolean("details").value_or(false);
  return request;
}

void generate(const Call& call, TgiRequest request) {
  const LoadedModel& loaded = call.service.loaded();
  GenerationPlan plan;
  plan.settings = request.settings;
  plan.adapter = call.service.adapter_of(request.settings.model);
  std::vector<int32_t> tokens = prompt_tokens(loaded.text, request.inputs);
  if (request.truncate && static_cast<int64_t>(tokens.size()) > *request.truncate)
    tokens.erase(tokens.begin(), tokens.end() - static_cast<std::ptrdiff_t>(*request.truncate));
  request.options.prompt = request.inputs;
  request.options.prompt_tokens = static_cast<int64_t>(tokens.size());
  if (request.sampled) request.options.seed = request.settings.sampling.seed;
  plan.prompts = {std::move(tokens)};
  const std::string model = plan.adapter.empty() ? call.service.options.model_name : plan.adapter;
  plan.format =
      tgi_format({new_id("tgi-"), std::time(nullptr), model, loaded.text.tokenizer}, request.settings, request.options);
  call.audit->model = model;
  if (call.audit->log.with_text()) call.audit->text = request.inputs;
  start_generation(call, std::move(plan));
}

}  // namespace

void tgi_generate(const Call& call) {
  TgiRequest request = read_tgi_request(parse_body(call.request().body));
  request.settings.stream = false;
  generate(call, std::move(request));
}

void tgi_generate_stream(const Call& call) {
  TgiRequest request = read_tgi_request(parse_body(call.request().body));
  request.settings.stream = true;
  generate(call, std::move(request));
}

// As huggingface_hub's client asks: "stream" says which of the two, and a whole answer is a list.
void tgi_compatible(const Call& call) {
  TgiRequest request = read_tgi_request(parse_body(call.request().body));
  request.options.list = true;
  generate(call, std::move(request));
}

void tgi_info(const Call& call) {
  const LoadedModel& loaded = call.service.loaded();
  call.reply(ordered_json{{"model_id", call.service.options.model_name},
                          {"model_sha", nullptr},
                          {"model_dtype", std::string(name_of(loaded.model->dtype()))},
                          {"model_pipeline_tag", "text-generation"},
                          {"model_device_type", loaded.model->device().kind == DeviceKind::cpu ? "cpu" : "cuda"},
                          {"max_concurrent_requests", call.service.engine.limits().max_waiting},
                          {"max_best_of", 1},
                          {"max_stop_sequences", most_stops},
                          {"max_input_tokens", call.service.engine.context() - 1},
                          {"max_total_tokens", call.service.engine.context()},
                          {"max_client_batch_size", 1},
                          {"router", "lathe-serve"},
                          {"version", "0.1.0"}});
}

}  // namespace lathe::http
