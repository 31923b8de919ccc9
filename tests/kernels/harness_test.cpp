// The case harness finds what it is there to find: a toy operation passes every check, and each planted fault is
// reported by the check that is meant for it.
#include <gtest/gtest.h>

#include "core/thread_pool.h"
#include "tests/support/kernel_checks.h"

namespace lathe::testing {
namespace {

enum class Fault {
  none,
  wrong_value,
  unwritten_element,
  write_past_the_end,
  changed_input,
  depends_on_batch,
  depends_on_threads,
  depends_on_time,
  wrong_gradient,
  sum_over_whole_batch,
};

// out[t] = Σ_h x[t, h] · weight[h], one ascending chain.
template <class T>
void row_dot(const Arguments& a, Fault fault) {
  static int calls = 0;
  ++calls;
  const Tensor& x = a["x"];
  const int64_t rows = x.dim(0), width = x.dim(1);
  const T* weight = a["weight"].data<T>();
  T* out = a["out"].data<T>();
  const bool reversed = (fault == Fault::depends_on_batch && rows % 2 == 0) ||
                        (fault == Fault::depends_on_threads && thread_count() == 3) ||
                        (fault == Fault::depends_on_time && calls % 2 == 0);
  for (int64_t t = 0; t < rows; ++t) {
    T* row = x.data<T>() + t * x.stride(0);
    T sum = 0;
    for (int64_t h = 0; h < width; ++h) {
      const int64_t i = reversed ? width - 1 - h : h;
      sum += row[i] * weight[i];
    }
    if (fault == Fault::unwritten_element && t == rows - 1) continue;
    if (fault == Fault::wrong_value && t == rows - 1) sum += row[0] * T(1e-3);
    if (fault == Fault::changed_input) row[width - 1] = 0;
    out[t] = sum;
  }
  if (fault == Fault::write_past_the_end) out[rows] = 0;
}

// grad_x[t, h] = grad_out[t] · weight[h]; grad_weight[h] += Σ_t grad_out[t] · x[t, h], sequence by sequence.
template <class T>
void row_dot_backward(const Arguments& a, Fault fault) {
  const Tensor& x = a["x"];
  const int64_t width = x.dim(1);
  const int32_t* bounds = a["cu_seqlens"].data<int32_t>();
  const int64_t sequences = fault == Fault::sum_over_whole_batch ? 1 : a["cu_seqlens"].numel() - 1;
  const int64_t rows = x.dim(0);
  const T *grad_out = a["grad_out"].data<T>(), *weight = a["weight"].data<T>();
  T *grad_x = a["grad_x"].data<T>(), *grad_weight = a["grad_weight"].data<T>();
  for (int64_t t = 0; t < rows; ++t)
    for (int64_t h = 0; h < width; ++h) grad_x[t * width + h] = grad_out[t] * weight[h];
  if (fault == Fault::wrong_gradient) grad_x[width + 2] *= T(1.0001);
  for (int64_t h = 0; h < width; ++h)
    for (int64_t s = 0; s < sequences; ++s) {
      T sum = 0;
      const int64_t end = fault == Fault::sum_over_whole_batch ? rows : bounds[s + 1];
      for (int64_t t = bounds[s]; t < end; ++t) sum += grad_out[t] * x.data<T>()[t * x.stride(0) + h];
      grad_weight[h] += sum;
    }
}

Operation forward_operation(Fault fault) {
  const int64_t rows = 5, width = 37;
  const auto run = [fault](const Arguments& a) {
    a["x"].dtype() == DType::f64 ? row_dot<double>(a, fault) : row_dot<float>(a, fault);
  };
  Case test_case{.name = "padded_rows",
                 .inputs = {{.name = "x", .shape = {rows, width}, .values = normal(), .padding = 3},
                            {.name = "weight", .shape = {width}, .values = extremes(3, 3), .batch = Batch::shared}},
                 .outputs = {{.name = "out", .shape = {rows}}},
                 .run = run,
                 .reference = [](const Arguments& a) { row_dot<double>(a, Fault::none); },
                 .reduction = width};
  return {.name = "row_dot", .cases = {test_case}};
}

Operation backward_operation(Fault fault) {
  const int64_t rows = 9, width = 5;
  const auto run = [fault](const Arguments& a) {
    a["x"].dtype() == DType::f64 ? row_dot_backward<double>(a, fault) : row_dot_backward<float>(a, fault);
  };
  GradientCheck check{.forward = [](const Arguments& a) { row_dot<double>(a, Fault::none); },
                      .results = {{.name = "out", .cotangent = "grad_out"}},
                      .gradients = {{.of = "x", .in = "grad_x"}, {.of = "weight", .in = "grad_weight"}}};
  Case test_case{.name = "three_sequences",
                 .inputs = {{.name = "grad_out", .shape = {rows}, .values = normal()},
                            {.name = "x", .shape = {rows, width}, .values = normal()},
                            {.name = "weight", .shape = {width}, .values = normal(), .batch = Batch::shared},
                            {.name = "cu_seqlens",
                             .shape = {4},
                             .dtype = DType::i32,
                             .values = values({0, 2, 3, 9}),
                             .batch = Batch::bounds}},
                 .outputs = {{.name = "grad_x", .shape = {rows, width}, .factor = 3},
                             {.name = "grad_weight",
                              .shape = {width},
                              .values = normal(),
                              .batch = Batch::shared,
                              .accumulates = true,
                              .factor = 3}},
                 .run = run,
                 .gradient = {check},
                 .reduction = rows};
  return {.name = "row_dot_backward", .cases = {test_case}};
}

std::string joined(const Faults& faults) {
  std::string text;
  for (const std::string& fault : faults) text += fault + "\n";
  return text;
}

using Check = Faults (*)(const Operation&, const Case&, const Place&);
std::string found_by(Check check, const Operation& operation) {
  return joined(check(operation, operation.cases[0], Place{}));
}
std::string gradient_found(Fault fault) {
  const Operation operation = backward_operation(fault);
  return joined(gradient(operation, operation.cases[0]));
}

void expect_mention(const std::string& report, const std::string& words) {
  EXPECT_NE(report.find(words), std::string::npos) << "expected '" << words << "' in: " << report;
}

TEST(Harness, SoundOperationsPassEveryCheck) {
  for (const Operation& operation : {forward_operation(Fault::none), backward_operation(Fault::none)})
    for (const Check check : {matches_reference, writes_everything, repeatable, batch_invariant})
      EXPECT_EQ(found_by(check, operation), "") << operation.name;
  EXPECT_EQ(gradient_found(Fault::none), "");
}

TEST(Harness, NamesTheElementOfAWrongValue) {
  expect_mention(found_by(matches_reference, forward_operation(Fault::wrong_value)), "out[4] is ");
}

TEST(Harness, FindsAnUnwrittenOutput) {
  const Operation operation = forward_operation(Fault::unwritten_element);
  expect_mention(found_by(writes_everything, operation), "out[4]");
  expect_mention(found_by(matches_reference, operation), "out[4] is ");
}

TEST(Harness, FindsAReferenceThatLeavesItsOutputUnwritten) {
  Operation operation = forward_operation(Fault::unwritten_element);
  operation.cases[0].reference = operation.cases[0].run;
  expect_mention(found_by(matches_reference, operation), "the reference left out[4] unwritten");
}

TEST(Harness, FindsAWriteOutsideATensor) {
  expect_mention(found_by(writes_everything, forward_operation(Fault::write_past_the_end)), "wrote outside 'out'");
}

TEST(Harness, FindsAChangedInput) {
  expect_mention(found_by(writes_everything, forward_operation(Fault::changed_input)),
                 "input 'x' was changed at x[0, 36]");
}

TEST(Harness, FindsRowsThatDependOnTheBatch) {
  expect_mention(found_by(batch_invariant, forward_operation(Fault::depends_on_batch)), "run alone");
}

TEST(Harness, FindsResultsThatDependOnThreadsOrTime) {
  expect_mention(found_by(repeatable, forward_operation(Fault::depends_on_threads)), "with 3 threads");
  expect_mention(found_by(repeatable, forward_operation(Fault::depends_on_time)), "of the first run");
}

TEST(Harness, NamesTheElementOfAWrongGradient) {
  expect_mention(gradient_found(Fault::wrong_gradient), "grad_x[1, 2]");
}

TEST(Harness, FindsASumThatIgnoresTheBoundsOfSequences) {
  expect_mention(found_by(batch_invariant, backward_operation(Fault::sum_over_whole_batch)), "accumulated one by one");
}

TEST(Harness, RoundsOnceFromF64) {
  // 1 + 2^-8 + 2^-40 lies just above the middle between two bf16; through a nearest f32 it would fall to the even one.
  EXPECT_EQ(round_to(DType::bf16, 1.0 + 0x1p-8 + 0x1p-40), 1.0 + 0x1p-7);
  EXPECT_EQ(round_to(DType::f16, 1.0 + 0x1p-11 + 0x1p-40), 1.0 + 0x1p-10);
  EXPECT_EQ(round_to(DType::bf16, 1.0 + 0x1p-8), 1.0);
}

}  // namespace
}  // namespace lathe::testing
