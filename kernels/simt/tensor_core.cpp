#include "kernels/simt/tensor_core.h"

#include <cmath>
#include <cstring>

#include "kernels/simt/block.h"
#include "kernels/simt/tensor_sum.h"

namespace lathe::simt {
namespace {

constexpr unsigned full_warp = 0xffffffffu;

struct MatrixLoad {
  const unsigned char* row;
  int count;
  bool transposed;
  Where where;
  uint32_t registers[4];
};

uint16_t element_of(const unsigned char* row, int column) {
  uint16_t bits;
  std::memcpy(&bits, row + 2 * column, sizeof bits);
  return bits;
}

void complete_load(void* const* requests, unsigned) {
  const auto lane_of = [&](int lane) -> MatrixLoad& { return *static_cast<MatrixLoad*>(requests[lane]); };
  const int count = lane_of(0).count;
  for (int lane = 0; lane < 8 * count; ++lane) {
    if (reinterpret_cast<uintptr_t>(lane_of(lane).row) % 16 != 0)
      return report("gives ldmatrix a row that is not aligned to 16 bytes", lane_of(lane).where);
    note_shared_read(lane_of(lane).row, 16, lane, lane_of(lane).where);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int matrix = 0; matrix < count; ++matrix) {
      const auto row = [&](int i) { return lane_of(8 * matrix + i).row; };
      const uint32_t low = lane_of(lane).transposed ? element_of(row(2 * t), g) : element_of(row(g), 2 * t);
      const uint32_t high = lane_of(lane).transposed ? element_of(row(2 * t + 1), g) : element_of(row(g), 2 * t + 1);
      lane_of(lane).registers[matrix] = low | high << 16;
    }
  }
}

template <class Sum>
struct TileProduct {
  Sum c[4];
  uint32_t a[4], b[2];
  TileElement element;
};

float bf16_value(uint32_t bits) { return std::bit_cast<float>(bits << 16); }
float f16_value(uint32_t bits) { return __half2float({static_cast<uint16_t>(bits)}); }
float tf32_value(uint32_t bits) { return std::bit_cast<float>(bits & 0xffffe000u); }

// Elements per register of the operands, and how one is read.
template <class Sum>
constexpr int elements_of(TileElement element) {
  if (std::is_same_v<Sum, int32_t>) return 4;
  return element == TileElement::tf32 ? 1 : 2;
}
template <class Sum>
Sum value_of(uint32_t word, int i, TileElement element) {
  if constexpr (std::is_same_v<Sum, int32_t>) {
    return static_cast<int8_t>(word >> (8 * i));
  } else {
    if (element == TileElement::tf32) return tf32_value(word);
    const uint32_t half = word >> (16 * i) & 0xffffu;
    return element == TileElement::bf16 ? bf16_value(half) : f16_value(half);
  }
}

float multiply_add(float a, float b, float c) { return std::fmaf(a, b, c); }
int32_t multiply_add(int32_t a, int32_t b, int32_t c) { return a * b + c; }

// A register holds `e` neighbours along k; a[0] and a[1] are rows g and g + 8 of the first half of k, a[2] and a[3] of
// the second; b[0] and b[1] are column g of the halves.
template <class Sum>
void read_operands(void* const* requests, Sum (&left)[16][32], Sum (&right)[8][32]) {
  const auto lane_of = [&](int lane) -> TileProduct<Sum>& { return *static_cast<TileProduct<Sum>*>(requests[lane]); };
  const TileElement element = lane_of(0).element;
  const int e = elements_of<Sum>(element);
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; ++half)
      for (int i = 0; i < e; ++i) {
        const int k = 4 * e * half + e * t + i;
        left[g][k] = value_of<Sum>(lane_of(lane).a[2 * half], i, element);
        left[g + 8][k] = value_of<Sum>(lane_of(lane).a[2 * half + 1], i, element);
        right[g][k] = value_of<Sum>(lane_of(lane).b[half], i, element);
      }
  }
}

template <class Sum>
void complete_product(void* const* requests, unsigned) {
  const auto lane_of = [&](int lane) -> TileProduct<Sum>& { return *static_cast<TileProduct<Sum>*>(requests[lane]); };
  const int e = elements_of<Sum>(lane_of(0).element);
  Sum left[16][32], right[8][32];
  read_operands<Sum>(requests, left, right);
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = g + (i >= 2 ? 8 : 0), column = 2 * t + i % 2;
      Sum sum = lane_of(lane).c[i];
      for (int k = 0; k < 8 * e; ++k) sum = multiply_add(left[row][k], right[column][k], sum);
      lane_of(lane).c[i] = sum;
    }
  }
}

// bf16 and f16.
void complete_product_of_halves(void* const* requests, unsigned) {
  const auto lane_of = [&](int lane) -> TileProduct<float>& {
    return *static_cast<TileProduct<float>*>(requests[lane]);
  };
  const TileElement element = lane_of(0).element;
  const int least = element == TileElement::bf16 ? least_exponent_bf16 : least_exponent_f16;
  float left[16][32], right[8][32];
  read_operands<float>(requests, left, right);
  Factors rows[16], columns[8];
  for (int i = 0; i < 16; ++i) rows[i] = factors_of(left[i], 16, least);
  for (int j = 0; j < 8; ++j) columns[j] = factors_of(right[j], 16, least);
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      float& sum = lane_of(lane).c[i];
      sum = add_products(sum, rows[lane / 4 + i / 2 * 8], columns[lane % 4 * 2 + i % 2]);
    }
}

template <class Sum>
void multiply(Sum (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], TileElement element, Where where) {
  TileProduct<Sum> product{.element = element};
  std::memcpy(product.c, c, sizeof c);
  std::memcpy(product.a, a, sizeof a);
  std::memcpy(product.b, b, sizeof b);
  Complete complete = complete_product<Sum>;
  if constexpr (std::is_same_v<Sum, float>)
    if (element != TileElement::tf32) complete = complete_product_of_halves;
  warp_collective("mma.sync", full_warp, &product, complete, where);
  std::memcpy(c, product.c, sizeof c);
}

bool whole_warp(Where where) {
  const dim3& shape = block_shape();
  if (shape.x * shape.y * shape.z % 32 == 0) return true;
  report("uses a tensor-core instruction in a block whose last warp is not whole", where);
  return false;
}

}  // namespace

void load_matrices(uint32_t* registers, int count, const void* row, bool transposed, Where where) {
  if (!whole_warp(where)) return;
  MatrixLoad load{static_cast<const unsigned char*>(row), count, transposed, where, {}};
  warp_collective("ldmatrix", full_warp, &load, complete_load, where);
  std::memcpy(registers, load.registers, static_cast<size_t>(count) * sizeof(uint32_t));
}

void multiply_tiles(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], TileElement element, Where where) {
  if (whole_warp(where)) multiply(c, a, b, element, where);
}

void multiply_tiles(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Where where) {
  if (whole_warp(where)) multiply(c, a, b, TileElement::tf32, where);
}

}  // namespace lathe::simt
