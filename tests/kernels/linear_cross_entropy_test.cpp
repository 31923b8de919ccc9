// linear_cross_entropy and token_logprobs: the f64 reference in every instruction set, PyTorch's answers, the same bits
// from both, and what they must refuse.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "core/error.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "kernels/linear_cross_entropy/device.h"
#include "tests/kernels/linear_cross_entropy_cases.h"
#include "tests/support/golden.h"
#include "tests/support/hopper.h"
#include "tests/support/kernel_checks.h"

namespace lathe::testing {
namespace {

LATHE_CHECK_OPERATIONS(linear_cross_entropy_operations());

Tensor random_tensor(const Shape& shape, DType dtype, float scale, uint64_t seed) {
  const Tensor values = Tensor::empty(shape, DType::f32);
  RandomStream random(seed, RandomPurpose::test);
  for (float& x : values.span<float>()) x = scale * random.normal();
  return kernels::cast(values, dtype);
}

std::vector<std::byte> bytes_of(const Tensor& anywhere) {
  const Tensor tensor = kernels::moved(anywhere, {});
  const auto* begin = static_cast<const std::byte*>(tensor.raw());
  return {begin, begin + tensor.nbytes()};
}

Tensor empty_like(const Tensor& tensor) { return Tensor::empty(tensor.shape(), tensor.dtype(), tensor.device()); }

TEST(LinearCrossEntropy, AnswersAsPyTorchInDouble) {
  auto golden = golden_tensors("kernels/linear_cross_entropy.safetensors");
  const Tensor &hidden = golden["hidden"], &weight = golden["weight"];
  const int64_t tokens = hidden.dim(0);
  const Tensor labels = Tensor::empty({tokens}, DType::i32);
  int valid = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    labels.data<int32_t>()[t] = static_cast<int32_t>(golden["labels"].data<int64_t>()[t]);
    valid += labels.data<int32_t>()[t] != kernels::ignored_label;
  }
  const Tensor loss = Tensor::empty({tokens}, DType::f64), entropy = Tensor::empty({tokens}, DType::f64);
  const Tensor grad_hidden = Tensor::empty(hidden.shape(), DType::f64),
               grad_weight = Tensor::zeros(weight.shape(), DType::f64);
  const int32_t bounds[] = {0, static_cast<int32_t>(tokens)};
  const float scale = 1.0f / static_cast<float>(valid);  // PyTorch divides in f64
  kernels::linear_cross_entropy({loss, entropy, {}, grad_hidden, grad_weight},
                                {hidden, weight, labels, Tensor::of<int32_t>(bounds, {2}), scale});
  double sum = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    const bool ignored = labels.data<int32_t>()[t] == kernels::ignored_label;
    sum += loss.data<double>()[t];
    EXPECT_NEAR(loss.data<double>()[t], ignored ? 0.0 : -golden["logprobs"].data<double>()[t], 1e-13) << t;
    EXPECT_NEAR(entropy.data<double>()[t], ignored ? 0.0 : golden["entropy"].data<double>()[t], 1e-13) << t;
  }
  EXPECT_NEAR(sum / valid, golden["loss"].data<double>()[0], 1e-13);
  const double exact = 1.0 / valid / static_cast<double>(scale);
  for (int64_t i = 0; i < hidden.numel(); ++i)
    EXPECT_NEAR(grad_hidden.data<double>()[i] * exact, golden["dhidden"].data<double>()[i], 1e-14) << i;
  for (int64_t i = 0; i < weight.numel(); ++i)
    EXPECT_NEAR(grad_weight.data<double>()[i] * exact, golden["dweight"].data<double>()[i], 1e-14) << i;
}

// A sampler reads logprobs from logits, a trainer its loss from hidden states: the same bits, in any chunk.
TEST(LinearCrossEntropy, LossIsTheBitsOfTokenLogprobs) {
  const int64_t tokens = 150, vocabulary = 1003, hidden = 40;
  for (const kernels::Isa isa : kernels::every_isa) {
    if (!kernels::machine_has(isa)) continue;
    const kernels::Isa before = kernels::active_isa();
    kernels::set_active_isa(isa);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Tensor x = random_tensor({tokens, hidden}, dtype, 1.0f, 1);
      const kernels::PackedWeight weight =
          kernels::pack_weight(random_tensor({vocabulary, hidden}, dtype, 0.5f, 2), dtype);
      const Tensor labels = Tensor::empty({tokens}, DType::i32),
                   logits = Tensor::empty({tokens, vocabulary}, DType::f32);
      for (int64_t t = 0; t < tokens; ++t) labels.data<int32_t>()[t] = static_cast<int32_t>(t * 331 % vocabulary);
      const Tensor loss = Tensor::empty({tokens}, DType::f32), logprobs = Tensor::empty({tokens}, DType::f32);
      const Tensor with_gradient = Tensor::empty({tokens}, DType::f32), grad = Tensor::empty(x.shape(), dtype);
      kernels::linear_cross_entropy({.loss = loss}, {x, weight, labels});
      kernels::linear_cross_entropy({.loss = with_gradient, .grad_hidden = grad}, {x, weight, labels, {}, 0.25});
      kernels::linear_forward(logits, x, weight);
      kernels::token_logprobs(logprobs, logits, labels);
      for (int64_t t = 0; t < tokens; ++t) {
        EXPECT_EQ(std::bit_cast<uint32_t>(-loss.data<float>()[t]), std::bit_cast<uint32_t>(logprobs.data<float>()[t]))
            << t;
        EXPECT_EQ(std::bit_cast<uint32_t>(loss.data<float>()[t]),
                  std::bit_cast<uint32_t>(with_gradient.data<float>()[t]))
            << t;
      }
    }
    kernels::set_active_isa(before);
  }
}

// Chunks of a device, gathered and scattered: every row as it is alone, the weight's gradient that of the CPU's chunks.
TEST(LinearCrossEntropy, ADevicesChunksGiveEveryRowAsItIsAlone) {
  const int64_t tokens = 1100, vocabulary = 5, hidden = 4;
  ASSERT_GT(tokens, kernels::cross_entropy_device_chunk(hidden) + tokens / 20);
  const Tensor x = random_tensor({tokens, hidden}, DType::f32, 1.0f, 5),
               weight = random_tensor({vocabulary, hidden}, DType::f32, 1.0f, 6);
  const Tensor labels = Tensor::empty({tokens}, DType::i32);
  for (int64_t t = 0; t < tokens; ++t)
    labels.data<int32_t>()[t] = t % 20 == 7 ? kernels::ignored_label : static_cast<int32_t>(t % vocabulary);
  const int32_t bounds[] = {0, 140, 1100}, one[] = {0, 1};
  const Tensor cu_seqlens = Tensor::of<int32_t>(bounds, {3});
  const Device simt = {DeviceKind::simt};
  const auto moved = [](const Tensor& from, Device to) {
    const Tensor copied = Tensor::empty(from.shape(), from.dtype(), to);
    kernels::copy(copied, from);
    return copied;
  };
  const auto run = [&](Device device, const Tensor& rows, const Tensor& row_labels, const Tensor& cuts) {
    kernels::CrossEntropyOutputs outputs = {.loss = Tensor::empty({rows.dim(0)}, DType::f32, device),
                                            .grad_hidden = Tensor::empty(rows.shape(), DType::f32, device),
                                            .grad_weight = moved(Tensor::zeros(weight.shape(), DType::f32), device)};
    kernels::linear_cross_entropy(outputs, {moved(rows, device), moved(weight, device), row_labels, cuts, 0.5});
    for (Tensor* output : {&outputs.loss, &outputs.grad_hidden, &outputs.grad_weight}) *output = moved(*output, {});
    return outputs;
  };
  const auto on_simt = run(simt, x, labels, cu_seqlens), on_cpu = run({}, x, labels, cu_seqlens);
  for (const int64_t t : {0, 7, 8, 139, 140, 1023, 1024, 1099}) {
    const auto alone = run(simt, x.slice(0, t, t + 1), labels.slice(0, t, t + 1), Tensor::of<int32_t>(one, {2}));
    EXPECT_EQ(alone.loss.data<float>()[0], on_simt.loss.data<float>()[t]) << t;
    for (int64_t i = 0; i < hidden; ++i)
      EXPECT_EQ(alone.grad_hidden.data<float>()[i], on_simt.grad_hidden.data<float>()[t * hidden + i]) << t;
  }
  const Tensor logits = Tensor::empty({20, vocabulary}, DType::f32, simt),
               logprobs = Tensor::empty({20}, DType::f32, simt);
  kernels::linear_forward(logits, moved(x.slice(0, 0, 20), simt), moved(weight, simt));
  kernels::token_logprobs(logprobs, logits, moved(labels.slice(0, 0, 20), simt));
  const Tensor found = moved(logprobs, {});
  for (int64_t t = 0; t < 20; ++t) {
    if (t == 7) {
      EXPECT_TRUE(std::isnan(found.data<float>()[t])) << "its target is no column";
    } else {
      EXPECT_EQ(-found.data<float>()[t], on_simt.loss.data<float>()[t]) << t;
    }
  }
  // exp and log of two libraries, each within 2 ulp, in sums of 5 and 1100 terms below 2.
  for (int64_t t = 0; t < tokens; ++t)
    EXPECT_NEAR(on_simt.loss.data<float>()[t], on_cpu.loss.data<float>()[t], 20 * 0x1p-24f) << t;
  for (int64_t i = 0; i < weight.numel(); ++i)
    EXPECT_NEAR(on_simt.grad_weight.data<float>()[i], on_cpu.grad_weight.data<float>()[i], 1100 * 4 * 0x1p-24f) << i;
}

// Rows and labels in device memory, in two chunks and in one, where some rows have no label, none has, or all have.
TEST(LinearCrossEntropy, StoredLabelsGiveTheBitsOfThoseOnTheCpu) {
  const int64_t vocabulary = 130, hidden = 8;
  const Device simt = {DeviceKind::simt};
  const Tensor weight = random_tensor({vocabulary, hidden}, DType::bf16, 1.0f, 6);
  struct Share {
    int64_t tokens, of_ten;
  };
  for (const Share& share : {Share{1500, 8}, Share{300, 8}, Share{40, 3}, Share{40, 10}, Share{40, 0}}) {
    const int64_t tokens = share.tokens, of_ten = share.of_ten;
    const Tensor x = kernels::moved(random_tensor({tokens, hidden}, DType::bf16, 1.0f, 5), simt);
    const Tensor labels = Tensor::empty({tokens}, DType::i32);
    std::vector<int32_t> rows, of_rows;
    for (int64_t t = 0; t < tokens; ++t) {
      int32_t& label = labels.data<int32_t>()[t];
      label = t % 10 < of_ten ? static_cast<int32_t>(t * 7 % vocabulary) : kernels::ignored_label;
      if (label == kernels::ignored_label) continue;
      rows.push_back(static_cast<int32_t>(t));
      of_rows.push_back(label);
    }
    const auto stored = [&](const std::vector<int32_t>& numbers) {
      return kernels::moved(Tensor::of(std::span<const int32_t>(numbers), Shape{std::ssize(numbers)}), simt);
    };
    // Two sequences, whose sums of grad_weight are cut at 128 labels: of the second many, few or none has one.
    const int32_t ends[] = {0, 7, static_cast<int32_t>(tokens)};
    const Tensor cu_seqlens = Tensor::of<int32_t>(ends, {3});
    const auto of_first =
        static_cast<int32_t>(std::count_if(rows.begin(), rows.end(), [](int32_t t) { return t < 7; }));
    const int32_t of_sequences[] = {0, of_first, static_cast<int32_t>(rows.size())};
    const Tensor bounds = Tensor::of<int32_t>(of_sequences, {3});
    const auto run = [&](const Tensor& of, const kernels::LabelledRows& labelled, bool whole) {
      const kernels::CrossEntropyOutputs outputs = {
          .loss = Tensor::empty({tokens}, DType::f32, simt),
          .entropy = Tensor::empty({tokens}, DType::f32, simt),
          .correct = Tensor::empty({tokens}, DType::u8, simt),
          .grad_hidden = Tensor::empty(x.shape(), DType::bf16, simt),
          .grad_weight = whole ? Tensor::zeros(weight.shape(), DType::f32, simt) : Tensor()};
      kernels::linear_cross_entropy(outputs, {.hidden = x,
                                              .weight = kernels::moved(weight, simt),
                                              .labels = of,
                                              .cu_seqlens = cu_seqlens,
                                              .scale = 0.25,
                                              .labelled = labelled});
      std::string bytes;
      for (const Tensor& output :
           {outputs.loss, outputs.entropy, outputs.correct, outputs.grad_hidden, outputs.grad_weight}) {
        if (!output.defined()) continue;
        const Tensor there = kernels::moved(output, {});
        bytes.append(static_cast<const char*>(there.raw()), static_cast<size_t>(there.nbytes()));
      }
      return bytes;
    };
    for (const bool whole : {false, tokens <= 300})
      EXPECT_TRUE(run(stored(of_rows), {stored(rows), bounds}, whole) == run(labels, {}, whole))
          << tokens << " tokens, " << of_ten << " of ten";
  }
}

TEST(LinearCrossEntropy, StoredLabelsAreForDevicesAndOneOutsideTheVocabularyIsNaN) {
  const Device simt = {DeviceKind::simt};
  const auto on = [&](const Tensor& tensor) { return kernels::moved(tensor, simt); };
  const Tensor x = Tensor::zeros({4, 8}, DType::f32), weight = Tensor::zeros({10, 8}, DType::f32);
  const int32_t rows[] = {1, 2, 3}, labels[] = {9, 10, -1};
  const Tensor of_rows = Tensor::of<int32_t>(labels, {3}), labelled = Tensor::of<int32_t>(rows, {3});
  const Tensor loss = Tensor::empty({4}, DType::f32, simt);
  kernels::linear_cross_entropy(
      {.loss = loss}, {.hidden = on(x), .weight = on(weight), .labels = on(of_rows), .labelled = {on(labelled)}});
  const Tensor found = kernels::moved(loss, {});
  EXPECT_EQ(found.data<float>()[0], 0.0f);
  EXPECT_FLOAT_EQ(found.data<float>()[1], std::log(10.0f));
  EXPECT_TRUE(std::isnan(found.data<float>()[2]) && std::isnan(found.data<float>()[3]));
  EXPECT_THROW(
      kernels::linear_cross_entropy({.loss = Tensor::empty({4}, DType::f32)},
                                    {.hidden = x, .weight = weight, .labels = of_rows, .labelled = {labelled}}),
      ShapeError);
  const auto bounds = [](std::vector<int32_t> ends) { return Tensor::of<int32_t>(ends, {std::ssize(ends)}); };
  for (const Tensor& bad : {Tensor(), bounds({0, 2}), bounds({1, 3}), on(bounds({0, 3}))})
    EXPECT_THROW(kernels::linear_cross_entropy(
                     {.loss = loss, .grad_weight = on(Tensor::zeros({10, 8}, DType::f32))},
                     {.hidden = on(x), .weight = on(weight), .labels = on(of_rows), .labelled = {on(labelled), bad}}),
                 ShapeError);
  EXPECT_THROW(
      kernels::linear_cross_entropy(
          {.loss = loss}, {.hidden = on(x), .weight = on(weight), .labels = of_rows, .labelled = {on(labelled)}}),
      ShapeError);
}

// A product by wgmma leaves the statistics of what it has in registers; the log-probabilities of the same logits, read
// from memory, have the same bits. Vocabularies end in the middle of a group of 64 columns, of a tile, and with one.
TEST(LinearCrossEntropy, StatisticsOfTheProductAreThoseOfTheLogitsInMemory) {
  constexpr int64_t tokens = 70, hidden = 72;
  const Device simt = {DeviceKind::simt};
  for (const int64_t vocabulary : {64, 322, 1290}) {
    SCOPED_TRACE(vocabulary);
    const Hopper hopper(simt::FiberOrder::shuffled);
    const Tensor x = kernels::moved(random_tensor({tokens, hidden}, DType::bf16, 1.0f, 11), simt),
                 weight = kernels::moved(random_tensor({vocabulary, hidden}, DType::bf16, 0.5f, 12), simt);
    const Tensor logits = Tensor::empty({tokens, vocabulary}, DType::f32, simt), plain = empty_like(logits);
    const Tensor statistics = Tensor::empty({tokens, (vocabulary + 63) / 64, 2}, DType::f32, simt);
    EXPECT_TRUE(kernels::device::logits_with_statistics(logits, statistics, x, weight, 1.0f));
    kernels::linear_forward(plain, x, weight);
    EXPECT_TRUE(bytes_of(logits) == bytes_of(plain));
    const Tensor labels = Tensor::empty({tokens}, DType::i32);
    for (int64_t t = 0; t < tokens; ++t) labels.data<int32_t>()[t] = static_cast<int32_t>(t * 331 % vocabulary);
    for (const float temperature : {1.0f, 0.7f}) {
      const Tensor loss = Tensor::empty({tokens}, DType::f32, simt), logprobs = empty_like(loss);
      const Tensor grad = empty_like(x), entropy = empty_like(loss), correct = Tensor::empty({tokens}, DType::u8, simt);
      kernels::linear_cross_entropy({.loss = loss, .entropy = entropy, .correct = correct, .grad_hidden = grad},
                                    {.hidden = x, .weight = weight, .labels = labels, .temperature = temperature});
      kernels::scale(logits, plain, static_cast<double>(1.0f / temperature));
      kernels::token_logprobs(logprobs, logits, labels);
      const Tensor losses = kernels::moved(loss, {}), found = kernels::moved(logprobs, {});
      for (int64_t t = 0; t < tokens; ++t) EXPECT_EQ(-losses.data<float>()[t], found.data<float>()[t]) << t;
      // Few rows go through kernels that leave none.
      const Tensor loss_of_few = Tensor::empty({3}, DType::f32, simt),
                   grad_of_few = Tensor::empty({3, hidden}, DType::bf16, simt);
      kernels::linear_cross_entropy(
          {.loss = loss_of_few, .grad_hidden = grad_of_few},
          {.hidden = x.slice(0, 0, 3), .weight = weight, .labels = labels.slice(0, 0, 3), .temperature = temperature});
      EXPECT_TRUE(bytes_of(loss_of_few) == bytes_of(loss.slice(0, 0, 3)));
      EXPECT_TRUE(bytes_of(grad_of_few) == bytes_of(grad.slice(0, 0, 3)));
    }
  }
  const Tensor x = kernels::moved(random_tensor({tokens, hidden}, DType::bf16, 1.0f, 11), simt);
  const Tensor logits = Tensor::empty({tokens, tokens}, DType::f32, simt),
               statistics = Tensor::empty({tokens, 2, 2}, DType::f32, simt);
  EXPECT_FALSE(kernels::device::logits_with_statistics(logits, statistics, x, x, 1.0f)) << "by mma.sync";
}

// Rows that repeat, in more launches than two: what goes from one launch to the next is theirs, too.
TEST(LinearCrossEntropy, RowsOfEveryLaunchAreThoseOfTheFirst) {
  const int64_t tokens = 513, vocabulary = 3, hidden = 2, period = 21;
  const Device simt = {DeviceKind::simt};
  const Tensor some = random_tensor({period, hidden}, DType::f32, 1.0f, 9),
               weight = kernels::moved(random_tensor({vocabulary, hidden}, DType::f32, 1.0f, 10), simt);
  const Tensor x = Tensor::empty({tokens, hidden}, DType::f32), labels = Tensor::empty({tokens}, DType::i32);
  for (int64_t t = 0; t < tokens; ++t) {
    kernels::copy(x.slice(0, t, t + 1), some.slice(0, t % period, t % period + 1));
    labels.data<int32_t>()[t] = static_cast<int32_t>(t % period % vocabulary);
  }
  const Tensor there = kernels::moved(x, simt), logits = Tensor::empty({tokens, vocabulary}, DType::f32, simt);
  const auto outputs = [&] { return Tensor::empty({tokens}, DType::f32, simt); };
  const Tensor loss = outputs(), by_numbers = outputs(), by_memory = outputs();
  kernels::linear_cross_entropy({.loss = loss}, {there, weight, labels});
  kernels::linear_forward(logits, there, weight);
  kernels::token_logprobs(by_numbers, logits, labels);
  kernels::token_logprobs(by_memory, logits, kernels::moved(labels, simt));
  const Tensor losses = kernels::moved(loss, {});
  for (const Tensor& logprobs : {kernels::moved(by_numbers, {}), kernels::moved(by_memory, {})})
    for (int64_t t = 0; t < tokens; ++t) {
      EXPECT_EQ(logprobs.data<float>()[t], logprobs.data<float>()[t % period]) << t;
      EXPECT_EQ(logprobs.data<float>()[t], -losses.data<float>()[t]) << t;
    }
}

// Gathered rows, on the CPU several chunks of them: the gradients of scale alone, and of scale beside token_scales.
void expect_bits_of_the_number(Device device, DType dtype, float softcap) {
  // One chunk on a device, where each row is emulated.
  const int32_t tokens = device.kind == DeviceKind::cpu ? 290 : 60, vocabulary = 21, hidden = 6;
  const Tensor x = kernels::moved(random_tensor({tokens, hidden}, dtype, 1.0f, 7), device);
  const Tensor weight = kernels::moved(random_tensor({vocabulary, hidden}, dtype, 1.0f, 8), device);
  const Tensor labels = Tensor::empty({tokens}, DType::i32);
  for (int64_t t = 0; t < tokens; ++t)
    labels.data<int32_t>()[t] = t % 20 == 7 ? kernels::ignored_label : static_cast<int32_t>(t % vocabulary);
  const int32_t bounds[] = {0, tokens / 2 - 5, tokens};
  const auto gradients_of = [&](double scale, std::optional<float> of_each_token) {
    kernels::CrossEntropyInputs inputs{.hidden = x,
                                       .weight = weight,
                                       .labels = labels,
                                       .cu_seqlens = Tensor::of<int32_t>(bounds, {3}),
                                       .scale = scale,
                                       .softcap = softcap};
    if (of_each_token) {
      const Tensor scales = Tensor::empty({tokens}, DType::f32);
      kernels::fill(scales, *of_each_token);
      inputs.token_scales = kernels::moved(scales, device);
    }
    const Tensor grad_hidden = Tensor::empty(x.shape(), dtype, device);
    const Tensor grad_weight = kernels::moved(Tensor::zeros(weight.shape(), DType::f32), device);
    kernels::linear_cross_entropy({.grad_hidden = grad_hidden, .grad_weight = grad_weight}, inputs);
    return std::pair(bytes_of(grad_hidden), bytes_of(grad_weight));
  };
  const float s = 1.0f / 7;
  const auto number = gradients_of(s, {});
  EXPECT_TRUE(number == gradients_of(1, s));
  EXPECT_TRUE(number == gradients_of(-1, -s));  // as the gradient of log-probabilities
  EXPECT_TRUE(number == gradients_of(s, 1));
  EXPECT_FALSE(number == gradients_of(1, 2 * s));
}

TEST(LinearCrossEntropy, EqualTokenScalesGiveTheBitsOfTheNumber) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const float softcap : {0.0f, 2.0f}) {
      const std::string options = std::string(name_of(dtype)) + ", softcap " + std::to_string(softcap);
      for (const kernels::Isa isa : kernels::every_isa) {
        if (!kernels::machine_has(isa)) continue;
        SCOPED_TRACE(options + ", " + std::string(kernels::name_of(isa)));
        const kernels::Isa before = kernels::active_isa();
        kernels::set_active_isa(isa);
        expect_bits_of_the_number({}, dtype, softcap);
        kernels::set_active_isa(before);
      }
      SCOPED_TRACE(options + ", simt");
      expect_bits_of_the_number({DeviceKind::simt}, dtype, softcap);
    }
  }
}

// hidden = 1 and weight = the logits: rows of any logits, through the whole operation.
struct OneRow {
  float loss, entropy;
  bool correct;
  std::vector<float> gradient;  // ∂loss/∂logit
};
OneRow one_row(const std::vector<float>& logits, int32_t label) {
  const int64_t n = static_cast<int64_t>(logits.size());
  const float one[] = {1.0f};
  const int32_t labels[] = {label}, bounds[] = {0, 1};
  const Tensor loss = Tensor::empty({1}, DType::f32), entropy = Tensor::empty({1}, DType::f32),
               correct = Tensor::empty({1}, DType::u8);
  const Tensor grad = Tensor::zeros({n, 1}, DType::f32);
  kernels::linear_cross_entropy({loss, entropy, correct, {}, grad},
                                {Tensor::of<float>(one, {1, 1}), Tensor::of<float>(logits, {n, 1}),
                                 Tensor::of<int32_t>(labels, {1}), Tensor::of<int32_t>(bounds, {2})});
  const auto gradient = grad.span<float>();
  return {loss.data<float>()[0],
          entropy.data<float>()[0],
          correct.data<uint8_t>()[0] != 0,
          {gradient.begin(), gradient.end()}};
}

TEST(LinearCrossEntropy, LogitsAtTheEndsOfTheRange) {
  const float huge = 1e30f;
  const OneRow certain = one_row({-huge, huge, 0.0f, -huge, 1.0f}, 1);
  EXPECT_EQ(certain.loss, 0.0f);
  EXPECT_EQ(certain.entropy, 0.0f);
  EXPECT_TRUE(certain.correct);
  for (const float g : certain.gradient) EXPECT_EQ(g, 0.0f);
  const OneRow wrong = one_row({-huge, huge, 0.0f, -huge, 1.0f}, 0);
  EXPECT_EQ(wrong.loss, 2 * huge);
  EXPECT_EQ(wrong.gradient[0], -1.0f);
  EXPECT_EQ(wrong.gradient[1], 1.0f);
  const OneRow banned = one_row({0.0f, -INFINITY, 0.0f}, 0);  // −inf has no share
  EXPECT_FLOAT_EQ(banned.loss, std::log(2.0f));
  EXPECT_FLOAT_EQ(banned.entropy, std::log(2.0f));
  EXPECT_EQ(banned.gradient[1], 0.0f);
  for (const float broken : {NAN, INFINITY}) EXPECT_TRUE(std::isnan(one_row({0.0f, broken, 1.0f}, 0).loss));
  std::vector<float> late(70, 0.0f);
  late[69] = NAN;  // past the last whole vector
  EXPECT_TRUE(std::isnan(one_row(late, 3).loss));
}

TEST(LinearCrossEntropy, OnlyTheFirstOfEqualMaximaIsCorrect) {
  std::vector<float> logits(40, 1.0f);
  EXPECT_TRUE(one_row(logits, 0).correct);
  EXPECT_FALSE(one_row(logits, 39).correct);
  logits[39] = 1.5f;
  EXPECT_TRUE(one_row(logits, 39).correct);
  EXPECT_FALSE(one_row(logits, 0).correct);
}

TEST(LinearCrossEntropy, UniformLogitsAreTheVocabularysLogarithm) {
  for (const int n : {3, 15, 16, 17, 576, 49152}) {
    const OneRow row = one_row(std::vector<float>(static_cast<size_t>(n), -3.0f), n / 2);
    EXPECT_FLOAT_EQ(row.loss, std::log(static_cast<float>(n))) << n;
    EXPECT_NEAR(row.entropy, std::log(static_cast<float>(n)), 1e-6f) << n;
    EXPECT_NEAR(row.gradient[static_cast<size_t>(n / 2)], 1.0 / n - 1.0, 2 * 0x1p-24) << n;  // two roundings below 1
    EXPECT_FLOAT_EQ(row.gradient[0], 1.0f / static_cast<float>(n)) << n;
  }
}

// A batch that is only cut elsewhere costs the same workspace; what is never asked for is never made.
TEST(LinearCrossEntropy, HoldsOneChunkOfLogitsAtATime) {
  const int64_t tokens = 700, vocabulary = 4096, hidden = 8;
  const Tensor x = random_tensor({tokens, hidden}, DType::f32, 1.0f, 3),
               weight = random_tensor({vocabulary, hidden}, DType::f32, 1.0f, 4);
  const Tensor labels = Tensor::zeros({tokens}, DType::i32), loss = Tensor::zeros({tokens}, DType::f32);
  const Tensor grad = Tensor::zeros({tokens, hidden}, DType::f32);
  Allocator& allocator = allocator_for({});
  allocator.release_cached();
  allocator.reset_peak();
  const auto before = allocator.stats().total_live_bytes;
  kernels::linear_cross_entropy({.loss = loss, .grad_hidden = grad}, {x, weight, labels});
  const int64_t chunk_bytes = kernels::cross_entropy_chunk * vocabulary * 4;
  // The products' own packed panels come on top: at most the weight once, padded.
  EXPECT_LE(allocator.stats().total_peak_bytes - before, 3 * chunk_bytes);
  EXPECT_LT(3 * chunk_bytes, tokens * vocabulary * 4);
}

TEST(LinearCrossEntropy, RefusesWhatDoesNotFit) {
  const Tensor x = Tensor::zeros({4, 8}, DType::f32), weight = Tensor::zeros({10, 8}, DType::f32),
               loss = Tensor::zeros({4}, DType::f32);
  const Tensor labels = Tensor::zeros({4}, DType::i32);
  const auto run = [&](const kernels::CrossEntropyOutputs& outputs, const Tensor& h, const Tensor& w, const Tensor& l) {
    kernels::linear_cross_entropy(outputs, {h, w, l});
  };
  EXPECT_THROW(run({.loss = loss}, x, Tensor::zeros({10, 9}, DType::f32), labels), ShapeError);
  EXPECT_THROW(run({.loss = loss}, x, Tensor::zeros({10, 8}, DType::bf16), labels), ShapeError);
  EXPECT_THROW(run({.loss = Tensor::zeros({3}, DType::f32)}, x, weight, labels), ShapeError);
  EXPECT_THROW(run({.loss = Tensor::zeros({4}, DType::bf16)}, x, weight, labels), ShapeError);
  EXPECT_THROW(run({.loss = loss, .grad_weight = Tensor::zeros({10, 8}, DType::f32)}, x, weight, labels),
               ShapeError);  // no cu_seqlens
  for (const Tensor& scales : {Tensor::zeros({3}, DType::f32), Tensor::zeros({4}, DType::f64)})
    EXPECT_THROW(kernels::linear_cross_entropy({.loss = loss}, {x, weight, labels, {}, 1.0, scales}), ShapeError);
  for (const float temperature : {0.0f, -1.0f, 1e-40f, INFINITY, NAN})
    EXPECT_THROW(kernels::linear_cross_entropy(
                     {.loss = loss}, {.hidden = x, .weight = weight, .labels = labels, .temperature = temperature}),
                 ConfigError);
  for (const int32_t bad : {-1, 10, -99, std::numeric_limits<int32_t>::max()}) {
    const int32_t values[] = {0, 1, bad, 2};
    try {
      run({.loss = loss}, x, weight, Tensor::of<int32_t>(values, {4}));
      FAIL() << bad;
    } catch (const ShapeError& error) {
      EXPECT_NE(std::string(error.what()).find("labels[2]"), std::string::npos) << error.what();
    }
    const Tensor logits = Tensor::zeros({4, 10}, DType::f32);
    EXPECT_THROW(kernels::token_logprobs(loss, logits, Tensor::of<int32_t>(values, {4})), ShapeError);
  }
}

}  // namespace
}  // namespace lathe::testing
