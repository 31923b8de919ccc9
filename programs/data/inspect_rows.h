// The first rows of shards, or of raw rows of any kind, as training sees them.
#pragma once

#include <memory>
#include <string>

#include "data/chat_template/chat_template.h"
#include "data/readers/row_part.h"
#include "programs/data/sft_row_options.h"

namespace lathe::programs {

struct InspectedRows {
  std::string file;  // rows, or a folder of shards
  std::string kind;  // of raw rows: "sft", "preference", "prompt"
  int64_t rows = 3;  // that are shown
  bool json = false;
  data::RowPart part;
};

// ConfigError for shards of another tokenizer than the model's.
void inspect_rows(const InspectedRows& inspected, const SftRowOptions& options, const std::string& chat_template);

// From a Jinja file, or the model's own where no file is named.
std::shared_ptr<const data::ChatTemplate> chat_template_of(const std::string& file, const data::Tokenizer& tokenizer);

}  // namespace lathe::programs
