// Flags of how rows become tokens and labels, which lathe-train sft has too, under the same names.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "data/rows/sft_rows.h"

namespace lathe::programs {

struct SftRowOptions {
  std::string model, dataset_text_field = "text", truncation_mode = "keep_start", completion_only_loss = "auto",
                     packing_strategy = "bfd";
  int64_t max_length = 1024;
  bool assistant_only_loss = false, packing = false;

  data::SftOptions parsed(int64_t vocab_size) const;
};

// --model and the rest. The options must outlive the command.
void add_sft_row_options(CLI::App& command, SftRowOptions& options);

// --kind sft|preference|prompt.
void add_kind_option(CLI::App& command, std::string& kind);

}  // namespace lathe::programs
