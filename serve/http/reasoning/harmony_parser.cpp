#include "serve/http/reasoning/harmony_parser.h"

#include <algorithm>
#include <array>

#include "serve/http/text_marks.h"

namespace lathe::http {
namespace {

constexpr std::string_view message_mark = "<|message|>", channel_mark = "<|channel|>", functions = "functions.";
// What ends a message's text. The last two begin the next one's head.
constexpr std::array<std::string_view, 5> ends = {"<|end|>", "<|return|>", "<|call|>", "<|start|>", channel_mark};
constexpr size_t most_head_bytes = 512;  // more is no head

// The word behind `mark`; empty where there is no mark.
std::string_view word_behind(std::string_view head, std::string_view mark) {
  const size_t at = head.find(mark);
  if (at == std::string_view::npos) return {};
  const std::string_view rest = head.substr(at + mark.size());
  return rest.substr(0, rest.find_first_of(" \t\r\n<"));
}

}  // namespace

AnswerParts HarmonyParser::push(std::string_view text) {
  AnswerParts parts;
  held_ += text;
  while (read(parts)) {
  }
  return parts;
}

AnswerParts HarmonyParser::finish() {
  last_ = true;
  return push({});
}

bool HarmonyParser::read(AnswerParts& parts) { return place_ == Place::head ? read_head(parts) : read_text(parts); }

bool HarmonyParser::read_head(AnswerParts& parts) {
  const size_t mark = held_.find(message_mark);
  if (mark != std::string::npos) {
    begin_message(std::string_view(held_).substr(0, mark));
    held_.erase(0, mark + message_mark.size());
    return true;
  }
  if (!last_ && held_.size() <= most_head_bytes) return false;
  // A model that has left the format. What stands after the channel's name, if anything, is its answer.
  const bool any_mark = held_.find("<|") != std::string::npos;
  place_ = Place::content;
  fresh_ = true;
  if (!any_mark) take(held_, parts);
  held_.clear();
  return false;
}

void HarmonyParser::begin_message(std::string_view head) {
  const std::string_view recipient = word_behind(head, "to=");
  fresh_ = true;
  place_ = word_behind(head, channel_mark) == "analysis" ? Place::reasoning : Place::content;
  if (!calls_ || !recipient.starts_with(functions)) return;
  function_ = recipient.substr(functions.size());
  if (std::ranges::find(calls_->names, function_) == calls_->names.end()) return;
  place_ = Place::call;
  extent_ = {};
  arguments_end_ = false;
}

bool HarmonyParser::read_text(AnswerParts& parts) {
  size_t end = held_.size(), kept = 0, mark_bytes = 0;
  for (const std::string_view mark : ends) {
    const size_t at = held_.find(mark);
    const bool begins_next = mark == ends[3] || mark == ends[4];
    if (at < end) end = at, mark_bytes = begins_next ? 0 : mark.size();
    if (!last_) kept = std::max(kept, begun_mark(held_, mark));
  }
  const bool ended = end < held_.size();
  if (!ended) end -= kept;
  take(std::string_view(held_).substr(0, end), parts);
  held_.erase(0, end + mark_bytes);
  if (ended) place_ = Place::head;
  return ended;
}

void HarmonyParser::take(std::string_view text, AnswerParts& parts) {
  if (text.empty()) return;
  switch (place_) {
    case Place::reasoning: return say(text, parts.reasoning, any_reasoning_);
    case Place::call: return take_arguments(text, parts);
    default: return say(text, parts.content, any_content_);
  }
}

void HarmonyParser::say(std::string_view text, std::string& to, bool& any) {
  if (fresh_ && any) to += "\n\n";
  to += text;
  fresh_ = false;
  any = true;
}

void HarmonyParser::take_arguments(std::string_view text, AnswerParts& parts) {
  if (fresh_) {
    text.remove_prefix(first_other_than_blank(text));
    if (text.empty()) return;
    if (text[0] != '{') {
      place_ = Place::content;
      return say(text, parts.content, any_content_);
    }
    if (!calls_->parallel && called()) arguments_end_ = true;  // nothing after the first call counts
    if (!arguments_end_) parts.calls.push_back({call_count_++, new_call_id(ToolFormat::harmony), function_, {}});
    fresh_ = false;
  }
  size_t taken = 0;
  while (taken < text.size() && !arguments_end_)
    arguments_end_ = extent_.push(text[taken++]) != JsonExtent::Status::open;
  if (taken == 0) return;
  if (parts.calls.empty()) parts.calls.push_back({call_count_ - 1, {}, {}, {}});
  parts.calls.back().arguments += text.substr(0, taken);
}

}  // namespace lathe::http
