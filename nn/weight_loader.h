// Takes a model's weights out of a source, one by one, and knows at the end whether any was left over.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "autograd/ops/linear.h"
#include "kernels/cuda/upload.h"
#include "nn/parameter.h"
#include "nn/quantization.h"
#include "nn/weights/weight_source.h"

namespace lathe::nn {

// Whether a frozen matrix stays in the blocks of ggml's that the file has it in.
bool stays_in_blocks(const WeightInfo& weight, DType dtype, StoredBlockUse blocks);
// Whether a frozen matrix of bf16 stays what it is beside activations in f32: half the memory and the same bits.
bool stays_bf16(const WeightInfo& weight, DType dtype, Device device, StoredBlockUse blocks);

class WeightLoader {
 public:
  // On a device, weights travel through pinned buffers while the next are read (kernels/cuda/upload.h). With
  // `parameters`, every weight becomes a dense trainable leaf that is listed there; without, it is frozen and packed.
  // `blocks` says what becomes of frozen matrices that the source holds in ggml's blocks.
  WeightLoader(const WeightSource& source, DType dtype, Device device, std::vector<Parameter>* parameters,
               StoredBlockUse blocks = StoredBlockUse::widen)
      : source_(source), dtype_(dtype), device_(device), parameters_(parameters), blocks_(blocks), upload_(device) {}

  // FormatError when the name is missing or has another shape.
  autograd::LinearWeight matrix(const std::string& name, int64_t rows, int64_t columns);
  // A linear's weight: the source's own codes where it has them; else codes of its f32 values, which live no longer
  // than that, so that at most one weight at a time is dense; else, and where the columns do not suit products
  // (kernels/matmul/weights/quantized_weight.h), the same as matrix(). ConfigError for codes that are to be trained.
  autograd::LinearWeight linear(const std::string& name, int64_t rows, int64_t columns,
                                const std::optional<Quantization>& quantization);
  // `offset` is added to what the file holds.
  autograd::Variable vector(const std::string& name, int64_t size, double offset = 0);
  // The same in f32 (f64 for f64), whatever the model is in.
  autograd::Variable exact_vector(const std::string& name, int64_t size);
  // And that, which never trains.
  Tensor exact_constant(const std::string& name, int64_t size);
  // Of any shape, held plainly.
  autograd::Variable tensor(const std::string& name, const Shape& shape, double offset = 0);
  bool has(std::string_view name) const { return source_.find(name) != nullptr; }
  // A weight that may stand in the file without being used.
  void ignore(const std::string& name) { used_.insert(name); }
  // FormatError naming the weights that nothing asked for.
  void check_all_used() const;
  // Everything loaded so far may be used by what is queued on the device after this.
  void publish() { upload_.publish(); }

 private:
  void expect(const std::string& name, const Shape& shape);
  autograd::Variable held(const std::string& name, Tensor master, DType dtype, double offset);
  Tensor dense(const std::string& name, const Shape& shape, MemoryTag tag = MemoryTag::weights);
  kernels::StoredWeight on_device(kernels::StoredWeight codes) const;
  void fill_rows(const std::string& name, int64_t first_row, const Tensor& rows) const;
  void send_rows(const std::string& name, const Tensor& to);

  const WeightSource& source_;
  DType dtype_;
  Device device_;
  std::vector<Parameter>* parameters_;
  StoredBlockUse blocks_;
  kernels::Upload upload_;
  std::set<std::string, std::less<>> used_;
};

}  // namespace lathe::nn
