#include "data/chat_template/sequence_filters.h"

#include <algorithm>

namespace lathe::data::jinja {
namespace {

// What sort compares: the value or its attribute, without regard to case unless asked.
Value sort_key(const Value& value, const Value* attribute, bool case_sensitive, Budget& budget) {
  const Value key = attribute && !attribute->is_none() ? attribute_path(value, *attribute, budget) : value;
  const Text* text = key.text();
  return text && !case_sensitive ? Value(Text::like(*text, lower_case(text->bytes))) : key;
}

// A stable sort. Keys come ready made: computing them in each comparison would cost far more than the sort seems to.
std::vector<Value> sorted(std::vector<Value> items, std::vector<Value> keys, bool reverse, Budget& budget) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return reverse ? less(keys[b], keys[a], budget) : less(keys[a], keys[b], budget);
  });
  std::vector<Value> result;
  result.reserve(items.size());
  for (const size_t i : order) result.push_back(std::move(items[i]));
  return result;
}

Value sort(const Value& value, const CallArguments& arguments, Budget& budget) {
  std::vector<Value> items = items_of(value, budget), keys;
  for (const Value& item : items)
    keys.push_back(
        sort_key(item, arguments.find(2, "attribute"), arguments.flag_or(1, "case_sensitive", false), budget));
  return List{sorted(std::move(items), std::move(keys), arguments.flag_or(0, "reverse", false), budget)};
}

Value dict_sort(const Value& value, const CallArguments& arguments, Budget& budget) {
  const Dict* dict = value.dict();
  if (!dict) refuse(budget, std::string("dictsort needs a dict, not ") + type_name(value));
  const Text* by = arguments.text_or_null(1, "by");
  const bool by_value = by && by->bytes == "value";
  std::vector<Value> items, keys;
  for (const auto& [key, content] : dict->entries) {
    items.emplace_back(List{{key, content}, List::Kind::tuple});
    keys.push_back(sort_key(by_value ? content : key, nullptr, arguments.flag_or(0, "case_sensitive", false), budget));
  }
  return List{sorted(std::move(items), std::move(keys), arguments.flag_or(2, "reverse", false), budget)};
}

Value join(const Value& value, const CallArguments& arguments, Budget& budget) {
  const Value* attribute = arguments.find(1, "attribute");
  const Text separator = text_of(arguments.value_or(0, "d", Text{}), budget);
  Text joined;
  bool first = true;
  for (const Value& item : items_of(value, budget)) {
    if (!first) joined.append(separator);
    first = false;
    joined.append(
        text_of(attribute && !attribute->is_none() ? attribute_path(item, *attribute, budget) : item, budget));
    budget.check_bytes(joined.bytes.size() / 64);
  }
  budget.check_bytes(joined.bytes.size());
  return joined;
}

// map(attribute=…, default=…) or map("filter", arguments…)
Value map(const Value& value, const CallArguments& arguments, Budget& budget) {
  List result{{}, List::Kind::generator};
  if (!truthy(value)) return result;  // as Jinja: of none, too, nothing comes
  const std::vector<Value> items = items_of(value, budget);
  if (arguments.positional().empty()) {
    const Value& attribute = arguments.need(0, "attribute");
    const Value* otherwise = arguments.find(1, "default");
    for (const Value& item : items) {
      Value found = attribute_path(item, attribute, budget);
      if (found.is_undefined() && otherwise) found = *otherwise;
      result.items.push_back(std::move(found));
    }
    return result;
  }
  const std::string filter = arguments.need_text(0, "filter").bytes;
  const CallArguments rest(filter, arguments.after(1), arguments.named(), budget);
  for (const Value& item : items) result.items.push_back(apply_filter(filter, item, rest, budget));
  return result;
}

// select, reject, selectattr, rejectattr
Value select(const Value& value, const CallArguments& arguments, bool keep, bool by_attribute, Budget& budget) {
  List result{{}, List::Kind::generator};
  if (!truthy(value)) return result;
  const size_t test_at = by_attribute ? 1 : 0;
  const bool has_test = arguments.positional().size() > test_at;
  const std::string test = has_test ? arguments.need_text(test_at, "test").bytes : "";
  const CallArguments rest(test, arguments.after(test_at + 1), arguments.named(), budget);
  for (const Value& item : items_of(value, budget)) {
    const Value tested = by_attribute ? attribute_path(item, arguments.need(0, "attribute"), budget) : item;
    const bool passes = has_test ? apply_test(test, tested, rest, budget) : truthy(tested);
    if (passes == keep) result.items.push_back(item);
  }
  return result;
}

Value extreme(const Value& value, const CallArguments& arguments, bool largest, Budget& budget) {
  const std::vector<Value> items = items_of(value, budget);
  if (items.empty()) return Undefined{"the extreme of an empty list"};
  const auto key = [&](const Value& item) {
    return sort_key(item, arguments.find(1, "attribute"), arguments.flag_or(0, "case_sensitive", false), budget);
  };
  size_t best = 0;
  for (size_t i = 1; i < items.size(); ++i) {
    if (largest ? less(key(items[best]), key(items[i]), budget) : less(key(items[i]), key(items[best]), budget))
      best = i;
  }
  return items[best];
}

Value sum(const Value& value, const CallArguments& arguments, Budget& budget) {
  const Value* attribute = arguments.find(0, "attribute");
  int64_t whole = 0;
  double real = 0;
  bool is_real = false;
  const auto add = [&](const Value& item) {
    if (const auto integer = item.integer()) {
      if (__builtin_add_overflow(whole, *integer, &whole)) refuse(budget, "sum: the result is out of range");
    } else if (item.exact_integer()) {
      refuse(budget, "sum: the result is out of range");
    } else if (const auto number = item.number()) {
      real += *number;
      is_real = true;
    } else {
      refuse(budget, std::string("sum needs numbers, not ") + type_name(item));
    }
  };
  add(arguments.value_or(1, "start", int64_t{0}));
  for (const Value& item : items_of(value, budget))
    add(attribute && !attribute->is_none() ? attribute_path(item, *attribute, budget) : item);
  return is_real ? Value(real + static_cast<double>(whole)) : Value(whole);
}

Value unique(const Value& value, const CallArguments& arguments, Budget& budget) {
  List result{{}, List::Kind::generator};
  std::vector<Value> seen;
  for (const Value& item : items_of(value, budget)) {
    Value key = sort_key(item, arguments.find(1, "attribute"), arguments.flag_or(0, "case_sensitive", false), budget);
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& other) { return equal(key, other, budget); })) continue;
    seen.push_back(std::move(key));
    result.items.push_back(item);
  }
  return result;
}

// groupby(attribute, default=…): (key, items) for each key, in the order of the keys.
Value group_by(const Value& value, const CallArguments& arguments, Budget& budget) {
  const Value& attribute = arguments.need(0, "attribute");
  const Value* otherwise = arguments.find(1, "default");
  const bool case_sensitive = arguments.flag_or(2, "case_sensitive", false);
  std::vector<Value> items = items_of(value, budget), pairs, keys;
  for (Value& item : items) {
    Value key = attribute_path(item, attribute, budget);
    if (key.is_undefined() && otherwise) key = *otherwise;
    keys.push_back(sort_key(key, nullptr, case_sensitive, budget));
    pairs.emplace_back(List{{std::move(key), std::move(item)}, List::Kind::tuple});
  }
  List result;
  std::vector<Value> members;
  const auto flush = [&](const Value& key) {
    List group{{key, List{std::move(members)}}, List::Kind::tuple};
    group.group = true;
    result.items.emplace_back(std::move(group));
    members.clear();
  };
  const Value* first = nullptr;  // the key of the group that is being filled, as its first item spells it
  const std::vector<Value> ordered = sorted(std::move(pairs), std::move(keys), false, budget);
  for (const Value& pair : ordered) {
    const Value& key = pair.list()->items[0];
    if (first && !equal(sort_key(*first, nullptr, case_sensitive, budget),
                        sort_key(key, nullptr, case_sensitive, budget), budget)) {
      flush(*first);
      first = nullptr;
    }
    if (!first) first = &key;
    members.push_back(pair.list()->items[1]);
  }
  if (first) flush(*first);
  return result;
}

// slice(n): n lists of as even a length as can be, the longer ones first; with fill_with the shorter ones are filled
// up.
Value slices(const Value& value, const CallArguments& arguments, Budget& budget) {
  const int64_t count = arguments.integer_or(0, "slices", 0);
  if (count < 1) refuse(budget, "slice needs a positive number of slices");
  budget.spend(static_cast<uint64_t>(count));
  const Value* fill = arguments.find(1, "fill_with");
  const std::vector<Value> items = items_of(value, budget);
  const auto size = static_cast<int64_t>(items.size()), shortest = size / count, longer = size % count;
  List result{{}, List::Kind::generator};
  auto at = items.begin();
  for (int64_t i = 0; i < count; ++i) {
    const auto end = at + static_cast<std::ptrdiff_t>(shortest + (i < longer ? 1 : 0));
    List part{{at, end}};
    if (fill && !fill->is_none() && i >= longer) part.items.push_back(*fill);
    result.items.emplace_back(std::move(part));
    at = end;
  }
  return result;
}

Value batch(const Value& value, const CallArguments& arguments, Budget& budget) {
  const int64_t size = arguments.integer_or(0, "linecount", 0);
  if (size < 1) refuse(budget, "batch needs a positive size");
  const Value* fill = arguments.find(1, "fill_with");
  List result{{}, List::Kind::generator};
  std::vector<Value> row;
  const auto flush = [&] {
    result.items.emplace_back(List{std::move(row)});
    row.clear();
  };
  for (const Value& item : items_of(value, budget)) {
    row.push_back(item);
    if (static_cast<int64_t>(row.size()) == size) flush();
  }
  if (row.empty()) return result;
  if (fill && !fill->is_none()) {
    budget.spend(static_cast<uint64_t>(size));
    row.resize(static_cast<size_t>(size), *fill);
  }
  flush();
  return result;
}

}  // namespace

std::optional<Value> apply_sequence_filter(const std::string& name, const Value& value, const CallArguments& arguments,
                                           Budget& budget) {
  if (name == "list") return Value(List{items_of(value, budget)});
  if (name == "first" || name == "last") {
    const std::vector<Value> items = items_of(value, budget);
    if (items.empty()) return Value(Undefined{"the " + name + " item of an empty list"});
    return name == "first" ? items.front() : items.back();
  }
  if (name == "join") return join(value, arguments, budget);
  if (name == "map") return map(value, arguments, budget);
  if (name == "select") return select(value, arguments, true, false, budget);
  if (name == "reject") return select(value, arguments, false, false, budget);
  if (name == "selectattr") return select(value, arguments, true, true, budget);
  if (name == "rejectattr") return select(value, arguments, false, true, budget);
  if (name == "sort") return sort(value, arguments, budget);
  if (name == "dictsort") return dict_sort(value, arguments, budget);
  if (name == "min") return extreme(value, arguments, false, budget);
  if (name == "max") return extreme(value, arguments, true, budget);
  if (name == "sum") return sum(value, arguments, budget);
  if (name == "unique") return unique(value, arguments, budget);
  if (name == "batch") return batch(value, arguments, budget);
  if (name == "groupby") return group_by(value, arguments, budget);
  if (name == "slice") return slices(value, arguments, budget);
  if (name == "items") {
    if (value.is_undefined()) return Value(List{{}, List::Kind::generator});
    if (!value.dict()) refuse(budget, std::string("items needs a dict, not ") + type_name(value));
    return call_method(value, CallArguments("items", {}, {}, budget), budget);
  }
  if (name == "attr") {  // Python's attributes alone: a dict's entries are none
    const std::string attribute = arguments.need_text(0, "name").bytes;
    if (value.dict() && !has_method(value, attribute)) return Value(Undefined{attribute});
    return attribute_of(value, attribute, budget);
  }
  if (name == "reverse") {
    if (const Text* text = value.text()) {
      Text reversed;
      std::vector<Value> characters = items_of(value, budget);
      for (auto item = characters.rbegin(); item != characters.rend(); ++item) reversed.append(*item->text());
      (void)text;
      return Value(std::move(reversed));
    }
    List result{items_of(value, budget), List::Kind::generator};
    std::reverse(result.items.begin(), result.items.end());
    return Value(std::move(result));
  }
  return std::nullopt;
}

}  // namespace lathe::data::jinja
