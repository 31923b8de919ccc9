// Rows in groups by weights that the device alone knows: the bits of linear_forward of each weight's rows, for every
// kind of weight that has a body, in groups of few rows and of many; of many those of linear_input_gradient, too.
#include "kernels/matmul/grouped.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/memory.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/queued_work.h"
#include "kernels/cuda/runtime.h"
#include "kernels/gated/gated.h"
#include "kernels/matmul/matmul.h"
#include "kernels/simt/options.h"
#include "tests/kernels/ggml_blocks.h"
#include "tests/support/hopper.h"

namespace lathe::kernels {
namespace {

using testing::random_matrix;
using testing::RandomBlocks;

// Makes weight `number` of [rows, columns] on a device.
using MakeWeight = std::function<Weight(int64_t rows, int64_t columns, uint64_t seed)>;

std::vector<std::byte> bytes(const Tensor& tensor) {
  std::vector<std::byte> result(static_cast<size_t>(tensor.nbytes()));
  copy_bytes({}, result.data(), tensor.device(), tensor.raw(), tensor.nbytes());
  return result;
}

// How many rows go to each expert; `tokens` of x that they come from.
struct Rows {
  int64_t tokens;
  std::vector<int32_t> of_expert;
};
const std::vector<Rows> every_rows{
    {1, {0, 1, 0, 1, 0}}, {16, {16, 0, 0, 0, 0}}, {9, {0, 3, 9, 0, 8}}, {16, {2, 16, 1, 5, 7}}};
// In groups of 64 several of one, whole ones and parts, and none; of 128 all but a row of one.
const Rows many_rows{70, {0, 65, 64, 0, 1}}, more_rows{130, {1, 0, 0, 130, 0}};

// How rows are put into groups, and which card simt is when it multiplies them: of sm_80, or in so an order of sm_90.
// What is expected comes from one of sm_80.
struct Grouping {
  int64_t rows = few_rows_most;
  int64_t band_bytes = most_band_bytes;
  std::optional<simt::FiberOrder> hopper = {};
};

struct QueuedNames final : QueuedWorkListener {
  std::vector<std::string> names;
  void queued(const char* name, int64_t) override {
    if (std::string(name).starts_with("grouped")) names.emplace_back(name);
  }
};

class GroupedProducts : public ::testing::TestWithParam<DeviceKind> {
 protected:
  void SetUp() override {
    if (const std::string why = why_unavailable(device()); !why.empty()) GTEST_SKIP() << why;
  }
  Device device() const { return {GetParam()}; }
  Tensor there(const Tensor& here) const { return moved(here, device()); }

  // A mixture of five with `inner` columns within, and what it makes of random rows.
  struct Mixture {
    std::vector<Weight> weights[3];  // gate, up [inner, outer], down [outer, inner]
    std::vector<Tensor> biases[3];
    WeightTable tables[3];
  };
  Mixture mixture_of(const MakeWeight& make, int64_t outer, int64_t inner, DType dtype, bool biased) const {
    Mixture mixture;
    uint64_t seed = 10;
    for (int which = 0; which < 3; ++which) {
      const int64_t rows = which == 2 ? outer : inner, columns = which == 2 ? inner : outer;
      for (int expert = 0; expert < 5; ++expert) {
        mixture.weights[which].push_back(make(rows, columns, ++seed));
        if (biased) mixture.biases[which].push_back(there(random_matrix(1, rows, dtype, ++seed).view({rows})));
      }
      mixture.tables[which] = WeightTable::of(mixture.weights[which], mixture.biases[which], dtype);
    }
    return mixture;
  }

  Tensor numbers(const std::vector<int32_t>& values) const {
    return there(Tensor::of<int32_t>(values, {std::ssize(values)}));
  }
  // Where rows lie. Two are in no group, and a group has none.
  struct Placed {
    std::vector<int32_t> tokens, ends;  // ends: of each expert's rows
    WeightGroups groups;

    // Calls body(expert, begin, end) for those that have rows.
    template <class Body>
    void for_each(const Body& body) const {
      for (size_t expert = 0; expert < ends.size(); ++expert) {
        const int64_t begin = expert == 0 ? 0 : ends[expert - 1];
        if (begin < ends[expert]) body(expert, begin, int64_t{ends[expert]});
      }
    }
  };
  // Each expert has the last of the tokens, and every second one where there are enough.
  Placed place(const Rows& rows, const Grouping& grouping) const {
    Placed placed;
    std::vector<int32_t> experts, bounds{0}, begins{0};
    for (size_t e = 0; e < rows.of_expert.size(); ++e) {
      const auto count = rows.of_expert[e], all = static_cast<int32_t>(rows.tokens);
      const int32_t apart = 2 * count <= all ? 2 : 1;
      for (int32_t i = 0; i < count; ++i) {
        placed.tokens.push_back(all - 1 - (count - 1 - i) * apart);
        if (i + 1 < count && (i + 1) % grouping.rows != 0) continue;
        experts.push_back(static_cast<int32_t>(e));
        bounds.push_back(static_cast<int32_t>(placed.tokens.size()));
      }
      begins.push_back(static_cast<int32_t>(experts.size()));
      placed.ends.push_back(static_cast<int32_t>(placed.tokens.size()));
    }
    placed.tokens.resize(placed.tokens.size() + 2, 0);
    experts.push_back(4);
    bounds.push_back(bounds.back());
    placed.groups = {.numbers = numbers(experts),
                     .bounds = numbers(bounds),
                     .rows = grouping.rows,
                     .begins = numbers(begins),
                     .band_bytes = grouping.band_bytes};
    return placed;
  }
  // What is not written stays.
  Tensor room_of(const Placed& placed, int64_t columns, DType dtype) const {
    const Tensor out = Tensor::empty({std::ssize(placed.tokens), columns}, dtype, device());
    fill(out, std::nan(""));
    return out;
  }

  void expect_the_bits_of_each(const Mixture& mixture, const Rows& rows, DType dtype, GateKind gate,
                               const Grouping& grouping = {}) const {
    const int64_t outer = mixture.weights[0][0].columns(), inner = mixture.weights[0][0].rows();
    const Tensor x = there(random_matrix(rows.tokens, outer, dtype, 5));
    const Placed placed = place(rows, grouping);
    const auto room = [&](int64_t columns) { return room_of(placed, columns, dtype); };
    const Tensor expected_inner = room(inner), expected_gate = room(inner), expected_up = room(inner),
                 expected = room(outer);
    placed.for_each([&](size_t expert, int64_t begin, int64_t end) {
      const Tensor own_x = Tensor::empty({end - begin, outer}, dtype, device());
      for (int64_t i = begin; i < end; ++i) {
        const int64_t token = placed.tokens[static_cast<size_t>(i)];
        copy(own_x.slice(0, i - begin, i - begin + 1), x.slice(0, token, token + 1));
      }
      const auto multiply = [&](int which, const Tensor& out, const Tensor& from) {
        const auto& biases = mixture.biases[which];
        linear_forward(out, from, mixture.weights[which][expert], {.bias = biases.empty() ? Tensor() : biases[expert]});
      };
      const Tensor opened = expected_gate.slice(0, begin, end), raised = expected_up.slice(0, begin, end),
                   activated = expected_inner.slice(0, begin, end);
      multiply(0, opened, own_x);
      multiply(1, raised, own_x);
      gate == GateKind::silu        ? swiglu_forward(activated, opened, raised)
      : gate == GateKind::gelu_tanh ? geglu_forward(activated, opened, raised)
                                    : clamped_swiglu_forward(activated, opened, raised);
      multiply(2, expected.slice(0, begin, end), activated);
    });
    const bool keeps = grouping.rows != few_rows_most;
    const Tensor within = room(inner), out = room(outer);
    const GatedProducts kept = keeps ? GatedProducts{room(inner), room(inner)} : GatedProducts{};
    synchronize(device());  // what is expected runs before
    std::optional<testing::Hopper> hopper;
    if (grouping.hopper) hopper.emplace(*grouping.hopper);
    const QueuedNames queued;
    grouped_gated_linear(within, x, numbers(placed.tokens), mixture.tables[0], mixture.tables[1], placed.groups, gate,
                         kept);
    EXPECT_EQ(bytes(within), bytes(expected_inner)) << "gate and up";
    grouped_linear(out, expected_inner, mixture.tables[2], placed.groups);
    EXPECT_EQ(bytes(out), bytes(expected)) << "down";
    expect_wgmma(queued, {"grouped_gated_warpgroup", "grouped_warpgroup"}, grouping);
    hopper.reset();
    if (!keeps) return;
    EXPECT_EQ(bytes(kept.gate), bytes(expected_gate)) << "gate, which is kept";
    EXPECT_EQ(bytes(kept.up), bytes(expected_up)) << "up, which is kept";
    expect_the_gradients_of_each(mixture, placed, dtype, grouping);
  }
  // All launches for the groups were these, in order, each once or for one band after another.
  static void expect_wgmma(const QueuedNames& queued, const std::vector<std::string>& names, const Grouping& grouping) {
    if (!grouping.hopper) return;
    std::vector<std::string> found = queued.names;
    found.erase(std::unique(found.begin(), found.end()), found.end());
    EXPECT_EQ(found, names);
  }

  // Through down, and through gate and up.
  void expect_the_gradients_of_each(const Mixture& mixture, const Placed& placed, DType dtype,
                                    const Grouping& grouping) const {
    const int64_t outer = mixture.weights[0][0].columns(), inner = mixture.weights[0][0].rows();
    const auto random = [&](int64_t columns, uint64_t seed) {
      return there(random_matrix(std::ssize(placed.tokens), columns, dtype, seed));
    };
    const Tensor grad_down = random(outer, 6), grad_gate = random(inner, 7), grad_up = random(inner, 8);
    const auto room = [&](int64_t columns) { return room_of(placed, columns, dtype); };
    const Tensor expected_inner = room(inner), expected = room(outer);
    placed.for_each([&](size_t expert, int64_t begin, int64_t end) {
      const auto through = [&](int which, const Tensor& grad_x, const Tensor& grad_out, bool accumulate) {
        linear_input_gradient({.grad_x = grad_x.slice(0, begin, end),
                               .grad_out = grad_out.slice(0, begin, end),
                               .weight = mixture.weights[which][expert],
                               .accumulate = accumulate});
      };
      through(2, expected_inner, grad_down, false);
      through(0, expected, grad_gate, false);
      through(1, expected, grad_up, true);
    });
    const Tensor within = room(inner), out = room(outer);
    synchronize(device());  // what is expected runs before
    std::optional<testing::Hopper> hopper;
    if (grouping.hopper) hopper.emplace(*grouping.hopper);
    const QueuedNames queued;
    const GroupedGradientTerm down[] = {{grad_down, &mixture.tables[2]}};
    grouped_input_gradient(within, down, placed.groups);
    EXPECT_EQ(bytes(within), bytes(expected_inner)) << "the gradient through down";
    const GroupedGradientTerm both[] = {{grad_gate, &mixture.tables[0]}, {grad_up, &mixture.tables[1]}};
    grouped_input_gradient(out, both, placed.groups);
    EXPECT_EQ(bytes(out), bytes(expected)) << "the gradient through gate and up";
    expect_wgmma(queued, {"grouped_warpgroup"}, grouping);
  }

  static Tensor empty_as(const Tensor& tensor) {
    return Tensor::empty(tensor.shape(), tensor.dtype(), tensor.device());
  }

  void expect_the_bits_of_many(const std::string& what, const MakeWeight& make, int64_t outer, int64_t inner,
                               DType dtype, bool biased, int64_t band_bytes = most_band_bytes) const {
    SCOPED_TRACE(what + ", " + std::string(name_of(dtype)));
    const Mixture mixture = mixture_of(make, outer, inner, dtype, biased);
    expect_the_bits_of_each(mixture, many_rows, dtype, biased ? GateKind::clamped_silu : GateKind::gelu_tanh,
                            {64, band_bytes});
    if (what == "dense") expect_the_bits_of_each(mixture, more_rows, dtype, GateKind::silu, {128, band_bytes});
  }
  MakeWeight dense_of(DType dtype) const {
    return [this, dtype](int64_t rows, int64_t columns, uint64_t seed) {
      return Weight(there(random_matrix(rows, columns, dtype, seed)));
    };
  }
  MakeWeight codes_of(QuantizedFormat format) const {
    return [this, format](int64_t rows, int64_t columns, uint64_t seed) {
      return Weight(QuantizedWeight::quantize(there(random_matrix(rows, columns, DType::f32, seed)), format));
    };
  }
  MakeWeight blocks_of(GgmlFormat format, DType dtype) const {
    return [this, format, dtype](int64_t rows, int64_t columns, uint64_t seed) {
      return Weight(RandomBlocks(format, rows, columns, dtype, seed).on(device()));
    };
  }

  // Rows of x at no multiples of 16 bytes.
  void expect_the_bits_of_rows_that_are_not_aligned() const {
    const Mixture mixture = mixture_of(dense_of(DType::bf16), 72, 40, DType::bf16, false);
    const Tensor wide = there(random_matrix(20, 75, DType::bf16, 6)), x = wide.slice(1, 1, 73);
    const WeightGroups groups{
        .numbers = numbers({2}), .bounds = numbers({0, 20}), .rows = 64, .begins = numbers({0, 0, 0, 1, 1, 1})};
    std::vector<int32_t> rows;
    for (int32_t row = 0; row < 20; ++row) rows.push_back((row * 7 + 3) % 20);
    const auto outs = [&](const Tensor& of) {
      const Tensor within = Tensor::empty({20, 40}, DType::bf16, device()), raised = empty_as(within),
                   lowered = empty_as(within);
      grouped_gated_linear(within, of, numbers(rows), mixture.tables[0], mixture.tables[1], groups, GateKind::silu);
      grouped_linear(raised, of, mixture.tables[1], groups);
      const GroupedGradientTerm through_down[] = {{of, &mixture.tables[2]}};
      grouped_input_gradient(lowered, through_down, groups);
      return std::vector{bytes(within), bytes(raised), bytes(lowered)};
    };
    const Tensor aligned = Tensor::empty({20, 72}, DType::bf16, device());
    copy(aligned, x);
    EXPECT_EQ(outs(x), outs(aligned));
  }

  // All of `every_rows`, in turn with each activation.
  void expect_the_bits(const std::string& what, const MakeWeight& make, int64_t outer, int64_t inner, DType dtype,
                       bool biased) const {
    SCOPED_TRACE(what + ", " + std::string(name_of(dtype)) + (biased ? ", with biases" : ""));
    const Mixture mixture = mixture_of(make, outer, inner, dtype, biased);
    ASSERT_TRUE(mixture.tables[0].goes_with(mixture.tables[1]) && mixture.tables[2].defined());
    int turn = biased ? 2 : 0;
    for (const Rows& rows : every_rows) {
      SCOPED_TRACE(std::to_string(rows.tokens) + " tokens");
      expect_the_bits_of_each(mixture, rows, dtype, static_cast<GateKind>(turn++ % 3));
    }
  }
};

INSTANTIATE_TEST_SUITE_P(, GroupedProducts, ::testing::Values(DeviceKind::simt, DeviceKind::cuda),
                         [](const auto& info) { return to_string(Device{info.param}).substr(0, 4); });

// More than one tile of columns and a part of one, a part of a stage along k; rows of weights that are longer in
// memory.
TEST_P(GroupedProducts, by_dense_weights_have_the_bits_of_each) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const auto dense = [&](int64_t rows, int64_t columns, uint64_t seed) {
      return Weight(there(random_matrix(rows, columns, dtype, seed)));
    };
    expect_the_bits("dense", dense, 104, 40, dtype, dtype == DType::bf16);
    const auto packed = [&](int64_t rows, int64_t columns, uint64_t seed) {
      PackedWeight weight = PackedWeight::allocate(rows, columns, dtype, MemoryTag::weights, device());
      weight.pack_rows(0, rows, random_matrix(rows, columns, DType::f32, seed).data<float>());
      return Weight(weight);
    };
    expect_the_bits("packed", packed, 72, 43, dtype, dtype == DType::f16);
  }
}

TEST_P(GroupedProducts, by_codes_have_the_bits_of_each) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const auto nf4 = [&](Nf4Scales scales) {
      return [this, scales](int64_t rows, int64_t columns, uint64_t seed) {
        return Weight(QuantizedWeight::pack(
            quantize_nf4(there(random_matrix(rows, columns, DType::f32, seed)), 64, scales, MemoryTag::weights)));
      };
    };
    expect_the_bits("nf4", nf4(Nf4Scales::plain), 192, 128, dtype, false);
    expect_the_bits("nested nf4", nf4(Nf4Scales::nested), 128, 192, dtype, true);
    const auto int8 = [&](int64_t rows, int64_t columns, uint64_t seed) {
      return Weight(
          QuantizedWeight::quantize(there(random_matrix(rows, columns, DType::f32, seed)), QuantizedFormat::int8));
    };
    expect_the_bits("int8", int8, 192, 64, dtype, dtype == DType::bf16);
  }
}

TEST_P(GroupedProducts, by_blocks_of_every_format_have_the_bits_of_each) {
  for (const GgmlFormat format : testing::all_formats)
    for (const DType dtype : {DType::bf16, DType::f16}) {
      if (dtype == DType::f16 && format != GgmlFormat::mxfp4 && format != GgmlFormat::q4_k) continue;
      const auto blocks = [&](int64_t rows, int64_t columns, uint64_t seed) {
        return Weight(RandomBlocks(format, rows, columns, dtype, seed).on(device()));
      };
      const int64_t columns = RandomBlocks::layout(format).elements;  // one block, or one and two halves of a stage
      expect_the_bits(std::string(name_of(format)), blocks, columns == 32 ? 96 : 256, columns == 32 ? 160 : 256, dtype,
                      format == GgmlFormat::mxfp4);
    }
}

// More than one tile of columns and a part of one, for both shapes of tile; a part of a stage along k.
TEST_P(GroupedProducts, of_many_rows_by_dense_weights_have_the_bits_of_each) {
  expect_the_bits_of_many("dense", dense_of(DType::bf16), 72, 136, DType::bf16, true);
  expect_the_bits_of_many("dense", dense_of(DType::f16), 264, 24, DType::f16, false);
}

// As a card of sm_90, with the bits of one of sm_80: experts without rows, with one, a whole tile's and more.
class GroupedProductsByWgmma : public GroupedProducts {
 protected:
  // Its tables have what bulk copies need.
  Mixture mixture_there(const MakeWeight& make, int64_t outer, int64_t inner, DType dtype, bool biased) const {
    const testing::Hopper hopper;
    return mixture_of(make, outer, inner, dtype, biased);
  }
};
INSTANTIATE_TEST_SUITE_P(, GroupedProductsByWgmma, ::testing::Values(DeviceKind::simt),
                         [](const auto&) { return "simt"; });

// Tiles of 64 and of 128 rows, whole and parts of them along n; 64 along k, and parts of that.
TEST_P(GroupedProductsByWgmma, of_dense_weights_have_the_bits_of_mma_sync_in_every_order_of_threads) {
  const Mixture small = mixture_there(dense_of(DType::bf16), 136, 72, DType::bf16, true),
                wide = mixture_there(dense_of(DType::f16), 264, 136, DType::f16, false);
  for (const simt::FiberOrder order :
       {simt::FiberOrder::ascending, simt::FiberOrder::descending, simt::FiberOrder::shuffled}) {
    const Grouping medium{.rows = 64, .hopper = order}, large{.rows = 128, .hopper = order};
    expect_the_bits_of_each(small, many_rows, DType::bf16, GateKind::clamped_silu, medium);
    expect_the_bits_of_each(small, {70, {0, 70, 0, 2, 0}}, DType::bf16, GateKind::gelu_tanh, large);
    expect_the_bits_of_each(wide, {9, {9, 0, 1, 0, 0}}, DType::f16, GateKind::silu, medium);
    expect_the_bits_of_each(wide, more_rows, DType::f16, GateKind::silu, large);
  }
}

// All weights at once, some, and a part of each, of a number of rows that ends within a stage.
TEST_P(GroupedProductsByWgmma, of_codes_have_the_bits_of_mma_sync) {
  const Mixture nf4 = mixture_there(codes_of(QuantizedFormat::nf4), 128, 64, DType::bf16, true),
                int8 = mixture_there(codes_of(QuantizedFormat::int8), 64, 320, DType::f16, false),
                q4_0 = mixture_there(blocks_of(GgmlFormat::q4_0, DType::bf16), 96, 160, DType::bf16, true);
  const Rows rows{70, {0, 66, 3, 0, 1}};
  const Grouping whole{.rows = 64, .hopper = simt::FiberOrder::shuffled};
  expect_the_bits_of_each(nf4, rows, DType::bf16, GateKind::silu, whole);
  Grouping some = whole;
  some.band_bytes = 4 * 160 * 96 * 2;
  expect_the_bits_of_each(q4_0, rows, DType::bf16, GateKind::clamped_silu, some);
  const Grouping part{.rows = 128, .band_bytes = 1, .hopper = simt::FiberOrder::descending};
  expect_the_bits_of_each(int8, rows, DType::f16, GateKind::gelu_tanh, part);
}

// The rows that gate and up list may lie anywhere; the others go to mma.sync.
TEST_P(GroupedProductsByWgmma, of_rows_that_are_not_aligned_have_the_bits_of_those_that_are) {
  const testing::Hopper hopper(simt::FiberOrder::shuffled);
  expect_the_bits_of_rows_that_are_not_aligned();
}

TEST_P(GroupedProducts, of_many_rows_that_are_not_aligned_have_the_bits_of_each) {
  expect_the_bits_of_rows_that_are_not_aligned();
}

// All weights at once, three and two at a time, and a part of each at a time.
TEST_P(GroupedProducts, of_many_rows_by_codes_have_the_bits_of_each) {
  expect_the_bits_of_many("nf4", codes_of(QuantizedFormat::nf4), 128, 64, DType::bf16, true);
  expect_the_bits_of_many("int8", codes_of(QuantizedFormat::int8), 64, 128, DType::f16, false, 3 * 128 * 64 * 2);
  expect_the_bits_of_many("Q4_0", blocks_of(GgmlFormat::q4_0, DType::bf16), 96, 64, DType::bf16, true, 4 * 64 * 96 * 2);
  const Mixture cut = mixture_of(codes_of(QuantizedFormat::nf4), 64, 320, DType::bf16, true);
  expect_the_bits_of_each(cut, {5, {0, 5, 0, 0, 2}}, DType::bf16, GateKind::silu, {64, 1});
}

TEST_P(GroupedProducts, of_many_rows_by_every_format_have_the_bits_of_each) {
  const auto expect_few = [&](const std::string& what, const MakeWeight& make, int64_t outer, int64_t inner,
                              DType dtype) {
    SCOPED_TRACE(what);
    expect_the_bits_of_each(mixture_of(make, outer, inner, dtype, false), {9, {0, 3, 9, 0, 0}}, dtype, GateKind::silu,
                            {64, 2 * inner * outer * 2});
  };
  for (const GgmlFormat format : testing::all_formats) {
    const int64_t columns = RandomBlocks::layout(format).elements;
    const DType dtype = format == GgmlFormat::q6_k ? DType::f16 : DType::bf16;
    expect_few(std::string(name_of(format)), blocks_of(format, dtype), columns == 32 ? 96 : 256,
               columns == 32 ? 160 : 256, dtype);
  }
  const auto nested = [&](int64_t rows, int64_t columns, uint64_t seed) {
    return Weight(QuantizedWeight::pack(quantize_nf4(there(random_matrix(rows, columns, DType::f32, seed)), 64,
                                                     Nf4Scales::nested, MemoryTag::weights)));
  };
  expect_few("nested nf4", nested, 128, 192, DType::f16);
}

TEST_P(GroupedProducts, of_many_rows_have_the_bits_of_each_in_every_order_of_threads) {
  if (device().kind != DeviceKind::simt) GTEST_SKIP() << "a card has an order of its own";
  for (const simt::FiberOrder order : {simt::FiberOrder::descending, simt::FiberOrder::shuffled}) {
    simt::set_fiber_order(order);
    for (const int64_t rows : {64, 128}) {
      const Rows all{rows + 2, {0, static_cast<int32_t>(rows) + 2, 0, 3, 0}};
      expect_the_bits_of_each(mixture_of(dense_of(DType::bf16), 72, 40, DType::bf16, true), all, DType::bf16,
                              GateKind::clamped_silu, {rows});
    }
    expect_the_bits_of_each(mixture_of(codes_of(QuantizedFormat::nf4), 64, 64, DType::bf16, false),
                            {3, {0, 3, 0, 1, 0}}, DType::bf16, GateKind::gelu_tanh, {64});
    simt::set_fiber_order(simt::FiberOrder::ascending);
  }
}

// simt finds what threads race for when they run in another order.
TEST_P(GroupedProducts, have_the_bits_of_each_in_every_order_of_threads) {
  if (device().kind != DeviceKind::simt) GTEST_SKIP() << "a card has an order of its own";
  for (const simt::FiberOrder order : {simt::FiberOrder::descending, simt::FiberOrder::shuffled}) {
    simt::set_fiber_order(order);
    const auto dense = [&](int64_t rows, int64_t columns, uint64_t seed) {
      return Weight(there(random_matrix(rows, columns, DType::bf16, seed)));
    };
    expect_the_bits("dense", dense, 72, 40, DType::bf16, true);
    const auto nf4 = [&](int64_t rows, int64_t columns, uint64_t seed) {
      return Weight(
          QuantizedWeight::quantize(there(random_matrix(rows, columns, DType::f32, seed)), QuantizedFormat::nf4));
    };
    expect_the_bits("nf4", nf4, 128, 64, DType::bf16, false);
    const auto blocks = [&](int64_t rows, int64_t columns, uint64_t seed) {
      return Weight(RandomBlocks(GgmlFormat::mxfp4, rows, columns, DType::bf16, seed).on(device()));
    };
    expect_the_bits("MXFP4", blocks, 96, 64, DType::bf16, true);
    simt::set_fiber_order(simt::FiberOrder::ascending);
  }
}

// Weights that differ in kind, format or shape, other dtypes, and what is not there.
TEST_P(GroupedProducts, have_no_table_of_weights_that_no_body_takes) {
  const auto dense = [&](int64_t rows, int64_t columns, DType dtype) {
    return Weight(there(random_matrix(rows, columns, dtype, 1)));
  };
  const Weight weight = dense(16, 64, DType::bf16);
  EXPECT_TRUE(WeightTable::of({weight, weight}, {}, DType::bf16).defined());
  EXPECT_FALSE(WeightTable::of({weight, weight}, {}, DType::f16).defined());
  EXPECT_FALSE(WeightTable::of({weight, dense(16, 72, DType::bf16)}, {}, DType::bf16).defined());
  EXPECT_FALSE(WeightTable::of({dense(16, 63, DType::bf16)}, {}, DType::bf16).defined()) << "rows at no vectors";
  EXPECT_FALSE(WeightTable::of({dense(16, 64, DType::f32)}, {}, DType::f32).defined());
  EXPECT_FALSE(WeightTable::of({}, {}, DType::bf16).defined());
  const Weight q4_0(RandomBlocks(GgmlFormat::q4_0, 16, 64, DType::bf16, 2).on(device())),
      q8_0(RandomBlocks(GgmlFormat::q8_0, 16, 64, DType::bf16, 2).on(device()));
  EXPECT_FALSE(WeightTable::of({q4_0, q8_0}, {}, DType::bf16).defined());
  EXPECT_FALSE(WeightTable::of({q4_0, weight}, {}, DType::bf16).defined());
  EXPECT_FALSE(WeightTable::of({weight, weight}, {there(random_matrix(1, 16, DType::bf16, 3).view({16}))}, DType::bf16)
                   .defined())
      << "one bias for two";
  const WeightTable table = WeightTable::of({q4_0}, {}, DType::bf16);
  EXPECT_FALSE(table.goes_with(WeightTable::of({q8_0}, {}, DType::bf16)));
  const auto zeros = [&](int64_t rows) { return Tensor::zeros({rows}, DType::i32, device()); };
  const Tensor x = there(random_matrix(2, 64, DType::bf16, 4)), out = there(random_matrix(2, 16, DType::bf16, 4));
  EXPECT_THROW(grouped_linear(out, x, WeightTable(), {zeros(1), zeros(2)}), ShapeError);
  EXPECT_THROW(grouped_linear(out, x, table, {zeros(1), zeros(3)}), ShapeError);
  EXPECT_THROW(grouped_linear(x, out, table, {zeros(1), zeros(2)}), ShapeError);
  EXPECT_THROW(grouped_linear(out, x, table, {zeros(1), zeros(2), 32, zeros(2)}), ShapeError);
  EXPECT_THROW(grouped_linear(out, x, table, {zeros(1), zeros(2), 64}), ShapeError) << "no begins";
  EXPECT_THROW(grouped_linear(out, x, table, {zeros(1), zeros(2), 64, zeros(3)}), ShapeError);
  EXPECT_THROW(grouped_gated_linear(out, x, zeros(2), table, WeightTable(), {zeros(1), zeros(2)}, GateKind::silu),
               ShapeError);
  EXPECT_THROW(grouped_gated_linear(out, x, zeros(2), table, table, {zeros(1), zeros(2)}, GateKind::silu,
                                    {empty_as(out), empty_as(out)}),
               ShapeError)
      << "of few rows nothing is kept";
}

TEST_P(GroupedProducts, have_no_gradients_of_other_groups_and_shapes) {
  const auto dense = [&](int64_t rows, int64_t columns) {
    return Weight(there(random_matrix(rows, columns, DType::bf16, 1)));
  };
  const WeightTable table = WeightTable::of({dense(16, 64)}, {}, DType::bf16),
                    other = WeightTable::of({dense(24, 64)}, {}, DType::bf16);
  const auto zeros = [&](int64_t rows) { return Tensor::zeros({rows}, DType::i32, device()); };
  const auto matrix = [&](int64_t columns) { return there(random_matrix(2, columns, DType::bf16, 4)); };
  const WeightGroups groups{.numbers = zeros(1), .bounds = zeros(2), .rows = 64, .begins = zeros(2)};
  const auto expect_refused = [&](const Tensor& grad_x, const std::vector<GroupedGradientTerm>& terms,
                                  const WeightGroups& of) {
    EXPECT_THROW(grouped_input_gradient(grad_x, terms, of), ShapeError);
  };
  const GroupedGradientTerm term{matrix(16), &table};
  grouped_input_gradient(matrix(64), std::vector{term}, groups);
  expect_refused(matrix(64), {}, groups);
  expect_refused(matrix(64), {term, term, term}, groups);
  expect_refused(matrix(64), {term, {matrix(24), &other}}, groups);
  expect_refused(matrix(16), {term}, groups);
  expect_refused(matrix(64), {{matrix(64), &table}}, groups);
  expect_refused(matrix(64), {term}, {zeros(1), zeros(2)});
  expect_refused(matrix(64), {term}, {.numbers = zeros(1), .bounds = zeros(2), .rows = 64, .begins = zeros(3)});
}

TEST(GroupedProductsOnSimt, AreALaunchEachWhateverGoesWhere) {
  const Device simt{DeviceKind::simt};
  const auto zeros = [&](const Shape& shape, DType dtype) { return Tensor::zeros(shape, dtype, simt); };
  const std::vector<Weight> weights(40, Weight(zeros({64, 64}, DType::bf16)));
  const WeightTable table = WeightTable::of(weights, {}, DType::bf16);
  const Tensor x = zeros({3, 64}, DType::bf16);
  const WeightGroups groups{zeros({3}, DType::i32), zeros({4}, DType::i32)};
  synchronize(simt);
  const int64_t before = simt::launches_run();
  grouped_linear(Tensor::empty({3, 64}, DType::bf16, simt), x, table, groups);
  grouped_gated_linear(Tensor::empty({3, 64}, DType::bf16, simt), x, zeros({3}, DType::i32), table, table, groups,
                       GateKind::clamped_silu);
  synchronize(simt);
  EXPECT_EQ(simt::launches_run() - before, 2);

  WeightGroups many = groups;
  many.rows = 64;
  many.begins = zeros({41}, DType::i32);
  grouped_linear(Tensor::empty({3, 64}, DType::bf16, simt), x, table, many);
  grouped_gated_linear(Tensor::empty({3, 64}, DType::bf16, simt), x, zeros({3}, DType::i32), table, table, many,
                       GateKind::silu);
  synchronize(simt);
  EXPECT_EQ(simt::launches_run() - before, 4);

  const GroupedGradientTerm both[] = {{x, &table}, {x, &table}};
  grouped_input_gradient(Tensor::empty({3, 64}, DType::bf16, simt), both, many);
  synchronize(simt);
  EXPECT_EQ(simt::launches_run() - before, 5);
}

// As much as is foretold; codes are read as they are until there are 64 rows for each weight, where no gradient is
// recorded.
TEST(GroupedProductsOnSimt, DequantiseInABandOfWorkspace) {
  const Device simt{DeviceKind::simt};
  const auto zeros = [&](const Shape& shape, DType dtype) { return Tensor::zeros(shape, dtype, simt); };
  constexpr int64_t count = 4, n = 64, k = 128;
  const Weight one = QuantizedWeight::quantize(zeros({n, k}, DType::f32), QuantizedFormat::int8);
  const WeightTable table = WeightTable::of(std::vector<Weight>(count, one), {}, DType::bf16);
  EXPECT_EQ(suitable_group_rows(table, 64 * count), few_rows_most);
  EXPECT_EQ(suitable_recorded_group_rows(table, 64 * count), 64);
  for (const auto suitable : {suitable_group_rows, suitable_recorded_group_rows}) {
    EXPECT_EQ(suitable(table, 64 * count + 1), 64);
    EXPECT_EQ(suitable(table, 128 * count), 128);
  }
  const int64_t foretold = grouped_workspace_bytes({2, count, n, k, DType::bf16});
  EXPECT_EQ(foretold, 2 * count * n * k * 2);
  EXPECT_EQ(grouped_workspace_bytes({2, 128, 768, 2048, DType::bf16}), int64_t{2} * 10 * 768 * 2048 * 2);
  EXPECT_EQ(grouped_workspace_bytes({1, 8, 14336, 4096, DType::bf16}), int64_t{7168} * 4096 * 2);
  EXPECT_EQ(grouped_workspace_bytes({1, 8, 512, 262144, DType::bf16}), int64_t{256} * 262144 * 2)
      << "256 rows are more than a band";
  EXPECT_EQ(grouped_workspace_bytes({1, 8, 262144, 512, DType::bf16}), int64_t{256} * 262144 * 2)
      << "and 256 columns of a gradient's weights";

  const Tensor x = zeros({3, k}, DType::bf16), grad_out = zeros({3, n}, DType::bf16);
  WeightGroups groups{.numbers = zeros({3}, DType::i32),
                      .bounds = zeros({4}, DType::i32),
                      .rows = 64,
                      .begins = zeros({5}, DType::i32)};
  const auto multiply = [&] {
    grouped_gated_linear(Tensor::empty({3, n}, DType::bf16, simt), x, zeros({3}, DType::i32), table, table, groups,
                         GateKind::silu);
  };
  const auto gradient = [&] {
    const GroupedGradientTerm both[] = {{grad_out, &table}, {grad_out, &table}};
    grouped_input_gradient(Tensor::empty({3, k}, DType::bf16, simt), both, groups);
  };
  Allocator& allocator = allocator_for(simt);
  const auto workspace = static_cast<size_t>(MemoryTag::workspace);
  for (const std::function<void()>& call : {std::function<void()>(multiply), std::function<void()>(gradient)}) {
    groups.band_bytes = most_band_bytes;
    synchronize(simt);
    allocator.reset_peak();
    const int64_t before = allocator.stats().live_bytes[workspace];
    call();
    EXPECT_EQ(allocator.stats().peak_bytes[workspace] - before, foretold);
    synchronize(simt);
    const int64_t launches = simt::launches_run();
    groups.band_bytes = foretold / 2;
    call();
    synchronize(simt);
    EXPECT_EQ(simt::launches_run() - launches, 2 * 3) << "of each band gate's and up's part, and the products";
  }
}

}  // namespace
}  // namespace lathe::kernels
