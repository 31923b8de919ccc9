// Methods of str, dict and list that change nothing, and how attributes and items are looked up.
#include <algorithm>
#include <array>

#include "data/chat_template/builtins.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data::jinja {
namespace {

constexpr std::array text_methods = {"split",        "rsplit",       "strip",     "lstrip",     "rstrip",  "startswith",
                                     "endswith",     "replace",      "upper",     "lower",      "title",   "capitalize",
                                     "join",         "find",         "rfind",     "index",      "count",   "splitlines",
                                     "removeprefix", "removesuffix", "partition", "rpartition", "isdigit", "isalpha",
                                     "isalnum",      "isspace",      "isupper",   "islower",    "zfill",   "format",
                                     "center",       "ljust",        "rjust",     "swapcase"};
constexpr std::array dict_methods = {"get", "keys", "values", "items", "copy"};
constexpr std::array list_methods = {"index", "count", "copy"};

template <class Names>
bool is_one_of(const Names& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Value call_dict_method(const Dict& dict, const CallArguments& arguments, Budget& budget) {
  const std::string& name = arguments.function();
  budget.spend(dict.entries.size() / 8 + 1);
  if (name == "get") {
    const Value* found = dict.find(arguments.need(0, "key"));
    return found ? *found : arguments.value_or(1, "default", None{});
  }
  if (name == "copy") return Dict{dict.entries};
  List list;
  for (const auto& [key, value] : dict.entries) {
    if (name == "items") {
      list.items.emplace_back(List{{key, value}, List::Kind::tuple});
    } else {
      list.items.push_back(name == "keys" ? key : value);
    }
  }
  return list;
}

Value call_list_method(const List& list, const CallArguments& arguments, Budget& budget) {
  const std::string& name = arguments.function();
  if (name == "copy") return List{list.items, list.kind};
  const Value& wanted = arguments.need(0, "value");
  int64_t count = 0;
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (!equal(list.items[i], wanted, budget)) continue;
    if (name == "index") return static_cast<int64_t>(i);
    ++count;
  }
  if (name == "index") refuse(budget, "index(): the value is not in the list");
  return count;
}

Value call_cycler_method(Namespace& cycler, const std::string& name) {
  if (name == "reset") {
    cycler.position = 0;
    return None{};
  }
  const Value current = cycler.entries[cycler.position].second;
  cycler.position = (cycler.position + 1) % cycler.entries.size();
  return current;
}

}  // namespace

bool has_method(const Value& receiver, const std::string& name) {
  if (receiver.text()) return is_one_of(text_methods, name);
  if (receiver.dict()) return is_one_of(dict_methods, name);
  if (const Namespace* space = receiver.space())
    return space->kind == Namespace::Kind::cycler && (name == "next" || name == "reset");
  if (receiver.list()) return receiver.list()->kind != List::Kind::generator && is_one_of(list_methods, name);
  return false;
}

Value call_method(const Value& receiver, const CallArguments& arguments, Budget& budget) {
  budget.spend(1);
  if (const Text* text = receiver.text()) return call_text_method(*text, arguments, budget);
  if (const Dict* dict = receiver.dict()) return call_dict_method(*dict, arguments, budget);
  if (const List* list = receiver.list()) return call_list_method(*list, arguments, budget);
  if (Namespace* space = receiver.space()) return call_cycler_method(*space, arguments.function());
  refuse(budget,
         std::string("a value of type ") + type_name(receiver) + " has no method '" + arguments.function() + "'");
}

Value item_of(const Value& value, const Value& key, Budget& budget) {
  budget.spend(1);
  if (value.is_undefined()) refuse(budget, "'" + std::get<Undefined>(value.variant).name + "' is undefined");
  if (const Dict* dict = value.dict()) {
    budget.spend(dict->entries.size() / 8);
    if (const Value* found = dict->find(key)) return *found;
  }
  if (const auto index = key.integer(); index && (value.list() || value.text())) {
    if (const List* list = value.list(); list && list->kind != List::Kind::generator) {
      const auto size = static_cast<int64_t>(list->items.size());
      const int64_t at = *index < 0 ? *index + size : *index;
      if (at >= 0 && at < size) return list->items[static_cast<size_t>(at)];
    } else if (const Text* text = value.text()) {
      const int64_t size = length_of(value, budget);
      const int64_t at = *index < 0 ? *index + size : *index;
      budget.spend(text->bytes.size() / 64);
      if (at >= 0 && at < size) {
        const size_t begin = byte_of_character(text->bytes, static_cast<size_t>(at));
        return text->slice(begin, begin + code_point_length(text->bytes[begin]));
      }
    }
    return Undefined{std::to_string(*index)};
  }
  if (const Text* name = key.text()) {
    if (has_method(value, name->bytes)) return Callable{Callable::Kind::method, name->bytes, value};
    if (const Namespace* space = value.space()) {
      for (const auto& [entry, content] : space->entries) {
        if (entry == name->bytes) return content;
      }
    }
    return Undefined{name->bytes};
  }
  return Undefined{"item"};
}

Value attribute_of(const Value& value, const std::string& name, Budget& budget) {
  budget.spend(1);
  if (value.is_undefined()) {
    refuse(budget, "'" + std::get<Undefined>(value.variant).name + "' is undefined (its attribute '" + name +
                       "' was asked for)");
  }
  if (has_method(value, name)) return Callable{Callable::Kind::method, name, value};
  if (const Dict* dict = value.dict()) {
    budget.spend(dict->entries.size() / 8);
    const Value* found = dict->find(name);
    return found ? *found : Value(Undefined{name});
  }
  if (const List* list = value.list(); list && list->group) {
    if (name == "grouper") return list->items[0];
    if (name == "list") return list->items[1];
  }
  if (const Namespace* space = value.space()) {
    if (space->kind == Namespace::Kind::cycler && name == "current") return space->entries[space->position].second;
    for (const auto& [entry, content] : space->entries) {
      if (entry == name) return content;
    }
  }
  return Undefined{name};
}

Value attribute_path(const Value& value, const Value& path, Budget& budget) {
  const Text* text = path.text();
  if (!text) return item_of(value, path, budget);
  Value at = value;
  for (size_t begin = 0; begin <= text->bytes.size();) {
    const size_t end = std::min(text->bytes.find('.', begin), text->bytes.size());
    const std::string part = text->bytes.substr(begin, end - begin);
    const bool index = !part.empty() && part.size() < 10 &&
                       std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    at = index ? item_of(at, int64_t{std::stoi(part)}, budget) : item_of(at, Text::own(part), budget);
    begin = end + 1;
  }
  return at;
}

}  // namespace lathe::data::jinja
