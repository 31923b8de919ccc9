#include "data/readers/arrow/arrow_rows.h"

#include <algorithm>

namespace lathe::data {
namespace {

using arrow::FlatTable;

constexpr std::string_view file_magic = "ARROW1";
constexpr uint32_t continuation = 0xFFFFFFFF;
constexpr uint64_t most_metadata_bytes = uint64_t{64} << 20, most_body_bytes = uint64_t{4} << 30;
constexpr uint8_t schema_message = 1, dictionary_message = 2, batch_message = 3;
constexpr int16_t oldest_metadata = 3;  // V4, of Arrow 0.8

}  // namespace

ArrowRows::ArrowRows(std::string name, std::unique_ptr<ByteStream> stream, int64_t max_row_bytes)
    : name_(std::move(name)), stream_(std::move(stream)), max_row_bytes_(max_row_bytes) {
  // A file is a stream between two marks; what follows its end says where batches lie: not needed by who reads all.
  std::vector<std::byte> first = read(8, "its first bytes");
  if (std::equal(file_magic.begin(), file_magic.end(), reinterpret_cast<const char*>(first.data())))
    first = read(8, "its first message");
  const auto mark = FlatTable::load<uint32_t>(first, 0);
  if (mark != continuation)
    throw FormatError(name_, 0,
                      "is Arrow of a version before 0.15, or no Arrow at all; write it again with a newer one");
  const auto size = FlatTable::load<uint32_t>(first, 4);
  const std::vector<std::byte> metadata = read(std::min<uint64_t>(size, most_metadata_bytes), "its schema");
  try {
    const FlatTable message = FlatTable::root(metadata);
    const std::optional<FlatTable> schema = message.table(2);
    if (message.number<int16_t>(0, 0) < oldest_metadata || message.number<uint8_t>(1, 0) != schema_message || !schema)
      throw Error("its first message is no schema");
    schema_ = arrow::schema_of(*schema);
    for (const auto& [id, field] : schema_.dictionaries) dictionary_fields_[id] = {field};
  } catch (const FormatError&) {
    throw;
  } catch (const Error& error) {
    throw FormatError(name_, -1, std::string("this Arrow data cannot be read: ") + error.what());
  }
}

// As the bytes come: what a length says is not believed before.
std::vector<std::byte> ArrowRows::read(uint64_t bytes, const char* what) {
  constexpr uint64_t step = uint64_t{16} << 20;
  std::vector<std::byte> result;
  while (result.size() < bytes) {
    const size_t begin = result.size();
    result.resize(begin + std::min(step, bytes - begin));
    for (size_t at = begin; at < result.size();) {
      const size_t count = stream_->read(std::span(reinterpret_cast<char*>(result.data()) + at, result.size() - at));
      if (count == 0)
        throw FormatError(name_, stream_->source().bytes,
                          std::string("this Arrow data ends within ") + what + ": it was cut short; copy it again");
      at += count;
    }
  }
  return result;
}

void ArrowRows::read_to_end() {
  std::vector<char> rest(1 << 16);
  while (stream_->read(rest) > 0) {
  }
  ended_ = true;
}

bool ArrowRows::next_batch() {
  while (!ended_) {
    const std::vector<std::byte> prefix = read(8, "a message (its end mark is missing)");
    const auto size = FlatTable::load<uint32_t>(prefix, 4);
    if (FlatTable::load<uint32_t>(prefix, 0) != continuation)
      throw FormatError(name_, stream_->source().bytes, "this Arrow data has no message where one should begin");
    if (size == 0) {
      read_to_end();
      break;
    }
    if (size > most_metadata_bytes) throw FormatError(name_, -1, "a message's metadata is too large to be any");
    const std::vector<std::byte> metadata = read(size, "a message's metadata");
    const FlatTable message = FlatTable::root(metadata);
    const auto type = message.number<uint8_t>(1, 0);
    const auto body_bytes = message.number<int64_t>(3, 0);
    if (body_bytes < 0 || static_cast<uint64_t>(body_bytes) > most_body_bytes)
      throw Error("a batch says that it has " + std::to_string(body_bytes) + " bytes; 4 GiB are the most");
    std::vector<std::byte> body = read(static_cast<uint64_t>(body_bytes), "a batch");
    const std::optional<FlatTable> header = message.table(2);
    if (!header || (type != dictionary_message && type != batch_message))
      throw Error("it has a message of type " + std::to_string(type) + " among its batches");
    if (type == batch_message) {
      batch_ = arrow::batch_of(*header, std::move(body), schema_.columns, dictionaries_);
      return true;
    }
    const auto id = header->number<int64_t>(0, 0);
    const std::optional<FlatTable> values = header->table(1);
    const auto fields = dictionary_fields_.find(id);
    if (!values || fields == dictionary_fields_.end()) throw Error("it has a dictionary that no column uses");
    if (header->number<uint8_t>(2, 0) != 0)
      throw Error("its dictionaries grow by deltas, which are not read; write it without them");
    dictionaries_[id] = arrow::batch_of(*values, std::move(body), fields->second, dictionaries_);
  }
  return false;
}

std::optional<TextLine> ArrowRows::next() {
  try {
    while (!batch_ || row_ == batch_->rows) {
      if (batch_) rows_before_ += batch_->rows;
      batch_.reset();
      row_ = 0;
      if (!next_batch()) return std::nullopt;
    }
    json_.clear();
    arrow::append_row(json_, *batch_, row_, max_row_bytes_);
  } catch (const FormatError&) {
    throw;
  } catch (const Error& error) {
    throw FormatError(
        name_, -1,
        "row " + std::to_string(rows_before_ + row_ + 1) + " of this Arrow data cannot be read: " + error.what());
  }
  ++row_;
  return TextLine{json_, rows_before_ + row_};
}

}  // namespace lathe::data
