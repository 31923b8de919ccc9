// Every operation's vjp against central differences in f64, with every option and every choice of what
// trains.
#include "autograd/gradcheck.h"
#include "autograd/operation.h"
#include "autograd/ops/arithmetic.h"
#include "autograd/ops/attention.h"
#include "autograd/ops/embedding.h"
#include "autograd/ops/gated.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/linear_cross_entropy.h"
#include "autograd/ops/rms_norm.h"
#include "autograd/ops/rope.h"
#include "autograd/ops/view.h"
#include "core/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "tests/autograd/tensors.h"

namespace lathe::autograd::testing {
namespace {

using Variables = std::vector<Variable>;

class Operations : public ::testing::Test {
 protected:
  Tensor random(const Shape& shape, double scale = 1.0) { return random_tensor(random_, shape, DType::f64, scale); }
  Variable leaf(const Shape& shape, double scale = 1.0) { return Variable::leaf(random(shape, scale)); }

  template <class Function>
  static void check(const Variables& leaves, Function function, const GradcheckOptions& options = {}) {
    const GradcheckResult result =
        gradcheck([&](std::span<const Variable> in) -> Variables { return function(in); }, leaves, options);
    EXPECT_TRUE(result.passed) << result.report;
    for (const Variable& leaf : leaves) EXPECT_TRUE(leaf.grad().defined() && any_nonzero(leaf.grad()));
  }

  RandomStream random_{3, RandomPurpose::test};
  SequenceLayout layout_ = layout_of({3, 1, 5}, 2);
  static constexpr int64_t tokens = 9;
};

TEST_F(Operations, Arithmetic) {
  check({leaf({tokens, 4}), leaf({tokens, 4})}, [](auto in) { return Variables{add(in[0], in[1], -0.75)}; });
  check({leaf({tokens, 4}), leaf({tokens, 4})}, [](auto in) { return Variables{add(in[0], add(in[0], in[1]))}; });
  check({leaf({5})}, [](auto in) { return Variables{scale(in[0], 2.5), sum(in[0])}; });
  check({leaf({4, 6})}, [](auto in) {
    return Variables{slice(view(in[0], {2, 12}), 1, 3, 7), view(slice(in[0], 0, 1, 3), {12})};
  });
}

TEST_F(Operations, ColumnsSplitByHeadsAndJoined) {
  check({leaf({tokens, 12}), leaf({tokens, 2})}, [](auto in) {
    const Variables parts = split_heads(in[0], 2, {1, 3, 2});
    return Variables{join_columns({parts[2], in[1], parts[0]}), parts[1]};
  });
  const Variable x = Variable(random({tokens, 12}));
  const Variables parts = split_heads(x, 2, {1, 3, 2});
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t head = 0; head < 2; ++head)
      for (int64_t i = 0; i < 3; ++i)
        EXPECT_EQ(parts[1].value().data<double>()[t * 6 + head * 3 + i],
                  x.value().data<double>()[t * 12 + head * 6 + 1 + i]);
  const Tensor joined = join_columns({parts[0], parts[2]}).value();
  EXPECT_EQ(joined.shape(), (Shape{tokens, 6}));
  EXPECT_EQ(joined.data<double>()[6 + 2], parts[2].value().data<double>()[4]) << "the second token's";
}

TEST_F(Operations, CastRoundsBothWays) {
  Tensor one = Tensor::empty({1}, DType::f32);
  kernels::fill(one, 1.0 + 0x1p-10);
  const Variable x = Variable::leaf(one), y = cast(x, DType::bf16);
  EXPECT_EQ(y.dtype(), DType::bf16);
  EXPECT_EQ(static_cast<float>(*y.value().data<bf16>()), 1.0f);
  backward(cast(y, DType::f32));
  EXPECT_EQ(*x.grad().data<float>(), 1.0f);
  EXPECT_EQ(cast(x, DType::f32).edge().node, x.edge().node);
}

TEST_F(Operations, Embedding) {
  const Tensor ids = integers(random_, tokens, 4);  // repeated
  check({leaf({4, 6})}, [&](auto in) { return Variables{embedding(in[0], ids, layout_)}; });
}

TEST_F(Operations, EmbeddingOfAPackedWeightIsTheDenseOnes) {
  const Tensor ids = integers(random_, tokens, 4), weight = random({4, 6});
  const Variable packed = embedding(kernels::pack_weight(weight, DType::f64), ids, layout_);
  EXPECT_TRUE(same_bits(packed.value(), embedding(weight, ids, layout_).value()));
  EXPECT_FALSE(packed.requires_grad());
}

TEST_F(Operations, RmsNorm) {
  const Variable x = leaf({tokens, 6}), weight = leaf({6});
  check({x, weight}, [&](auto in) { return Variables{rms_norm(in[0], in[1], 1e-3f, layout_)}; });
  check({x}, [&](auto in) { return Variables{rms_norm(in[0], weight.detach(), 1e-3f, layout_)}; });
  check({weight}, [&](auto in) { return Variables{rms_norm(x.detach(), in[0], 1e-3f, layout_)}; });
  // x has a second consumer, whose gradient arrives before (walked first) or after the norm's.
  check({x, weight}, [&](auto in) {
    const Variable h = scale(in[0], 1.0);
    const Variable before = scale(h, 0.5);
    const Variable normed = rms_norm(h, in[1], 1e-3f, layout_);
    return Variables{add(add(normed, before), scale(h, 3.0))};
  });
}

TEST_F(Operations, RmsNormOverSeveralRowsOfAToken) {
  check({leaf({tokens * 3, 4}), leaf({4})}, [&](auto in) { return Variables{rms_norm(in[0], in[1], 1e-3f, layout_)}; });
  EXPECT_THROW(backward(rms_norm(random({tokens + 1, 4}), leaf({4}), 1e-3f, layout_), random({tokens + 1, 4})),
               ShapeError);
}

TEST_F(Operations, RmsNormWithResidual) {
  const Variable x = leaf({tokens, 6}), residual = leaf({tokens, 6}), weight = leaf({6});
  check({x, residual, weight}, [&](auto in) {
    const NormedSum result = rms_norm_residual(in[0], in[1], in[2], 1e-3f, layout_);
    return Variables{result.out, result.sum};
  });
  check({x, weight},
        [&](auto in) { return Variables{rms_norm_residual(in[0], residual.detach(), in[1], 1e-3f, layout_).out}; });
  check({x, residual},
        [&](auto in) { return Variables{rms_norm_residual(in[0], in[1], weight.detach(), 1e-3f, layout_).sum}; });
}

TEST_F(Operations, Rope) {
  const Tensor angles = random({5, 2});
  RopeTables tables{Tensor::empty({5, 2}, DType::f64), Tensor::empty({5, 2}, DType::f64)};
  for (int64_t i = 0; i < 10; ++i) {
    tables.cos.data<double>()[i] = std::cos(angles.data<double>()[i]);
    tables.sin.data<double>()[i] = std::sin(angles.data<double>()[i]);
  }
  check({leaf({tokens, 3, 4})}, [&](auto in) { return Variables{rope(in[0], tables, layout_)}; });
}

TEST_F(Operations, Linear) {
  const Variable x = leaf({tokens, 5}), weight = leaf({4, 5}), bias = leaf({4}), residual = leaf({tokens, 4});
  check({x, weight, bias, residual}, [&](auto in) {
    return Variables{linear(in[0], in[1], layout_, {.bias = in[2], .residual = in[3], .lora = {}})};
  });
  const kernels::PackedWeight packed = kernels::pack_weight(weight.value(), DType::f64);
  check({x}, [&](auto in) { return Variables{linear(in[0], packed, layout_)}; });
  check({weight}, [&](auto in) { return Variables{linear(x.detach(), in[0], layout_)}; });
  check({bias}, [&](auto in) {
    return Variables{linear(x.detach(), packed, layout_, {.bias = in[0], .residual = {}, .lora = {}})};
  });
  // Two linears read one x: the second's gradient is added to the first's in the product itself.
  check({x}, [&](auto in) {
    const Variable h = scale(in[0], 1.0);
    return Variables{linear(h, packed, layout_), linear(h, packed, layout_)};
  });
}

TEST_F(Operations, LinearIntoItsOwnResidual) {
  const Variable x = leaf({tokens, 4}), weight = leaf({4, 4});
  check({x, weight}, [&](auto in) {
    const Variable h = scale(in[0], 1.0);
    return Variables{linear(h, in[1], layout_, {.bias = {}, .residual = h, .lora = {}})};
  });
}

TEST_F(Operations, LinearOfAComputedWeight) {
  check({leaf({tokens, 5}), leaf({4, 5})},
        [&](auto in) { return Variables{linear(in[0], scale(in[1], 0.5), layout_)}; });
}

TEST_F(Operations, LinearWithLora) {
  const Variable x = leaf({tokens, 5}), weight = leaf({4, 5}), a = leaf({2, 5}), b = leaf({4, 2});
  const kernels::PackedWeight packed = kernels::pack_weight(weight.value(), DType::f64);
  for (const float dropout : {0.0f, 0.375f}) {
    const auto terms = [&](const Variable& lora_a, const Variable& lora_b) {
      LinearTerms result;
      result.lora = {LoraTerm{lora_a, lora_b, 1.75f, {.probability = dropout, .seed = 9, .step = 4, .stream = 6}}};
      return result;
    };
    SCOPED_TRACE(dropout);
    check({x, a, b}, [&](auto in) { return Variables{linear(in[0], packed, layout_, terms(in[1], in[2]))}; });
    check({a, b}, [&](auto in) { return Variables{linear(x.detach(), packed, layout_, terms(in[0], in[1]))}; });
    check({b}, [&](auto in) { return Variables{linear(x.detach(), packed, layout_, terms(a.detach(), in[0]))}; });
    check({x}, [&](auto in) { return Variables{linear(in[0], packed, layout_, terms(a.detach(), b.detach()))}; });
    check({x, weight, a, b}, [&](auto in) {
      LinearTerms all = terms(in[2], in[3]);
      all.residual = scale(in[0], 1.0);
      const Variable h = linear(all.residual, in[1], layout_, terms(in[2], in[3]));
      return Variables{h, linear(all.residual, in[1], layout_, terms(in[2], in[3]))};
    });
  }
}

// Of the three sequences the first and the last have terms of their own, of different ranks, and the second has none.
TEST_F(Operations, LinearWithLoraBySequence) {
  const Variable x = leaf({tokens, 5}), weight = leaf({4, 5}), a = leaf({2, 5}), b = leaf({4, 2}), c = leaf({3, 5}),
                 d = leaf({4, 3});
  const kernels::PackedWeight packed = kernels::pack_weight(weight.value(), DType::f64);
  for (const float dropout : {0.0f, 0.375f}) {
    const auto terms = [&](const Variable& a1, const Variable& b1, const Variable& a2, const Variable& b2) {
      LinearTerms result;
      const kernels::DropoutParams drops{.probability = dropout, .seed = 9, .step = 4, .stream = 6};
      result.lora = {LoraTerm{a1, b1, 1.75f, drops, layout_.run(0, 1)}, LoraTerm{a2, b2, 0.5f, {}, layout_.run(2, 3)}};
      return result;
    };
    SCOPED_TRACE(dropout);
    check({x, a, b, c, d},
          [&](auto in) { return Variables{linear(in[0], packed, layout_, terms(in[1], in[2], in[3], in[4]))}; });
    // One of the terms is frozen; nobody asks for the gradient of x.
    check({c, d}, [&](auto in) {
      return Variables{linear(x.detach(), packed, layout_, terms(a.detach(), b.detach(), in[0], in[1]))};
    });
    check({x, weight, a, b}, [&](auto in) {  // and one pair of factors for both
      LinearTerms all = terms(in[2], in[3], in[2], in[3]);
      all.residual = linear(in[0], in[1], layout_, terms(in[2], in[3], in[2], in[3]));
      return Variables{linear(in[0], in[1], layout_, all)};
    });
  }
}

// The norm is a constant, as PEFT detaches it. A bias and a residual are not scaled.
TEST_F(Operations, LinearWithDora) {
  const Variable x = leaf({tokens, 5}), a = leaf({2, 5}), b = leaf({4, 2}), m = leaf({4}), residual = leaf({tokens, 4});
  const Tensor weight = random({4, 5}), inverse_norm = random({4}), bias = random({4}), added = random({tokens, 4});
  const kernels::PackedWeight packed = kernels::pack_weight(weight, DType::f64);
  for (const float dropout : {0.0f, 0.375f}) {
    const kernels::DropoutParams drops{.probability = dropout, .seed = 9, .step = 4, .stream = 6};
    const auto terms = [&](const Variable& lora_a, const Variable& lora_b, const Variable& magnitude) {
      return LinearTerms{bias, added, {LoraTerm{lora_a, lora_b, 1.75f, drops, {}, magnitude, inverse_norm}}};
    };
    SCOPED_TRACE(dropout);
    check({x, a, b, m}, [&](auto in) { return Variables{linear(in[0], packed, layout_, terms(in[1], in[2], in[3]))}; });
    check({m}, [&](auto in) {
      return Variables{linear(x.detach(), packed, layout_, terms(a.detach(), b.detach(), in[0]))};
    });
    check({x}, [&](auto in) {
      return Variables{linear(in[0], packed, layout_, terms(a.detach(), b.detach(), m.detach()))};
    });
    check({x, a, b, m, residual}, [&](auto in) {  // x has a second consumer
      LinearTerms all = terms(in[1], in[2], in[3]);
      all.residual = in[4];
      const Variable h = scale(in[0], 1.0);
      return Variables{linear(h, packed, layout_, all), linear(h, packed, layout_, terms(in[1], in[2], in[3]))};
    });
  }
  EXPECT_THROW(linear(x, leaf({4, 5}), layout_, {{}, {}, {LoraTerm{a, b, 1.0f, {}, {}, m, inverse_norm}}}), ShapeError);
}

// DoRA, LoRA and nothing, each for one of the sequences; a row's bits are those of a batch with its term alone.
TEST_F(Operations, LinearWithDoraBySequence) {
  const Variable x = leaf({tokens, 5}), a = leaf({2, 5}), b = leaf({4, 2}), c = leaf({3, 5}), d = leaf({4, 3}),
                 m = leaf({4});
  const Tensor inverse_norm = random({4});
  const kernels::PackedWeight packed = kernels::pack_weight(random({4, 5}), DType::f64);
  for (const float dropout : {0.0f, 0.375f}) {
    const kernels::DropoutParams drops{.probability = dropout, .seed = 9, .step = 4, .stream = 6};
    const auto lora = [&](auto in) { return LoraTerm{in[1], in[2], 1.75f, drops, layout_.run(0, 1)}; };
    const auto dora = [&](auto in) {
      return LoraTerm{in[3], in[4], 0.5f, drops, layout_.run(2, 3), in[5], inverse_norm};
    };
    check({x, a, b, c, d, m}, [&](auto in) {
      return Variables{linear(in[0], packed, layout_, {{}, {}, {lora(in), dora(in)}})};
    });
    const std::vector<Variable> in{x, a, b, c, d, m};
    const Tensor both = linear(x, packed, layout_, {{}, {}, {lora(in), dora(in)}}).value(),
                 first = linear(x, packed, layout_, {{}, {}, {lora(in)}}).value(),
                 last = linear(x, packed, layout_, {{}, {}, {dora(in)}}).value();
    EXPECT_TRUE(same_bits(both.slice(0, 0, 4), first.slice(0, 0, 4)));
    EXPECT_TRUE(same_bits(both.slice(0, 3, tokens), last.slice(0, 3, tokens)));
  }
}

TEST_F(Operations, LoraTermsThatDoNotFitTheirSequencesAreErrors) {
  const Tensor x = random({tokens, 5}), weight = random({4, 5}), a = random({2, 5}), b = random({4, 2});
  const LoraTerm first{a, b, 1.0f, {}, layout_.run(0, 2)}, second{a, b, 1.0f, {}, layout_.run(1, 3)};
  const auto with = [&](std::vector<LoraTerm> lora) {
    return linear(x, weight, layout_, {.bias = {}, .residual = {}, .lora = std::move(lora)});
  };
  EXPECT_THROW(with({first, second}), ShapeError);  // both claim the second sequence
  EXPECT_THROW(with({second, first}), ShapeError);
  EXPECT_THROW(with({{a, b, 1.0f, {}, SequenceRun{tokens, layout_}}}), ShapeError);
  EXPECT_THROW(layout_.run(1, 4), ShapeError);
}

// QLoRA: the adapter trains, the codes stay. In f64 the weight is what the codes stand for.
TEST_F(Operations, LinearWithAQuantizedWeight) {
  const Variable x = leaf({tokens, 32}), a = leaf({2, 32}), b = leaf({4, 2});
  const Tensor values = random_tensor(random_, {4, 32}, DType::f32, 1.0);
  for (const LinearWeight& weight : {LinearWeight(kernels::QuantizedWeight::pack(kernels::quantize_nf4(values))),
                                     LinearWeight(kernels::QuantizedWeight::pack(kernels::quantize_int8(values)))}) {
    LinearTerms terms;
    check({x, a, b}, [&](auto in) {
      terms.lora = {LoraTerm{in[1], in[2], 1.75f, {}}};
      return Variables{linear(in[0], weight, layout_, terms)};
    });
    const Tensor dense = Tensor::empty({4, 32}, DType::f64);
    weight.value().quantized()->dequantize(dense);
    const Variable coded = linear(x, weight, layout_, terms), plain = linear(x, dense, layout_, terms);
    for (int64_t i = 0; i < coded.value().numel(); ++i)
      EXPECT_EQ(coded.value().data<double>()[i], plain.value().data<double>()[i]);
  }
}

TEST_F(Operations, LoraIsTheProductOfItsFactors) {
  const Tensor x = random({tokens, 5}), weight = random({4, 5}), a = random({2, 5}), b = random({4, 2});
  LinearTerms terms;
  terms.lora = {LoraTerm{a, b, 1.5f, {}}};
  const Variable together = linear(x, weight, layout_, terms);
  const Variable apart = add(linear(x, weight, layout_), linear(linear(x, a, layout_), b, layout_), 1.5);
  for (size_t i = 0; i < together.value().span<double>().size(); ++i) {
    EXPECT_NEAR(together.value().span<double>()[i], apart.value().span<double>()[i],
                1e-14);  // ~ 20 roundings of 1e-16
  }
}

using TwoInputs = Variable (*)(const Variable& gate, const Variable& up);
using Halves = Variable (*)(const Variable& gate_up);

TEST_F(Operations, GatedActivations) {
  const auto check_gated = [this](TwoInputs of_two, Halves of_halves) {
    check({leaf({tokens, 4}), leaf({tokens, 4})}, [&](auto in) { return Variables{of_two(in[0], in[1])}; });
    check({leaf({tokens, 8})}, [&](auto in) { return Variables{of_halves(in[0])}; });
    // In place in what an operation before it made, and with a consumer that asks for the output again.
    check({leaf({tokens, 4}), leaf({tokens, 4}), leaf({3, 4})},
          [&](auto in) { return Variables{linear(of_two(scale(in[0], 1.0), scale(in[1], 1.0)), in[2], layout_)}; });
    check({leaf({tokens, 8}), leaf({3, 4})},
          [&](auto in) { return Variables{linear(of_halves(scale(in[0], 1.0)), in[1], layout_)}; });
  };
  check_gated(swiglu, swiglu);
  check_gated(geglu, geglu);
  check({leaf({tokens, 4}), leaf({tokens, 4})}, [&](auto in) { return Variables{glu(in[0], in[1])}; });
}

TEST_F(Operations, Attention) {
  kernels::AttentionParams params;
  params.scale = 0.625f;
  const auto attend = [&](auto in) { return Variables{attention(in[0], in[1], in[2], layout_, params)}; };
  check({leaf({tokens, 4, 8}), leaf({tokens, 2, 8}), leaf({tokens, 2, 8})}, attend);
  params.window = 2;
  check({leaf({tokens, 2, 8}), leaf({tokens, 1, 8}), leaf({tokens, 1, 8})}, attend);
  params.softcap = 1.5f;
  check({leaf({tokens, 2, 8}), leaf({tokens, 2, 8}), leaf({tokens, 2, 8})}, attend);
}

TEST_F(Operations, AttentionWithSinks) {
  kernels::AttentionParams params{.scale = 0.625f, .window = 3};
  check({leaf({tokens, 4, 8}), leaf({tokens, 2, 8}), leaf({tokens, 2, 8}), leaf({4}, 2.0)},
        [&](auto in) { return Variables{attention(in[0], in[1], in[2], layout_, params, in[3])}; });
}

TEST_F(Operations, LinearCrossEntropy) {
  Tensor labels = integers(random_, tokens, 7);
  labels.data<int32_t>()[1] = kernels::ignored_label;
  const Variable hidden = leaf({tokens, 5}), weight = leaf({7, 5});
  const kernels::PackedWeight packed = kernels::pack_weight(weight.value(), DType::f64);
  for (const float softcap : {0.0f, 2.0f}) {
    SCOPED_TRACE(softcap);
    const auto loss = [&](const Variable& h, const LinearWeight& w) {
      return Variables{linear_cross_entropy(h, w, labels, layout_, 0.3, softcap).loss};
    };
    check({hidden}, [&](auto in) { return loss(in[0], packed); });
    check({weight}, [&](auto in) { return loss(hidden.detach(), in[0]); });
    check({hidden, weight}, [&](auto in) { return loss(in[0], in[1]); });
  }
}

TEST_F(Operations, LinearCrossEntropyReportsPerToken) {
  const Tensor hidden = random({tokens, 5}), weight = random({7, 5});
  Tensor labels = integers(random_, tokens, 7);
  labels.data<int32_t>()[4] = kernels::ignored_label;
  const CrossEntropyResult result = linear_cross_entropy(hidden, weight, labels, layout_, 0.5);
  double total = 0;
  for (const double loss : result.token_loss.span<double>()) total += loss;
  EXPECT_DOUBLE_EQ(*result.loss.value().data<double>(), 0.5 * total);
  EXPECT_EQ(result.token_loss.span<double>()[4], 0.0);
  EXPECT_EQ(result.entropy.numel(), tokens);
  EXPECT_EQ(result.correct.dtype(), DType::u8);
}

// Keeps its input and has it computed again, and compares the two.
struct Compare final : Operation {
  bool* same;
  explicit Compare(bool* s) : same(s) {}
  std::string_view name() const override { return "compare"; }
  void forward(Forward& f) {
    f.save("kept", f.input(0));
    f.save_input("again", 0);
    f.output(f.input(0).clone());
  }
  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    *same = saved["kept"].raw() != saved["again"].raw() && same_bits(saved["kept"], saved["again"]);
    grads.add(0, grad_outputs[0]);
  }
};

TEST_F(Operations, WhatIsComputedAgainHasTheSameBits) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    SCOPED_TRACE(name_of(dtype));
    const auto tensor = [&](const Shape& shape) { return random_tensor(random_, shape, dtype); };
    const Variable x = Variable::leaf(tensor({tokens, 40})), weight = Variable::leaf(tensor({40}));
    const auto same_again = [&](const Variable& out) {
      bool same = false;
      backward(Variable(apply(Compare(&same), {out})), tensor(out.shape()));
      return same;
    };
    EXPECT_TRUE(same_again(rms_norm(x, weight, 1e-5f, layout_)));
    EXPECT_TRUE(same_again(rms_norm_residual(x, tensor({tokens, 40}), weight, 1e-5f, layout_).out));
    EXPECT_TRUE(same_again(swiglu(x, tensor({tokens, 40}))));
    EXPECT_TRUE(same_again(swiglu(x)));
    EXPECT_TRUE(same_again(geglu(x, tensor({tokens, 40}))));
    EXPECT_TRUE(same_again(geglu(x)));
  }
}

TEST_F(Operations, ATiedWeightTakesTheGradientsOfBothUses) {
  const Tensor ids = integers(random_, tokens, 7), labels = integers(random_, tokens, 7);
  check({leaf({7, 5})}, [&](auto in) {
    return Variables{linear_cross_entropy(embedding(in[0], ids, layout_), in[0], labels, layout_, 0.3).loss};
  });
}

TEST_F(Operations, GradcheckFindsAWrongGradient) {
  struct Wrong final : Operation {
    std::string_view name() const override { return "wrong"; }
    void forward(Forward& f) { f.output(f.input(0).clone()); }
    void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients& grads) override {
      Tensor gradient = grad_outputs[0].clone();
      gradient.span<double>()[2] *= 1.0 + 1e-5;
      grads.add(0, gradient);
    }
  };
  const Variables leaves{leaf({4})};
  const GradcheckResult result =
      gradcheck([](auto in) { return Variables{Variable(apply(Wrong{}, {in[0]}))}; }, leaves);
  EXPECT_FALSE(result.passed);
  EXPECT_NE(result.report.find("element 2"), std::string::npos) << result.report;
}

}  // namespace
}  // namespace lathe::autograd::testing
