#include "tests/support/cuda_sources.h"

#include <algorithm>
#include <fstream>
#include <regex>

namespace lathe::testing {
namespace {

using Paths = std::vector<std::filesystem::path>;

Paths files_of(const std::filesystem::path& folder, const std::vector<std::string>& endings) {
  Paths found;
  if (!std::filesystem::is_directory(folder)) return found;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
    if (std::find(endings.begin(), endings.end(), entry.path().extension()) != endings.end())
      found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  return found;
}

void find_calls_of_the_host(const std::filesystem::path& root, const std::filesystem::path& file,
                            std::vector<std::string>& faults) {
  static const std::regex name("std::(\\w+)");
  std::ifstream in(file);
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    const std::string code = line.substr(0, line.find("//"));
    for (std::sregex_iterator found(code.begin(), code.end(), name), end; found != end; ++found) {
      const std::string what = (*found)[1];
      if (what.ends_with("_v") || what.ends_with("_t")) continue;
      faults.push_back(
          file.lexically_relative(root).string() + ":" + std::to_string(number) + " uses std::" + what +
          ". nvcc refuses functions of the host in a kernel, and what simt compiles of the standard library here would "
          "be shared with the whole program: write it out, or take CUDA's (fmaxf, fabsf)");
    }
  }
}

}  // namespace

Paths cuda_sources(const std::filesystem::path& root, const std::string& operation) {
  return files_of(root / "kernels" / operation, {".cu"});
}

std::vector<std::string> faults_of_cuda_sources(const std::filesystem::path& root, const std::string& operation,
                                                const std::vector<Operation>& operations) {
  std::vector<std::string> faults;
  const Paths sources = cuda_sources(root, operation);
  const bool claimed =
      std::any_of(operations.begin(), operations.end(), [](const Operation& one) { return one.cuda_body; });
  if (!sources.empty() && !claimed)
    faults.push_back(sources.front().lexically_relative(root).string() +
                     " runs in no test: no operation of tests/kernels/" + operation +
                     "_cases.h says .cuda_body = true");
  for (const std::filesystem::path& file : files_of(root / "kernels" / operation, {".cu", ".cuh"}))
    find_calls_of_the_host(root, file, faults);
  return faults;
}

}  // namespace lathe::testing
