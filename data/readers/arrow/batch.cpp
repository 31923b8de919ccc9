#include "data/readers/arrow/batch.h"

#include <zstd.h>

#include <algorithm>

namespace lathe::data::arrow {
namespace {

constexpr int64_t most_rows = int64_t{1} << 31;
constexpr uint64_t most_unpacked_bytes = uint64_t{1} << 30;  // of a batch: what one made to fill memory ends at
constexpr int lz4 = 0, zstd = 1;
constexpr size_t node_bytes = 16, buffer_bytes = 16, view_bytes = 16;

class BatchReader {
 public:
  BatchReader(const FlatTable& table, Batch& batch, const Dictionaries& dictionaries)
      : batch_(batch),
        dictionaries_(dictionaries),
        nodes_(table.structs(1, node_bytes)),
        buffers_(table.structs(2, buffer_bytes)),
        view_counts_(table.structs(4, sizeof(int64_t))) {
    const std::optional<FlatTable> compression = table.table(3);
    if (!compression) return;
    const auto codec = compression->number<int8_t>(0, lz4);
    if (codec == lz4)
      throw Error("its buffers are packed with LZ4, which is not read; write it with compression zstd or none");
    if (codec != zstd)
      throw Error("its buffers are packed with codec " + std::to_string(codec) + ", which is not known");
    packed_ = true;
  }

  Column column(const Field& field) {
    Column column;
    column.field = &field;
    column.length = take<int64_t>(nodes_);
    const auto nulls = take<int64_t>(nodes_);
    if (column.length < 0 || column.length > most_rows || nulls < 0 || nulls > column.length)
      throw Error("a column has " + std::to_string(column.length) + " values, " + std::to_string(nulls) +
                  " of them null");
    const auto length = static_cast<uint64_t>(column.length);
    if (field.dictionary || field.kind != Kind::null) {
      column.validity = buffer();
      if (nulls == 0) column.validity = {};
      if (!column.validity.empty()) expect(column.validity, (length + 7) / 8);
      if (nulls > 0 && column.validity.empty()) throw Error("a column has null values and does not say which");
    }
    if (field.dictionary) {
      column.values = expect(buffer(), length * static_cast<uint64_t>(field.index_bytes));
      const auto found = dictionaries_.find(*field.dictionary);
      if (found == dictionaries_.end() && length > 0) throw Error("a column's dictionary is missing");
      if (found != dictionaries_.end()) column.dictionary = found->second;
      return column;
    }
    switch (field.kind) {
      case Kind::null: return column;
      case Kind::boolean: column.values = expect(buffer(), (length + 7) / 8); return column;
      case Kind::integer:
      case Kind::floating: column.values = expect(buffer(), length * static_cast<uint64_t>(field.bytes)); return column;
      case Kind::text:
        column.offsets = offsets(field, length);
        column.text = buffer();
        return column;
      case Kind::text_view: {
        column.values = expect(buffer(), length * view_bytes);
        const auto count = take<int64_t>(view_counts_);
        if (count < 0 || static_cast<uint64_t>(count) > buffers_.size() / buffer_bytes)
          throw Error("a column has more buffers than there are");
        for (int64_t i = 0; i < count; ++i) column.view_buffers.push_back(buffer());
        return column;
      }
      case Kind::list:
      case Kind::map: column.offsets = offsets(field, length); break;
      case Kind::fixed_list:
      case Kind::structure: break;
    }
    for (const Field& child : field.children) column.children.push_back(this->column(child));
    const int64_t needed = field.kind == Kind::structure    ? column.length
                           : field.kind == Kind::fixed_list ? column.length * field.list_size
                                                            : 0;
    for (const Column& child : column.children)
      if (child.length < needed) throw Error("a column has fewer values within than it needs");
    return column;
  }

 private:
  template <class T>
  static T take(Bytes& from) {
    if (from.size() < sizeof(T)) throw Error("a batch describes fewer columns or buffers than the schema has");
    const T value = FlatTable::load<T>(from, 0);
    from = from.subspan(sizeof(T));
    return value;
  }
  static Bytes expect(Bytes bytes, uint64_t needed) {
    if (bytes.size() < needed) throw Error("a buffer is shorter than its column");
    return bytes;
  }
  // An empty column may have no offsets at all.
  Bytes offsets(const Field& field, uint64_t length) {
    const Bytes bytes = buffer();
    return length == 0 ? bytes : expect(bytes, (length + 1) * static_cast<uint64_t>(field.bytes));
  }

  Bytes buffer() {
    const auto offset = take<int64_t>(buffers_), length = take<int64_t>(buffers_);
    const auto size = static_cast<int64_t>(batch_.body.size());
    if (offset < 0 || length < 0 || offset > size || length > size - offset)
      throw Error("a buffer lies beyond the end of its batch");
    const Bytes bytes = Bytes(batch_.body).subspan(static_cast<size_t>(offset), static_cast<size_t>(length));
    return packed_ && !bytes.empty() ? unpacked(bytes) : bytes;
  }

  // A packed buffer begins with its length, or -1 where it lies as it is.
  Bytes unpacked(Bytes bytes) {
    const auto length = FlatTable::load<int64_t>(bytes, 0);
    bytes = bytes.subspan(sizeof length);
    if (length == -1) return bytes;
    unpacked_bytes_ += static_cast<uint64_t>(length);
    if (length < 0 || unpacked_bytes_ > most_unpacked_bytes)
      throw Error("a batch unpacks to more than " + std::to_string(most_unpacked_bytes >> 30) +
                  " GiB; write it in smaller batches");
    const unsigned long long said = ZSTD_getFrameContentSize(bytes.data(), bytes.size());
    if (said != ZSTD_CONTENTSIZE_UNKNOWN && said != static_cast<uint64_t>(length))
      throw Error("a packed buffer does not have the length that it says");
    auto& out = batch_.unpacked.emplace_back(static_cast<size_t>(length));
    const size_t size = ZSTD_decompress(out.data(), out.size(), bytes.data(), bytes.size());
    if (ZSTD_isError(size) || size != out.size())
      throw Error(std::string("a packed buffer is broken") +
                  (ZSTD_isError(size) ? std::string(" (") + ZSTD_getErrorName(size) + ")" : ""));
    return out;
  }

  Batch& batch_;
  const Dictionaries& dictionaries_;
  Bytes nodes_, buffers_, view_counts_;
  uint64_t unpacked_bytes_ = 0;
  bool packed_ = false;
};

}  // namespace

std::shared_ptr<const Batch> batch_of(const FlatTable& table, std::vector<std::byte> body,
                                      const std::vector<Field>& fields, const Dictionaries& dictionaries) {
  auto batch = std::make_shared<Batch>();
  batch->body = std::move(body);
  batch->rows = table.number<int64_t>(0, 0);
  if (batch->rows < 0 || batch->rows > most_rows)
    throw Error("a batch says that it has " + std::to_string(batch->rows) + " rows");
  BatchReader reader(table, *batch, dictionaries);
  for (const Field& field : fields) {
    batch->columns.push_back(reader.column(field));
    if (batch->columns.back().length < batch->rows) throw Error("a column is shorter than its batch");
  }
  return batch;
}

}  // namespace lathe::data::arrow
