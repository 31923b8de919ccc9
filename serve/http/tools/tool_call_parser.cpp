#include "serve/http/tools/tool_call_parser.h"

#include <algorithm>
#include <utility>

#include "serve/http/text_marks.h"
#include "serve/http/tools/json_call_reader.h"

namespace lathe::http {
namespace {

bool is_json(ToolFormat format) {
  return format == ToolFormat::hermes || format == ToolFormat::llama || format == ToolFormat::mistral;
}

}  // namespace

ToolCallParser::ToolCallParser(ToolCallSettings settings)
    : settings_(std::move(settings)),
      marks_(marks_of(settings_.format)),
      form_(form_of(settings_.format)),
      in_json_(is_json(settings_.format)) {}

ToolAnswer ToolCallParser::push(std::string_view text) {
  ToolAnswer answer;
  held_ += text;
  size_t done = 0;
  while (done < held_.size()) {
    const State before = state_;
    const size_t count = read(std::string_view(held_).substr(done), answer);
    done += count;
    if (count == 0 && state_ == before) break;
  }
  held_.erase(0, done);
  return answer;
}

ToolAnswer ToolCallParser::finish() {
  last_ = true;
  ToolAnswer answer = push({});
  if ((state_ == State::call && !named_) || (state_ == State::expected && !told_)) {
    raw_ += std::exchange(held_, {});
    give_up(answer);
  }
  return answer;
}

size_t ToolCallParser::read(std::string_view text, ToolAnswer& answer) {
  switch (state_) {
    case State::content: return read_content(text, answer);
    case State::expected: return read_expected(text, answer);
    case State::after: return read_after_call(text, answer);
    case State::call: return read_call(text, answer);
    case State::over: return text.size();
  }
  return text.size();
}

size_t ToolCallParser::read_content(std::string_view text, ToolAnswer& answer) {
  const auto expect_call = [&](size_t content_end, size_t end) {
    show(text.substr(0, content_end), answer);
    raw_ = text.substr(content_end, end - content_end);
    told_ = false;
    state_ = State::expected;
    return end;
  };
  if (settings_.format == ToolFormat::llama && !begun_) {
    const size_t first = first_other_than_blank(text);
    if (first < text.size() && text[first] == '{') return expect_call(0, first);
  }
  if (const size_t mark = text.find(marks_.open); mark != std::string_view::npos)
    return expect_call(without_blanks_at_end(text.substr(0, mark)), mark + marks_.open.size());
  if (last_) {
    if (!after_call_ || first_other_than_blank(text) < text.size()) show(text, answer);
    return text.size();
  }
  const size_t shown = without_blanks_at_end(text.substr(0, text.size() - begun_mark(text, marks_.open)));
  show(text.substr(0, shown), answer);
  return shown;
}

size_t ToolCallParser::read_expected(std::string_view text, ToolAnswer& answer) {
  const size_t first = first_other_than_blank(text);
  if (first == text.size()) return 0;
  const std::string_view rest = text.substr(first);
  if (!in_json_) return begin_call(text, first);
  const bool between = rest[0] == '[' || rest[0] == ']' || rest[0] == ',' || rest[0] == ';';
  if (rest[0] == '{' || between) {
    const size_t end = first + (between ? 1 : 0);
    if (!between) return begin_call(text, end);
    if (!told_) raw_ += text.substr(0, end);
    return end;
  }
  if (told_ && !marks_.close.empty() && rest.starts_with(marks_.close)) {
    state_ = State::content;
    return first + marks_.close.size();
  }
  if (told_ && !last_ && marks_.close.starts_with(rest)) return 0;
  give_up(answer);
  return 0;
}

size_t ToolCallParser::begin_call(std::string_view text, size_t first) {
  if (!told_) raw_ += text.substr(0, first);
  if (in_json_) {
    reader_ = std::make_unique<JsonCallReader>(settings_.names);
  } else {
    const std::string head = told_ ? form_.open : form_.first + form_.open;
    const size_t read = told_ ? 0 : marks_.open.size();
    reader_ =
        std::make_unique<NamedCallReader>(form_, std::string_view(head).substr(read), settings_.names, settings_.texts);
  }
  named_ = false;
  state_ = State::call;
  return first;
}

size_t ToolCallParser::read_after_call(std::string_view text, ToolAnswer& answer) {
  const size_t first = first_other_than_blank(text);
  if (first == text.size()) return 0;
  const std::string_view rest = text.substr(first);
  bool may_come = false;
  const auto comes = [&](std::string_view mark) {
    may_come = may_come || (!last_ && !mark.empty() && mark.starts_with(rest));
    return !mark.empty() && rest.starts_with(mark);
  };
  if (comes(marks_.close)) {
    state_ = State::content;
    return first + marks_.close.size();
  }
  const std::string next = form_.first.empty() ? std::string() : form_.open;  // within the same marks
  if (comes(next)) return begin_call(text, first);
  for (const std::string_view mark : marks_.behind)
    if (comes(mark)) return first + mark.size();
  if (may_come) return 0;
  give_up(answer);
  return 0;
}

size_t ToolCallParser::read_call(std::string_view text, ToolAnswer& answer) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (!named_) raw_ += text[i];
    CallReader::Progress progress = reader_->push(text[i]);
    const bool broken = progress.status == CallReader::Status::broken;
    if (!broken) take(progress, answer);
    if (progress.status == CallReader::Status::open) continue;
    if (!broken) {
      state_ = !settings_.parallel ? State::over : in_json_ ? State::expected : State::after;
      return i + 1;
    }
    if (!named_) {
      give_up(answer);
      return i + 1;
    }
    state_ = State::content;
    return i;
  }
  return text.size();
}

void ToolCallParser::take(CallReader::Progress& progress, ToolAnswer& answer) {
  if (!progress.named) return;
  if (!named_) {
    answer.calls.push_back(
        {calls_++, reader_->id().empty() ? new_call_id(settings_.format) : reader_->id(), reader_->name(), {}});
    named_ = told_ = after_call_ = begun_ = true;
    raw_.clear();
  }
  if (progress.arguments.empty()) return;
  if (answer.calls.empty() || answer.calls.back().index + 1 != calls_) answer.calls.push_back({calls_ - 1, {}, {}, {}});
  answer.calls.back().arguments += progress.arguments;
}

void ToolCallParser::show(std::string_view content, ToolAnswer& answer) {
  if (content.empty()) return;
  answer.content += content;
  if (first_other_than_blank(content) == content.size()) return;
  begun_ = true;
  after_call_ = false;
}

void ToolCallParser::give_up(ToolAnswer& answer) {
  show(std::exchange(raw_, {}), answer);
  begun_ = true;
  state_ = State::content;
}

}  // namespace lathe::http
