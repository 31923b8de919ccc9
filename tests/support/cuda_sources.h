// What must hold of an operation's .cu files before they are compiled by anybody.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/operation_cases.h"

namespace lathe::testing {

// The .cu files of kernels/<operation> below `root`, in alphabetical order.
std::vector<std::filesystem::path> cuda_sources(const std::filesystem::path& root, const std::string& operation);

// A sentence for each fault: no operation of the case list says .cuda_body, so that nothing runs them; a call of a
// function of the standard library, which simt accepts and nvcc refuses. Type traits (std::is_same_v) are no calls.
std::vector<std::string> faults_of_cuda_sources(const std::filesystem::path& root, const std::string& operation,
                                                const std::vector<Operation>& operations);

}  // namespace lathe::testing
