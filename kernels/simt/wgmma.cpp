#include "kernels/simt/wgmma.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/simt/block.h"
#include "kernels/simt/memory_checks.h"
#include "kernels/simt/tensor_sum.h"

namespace lathe::simt {
namespace {

constexpr unsigned full_warp = 0xffffffffu;

struct Product {
  WgmmaArgs args;  // of lane 0
  Where where;
  const uint32_t* a_registers[32];
  uint32_t a_words[32][4];
  size_t sums;  // index of Warp::sums
};

// Accumulators that products under way add to. The lanes' own registers are poisoned meanwhile.
struct Sums {
  float* at[32];
  int count;    // of a lane
  int pending;  // products
  std::vector<float> values;

  float* of_lane(int lane) { return values.data() + static_cast<size_t>(lane) * static_cast<size_t>(count); }
};

struct Warp {
  std::vector<Product> products;   // oldest first
  std::vector<size_t> group_ends;  // counts of products
  std::vector<Sums> sums;
  uint64_t issued = 0;
  bool fenced = false;
};

std::vector<Warp> warps;                              // of all blocks of the cluster
std::vector<std::vector<WgmmaArgs>> issued_by_group;  // what the first warp to come gave as the group's i-th product
size_t warps_of_block = 1;

size_t running_warp() { return static_cast<size_t>(running.rank) * warps_of_block + static_cast<size_t>(running.warp); }

// ---- descriptors ----

size_t field(uint64_t descriptor, int first_bit) { return static_cast<size_t>(descriptor >> first_bit & 0x3fff) << 4; }
size_t start_of(uint64_t descriptor) { return field(descriptor, 0); }

// Address, in the window of shared memory, of element (i, k) of an operand: i is m or n.
size_t element_address(uint64_t descriptor, bool along_mn, int i, int k) {
  const size_t leading = field(descriptor, 16), stride = field(descriptor, 32);
  const auto x = static_cast<size_t>(i), y = static_cast<size_t>(k);
  const size_t plain = start_of(descriptor) + (along_mn ? x / 64 * leading + y / 8 * stride + y % 8 * 128 + x % 64 * 2
                                                        : x / 8 * stride + x % 8 * 128 + y * 2);
  return plain ^ ((plain >> 7 & 7) << 4);
}

const char* fault_of(uint64_t descriptor, bool along_mn) {
  if (descriptor >> 62 != 1) return "gives wgmma a descriptor that is not of 128-byte swizzle";
  if (start_of(descriptor) % 1024 >= (along_mn ? 16u : 128u))
    return "gives wgmma an operand in 128-byte swizzle that begins at no multiple of 1024";
  return nullptr;
}

float value_of(uint32_t bits, TileElement element) {
  return element == TileElement::bf16 ? std::bit_cast<float>(bits << 16) : __half2float({static_cast<uint16_t>(bits)});
}

float read_element(uint64_t descriptor, bool along_mn, int i, int k, TileElement element, Where where) {
  const void* place = shared_window_pointer(element_address(descriptor, along_mn, i, k));
  if (place == nullptr) {
    report("has wgmma read outside the block's dynamic shared memory", where);
    return 0;
  }
  note_async_read(place, 2, running.thread, where);
  uint16_t bits;
  std::memcpy(&bits, place, sizeof bits);
  return value_of(bits, element);
}

// ---- issue ----

// Whether some of an operand's 16-byte vectors are still to be copied: it is read when the product is waited for here,
// and may be at once on a card.
bool awaits_copy(uint64_t descriptor, bool along_mn, int rows) {
  constexpr int vector = 8;
  for (int i = 0; i < rows; i += along_mn ? vector : 1)
    for (int k = 0; k < 16; k += along_mn ? 1 : vector) {
      const void* place = shared_window_pointer(element_address(descriptor, along_mn, i, k));
      if (place != nullptr && async_write_under_way(place, 2 * vector)) return true;
    }
  return false;
}
bool awaits_copy(const WgmmaArgs& args) {
  return awaits_copy(args.b, args.b_along_mn, args.n) ||
         (args.a_registers == nullptr && awaits_copy(args.a, args.a_along_mn, args.rows));
}

bool same_product(const WgmmaArgs& a, const WgmmaArgs& b) {
  return a.n == b.n && a.element == b.element && (a.a_registers == nullptr) == (b.a_registers == nullptr) &&
         a.a == b.a && a.b == b.b && a.a_along_mn == b.a_along_mn && a.b_along_mn == b.b_along_mn && a.adds == b.adds &&
         a.rows == b.rows;
}

size_t sums_of(Warp& warp, void* const* requests) {
  const auto args_of = [&](int lane) -> WgmmaArgs& { return *static_cast<WgmmaArgs*>(requests[lane]); };
  const int count = args_of(0).n / 2;
  for (size_t i = 0; i < warp.sums.size(); ++i)
    if (warp.sums[i].pending > 0 && warp.sums[i].at[0] == args_of(0).d && warp.sums[i].count == count) return i;
  Sums made{.at = {}, .count = count, .pending = 0, .values = std::vector<float>(static_cast<size_t>(32 * count))};
  for (int lane = 0; lane < 32; ++lane) {
    made.at[lane] = args_of(lane).d;
    std::memcpy(made.of_lane(lane), made.at[lane], static_cast<size_t>(count) * 4);
    std::memset(made.at[lane], 0xff, static_cast<size_t>(count) * 4);
  }
  warp.sums.push_back(std::move(made));
  return warp.sums.size() - 1;
}

Where place_of_collective;

void complete_issue(void* const* requests, unsigned) {
  const auto args_of = [&](int lane) -> WgmmaArgs& { return *static_cast<WgmmaArgs*>(requests[lane]); };
  Warp& warp = warps[running_warp()];
  const WgmmaArgs& args = args_of(0);
  for (int lane = 1; lane < 32; ++lane)
    if (!same_product(args, args_of(lane)))
      return report("gives wgmma another descriptor than its neighbour", place_of_collective);
  std::vector<WgmmaArgs>& group = issued_by_group[running_warp() / 4];
  if (warp.issued < group.size()) {
    if (!same_product(group[warp.issued], args))
      report("gives wgmma another descriptor than the other warps of its warpgroup", place_of_collective);
  } else {
    group.push_back(args);
    if (awaits_copy(args))
      report("by wgmma reads shared memory that a cp.async is still to write: the wait is missing",
             place_of_collective);
  }
  ++warp.issued;
  if (!warp.fenced)
    report("issues wgmma with no wgmma.fence since its registers were free to be touched", place_of_collective);
  Product product{.args = args, .where = place_of_collective, .a_registers = {}, .a_words = {}, .sums = 0};
  product.sums = sums_of(warp, requests);
  for (int lane = 0; lane < 32; ++lane) {
    product.a_registers[lane] = args_of(lane).a_registers;
    if (product.a_registers[lane] != nullptr)
      std::memcpy(product.a_words[lane], product.a_registers[lane], sizeof product.a_words[lane]);
  }
  ++warp.sums[product.sums].pending;
  warp.products.push_back(product);
  ++wgmma_products_under_way;
}

// ---- completion ----

// Warp w of the group has rows 16 w …; a lane with g = lane / 4 and t = lane % 4 has of d rows g and g + 8, columns
// 8 j + 2 t and the next, and of a what mma.sync m16n8k16 has.
void compute(Warp& warp, const Product& product) {
  const WgmmaArgs& args = product.args;
  const int first_row = running.warp % 4 * 16;
  const int least = args.element == TileElement::bf16 ? least_exponent_bf16 : least_exponent_f16;
  std::vector<Factors> a, b;
  float values[16];
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) {
      const uint32_t word = product.a_words[i % 8 * 4 + k % 8 / 2][i / 8 + k / 8 * 2];
      values[k] = first_row + i >= args.rows ? std::numeric_limits<float>::quiet_NaN()
                  : args.a_registers != nullptr
                      ? value_of(word >> (16 * (k % 2)) & 0xffffu, args.element)
                      : read_element(args.a, args.a_along_mn, first_row + i, k, args.element, product.where);
    }
    a.push_back(factors_of(values, 16, least));
  }
  for (int j = 0; j < args.n; ++j) {
    for (int k = 0; k < 16; ++k) values[k] = read_element(args.b, args.b_along_mn, j, k, args.element, product.where);
    b.push_back(factors_of(values, 16, least));
  }
  Sums& sums = warp.sums[product.sums];
  for (int lane = 0; lane < 32; ++lane)
    for (int e = 0; e < sums.count; ++e) {
      const int row = lane / 4 + e / 2 % 2 * 8, column = e / 4 * 8 + lane % 4 * 2 + e % 2;
      float& sum = sums.of_lane(lane)[e];
      sum = add_products(args.adds ? sum : 0.0f, a[static_cast<size_t>(row)], b[static_cast<size_t>(column)]);
    }
}

// The registers of the lanes have stayed as they were left.
void check_registers(const Warp& warp, const Product& product) {
  for (int lane = 0; lane < 32; ++lane) {
    if (product.a_registers[lane] == nullptr) continue;
    if (std::memcmp(product.a_registers[lane], product.a_words[lane], sizeof product.a_words[lane]) != 0)
      return report("has changed registers of A before it waited for the wgmma that reads them", product.where);
  }
  const Sums& sums = warp.sums[product.sums];
  for (int lane = 0; lane < 32; ++lane) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(sums.at[lane]);
    if (!std::all_of(bytes, bytes + 4 * sums.count, [](unsigned char byte) { return byte == 0xff; }))
      return report("has written accumulators before it waited for the wgmma that adds to them", product.where);
  }
}

void give_back(Sums& sums) {
  for (int lane = 0; lane < 32; ++lane)
    std::memcpy(sums.at[lane], sums.of_lane(lane), static_cast<size_t>(sums.count) * 4);
}

void complete_wait(void* const* requests, unsigned) {
  const auto left = static_cast<size_t>(*static_cast<int*>(requests[0]));
  Warp& warp = warps[running_warp()];
  warp.fenced = false;
  if (warp.group_ends.size() <= left) return;
  const size_t done = warp.group_ends[warp.group_ends.size() - 1 - left];
  for (size_t i = 0; i < done; ++i) {
    const Product& product = warp.products[i];
    check_registers(warp, product);
    compute(warp, product);
    Sums& sums = warp.sums[product.sums];
    if (--sums.pending == 0) give_back(sums);
    --wgmma_products_under_way;
  }
  warp.products.erase(warp.products.begin(), warp.products.begin() + static_cast<int64_t>(done));
  warp.group_ends.erase(warp.group_ends.begin(), warp.group_ends.end() - static_cast<int64_t>(left));
  for (size_t& end : warp.group_ends) end -= done;
  if (warp.products.empty()) warp.sums.clear();
}

bool whole_warpgroup(Where where) {
  const dim3& shape = block_shape();
  if (static_cast<unsigned>(running.warp / 4 + 1) * 128 <= shape.x * shape.y * shape.z) return true;
  report("uses wgmma in a warpgroup that is not whole", where);
  return false;
}

}  // namespace

uint64_t wgmma_descriptor(const void* tile, size_t leading_bytes, size_t stride_bytes, Where where) {
  const size_t address = shared_window_address(tile);
  if (address == SIZE_MAX) report("makes a descriptor of what is not in dynamic shared memory", where);
  return (address >> 4 & 0x3fff) | (leading_bytes >> 4 & 0x3fff) << 16 | (stride_bytes >> 4 & 0x3fff) << 32 |
         uint64_t{1} << 62;
}

void wgmma(const WgmmaArgs& args, Where where) {
  if (!whole_warpgroup(where)) return;
  const char* fault = fault_of(args.b, args.b_along_mn);
  if (fault == nullptr && args.a_registers == nullptr) fault = fault_of(args.a, args.a_along_mn);
  if (fault != nullptr) report(fault, where);
  WgmmaArgs request = args;
  place_of_collective = where;
  warp_collective("wgmma.mma_async", full_warp, &request, complete_issue, where);
}

void wgmma_fence(Where where) {
  if (!whole_warpgroup(where)) return;
  char nothing = 0;
  warp_collective(
      "wgmma.fence", full_warp, &nothing, [](void* const*, unsigned) { warps[running_warp()].fenced = true; }, where);
}

void wgmma_commit(Where where) {
  if (!whole_warpgroup(where)) return;
  char nothing = 0;
  warp_collective(
      "wgmma.commit_group", full_warp, &nothing,
      [](void* const*, unsigned) {
        Warp& warp = warps[running_warp()];
        warp.group_ends.push_back(warp.products.size());
      },
      where);
}

void wgmma_wait(int groups_left, Where where) {
  if (!whole_warpgroup(where)) return;
  warp_collective("wgmma.wait_group", full_warp, &groups_left, complete_wait, where);
}

void begin_wgmma(int threads, int blocks) {
  warps_of_block = static_cast<size_t>((threads + 31) / 32);
  const size_t all = warps_of_block * static_cast<size_t>(blocks);
  warps.assign(all, Warp{});
  issued_by_group.assign((all + 3) / 4, {});
  wgmma_products_under_way = 0;
}

bool wgmma_holds(const void* address, size_t bytes) {
  const auto* first = static_cast<const unsigned char*>(address);
  const auto meets = [&](const void* registers, size_t count) {
    const auto* begin = static_cast<const unsigned char*>(registers);
    return begin != nullptr && first < begin + count && begin < first + bytes;
  };
  const Warp& warp = warps[running_warp()];
  for (const Product& product : warp.products) {
    const Sums& sums = warp.sums[product.sums];
    if (meets(sums.at[lane()], static_cast<size_t>(sums.count) * 4) || meets(product.a_registers[lane()], 16))
      return true;
  }
  return false;
}

bool wgmma_reads(const void* shared, size_t bytes) {
  const size_t window_address = shared_window_address(shared);
  const auto meets = [&](uint64_t descriptor, bool along_mn, int extent) {
    for (int i = 0; i < extent; i += 8)
      for (int k = 0; k < 16; ++k) {
        const size_t place = element_address(descriptor, along_mn, i, k);
        if (place >= window_address && place < window_address + bytes) return true;
      }
    return false;
  };
  const size_t first = static_cast<size_t>(rank_of_shared(shared)) * warps_of_block;
  for (size_t i = first; i < first + warps_of_block; ++i)
    for (const Product& product : warps[i].products) {
      const WgmmaArgs& args = product.args;
      if (meets(args.b, args.b_along_mn, args.n)) return true;
      if (args.a_registers == nullptr && meets(args.a, args.a_along_mn, args.rows)) return true;
    }
  return false;
}

const Where* unfinished_wgmma() {
  const std::vector<Product>& left = warps[running_warp()].products;
  return left.empty() ? nullptr : &left.front().where;
}

}  // namespace lathe::simt
