// Products of f32 on devices in every shape of tile there is, and of few rows: all have the bits of a CPU with fused
// multiply-adds, in every layout, whether lines begin at multiples of 16 bytes or not, with what joins a product.
#include <cmath>
#include <string>

#include "kernels/cuda/queued_work.h"
#include "tests/kernels/f32_device.h"

namespace lathe::kernels {
namespace {

class MatmulF32Device : public F32OnDevice {
 protected:
  void SetUp() override {
    F32OnDevice::SetUp();
    if (!IsSkipped() && active_isa() == Isa::baseline) GTEST_SKIP() << "this CPU has no fused multiply-add";
  }
  // A row of tiles for every other multiprocessor: simt has two, an H100 132.
  int64_t rows() const { return GetParam() == DeviceKind::simt ? 20 : 4180; }
  static Tensor constant(int64_t rows, int64_t columns, float value) {
    const Tensor made = Tensor::empty({rows, columns}, DType::f32);
    for (float& each : made.span<float>()) each = value;
    return made;
  }
};

INSTANTIATE_TEST_SUITE_P(, MatmulF32Device, ::testing::Values(DeviceKind::simt, DeviceKind::cuda),
                         [](const auto& info) { return to_string(Device{info.param}).substr(0, 4); });

// Columns for tiles of 48, 64, 96 and 128; three chains, the last of which ends within a step.
constexpr int64_t column_counts[] = {40, 100, 150, 200};
constexpr int64_t k = 1077, rank = 5;

TEST_P(MatmulF32Device, forward_has_the_bits_of_the_cpu_in_every_tile) {
  for (const int64_t n : column_counts) expect_the_forward_of_the_cpu(rows(), n, k, rank);
}

TEST_P(MatmulF32Device, input_gradient_has_the_bits_of_the_cpu_in_every_tile) {
  for (const int64_t n : column_counts) expect_the_input_gradient_of_the_cpu(rows(), n, k, rank);
}

TEST_P(MatmulF32Device, weight_gradient_has_the_bits_of_the_cpu_in_every_tile) {
  const int32_t bounds[] = {0, 600, 600, k};
  const Tensor cu_seqlens = Tensor::of<int32_t>(bounds, {4});
  for (const int64_t n : column_counts) {
    const Tensor grad_out = random_matrix(k, rows()), x = random_matrix(k, n);
    const Tensor sums = random_matrix(rows(), n), on_device = there(sums);
    linear_weight_gradient(sums, grad_out, x, cu_seqlens, 0.3f);
    linear_weight_gradient(on_device, there(grad_out), there(x), cu_seqlens, 0.3f);
    EXPECT_EQ(bytes(on_device), bytes(sums)) << n << " columns";
  }
}

struct JoinedChains final : QueuedWorkListener {
  int launches = 0;
  void queued(const char* name, int64_t) override { launches += std::string(name) == "join_chains_f32"; }
};

// A tile or two that are long along k: chains are blocks of their own where that pays, and joined by a second launch.
TEST_P(MatmulF32Device, chains_of_few_tiles_have_the_bits_of_the_cpu) {
  const JoinedChains joined;
  for (const int64_t terms : {1024, 1030, 2600}) {
    for (const int64_t n : {33, 50}) {
      expect_the_forward_of_the_cpu(20, n, terms, rank);
      expect_the_input_gradient_of_the_cpu(20, n, terms, rank);
    }
  }
  EXPECT_GE(joined.launches, 4);  // of 1024 and 2600
}

// One, two and many chains beside each other in a block, in one round and several; rows that begin at multiples of 16
// bytes and elsewhere; few columns and, on simt, more than 16 for each multiprocessor.
TEST_P(MatmulF32Device, few_rows_have_the_bits_of_the_cpu) {
  for (const int64_t terms : {24, 576, 1532, 4612, 8700}) {
    for (const int64_t m : {1, 3, 16}) {
      for (const int64_t n : {21, 37}) {
        for (const int64_t padding : {0, 1}) {
          const Tensor x = random_matrix(m, terms + padding), weight = random_matrix(n, terms);
          const Tensor t = random_matrix(m, 11), b = random_matrix(n, 11);
          const Tensor out = Tensor::empty({m, n}, DType::f32), on_device = there(out);
          linear_forward(out, x.slice(1, padding, terms + padding), weight, {.lora_t = t, .lora_b = b});
          linear_forward(on_device, there(x).slice(1, padding, terms + padding), there(weight),
                         {.lora_t = there(t), .lora_b = there(b)});
          EXPECT_EQ(bytes(on_device), bytes(out)) << m << " rows, " << n << " columns, k " << terms << ", " << padding;
        }
      }
    }
  }
}

// Products that underflow leave -0 behind, which a product of zeros past the end of k would turn into +0.
TEST_P(MatmulF32Device, a_sum_of_negative_zero_stays_one) {
  constexpr float tiny = 1e-30f;
  for (const int64_t terms : {3, 32, 45}) {
    for (const int64_t m : {1, 20}) {
      constexpr int64_t n = 6;
      const Tensor x = there(constant(m, terms, -tiny)), rows = there(constant(n, terms, tiny)),
                   lines = there(constant(terms, n, tiny));
      const Tensor forward = there(constant(m, n, 1.0f)), gradient = there(constant(m, n, 1.0f));
      linear_forward(forward, x, rows);
      linear_input_gradient({.grad_x = gradient, .grad_out = x, .weight = lines});
      for (const Tensor& out : {moved(forward, {}), moved(gradient, {})})
        for (const float value : out.span<float>()) EXPECT_TRUE(value == 0.0f && std::signbit(value)) << terms;
    }
  }
}

}  // namespace
}  // namespace lathe::kernels
