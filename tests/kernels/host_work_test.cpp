// Work of the host between that of a device: in order, with nobody waiting.
#include "kernels/cuda/host_work.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <stdexcept>
#include <vector>

#include "core/error.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/graph.h"
#include "kernels/cuda/queued_work.h"
#include "kernels/cuda/runtime.h"

namespace lathe::kernels {
namespace {

constexpr Device simt{DeviceKind::simt};

struct Waits final : QueuedWorkListener {
  int64_t count = 0;
  void queued(const char* name, int64_t) override { count += name == waited || name == queued_copy; }
};

// squares of 2 · {1, 2, 3}, halved.
std::vector<float> halves_of_squares(Device device) {
  const float values[] = {1.0f, 2.0f, 3.0f};
  const Tensor in = moved(Tensor::of<float>(values, {3}), device);
  const Tensor doubled = Tensor::empty({3}, DType::f32, device), halved = Tensor::empty({3}, DType::f32, device);
  Waits waits;
  scale(doubled, in, 2.0);
  const Tensor here = queued_to_host(doubled), squares = host_tensor({3}, DType::f32, device);
  queue_host_work(device, [here, squares] {
    for (size_t i = 0; i < 3; ++i) squares.span<float>()[i] = here.span<float>()[i] * here.span<float>()[i];
  });
  scale(halved, queued_to_device(squares, device), 0.5);
  const Tensor result = queued_to_host(halved);
  EXPECT_EQ(waits.count, 0);
  synchronize(device);
  return {result.span<float>().begin(), result.span<float>().end()};
}

TEST(HostWork, StandsBetweenWhatIsQueuedBeforeAndAfterIt) {
  const std::vector<float> expected = {2.0f, 8.0f, 18.0f};
  EXPECT_EQ(halves_of_squares({}), expected);
  EXPECT_EQ(halves_of_squares(simt), expected);
  EXPECT_EQ(halves_of_squares({DeviceKind::simt, 1}), expected);
}

TEST(HostWork, IsDoneWhenTheDeviceHasBeenWaitedFor) {
  const auto done = std::make_shared<int>(0);
  for (int i = 0; i < 3; ++i) queue_host_work(simt, [done, i] { *done = 10 * *done + i; });
  EXPECT_EQ(*done, 0) << "simt holds work back";
  synchronize(simt);
  EXPECT_EQ(*done, 12);
  EXPECT_EQ(done.use_count(), 1) << "what it owned is gone";
  queue_host_work({}, [done] { *done = 5; });
  EXPECT_EQ(*done, 5) << "on the cpu at once";
}

TEST(HostWork, OnTheCpuCopiesAreTheTensorsThemselves) {
  const Tensor tensor = Tensor::zeros({4}, DType::f32);
  EXPECT_EQ(queued_to_host(tensor).raw(), tensor.raw());
  EXPECT_EQ(queued_to_device(tensor, {}).raw(), tensor.raw());
}

TEST(HostWork, HandsMemoryOnInTheOrderOfTheQueue) {
  const void* memory = nullptr;
  {
    const Tensor first = host_tensor({1000}, DType::f32, simt);
    memory = first.raw();
    queue_host_work(simt, [first] { first.span<float>()[0] = 1.0f; });
  }
  EXPECT_NE(host_tensor({1000}, DType::f32, simt).raw(), memory) << "the work still owns it";
  synchronize(simt);
  EXPECT_NE(host_tensor({1000}, DType::f32, {DeviceKind::simt, 1}).raw(), memory) << "another queue";
  const Tensor one = host_tensor({1000}, DType::f32, simt), other = host_tensor({900}, DType::f32, simt);
  EXPECT_TRUE(one.raw() == memory || other.raw() == memory);
}

// Each replay does it again, in its place, and it lives until the last is done.
TEST(HostWork, IsAPartOfAGraph) {
  const Tensor number = moved(Tensor::of<float>(std::vector<float>{1.0f}, {1}), simt);
  const auto seen = std::make_shared<std::vector<float>>();
  {
    DeviceGraph graph(simt);
    graph.run([&] {
      const Tensor here = queued_to_host(number), next = host_tensor({1}, DType::f32, simt);
      queue_host_work(simt, [here, next, seen] {
        seen->push_back(here.data<float>()[0]);
        next.data<float>()[0] = 3.0f * here.data<float>()[0];
      });
      scale(number, queued_to_device(next, simt), 2.0);
    });
    graph.replay();
    graph.replay();
    EXPECT_TRUE(seen->empty()) << "simt holds work back";
  }
  EXPECT_EQ(seen.use_count(), 2) << "the graph is gone, its replays are not";
  synchronize(simt);
  EXPECT_EQ(*seen, (std::vector<float>{1.0f, 6.0f, 36.0f}));
  EXPECT_EQ(seen.use_count(), 1);
}

TEST(HostWork, OfAGraphThatIsCapturedAnewLivesUntilTheOldOneIsDone) {
  const auto first = std::make_shared<int>(0), second = std::make_shared<int>(0);
  DeviceGraph graph(simt);
  for (const std::shared_ptr<int>& count : {first, second})
    graph.run([&] { queue_host_work(simt, [count] { ++*count; }); });
  graph.replay();
  synchronize(simt);
  EXPECT_EQ(*first, 1);
  EXPECT_EQ(*second, 2);
  EXPECT_EQ(first.use_count(), 1);
  EXPECT_EQ(second.use_count(), 2);
}

TEST(HostWork, OfACaptureThatFailsIsNotDone) {
  const auto count = std::make_shared<int>(0);
  DeviceGraph graph(simt);
  EXPECT_THROW(graph.run([&] {
    queue_host_work(simt, [count] { ++*count; });
    throw Error("the step");
  }),
               Error);
  synchronize(simt);
  EXPECT_EQ(*count, 0);
  EXPECT_EQ(count.use_count(), 1);
}

}  // namespace
}  // namespace lathe::kernels
