// Requests to an OpenAI-compatible server: in an open loop at a rate, or in a closed one at a concurrency.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/serve/lengths.h"

namespace lathe::bench {

struct TokenRange {
  int64_t least = 1, most = 1;  // drawn evenly between them
};

struct LoadOptions {
  std::string host, port;           // of plain HTTP
  std::vector<std::string> models;  // that requests name in turn; none: the server's own
  std::string api_key;
  int64_t requests = 64;
  double rate = 0;           // per second, arriving as a Poisson process; 0: closed loop
  int64_t concurrency = 16;  // of the closed loop
  TokenRange prompt_tokens{256, 256}, output_tokens{128, 128};
  std::vector<RequestLength> lengths;  // that requests have in turn, where there are any, instead of the ranges
  int64_t shared_prefix = 0;           // tokens that all prompts begin with
  TokenRange token_ids{1000, 10'000};  // what prompts are made of
  uint64_t seed = 0;                   // prompts, lengths and arrivals follow from it
};

// Seconds since the load began.
struct RequestTiming {
  double sent = 0, first_token = 0, last_token = 0;
  std::vector<double> gaps;                      // between the pieces of the answer
  int64_t prompt_tokens = 0, output_tokens = 0;  // as the server's usage says
  std::string error;                             // empty where the answer came to its end
};

struct LoadResult {
  std::vector<RequestTiming> requests;
  double seconds = 0;
};

LoadResult run_load(const LoadOptions& options);

}  // namespace lathe::bench
