// POST /v1/embeddings
#include <memory>
#include <utility>

#include "core/json_value.h"
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

engine::Pooling read_pooling(const Fields& fields) {
  const std::string pooling = fields.text("pooling").value_or("mean");
  if (pooling == "mean") return engine::Pooling::mean;
  if (pooling == "last") return engine::Pooling::last;
  throw bad_field("pooling", "expected mean or last, found " + pooling.substr(0, 60));
}

bool read_base64(const Fields& fields) {
  const std::string format = fields.text("encoding_format").value_or("float");
  if (format != "float" && format != "base64")
    throw bad_field("encoding_format", "expected float or base64, found " + format.substr(0, 60));
  return format == "base64";
}

// The inputs of one request on their way through the engine.
class Embedding : public std::enable_shared_from_this<Embedding> {
 public:
  Embedding(const Call& call, bool base64, int64_t tokens, size_t inputs)
      : call_(call), base64_(base64), tokens_(tokens), open_(inputs), embeddings_(inputs) {}

  void start(std::vector<engine::Request> requests) {
    const auto self = shared_from_this();
    Listener listener;
    listener.outputs = [self](std::vector<EngineOutput> outputs) {
      self->call_.exchange->post([self, outputs = std::move(outputs)]() mutable { self->take(std::move(outputs)); });
    };
    listener.failed = [self](const ApiError& error) {
      self->call_.exchange->post([self, error] {
        if (!std::exchange(self->over_, true)) self->call_.reply(error);
      });
    };
    const SubmissionId submission =
        call_.service.engine.submit(std::move(requests), std::move(listener), call_.audit->arrived);
    call_.exchange->on_gone([weak = weak_from_this(), submission] {
      const auto embedding = weak.lock();
      if (!embedding || std::exchange(embedding->over_, true)) return;
      embedding->call_.audit->status = 499;
      embedding->call_.service.engine.cancel(submission, std::nullopt, "abort");
    });
  }

 private:
  void take(std::vector<EngineOutput> outputs) {
    for (EngineOutput& output : outputs) embeddings_[output.index] = std::move(output.output.embedding);
    open_ -= outputs.size();
    if (open_ > 0 || std::exchange(over_, true)) return;
    ordered_json data = ordered_json::array();
    for (size_t i = 0; i < embeddings_.size(); ++i) {
      ordered_json entry{{"object", "embedding"}, {"index", i}};
      entry["embedding"] = base64_ ? ordered_json(base64_of(embeddings_[i])) : ordered_json(embeddings_[i]);
      data.push_back(std::move(entry));
    }
    call_.reply(ordered_json{{"object", "list"},
                             {"data", std::move(data)},
                             {"model", call_.audit->model},
                             {"usage", {{"prompt_tokens", tokens_}, {"total_tokens", tokens_}}}});
  }

  const Call call_;
  const bool base64_;
  const int64_t tokens_;
  size_t open_;  // inputs without an embedding
  std::vector<std::vector<float>> embeddings_;
  bool over_ = false;
};

}  // namespace

void embeddings(const Call& call) {
  const LoadedModel& loaded = call.service.loaded();
  const ordered_json body = parse_body(call.request().body);
  const Fields fields(body);
  const std::string adapter = call.service.adapter_of(fields.text("model").value_or(""));
  const engine::Pooling pooling = read_pooling(fields);
  const bool base64 = read_base64(fields);
  if (fields.find("dimensions") != nullptr)
    throw bad_field("dimensions", "this model's embeddings have one length; leave the field out");
  std::vector<engine::Request> requests;
  int64_t tokens = 0;
  for (const Prompt& prompt : read_prompts(fields, "input", loaded.text.vocab_size)) {
    engine::Request request;
    request.prompt = prompt_tokens(loaded.text, prompt);
    call.service.answer_length(request.prompt, 0);
    tokens += static_cast<int64_t>(request.prompt.size());
    request.max_tokens = 0;
    request.pooling = pooling;
    request.adapter = adapter;
    requests.push_back(std::move(request));
  }
  call.audit->prompt_tokens = tokens;
  call.audit->model = adapter.empty() ? call.service.options.model_name : adapter;
  const size_t inputs = requests.size();
  std::make_shared<Embedding>(call, base64, tokens, inputs)->start(std::move(requests));
}

}  // namespace lathe::http
