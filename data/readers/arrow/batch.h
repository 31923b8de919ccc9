// A batch of rows of an Arrow stream: columns as they lie in the message's body, checked against its length.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "data/readers/arrow/schema.h"

namespace lathe::data::arrow {

using Bytes = std::span<const std::byte>;

struct Batch;
using Dictionaries = std::map<int64_t, std::shared_ptr<const Batch>>;  // each of one column

struct Column {
  const Field* field = nullptr;
  int64_t length = 0;
  Bytes validity;  // empty: every value is there
  Bytes values;    // numbers, bits, views, or indices into a dictionary
  Bytes offsets;   // of text, lists and maps
  Bytes text;
  std::vector<Bytes> view_buffers;
  std::vector<Column> children;
  std::shared_ptr<const Batch> dictionary;
};

struct Batch {
  std::vector<std::byte> body;
  std::list<std::vector<std::byte>> unpacked;  // buffers that were compressed
  int64_t rows = 0;
  std::vector<Column> columns;
};

// Of the RecordBatch in a message. `fields` must outlive the batch. Error with the reason for one that contradicts
// itself.
std::shared_ptr<const Batch> batch_of(const FlatTable& record_batch, std::vector<std::byte> body,
                                      const std::vector<Field>& fields, const Dictionaries& dictionaries);

// The row as a JSON object: columns and members of structs that are null are left out, as TRL does. Error above
// max_bytes.
void append_row(std::string& json, const Batch& batch, int64_t row, int64_t max_bytes);

}  // namespace lathe::data::arrow
