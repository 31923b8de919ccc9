// The rows of Arrow's IPC stream and file formats as JSON objects: what the datasets library's save_to_disk and caches
// are. Dictionaries and buffers packed with zstd are read; LZ4 is refused.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "data/readers/arrow/batch.h"
#include "data/readers/row_source.h"

namespace lathe::data {

class ArrowRows final : public RowSource {
 public:
  // FormatError for a stream that is broken, cut short or has columns that rows of text cannot have.
  ArrowRows(std::string name, std::unique_ptr<ByteStream> stream, int64_t max_row_bytes);

  std::optional<TextLine> next() override;
  const std::string& name() const override { return name_; }
  SourceBytes source() const override { return stream_->source(); }
  bool is_arrow() const override { return true; }

 private:
  bool next_batch();
  std::vector<std::byte> read(uint64_t bytes, const char* what);
  void read_to_end();

  std::string name_;
  std::unique_ptr<ByteStream> stream_;
  int64_t max_row_bytes_;
  arrow::Schema schema_;
  std::map<int64_t, std::vector<arrow::Field>> dictionary_fields_;
  arrow::Dictionaries dictionaries_;
  std::shared_ptr<const arrow::Batch> batch_;
  int64_t row_ = 0, rows_before_ = 0;
  std::string json_;
  bool ended_ = false;
};

}  // namespace lathe::data
