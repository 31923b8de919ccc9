// What every operation must withstand, from its cases alone. In tests/kernels/<op>_test.cpp:
//
//   LATHE_CHECK_OPERATIONS(lathe::testing::rms_norm_operations());
//
// registers, for every case and every place the operation can run (the CPU under each instruction set, simt, a card):
//   matches_reference   against the f64 reference by FlashAttention's rule
//   writes_everything   results do not depend on what outputs and workspace held before; nothing else is written
//   repeatable          the same bits again, with 1, 2 and 3 threads
//   batch_invariant     the same bits for a member of the batch alone and in any batch; accumulated results are
//                       the same bits when the batch comes in parts
//   any_fiber_order     simt only: ascending, descending and shuffled threads give the same bits
// and once, for a backward operation:
//   gradient            against numerical differentiation in f64
// and once, for kernels/<op>: cuda_sources.<op>, see cuda_sources.h.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/simd/isa.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

// A device, and the instruction set when it is the CPU.
struct Place {
  Device device = {};
  std::optional<kernels::Isa> isa = {};
  std::string name() const;  // "cpu_avx2", "simt", "cuda"
};
std::vector<Place> places_for(const Operation& operation);  // those this build and this machine have

// Each check returns what it found wrong, a sentence each; nothing when all is well.
using Faults = std::vector<std::string>;

// FlashAttention's rule, row by row of the batch: max |result − reference| ≤ factor · max |plain − reference| + floor.
// `plain` is the case's own plain arithmetic. Without it, it is what backward error analysis says plain arithmetic
// gives: the exact operation on inputs that are each off by a relative error of a unit roundoff of their dtype, or of
// f32 times √reduction (the random walk of a sum's roundings) where that is more; the worst of four draws.
// floor: the result's own rounding and the sum's, (u(dtype) + u(f32) √reduction) · max |reference| of the row.
// Integer results must be equal. Infinities and NaN must be where the reference, rounded to the dtype, has them.
Faults matches_reference(const Operation& operation, const Case& test_case, const Place& place);
Faults writes_everything(const Operation& operation, const Case& test_case, const Place& place);
Faults repeatable(const Operation& operation, const Case& test_case, const Place& place);
Faults batch_invariant(const Operation& operation, const Case& test_case, const Place& place);
Faults any_fiber_order(const Operation& operation, const Case& test_case, const Place& place);
Faults gradient(const Operation& operation, const Case& test_case);

// Registers a test for every check, named <operation>.<case>/<check>/<place>. `test_file` is
// tests/kernels/<op>_test.cpp.
bool register_operation_tests(const std::filesystem::path& test_file, const std::vector<Operation>& operations);

}  // namespace lathe::testing

#define LATHE_CHECK_OPERATIONS(...)                                \
  [[maybe_unused]] static const bool lathe_operations_registered = \
      ::lathe::testing::register_operation_tests(__FILE__, __VA_ARGS__)
