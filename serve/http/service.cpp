#include "serve/http/service.h"

#include <fmt/format.h>

#include <array>

#include "core/json_value.h"
#include "serve/http/page.h"

namespace lathe::http {
namespace {

struct Endpoint {
  std::string_view method, path;
  void (*run)(const Call&);
  ErrorShape errors = ErrorShape::openai;
  Role role = Role::user;
};

constexpr std::array endpoints = {
    Endpoint{"POST", "/v1/chat/completions", chat_completions},
    Endpoint{"POST", "/v1/completions", completions},
    Endpoint{"POST", "/v1/responses", responses},
    Endpoint{"POST", "/v1/embeddings", embeddings},
    Endpoint{"GET", "/v1/models", list_models},
    Endpoint{"POST", "/v1/load_lora_adapter", load_adapter, ErrorShape::openai, Role::admin},
    Endpoint{"POST", "/v1/unload_lora_adapter", unload_adapter, ErrorShape::openai, Role::admin},
    Endpoint{"POST", "/tokenize", tokenize},
    Endpoint{"POST", "/detokenize", detokenize},
    Endpoint{"GET", "/metrics", show_metrics},
    Endpoint{"GET", "/version", show_version},
    Endpoint{"GET", "/openapi.json", show_openapi},
    Endpoint{"POST", "/generate", tgi_generate, ErrorShape::tgi},
    Endpoint{"POST", "/generate_stream", tgi_generate_stream, ErrorShape::tgi},
    Endpoint{"POST", "/", tgi_compatible, ErrorShape::tgi},
    Endpoint{"GET", "/info", tgi_info, ErrorShape::tgi},
};

constexpr std::string_view models_path = "/v1/models/";

bool is_health(std::string_view path) { return path == "/health" || path == "/ping"; }

// ApiError 404 for a path that nobody answers, 405 for another method of one that is.
const Endpoint& endpoint_of(const HttpRequest& request) {
  static constexpr Endpoint one_model{"GET", models_path, show_model};
  std::string allowed;
  const auto allow = [&](std::string_view method) { allowed += (allowed.empty() ? "" : ", ") + std::string(method); };
  if (is_health(request.path) || page_file(request.path) != nullptr) allow("GET");
  for (const Endpoint& endpoint : endpoints) {
    if (endpoint.path != request.path) continue;
    if (endpoint.method == request.method) return endpoint;
    allow(endpoint.method);
  }
  if (request.path.starts_with(models_path)) {
    if (request.method == "GET") return one_model;
    allow("GET");
  }
  if (!allowed.empty()) throw ApiError(405, request.path + " is asked with " + allowed).allowing(allowed);
  throw ApiError(404, "there is nothing at " + request.path.substr(0, 200));
}

// A page of another site may send requests here from the browser of someone who can reach this server.
void refuse_other_sites(const HttpRequest& request) {
  if (request.origin.empty() || request.method == "GET") return;
  const size_t scheme = request.origin.find("://");
  if (scheme == std::string::npos || request.origin.substr(scheme + 3) != request.host)
    throw ApiError(403, "requests from pages of other sites are refused");
}

}  // namespace

std::vector<EndpointName> endpoint_names() {
  std::vector<EndpointName> names;
  for (const Endpoint& endpoint : endpoints) names.push_back({endpoint.method, endpoint.path});
  return names;
}

Service::Service(ServiceOptions given, EngineThread& engine_thread, Metrics& some_metrics, AdapterList& adapter_list,
                 Access& access, AuditLog& audit)
    : options(std::move(given)),
      engine(engine_thread),
      metrics(some_metrics),
      adapters(adapter_list),
      access_(access),
      audit_(audit) {}

void Service::handle(const std::shared_ptr<Exchange>& exchange) {
  const HttpRequest& request = exchange->request();
  // Open to everyone: whether the server lives, and the page, which asks for a key itself.
  if (request.method == "GET" && is_health(request.path)) return health({*this, exchange, nullptr, {}});
  if (request.method == "GET" && page_file(request.path) != nullptr) return show_page({*this, exchange, nullptr, {}});
  const auto audit = std::make_shared<AuditEntry>(audit_);
  audit->request_id = request.request_id;
  audit->remote = request.remote;
  audit->endpoint = request.method + " " + request.path.substr(0, 200);
  dispatch(exchange, audit);
}

void Service::dispatch(const std::shared_ptr<Exchange>& exchange, const std::shared_ptr<AuditEntry>& audit) {
  Call call{*this, exchange, audit, {}};
  ErrorShape shape = ErrorShape::openai;
  try {
    call.principal = access_.admit(call.request().authorization, Clock::now());
    audit->key = call.principal.name;
    const Endpoint& endpoint = endpoint_of(call.request());
    shape = endpoint.errors;
    if (endpoint.role == Role::admin && call.principal.role != Role::admin)
      throw ApiError(403, "this wants the key of an admin");
    refuse_other_sites(call.request());
    if (draining_ && call.request().path != "/metrics") throw ApiError(503, "the server is shutting down");
    endpoint.run(call);
  } catch (const ApiError& error) {
    call.reply(error, shape);
  } catch (const Error& error) {
    call.reply(ApiError(400, error.what()), shape);
  } catch (const std::exception& error) {
    call.reply(ApiError(500, std::string("internal error: ") + error.what()), shape);
  }
}

const LoadedModel& Service::loaded() const {
  const LoadedModel* model = engine.model();
  if (model == nullptr) throw ApiError(503, "the model is being loaded", {}, "loading").after(1);
  return *model;
}

std::string Service::adapter_of(const std::string& model) const {
  if (model.empty() || model == options.model_name) return {};
  if (adapters.has(model)) return model;
  throw ApiError(404, "the model " + model.substr(0, 200) + " does not exist; /v1/models lists those that do", "model",
                 "model_not_found");
}

int64_t Service::answer_length(const std::vector<int32_t>& prompt, std::optional<int64_t> max_tokens) const {
  const LoadedModel& model = loaded();
  for (const int32_t token : prompt)
    if (token < 0 || token >= model.text.vocab_size)
      throw ApiError(400, fmt::format("the prompt has token {}, but the model has {}", token, model.text.vocab_size),
                     "prompt");
  const int64_t context = engine.context(), length = static_cast<int64_t>(prompt.size());
  if (length >= context || (max_tokens && length + *max_tokens > context))
    throw ApiError(400,
                   fmt::format("a prompt of {} tokens and an answer of {} exceed the {} tokens that this model holds",
                               length, max_tokens.value_or(1), context),
                   length >= context ? "prompt" : "max_tokens", "context_length_exceeded");
  return max_tokens.value_or(context - length);
}

void Call::reply(Reply reply) const {
  if (audit) audit->status = reply.status;
  if (reply.status >= 400) service.metrics.request_rejected(reply.status);
  exchange->reply(std::move(reply));
}

void Call::reply(const nlohmann::ordered_json& body) const {
  reply(Reply{.body = body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)});
}

void Call::reply(const ApiError& error, ErrorShape shape) const { reply(error.reply(shape)); }

}  // namespace lathe::http
