// A reward from a program in any language: JSON Lines over pipes. For each completion the program reads one line,
//
//   {"prompt": …, "completion": …, "completion_ids": […], every other column of the row}
//
// with prompt and completion as texts or as lists of messages, as the row's prompt is, and writes one line, in order: a
// number, null where it has nothing to say, or {"reward": either}. It is started once, by the shell, and kept; its
// standard error is the run's. Its input ends when the run does.
#pragma once

#include <sys/types.h>
#include <string>

#include "train/grpo/rewards/reward.h"

namespace lathe::train {

class RewardProcess {
 public:
  // Nothing is started yet. `timeout_seconds`: how long an answer may take.
  RewardProcess(std::string command, double timeout_seconds);
  ~RewardProcess();
  RewardProcess(const RewardProcess&) = delete;
  RewardProcess& operator=(const RewardProcess&) = delete;

  // Throws FormatError that names the row whose answer is malformed, missing or late, or the end of the program with
  // its exit code or signal. The program is stopped then, and started anew by the next call.
  Rewards score(std::span<const ScoredCompletion> completions);

 private:
  void start();
  void stop();
  bool take_answers(std::span<const ScoredCompletion> completions, Rewards& rewards);
  [[noreturn]] void fail(const ScoredCompletion& completion, const std::string& reason);
  std::string how_it_ended();

  std::string command_;
  double timeout_seconds_;
  pid_t process_ = -1;
  int to_ = -1, from_ = -1;
  std::string answers_;  // read, and not yet taken
};

}  // namespace lathe::train
