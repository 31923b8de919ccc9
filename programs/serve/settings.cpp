#include "programs/serve/settings.h"

#include <filesystem>
#include <set>

#include "core/error.h"

namespace lathe::programs {

std::vector<std::pair<std::string, std::string>> ServeSettings::named_adapters() const {
  std::vector<std::pair<std::string, std::string>> named;
  std::set<std::string> names{model_name()};
  for (const std::string& text : adapters) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
      throw ConfigError("adapter", "expected NAME=DIR, found " + text);
    named.emplace_back(text.substr(0, equals), text.substr(equals + 1));
    if (!names.insert(named.back().first).second)
      throw ConfigError("adapter", "the name " + named.back().first + " is taken already");
  }
  return named;
}

std::string ServeSettings::model_name() const {
  if (!served_model_name.empty()) return served_model_name;
  std::filesystem::path path = std::filesystem::path(model).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return (path.extension() == ".gguf" ? path.stem() : path.filename()).string();
}

namespace {

void add_model_flags(CLI::App& app, ServeSettings& settings) {
  app.add_option("MODEL,--model", settings.model,
                 ".gguf file, Hugging Face directory, or ORG/NAME that lathe-model pull has fetched")
      ->required();
  app.add_option("--adapter", settings.adapters,
                 "NAME=DIR: a PEFT adapter that requests choose as their model (repeatable)")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--adapter_root", settings.adapter_root,
                 "the folder from which /v1/load_lora_adapter may load adapters (none: it may not)");
  app.add_option("--served_model_name", settings.served_model_name, "the model's name for clients (its file's name)");
  app.add_option("--dtype", settings.dtype,
                 "auto (bf16 where the device multiplies it, else f32), f32, bf16, f16 or f64")
      ->capture_default_str();
  app.add_option("--weights", settings.weights,
                 "file: a GGUF file's matrices in blocks stay what they are, and the cpu multiplies activations "
                 "as whole numbers of 16 bits; bf16 or f32: they are widened to that dtype")
      ->capture_default_str();
  cli::add_quantization_options(app, settings.quantization);
  app.add_option("--kv_cache_dtype", settings.kv_cache_dtype,
                 "what keys and values are kept in: auto (the dtype), f32, bf16, f16, or int8 (half of bf16's memory)")
      ->capture_default_str();
  app.add_option("--max_model_len", settings.max_model_len, "tokens of prompt and answer together (0: the model's)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--reasoning_format", settings.reasoning_format,
                 "auto: what a model thinks is no part of a chat's content, but its reasoning_content, where its chat "
                 "template has marks for it; none: answers are what the model writes")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "none"}));
  app.add_option("--kv_cache_tokens", settings.kv_cache_tokens,
                 "tokens that the KV cache holds (0: as many as the free memory allows; see docs/serving.md)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--kv_cache_memory", settings.kv_cache_memory, "the same in bytes; counts before --kv_cache_tokens")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--max_num_seqs", settings.max_num_seqs, "sequences that run at once")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--num_speculative_tokens", settings.num_speculative_tokens,
                 "tokens guessed by prompt lookup beside each decoded one where few sequences run; the same answers")
      ->capture_default_str()
      ->check(CLI::Range(0, 64));
  app.add_option("--max_num_batched_tokens", settings.max_num_batched_tokens, "tokens of one step")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
}

void add_server_flags(CLI::App& app, ServeSettings& settings) {
  http::ServerOptions& server = settings.server;
  app.add_option("--host", server.host, "the IP address to listen on")->capture_default_str();
  app.add_option("--port", server.port, "the port to listen on (0: one that is free)")->capture_default_str();
  app.add_option("--http_threads", server.threads, "threads that read requests and write answers")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  app.add_option("--max_connections", server.max_connections, "connections at once; more wait")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--max_body_bytes", server.max_body_bytes, "of a request; beyond: 413")->capture_default_str();
  app.add_option("--max_stream_bytes", server.max_stream_bytes,
                 "that a slow reader may leave unread before its stream is ended")
      ->capture_default_str();
  app.add_option("--request_timeout", server.request_timeout, "seconds from a request's first byte to its last")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 86400.0));
  app.add_option("--tls_cert", server.tls_cert, "PEM file of the certificate and its chain");
  app.add_option("--tls_key", server.tls_key, "PEM file of its private key");
  app.add_option("--max_waiting", settings.engine_limits.max_waiting,
                 "sequences that may wait for their first token; beyond: 429")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--stall_timeout", settings.engine_limits.stall_seconds,
                 "seconds of one step after which /health says 503")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--shutdown_timeout", settings.shutdown_timeout,
                 "seconds that SIGTERM leaves to answers under way; the rest ends with an error event")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
}

void add_access_flags(CLI::App& app, ServeSettings& settings) {
  app.add_option(
         "--api_key", settings.access.keys,
         "a key that requests must bring (repeatable; other users of this machine can see it: rather --api_keys)")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--api_keys", settings.access.keys_file,
                 "file of lines KEY NAME user|admin [requests per minute]; read again on SIGHUP");
  app.add_option("--rate_limit", settings.access.requests_per_minute,
                 "requests per minute of a key that names no limit of its own (0: any number)")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--audit_log", settings.audit_log, "file to which a line of JSON is added for each request");
  app.add_flag("--audit_text", settings.audit_text, "with the prompts' text");
}

}  // namespace

void add_serve_settings(CLI::App& app, ServeSettings& settings) {
  add_model_flags(app, settings);
  add_server_flags(app, settings);
  add_access_flags(app, settings);
  cli::add_common_options(app, settings.common);
}

}  // namespace lathe::programs
