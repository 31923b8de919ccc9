// lathe-model chat: a conversation on the terminal.
#include <fmt/format.h>
#include <unistd.h>

#include <iostream>
#include <memory>

#include "core/error.h"
#include "core/json_value.h"
#include "programs/cli/messages.h"
#include "programs/cli/session.h"
#include "programs/model/commands.h"
#include "serve/engine/engine.h"

namespace lathe::programs {
namespace {

struct ChatCommandOptions {
  cli::ModelOptions model;
  kernels::SamplingParams sampling;
  int64_t max_tokens = 512;
  std::string system;
};

nlohmann::ordered_json opening(const std::string& system) {
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  if (!system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
  return messages;
}

// Streams the answer to standard output and returns it.
std::string answer(const cli::Session& session, const ChatCommandOptions& options,
                   const nlohmann::ordered_json& messages) {
  data::StreamDecoder decoder(session.text.tokenizer);
  std::string text;
  const auto print = [&text](const std::string& piece) {
    text += piece;
    fmt::print("{}", piece);
    std::fflush(stdout);
  };
  engine::generate(*session.model,
                   {session.request(session.text.encode_chat(messages), options.sampling, options.max_tokens)},
                   session.engine, [&](const engine::TokenOutput& output) {
                     if (output.finish_reason != engine::FinishReason::stop) print(decoder.push(output.token));
                   });
  print(decoder.finish());
  fmt::print("\n");
  return text;
}

void run(const ChatCommandOptions& options) {
  const cli::Session session = cli::Session::open(options.model);
  if (!session.text.chat_template)
    throw ConfigError("chat template",
                      "the model has none, which a conversation needs; lathe-model generate --raw "
                      "continues plain text");
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (terminal) fmt::print(stderr, "Type a message; /reset starts over, /quit or Ctrl-D ends.\n");
  nlohmann::ordered_json messages = opening(options.system);
  std::string line;
  while (true) {
    if (terminal) {
      fmt::print("> ");
      std::fflush(stdout);
    }
    if (!std::getline(std::cin, line) || line == "/quit") break;
    if (line == "/reset") {
      messages = opening(options.system);
      continue;
    }
    if (line.empty()) continue;
    messages.push_back({{"role", "user"}, {"content", line}});
    try {
      messages.push_back({{"role", "assistant"}, {"content", answer(session, options, messages)}});
    } catch (const ConfigError& error) {
      // The conversation has outgrown the context: the program goes on without the message.
      cli::print_error(std::string(error.what()) + "\n/reset starts over.");
      messages.erase(messages.size() - 1);
    }
  }
  if (terminal) fmt::print("\n");
}

}  // namespace

void add_chat(CLI::App& app) {
  auto options = std::make_shared<ChatCommandOptions>();
  CLI::App* command =
      app.add_subcommand("chat", "a conversation on the terminal (or one message for each line of a pipe)");
  cli::add_model_options(*command, options->model);
  command->add_option("--system", options->system, "system message in front of it");
  cli::add_sampling_options(*command, options->sampling, options->max_tokens);
  command->callback([options] { run(*options); });
}

}  // namespace lathe::programs
