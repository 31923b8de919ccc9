#include "kernels/matmul/weights/ggml/device.h"

#include <iterator>
#include <utility>
#include <vector>

#include "kernels/dispatch.h"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/device.h"
#include "kernels/matmul/weights/ggml/cuda/bodies.h"

namespace lathe::kernels::device {
namespace {

GgmlTiles tiles_of(const GgmlWeight& weight) {
  const Tensor& tiles = weight.panels();
  return {weight.format(), tiles.data<uint8_t>(), tiles.dim(1)};
}

// Takes those of the first one's format out of `left`, as many as a launch has room for.
std::vector<GgmlTilesProductArgs> take_joined(std::vector<GgmlTilesProductArgs>& left) {
  std::vector<GgmlTilesProductArgs> joined, others;
  for (const GgmlTilesProductArgs& args : left) {
    const bool joins = args.weight.format == left[0].weight.format && std::ssize(joined) < joined_most;
    (joins ? joined : others).push_back(args);
  }
  left = std::move(others);
  return joined;
}

}  // namespace

bool multiplies_blocks(const Tensor& x, const GgmlWeight& weight) {
  return weight.device().kind != DeviceKind::cpu && suits_codes(x);
}

void multiply_blocks(std::span<const BlocksProduct> products, Device device) {
  std::vector<GgmlTilesProductArgs> left;
  for (const BlocksProduct& product : products)
    if (product.args.m > 0 && product.args.n > 0) left.push_back({product.args, tiles_of(*product.weight)});
  with_device(device, [&]<DeviceKind kind>() {
    if (products[0].args.dtype == DType::f32) {
      for (const GgmlTilesProductArgs& args : left) ggml_few_rows_f32<kind>(args);
      return;
    }
    while (!left.empty()) {
      const std::vector<GgmlTilesProductArgs> joined = take_joined(left);
      ggml_product_tiles<kind>({joined.data(), static_cast<int>(joined.size())});
    }
  });
}

void multiply_gated_blocks(const BlocksProduct& gate, const BlocksProduct& up, const GatedResult& result,
                           Device device) {
  with_device(device, [&]<DeviceKind kind>() {
    ggml_gated_tiles<kind>({gate.args, tiles_of(*gate.weight)}, {up.args, tiles_of(*up.weight)}, result);
  });
}

void ggml_rows_of(const Tensor& out, const GgmlWeight& weight, const Indices* ids, int64_t first_row) {
  if (out.numel() == 0) return;
  const GgmlRowsArgs args{.dtype = out.dtype(),
                          .out = matrix_of(out),
                          .weight = tiles_of(weight),
                          .ids = ids,
                          .first_row = first_row,
                          .rows = out.dim(0),
                          .columns = weight.columns(),
                          .weight_rows = weight.rows()};
  with_device(out.device(), [&]<DeviceKind kind>() { ggml_rows<kind>(args); });
}

}  // namespace lathe::kernels::device
