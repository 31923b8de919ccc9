// The optimisers' steps of many tensors in one call: the bits of one after another, weights rounded beside them, and
// few launches on a device.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "kernels/adamw/adamw.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/queued_work.h"
#include "kernels/gradient_norm/gradient_norm.h"
#include "kernels/lion/lion.h"
#include "kernels/sgd/sgd.h"

namespace lathe::kernels {
namespace {

constexpr int64_t sizes[] = {2048, 1, 300, 0, 7, 2049, 5000};

// What any of the optimisers reads and writes of one tensor.
struct Operands {
  Tensor weight, grad, m, v, rounded;
  AdamW8bitStates codes;
};

class ManyTensors {
 public:
  // The same numbers each time; with `offset` each begins so many elements after a boundary.
  ManyTensors(Device device, int64_t count, int64_t offset) : device_(device), offset_(offset) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t n = sizes[i % std::ssize(sizes)], blocks = (n + adamw_8bit_block - 1) / adamw_8bit_block;
      Operands t{.weight = normal(n), .grad = normal(n), .m = normal(n), .v = normal(n), .rounded = {}, .codes = {}};
      if (i % 3 > 0) t.rounded = placed(Tensor::zeros({n + offset}, i % 3 == 1 ? DType::bf16 : DType::f16));
      t.codes = {codes(n), codes(n), normal(blocks), normal(blocks)};
      operands_.push_back(std::move(t));
    }
  }
  const std::vector<Operands>& operands() const { return operands_; }

  // All bytes, those in front of each tensor included: nobody may have written there.
  std::vector<char> bytes() const {
    std::vector<char> all;
    for (const Tensor& whole : wholes_) {
      const Tensor here = moved(whole, {});
      all.insert(all.end(), static_cast<const char*>(here.raw()), static_cast<const char*>(here.raw()) + here.nbytes());
    }
    return all;
  }

 private:
  Tensor placed(const Tensor& values) {
    wholes_.push_back(moved(values, device_));
    return wholes_.back().slice(0, offset_, values.numel());
  }
  Tensor normal(int64_t n) {
    const Tensor values = Tensor::empty({n + offset_}, DType::f32);
    for (float& x : values.span<float>()) x = std::abs(random_.normal());  // v is a mean of squares
    return placed(values);
  }
  Tensor codes(int64_t n) {
    const Tensor values = Tensor::empty({n + offset_}, DType::u8);
    for (uint8_t& x : values.span<uint8_t>()) x = static_cast<uint8_t>(random_.below(256));
    return placed(values);
  }

  Device device_;
  int64_t offset_;
  RandomStream random_{7, RandomPurpose::test};
  std::vector<Tensor> wholes_;
  std::vector<Operands> operands_;
};

struct Scale {
  double grad_scale = 0.3;
  Tensor clip = {};
};
using Step = void (*)(std::span<const Operands>, const Scale&);

void sgd_step(std::span<const Operands> all, const Scale& scale) {
  std::vector<SgdTensors> tensors;
  for (const Operands& t : all) tensors.push_back({t.weight, t.grad, t.rounded});
  sgd(tensors, {.learning_rate = 0.1, .weight_decay = 0.01, .grad_scale = scale.grad_scale}, scale.clip);
}
void lion_step(std::span<const Operands> all, const Scale& scale) {
  std::vector<LionTensors> tensors;
  for (const Operands& t : all) tensors.push_back({t.weight, t.grad, t.m, t.rounded});
  lion(tensors, {.learning_rate = 0.1, .weight_decay = 0.01, .grad_scale = scale.grad_scale}, scale.clip);
}
AdamWParams adamw_params(const Scale& scale) {
  return {.learning_rate = 0.1, .weight_decay = 0.01, .grad_scale = scale.grad_scale, .step = 3};
}
void adamw_step(std::span<const Operands> all, const Scale& scale) {
  std::vector<AdamWTensors> tensors;
  for (const Operands& t : all) tensors.push_back({t.weight, t.grad, t.m, t.v, t.rounded});
  adamw(tensors, adamw_params(scale), scale.clip);
}
void adamw_8bit_step(std::span<const Operands> all, const Scale& scale) {
  std::vector<AdamW8bitTensors> tensors;
  for (const Operands& t : all) tensors.push_back({t.weight, t.grad, t.codes, t.rounded});
  adamw_8bit(tensors, adamw_params(scale), scale.clip);
}

struct Launches final : QueuedWorkListener {
  int64_t count = 0;
  void queued(const char* name, int64_t) override {
    count += name != waited && name != queued_copy && name != queued_clear;
  }
};

struct Optimiser {
  const char* name;
  Step step;
};

class OptimiserOfMany : public testing::TestWithParam<Optimiser> {};
INSTANTIATE_TEST_SUITE_P(Kinds, OptimiserOfMany,
                         testing::Values(Optimiser{"sgd", sgd_step}, Optimiser{"lion", lion_step},
                                         Optimiser{"adamw", adamw_step}, Optimiser{"adamw_8bit", adamw_8bit_step}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(OptimiserOfMany, HasTheBitsOfOneAfterAnother) {
  for (const Device device : {Device{}, Device{DeviceKind::simt}})
    for (const int64_t offset : {0, 1}) {
      const ManyTensors at_once(device, 150, offset), in_turn(device, 150, offset);
      GetParam().step(at_once.operands(), {});
      for (const Operands& one : in_turn.operands()) GetParam().step({&one, 1}, {});
      EXPECT_EQ(at_once.bytes(), in_turn.bytes()) << to_string(device) << " " << offset;
    }
}

TEST_P(OptimiserOfMany, TakesTheFactorOfAClip) {
  const double numbers[] = {5.0, 0.1};  // the norm, the factor
  for (const Device device : {Device{}, Device{DeviceKind::simt}}) {
    const ManyTensors by_clip(device, 150, 0), by_number(device, 150, 0);
    GetParam().step(by_clip.operands(), {.clip = moved(Tensor::of<double>(numbers, {2}), device)});
    GetParam().step(by_number.operands(), {.grad_scale = 0.1});
    EXPECT_EQ(by_clip.bytes(), by_number.bytes()) << to_string(device);
  }
}

TEST_P(OptimiserOfMany, ChangesNothingByAFactorThatIsNaN) {
  const double numbers[] = {5.0, NAN};
  for (const Device device : {Device{}, Device{DeviceKind::simt}}) {
    const ManyTensors tensors(device, 150, 1);
    const std::vector<char> before = tensors.bytes();
    GetParam().step(tensors.operands(), {.clip = moved(Tensor::of<double>(numbers, {2}), device)});
    EXPECT_EQ(tensors.bytes(), before) << to_string(device);
  }
}

TEST_P(OptimiserOfMany, RoundsTheNewWeights) {
  for (const Device device : {Device{}, Device{DeviceKind::simt}})
    for (const int64_t offset : {0, 1}) {
      const ManyTensors tensors(device, 21, offset);
      GetParam().step(tensors.operands(), {});
      for (const Operands& t : tensors.operands()) {
        if (!t.rounded.defined()) continue;
        const Tensor expected = moved(cast(t.weight, t.rounded.dtype()), {}), found = moved(t.rounded, {});
        EXPECT_EQ(std::memcmp(found.raw(), expected.raw(), static_cast<size_t>(found.nbytes())), 0)
            << t.rounded.numel();
      }
    }
}

TEST_P(OptimiserOfMany, IsFewLaunches) {
  const ManyTensors tensors({DeviceKind::simt}, 150, 0);
  Launches launches;
  GetParam().step(tensors.operands(), {});
  EXPECT_GE(launches.count, 2);  // more tensors than one launch takes
  EXPECT_LE(launches.count, 6);
}

TEST_P(OptimiserOfMany, RefusesOthersAmongThem) {
  std::vector<Operands> tensors = ManyTensors({}, 2, 0).operands();
  tensors[1].rounded = Tensor::zeros(tensors[1].weight.shape(), DType::f32);
  EXPECT_THROW(GetParam().step(tensors, {}), ShapeError);
  tensors[1] = ManyTensors({DeviceKind::simt}, 2, 0).operands()[1];
  EXPECT_THROW(GetParam().step(tensors, {}), ShapeError);
  GetParam().step({}, {});
}

TEST_P(OptimiserOfMany, RefusesAClipThatLiesElsewhere) {
  const ManyTensors tensors({DeviceKind::simt}, 2, 0);
  const Tensor other = Tensor::zeros({2}, DType::f64, {DeviceKind::simt, 1});
  EXPECT_THROW(GetParam().step(tensors.operands(), {.clip = other}), ShapeError);
  EXPECT_THROW(GetParam().step(tensors.operands(), {.clip = Tensor::zeros({2}, DType::f64)}), ShapeError);
}

TEST(GradientNorm, OfManyIsFewLaunches) {
  const ManyTensors tensors({DeviceKind::simt}, 300, 0);
  std::vector<Tensor> gradients;
  double total = 0;
  for (const Operands& t : tensors.operands()) {
    gradients.push_back(t.grad);
    total += sum_of_squares(t.grad);
  }
  Launches launches;
  EXPECT_EQ(gradient_norm(gradients), std::sqrt(total));
  EXPECT_GE(launches.count, 2);
  EXPECT_LE(launches.count, 3);
}

}  // namespace
}  // namespace lathe::kernels
