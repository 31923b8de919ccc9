// How an operation declares its cases: once, for the tests, the bench, and every device.
//
// A case names its inputs and outputs, how the operation is called, and which part of each tensor belongs to one member
// of the batch. kernel_checks.h turns that into tests, lathe-bench into timings. The operation called with f64 tensors
// is its own reference. A new operation needs its header, reference.cpp, and a file like
// tests/kernels/rms_norm_cases.h.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/random.h"
#include "core/tensor.h"
#include "kernels/matmul/arguments.h"

namespace lathe::testing {

// The value of element `index` of a tensor, drawn from a stream that is seeded by operation, case and tensor name.
using Generator = std::function<double(RandomStream& random, int64_t index)>;
Generator normal(double scale = 1.0);
Generator uniform(double low, double high);
Generator integers(int64_t low, int64_t high);  // both included
Generator values(std::vector<double> listed);   // repeated when there are more elements
Generator constant(double value);
// Zeros of both signs, subnormals of bf16, and magnitudes from 2^-low_exponent to 2^exponent of both signs.
Generator extremes(int exponent = 40, int low_exponent = 40);
Generator computed();  // left to Case::prepare

// What a tensor has to do with the batch.
enum class Batch {
  shared,     // the same for the whole batch (a weight), or a result of the whole batch (a weight's gradient)
  rows,       // batch_dimension counts rows (tokens)
  sequences,  // batch_dimension counts sequences
  bounds,     // cu_seqlens: the members of the batch are sequences, and this tensor cuts the rows into them
};

struct Operand {
  std::string name;
  Shape shape;
  DType dtype = DType::f32;
  Generator values = {};  // inputs, and outputs that accumulate
  Batch batch = Batch::rows;
  int batch_dimension = 0;
  int64_t padding = 0;      // elements left between rows of the last dimension, so that the tensor is strided
  bool on_cpu = false;      // index tensors that the operation wants on the CPU whatever the device
  bool may_repeat = false;  // integers that mean the same wherever they stand: the bench makes a piece of them
  // Outputs only.
  bool accumulates = false;      // the operation adds to what `values` put there
  std::string in_place_of = {};  // shares the memory of that input
  double factor = 2.0;           // of the plain arithmetic's error that is allowed; 3 for gradients at most
};

// The input "cu_seqlens": cuts the rows into sequences at these places, the first 0.
Operand sequence_bounds(const std::vector<double>& cu_seqlens);

// The tensors of one call, by name. An unknown name throws.
class Arguments {
 public:
  const Tensor& operator[](std::string_view name) const;
  bool has(std::string_view name) const { return tensors_.find(name) != tensors_.end(); }
  void set(const std::string& name, Tensor tensor) { tensors_[name] = std::move(tensor); }

 private:
  std::map<std::string, Tensor, std::less<>> tensors_;
};
using Call = std::function<void(const Arguments&)>;

// For a backward operation: Σ over results of Σ cotangent · result, differentiated numerically along random directions
// in f64, must agree with the operation's gradients.
struct GradientCheck {
  struct Result {
    std::string name;       // written by `forward`; has its cotangent's shape
    std::string cotangent;  // the input that holds ∂L/∂result; empty: ones, and the shape of the operand `name`
  };
  struct Gradient {
    std::string of;  // an input of the case
    std::string in;  // the output that holds its gradient
  };
  Call forward;
  std::vector<Result> results;
  std::vector<Gradient> gradients;
};

// The matrices of a case that are multiplied, by name; nothing else that the case adds.
struct ProductOf {
  kernels::ProductLayout layout;
  std::string out, left, right;
};

struct Case {
  std::string name;  // letters, digits, '_'
  std::vector<Operand> inputs, outputs;
  Call run;
  Call reference = {};  // f64 tensors for every floating operand; `run` itself when empty
  Call plain = {};      // the arithmetic done plainly in the dtypes, on the CPU; see kernel_checks.h when empty
  Call prepare = {};    // fills the inputs that are computed(), in f64
  std::vector<GradientCheck> gradient = {};  // none or one
  int64_t reduction = 1;                     // terms of the longest sum behind one output element
  // For lathe-bench. bytes 0: every input and output once, and accumulated outputs twice.
  double flops = 0, bytes = 0;
  // What a program does once and not at each call (packing a weight); returns the call to be timed. Empty: `run` is.
  std::function<std::function<void()>(const Arguments&)> start = {};
  double started_bytes = 0;               // that each start() holds beside the operands
  std::optional<ProductOf> product = {};  // what cuBLASLt is timed with beside it, on a card
};

struct Operation {
  std::string name;                       // rms_norm_forward
  std::vector<Case> cases;                // checked by the tests: small
  std::vector<Case> timed = {};           // timed by lathe-bench: realistic shapes
  std::vector<Case> timed_on_cards = {};  // and those that take a CPU too long
  bool cuda_body = false;                 // has a cuda.cu: is checked on simt, and on a card where there is one
};

// ---- what the checks and the bench build from a case ----

double load_element(const std::byte* element, DType dtype);
void store_element(std::byte* element, DType dtype, double value);  // rounds to nearest even
double round_to(DType dtype, double value);
double unit_roundoff(DType dtype);  // half the gap above 1; 0 for integers

// Contents of operands by name: every element in f64, row-major without padding, or a piece that repeats.
using Contents = std::map<std::string, std::vector<double>, std::less<>>;

// Inputs and starting values of accumulating outputs, rounded to their dtypes. What `prepare` computes is rounded, too,
// or left in f64 where gradients are checked.
enum class Prepared { rounded, exact };
Contents make_contents(const Operation& operation, const Case& test_case, Prepared prepared = Prepared::rounded);
// The same for timing: of a floating operand, and of those that may repeat, only the first elements. On a card the
// largest operands, made one by one, would take longer than what is timed.
Contents make_repeating_contents(const Operation& operation, const Case& test_case);

// Members [first, first + count) of the batch: the case with smaller shapes, and its contents.
int64_t batch_size(const Case& test_case, const Contents& contents);
Case restrict_case(const Case& test_case, const Contents& contents, int64_t first, int64_t count);
Contents restrict_contents(const Case& test_case, const Contents& contents, int64_t first, int64_t count);
// The elements of an operand (or of its result) that belong to these members.
std::vector<double> restrict_operand(const Operand& operand, const std::vector<double>& all, const Case& test_case,
                                     const Contents& contents, int64_t first, int64_t count);

}  // namespace lathe::testing
