// What the endpoints stand on, and the table of them.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "serve/http/access.h"
#include "serve/http/adapter_list.h"
#include "serve/http/audit_log.h"
#include "serve/http/engine_thread.h"
#include "serve/http/exchange.h"
#include "serve/http/metrics.h"

namespace lathe::http {

struct ServiceOptions {
  std::string model_name;              // as clients call it
  std::string model_root;              // where it lies, for /v1/models
  std::filesystem::path adapter_root;  // adapters load from here alone; empty: from nowhere
  int64_t created = 0;                 // seconds since 1970
  bool separate_reasoning = true;      // thoughts are told apart from what chats answer
};

// Every function runs on the strand of the exchange that it is given.
class Service {
 public:
  Service(ServiceOptions options, EngineThread& engine, Metrics& metrics, AdapterList& adapters, Access& access,
          AuditLog& audit);

  // Answers in any case: with what was asked for or with an ApiError. Never throws.
  void handle(const std::shared_ptr<Exchange>& exchange);
  // From now on only /health and /metrics are answered; the rest gets 503.
  void drain() { draining_ = true; }
  bool draining() const { return draining_; }

  const ServiceOptions options;
  EngineThread& engine;
  Metrics& metrics;
  AdapterList& adapters;

  // The model, or ApiError 503 while it is being loaded.
  const LoadedModel& loaded() const;
  // What a request's "model" means: the adapter's name, "" for the base model. ApiError 404 for any other name.
  std::string adapter_of(const std::string& model) const;
  // The prompt's ids are in the vocabulary, and leave room for an answer. Returns how long that may be: `max_tokens`,
  // or the rest of the context. ApiError 400.
  int64_t answer_length(const std::vector<int32_t>& prompt, std::optional<int64_t> max_tokens) const;

 private:
  void dispatch(const std::shared_ptr<Exchange>& exchange, const std::shared_ptr<AuditEntry>& audit);

  Access& access_;
  AuditLog& audit_;
  std::atomic<bool> draining_ = false;
};

// One request under way. The exchange is answered by the endpoint; `audit` is told what is known.
struct Call {
  Service& service;
  std::shared_ptr<Exchange> exchange;
  std::shared_ptr<AuditEntry> audit;
  Principal principal;

  const HttpRequest& request() const { return exchange->request(); }
  void reply(Reply reply) const;
  void reply(const nlohmann::ordered_json& body) const;
  void reply(const ApiError& error, ErrorShape shape = ErrorShape::openai) const;
};

// Method and path of each endpoint.
struct EndpointName {
  std::string_view method, path;
};
std::vector<EndpointName> endpoint_names();

// The endpoints, each in its own file. They throw ApiError for what is wrong with the request.
void chat_completions(const Call& call);
void completions(const Call& call);
void responses(const Call& call);
void embeddings(const Call& call);
void list_models(const Call& call);
void show_model(const Call& call);
void load_adapter(const Call& call);
void unload_adapter(const Call& call);
void tokenize(const Call& call);
void detokenize(const Call& call);
void health(const Call& call);
void show_metrics(const Call& call);
void show_version(const Call& call);
void show_openapi(const Call& call);
void tgi_generate(const Call& call);
void tgi_generate_stream(const Call& call);
void tgi_compatible(const Call& call);
void tgi_info(const Call& call);
void show_page(const Call& call);

}  // namespace lathe::http
