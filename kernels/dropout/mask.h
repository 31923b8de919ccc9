// What decides which elements one place of a model drops in one step (dropout.h), as bodies on any device read it. Who
// applies a mask while it reads x for something else (kernels/lora_dropout/) takes it from here, too.
#pragma once

#include <cstdint>
#include <string_view>

namespace lathe {
class Tensor;
struct Device;
}  // namespace lathe

namespace lathe::kernels {

struct DropoutParams;

struct DropoutMask {
  uint32_t key[2];
  uint32_t
      counter[4];  // of sample 0, position 0, column 0, of step 0 where it is stored; the third word counts streams
  const uint32_t* stored_step;  // devices' alone; null: counter has it
  uint32_t threshold;           // words below it drop
  float scale;                  // of what is kept
};
DropoutMask dropout_mask(const DropoutParams& params, Device device);

// An element's counter: the sample's number is added to word 1; a token's position in its sequence and the column, four
// to a counter, make word 0.
inline constexpr int dropout_position_shift = 14;

// What dropout() asks of x, its sequences and the parameters, for an operation that drops elements of x.
void expect_dropout(std::string_view operation, const Tensor& x, const Tensor& cu_seqlens, const Tensor& sample_numbers,
                    const DropoutParams& params);

}  // namespace lathe::kernels
