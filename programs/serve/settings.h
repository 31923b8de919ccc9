// What lathe-serve is told on its command line.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "programs/cli/program.h"
#include "programs/cli/session.h"
#include "serve/http/access.h"
#include "serve/http/engine_thread.h"
#include "serve/http/server.h"

namespace lathe::programs {

struct ServeSettings {
  cli::CommonOptions common;
  std::string model;
  std::vector<std::string> adapters;  // NAME=DIR
  std::string adapter_root, served_model_name;
  std::string dtype = "auto", weights = "file", kv_cache_dtype = "auto";
  cli::QuantizationOptions quantization;
  int64_t max_model_len = 0;
  std::string reasoning_format = "auto";
  int64_t kv_cache_tokens = 0, kv_cache_memory = 0;  // 0: the engine's own
  int64_t num_speculative_tokens = 0;
  int64_t max_num_seqs = 64, max_num_batched_tokens = 512;
  http::ServerOptions server;
  http::EngineLimits engine_limits;
  http::AccessOptions access;
  std::string audit_log;
  bool audit_text = false;
  double shutdown_timeout = 30;

  // Name and folder of each --adapter. ConfigError for one that is not NAME=DIR, or a name that comes twice.
  std::vector<std::pair<std::string, std::string>> named_adapters() const;
  // --served_model_name, or the model's file or folder name.
  std::string model_name() const;
};

void add_serve_settings(CLI::App& app, ServeSettings& settings);

}  // namespace lathe::programs
