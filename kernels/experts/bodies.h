// What the bodies of experts.h read and write. Rows are tokens.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/arguments/matrix.h"
#include "kernels/experts/experts.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

struct ChooseExpertsArgs {
  DType dtype;  // f32 | bf16 | f16, of the logits
  ConstMatrix logits;
  float* weights;   // [T, k]
  int32_t* chosen;  // [T, k]
  int64_t per_token;
  ExpertWeights kind;
  const float* bias;  // null: none
  float scale;
  int64_t columns;  // experts
  int64_t row_begin, row_end;
};

struct GroupExpertsArgs {
  int32_t *slots, *tokens, *experts, *bounds;
  int64_t groups;  // places for them
};

// Many tokens are taken in chunks of so many choices, or a little less: of whole tokens.
inline constexpr int64_t group_chunk_choices = 1024;
static_assert(most_experts <= group_chunk_choices, "a token's choices are in one chunk");
struct GroupManyArgs {
  GroupExpertsArgs groups;
  int32_t* begins;        // [experts + 1]; null: not wanted
  int64_t rows;           // of a group at most
  const int32_t* chosen;  // [tokens, per_token]
  int32_t* counts;        // [chunks, experts], room for the tokens of each expert; null where there is one chunk
  int64_t tokens, per_token, experts;
  int64_t chunk_tokens, chunks;
};

struct ChooseExpertsBackwardArgs {
  DType dtype;
  Matrix grad_logits;
  ConstMatrix logits;
  const float *grad_weights, *weights;
  const int32_t* chosen;
  int64_t per_token;
  ExpertWeights kind;
  float scale;
  int64_t columns;
  int64_t row_begin, row_end;
};

struct CombineExpertsArgs {
  DType dtype;
  Matrix out;
  ConstMatrix rows;
  const int32_t* slots;
  const float* weights;  // null: ones
  ConstMatrix residual;  // may be missing
  int64_t per_token;
  int64_t columns;
  int64_t row_begin, row_end;
};

struct CombineExpertsBackwardArgs {
  DType dtype;
  Matrix grad_rows;     // may be missing
  float* grad_weights;  // may be null
  ConstMatrix grad_out, rows;
  const int32_t* slots;
  const float* weights;
  int64_t per_token;
  int64_t columns;
  int64_t row_begin, row_end;
};

// cpu.cpp: rows [row_begin, row_end).
template <Isa>
void choose_experts_rows(ChooseExpertsArgs args);
template <Isa>
void choose_experts_backward_rows(ChooseExpertsBackwardArgs args);
template <Isa>
void combine_experts_rows(CombineExpertsArgs args);
template <Isa>
void combine_experts_backward_rows(CombineExpertsBackwardArgs args);

// cuda.cu (group_many_experts: groups.cu): all rows, in the device's memory.
template <DeviceKind>
void choose_experts_rows(const ChooseExpertsArgs& args);
// `chosen` of the arguments is not used.
template <DeviceKind>
void choose_and_group_experts_rows(const ChooseExpertsArgs& args, const GroupExpertsArgs& groups);
template <DeviceKind>
void group_many_experts(const GroupManyArgs& args);
template <DeviceKind>
void choose_experts_backward_rows(const ChooseExpertsBackwardArgs& args);
template <DeviceKind>
void combine_experts_rows(const CombineExpertsArgs& args);
template <DeviceKind>
void combine_experts_backward_rows(const CombineExpertsBackwardArgs& args);

}  // namespace lathe::kernels
