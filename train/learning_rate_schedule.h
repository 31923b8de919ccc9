// The learning rate over a run, as transformers' get_scheduler gives it.
//
//   warmup (but for constant):  step / max(1, warmup)                        while step < warmup
//   linear                      (total − step) / max(1, total − warmup)
//   cosine                      ½ (1 + cos(π · (step − warmup) / max(1, total − warmup)))
//   constant, constant_with_warmup   1
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace lathe::train {

enum class Schedule { linear, cosine, constant, constant_with_warmup };

std::optional<Schedule> parse_schedule(std::string_view name);  // transformers' names

struct LearningRateSchedule {
  Schedule schedule = Schedule::linear;
  double peak = 0;
  int64_t warmup_steps = 0;
  int64_t total_steps = 0;

  // Of the optimiser step with this number, counted from 0; never below 0.
  double rate(int64_t step) const;
};

}  // namespace lathe::train
