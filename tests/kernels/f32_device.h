// What tests of f32 products on a device share: inputs, and their bits beside a CPU's.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/random.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/matmul/matmul.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

class F32OnDevice : public ::testing::TestWithParam<DeviceKind> {
 protected:
  void SetUp() override {
    if (const std::string why = why_unavailable(device()); !why.empty()) GTEST_SKIP() << why;
  }
  Device device() const { return {GetParam()}; }
  Tensor random_matrix(int64_t rows, int64_t columns) {
    const Tensor made = Tensor::empty({rows, columns}, DType::f32);
    for (float& value : made.span<float>()) value = static_cast<float>(random_.below(20001)) * 1e-4f - 1.0f;
    return made;
  }
  Tensor there(const Tensor& tensor) const { return moved(tensor, device()); }
  static std::vector<std::byte> bytes(const Tensor& tensor) {
    std::vector<std::byte> result(static_cast<size_t>(tensor.nbytes()));
    copy_bytes({}, result.data(), tensor.device(), tensor.raw(), tensor.nbytes());
    return result;
  }

  // x [m, k] by a weight [n, k], with everything that joins a product: the bits of the CPU.
  void expect_the_forward_of_the_cpu(int64_t m, int64_t n, int64_t k, int64_t rank) {
    const Tensor x = random_matrix(m, k), weight = random_matrix(n, k);
    const Tensor t = random_matrix(m, rank), b = random_matrix(n, rank);
    const Tensor bias = random_matrix(1, n).view({n}), residual = random_matrix(m, n);
    const Tensor out = Tensor::empty({m, n}, DType::f32), on_device = there(out);
    linear_forward(out, x, weight, {.lora_t = t, .lora_b = b, .bias = bias, .residual = residual});
    linear_forward(on_device, there(x), there(weight),
                   {.lora_t = there(t), .lora_b = there(b), .bias = there(bias), .residual = there(residual)});
    EXPECT_EQ(bytes(on_device), bytes(out)) << m << " rows, " << n << " columns, k " << k;
  }
  // grad_out [m, k] back through a weight [k, n], with an adapter's share.
  void expect_the_input_gradient_of_the_cpu(int64_t m, int64_t n, int64_t k, int64_t rank) {
    const Tensor grad_out = random_matrix(m, k), weight = random_matrix(k, n);
    const Tensor dt = random_matrix(m, rank), a = random_matrix(rank, n);
    const Tensor out = Tensor::empty({m, n}, DType::f32), on_device = there(out);
    linear_input_gradient({.grad_x = out, .grad_out = grad_out, .weight = weight, .lora_dt = dt, .lora_a = a});
    linear_input_gradient({.grad_x = on_device,
                           .grad_out = there(grad_out),
                           .weight = there(weight),
                           .lora_dt = there(dt),
                           .lora_a = there(a)});
    EXPECT_EQ(bytes(on_device), bytes(out)) << m << " rows, " << n << " columns, k " << k << ", gradient";
  }

 private:
  RandomStream random_{1, RandomPurpose::test};
};

}  // namespace lathe::kernels
