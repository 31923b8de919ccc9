// Tables of FlatBuffers, read with every offset checked: https://flatbuffers.dev/internals. Arrow's metadata is made of
// them. Errors carry the reason alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <type_traits>

#include "core/error.h"

namespace lathe::data::arrow {

class FlatTable {
 public:
  using Bytes = std::span<const std::byte>;

  static FlatTable root(Bytes bytes);

  // Of the field with this number in the schema; `otherwise` where it is left out.
  template <class T>
  T number(int field, T otherwise) const {
    static_assert(std::is_arithmetic_v<T>);
    const std::optional<size_t> place = place_of(field);
    return place ? load<T>(bytes_, *place) : otherwise;
  }
  std::optional<FlatTable> table(int field) const;
  std::string text(int field) const;  // empty where it is left out
  // A vector's elements; none where it is left out.
  size_t size(int field) const;
  FlatTable element(int field, size_t index) const;   // of a vector of tables
  Bytes structs(int field, size_t bytes_each) const;  // of a vector of structs or numbers, end to end

  // T at a place. Error beyond the end.
  template <class T>
  static T load(Bytes bytes, size_t at) {
    if (at > bytes.size() || bytes.size() - at < sizeof(T)) throw Error("its metadata points beyond its end");
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
  }

 private:
  FlatTable(Bytes bytes, size_t at);
  std::optional<size_t> place_of(int field) const;
  size_t target(size_t at) const;  // of the offset that lies there
  std::optional<size_t> vector_at(int field) const;

  Bytes bytes_;
  size_t at_, vtable_, vtable_bytes_;
};

}  // namespace lathe::data::arrow
