#include "bench/serve/serve.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "bench/serve/lengths.h"
#include "bench/serve/load.h"
#include "bench/serve/plot.h"
#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json_value.h"

namespace lathe::bench {
namespace {

using Json = nlohmann::ordered_json;

struct ServeOptions {
  std::vector<std::string> urls;
  std::string prompt_tokens = "256", output_tokens = "128", lengths, plot;
  LoadOptions load;
  double ttft_ms = 0, itl_ms = 0;  // targets of the goodput; 0: none
  bool json = false;
};

// "128" or "64:256".
TokenRange parse_range(const std::string& key, const std::string& text) {
  TokenRange range;
  const size_t colon = text.find(':');
  try {
    range.least = std::stoll(text.substr(0, colon));
    range.most = colon == std::string::npos ? range.least : std::stoll(text.substr(colon + 1));
  } catch (const std::logic_error&) {
    range.least = 0;
  }
  if (range.least < 1 || range.most < range.least || range.most > 10'000'000)
    throw ConfigError(key, "expected a number of tokens, or LEAST:MOST, found " + text);
  return range;
}

void parse_url(const std::string& url, LoadOptions& load) {
  std::string rest = url;
  if (rest.starts_with("http://")) rest = rest.substr(7);
  rest = rest.substr(0, rest.find('/'));
  const size_t colon = rest.rfind(':');
  load.host = rest.substr(0, colon);
  load.port = colon == std::string::npos ? "80" : rest.substr(colon + 1);
  if (load.host.empty() || url.starts_with("https://"))
    throw ConfigError("URL", "expected http://HOST:PORT, found " + url);
}

// The value below which so large a share of them lies (nearest rank); 0 of none.
double percentile(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) return 0;
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(sorted.size())));
  return sorted[std::max<size_t>(rank, 1) - 1];
}

Json spread_ms(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  double sum = 0;
  for (const double value : seconds) sum += value;
  return {{"mean", seconds.empty() ? 0.0 : 1000 * sum / static_cast<double>(seconds.size())},
          {"p50", 1000 * percentile(seconds, 0.5)},
          {"p90", 1000 * percentile(seconds, 0.9)},
          {"p99", 1000 * percentile(seconds, 0.99)},
          {"most", seconds.empty() ? 0.0 : 1000 * seconds.back()}};
}

ServerLatencies latencies_of(const std::string& url, const LoadResult& result) {
  ServerLatencies latencies{url, {}, {}, {}};
  for (const RequestTiming& request : result.requests) {
    if (!request.error.empty()) continue;
    latencies.first_token.push_back(request.first_token - request.sent);
    latencies.last_token.push_back(request.last_token - request.sent);
    latencies.between_tokens.insert(latencies.between_tokens.end(), request.gaps.begin(), request.gaps.end());
  }
  return latencies;
}

Json summary(const ServerLatencies& latencies, const LoadResult& result, const ServeOptions& options) {
  int64_t completed = 0, prompt_tokens = 0, output_tokens = 0, good = 0;
  std::string error;
  for (const RequestTiming& request : result.requests) {
    if (!request.error.empty()) {
      error = request.error;
      continue;
    }
    ++completed;
    prompt_tokens += request.prompt_tokens;
    output_tokens += request.output_tokens;
    double mean_gap = 0;
    for (const double gap : request.gaps) mean_gap += gap / static_cast<double>(request.gaps.size());
    good += (options.ttft_ms == 0 || 1000 * (request.first_token - request.sent) <= options.ttft_ms) &&
            (options.itl_ms == 0 || 1000 * mean_gap <= options.itl_ms);
  }
  const auto per_second = [&](int64_t count) { return static_cast<double>(count) / result.seconds; };
  Json report{{"url", latencies.url},
              {"requests", result.requests.size()},
              {"completed", completed},
              {"seconds", result.seconds},
              {"requests_per_second", per_second(completed)},
              {"prompt_tokens", prompt_tokens},
              {"output_tokens", output_tokens},
              {"output_tokens_per_second", per_second(output_tokens)},
              {"total_tokens_per_second", per_second(prompt_tokens + output_tokens)},
              {"ttft_ms", spread_ms(latencies.first_token)},
              {"itl_ms", spread_ms(latencies.between_tokens)},
              {"e2e_ms", spread_ms(latencies.last_token)}};
  if (options.ttft_ms > 0 || options.itl_ms > 0) report["goodput_requests_per_second"] = per_second(good);
  if (!error.empty()) report["last_error"] = error;
  return report;
}

void print(const Json& report) {
  fmt::print("{}\n  {} of {} requests in {:.2f} s: {:.2f} requests/s, {:.1f} output tokens/s, {:.1f} tokens/s in all\n",
             report["url"].get<std::string>(), report["completed"].get<int64_t>(), report["requests"].get<int64_t>(),
             report["seconds"].get<double>(), report["requests_per_second"].get<double>(),
             report["output_tokens_per_second"].get<double>(), report["total_tokens_per_second"].get<double>());
  fmt::print("  {:<22}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "ms", "mean", "p50", "p90", "p99", "most");
  for (const auto& [key, name] : {std::pair{"ttft_ms", "to the first token"}, std::pair{"itl_ms", "between tokens"},
                                  std::pair{"e2e_ms", "to the last token"}}) {
    const Json& spread = report[key];
    fmt::print("  {:<22}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.2f}\n", name, spread["mean"].get<double>(),
               spread["p50"].get<double>(), spread["p90"].get<double>(), spread["p99"].get<double>(),
               spread["most"].get<double>());
  }
  if (report.contains("goodput_requests_per_second"))
    fmt::print("  within the targets: {:.2f} requests/s\n", report["goodput_requests_per_second"].get<double>());
  if (report.contains("last_error")) fmt::print("  last error: {}\n", report["last_error"].get<std::string>());
}

void run(ServeOptions options) {
  options.load.prompt_tokens = parse_range("prompt_tokens", options.prompt_tokens);
  options.load.output_tokens = parse_range("output_tokens", options.output_tokens);
  if (!options.lengths.empty()) options.load.lengths = read_lengths(options.lengths);
  Json reports = Json::array();
  std::vector<ServerLatencies> all;
  for (const std::string& url : options.urls) {
    parse_url(url, options.load);
    const LoadResult result = run_load(options.load);
    all.push_back(latencies_of(url, result));
    reports.push_back(summary(all.back(), result, options));
    if (!options.json) print(reports.back());
  }
  if (!options.plot.empty()) write_file_atomically(options.plot, latency_plot(all));
  if (options.json) fmt::print("{}\n", Json{{"results", reports}}.dump(2));
}

}  // namespace

void add_serve(CLI::App& app) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* command = app.add_subcommand("serve", "An OpenAI-compatible server under load: latencies and throughput");
  LoadOptions& load = options->load;
  command->add_option("URL", options->urls, "http://HOST:PORT; several are measured in turn")
      ->required()
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option(
      "--model", load.models,
      "the model's name, for servers that want one; of several, as of adapters, requests name one in turn");
  command->add_option("--api_key", load.api_key, "the key to bring");
  command->add_option("--requests", load.requests, "requests in all")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--concurrency", load.concurrency, "closed loop: requests at once")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--rate", load.rate, "open loop: arrivals per second, a Poisson process (0: closed loop)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--prompt_tokens", options->prompt_tokens, "of each prompt: N, or LEAST:MOST")
      ->capture_default_str();
  command->add_option("--output_tokens", options->output_tokens, "of each answer: N, or LEAST:MOST")
      ->capture_default_str();
  command
      ->add_option("--lengths", options->lengths,
                   "a file with the lengths of requests, which take its lines in turn: PROMPT_TOKENS OUTPUT_TOKENS")
      ->excludes("--prompt_tokens")
      ->excludes("--output_tokens");
  command->add_option("--shared_prefix", load.shared_prefix, "tokens that all prompts begin with, beside their own")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--lowest_token", load.token_ids.least, "prompts are made of ids from it")->capture_default_str();
  command->add_option("--highest_token", load.token_ids.most, "to it")->capture_default_str();
  command->add_option("--seed", load.seed, "the same seed gives the same requests")->capture_default_str();
  command->add_option("--target_ttft_ms", options->ttft_ms, "goodput counts answers whose first token came in it");
  command->add_option("--target_itl_ms", options->itl_ms, "and whose tokens came as close on average");
  command->add_option("--plot", options->plot, "write the latencies' distributions to this file, as SVG");
  command->add_flag("--json", options->json, "print results as JSON on standard output");
  command->footer(
      "Prompts are token ids, answers go on to their length (ignore_eos): any two servers of one model do the same work.\n"
      "Example: lathe-bench serve http://127.0.0.1:8080 --requests 128 --concurrency 32 --prompt_tokens 64:512");
  command->callback([options] { run(*options); });
}

}  // namespace lathe::bench
