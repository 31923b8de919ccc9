// What lathe-bench times of products with a GGUF file's blocks: an answer's row and a prompt's rows. Their tests are in
// ggml_matmul_test.cpp, because on the CPU, where activations become integers, they have no reference in f64, and in
// ggml_matmul_device_test.cpp.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "kernels/matmul/matmul.h"
#include "tests/kernels/ggml_blocks.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace ggml_matmul_cases {

// Bytes of blocks whose scales are numbers.
inline Generator block_bytes(const RandomBlocks::Layout& layout) {
  return [layout](RandomStream& random, int64_t index) {
    const int64_t high = index % layout.bytes - 1;  // of the scale that a byte belongs to
    const bool of_scale = std::find(layout.f16s.begin(), layout.f16s.end(), high) != layout.f16s.end();
    return of_scale ? 32.0 : static_cast<double>(random.below(256));
  };
}

inline constexpr int64_t rows_made = 32;

inline GgmlWeight weight_on(Device device, const kernels::GgmlRows& rows) {
  if (device.kind == DeviceKind::cpu) return GgmlWeight::pack(rows, DType::bf16);
  kernels::Upload upload(device);
  const GgmlWeight sent = GgmlWeight::send(rows, DType::bf16, device, upload);
  upload.publish();
  return sent;
}

// Packed once, of a few rows that repeat. bytes: the blocks as in the file, the other operands once.
inline Case timed_forward(GgmlFormat format, int64_t m, int64_t n, int64_t k) {
  const RandomBlocks::Layout layout = RandomBlocks::layout(format);
  const int64_t row_bytes = k / layout.elements * layout.bytes;
  Case c{.name = std::string(kernels::name_of(format)) + "_" + std::to_string(m) + "_" + std::to_string(n) + "_" +
                 std::to_string(k) + "_bf16"};
  c.inputs = {{.name = "x", .shape = {m, k}, .dtype = DType::bf16, .values = normal()},
              {.name = "blocks",
               .shape = {rows_made, row_bytes},
               .dtype = DType::u8,
               .values = block_bytes(layout),
               .batch = Batch::shared,
               .on_cpu = true}};
  c.outputs = {{.name = "out", .shape = {m, n}, .dtype = DType::bf16}};
  c.flops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  c.bytes = static_cast<double>(n * row_bytes + m * (n + k) * 2);
  c.start = [=](const Arguments& a) {
    const auto* const blocks = reinterpret_cast<const std::byte*>(a["blocks"].data<uint8_t>());
    std::vector<const std::byte*> rows;
    for (int64_t row = 0; row < n; ++row) rows.push_back(blocks + row % rows_made * row_bytes);
    return [a, weight = weight_on(a["x"].device(), {format, k, rows})] {
      kernels::linear_forward(a["out"], a["x"], weight);
    };
  };
  c.started_bytes = static_cast<double>(n * row_bytes);
  c.run = [start = c.start](const Arguments& a) { start(a)(); };
  c.reduction = k;
  return c;
}

}  // namespace ggml_matmul_cases

inline std::vector<Operation> ggml_matmul_operations() {
  Operation forward{.name = "ggml_linear_forward", .cuda_body = true};
  for (const GgmlFormat format : all_formats) {
    forward.timed.push_back(ggml_matmul_cases::timed_forward(format, 1, 4096, 4096));
    forward.timed.push_back(ggml_matmul_cases::timed_forward(format, 512, 2048, 2048));
    forward.timed_on_cards.push_back(ggml_matmul_cases::timed_forward(format, 1, 4096, 14336));
    if (format != GgmlFormat::q4_0 && format != GgmlFormat::q8_0 && format != GgmlFormat::q4_k) continue;
    forward.timed_on_cards.push_back(ggml_matmul_cases::timed_forward(format, 1, 14336, 4096));
    forward.timed_on_cards.push_back(ggml_matmul_cases::timed_forward(format, 16, 4096, 4096));
  }
  return {forward};
}

}  // namespace lathe::testing
