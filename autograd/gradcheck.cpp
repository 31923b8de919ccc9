#include "autograd/gradcheck.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "autograd/operation.h"
#include "autograd/recording.h"
#include "core/error.h"
#include "core/random.h"

namespace lathe::autograd {
namespace {

using Function = std::function<std::vector<Variable>(std::span<const Variable>)>;

// Multiples of 1/16 in [−2, 2]: products with them lose nothing where an operation takes a factor in f32.
Tensor random_cotangent(const Tensor& like, RandomStream& random) {
  Tensor result = Tensor::empty(like.shape(), like.dtype());
  for (double& value : result.span<double>()) value = (static_cast<double>(random.below(65)) - 32.0) / 16.0;
  return result;
}

// out = Σ over the inputs of input · cotangent: one root, so that a graph with several outputs is walked
// once.
struct Contraction final : Operation {
  const std::vector<Tensor>& cotangents;
  explicit Contraction(const std::vector<Tensor>& c) : cotangents(c) {}
  std::string_view name() const override { return "contraction"; }

  void forward(Forward& f) {
    double result = 0;
    for (size_t i = 0; i < cotangents.size(); ++i) {
      const Tensor value = f.input(static_cast<int>(i)).clone();
      const auto a = value.span<double>(), b = cotangents[i].span<double>();
      for (size_t j = 0; j < a.size(); ++j) result += a[j] * b[j];
    }
    f.output(Tensor::of(std::span<const double>(&result, 1), Shape{1}));
  }

  void vjp(Saved&, std::span<Tensor>, InputGradients& grads) override {
    for (size_t i = 0; i < cotangents.size(); ++i) grads.add(static_cast<int>(i), cotangents[i]);
  }
};

struct Element {
  size_t leaf;
  int64_t index;
  double numeric, analytic;
  double error() const { return std::abs(numeric - analytic) / (1.0 + std::abs(numeric)); }
};

std::string describe_element(const Element& element, const GradcheckOptions& options) {
  char text[256];
  std::snprintf(text, sizeof text,
                "leaf %zu, element %lld: numeric gradient %.12g, analytic %.12g, error %.3g (tolerance %.3g)",
                element.leaf, static_cast<long long>(element.index), element.numeric, element.analytic, element.error(),
                options.tolerance);
  return text;
}

}  // namespace

GradcheckResult gradcheck(const Function& function, std::span<const Variable> leaves, const GradcheckOptions& options) {
  for (const Variable& leaf : leaves) {
    if (!leaf.is_leaf() || leaf.dtype() != DType::f64 || !leaf.value().is_contiguous()) {
      throw ShapeError("gradcheck takes contiguous f64 leaves, not " + describe(leaf.value()));
    }
    leaf.set_grad({});
  }
  RandomStream random(options.seed, RandomPurpose::test);
  std::vector<Tensor> cotangents;
  const auto contracted = [&] {
    const std::vector<Variable> outputs = function(leaves);
    for (size_t i = cotangents.size(); i < outputs.size(); ++i) {
      cotangents.push_back(random_cotangent(outputs[i].value(), random));
    }
    return Variable(apply(Contraction(cotangents), std::span<const Variable>(outputs)));
  };
  const auto value_at = [&](double& place, double value) {
    const NoGradScope no_grad;
    const double before = std::exchange(place, value);
    const double result = *contracted().value().data<double>();
    place = before;
    return result;
  };

  backward(contracted());
  GradcheckResult result;
  for (size_t l = 0; l < leaves.size(); ++l) {
    const std::span<double> values = leaves[l].value().span<double>();
    const Tensor gradient = leaves[l].grad();
    const auto count = static_cast<int64_t>(values.size());
    const int64_t checked = options.elements > 0 ? std::min(options.elements, count) : count;
    for (int64_t c = 0; c < checked; ++c) {
      const auto index = static_cast<size_t>(c * count / checked);
      double& place = values[index];
      // The step that was really taken, after rounding.
      const double above = place + options.step, below = place - options.step;
      const double numeric = (value_at(place, above) - value_at(place, below)) / (above - below);
      const double analytic = gradient.defined() ? gradient.span<double>()[index] : 0.0;
      const Element element{l, static_cast<int64_t>(index), numeric, analytic};
      if (!(element.error() <= result.worst_error)) {  // also when it is no number
        result.worst_error = element.error();
        result.report = describe_element(element, options);
      }
      if (!(element.error() <= options.tolerance)) result.passed = false;
      if (std::isnan(result.worst_error)) return result;
    }
  }
  return result;
}

}  // namespace lathe::autograd
