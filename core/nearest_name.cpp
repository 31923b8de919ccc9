#include "core/nearest_name.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace lathe {
namespace {

constexpr size_t longest = 64;  // of what is compared: beyond, nobody mistyped a name

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j)
      diagonal = std::exchange(row[j + 1], std::min({row[j] + 1, row[j + 1] + 1, diagonal + (a[i] != b[j])}));
  }
  return row[b.size()];
}

bool has_word(std::string_view name, std::string_view word) {
  return ("_" + std::string(name) + "_").find("_" + std::string(word) + "_") != std::string::npos;
}

// Of two words or more: a single one ("model") would be in too many names.
bool has_all_words(std::string_view name, std::string_view words) {
  if (words.find('_') == std::string_view::npos) return false;
  while (!words.empty()) {
    const size_t end = std::min(words.find('_'), words.size());
    if (!has_word(name, words.substr(0, end))) return false;
    words.remove_prefix(std::min(end + 1, words.size()));
  }
  return true;
}

size_t distance(std::string_view found, std::string_view name) {
  const bool begins = name.size() >= 3 && found.starts_with(name);
  const bool begun = found.size() >= 3 && name.starts_with(found);
  return begins || begun || has_all_words(name, found) ? 1 : edit_distance(found, name);
}

}  // namespace

std::string nearest_name(std::string_view found, std::span<const std::string> names) {
  std::string nearest;
  if (found.empty() || found.size() > longest) return nearest;
  size_t least = std::max<size_t>(found.size() / 2, 2) + 1;
  for (const std::string& name : names)
    if (const size_t d = distance(found, name); d < least) nearest = name, least = d;
  return nearest;
}

}  // namespace lathe
