#include "train/grpo/rewards/reward_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"

namespace lathe::train {
namespace {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr size_t longest_answer_bytes = 1 << 20;
constexpr int grace_ms = 2000;  // from the end of the program's input to its end

std::string line_of(const ScoredCompletion& completion) {
  ordered_json line = {{"prompt", completion.row->prompt}};
  if (completion.row->is_chat()) {
    line["completion"] = ordered_json::array({{{"role", "assistant"}, {"content", completion.text}}});
  } else {
    line["completion"] = completion.text;
  }
  line["completion_ids"] = completion.ids;
  for (const auto& [name, value] : completion.row->columns.items()) line[name] = value;
  return line.dump() + "\n";
}

// The number of an answer, nothing for null. Error with the reason alone.
std::optional<double> reward_of(const std::string& line) {
  const auto unexpected = [&](const std::string& found) {
    return Error("expected a number, null or {\"reward\": number or null}, found " + found);
  };
  ordered_json answer;
  try {
    answer = parse_json(line, "the answer");
  } catch (const FormatError&) {
    throw unexpected("'" + line.substr(0, 80) + "'");
  }
  if (answer.is_object() && answer.contains("reward")) answer = ordered_json(answer.at("reward"));
  if (answer.is_null()) return {};
  if (!answer.is_number()) throw unexpected(json_excerpt(answer));
  return answer.get<double>();
}

// write() that gives EPIPE for a reader that is gone, where SIGPIPE would end this process.
ssize_t write_to_pipe(int descriptor, const char* data, size_t bytes) {
  sigset_t pipe_signal, before, pending;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  sigpending(&pending);
  const bool was_pending = sigismember(&pending, SIGPIPE) == 1;
  pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
  const ssize_t written = ::write(descriptor, data, bytes);
  const int reason = errno;
  if (written < 0 && reason == EPIPE && !was_pending) {
    const timespec no_time{};
    while (::sigtimedwait(&pipe_signal, nullptr, &no_time) < 0 && errno == EINTR) {
    }
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = reason;
  return written;
}

void close_if_open(int& descriptor) {
  if (descriptor >= 0) ::close(descriptor);
  descriptor = -1;
}

}  // namespace

RewardProcess::RewardProcess(std::string command, double timeout_seconds)
    : command_(std::move(command)), timeout_seconds_(timeout_seconds) {}

RewardProcess::~RewardProcess() { stop(); }

void RewardProcess::start() {
  int input[2], output[2];
  if (::pipe2(input, O_CLOEXEC) != 0) throw ResourceError(std::string("reward_command: no pipe: ") + strerror(errno));
  if (::pipe2(output, O_CLOEXEC) != 0) {
    const int reason = errno;
    ::close(input[0]);
    ::close(input[1]);
    throw ResourceError(std::string("reward_command: no pipe: ") + strerror(reason));
  }
  const char* const command = command_.c_str();
  process_ = ::fork();
  if (process_ == 0) {
    // Between fork and exec only what is safe in a process that had threads. A group of its own: Ctrl-C lets the run
    // finish its step, for which it needs the rewards.
    ::setpgid(0, 0);
    ::signal(SIGPIPE, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::dup2(input[0], STDIN_FILENO);
    ::dup2(output[1], STDOUT_FILENO);
    ::execl("/bin/sh", "sh", "-c", command, static_cast<char*>(nullptr));
    ::_exit(127);
  }
  const int reason = errno;
  ::close(input[0]);
  ::close(output[1]);
  to_ = input[1];
  from_ = output[0];
  if (process_ < 0) {
    close_if_open(to_);
    close_if_open(from_);
    throw ResourceError("reward_command: cannot start '" + command_ + "': " + strerror(reason));
  }
  ::setpgid(process_, process_);
  ::fcntl(to_, F_SETFL, O_NONBLOCK);
  ::fcntl(from_, F_SETFL, O_NONBLOCK);
}

void RewardProcess::stop() {
  close_if_open(to_);
  if (process_ > 0) {
    // Its output ends when it does: that is waited for, a while.
    const auto deadline = Clock::now() + std::chrono::milliseconds(grace_ms);
    for (bool open = from_ >= 0; open;) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
      pollfd waited{from_, POLLIN, 0};
      if (left <= 0 || ::poll(&waited, 1, static_cast<int>(left)) <= 0) break;
      char ignored[4096];
      const ssize_t got = ::read(from_, ignored, sizeof ignored);
      open = got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
    }
    ::kill(-process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }
  process_ = -1;
  close_if_open(from_);
  answers_.clear();
}

// Call once its output has ended. A program that ends does so a moment after its output.
std::string RewardProcess::how_it_ended() {
  close_if_open(to_);
  int status = 0;
  pid_t ended = 0;
  const auto deadline = Clock::now() + std::chrono::milliseconds(grace_ms);
  while ((ended = ::waitpid(process_, &status, WNOHANG)) == 0 && Clock::now() < deadline) ::poll(nullptr, 0, 1);
  if (ended != process_) return "it closed its output";
  process_ = -1;
  if (WIFSIGNALED(status)) return "it was ended by signal " + std::to_string(WTERMSIG(status));
  if (WEXITSTATUS(status) == 127) return "it ended with exit code 127 (no such program?)";
  return "it ended with exit code " + std::to_string(WEXITSTATUS(status));
}

void RewardProcess::fail(const ScoredCompletion& completion, const std::string& reason) {
  stop();
  throw FormatError(where_of(*completion.row), -1, "the reward of '" + command_ + "': " + reason);
}

bool RewardProcess::take_answers(std::span<const ScoredCompletion> completions, Rewards& rewards) {
  const size_t before = rewards.size();
  for (size_t end; (end = answers_.find('\n')) != std::string::npos;) {
    const std::string line = answers_.substr(0, end);
    answers_.erase(0, end + 1);
    if (rewards.size() == completions.size())
      fail(completions.back(), "it wrote more lines than the " + std::to_string(completions.size()) +
                                   " that it was asked for; one line for each completion");
    try {
      rewards.push_back(reward_of(line));
    } catch (const Error& error) {
      fail(completions[rewards.size()], error.what());
    }
  }
  if (answers_.size() > longest_answer_bytes) fail(completions[rewards.size()], "an answer without an end of line");
  return rewards.size() > before;
}

Rewards RewardProcess::score(std::span<const ScoredCompletion> completions) {
  Rewards rewards;
  if (completions.empty()) return rewards;
  if (process_ < 0) start();
  std::string lines;
  for (const ScoredCompletion& completion : completions) lines += line_of(completion);
  size_t written = 0;
  const auto allowed = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_seconds_));
  auto deadline = Clock::now() + allowed;
  while (rewards.size() < completions.size()) {
    const ScoredCompletion& next = completions[rewards.size()];
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0)
      fail(next, "no answer within reward_timeout, " + std::to_string(static_cast<int64_t>(timeout_seconds_)) +
                     " seconds (does it flush its output after each line?)");
    pollfd waited[2] = {{from_, POLLIN, 0}, {written < lines.size() ? to_ : -1, POLLOUT, 0}};
    ::poll(waited, 2, static_cast<int>(std::min<int64_t>(left, 1 << 30)));
    if ((waited[1].revents & (POLLOUT | POLLERR)) != 0) {
      const ssize_t count = write_to_pipe(to_, lines.data() + written, lines.size() - written);
      if (count > 0) written += static_cast<size_t>(count);
      if (count < 0 && errno == EPIPE) written = lines.size();  // its end shows on the other pipe
    }
    if ((waited[0].revents & (POLLIN | POLLHUP)) == 0) continue;
    char buffer[65536];
    const ssize_t got = ::read(from_, buffer, sizeof buffer);
    if (got > 0) {
      answers_.append(buffer, static_cast<size_t>(got));
      if (take_answers(completions, rewards)) deadline = Clock::now() + allowed;
    } else if (got == 0) {
      fail(next, how_it_ended() + " and answered " + std::to_string(rewards.size()) + " of " +
                     std::to_string(completions.size()) + " completions");
    }
  }
  return rewards;
}

}  // namespace lathe::train
