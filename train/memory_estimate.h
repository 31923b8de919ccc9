// What a run will train and hold at its peak, computed from the config before a weight is read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/memory.h"
#include "nn/config.h"
#include "nn/quantization.h"
#include "nn/weights/peft.h"
#include "train/reference_model.h"
#include "train/settings/training_settings.h"
#include "train/training_set.h"

namespace lathe::train {

struct MemoryLine {
  MemoryTag tag;
  int64_t bytes = 0;
  std::string reason;  // "134.5 M weights in bf16"
};

struct MemoryEstimate {
  std::vector<MemoryLine> lines;
  int64_t total_bytes() const;
  std::string table() const;
};

// What of a run shapes its memory, beside the model and the adapter.
struct RunShape {
  DType dtype = DType::f32;  // computed in
  Device device = {};
  std::optional<nn::Quantization> quantization = {};  // of the layers' frozen linears
  int64_t forward_tokens = 0;                         // of the largest forward
  bool gradient_checkpointing = false;
  OptimizerKind optimizer = OptimizerKind::adamw;
  bool new_adapter = true;                        // or one that is trained further
  std::optional<FollowsTheModel> reference = {};  // a second model, where there is one
};

// `lora` is null for full fine-tuning.
MemoryEstimate estimate_memory(const nn::ModelConfig& model, const nn::LoraConfig* lora, const RunShape& run);

// What a device's allocator keeps beside the most that was alive: core/caching_allocator.cpp keeps an eighth of it, and
// 16 MiB at least.
int64_t largest_cache(int64_t total);

struct ParameterCounts {
  int64_t trainable = 0, all = 0;  // the adapter's among all
  // As PEFT's print_trainable_parameters() has it: "trainable params: 3,407,872 || all params: …".
  std::string text() const;
};
ParameterCounts trainable_parameters(const nn::ModelConfig& model, const nn::LoraConfig* lora);

// The tokens of the largest forward that cutting by batch size and max_tokens_per_forward can give.
int64_t largest_forward_tokens(const TrainingSet& set, const TrainingSettings& config);

// A sentence, a table and what needs less, where the estimate is more than the device has left (the machine or its
// control group, for the cpu); otherwise nothing.
std::string lack_of_memory(const MemoryEstimate& estimate, Device device = {});
// ResourceError with it.
void expect_fits(const MemoryEstimate& estimate, Device device = {});

}  // namespace lathe::train
