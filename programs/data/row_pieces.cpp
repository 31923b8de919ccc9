#include "programs/data/row_pieces.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>

#include "core/printable.h"

namespace lathe::programs {
namespace {

// On one line of the page. A line end shows which side of a border it is on.
std::string one_line(const std::string& text) {
  std::string result;
  const std::string shown = printable(text);
  for (size_t i = 0; i < shown.size(); ++i) {
    if (shown[i] == '\n') {
      result += i + 1 < shown.size() ? "↵\n    " : "↵";
    } else {
      result += shown[i];
    }
  }
  return result;
}

}  // namespace

bool colours_output() { return isatty(STDOUT_FILENO) && !std::getenv("NO_COLOR"); }

std::string trained_mark(bool colour) { return colour ? "\033[32mgreen\033[0m" : "in «»"; }

std::vector<Piece> pieces_of(const data::SftExample& example, const std::shared_ptr<const data::Tokenizer>& tokenizer) {
  std::vector<Piece> pieces;
  data::StreamDecoder decoder(tokenizer, false);
  for (size_t i = 0; i < example.input_ids.size(); ++i) {
    const bool trained = i > 0 && example.labels[i] != data::ignored_label;
    if (pieces.empty() || pieces.back().trained != trained) pieces.push_back({"", trained});
    pieces.back().text += decoder.push(example.input_ids[i]);
  }
  if (!pieces.empty()) pieces.back().text += decoder.finish();
  return pieces;
}

void print_pieces(const std::vector<Piece>& pieces, bool colour) {
  fmt::print("    ");
  bool first = true, line_ended = false;
  for (const Piece& piece : pieces) {
    if (!first && line_ended) fmt::print("\n    ");
    first = false;
    line_ended = piece.text.ends_with('\n');
    if (!piece.trained) {
      fmt::print("{}", one_line(piece.text));
    } else if (colour) {
      fmt::print("\033[32m{}\033[0m", one_line(piece.text));
    } else {
      fmt::print("«{}»", one_line(piece.text));
    }
  }
  fmt::print("\n");
}

nlohmann::ordered_json sequence_json(const data::SftExample& example,
                                     const std::shared_ptr<const data::Tokenizer>& tokenizer) {
  nlohmann::ordered_json pieces = nlohmann::ordered_json::array();
  for (const Piece& piece : pieces_of(example, tokenizer))
    pieces.push_back({{"text", piece.text}, {"trained", piece.trained}});
  return {{"tokens", example.input_ids.size()},
          {"trained_tokens", data::trained_tokens(example)},
          {"pieces", pieces},
          {"input_ids", example.input_ids},
          {"labels", example.labels}};
}

}  // namespace lathe::programs
