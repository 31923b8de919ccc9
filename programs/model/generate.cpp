// lathe-model generate: one prompt, its answer as it comes.
#include <fmt/format.h>

#include <chrono>
#include <iostream>
#include <iterator>
#include <memory>

#include "core/error.h"
#include "core/json_value.h"
#include "programs/cli/session.h"
#include "programs/model/commands.h"
#include "serve/engine/engine.h"

namespace lathe::programs {
namespace {

using Clock = std::chrono::steady_clock;

struct GenerateOptions {
  cli::ModelOptions model;
  kernels::SamplingParams sampling;
  int64_t max_tokens = 256;
  std::string prompt, system;
  bool raw = false, parse_special = false, quiet = false;
};

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::vector<int32_t> encode_prompt(const cli::Session& session, const GenerateOptions& options) {
  if (options.raw)
    return session.text.tokenizer->encode(
        options.prompt, options.parse_special ? data::SpecialTokens::recognise : data::SpecialTokens::as_text,
        data::SequenceTokens::add);
  if (!session.text.chat_template) throw ConfigError("chat template", "the model has none; --raw continues plain text");
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  if (!options.system.empty()) messages.push_back({{"role", "system"}, {"content", options.system}});
  messages.push_back({{"role", "user"}, {"content", options.prompt}});
  return session.text.encode_chat(messages);
}

struct Timing {
  double first_token = 0, end = 0;    // seconds since the program's command began
  double prompt = 0, first_step = 0;  // seconds for rendering and encoding it, and from there to the first token
  size_t prompt_tokens = 0, tokens = 0;
  engine::GraphCounts graphs;
};

void print_json(const std::string& text, const engine::Completion& completion, const Timing& timing,
                const cli::Session& session) {
  const cli::OpeningTimes& opening = session.opening;
  nlohmann::ordered_json result = {{"text", text},
                                   {"tokens", completion.tokens},
                                   {"logprobs", completion.logprobs},
                                   {"finish_reason", engine::name_of(completion.finish_reason)},
                                   {"prompt_tokens", timing.prompt_tokens},
                                   {"weights", session.weights.kind},
                                   {"file_formats", session.weights.file_formats},
                                   {"first_token_seconds", timing.first_token},
                                   {"before_first_token",
                                    {{"files_seconds", opening.files},
                                     {"tokenizer_seconds", opening.tokenizer},
                                     {"weights_seconds", opening.weights},
                                     {"prompt_seconds", timing.prompt},
                                     {"first_step_seconds", timing.first_step}}},
                                   {"total_seconds", timing.end}};
  if (session.model->device().kind != DeviceKind::cpu)
    result["decode_graphs"] = {{"captured", timing.graphs.captured}, {"replayed", timing.graphs.replayed}};
  fmt::print("{}\n", result.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

void print_summary(const Timing& timing, Device device) {
  const double decoding = timing.end - timing.first_token;
  fmt::print(stderr, "\n{} prompt tokens, first token after {:.0f} ms from the start", timing.prompt_tokens,
             timing.first_token * 1e3);
  if (timing.tokens > 1)
    fmt::print(stderr, ", then {:.1f} tokens/s", static_cast<double>(timing.tokens - 1) / decoding);
  if (device.kind != DeviceKind::cpu)
    fmt::print(stderr, "\ndecoding: {} graphs captured, {} replayed", timing.graphs.captured, timing.graphs.replayed);
  fmt::print(stderr, "\n{}", memory_table(device));
}

void run(GenerateOptions options, Clock::time_point start) {
  if (options.prompt == "-") options.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
  if (options.prompt.empty()) throw ConfigError("prompt", "is empty");
  const cli::Session session = cli::Session::open(options.model);
  const bool json = options.model.common.json;
  Timing timing;
  const auto opened = Clock::now();
  std::vector<int32_t> prompt = encode_prompt(session, options);
  timing.prompt = seconds_since(opened);
  const auto generating = Clock::now();
  timing.prompt_tokens = prompt.size();
  data::StreamDecoder decoder(session.text.tokenizer);
  const auto completions = engine::generate(
      *session.model, {session.request(std::move(prompt), options.sampling, options.max_tokens)}, session.engine,
      [&](const engine::TokenOutput& output) {
        if (timing.tokens++ == 0) {
          timing.first_token = seconds_since(start);
          timing.first_step = seconds_since(generating);
        }
        if (json || output.finish_reason == engine::FinishReason::stop) return;
        fmt::print("{}", decoder.push(output.token));
        std::fflush(stdout);
      },
      &timing.graphs);
  timing.end = seconds_since(start);
  if (json) {
    print_json(session.text.tokenizer->decode(completions[0].tokens, true), completions[0], timing, session);
    return;
  }
  fmt::print("{}\n", decoder.finish());
  std::fflush(stdout);
  if (!options.quiet) print_summary(timing, session.model->device());
}

}  // namespace

void add_generate(CLI::App& app) {
  const auto start = Clock::now();
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app.add_subcommand("generate", "answer one prompt, printing tokens as they come");
  cli::add_model_options(*command, options->model);
  command->add_option("--prompt,-p", options->prompt, "what to answer; '-' reads standard input")->required();
  command->add_option("--system", options->system, "system message in front of it");
  CLI::Option* raw =
      command->add_flag("--raw", options->raw,
                        "continue the prompt as plain text, without the chat template; control tokens in it, such as "
                        "<|im_start|>, are text");
  command
      ->add_flag("--parse_special", options->parse_special,
                 "with --raw: control tokens that are written in the prompt are these tokens")
      ->needs(raw);
  command->add_flag("--quiet,-q", options->quiet, "print nothing but the answer");
  cli::add_sampling_options(*command, options->sampling, options->max_tokens);
  command->callback([options, start] { run(*options, start); });
}

}  // namespace lathe::programs
