// Runs a fuzz target without libFuzzer on every kept file, and on its large inputs: each in a process of its own with
// bounded stack, memory and time, so that an overflow, a hang or an exception that escapes names the file it came from.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "tests/fuzz/large_inputs.h"
#include "tests/fuzz/targets.h"
#include "tests/support/temporary_folder.h"

namespace {

using lathe::fuzz::Target;
using Inputs = std::vector<std::pair<std::string, std::string>>;

constexpr rlim_t seconds = 10, stack_bytes = 8 << 20, memory_bytes = rlim_t{2} << 30;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;  // their shadow memory takes terabytes of addresses
#else
constexpr bool sanitized = false;
#endif

void limit(int resource, rlim_t most) {
  const rlimit bound{most, most};
  if (::setrlimit(static_cast<__rlimit_resource_t>(resource), &bound) != 0) std::perror("setrlimit");
}

// What went wrong, or an empty string.
std::string run(Target target, const std::string& input) {
  const pid_t child = ::fork();
  if (child == 0) {
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_CPU, sanitized ? 10 * seconds : seconds);
    limit(RLIMIT_STACK, stack_bytes);
    if (!sanitized) limit(RLIMIT_AS, memory_bytes);
    target(reinterpret_cast<const uint8_t*>(input.data()), input.size());
    std::exit(0);
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return std::string("cannot run: ") + std::strerror(errno);
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    if (signal == SIGXCPU || signal == SIGKILL) return "took more than " + std::to_string(seconds) + " s";
    return std::string("ended by a signal: ") + ::strsignal(signal);
  }
  if (WEXITSTATUS(status) != 0) return "exit code " + std::to_string(WEXITSTATUS(status));
  return "";
}

Inputs kept_files(const std::filesystem::path& folder) {
  Inputs inputs;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream stream(entry.path(), std::ios::binary);
    inputs.emplace_back(entry.path().string(), std::string(std::istreambuf_iterator<char>(stream), {}));
  }
  std::sort(inputs.begin(), inputs.end());
  return inputs;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s tests/fuzz/corpus/TARGET\n", argv[0]);
    return 2;
  }
  const std::filesystem::path corpus = argv[1];
  const auto targets = lathe::fuzz::all_targets();
  const auto target = targets.find(corpus.filename().string());
  if (target == targets.end()) {
    std::fprintf(stderr, "%s: there is no target %s\n", argv[0], corpus.filename().c_str());
    return 2;
  }
  const lathe::TemporaryFolder folder;  // for the folders of processes that end by a signal
  ::setenv("TMPDIR", folder.path().c_str(), 1);
  Inputs inputs = kept_files(corpus);
  for (auto& [name, bytes] : lathe::fuzz::large_inputs(corpus.filename().string()))
    inputs.emplace_back(name, std::move(bytes));
  int failed = 0;
  for (const auto& [name, bytes] : inputs) {
    const std::string fault = run(target->second, bytes);
    if (fault.empty()) continue;
    ++failed;
    std::fprintf(stderr, "%s: %s\n", name.c_str(), fault.c_str());
  }
  std::printf("%zu inputs, %d failed\n", inputs.size(), failed);
  return failed > 0 || inputs.empty() ? 1 : 0;
}
