// POST /v1/embeddings
#include <nlohmann/json.hpp>

#include "serve/http/completion_request.h"
#include "serve/http/prompt_tokens.h"
#include "serve/http/service.h"

namespace lathe::http {
namespace {

using nlohmann::ordered_json;

// As OpenAI's client asks for it unless it is told otherwise: little-endian f32 in base 64.
std::string base64_of(const std::vector<float>& values) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const std::string_view bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    for (size_t j = 0; j < 3; ++j) group = (group << 8) | (j < count ? static_cast<unsigned char>(bytes[i + j]) : 0u);
    for (size_t j = 0; j < 4; ++j) text += j <= count ? digits[(group >> (18 - 6 * j)) & 63] : '=';
  }
  return text;
}

Pooling read_pooling(const Fields& fields) {
  const std::string pooling = fields.text("pooling").value_or("mean");
  if (pooling == "mean") return Pooling::mean;
  if (pooling == "last") return Pooling::last;
  throw bad_field("pooling", "expected mean or last, found " + pooling.substr(0, 60));
}

bool read_base64(const Fields& fields) {
  const std::string format = fields.text("encoding_format").value_or("float");
  if (format != "float" && format != "base64")
    throw bad_field("encoding_format", "expected float or base64, found " + format.substr(0, 60));
  return format == "base64";
}

}  // namespace

void embeddings(const Call& call) {
  const LoadedModel& loaded = call.service.loaded();
  const ordered_json body = parse_body(call.request().body);
  const Fields fields(body);
  const std::string adapter = call.service.adapter_of(fields.text("model").value_or(""));
  const Pooling pooling = read_pooling(fields);
  const bool base64 = read_base64(fields);
  if (fields.find("dimensions") != nullptr)
    throw bad_field("dimensions", "this model's embeddings have one length; leave the field out");
  std::vector<std::vector<int32_t>> inputs;
  int64_t tokens = 0;
  for (const Prompt& prompt : read_prompts(fields, "input", loaded.text.vocab_size)) {
    inputs.push_back(prompt_tokens(loaded.text, prompt));
    call.service.answer_length(inputs.back(), 0);
    tokens += static_cast<int64_t>(inputs.back().size());
  }
  call.audit->prompt_tokens = tokens;
  call.audit->model = adapter.empty() ? call.service.options.model_name : adapter;
  const auto done = [call, tokens, base64](EngineThread::Embeddings some) {
    call.exchange->post([call, tokens, base64, some = std::move(some)] {
      ordered_json data = ordered_json::array();
      for (size_t i = 0; i < some.size(); ++i) {
        ordered_json entry{{"object", "embedding"}, {"index", i}};
        entry["embedding"] = base64 ? ordered_json(base64_of(some[i])) : ordered_json(some[i]);
        data.push_back(std::move(entry));
      }
      call.reply(ordered_json{{"object", "list"},
                              {"data", std::move(data)},
                              {"model", call.audit->model},
                              {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}});
    });
  };
  const auto failed = [call](const ApiError& error) { call.exchange->post([call, error] { call.reply(error); }); };
  call.service.engine.embed(std::move(inputs), pooling, adapter, done, failed);
}

}  // namespace lathe::http
