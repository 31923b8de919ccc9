#include "kernels/matmul/grouped.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/matmul/cuda/grouped.h"
#include "kernels/matmul/device.h"
#include "kernels/matmul/operands.h"
#include "kernels/matmul/weights/ggml/cuda/bodies.h"

namespace lathe::kernels {
namespace {

constexpr int64_t most_grid_y = 65535;  // a launch has so many groups of few rows

bool has_large_groups(Device device) {
  bool has = false;
  with_device(device, [&]<DeviceKind kind>() { has = takes_large_groups<kind>(); });
  return has;
}

void check(const char* operation, const Tensor& out, const Tensor& x, const WeightTable& weights,
           const WeightGroups& groups) {
  if (!weights.defined()) throw ShapeError(std::string(operation) + ": expected a table of weights, found none");
  const Device device = weights.device();
  const auto matrix = [&](const char* name, const Tensor& tensor, int64_t rows, int64_t columns) {
    expect(operation, name, tensor).shape({rows, columns}).dtype(weights.dtype()).rows_contiguous().device(device);
  };
  expect(operation, "x", x).rank(2);
  expect(operation, "out", out).rank(2);
  matrix("x", x, x.dim(0), weights.columns());
  matrix("out", out, out.dim(0), weights.rows());
  if (weights.in_codes() && groups.rows <= few_rows_most && !device::suits_codes(x.slice(0, 0, 1)))
    throw ShapeError(std::string(operation) + ": expected rows of x at multiples of 16 bytes, found " + describe(x));
  expect(operation, "numbers", groups.numbers).rank(1).dtype(DType::i32).contiguous().device(device);
  const Shape bounds{groups.numbers.dim(0) + 1};
  expect(operation, "bounds", groups.bounds).shape(bounds).dtype(DType::i32).contiguous().device(device);
  if (groups.rows == few_rows_most && groups.numbers.dim(0) <= most_grid_y) return;
  const bool large = has_large_groups(device);
  if (groups.rows != medium_group_rows && !(large && groups.rows == large_group_rows))
    throw ShapeError(std::string(operation) + ": expected up to " + std::to_string(most_grid_y) + " groups of " +
                     std::to_string(few_rows_most) + " rows, or of " + std::to_string(medium_group_rows) +
                     (large ? " or " + std::to_string(large_group_rows) : "") + ", found " +
                     std::to_string(groups.numbers.dim(0)) + " of " + std::to_string(groups.rows));
  const Shape begins{weights.count() + 1};
  expect(operation, "begins", groups.begins).shape(begins).dtype(DType::i32).contiguous().device(device);
}

GroupedWeights places_of(const WeightTable& table) {
  return {table.places().raw(),
          table.biases().defined() ? static_cast<const void* const*>(table.biases().raw()) : nullptr};
}

GroupedArgs arguments(const Tensor& out, const Tensor& x, const WeightTable& weights, const WeightGroups& groups) {
  return {.dtype = weights.dtype(),
          .n = weights.rows(),
          .k = weights.columns(),
          .left = product_matrix(x),
          .out = product_matrix(out),
          .numbers = groups.numbers.data<int32_t>(),
          .bounds = groups.bounds.data<int32_t>(),
          .groups = groups.numbers.dim(0),
          .group_rows = groups.rows,
          .rows = nullptr,
          .weights = places_of(weights)};
}

// By groups of few rows.
void multiply_few(const GroupedArgs& args, const WeightTable& weights) {
  const Weight& first = weights.first();
  with_device(weights.device(), [&]<DeviceKind kind>() {
    if (const QuantizedWeight* codes = first.quantized())
      return grouped_quantized<kind>(args, device::with_codes({.dtype = args.dtype}, *codes));
    if (const GgmlWeight* ggml = first.ggml()) return grouped_blocks<kind>(args, ggml->format(), ggml->panels().dim(1));
    grouped_dense<kind>(args, product_matrix(first).stride);
  });
}

// Rows of some of a table's weights into `room`.
void dequantize(const Tensor& room, const WeightTable& table, int64_t first, int64_t count, int64_t first_row,
                int64_t rows) {
  const TableRowsArgs args{.dtype = table.dtype(),
                           .out = room.raw(),
                           .places = table.places().slice(0, first, first + count).raw(),
                           .count = count,
                           .first_row = first_row,
                           .rows = rows,
                           .columns = table.columns()};
  with_device(table.device(), [&]<DeviceKind kind>() {
    if (const GgmlWeight* ggml = table.first().ggml())
      return ggml_table_rows<kind>(args, ggml->format(), ggml->panels().dim(1));
    quantized_table_rows<kind>(args, device::with_codes({.dtype = args.dtype}, *table.first().quantized()));
  });
}

// What is dequantised at a time: as many whole weights as a band has room for, or bands of one after another.
struct Band {
  int64_t weights, rows;  // rows: of each
  Band(const GroupedCodesShape& of, int64_t band_bytes) {
    const int64_t row_bytes = of.tables * of.k * size_of(of.dtype);
    weights = std::clamp<int64_t>(band_bytes / (of.n * row_bytes), 1, of.count);
    rows = weights > 1 ? of.n : std::min(of.n, rows_of_band(of.n, row_bytes, band_bytes));
  }
};

// Rows in all up to which groups are of few.
int64_t most_rows_in_few(int64_t weights, bool in_codes) {
  return weights * (in_codes ? most_fused_rows_16_bit : few_rows_most / 2);
}

// By groups of many rows and weights in codes.
void multiply_in_bands(const GroupTilesArgs& all, std::span<const WeightTable* const> tables, int64_t band_bytes) {
  const int64_t n = all.product.n, k = all.product.k, count = tables[0]->count();
  const Band whole({std::ssize(tables), count, n, k, all.product.dtype}, band_bytes);
  const auto room = [&] {
    return Tensor::empty({whole.weights * whole.rows, k}, all.product.dtype, tables[0]->device(), MemoryTag::workspace);
  };
  const Tensor rooms[2] = {room(), tables.size() > 1 ? room() : Tensor()};
  for (int64_t first = 0; first < count; first += whole.weights)
    for (int64_t row = 0; row < n; row += whole.rows) {
      GroupTilesArgs band = all;
      band.first = first;
      band.end = std::min(count, first + whole.weights);
      band.first_bias = row;
      band.product.n = std::min(n - row, whole.rows);
      band.product.out.data = static_cast<char*>(all.product.out.data) + row * size_of(all.product.dtype);
      for (size_t i = 0; i < tables.size(); ++i)
        dequantize(rooms[i], *tables[i], first, band.end - first, row, band.product.n);
      band.room = rooms[0].raw();
      band.up_room = rooms[1].defined() ? rooms[1].raw() : nullptr;
      with_device(tables[0]->device(), [&]<DeviceKind kind>() { grouped_tiles<kind>(band); });
    }
}

void multiply(const GroupedArgs& product, std::initializer_list<const WeightTable*> tables,
              const WeightGroups& groups) {
  const WeightTable& weights = **tables.begin();
  if (groups.rows == few_rows_most) return multiply_few(product, weights);
  GroupTilesArgs args{.product = product,
                      .begins = groups.begins.data<int32_t>(),
                      .first = 0,
                      .end = weights.count(),
                      .stride = weights.in_codes() ? weights.columns() : product_matrix(weights.first()).stride};
  if (weights.in_codes()) return multiply_in_bands(args, {tables.begin(), tables.size()}, groups.band_bytes);
  with_device(weights.device(), [&]<DeviceKind kind>() { grouped_tiles<kind>(args); });
}

}  // namespace

int64_t suitable_group_rows(const WeightTable& weights, int64_t rows) {
  if (rows <= most_rows_in_few(weights.count(), weights.in_codes())) return few_rows_most;
  const bool large = rows >= weights.count() * large_group_rows && has_large_groups(weights.device());
  return large ? large_group_rows : medium_group_rows;
}

int64_t grouped_workspace_bytes(const GroupedCodesShape& weights, int64_t rows) {
  if (rows <= most_rows_in_few(weights.count, true)) return 0;
  const Band band(weights, most_band_bytes);
  return weights.tables * band.weights * band.rows * weights.k * size_of(weights.dtype);
}

void grouped_linear(const Tensor& out, const Tensor& x, const WeightTable& weights, const WeightGroups& groups) {
  check("grouped_linear", out, x, weights, groups);
  expect("grouped_linear", "x", x).shape({out.dim(0), x.dim(1)});
  if (out.numel() > 0) multiply(arguments(out, x, weights, groups), {&weights}, groups);
}

void grouped_gated_linear(const Tensor& out, const Tensor& x, const Tensor& rows, const WeightTable& gate,
                          const WeightTable& up, const WeightGroups& groups, GateKind kind) {
  constexpr const char* operation = "grouped_gated_linear";
  check(operation, out, x, gate, groups);
  if (!gate.goes_with(up)) throw ShapeError(std::string(operation) + ": gate and up are of two kinds, or shapes");
  expect(operation, "rows", rows).shape({out.dim(0)}).dtype(DType::i32).contiguous().device(x.device());
  if (out.numel() == 0) return;
  GroupedArgs args = arguments(out, x, gate, groups);
  args.rows = rows.data<int32_t>();
  args.up = places_of(up);
  args.gate = kind;
  multiply(args, {&gate, &up}, groups);
}

}  // namespace lathe::kernels
