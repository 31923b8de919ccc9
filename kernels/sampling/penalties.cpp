#include "kernels/sampling/penalties.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace lathe::kernels {

bool has_penalties(const SamplingParams& params) {
  return params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f;
}

std::vector<Penalty> penalties_of(const SamplingRow& row, int64_t vocabulary) {
  const SamplingParams& params = row.params;
  if (!has_penalties(params)) return {};
  const bool repetition = params.repetition_penalty != 1.0f;
  std::vector<int32_t> output(row.output_tokens.begin(), row.output_tokens.end());
  std::sort(output.begin(), output.end());
  std::vector<int32_t> seen = output;
  if (repetition) {
    seen.insert(seen.end(), row.prompt_tokens.begin(), row.prompt_tokens.end());
    std::sort(seen.begin(), seen.end());
  }
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  std::vector<Penalty> penalties;
  for (int32_t token : seen) {
    if (token < 0 || token >= vocabulary) {
      throw ShapeError("sample: a token of the prompt or output expects 0 ≤ id < " + std::to_string(vocabulary) +
                       ", found " + std::to_string(token));
    }
    const auto [begin, end] = std::equal_range(output.begin(), output.end(), token);
    penalties.push_back({token, static_cast<int32_t>(end - begin)});
  }
  return penalties;
}

}  // namespace lathe::kernels
