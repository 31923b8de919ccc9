#include "kernels/matmul/weights/ggml/product.h"

#include <algorithm>

#include "core/thread_pool.h"
#include "kernels/dispatch.h"
#include "kernels/matmul/weights/ggml/bodies.h"

namespace lathe::kernels {
namespace {

using ggml::GgmlProductArgs;
using ggml::GgmlTask;
using ggml::QuantizedRows;

constexpr int64_t worth_a_fork = int64_t{1} << 16;  // multiply-adds below which a fork costs more than it gives

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

ProductMatrix matrix(const Tensor& tensor) {
  if (!tensor.defined()) return {};
  return {tensor.raw(), tensor.rank() == 2 ? tensor.stride(0) : 0, tensor.dtype()};
}

void quantize(const Tensor& x, const QuantizedRows& rows) {
  const int64_t tiles = rows.tiling.tiles;
  const int64_t grain = x.numel() < worth_a_fork ? tiles : ceil_div(tiles, 4 * thread_count());
  parallel_for(tiles, grain, [&](int64_t begin, int64_t end) {
    with_isa([&]<Isa isa>() { ggml::quantize_rows<isa>({matrix(x), rows, begin, end}); });
  });
}

// Panels for each thread, or for many rows a panel and a stretch of tiles for a task.
void multiply(const GgmlProductArgs& args, int64_t panels, bool direct) {
  const int64_t rows = args.left.tiling.rows, tiles = args.left.tiling.tiles;
  if (direct) {
    const bool forks = rows * args.n * args.left.blocks * ggml::block >= worth_a_fork;
    const int64_t grain = forks ? ceil_div(panels, 4 * thread_count()) : panels;
    return parallel_for(panels, grain, [&](int64_t begin, int64_t end) {
      with_isa([&]<Isa isa>() { ggml::multiply_blocks<isa>(args, {begin, end, 0, tiles, nullptr}); });
    });
  }
  const int64_t tile_rows = ceil_div(rows, tiles), tiles_each = ggml::most_task_rows / tile_rows;
  const int64_t stretches = ceil_div(tiles, tiles_each);
  const Tensor unpacked = Tensor::empty({thread_count(), ggml::unpacked_bytes}, DType::u8, {}, MemoryTag::workspace);
  parallel_for(stretches * panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t panel = task % panels, first = task / panels * tiles_each;
      const GgmlTask part{panel, panel + 1, first, std::min(tiles, first + tiles_each),
                          unpacked.data<uint8_t>() + thread_index() * ggml::unpacked_bytes};
      with_isa([&]<Isa isa>() { ggml::multiply_blocks<isa>(args, part); });
    }
  });
}

}  // namespace

void ggml_linear_forward(const Tensor& out, const Tensor& x, const GgmlWeight& weight,
                         std::span<const SecondPair> second_pairs, const LinearTerms& terms) {
  const int64_t rows = x.dim(0), blocks = x.dim(1) / ggml::block;
  if (rows == 0 || out.dim(1) == 0) return;
  const bool direct = rows <= ggml::most_direct_rows;
  const Tensor pairs = Tensor::empty({rows, blocks, 16}, DType::u32, {}, MemoryTag::workspace);
  const Tensor scales = Tensor::empty({rows, blocks, 2}, DType::f32, {}, MemoryTag::workspace);
  const QuantizedRows left{pairs.data<uint32_t>(),
                           scales.data<float>(),
                           blocks,
                           {rows, ceil_div(rows, ggml::tile_rows(active_isa(), direct))}};
  quantize(x, left);
  const Tensor& panels = weight.panels();
  const GgmlProductArgs args{.format = weight.format(),
                             .panels = panels.data<uint8_t>(),
                             .panel_bytes = panels.dim(1),
                             .n = out.dim(1),
                             .left = left,
                             .second_pairs = second_pairs,
                             .bias = matrix(terms.bias),
                             .residual = matrix(terms.residual),
                             .out = matrix(out)};
  multiply(args, panels.dim(0), direct);
}

}  // namespace lathe::kernels
