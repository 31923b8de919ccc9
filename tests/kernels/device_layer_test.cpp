// What the host does with a device, proven on simt: staging, graphs, several devices, and failures at every call.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/tensor.h"
#include "kernels/cuda/graph.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/upload.h"
#include "kernels/simt/options.h"
#include "kernels/simt/sanitizer.h"
#include "tests/support/simt_kernels.h"

namespace lathe::testing {
namespace {

constexpr Device first{DeviceKind::simt, 0}, second{DeviceKind::simt, 1};
constexpr int threads = 64;

std::vector<float> counting(float from = 1.0f) {
  std::vector<float> values(threads);
  std::iota(values.begin(), values.end(), from);
  return values;
}

Tensor put(const std::vector<float>& values, Device device) {
  const Tensor tensor = Tensor::empty({static_cast<int64_t>(values.size())}, DType::f32, device);
  kernels::copy_bytes(device, tensor.raw(), {}, values.data(), tensor.nbytes());
  return tensor;
}

std::vector<float> get(const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.numel()));
  kernels::copy_bytes({}, values.data(), tensor.device(), tensor.raw(), tensor.nbytes());
  return values;
}

// out[i] = in[63 − i]
void reverse(const Tensor& out, const Tensor& in) {
  launch_planted(Planted::none, static_cast<float*>(out.raw()), static_cast<const float*>(in.raw()), threads);
}

std::vector<float> reversed(std::vector<float> values) { return {values.rbegin(), values.rend()}; }

template <class Body>
std::string error_of(Body body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

void expect_words(const std::string& text, std::initializer_list<const char*> words) {
  for (const char* word : words)
    EXPECT_NE(text.find(word), std::string::npos) << "expected '" << word << "' in: " << text;
}

TEST(Upload, CutsAtUnitsAndKeepsWhatIsInFlight) {
  // Units of 12 bytes through buffers of 40: pieces of 36, the last one short. Nothing waits between them, so that a
  // buffer refilled too early would show.
  kernels::Upload upload(first, 40);
  const int64_t bytes = 12 * 17;
  const Tensor to = Tensor::empty({bytes}, DType::u8, first);
  std::vector<int64_t> counts;
  upload.write(to.raw(), bytes, 12, [&](char* buffer, int64_t at, int64_t count) {
    EXPECT_EQ(at % 12, 0);
    counts.push_back(count);
    for (int64_t i = 0; i < count; ++i) buffer[i] = static_cast<char>(at + i);
  });
  upload.publish();
  EXPECT_EQ(counts, (std::vector<int64_t>{36, 36, 36, 36, 36, 24}));
  std::vector<uint8_t> found(static_cast<size_t>(bytes));
  kernels::copy_bytes({}, found.data(), first, to.raw(), bytes);
  for (int64_t i = 0; i < bytes; ++i) ASSERT_EQ(found[static_cast<size_t>(i)], static_cast<uint8_t>(i)) << i;
}

TEST(Upload, WaitsForWorkThatStillReadsTheMemory) {
  const Tensor out = Tensor::empty({threads}, DType::f32, first);
  kernels::Upload upload(first);
  const Tensor in = put(counting(), first);
  reverse(out, in);  // queued, not run
  upload.write(in.raw(), in.nbytes(), 4,
               [](char* buffer, int64_t, int64_t count) { std::memset(buffer, 0, static_cast<size_t>(count)); });
  upload.publish();
  EXPECT_EQ(get(out), reversed(counting()));
  EXPECT_EQ(get(in), std::vector<float>(threads, 0.0f));
}

TEST(Upload, MayGoBeforeTheWorkThatWaitsForIt) {
  const Tensor in = put(counting(), first), out = Tensor::empty({threads}, DType::f32, first);
  {
    kernels::Upload upload(first);
    upload.write(in.raw(), in.nbytes(), 4,
                 [](char* buffer, int64_t, int64_t count) { std::memset(buffer, 0, static_cast<size_t>(count)); });
    upload.publish();
    reverse(out, in);  // behind the wait for the upload's stream
  }
  EXPECT_EQ(get(out), std::vector<float>(threads, 0.0f));
}

TEST(Upload, OnTheCpuFillsInPlace) {
  std::vector<char> to(10);
  kernels::Upload upload({});
  upload.write(to.data(), 10, 5, [](char* buffer, int64_t at, int64_t count) {
    std::memset(buffer + at, 7, static_cast<size_t>(count));
  });
  upload.publish();
  EXPECT_EQ(to, std::vector<char>(10, 7));
}

TEST(Upload, RefusesUnitsLargerThanItsBuffers) {
  kernels::Upload upload(first, 16);
  const Tensor to = Tensor::empty({32}, DType::u8, first);
  EXPECT_THROW(upload.write(to.raw(), 32, 32, [](char*, int64_t, int64_t) {}), ResourceError);
}

TEST(DeviceGraph, RunsEachStepWithItsOwnArguments) {
  kernels::DeviceGraph graph(first);
  const Tensor out = Tensor::empty({threads}, DType::f32, first);
  for (const float from : {1.0f, 100.0f, 7.0f}) {
    const Tensor in = put(counting(from), first);  // another address each time
    const int64_t before = simt::launches_run();
    graph.run([&] {
      const Tensor middle = Tensor::empty({threads}, DType::f32, first);
      reverse(middle, in);
      reverse(out, middle);
      kernels::copy_bytes(first, middle.raw(), first, in.raw(), in.nbytes());
    });
    EXPECT_EQ(get(out), counting(from));
    EXPECT_EQ(simt::launches_run(), before + 2);
  }
}

TEST(DeviceGraph, IsMadeAnewForAStepOfOtherKernels) {
  kernels::DeviceGraph graph(first);
  const Tensor in = put(counting(), first), out = put(counting(), first);
  for (int kernels = 1; kernels <= 3; ++kernels) {
    graph.run([&] {
      for (int i = 0; i < kernels; ++i) i % 2 == 0 ? reverse(out, in) : reverse(in, out);
    });
    kernels::synchronize(first);
  }
  // out = R in; out = R in, in = R out = in; and once more.
  EXPECT_EQ(get(out), reversed(counting()));
}

TEST(DeviceGraph, AStepThatWaitsIsAnErrorAndTheDeviceGoesOn) {
  kernels::DeviceGraph graph(first);
  const Tensor in = put(counting(), first), out = put(counting(), first);
  expect_words(error_of([&] {
                 graph.run([&] {
                   reverse(out, in);
                   get(out);
                 });
               }),
               {"capturing"});
  EXPECT_EQ(get(out), counting()) << "nothing of a failed step may run";
  EXPECT_THROW(graph.run([] { throw ShapeError("from the step"); }), ShapeError);
  graph.run([&] { reverse(out, in); });
  EXPECT_EQ(get(out), reversed(counting()));
}

TEST(DeviceGraph, KeepsMemoryThatTheStepGaveBack) {
  kernels::DeviceGraph graph(first);
  const Tensor in = put(counting(), first), out = Tensor::empty({threads}, DType::f32, first);
  graph.run([&] {
    {
      const Tensor middle = Tensor::empty({threads}, DType::f32, first);
      reverse(middle, in);
      reverse(out, middle);
    }
    allocator_for(first).release_cached();  // middle's block goes back to the system before its kernels have run
  });
  EXPECT_EQ(get(out), counting());
}

TEST(DeviceGraph, ReplaysWithNewNumbersAndTouchesNobodysMemory) {
  kernels::DeviceGraph graph(first);
  const Tensor in = put(counting(), first);
  Tensor out;
  graph.run([&] {
    const Tensor middle = Tensor::empty({threads}, DType::f32, first);
    out = Tensor::empty({threads}, DType::f32, first);
    reverse(middle, in);
    reverse(out, middle);
  });
  EXPECT_EQ(get(out), counting());
  std::vector<Tensor> others;
  for (int i = 0; i < 4; ++i) others.push_back(put(counting(1000), first));
  kernels::copy_bytes(first, in.raw(), {}, counting(50).data(), in.nbytes());
  graph.replay();
  EXPECT_EQ(get(out), counting(50));
  for (const Tensor& other : others) EXPECT_EQ(get(other), counting(1000));
}

TEST(DeviceGraph, FailuresAreOneSentenceAndTheNextRunWorks) {
  kernels::DeviceGraph graph(first);
  const Tensor in = put(counting(), first), out = put(counting(), first);
  const auto run = [&] { graph.run([&] { reverse(out, in); }); };
  simt::fail_nth(simt::Call::capture, 1);
  expect_words(error_of(run), {"capturing a graph", "out of memory"});
  simt::fail_nth(simt::Call::capture, 2);
  expect_words(error_of(run), {"making a graph", "out of memory"});
  simt::fail_nth(simt::Call::launch, 1);
  expect_words(error_of(run), {"planted", "injected launch failure"});
  simt::fail_nth(simt::Call::launch, 2);
  expect_words(error_of(run), {"launching a graph", "injected launch failure"});
  EXPECT_EQ(get(out), counting()) << "nothing of a failed step may run";
  run();
  EXPECT_EQ(get(out), reversed(counting()));
}

TEST(Devices, EachHasItsMemoryAndItsWork) {
  EXPECT_EQ(kernels::why_unavailable(second), "");
  const int64_t live = allocator_for(second).stats().total_live_bytes;
  const Tensor a = put(counting(), first), b = put(counting(5), second);
  EXPECT_GT(allocator_for(second).stats().total_live_bytes, live);
  const Tensor out_a = Tensor::empty({threads}, DType::f32, first),
               out_b = Tensor::empty({threads}, DType::f32, second);
  kernels::use_device(first);
  reverse(out_a, a);
  kernels::use_device(second);
  reverse(out_b, b);
  EXPECT_EQ(get(out_a), reversed(counting()));
  EXPECT_EQ(get(out_b), reversed(counting(5)));
  const Tensor moved = Tensor::empty({threads}, DType::f32, second);
  kernels::copy_bytes(second, moved.raw(), first, a.raw(), a.nbytes());
  EXPECT_EQ(get(moved), counting());
}

TEST(DevicesDeathTest, AKernelOnTheWrongDeviceIsCaught) {
  if (LATHE_SIMT_ASAN) GTEST_SKIP() << "AddressSanitizer reports the access itself";
  const Tensor b = put(counting(), second), out = Tensor::empty({threads}, DType::f32, second);
  EXPECT_DEATH(
      {
        kernels::use_device(first);
        reverse(out, b);
        kernels::synchronize(first);
      },
      "a kernel that of another one");
}

// AddressSanitizer watches freed blocks, but not while work that was queued before may still use them.
TEST(Devices, QueuedWorkMayOutliveItsTensors) {
  { const Tensor cleared = Tensor::zeros({1000}, DType::f32, first); }
  { const Tensor shorter = Tensor::zeros({900}, DType::f32, first); }  // the same block
  EXPECT_NO_THROW(kernels::synchronize(first));
}

TEST(Devices, NamesWhatDoesNotExist) {
  expect_words(kernels::why_unavailable({DeviceKind::simt, 2}), {"simt:2", "2 of that kind"});
  EXPECT_NE(kernels::why_unavailable({DeviceKind::cpu, 1}), "");
  EXPECT_THROW(Tensor::empty({1}, DType::f32, {DeviceKind::simt, 9}), ResourceError);
}

TEST(Failures, OutOfMemoryNamesTheTagsAndWhatToLower) {
  const Tensor held = Tensor::empty({int64_t{10} << 30}, DType::u8, first, MemoryTag::activations);
  expect_words(error_of([] { Tensor::empty({int64_t{20} << 30}, DType::u8, first, MemoryTag::kv_cache); }),
               {"out of memory on simt", "asked for kv_cache", "bytes free", "activations", "10240.0",
                "Most of it is kv_cache", "max_tokens"});
  expect_words(
      error_of([] { Tensor::empty({int64_t{8} << 30}, DType::u8, first, MemoryTag::weights); }),
      {"asked for weights", "Most of it is activations", "per_device_train_batch_size", "gradient_checkpointing"});
}

TEST(Failures, ARefusedAllocationIsTriedAgainWithoutTheCache) {
  allocator_for(first).release_cached();
  { const Tensor cached = Tensor::empty({1 << 20}, DType::u8, first); }
  simt::fail_nth(simt::Call::allocation, 1);
  const Tensor larger = Tensor::empty({1 << 22}, DType::u8, first);
  EXPECT_EQ(allocator_for(first).stats().cached_bytes, 0) << "the cache went back to the system before the second try";
}

TEST(Failures, OfPinnedMemoryACopyAndALaunchAreOneSentenceEach) {
  simt::fail_nth(simt::Call::allocation, 1);
  expect_words(error_of([] { kernels::Upload upload(first); }), {"pinned memory", "out of memory"});
  simt::fail_nth(simt::Call::allocation, 2);  // the second buffer: the first goes back
  expect_words(error_of([] { kernels::Upload upload(first); }), {"pinned memory"});
  simt::fail_nth(simt::Call::copy, 1);
  expect_words(error_of([] { put(counting(), first); }), {"simt: copying: invalid argument"});
  const Tensor in = put(counting(), first), out = put(counting(), first);
  kernels::use_device(first);
  simt::fail_nth(simt::Call::launch, 1);
  expect_words(error_of([&] { reverse(out, in); }), {"planted", "injected launch failure"});
  EXPECT_EQ(get(out), counting());
  simt::fail_nth(simt::Call::copy, 2);
  kernels::Upload upload(first, 64);
  expect_words(error_of([&] { upload.write(out.raw(), out.nbytes(), 4, [](char*, int64_t, int64_t) {}); }),
               {"copying to the device"});
}

}  // namespace
}  // namespace lathe::testing
