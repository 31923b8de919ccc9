// checkpoint-N directories: all that a run needs to go on after step N as if it had never stopped.
//
//   adapter_config.json, adapter_model.safetensors   the adapter (PEFT's format), or
//   model.safetensors                                the f32 masters of every weight (full fine-tuning)
//   optimizer.safetensors                            AdamW's moments
//   objective/                                       what the objective keeps between steps, where it keeps anything
//   trainer_state.json                               step, sums since the last logged line, settings, fingerprints
//   manifest.json                                    size and hash of each file above
//
// Random numbers are keyed by (seed, step, position) and the order of rows by (seed, epoch): no generator has a state.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "nn/transformer.h"
#include "train/objective.h"
#include "train/optimizer.h"
#include "train/trainer_state.h"

namespace lathe::train {

std::filesystem::path checkpoint_path(const std::filesystem::path& output_dir, int64_t step);

// Appears whole under its name or not at all; an error leaves every older checkpoint as it was.
void save_checkpoint(const std::filesystem::path& directory, const nn::Transformer& model, const Optimizer& optimizer,
                     const Objective& objective, const TrainerState& state, const RunIdentity& identity);

// Restores masters, leaves, moments and the objective's state in place. ConfigError names the first setting (or the
// model, the dataset, the objective) in which the checkpoint was made differently; FormatError for tensors or a state
// that do not fit, such as a step beyond total_steps or another than the folder's name says. Nothing is restored then
// unless a tensor is at fault.
TrainerState load_checkpoint(const std::filesystem::path& directory, Optimizer& optimizer, Objective& objective,
                             const RunIdentity& identity, int64_t total_steps);

struct FoundCheckpoint {
  std::optional<std::filesystem::path> path;  // the newest whole one
  std::vector<std::string> skipped;           // newer ones: name and reason
};
FoundCheckpoint find_checkpoint(const std::filesystem::path& output_dir);

// Keeps the `limit` newest (0: all) of the checkpoints up to `newest`, which was just saved. Later ones, left by an
// earlier run that got further, are not counted: they might be the broken ones that this run passed over.
void remove_old_checkpoints(const std::filesystem::path& output_dir, int64_t limit, int64_t newest);
// The steps of the checkpoints in the folder, ascending.
std::vector<int64_t> list_checkpoints(const std::filesystem::path& output_dir);

}  // namespace lathe::train
