#include "nn/linear_each.h"

#include <algorithm>

#include "autograd/ops/linear_each.h"
#include "autograd/recording.h"

namespace lathe::nn {

bool is_alone(const Linear& linear, const BatchRows& rows) {
  return !autograd::grad_enabled() &&
         std::none_of(rows.adapters.begin(), rows.adapters.end(),
                      [&](const AdapterRun& run) { return linear.lora.contains(run.adapter); });
}

std::vector<autograd::Variable> multiply_each(const std::vector<Linear>& linears, const autograd::Variable& x,
                                              const BatchRows& rows) {
  if (std::all_of(linears.begin(), linears.end(), [&](const Linear& linear) { return is_alone(linear, rows); })) {
    std::vector<autograd::UnrecordedLinear> alone;
    alone.reserve(linears.size());
    for (const Linear& linear : linears) alone.push_back({linear.weight, linear.bias.value()});
    return autograd::linear_each(x, alone);
  }
  std::vector<autograd::Variable> each;
  each.reserve(linears.size());
  for (const Linear& linear : linears) each.push_back(linear(x, rows));
  return each;
}

}  // namespace lathe::nn
