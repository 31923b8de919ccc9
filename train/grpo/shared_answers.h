// What the processes of a run make of a draw's prompts, each of its own part, so that all of them know it of all.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "train/data_parallel.h"
#include "train/grpo/advantages.h"
#include "train/grpo/generation_batch.h"

namespace lathe::train {

struct AnsweredPrompts {
  std::vector<ScoredRollout> completions;  // without their advantages, which compare those of all processes
  std::vector<std::string> texts;          // of each
  std::vector<Rewards> rewards;            // by function
};

// `answer` gives this process's; the result is that of all processes, by rank. Where it throws StepAbandoned on any of
// them it is thrown on all, with the rank: none waits for the others in vain, and the steps before can be saved. Every
// process calls it; of one it is `answer` alone. `rows` and `vocab_size` bound what may come.
AnsweredPrompts answers_of_all(const DataParallel& parallel, const std::function<AnsweredPrompts()>& answer,
                               int64_t rows, int64_t vocab_size);

}  // namespace lathe::train
