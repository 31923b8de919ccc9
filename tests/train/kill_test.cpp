// Kill -9 and a full disk in the middle of a run. All training happens in child processes, so that this one, which
// forks them, never starts a thread.
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "core/thread_pool.h"
#include "tests/train/held_rows_objective.h"
#include "train/manifest.h"
#include "train/run_files.h"

namespace lathe::train {
namespace {

namespace fs = std::filesystem;

SftConfig killable_config(const fs::path& folder) {
  SftConfig config = tiny_config(folder);
  config.max_steps = 8;
  config.save_steps = 2;
  config.logging_steps = 3;
  config.save_total_limit = 2;
  config.resume = true;
  return config;
}

// Runs `body` in a child; its exit status.
template <class Body>
pid_t in_child(Body body) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  int code = 0;
  try {
    body();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "child: %s\n", error.what());
    code = 1;
  }
  ::_exit(code);
}

int status_of(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

// To the end, from whatever is there.
void train_to_the_end(const fs::path& folder, int threads) {
  set_thread_count(threads);
  TinyRun run(killable_config(folder), random_rows(13, 1));
  run.train();
  write_result(folder, *run.model, run.trainer->optimizer(), run.config.model);
}

struct Outcome {
  std::string metrics, adapter;
  bool operator==(const Outcome&) const = default;
};
Outcome outcome_in(const fs::path& folder) {
  return {bytes_of(folder / "metrics.jsonl"), bytes_of(folder / "adapter_model.safetensors")};
}

Outcome uninterrupted() {
  const TemporaryFolder folder;
  EXPECT_EQ(status_of(in_child([&] { train_to_the_end(folder.path(), 2); })), 0);
  return outcome_in(folder.path());
}

TEST(Kill, ARunKilledAfterAnyStepResumesToTheSameBytes) {
  const Outcome whole = uninterrupted();
  for (const int64_t steps : {1, 2, 3, 5, 7}) {
    const TemporaryFolder folder;
    const int killed = status_of(in_child([&] {
      TinyRun run(killable_config(folder.path()), random_rows(13, 1));
      run.train(steps);
      ::raise(SIGKILL);
    }));
    ASSERT_TRUE(WIFSIGNALED(killed) && WTERMSIG(killed) == SIGKILL);
    ASSERT_EQ(status_of(in_child([&] { train_to_the_end(folder.path(), 1); })), 0);  // and with one thread
    EXPECT_EQ(outcome_in(folder.path()), whole) << "killed after step " << steps;
  }
}

// With state, and three updates on the same rows: checkpoints fall between the updates.
void train_held_rows(const fs::path& folder, int64_t steps) {
  TinyRun run(killable_config(folder), random_rows(13, 1), held_rows(3));
  run.train(steps);
  if (!run.trainer->done()) ::raise(SIGKILL);
  write_result(folder, *run.model, run.trainer->optimizer(), run.config.model);
}

TEST(Kill, ARunWithStateKilledAfterAnyStepResumesToTheSameBytes) {
  const TemporaryFolder straight;
  ASSERT_EQ(status_of(in_child([&] { train_held_rows(straight.path(), INT64_MAX); })), 0);
  for (int64_t steps = 1; steps < 8; ++steps) {
    const TemporaryFolder folder;
    const int killed = status_of(in_child([&] { train_held_rows(folder.path(), steps); }));
    ASSERT_TRUE(WIFSIGNALED(killed) && WTERMSIG(killed) == SIGKILL);
    ASSERT_EQ(status_of(in_child([&] { train_held_rows(folder.path(), INT64_MAX); })), 0);
    EXPECT_EQ(outcome_in(folder.path()), outcome_in(straight.path())) << "killed after step " << steps;
    EXPECT_EQ(bytes_of(folder.path() / "checkpoint-8/objective/rows.json"),
              bytes_of(straight.path() / "checkpoint-8/objective/rows.json"));
  }
}

bool is_being_written(const fs::path& folder, const std::string& checkpoint) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    if (entry->path().filename().string().starts_with("." + checkpoint + ".writing-")) return true;
  return fs::exists(folder / checkpoint);
}

TEST(Kill, ARunKilledWhileItSavesResumesToTheSameBytes) {
  const Outcome whole = uninterrupted();
  for (const char* checkpoint : {"checkpoint-2", "checkpoint-4", "checkpoint-6", "checkpoint-8"}) {
    const TemporaryFolder folder;
    const pid_t child = in_child([&] { train_to_the_end(folder.path(), 2); });
    while (!is_being_written(folder.path(), checkpoint)) ::sched_yield();
    ::kill(child, SIGKILL);
    status_of(child);
    ASSERT_EQ(status_of(in_child([&] { train_to_the_end(folder.path(), 2); })), 0);
    EXPECT_EQ(outcome_in(folder.path()), whole) << "killed at " << checkpoint;
    EXPECT_FALSE(broken_part(folder.path() / "checkpoint-8").has_value());
  }
}

TEST(FullDisk, AFailedSaveIsAnErrorAndTheOldCheckpointStaysWhole) {
  const TemporaryFolder folder;
  const int status = status_of(in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    TinyRun run(killable_config(folder.path()), random_rows(13, 1));
    run.train(3);
    // From now on no file may grow beyond 4 KiB: the adapter of the next checkpoint does not fit.
    const rlimit limit = {4096, 4096};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) throw Error("setrlimit");
    try {
      run.train(4);
    } catch (const ResourceError& error) {
      if (std::string(error.what()).find("adapter_model.safetensors") == std::string::npos) throw;
      return;
    }
    throw Error("saving on a full disk was no error");
  }));
  ASSERT_EQ(status, 0);
  EXPECT_EQ(list_checkpoints(folder.path()), (std::vector<int64_t>{2}));
  EXPECT_FALSE(broken_part(folder.path() / "checkpoint-2").has_value());
  for (const auto& entry : fs::directory_iterator(folder.path()))
    EXPECT_EQ(entry.path().filename().string().find("writing"), std::string::npos) << entry.path();
  ASSERT_EQ(status_of(in_child([&] { train_to_the_end(folder.path(), 2); })), 0);
  EXPECT_EQ(outcome_in(folder.path()), uninterrupted());
}

}  // namespace
}  // namespace lathe::train
