// The columns of an Arrow stream: https://arrow.apache.org/docs/format/Columnar.html, Schema.fbs and Message.fbs.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/readers/arrow/flat_table.h"

namespace lathe::data::arrow {

// What rows of text can hold, by how its values lie in memory.
enum class Kind { null, boolean, integer, floating, text, text_view, list, fixed_list, structure, map };

struct Field {
  std::string name;
  Kind kind = Kind::null;
  int bytes = 0;           // of an integer or a floating-point number, and of offsets of text, lists and maps
  bool is_signed = false;  // of an integer
  int64_t list_size = 0;   // of a fixed list
  std::vector<Field> children;
  std::optional<int64_t>
      dictionary;  // its values are this dictionary's, and lie as integers (index_*) that count in it
  int index_bytes = 0;
  bool index_is_signed = false;
};

struct Schema {
  std::vector<Field> columns;
  std::map<int64_t, Field> dictionaries;  // the values of each
};

// Error with the reason for columns that rows of text cannot have (binary, decimal, union, …) and for metadata that is
// broken.
Schema schema_of(const FlatTable& schema);

}  // namespace lathe::data::arrow
