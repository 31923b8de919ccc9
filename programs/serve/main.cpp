// lathe-serve: a model for OpenAI's clients.
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <ctime>

#include "core/digits.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/cuda/runtime.h"
#include "nn/weights/peft.h"
#include "programs/cli/messages.h"
#include "programs/serve/settings.h"
#include "serve/engine/cache_size.h"
#include "serve/http/service.h"

namespace lathe::programs {
namespace {

using http::Clock;

http::LoadedModel load(const ServeSettings& settings, http::AdapterList& adapters) {
  const Clock::time_point began = Clock::now();
  const Device device = settings.common.parsed_device();
  const nn::ModelFiles files = nn::open_model_files(settings.model);
  const auto quantization = settings.quantization.wanted();
  for (const auto& warnings : {files.warnings, nn::quantization_warnings(files, quantization)})
    for (const std::string& warning : warnings) cli::print_warning(warning);
  http::LoadedModel loaded;
  loaded.text = text::load_model_text(files);
  nn::TransformerOptions transformer;
  const auto precision = nn::parse_inference_precision(settings.weights, settings.dtype, device);
  transformer.dtype = precision.dtype;
  transformer.stored_blocks = precision.stored_blocks;
  transformer.quantized_linears = nn::resolved_quantization(files, quantization);
  transformer.max_positions = settings.max_model_len;
  transformer.device = device;
  loaded.model = std::make_unique<nn::Transformer>(files.config, *files.weights, transformer);
  for (const auto& [name, folder] : settings.named_adapters()) {
    std::vector<std::string> warnings;
    const nn::PeftAdapter adapter = nn::read_peft_adapter(folder, &warnings);
    loaded.model->load_adapter(adapter, name);
    for (std::string& warning : nn::adapter_warnings(files, adapter.config, transformer.quantized_linears))
      warnings.push_back(std::move(warning));
    for (const std::string& warning : warnings) cli::print_warning(folder + ": " + warning);
    adapters.add(name, folder);
  }
  loaded.engine.tokenizer = loaded.text.tokenizer;
  loaded.engine.kv_cache_dtype = nn::parse_kv_cache_dtype(settings.kv_cache_dtype, transformer.dtype);
  if (settings.kv_cache_tokens > 0) loaded.engine.kv_cache_tokens = settings.kv_cache_tokens;
  if (settings.kv_cache_memory > 0) loaded.engine.kv_cache_memory = settings.kv_cache_memory;
  if (settings.kv_cache_tokens == 0 && settings.kv_cache_memory == 0) {
    const int64_t free_bytes = kernels::free_memory_bytes(device);
    loaded.engine.kv_cache_memory = engine::kv_cache_bytes(
        *loaded.model, loaded.engine.kv_cache_dtype.value_or(loaded.model->dtype()), settings.max_num_seqs, free_bytes);
    cli::print_note("KV cache: " + grouped_digits(*loaded.engine.kv_cache_memory >> 20) + " MiB, of " +
                    grouped_digits(free_bytes >> 20) + " MiB that are free (--kv_cache_memory)");
  }
  loaded.engine.num_speculative_tokens = settings.num_speculative_tokens;
  loaded.engine.max_sequences = settings.max_num_seqs;
  loaded.engine.max_tokens_per_step = settings.max_num_batched_tokens;
  loaded.load_ms = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began).count();
  return loaded;
}

// Signals come to the main thread alone, which waits for them: blocked before any other thread is started.
class Signals {
 public:
  Signals() {
    ::sigemptyset(&set_);
    for (const int each : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&set_, each);
    ::pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
  }
  // The next signal, or 0 when none has come in the time.
  int wait(std::chrono::milliseconds time) const {
    const timespec spec{static_cast<time_t>(time.count() / 1000), static_cast<long>(time.count() % 1000) * 1'000'000};
    return std::max(::sigtimedwait(&set_, nullptr, &spec), 0);
  }

 private:
  sigset_t set_;
};

void allow_many_descriptors() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

void reload_keys(http::Access& access) {
  try {
    access.reload();
    cli::print_note("the API keys were read again");
  } catch (const Error& error) {
    cli::print_warning(std::string(error.what()) + "; the keys from before stay");
  }
}

bool wait_for_load(const Signals& signals, const http::EngineThread& engine, int& signal) {
  const auto loaded = engine.loaded();
  while (loaded.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    signal = signals.wait(std::chrono::milliseconds(20));
    if (signal == SIGINT || signal == SIGTERM) return false;
  }
  loaded.get();  // throws what loading threw
  return true;
}

// How long a step that was under way at the end may take.
constexpr std::chrono::seconds patience_with_a_step(10);

// What is under way may end within the time; then the rest is told.
void drain(const ServeSettings& settings, const Signals& signals, http::Service& service, http::Server& server,
           http::EngineThread& engine) {
  cli::print_note("shutting down; a second signal ends at once");
  service.drain();
  server.drain();
  const auto deadline = Clock::now() + std::chrono::duration<double>(settings.shutdown_timeout);
  while (server.open_connections() > 0 && Clock::now() < deadline) {
    const int signal = signals.wait(std::chrono::milliseconds(50));
    if (signal == SIGINT || signal == SIGTERM) break;
  }
  if (!engine.stop_within(http::ApiError(503, "the server is shutting down"), patience_with_a_step)) {
    cli::print_warning("the engine has not come back for " + std::to_string(patience_with_a_step.count()) +
                       " s after the end; leaving with what it does unfinished");
    std::_Exit(1);  // whatever is destroyed would wait for it
  }
  const auto farewell = Clock::now() + std::chrono::seconds(2);
  while (server.open_connections() > 0 && Clock::now() < farewell) signals.wait(std::chrono::milliseconds(20));
}

void serve(const ServeSettings& settings) {
  const Signals signals;
  allow_many_descriptors();
  if (settings.common.threads > 0) set_thread_count(settings.common.threads);
  settings.named_adapters();  // what is wrong with them is said before anything is loaded
  http::Metrics metrics(settings.model_name());
  http::Access access(settings.access);
  http::AuditLog audit(settings.audit_log, settings.audit_text);
  http::AdapterList adapters;
  http::EngineThread engine([&] { return load(settings, adapters); }, settings.engine_limits, metrics);
  http::Service service({settings.model_name(), settings.model, settings.adapter_root, std::time(nullptr),
                         settings.reasoning_format == "auto"},
                        engine, metrics, adapters, access, audit);
  http::Server server(settings.server, [&](const auto& exchange) { service.handle(exchange); });
  if (!http::is_loopback(settings.server.host) && !access.has_keys())
    cli::print_warning("this server can be reached from other machines, and asks nobody for a key: see --api_keys");
  cli::print_note("lathe-serve listens on " + server.url());
  int signal = 0;
  if (wait_for_load(signals, engine, signal)) {
    cli::print_note("loaded " + settings.model_name() + " in " + std::to_string(engine.model()->load_ms) + " ms");
    while (signal != SIGINT && signal != SIGTERM) {
      signal = signals.wait(std::chrono::hours(1));
      if (signal == SIGHUP) reload_keys(access);
    }
  }
  drain(settings, signals, service, server, engine);
}

}  // namespace
}  // namespace lathe::programs

int main(int argc, char** argv) {
  auto settings = std::make_shared<lathe::programs::ServeSettings>();
  return lathe::cli::run_program(
      argc, argv, "lathe-serve",
      "Serves a model to OpenAI's clients (/v1/chat/completions, …) and to a browser (/). MODEL is a .gguf file or a "
      "Hugging Face directory.",
      [&](CLI::App& app) {
        app.require_subcommand(0);
        lathe::programs::add_serve_settings(app, *settings);
        app.callback([&] { lathe::programs::serve(*settings); });
        app.footer(
            "Examples:\n"
            "  lathe-serve model.gguf\n"
            "  lathe-serve model.gguf --adapter extract=runs/extract --port 8000\n"
            "  curl localhost:8080/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}'\n"
            "docs/serving.md has the endpoints and what is promised of them.");
      });
}
