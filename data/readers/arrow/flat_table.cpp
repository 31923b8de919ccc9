#include "data/readers/arrow/flat_table.h"

namespace lathe::data::arrow {

FlatTable FlatTable::root(Bytes bytes) { return {bytes, load<uint32_t>(bytes, 0)}; }

FlatTable::FlatTable(Bytes bytes, size_t at) : bytes_(bytes), at_(at) {
  // The vtable lies before or after its table.
  const int64_t vtable = static_cast<int64_t>(at) - load<int32_t>(bytes, at);
  if (vtable < 0) throw Error("its metadata points before its beginning");
  vtable_ = static_cast<size_t>(vtable);
  vtable_bytes_ = load<uint16_t>(bytes, vtable_);
}

std::optional<size_t> FlatTable::place_of(int field) const {
  const size_t entry = 4 + 2 * static_cast<size_t>(field);
  if (entry + 2 > vtable_bytes_) return std::nullopt;
  const auto offset = load<uint16_t>(bytes_, vtable_ + entry);
  return offset == 0 ? std::nullopt : std::optional(at_ + offset);
}

size_t FlatTable::target(size_t at) const { return at + load<uint32_t>(bytes_, at); }

std::optional<FlatTable> FlatTable::table(int field) const {
  const std::optional<size_t> place = place_of(field);
  if (!place) return std::nullopt;
  return FlatTable(bytes_, target(*place));
}

std::optional<size_t> FlatTable::vector_at(int field) const {
  const std::optional<size_t> place = place_of(field);
  return place ? std::optional(target(*place)) : std::nullopt;
}

size_t FlatTable::size(int field) const {
  const std::optional<size_t> vector = vector_at(field);
  return vector ? load<uint32_t>(bytes_, *vector) : 0;
}

FlatTable FlatTable::element(int field, size_t index) const {
  if (index >= size(field)) throw Error("its metadata lacks an element");
  return {bytes_, target(*vector_at(field) + 4 + 4 * index)};
}

FlatTable::Bytes FlatTable::structs(int field, size_t bytes_each) const {
  const size_t bytes = size(field) * bytes_each;  // a u32 and a small number: no overflow in 64 bits
  if (bytes == 0) return {};
  const size_t begin = *vector_at(field) + 4;
  if (begin > bytes_.size() || bytes_.size() - begin < bytes) throw Error("its metadata points beyond its end");
  return bytes_.subspan(begin, bytes);
}

std::string FlatTable::text(int field) const {
  const Bytes bytes = structs(field, 1);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace lathe::data::arrow
