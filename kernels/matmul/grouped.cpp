#include "kernels/matmul/grouped.h"

#include <algorithm>
#include <utility>
#include <vector>

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

void check_table(const char* operation, const WeightTable& weights) {
  if (!weights.defined()) throw ShapeError(std::string(operation) + ": expected a table of weights, found none");
}

void check_matrix(const char* operation, const char* name, const Tensor& tensor, int64_t columns,
                  const WeightTable& weights) {
  expect(operation, name, tensor).rank(2);
  expect(operation, name, tensor)
      .shape({tensor.dim(0), columns})
      .dtype(weights.dtype())
      .rows_contiguous()
      .device(weights.device());
}

// `few`: whether groups of few rows are taken.
void check_groups(const char* operation, const WeightTable& weights, const WeightGroups& groups, bool few) {
  const Device device = weights.device();
  expect(operation, "numbers", groups.numbers).rank(1).dtype(DType::i32).contiguous().device(device);
  const Shape bounds{groups.numbers.dim(0) + 1};
  expect(operation, "bounds", groups.bounds).shape(bounds).dtype(DType::i32).contiguous().device(device);
  if (few && groups.rows == few_rows_most && groups.numbers.dim(0) <= most_grid_y) return;
  const bool large = has_large_groups(device);
  if (groups.rows != medium_group_rows && !(large && groups.rows == large_group_rows))
    throw ShapeError(
        std::string(operation) + ": expected " +
        (few ? "up to " + std::to_string(most_grid_y) + " groups of " + std::to_string(few_rows_most) + " rows, or of "
             : "groups of ") +
        std::to_string(medium_group_rows) + (large ? " or " + std::to_string(large_group_rows) : "") +
        (few ? "" : " rows") + ", found " + std::to_string(groups.numbers.dim(0)) + " of " +
        std::to_string(groups.rows));
  const Shape begins{weights.count() + 1};
  expect(operation, "begins", groups.begins).shape(begins).dtype(DType::i32).contiguous().device(device);
}

void check(const char* operation, const Tensor& out, const Tensor& x, const WeightTable& weights,
           const WeightGroups& groups) {
  check_table(operation, weights);
  check_matrix(operation, "x", x, weights.columns(), weights);
  check_matrix(operation, "out", out, weights.rows(), weights);
  if (weights.in_codes() && groups.rows <= few_rows_most && !device::suits_codes(x.slice(0, 0, 1)))
    throw ShapeError(std::string(operation) + ": expected rows of x at multiples of 16 bytes, found " + describe(x));
  check_groups(operation, weights, groups, true);
}

void check_kept(const char* operation, const Tensor& out, const GatedProducts& kept, const WeightGroups& groups) {
  if (!kept.gate.defined() && !kept.up.defined()) return;
  for (const auto& [name, tensor] : {std::pair("kept.gate", &kept.gate), std::pair("kept.up", &kept.up)}) {
    expect(operation, name, *tensor).shape(out.shape()).dtype(out.dtype()).rows_contiguous().device(out.device());
    if (tensor->stride(0) != out.stride(0))
      throw ShapeError(std::string(operation) + ": expected " + name + " with rows as far apart as out's, found " +
                       describe(*tensor) + " beside " + describe(out));
  }
  if (groups.rows == few_rows_most)
    throw ShapeError(std::string(operation) + ": expected groups of many rows, of which gate and up are kept, found " +
                     "groups of " + std::to_string(groups.rows));
}

GroupedWeights places_of(const WeightTable& table) {
  return {.places = table.places().raw(),
          .biases = table.biases().defined() ? static_cast<const void* const*>(table.biases().raw()) : nullptr,
          .maps = table.maps().defined() ? table.maps().raw() : nullptr};
}

GroupedArgs arguments(const Tensor& out, const Tensor& x, const WeightTable& weights, const WeightGroups& groups) {
  return {.dtype = weights.dtype(),
          .n = out.dim(1),
          .k = x.dim(1),
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

// What is multiplied: x by the weights, whose rows' products are the columns of out, or the gradient of that by their
// columns.
enum class By { rows, columns };

// Of the weights [first, end) of a table the rows, or the columns, [begin, begin + count) into `room`.
struct Part {
  By by;
  int64_t first, end, begin, count;
};
void dequantize(const Tensor& room, const WeightTable& table, const Part& part) {
  TableRowsArgs args{.dtype = table.dtype(),
                     .out = room.raw(),
                     .places = table.places().slice(0, part.first, part.end).raw(),
                     .count = part.end - part.first,
                     .first_row = 0,
                     .rows = table.rows(),
                     .first_column = 0,
                     .columns = table.columns(),
                     .weight_columns = table.columns()};
  (part.by == By::rows ? args.first_row : args.first_column) = part.begin;
  (part.by == By::rows ? args.rows : args.columns) = part.count;
  with_device(table.device(), [&]<DeviceKind kind>() {
    if (const GgmlWeight* ggml = table.first().ggml())
      return ggml_table_rows<kind>(args, ggml->format(), ggml->panels().dim(1));
    quantized_table_rows<kind>(args, device::with_codes({.dtype = args.dtype}, *table.first().quantized()));
  });
}

// What is dequantised at a time: as many whole weights as a band has room for, or bands of one after another. Of a
// gradient n are the weights' columns, and k their rows.
struct Band {
  int64_t weights, rows;  // rows: of each, along n
  Band(const GroupedCodesShape& of, int64_t band_bytes) {
    const int64_t row_bytes = of.tables * of.k * size_of(of.dtype);
    weights = std::clamp<int64_t>(band_bytes / (of.n * row_bytes), 1, of.count);
    rows = weights > 1 ? of.n : std::min(of.n, rows_of_band(of.n, row_bytes, band_bytes));
  }
  int64_t bytes(const GroupedCodesShape& of) const { return of.tables * weights * rows * of.k * size_of(of.dtype); }
};

// Rows in all up to which groups are of few.
int64_t most_rows_in_few(int64_t weights, bool in_codes) {
  return weights * (in_codes ? most_fused_rows_16_bit : few_rows_most / 2);
}

template <DeviceKind kind>
void multiply_tiles(const GroupTilesArgs& args, By by) {
  by == By::rows ? grouped_tiles<kind>(args) : grouped_gradient_tiles<kind>(args);
}

// By groups of many rows and weights in codes.
void multiply_in_bands(const GroupTilesArgs& all, std::span<const WeightTable* const> tables, By by,
                       int64_t band_bytes) {
  const DType dtype = all.product.dtype;
  const int64_t n = all.product.n, k = all.product.k, count = tables[0]->count();
  const Band whole({std::ssize(tables), count, n, k, dtype}, band_bytes);
  const auto room = [&] {
    return Tensor::empty({whole.weights * whole.rows, k}, dtype, tables[0]->device(), MemoryTag::workspace);
  };
  const Tensor rooms[2] = {room(), tables.size() > 1 ? room() : Tensor()};
  for (int64_t first = 0; first < count; first += whole.weights)
    for (int64_t begin = 0; begin < n; begin += whole.rows) {
      GroupTilesArgs band = all;
      const auto from_column = [&](void* matrix) {
        return matrix == nullptr ? nullptr : static_cast<char*>(matrix) + begin * size_of(dtype);
      };
      band.first = first;
      band.end = std::min(count, first + whole.weights);
      band.first_bias = begin;
      band.product.n = std::min(n - begin, whole.rows);
      band.product.out.data = from_column(all.product.out.data);
      band.kept_gate = from_column(all.kept_gate);
      band.kept_up = from_column(all.kept_up);
      band.stride = by == By::rows ? k : band.product.n;
      for (size_t i = 0; i < tables.size(); ++i)
        dequantize(rooms[i], *tables[i], {by, first, band.end, begin, band.product.n});
      band.room = rooms[0].raw();
      band.up_room = rooms[1].defined() ? rooms[1].raw() : nullptr;
      with_device(tables[0]->device(), [&]<DeviceKind kind>() { multiply_tiles<kind>(band, by); });
    }
}

// Those and dense ones. first, end and stride of the arguments follow from the tables.
void multiply_many(GroupTilesArgs args, std::span<const WeightTable* const> tables, By by, int64_t band_bytes) {
  const WeightTable& weights = *tables[0];
  args.first = 0;
  args.end = weights.count();
  if (weights.in_codes()) return multiply_in_bands(args, tables, by, band_bytes);
  args.stride = product_matrix(weights.first()).stride;
  with_device(weights.device(), [&]<DeviceKind kind>() { multiply_tiles<kind>(args, by); });
}

GroupTilesArgs tiles_of(const GroupedArgs& product, int64_t rows, const WeightGroups& groups) {
  return {.product = product, .rows = rows, .begins = groups.begins.data<int32_t>(), .first = 0, .end = 0, .stride = 0};
}

}  // namespace

int64_t suitable_group_rows(const WeightTable& weights, int64_t rows) {
  if (rows <= most_rows_in_few(weights.count(), weights.in_codes())) return few_rows_most;
  const bool large = rows >= weights.count() * large_group_rows && has_large_groups(weights.device());
  return large ? large_group_rows : medium_group_rows;
}

int64_t suitable_recorded_group_rows(const WeightTable& weights, int64_t rows) {
  return std::max(suitable_group_rows(weights, rows), medium_group_rows);
}

int64_t grouped_workspace_bytes(const GroupedCodesShape& weights) {
  const auto bytes = [](const GroupedCodesShape& of) { return Band(of, most_band_bytes).bytes(of); };
  GroupedCodesShape gradient = weights;
  std::swap(gradient.n, gradient.k);
  return std::max(bytes(weights), bytes(gradient));
}

void grouped_linear(const Tensor& out, const Tensor& x, const WeightTable& weights, const WeightGroups& groups) {
  check("grouped_linear", out, x, weights, groups);
  expect("grouped_linear", "x", x).shape({out.dim(0), x.dim(1)});
  if (out.numel() == 0) return;
  const GroupedArgs args = arguments(out, x, weights, groups);
  if (groups.rows == few_rows_most) return multiply_few(args, weights);
  const WeightTable* const tables[] = {&weights};
  multiply_many(tiles_of(args, out.dim(0), groups), tables, By::rows, groups.band_bytes);
}

void grouped_gated_linear(const Tensor& out, const Tensor& x, const Tensor& rows, const WeightTable& gate,
                          const WeightTable& up, const WeightGroups& groups, GateKind kind, const GatedProducts& kept) {
  constexpr const char* operation = "grouped_gated_linear";
  check(operation, out, x, gate, groups);
  if (!gate.goes_with(up)) throw ShapeError(std::string(operation) + ": gate and up are of two kinds, or shapes");
  expect(operation, "rows", rows).shape({out.dim(0)}).dtype(DType::i32).contiguous().device(x.device());
  check_kept(operation, out, kept, groups);
  if (out.numel() == 0) return;
  GroupedArgs args = arguments(out, x, gate, groups);
  args.rows = rows.data<int32_t>();
  args.up = places_of(up);
  args.gate = kind;
  if (groups.rows == few_rows_most) return multiply_few(args, gate);
  GroupTilesArgs tiles = tiles_of(args, out.dim(0), groups);
  if (kept.gate.defined()) tiles.kept_gate = kept.gate.raw(), tiles.kept_up = kept.up.raw();
  const WeightTable* const tables[] = {&gate, &up};
  multiply_many(tiles, tables, By::rows, groups.band_bytes);
}

void grouped_input_gradient(const Tensor& grad_x, std::span<const GroupedGradientTerm> terms,
                            const WeightGroups& groups) {
  constexpr const char* operation = "grouped_input_gradient";
  if (terms.empty() || terms.size() > 2)
    throw ShapeError(std::string(operation) + ": expected one term or two, found " + std::to_string(terms.size()));
  const WeightTable& weights = *terms[0].weights;
  check_table(operation, weights);
  check_matrix(operation, "grad_x", grad_x, weights.columns(), weights);
  for (const GroupedGradientTerm& term : terms) {
    if (!weights.goes_with(*term.weights))
      throw ShapeError(std::string(operation) + ": the terms' weights are of two kinds, or shapes");
    check_matrix(operation, "grad_out", term.grad_out, weights.rows(), weights);
    expect(operation, "grad_out", term.grad_out).shape({grad_x.dim(0), weights.rows()});
  }
  check_groups(operation, weights, groups, false);
  if (grad_x.numel() == 0) return;
  GroupTilesArgs tiles = tiles_of(arguments(grad_x, terms[0].grad_out, weights, groups), grad_x.dim(0), groups);
  std::vector<const WeightTable*> tables{&weights};
  if (terms.size() > 1) {
    tiles.product.up = places_of(*terms[1].weights);
    tiles.up_left = product_matrix(terms[1].grad_out);
    tables.push_back(terms[1].weights);
  }
  multiply_many(tiles, tables, By::columns, groups.band_bytes);
}

}  // namespace lathe::kernels
