#include "serve/http/responses/output_items.h"

#include "serve/http/answer_format.h"
#include "serve/http/generation.h"

namespace lathe::http {

using nlohmann::ordered_json;

void ResponseEvents::add(const char* type, const ordered_json& data) {
  ordered_json numbered{{"type", type}, {"sequence_number", next_++}};
  numbered.update(data);
  text_ += std::string("event: ") + type + "\n" + event(numbered);
}

OutputItems::OutputItems(std::shared_ptr<const data::Tokenizer> tokenizer, bool logprobs, ResponseEvents& events)
    : tokenizer_(std::move(tokenizer)), logprobs_(logprobs), events_(events) {}

ordered_json OutputItems::place() const {
  return {{"item_id", items_.back()["id"]}, {"output_index", items_.size() - 1}};
}

ordered_json OutputItems::place_of_text() const {
  ordered_json place = this->place();
  place["content_index"] = 0;
  return place;
}

void OutputItems::open(ordered_json item) {
  close("completed");
  items_.push_back(std::move(item));
  events_.add("response.output_item.added", {{"output_index", items_.size() - 1}, {"item", this->item()}});
}

void OutputItems::open_part(ordered_json part) {
  item()["content"].push_back(part);
  ordered_json data = place_of_text();
  data["part"] = std::move(part);
  events_.add("response.content_part.added", data);
}

void OutputItems::add_reasoning(const std::string& text) {
  if (open_ != Open::reasoning) {
    open({{"id", new_id("rs_")},
          {"type", "reasoning"},
          {"status", "in_progress"},
          {"summary", ordered_json::array()},
          {"content", ordered_json::array()}});
    open_ = Open::reasoning;
    open_part({{"type", "reasoning_text"}, {"text", ""}});
  }
  item()["content"][0]["text"].get_ref<std::string&>() += text;
  ordered_json data = place_of_text();
  data["delta"] = text;
  events_.add("response.reasoning_text.delta", data);
}

void OutputItems::add_text(const std::string& text, std::span<const AnsweredToken> tokens) {
  if (open_ != Open::text) {
    open({{"id", new_id("msg_")},
          {"type", "message"},
          {"status", "in_progress"},
          {"role", "assistant"},
          {"content", ordered_json::array()}});
    open_ = Open::text;
    ordered_json part{{"type", "output_text"}, {"text", ""}, {"annotations", ordered_json::array()}};
    if (logprobs_) part["logprobs"] = ordered_json::array();
    open_part(std::move(part));
  }
  ordered_json& part = item()["content"][0];
  part["text"].get_ref<std::string&>() += text;
  ordered_json data = place_of_text();
  data["delta"] = text;
  data["logprobs"] = logprobs_ ? token_logprobs_json(*tokenizer_, tokens) : ordered_json::array();
  if (logprobs_)
    for (const ordered_json& one : data["logprobs"]) part["logprobs"].push_back(one);
  events_.add("response.output_text.delta", data);
}

void OutputItems::add_call(const ToolCallDelta& call) {
  if (!call.id.empty()) {
    open({{"id", new_id("fc_")},
          {"type", "function_call"},
          {"status", "in_progress"},
          {"call_id", call.id},
          {"name", call.name},
          {"arguments", ""}});
    open_ = Open::call;
  }
  if (call.arguments.empty()) return;
  item()["arguments"].get_ref<std::string&>() += call.arguments;
  ordered_json data = place();
  data["delta"] = call.arguments;
  events_.add("response.function_call_arguments.delta", data);
}

void OutputItems::close_text() {
  const ordered_json& part = item()["content"][0];
  ordered_json text = place_of_text();
  text["text"] = part["text"];
  text["logprobs"] = logprobs_ ? part["logprobs"] : ordered_json::array();
  events_.add("response.output_text.done", text);
  ordered_json whole = place_of_text();
  whole["part"] = part;
  events_.add("response.content_part.done", whole);
}

void OutputItems::close_reasoning() {
  const ordered_json& part = item()["content"][0];
  ordered_json text = place_of_text();
  text["text"] = part["text"];
  events_.add("response.reasoning_text.done", text);
  ordered_json whole = place_of_text();
  whole["part"] = part;
  events_.add("response.content_part.done", whole);
}

void OutputItems::close_call() {
  ordered_json data = place();
  data["name"] = item()["name"];
  data["arguments"] = item()["arguments"];
  events_.add("response.function_call_arguments.done", data);
}

void OutputItems::close(const char* status) {
  if (open_ == Open::nothing) return;
  if (open_ == Open::text) close_text();
  if (open_ == Open::call) close_call();
  if (open_ == Open::reasoning) close_reasoning();
  item()["status"] = status;
  open_ = Open::nothing;
  events_.add("response.output_item.done", {{"output_index", items_.size() - 1}, {"item", item()}});
}

}  // namespace lathe::http
