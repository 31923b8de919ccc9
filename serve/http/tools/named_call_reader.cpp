#include "serve/http/tools/named_call_reader.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"

namespace lathe::http {
namespace {

constexpr std::string_view call_id_mark = "[CALL_ID]";  // Mistral's, before the mark of arguments

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
}

std::string without_blanks(std::string_view text) {
  std::string result;
  std::ranges::copy_if(text, std::back_inserter(result), [](char c) { return !is_blank(c); });
  return result;
}

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  return first == std::string::npos ? std::string() : text.substr(first, text.find_last_not_of(" \t\r\n") + 1 - first);
}

std::string json_of(const std::string& written, bool is_text) {
  const auto quoted = [&] {
    return nlohmann::json(written).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  };
  if (is_text) return quoted();
  const std::string value = trimmed(written);
  for (const auto& [python, json] : {std::pair{"True", "true"}, {"False", "false"}, {"None", "null"}})
    if (value == python) return json;
  try {
    parse_json(value, "a value", RepeatedKeys::last_counts, LargeIntegers::as_doubles);
    return value;
  } catch (const FormatError&) {
    return quoted();
  }
}

}  // namespace

NamedCallReader::NamedCallReader(const engine::CallForm& form, std::string_view before_name,
                                 const std::vector<std::string>& names, const std::vector<TextMembers>& texts)
    : form_(&form),
      names_(&names),
      texts_(&texts),
      before_name_(without_blanks(before_name)),
      after_name_(without_blanks(form.after_name)) {
  if (before_name_.empty()) place_ = Place::name;
  if (!form.members) return;
  member_ = without_blanks(form.members->open);
  before_value_ = without_blanks(form.members->after_name);
  value_ = form.members->mark();
  end_ = without_blanks(form.close);
  end_.resize(end_.find('>') + 1);  // what follows is the answer's
}

CallReader::Progress NamedCallReader::push(char next) {
  Progress progress;
  progress.status = advance(next);
  if (progress.status == Status::broken) return progress;
  progress.named = named_;
  if (named_) progress.arguments = std::exchange(arguments_, {});
  return progress;
}

CallReader::Status NamedCallReader::advance(char next) {
  switch (place_) {
    case Place::before_name:
      if (is_blank(next)) return Status::open;
      if (const Status status = follow(next, before_name_); status != Status::whole) return status;
      come_.clear();
      place_ = Place::name;
      return Status::open;
    case Place::name: return read_name(next);
    case Place::id:
      if (is_letter(next)) {
        id_ += next;
        return Status::open;
      }
      place_ = Place::after_name;
      return read_mark_after_name(next);
    case Place::after_name: return read_mark_after_name(next);
    case Place::object: return read_object(next);
    case Place::member: return read_member(next);
    case Place::key:
      if (next != before_value_[0]) {
        key_ += next;
        return Status::open;
      }
      place_ = Place::before_value;
      [[fallthrough]];
    case Place::before_value:
      if (is_blank(next)) return Status::open;
      if (const Status status = follow(next, before_value_); status != Status::whole) return status;
      place_ = Place::value;
      text_.clear();
      return Status::open;
    case Place::value: return read_value(next);
  }
  return Status::broken;
}

CallReader::Status NamedCallReader::read_name(char next) {
  if (is_letter(next)) {
    name_ += next;
    return Status::open;
  }
  if (name_.empty()) return is_blank(next) ? Status::open : Status::broken;
  if (std::ranges::find(*names_, name_) == names_->end()) return Status::broken;
  if (after_name_.empty()) {
    if (const Status status = end_name(); status != Status::open) return status;
    return advance(next);
  }
  place_ = Place::after_name;
  return read_mark_after_name(next);
}

CallReader::Status NamedCallReader::read_mark_after_name(char next) {
  if (is_blank(next)) return Status::open;
  const bool with_id = id_.empty() && after_name_.starts_with('[');
  const Status status = follow(next, after_name_, with_id ? call_id_mark : std::string_view());
  if (status != Status::whole) return status;
  if (with_id && come_ == call_id_mark) {
    come_.clear();
    place_ = Place::id;
    return Status::open;
  }
  return end_name();
}

CallReader::Status NamedCallReader::end_name() {
  come_.clear();
  place_ = form_->members ? Place::member : Place::object;
  if (form_->members) {
    named_ = true;
    arguments_ = "{";
  }
  return Status::open;
}

CallReader::Status NamedCallReader::read_object(char next) {
  if (!begun_ && is_blank(next)) return Status::open;
  if (!begun_ && next != '{') return Status::broken;
  begun_ = named_ = true;
  arguments_ += next;
  switch (extent_.push(next)) {
    case JsonExtent::Status::open: return Status::open;
    case JsonExtent::Status::whole: return Status::whole;
    case JsonExtent::Status::broken: break;
  }
  return Status::broken;
}

CallReader::Status NamedCallReader::read_member(char next) {
  if (is_blank(next) && come_.empty()) return Status::open;
  const Status status = follow(next, member_, end_);
  if (status != Status::whole) return status;
  if (come_ == end_) {
    arguments_ += '}';
    return Status::whole;
  }
  come_.clear();
  key_.clear();
  place_ = Place::key;
  return Status::open;
}

// One line break on each side belongs to the form where the form has it.
CallReader::Status NamedCallReader::read_value(char next) {
  text_ += next;
  if (!text_.ends_with(value_)) return Status::open;
  text_.resize(text_.size() - value_.size());
  if (form_->members->after_name.ends_with('\n') && text_.starts_with('\n')) text_.erase(0, 1);
  if (form_->members->close.starts_with('\n') && text_.ends_with('\n')) text_.pop_back();
  key_ = trimmed(key_);
  const auto function = std::ranges::find(*texts_, name_, &TextMembers::function);
  const bool is_text = function != texts_->end() && function->names.contains(key_);
  arguments_ += (any_member_ ? ", " : "") +
                nlohmann::json(key_).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + ": " +
                json_of(text_, is_text);
  any_member_ = true;
  come_.clear();
  place_ = Place::member;
  return Status::open;
}

CallReader::Status NamedCallReader::follow(char next, std::string_view mark, std::string_view other) {
  come_ += next;
  if (come_ == mark || (!other.empty() && come_ == other)) return Status::whole;
  return mark.starts_with(come_) || other.starts_with(come_) ? Status::open : Status::broken;
}

}  // namespace lathe::http
