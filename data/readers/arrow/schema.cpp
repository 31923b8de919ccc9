#include "data/readers/arrow/schema.h"

#include <array>

namespace lathe::data::arrow {
namespace {

constexpr int deepest = 32, most_fields = 4096;

// Of the union Type in Schema.fbs.
enum TypeNumber : uint8_t {
  null_type = 1,
  int_type,
  floating_type,
  binary_type,
  utf8_type,
  bool_type,
  decimal_type,
  date_type,
  time_type,
  timestamp_type,
  interval_type,
  list_type,
  struct_type,
  union_type,
  fixed_size_binary_type,
  fixed_size_list_type,
  map_type,
  duration_type,
  large_binary_type,
  large_utf8_type,
  large_list_type,
  run_end_encoded_type,
  binary_view_type,
  utf8_view_type
};
constexpr std::array<const char*, 27> type_names = {"none",
                                                    "null",
                                                    "int",
                                                    "floating point",
                                                    "binary",
                                                    "utf8",
                                                    "bool",
                                                    "decimal",
                                                    "date",
                                                    "time",
                                                    "timestamp",
                                                    "interval",
                                                    "list",
                                                    "struct",
                                                    "union",
                                                    "fixed size binary",
                                                    "fixed size list",
                                                    "map",
                                                    "duration",
                                                    "large binary",
                                                    "large utf8",
                                                    "large list",
                                                    "run end encoded",
                                                    "binary view",
                                                    "utf8 view",
                                                    "list view",
                                                    "large list view"};

[[noreturn]] void refuse(const std::string& path, uint8_t type) {
  throw Error("its column \"" + path + "\" is of the type " +
              (type < type_names.size() ? type_names[type] : "number " + std::to_string(type)) +
              ", which rows of text cannot have; leave it out (dataset.remove_columns, then save_to_disk)");
}

int integer_bytes(int32_t bits) {
  if (bits != 8 && bits != 16 && bits != 32 && bits != 64)
    throw Error("it has integers of " + std::to_string(bits) + " bits");
  return bits / 8;
}

class SchemaReader {
 public:
  Schema read(const FlatTable& table) {
    if (table.number<int16_t>(0, 0) != 0) throw Error("its numbers are big-endian; write it on another machine");
    Schema schema;
    for (size_t i = 0; i < table.size(1); ++i) schema.columns.push_back(field(table.element(1, i), "", 0));
    schema.dictionaries = std::move(dictionaries_);
    return schema;
  }

 private:
  Field field(const FlatTable& table, const std::string& parent, int depth) {
    if (depth > deepest || ++fields_ > most_fields)
      throw Error("its columns are nested deeper than " + std::to_string(deepest) + " levels, or more than " +
                  std::to_string(most_fields));
    Field field;
    field.name = table.text(0);
    const std::string path = parent.empty() ? field.name : parent + "." + field.name;
    const std::optional<FlatTable> type = table.table(3);
    const auto number = table.number<uint8_t>(2, 0);
    if (!type) refuse(path, number);
    set_type(field, number, *type, path);
    for (size_t i = 0; i < table.size(5); ++i)
      field.children.push_back(this->field(table.element(5, i), path, depth + 1));
    const size_t children = field.kind == Kind::list || field.kind == Kind::fixed_list || field.kind == Kind::map;
    if (field.kind != Kind::structure && field.children.size() != children)
      throw Error("its column \"" + path + "\" has " + std::to_string(field.children.size()) + " children");
    if (field.kind == Kind::map &&
        (field.children[0].kind != Kind::structure || field.children[0].children.size() != 2))
      throw Error("its column \"" + path + "\" is a map without keys and values");
    if (const std::optional<FlatTable> encoding = table.table(4)) set_dictionary(field, *encoding);
    return field;
  }

  static void set_type(Field& field, uint8_t number, const FlatTable& type, const std::string& path) {
    const auto integer = [&](int bytes, bool is_signed) {
      field.kind = Kind::integer;
      field.bytes = bytes;
      field.is_signed = is_signed;
    };
    const auto of_kind = [&](Kind kind, int offset_bytes) {
      field.kind = kind;
      field.bytes = offset_bytes;
    };
    switch (number) {
      case null_type: return of_kind(Kind::null, 0);
      case bool_type: return of_kind(Kind::boolean, 0);
      case int_type: return integer(integer_bytes(type.number<int32_t>(0, 0)), type.number<uint8_t>(1, 0) != 0);
      case floating_type: {
        const auto precision = type.number<int16_t>(0, 0);
        if (precision < 0 || precision > 2) refuse(path, number);
        return of_kind(Kind::floating, 2 << precision);
      }
      case utf8_type: return of_kind(Kind::text, 4);
      case large_utf8_type: return of_kind(Kind::text, 8);
      case utf8_view_type: return of_kind(Kind::text_view, 0);
      case list_type: return of_kind(Kind::list, 4);
      case large_list_type: return of_kind(Kind::list, 8);
      case struct_type: return of_kind(Kind::structure, 0);
      case map_type: return of_kind(Kind::map, 4);
      case fixed_size_list_type:
        of_kind(Kind::fixed_list, 0);
        field.list_size = type.number<int32_t>(0, 0);
        if (field.list_size < 0) throw Error("its column \"" + path + "\" has lists of a negative size");
        return;
      // Counts of days, seconds and parts of them, in the unit of the column.
      case date_type: return integer(type.number<int16_t>(0, 1) == 0 ? 4 : 8, true);
      case time_type: return integer(integer_bytes(type.number<int32_t>(1, 32)), true);
      case timestamp_type:
      case duration_type: return integer(8, true);
      default: refuse(path, number);
    }
  }

  void set_dictionary(Field& field, const FlatTable& encoding) {
    const auto id = encoding.number<int64_t>(0, 0);
    const std::optional<FlatTable> index = encoding.table(1);
    dictionaries_.emplace(id, field);  // the values: the same field without what follows
    field.dictionary = id;
    field.index_bytes = index ? integer_bytes(index->number<int32_t>(0, 0)) : 4;
    field.index_is_signed = !index || index->number<uint8_t>(1, 0) != 0;
  }

  std::map<int64_t, Field> dictionaries_;
  int fields_ = 0;
};

}  // namespace

Schema schema_of(const FlatTable& schema) { return SchemaReader().read(schema); }

}  // namespace lathe::data::arrow
