#include "serve/http/tools/json_call_reader.h"

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"

namespace lathe::http {
namespace {

using nlohmann::ordered_json;

// The text of a JSON string with its quotes; nothing where it is none.
bool decode(const std::string& quoted, std::string& text) {
  try {
    text = parse_json(quoted, "a call").get<std::string>();
    return true;
  } catch (const FormatError&) {
    return false;
  }
}

bool is_object(const std::string& text) {
  try {
    return parse_json(text, "arguments", RepeatedKeys::last_counts, LargeIntegers::as_doubles).is_object();
  } catch (const FormatError&) {
    return false;
  }
}

}  // namespace

CallReader::Progress JsonCallReader::push(char next) {
  Progress progress;
  progress.status = advance(next);
  if (progress.status == Status::whole && !written_arguments_ && !name_.empty()) {
    written_arguments_ = true;
    arguments_ = "{}";
  }
  if (progress.status != Status::broken && !name_.empty() && written_arguments_) named_ = true;
  if (progress.status == Status::whole && !named_) progress.status = Status::broken;
  progress.named = named_;
  if (named_) progress.arguments = std::exchange(arguments_, {});
  return progress;
}

CallReader::Status JsonCallReader::advance(char next) {
  if (place_ == Place::in_value) return in_value(next);
  if (place_ == Place::in_key) {
    key_ += next;
    if (escaped_) {
      escaped_ = false;
    } else if (next == '\\') {
      escaped_ = true;
    } else if (next == '"') {
      place_ = Place::colon;
      std::string decoded;
      if (!decode(key_, decoded)) return Status::broken;
      key_ = decoded;
    }
    return Status::open;
  }
  if (is_blank(next) && place_ != Place::start) return Status::open;
  switch (place_) {
    case Place::start: place_ = Place::key; return next == '{' ? Status::open : Status::broken;
    case Place::key:
      if (next == '}' && first_member_) return Status::whole;
      first_member_ = false;
      key_ = "\"";
      place_ = Place::in_key;
      return next == '"' ? Status::open : Status::broken;
    case Place::colon: place_ = Place::value; return next == ':' ? Status::open : Status::broken;
    case Place::value: return begin_value(next);
    case Place::after_value:
      if (next == '}') return Status::whole;
      place_ = Place::key;
      return next == ',' ? Status::open : Status::broken;
    case Place::in_key:
    case Place::in_value: break;
  }
  return Status::broken;
}

CallReader::Status JsonCallReader::begin_value(char next) {
  is_arguments_ = key_ == "arguments" || key_ == "parameters";
  if (is_arguments_ && (written_arguments_ || (next != '{' && next != '"'))) return Status::broken;
  if (key_ == "name" && (!name_.empty() || next != '"')) return Status::broken;
  arguments_in_string_ = is_arguments_ && next == '"';
  place_ = Place::in_value;
  value_.clear();
  extent_ = {};
  scalar_ = next != '{' && next != '[' && next != '"';
  if (is_arguments_ && next == '{') written_arguments_ = true;
  return in_value(next);
}

CallReader::Status JsonCallReader::in_value(char next) {
  if (scalar_ && !value_.empty() && (next == ',' || next == '}' || is_blank(next))) {
    if (const Status status = end_value(); status != Status::open) return status;
    return advance(next);
  }
  if (is_arguments_ && !arguments_in_string_) {
    arguments_ += next;
  } else {
    value_ += next;
  }
  if (scalar_) {
    const bool other = next == '"' || next == '{' || next == '[' || next == '}' || next == ']';
    return other ? Status::broken : Status::open;
  }
  switch (extent_.push(next)) {
    case JsonExtent::Status::open: return Status::open;
    case JsonExtent::Status::whole: return end_value();
    case JsonExtent::Status::broken: break;
  }
  return Status::broken;
}

CallReader::Status JsonCallReader::end_value() {
  place_ = Place::after_value;
  if (arguments_in_string_ && is_arguments_) {
    if (!decode(value_, arguments_) || !is_object(arguments_)) return Status::broken;
    written_arguments_ = true;
  }
  if (key_ != "name") return Status::open;
  if (!decode(value_, name_) || std::ranges::find(*names_, name_) == names_->end()) return Status::broken;
  return Status::open;
}

}  // namespace lathe::http
