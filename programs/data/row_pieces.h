// A sequence as a person reads it: its text in pieces, trained on or not.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/json_value.h"
#include "data/rows/sft_rows.h"
#include "data/tokenizer/tokenizer.h"

namespace lathe::programs {

struct Piece {
  std::string text;
  bool trained;
};

// Decoded in one stream, so that a character whose bytes lie on both sides of a border stays whole.
std::vector<Piece> pieces_of(const data::SftExample& example, const std::shared_ptr<const data::Tokenizer>& tokenizer);

bool colours_output();
// What says how trained tokens are marked: "green" in green, or "in «»".
std::string trained_mark(bool colour);
// Indented; on one line but where the text has line ends.
void print_pieces(const std::vector<Piece>& pieces, bool colour);
// {"tokens", "trained_tokens", "pieces", "input_ids", "labels"}.
nlohmann::ordered_json sequence_json(const data::SftExample& example,
                                     const std::shared_ptr<const data::Tokenizer>& tokenizer);

}  // namespace lathe::programs
