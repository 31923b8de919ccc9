#include "serve/http/engine_thread.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace lathe::http {
namespace {

constexpr int most_failures = 3;  // steps in a row that throw before the engine counts as broken

int64_t ticks_now() { return Clock::now().time_since_epoch().count(); }

}  // namespace

// What only the engine's thread touches.
struct EngineThread::Running {
  struct Sequence {
    SubmissionId submission;
    size_t index;
    SequenceTimes times;
    int64_t prompt_tokens;
    int64_t generated_tokens = 0;
  };
  struct Submission {
    Listener listener;
    std::map<size_t, engine::RequestId> sequences;  // that have not ended, by index
  };

  LoadedModel loaded;
  engine::Engine engine;
  std::unordered_map<engine::RequestId, Sequence> sequences = {};
  std::map<SubmissionId, Submission> submissions = {};
  std::set<std::string> leaving = {};  // adapters that go with their last sequence
  std::optional<ApiError> stopping = {};

  explicit Running(LoadedModel model) : loaded(std::move(model)), engine(*loaded.model, loaded.engine) {}
};

EngineThread::EngineThread(std::function<LoadedModel()> load, const EngineLimits& limits, Metrics& metrics)
    : limits_(limits), metrics_(metrics) {
  std::promise<void> loaded, ended;
  loaded_ = loaded.get_future().share();
  ended_ = ended.get_future();
  thread_ = std::thread([this, load = std::move(load), loaded = std::move(loaded), ended = std::move(ended)]() mutable {
    run(load, std::move(loaded));
    ended.set_value();
  });
}

EngineThread::~EngineThread() { stop(ApiError(503, "the server is shutting down")); }

void EngineThread::run(const std::function<LoadedModel()>& load, std::promise<void> loaded) {
  try {
    running_ = std::make_unique<Running>(load());
  } catch (...) {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    loaded.set_exception(std::current_exception());
    return;
  }
  const engine::EngineStats stats = running_->engine.stats();
  metrics_.engine_stats(stats);
  context_ = std::min(running_->loaded.model->max_positions(),
                      (stats.pages_used + stats.pages_cached + stats.pages_free) * nn::KvCache::default_page_size);
  model_ = &running_->loaded;
  loaded.set_value();
  serve(*running_);
  fail_all(*running_, *running_->stopping);
  metrics_.engine_stats(running_->engine.stats());
}

void EngineThread::serve(Running& running) {
  while (!running.stopping) {
    remove_unused_adapters(running);
    for (const Command& command : take_commands(running.engine.idle())) command(running);
    if (!running.stopping && !running.engine.idle()) step(running);
    metrics_.engine_stats(running.engine.stats());
  }
  // What came after the stop.
  const ApiError error = *running.stopping;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  for (const Command& command : take_commands(false)) command(running);
  running.stopping = error;
}

void EngineThread::step(Running& running) {
  step_began_ = ticks_now();
  try {
    const Clock::time_point began = Clock::now();
    std::vector<engine::TokenOutput> outputs = running.engine.step();
    const auto ended =
        std::ranges::count_if(outputs, [](const auto& output) { return output.finish_reason.has_value(); });
    for (const engine::RequestId id : running.engine.started())
      if (const auto started = running.sequences.find(id); started != running.sequences.end())
        started->second.times.started = began;
    metrics_.step_done(std::chrono::duration<double>(Clock::now() - began).count(),
                       running.engine.stats().requests_running + ended);
    metrics_.engine_stats(running.engine.stats());  // who has an answer finds it counted
    publish(running, std::move(outputs));
    failures_ = 0;
  } catch (const std::exception& error) {
    {
      const std::lock_guard lock(mutex_);
      last_failure_ = error.what();
    }
    ++failures_;
    fail_all(running, ApiError(500, std::string("the engine failed: ") + error.what()));
  }
  step_began_ = 0;
}

bool EngineThread::post(Command command) {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return false;
    commands_.push_back(std::move(command));
  }
  wake_.notify_one();
  return true;
}

std::vector<EngineThread::Command> EngineThread::take_commands(bool wait) {
  std::unique_lock lock(mutex_);
  if (wait) wake_.wait(lock, [&] { return !commands_.empty(); });
  std::vector<Command> commands(std::make_move_iterator(commands_.begin()), std::make_move_iterator(commands_.end()));
  commands_.clear();
  return commands;
}

SubmissionId EngineThread::submit(std::vector<engine::Request> requests, Listener listener, Clock::time_point arrived) {
  const auto count = static_cast<int64_t>(requests.size());
  if (waiting_.fetch_add(count) + count > std::max(limits_.max_waiting, count)) {
    waiting_ -= count;
    throw ApiError(429, fmt::format("{} sequences are waiting already; try again later", limits_.max_waiting), {},
                   "queue_full")
        .after(1);
  }
  live_ += count;
  const SubmissionId id = next_submission_++;
  const auto add = [this, id, arrived, requests = std::move(requests),
                    listener = std::move(listener)](Running& running) mutable {
    Running::Submission& submission = running.submissions[id];
    submission.listener = listener;
    size_t index = 0;
    try {
      if (running.stopping) throw ApiError(*running.stopping);
      for (; index < requests.size(); ++index) {
        engine::Request& request = requests[index];
        if (running.leaving.contains(request.adapter.value_or("")))
          throw ApiError(404, "the adapter " + *request.adapter + " is being unloaded", "model", "model_not_found");
        Running::Sequence sequence{id, index, {arrived, {}, {}, {}}, static_cast<int64_t>(request.prompt.size())};
        const engine::RequestId request_id = running.engine.add(std::move(request));
        running.sequences.emplace(request_id, sequence);
        submission.sequences.emplace(index, request_id);
      }
    } catch (const std::exception& error) {
      const auto* api_error = dynamic_cast<const ApiError*>(&error);
      const auto rest = static_cast<int64_t>(requests.size() - index);
      live_ -= rest;
      waiting_ -= rest;
      fail_submission(running, id, api_error != nullptr ? *api_error : ApiError(400, error.what()), "abort");
    }
  };
  if (!post(add)) {
    live_ -= count;
    waiting_ -= count;
    throw ApiError(503, "the server is shutting down");
  }
  return id;
}

void EngineThread::cancel(SubmissionId id, std::optional<size_t> index, const char* reason) {
  post([this, id, index, reason](Running& running) {
    const auto found = running.submissions.find(id);
    if (found == running.submissions.end()) return;
    std::map<size_t, engine::RequestId>& sequences = found->second.sequences;
    if (index) {
      if (const auto sequence = sequences.find(*index); sequence != sequences.end())
        end_sequence(running, sequence->second, reason);
    } else {
      while (!sequences.empty()) end_sequence(running, sequences.begin()->second, reason);
    }
    if (sequences.empty()) running.submissions.erase(id);
  });
}

// Takes it out of the books and, where it has not ended there, out of the engine.
void EngineThread::end_sequence(Running& running, engine::RequestId id, const char* reason) {
  const auto found = running.sequences.find(id);
  const Running::Sequence& sequence = found->second;
  running.engine.cancel(id);
  metrics_.sequence_ended(reason, sequence.times, sequence.prompt_tokens, sequence.generated_tokens);
  --live_;  // once it is counted: who sees none left finds all of them in the counters
  if (sequence.generated_tokens == 0) --waiting_;
  running.submissions.at(sequence.submission).sequences.erase(sequence.index);
  running.sequences.erase(found);
}

void EngineThread::publish(Running& running, std::vector<engine::TokenOutput> outputs) {
  const Clock::time_point now = Clock::now();
  std::map<SubmissionId, std::vector<EngineOutput>> by_submission;
  for (engine::TokenOutput& output : outputs) {
    const auto found = running.sequences.find(output.request);
    if (found == running.sequences.end()) continue;
    Running::Sequence& sequence = found->second;
    const SubmissionId submission = sequence.submission;
    const size_t index = sequence.index;
    if (output.finish_reason == engine::FinishReason::failed) {
      fail_submission(running, submission, ApiError(500, output.failure), "error");
      by_submission.erase(submission);
      continue;
    }
    if (output.embedding.empty()) {
      const bool first = sequence.generated_tokens++ == 0;
      if (first) {
        --waiting_;
        sequence.times.first_token = now;
      }
      metrics_.token_published(first, sequence.times, now);
      sequence.times.last_token = now;
    }
    if (output.finish_reason)
      end_sequence(running, output.request, output.finish_reason == engine::FinishReason::stop ? "stop" : "length");
    by_submission[submission].push_back({index, std::move(output)});
  }
  for (auto& [id, some] : by_submission) {
    const auto submission = running.submissions.find(id);
    submission->second.listener.outputs(std::move(some));
    if (submission->second.sequences.empty()) running.submissions.erase(submission);
  }
}

void EngineThread::fail_submission(Running& running, SubmissionId id, const ApiError& error, const char* reason) {
  const auto submission = running.submissions.find(id);
  while (!submission->second.sequences.empty())
    end_sequence(running, submission->second.sequences.begin()->second, reason);
  const Listener listener = std::move(submission->second.listener);
  running.submissions.erase(submission);
  listener.failed(error);
}

void EngineThread::fail_all(Running& running, const ApiError& error) {
  while (!running.sequences.empty()) end_sequence(running, running.sequences.begin()->first, "abort");
  for (const auto& [id, submission] : running.submissions) submission.listener.failed(error);
  running.submissions.clear();
}

void EngineThread::load_adapter(const std::string& name, const std::shared_ptr<const nn::PeftAdapter>& adapter,
                                const Done& done) {
  const auto load = [name, adapter, done](Running& running) {
    try {
      const auto names = running.loaded.model->adapter_names();
      if (std::ranges::find(names, name) != names.end())
        throw ApiError(400, "the adapter " + name + " is loaded already; unload it first", "lora_name");
      running.loaded.model->load_adapter(*adapter, name);
    } catch (const ApiError& error) {
      return done(error);
    } catch (const Error& error) {
      return done(ApiError(400, error.what(), "lora_path"));
    } catch (const std::exception& error) {
      return done(ApiError(500, error.what()));
    }
    done(std::nullopt);
  };
  if (!post(load)) done(ApiError(503, "the server is shutting down"));
}

void EngineThread::unload_adapter(const std::string& name, const Done& done) {
  const auto unload = [name, done](Running& running) {
    running.leaving.insert(name);
    done(std::nullopt);
  };
  if (!post(unload)) done(ApiError(503, "the server is shutting down"));
}

void EngineThread::remove_unused_adapters(Running& running) {
  std::erase_if(running.leaving, [&](const std::string& name) {
    if (running.engine.requests_of_adapter(name) > 0) return false;
    running.engine.release_adapter(name);
    running.loaded.model->remove_adapter(name);
    return true;
  });
}

std::string EngineThread::trouble() const {
  if (const int64_t began = step_began_; began != 0) {
    const double seconds = std::chrono::duration<double>(Clock::duration(ticks_now() - began)).count();
    if (seconds > limits_.stall_seconds) return fmt::format("the engine's step has been running for {:.0f} s", seconds);
  }
  if (failures_ >= most_failures) {
    const std::lock_guard lock(mutex_);
    return "the engine's last steps failed: " + last_failure_;
  }
  return {};
}

void EngineThread::stop(const ApiError& error) {
  post([error](Running& running) { running.stopping = error; });
  if (thread_.joinable()) thread_.join();
}

bool EngineThread::stop_within(const ApiError& error, std::chrono::milliseconds patience) {
  post([error](Running& running) { running.stopping = error; });
  if (ended_.wait_for(patience) != std::future_status::ready) return false;
  stop(error);
  return true;
}

}  // namespace lathe::http
