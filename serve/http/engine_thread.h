// The one thread that owns the model and the engine. HTTP threads hand it work and are told, on its thread, what came
// of it; they never wait for it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "nn/transformer.h"
#include "serve/engine/engine.h"
#include "serve/http/api_error.h"
#include "serve/http/metrics.h"
#include "text/model_text.h"

namespace lathe::http {

struct LoadedModel {
  text::ModelText text;
  std::unique_ptr<nn::Transformer> model;
  engine::EngineOptions engine;
  int64_t load_ms = 0;
};

struct EngineLimits {
  int64_t max_waiting = 256;  // sequences without a token yet: beyond, submissions get 429
  double stall_seconds = 30;  // a step that takes longer is reported by trouble()
};

using SubmissionId = uint64_t;

struct EngineOutput {
  size_t index;  // of the submission's requests
  engine::TokenOutput output;
};

// Called on the engine's thread; must not block. A request that fails takes its submission with it.
struct Listener {
  std::function<void(std::vector<EngineOutput>)> outputs;
  std::function<void(const ApiError&)> failed;  // instead of all outputs that are still to come
};

class EngineThread {
 public:
  // `load` runs on the thread, which is started at once.
  EngineThread(std::function<LoadedModel()> load, const EngineLimits& limits, Metrics& metrics);
  ~EngineThread();  // stop()
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;

  const EngineLimits& limits() const { return limits_; }
  // Ready when the model is loaded; throws what loading threw.
  std::shared_future<void> loaded() const { return loaded_; }
  // Null while the model is being loaded.
  const LoadedModel* model() const { return model_.load(); }
  // Tokens that a prompt and its answer may have together: the model's context, or what the cache holds.
  int64_t context() const { return context_; }

  // ApiError 429 where too many wait, 503 where the thread has stopped.
  SubmissionId submit(std::vector<engine::Request> requests, Listener listener, Clock::time_point arrived);
  // One sequence, or all of a submission: their pages are free before the next step. Its listener hears no more of it.
  // `reason` is what metrics say: stop where the answer had ended, abort where the client went away.
  void cancel(SubmissionId submission, std::optional<size_t> index, const char* reason);

  // done(nullopt) when the adapter answers, or what is wrong. An adapter that is unloaded goes when the last sequence
  // that uses it has ended; its name is free after that.
  using Done = std::function<void(std::optional<ApiError>)>;
  void load_adapter(const std::string& name, const std::shared_ptr<const nn::PeftAdapter>& adapter, const Done& done);
  void unload_adapter(const std::string& name, const Done& done);

  int64_t live_sequences() const { return live_; }
  // Why no answers are to be expected; empty where all is well.
  std::string trouble() const;
  // Ends every sequence with `error`, and the thread: when it returns no listener is called any more. Not from it.
  void stop(const ApiError& error);
  // The same, and whether it came about in time: neither a step nor a load that hangs can be interrupted. False: the
  // thread goes on with everything it uses, and the process can only leave.
  bool stop_within(const ApiError& error, std::chrono::milliseconds patience);

 private:
  struct Running;
  using Command = std::function<void(Running&)>;

  void run(const std::function<LoadedModel()>& load, std::promise<void> loaded);
  void serve(Running& running);
  void step(Running& running);
  bool post(Command command);  // false when the thread has stopped
  std::vector<Command> take_commands(bool wait);
  void publish(Running& running, std::vector<engine::TokenOutput> outputs);
  void end_sequence(Running& running, engine::RequestId id, const char* reason);
  void fail_submission(Running& running, SubmissionId id, const ApiError& error, const char* reason);
  void fail_all(Running& running, const ApiError& error);
  void remove_unused_adapters(Running& running);

  const EngineLimits limits_;
  Metrics& metrics_;
  std::atomic<const LoadedModel*> model_ = nullptr;
  std::atomic<int64_t> context_ = 0;
  std::atomic<int64_t> live_ = 0, waiting_ = 0;  // sequences that were submitted; of those, without an output
  std::atomic<int64_t> step_began_ = 0;          // ticks of the clock; 0: no step is running
  std::atomic<int> failures_ = 0;                // steps in a row that threw
  std::atomic<SubmissionId> next_submission_ = 1;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Command> commands_;
  bool stopped_ = false;
  std::string last_failure_;

  std::unique_ptr<Running> running_;  // the thread's own; kept until the end, since others read the loaded model
  std::shared_future<void> loaded_;
  std::future<void> ended_;
  std::thread thread_;
};

}  // namespace lathe::http
