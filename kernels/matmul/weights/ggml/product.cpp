#include "kernels/matmul/weights/ggml/product.h"

#include <algorithm>
#include <array>
#include <list>
#include <optional>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/dispatch.h"
#include "kernels/gated/bodies.h"
#include "kernels/matmul/dispatch.h"
#include "kernels/matmul/operands.h"
#include "kernels/matmul/weights/ggml/bodies.h"

namespace lathe::kernels {
namespace {

using ggml::GgmlProductArgs;
using ggml::GgmlTask;
using ggml::panel_rows;
using ggml::QuantizedRows;

constexpr int64_t worth_a_fork = int64_t{1} << 16;  // multiply-adds below which a fork costs more than it gives

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool of_many_rows(ggml::Integers integers) {
  return integers == ggml::Integers::digits || integers == ggml::Integers::digits_of_halves;
}

// The rows of x as integers.
class Quantized {
 public:
  Quantized(const Tensor& x, ggml::Integers integers) {
    const int64_t m = x.dim(0), blocks = x.dim(1) / ggml::block;
    const bool direct = m <= ggml::most_direct_rows(active_isa());
    const int64_t scale_words = sizeof(ggml::BlockScale) / 4, words = ggml::words_of(integers);
    words_ =
        Tensor::empty({m * blocks * (words + scale_words) + ggml::words_behind + ggml::scales_behind * scale_words},
                      DType::u32, {}, MemoryTag::workspace);
    uint32_t* const data = words_.data<uint32_t>();
    rows = {data,
            reinterpret_cast<ggml::BlockScale*>(data + m * blocks * words + ggml::words_behind),
            blocks,
            {m, ceil_div(m, ggml::tile_rows(active_isa(), direct))},
            integers};
    const int64_t tiles = rows.tiling.tiles;
    const int64_t grain = x.numel() < worth_a_fork ? tiles : ceil_div(tiles, 4 * thread_count());
    parallel_for(tiles, grain, [&](int64_t begin, int64_t end) {
      with_product_isa(of_many_rows(integers), [&]<Isa isa>() {
        ggml::quantize_rows<isa>({product_matrix(x), rows, begin, end});
      });
    });
  }

  QuantizedRows rows;

 private:
  Tensor words_;
};

// The rows of x as the products of each format read them, made when they are first asked for.
class QuantizedFor {
 public:
  explicit QuantizedFor(const Tensor& x) : x_(x) {}

  const QuantizedRows& operator()(GgmlFormat format) {
    const ggml::Integers integers = integers_of(format);
    std::optional<Quantized>& made = made_[integers == ggml::Integers::digits_of_halves];
    if (!made) made.emplace(x_, integers);
    return made->rows;
  }

 private:
  ggml::Integers integers_of(GgmlFormat format) const {
    const Isa isa = active_isa();
    const bool few_rows = x_.dim(0) <= ggml::most_direct_rows(isa);
    if (few_rows && (isa == Isa::avx512_bf16 || isa == Isa::amx)) return ggml::Integers::bytes;
    if (few_rows || isa != Isa::amx) return ggml::Integers::pairs;
    const bool of_halves =
        ggml::with_format(format, []<class Format>() { return Format::scales == 2 && !ggml::has_wide_halves<Format>; });
    return of_halves ? ggml::Integers::digits_of_halves : ggml::Integers::digits;
  }

  const Tensor& x_;
  std::optional<Quantized> made_[2];
};

GgmlProductArgs arguments(const QuantizedRows& left, const GgmlProduct& product) {
  const Tensor& panels = product.weight.panels();
  return {.format = product.weight.format(),
          .panels = panels.data<uint8_t>(),
          .panel_bytes = panels.dim(1),
          .n = product.out.dim(1),
          .left = left,
          .second_pairs = product.second_pairs,
          .bias = product_matrix(product.bias),
          .residual = product_matrix(product.residual),
          .out = product_matrix(product.out)};
}

// Products that one task multiplies panel by panel, and what follows of the same columns.
struct Group {
  std::vector<GgmlProductArgs> products;  // of the same n
  std::optional<GatedForwardArgs> gated = {};

  const gemm::Tiling& tiling() const { return products[0].left.tiling; }
  int64_t multiply_adds() const {
    return tiling().rows * products[0].n * std::ssize(products) * products[0].left.blocks * ggml::block;
  }
  int64_t panels() const { return ceil_div(products[0].n, panel_rows); }
  int64_t panel_bytes() const {
    int64_t bytes = 0;
    for (const GgmlProductArgs& product : products) bytes += product.panel_bytes;
    return bytes;
  }

  void multiply(const GgmlTask& task) const {
    with_product_isa(task.workspace != nullptr, [&]<Isa isa>() {
      for (const GgmlProductArgs& product : products) ggml::multiply_blocks<isa>(product, task);
    });
    if (gated) with_isa([&]<Isa isa>() { gated_forward_rows<isa>(gated_part(task)); });
  }

 private:
  GatedForwardArgs gated_part(const GgmlTask& task) const {
    const int64_t first = task.first_panel * panel_rows;
    const auto from_first = [&](const void* data) {
      return static_cast<const char*>(data) + first * size_of(gated->dtype);
    };
    GatedForwardArgs part = *gated;
    part.out.data = const_cast<char*>(from_first(part.out.data));
    part.gate.data = from_first(part.gate.data), part.up.data = from_first(part.up.data);
    part.columns = std::min(gated->columns, task.last_panel * panel_rows) - first;
    part.row_begin = tiling().first_row(task.first_tile), part.row_end = tiling().first_row(task.last_tile);
    return part;
  }
};

// Intel's prefetchers bring a thread's one stream at a third to half of what memory gives. Asked for 4 KB ahead,
// SmolLM2 answers 1.25 (Q4_0) to 2 times as fast (Q8_0) with AMX and AVX-512, 1.1 to 1.9 times with AVX2, 4 and 8
// sequences 1.1 to 1.6 times; 1 and 2 KB gain less, 6 and 8 KB as much. AMD's do better alone.
int64_t prefetch_bytes() {
  static const bool intel = __builtin_cpu_is("intel");
  return intel ? 4096 : 0;
}

// Few rows: the panels of all groups, one group after the other, are cut into pieces of about as many bytes. A panel
// belongs to the piece that its first byte lies in. Groups may have inputs of their own.
void multiply_few_rows(std::span<const Group> groups) {
  int64_t all_bytes = 0, work = 0;
  for (const Group& group : groups) {
    all_bytes += group.panels() * group.panel_bytes();
    work += group.multiply_adds();
  }
  const int64_t pieces = work >= worth_a_fork ? thread_count() : 1;
  parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      int64_t group_begin = 0;
      for (const Group& group : groups) {
        const int64_t panels = group.panels(), bytes = group.panel_bytes();
        const auto panel_at = [&](int64_t cut) {
          return std::clamp<int64_t>(ceil_div(cut * all_bytes / pieces - group_begin, bytes), 0, panels);
        };
        const GgmlTask task{panel_at(piece), panel_at(piece + 1), 0, group.tiling().tiles, nullptr, prefetch_bytes()};
        if (task.first_panel < task.last_panel) group.multiply(task);
        group_begin += panels * bytes;
      }
    }
  });
}

// Many rows: some panels of a group and a stretch of tiles to a task, which unpacks the panels for all of them.
void multiply_many_rows(std::span<const Group> groups) {
  const ggml::TaskShape shape = ggml::task_shape(active_isa());
  const gemm::Tiling& tiling = groups[0].tiling();
  const int64_t tile_rows = ceil_div(tiling.rows, tiling.tiles), tiles_each = shape.rows / tile_rows;
  const int64_t stretches = ceil_div(tiling.tiles, tiles_each);
  int64_t panels = 0, pieces = 0;
  for (const Group& group : groups) panels += group.panels();
  const int64_t panels_each = std::clamp<int64_t>(stretches * panels / (4 * thread_count()), 1, shape.panels);
  for (const Group& group : groups) pieces += ceil_div(group.panels(), panels_each);
  const Tensor workspace = Tensor::empty({thread_count(), shape.workspace_bytes}, DType::u8, {}, MemoryTag::workspace);
  parallel_for(stretches * pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first_tile = task / pieces * tiles_each;
      int64_t piece = task % pieces;
      const Group* group = groups.data();
      for (; piece >= ceil_div(group->panels(), panels_each); ++group) piece -= ceil_div(group->panels(), panels_each);
      const int64_t first_panel = piece * panels_each;
      group->multiply({first_panel, std::min(group->panels(), first_panel + panels_each), first_tile,
                       std::min(tiling.tiles, first_tile + tiles_each),
                       workspace.data<uint8_t>() + thread_index() * shape.workspace_bytes});
    }
  });
}

void multiply(std::span<const Group> groups) {
  ggml_groups(groups[0].tiling().rows) ? multiply_few_rows(groups) : multiply_many_rows(groups);
}

}  // namespace

void ggml_linear_forward(const Tensor& x, std::span<const GgmlProduct> products) {
  if (x.dim(0) == 0) return;
  QuantizedFor quantized(x);
  std::vector<Group> groups;
  for (const GgmlProduct& product : products)
    if (product.out.dim(1) > 0)
      groups.push_back({.products = {arguments(quantized(product.weight.format()), product)}});
  if (!groups.empty()) multiply(groups);
}

bool ggml_groups(int64_t rows) { return rows <= ggml::most_direct_rows(active_isa()); }

void ggml_linear_forward_grouped(std::span<const GgmlGroupedProduct> products) {
  std::list<QuantizedFor> inputs;  // of products that follow each other
  const Tensor* of_last = nullptr;
  std::vector<Group> groups;
  groups.reserve(products.size());
  for (const auto& [x, product] : products) {
    if (of_last == nullptr || !same_rows(*of_last, x)) inputs.emplace_back(x);
    of_last = &x;
    groups.push_back({.products = {arguments(inputs.back()(product.weight.format()), product)}});
  }
  multiply_few_rows(groups);
}

void ggml_gated_linear_forward(const Tensor& out, const Tensor& x, const GgmlProduct& gate, const GgmlProduct& up,
                               Activation activation) {
  if (out.numel() == 0) return;
  QuantizedFor quantized(x);
  const Group group{
      .products = {arguments(quantized(gate.weight.format()), gate), arguments(quantized(up.weight.format()), up)},
      .gated = GatedForwardArgs{.kind = gated_kind(activation),
                                .dtype = out.dtype(),
                                .out = matrix_of(out),
                                .gate = matrix_of(gate.out),
                                .up = matrix_of(up.out),
                                .columns = out.dim(1),
                                .row_begin = 0,
                                .row_end = out.dim(0)}};
  multiply({&group, 1});
}

}  // namespace lathe::kernels
