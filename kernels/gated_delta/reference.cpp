#include "kernels/gated_delta/reference.h"

#include <cmath>
#include <vector>

#include "kernels/reference/rows.h"

namespace lathe::kernels::reference {
namespace {

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

double dot(const std::vector<double>& x, const std::vector<double>& y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

// S or its gradient.
struct State {
  int64_t rows, columns;
  std::vector<double> elements;
  State(int64_t r, int64_t c) : rows(r), columns(c), elements(static_cast<size_t>(r * c)) {}
  double& operator()(int64_t i, int64_t j) { return elements[static_cast<size_t>(i * columns + j)]; }
  double operator()(int64_t i, int64_t j) const { return elements[static_cast<size_t>(i * columns + j)]; }

  void scale(double factor) {
    for (double& element : elements) element *= factor;
  }
  void add_product(const std::vector<double>& x, const std::vector<double>& y) {
    for (size_t i = 0; i < x.size(); ++i)
      for (size_t j = 0; j < y.size(); ++j) elements[i * y.size() + j] += x[i] * y[j];
  }
  std::vector<double> times(const std::vector<double>& y) const {
    std::vector<double> result(static_cast<size_t>(rows));
    for (size_t i = 0; i < result.size(); ++i)
      for (size_t j = 0; j < y.size(); ++j) result[i] += elements[i * y.size() + j] * y[j];
    return result;
  }
  std::vector<double> transposed_times(const std::vector<double>& x) const {
    std::vector<double> result(static_cast<size_t>(columns));
    for (size_t i = 0; i < x.size(); ++i)
      for (size_t j = 0; j < result.size(); ++j) result[j] += elements[i * result.size() + j] * x[i];
    return result;
  }
};

// What a token has for a value head.
struct HeadOfToken {
  const GatedDelta& in;
  int64_t row, head;

  int64_t key_head() const { return head / (in.heads.value_heads / in.heads.key_heads); }
  int64_t q_column() const { return key_head() * in.heads.key_dim; }
  int64_t k_column() const { return q_column() + in.heads.key_heads * in.heads.key_dim; }
  int64_t v_column() const { return 2 * in.heads.key_heads * in.heads.key_dim + head * in.heads.value_dim; }

  std::vector<double> values(const Tensor& from, int64_t column, int64_t count) const {
    std::vector<double> result(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) result[static_cast<size_t>(i)] = at(from, row, column + i);
    return result;
  }
  static double inverse_length(const std::vector<double>& x) { return 1.0 / std::sqrt(dot(x, x) + 1e-6); }
  std::vector<double> normed(int64_t column, double scale) const {
    std::vector<double> result = values(in.qkv, column, in.heads.key_dim);
    const double factor = inverse_length(result) * scale;
    for (double& element : result) element *= factor;
    return result;
  }
  double q_scale() const { return 1.0 / std::sqrt(static_cast<double>(in.heads.key_dim)); }
  std::vector<double> q() const { return normed(q_column(), q_scale()); }
  std::vector<double> k() const { return normed(k_column(), 1.0); }
  std::vector<double> v() const { return values(in.qkv, v_column(), in.heads.value_dim); }
  double beta() const { return sigmoid(at(in.b, row, head)); }
  double step() const { return at(in.a, row, head) + at(in.dt_bias, head); }
  double log_gamma() const { return -std::exp(at(in.A_log, head)) * softplus(step()); }
  double gamma() const { return std::exp(log_gamma()); }

  // v − S̃ᵀ k̂, of S̃.
  std::vector<double> missing(const State& decayed) const {
    std::vector<double> result = v();
    const std::vector<double> found = decayed.transposed_times(k());
    for (size_t j = 0; j < result.size(); ++j) result[j] -= found[j];
    return result;
  }
  // From S_{t−1} to S_t.
  void advance(State& state) const {
    state.scale(gamma());
    std::vector<double> delta = missing(state);
    for (double& element : delta) element *= beta();
    state.add_product(k(), delta);
  }
  void write_out(const Tensor& out, const State& state) const {
    const std::vector<double> result = state.transposed_times(q());
    for (size_t j = 0; j < result.size(); ++j)
      put(out, row, head * in.heads.value_dim + static_cast<int64_t>(j), result[j]);
  }
};

// The gradients of what a token has, but for those that are summed over tokens.
struct GradientRows {
  const Tensor &qkv, &a, &b;

  // Through x̂ = x / √(Σ x² + 1e-6) · scale, added to what other value heads of the key head gave.
  void add_normed(const HeadOfToken& token, int64_t column, double scale, const std::vector<double>& gradient,
                  std::vector<double>& sums) const {
    const std::vector<double> x = token.values(token.in.qkv, column, token.in.heads.key_dim);
    const double r = HeadOfToken::inverse_length(x), along = dot(x, gradient) * r * r;
    for (size_t i = 0; i < x.size(); ++i) {
      const size_t place = static_cast<size_t>(column) + i;
      sums[place] += scale * r * (gradient[i] - along * x[i]);
      put(qkv, token.row, static_cast<int64_t>(place), sums[place]);
    }
  }
};

}  // namespace

void gated_delta_forward(const Tensor& out, const GatedDelta& inputs, const Tensor& cu_seqlens) {
  const auto bounds = cu_seqlens.span<int32_t>();
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    for (int64_t head = 0; head < inputs.heads.value_heads; ++head) {
      State state(inputs.heads.key_dim, inputs.heads.value_dim);
      for (int64_t row = bounds[s]; row < bounds[s + 1]; ++row) {
        const HeadOfToken token{inputs, row, head};
        token.advance(state);
        token.write_out(out, state);
      }
    }
  }
}

void gated_delta_backward(const Tensor& grad_qkv, const Tensor& grad_a, const Tensor& grad_b, const Tensor& grad_A_log,
                          const Tensor& grad_dt_bias, const Tensor& grad_out, const GatedDelta& inputs,
                          const Tensor& cu_seqlens) {
  const GatedDeltaHeads& heads = inputs.heads;
  const GradientRows gradients{grad_qkv, grad_a, grad_b};
  const auto bounds = cu_seqlens.span<int32_t>();
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    const int64_t first = bounds[s], end = bounds[s + 1];
    std::vector<std::vector<double>> sums(static_cast<size_t>(end - first));  // of q and k, unrounded
    for (std::vector<double>& row : sums) row.resize(static_cast<size_t>(2 * heads.key_heads * heads.key_dim));
    for (int64_t head = 0; head < heads.value_heads; ++head) {
      std::vector<State> before;  // S_{t−1}
      State state(heads.key_dim, heads.value_dim);
      for (int64_t row = first; row < end; ++row) {
        before.push_back(state);
        HeadOfToken{inputs, row, head}.advance(state);
      }
      State grad(heads.key_dim, heads.value_dim);
      double of_A_log = 0, of_dt_bias = 0;
      for (int64_t row = end - 1; row >= first; --row) {
        const HeadOfToken token{inputs, row, head};
        const std::vector<double> q = token.q(), k = token.k();
        const std::vector<double> grad_o = token.values(grad_out, head * heads.value_dim, heads.value_dim);
        const double beta = token.beta(), gamma = token.gamma();
        State decayed = before[static_cast<size_t>(row - first)];
        decayed.scale(gamma);
        const std::vector<double> missing = token.missing(decayed);
        std::vector<double> delta = missing;
        for (double& element : delta) element *= beta;
        State after = decayed;
        after.add_product(k, delta);

        grad.add_product(q, grad_o);
        const std::vector<double> grad_q = after.times(grad_o), grad_delta = grad.transposed_times(k);
        std::vector<double> grad_k = grad.times(delta), grad_found = grad_delta;
        for (double& element : grad_found) element *= -beta;
        const std::vector<double> through_found = decayed.times(grad_found);
        for (size_t i = 0; i < grad_k.size(); ++i) grad_k[i] += through_found[i];
        grad.add_product(k, grad_found);
        const double grad_log_gamma = dot(grad.elements, decayed.elements);
        grad.scale(gamma);

        std::vector<double>& of_row = sums[static_cast<size_t>(row - first)];
        gradients.add_normed(token, token.q_column(), token.q_scale(), grad_q, of_row);
        gradients.add_normed(token, token.k_column(), 1.0, grad_k, of_row);
        for (int64_t j = 0; j < heads.value_dim; ++j)
          put(grad_qkv, row, token.v_column() + j, beta * grad_delta[static_cast<size_t>(j)]);
        put(grad_b, row, head, dot(grad_delta, missing) * beta * (1.0 - beta));
        const double of_step = -grad_log_gamma * std::exp(at(inputs.A_log, head)) * sigmoid(token.step());
        put(grad_a, row, head, of_step);
        of_dt_bias += of_step;
        of_A_log += grad_log_gamma * token.log_gamma();
      }
      if (grad_A_log.defined()) add(grad_A_log, head, of_A_log);
      if (grad_dt_bias.defined()) add(grad_dt_bias, head, of_dt_bias);
    }
  }
}

void gated_delta_step(const Tensor& out, const Tensor& states, const GatedDelta& inputs, const PagedBatch& batch) {
  const GatedDeltaHeads& heads = inputs.heads;
  for (int64_t s = 0; s < batch.sequences(); ++s) {
    const int64_t first = batch.bounds()[s], end = batch.bounds()[s + 1];
    if (first == end) continue;
    for (int64_t head = 0; head < heads.value_heads; ++head) {
      State state(heads.key_dim, heads.value_dim);
      const int64_t place = (batch.state_slot(s) * heads.value_heads + head) * heads.key_dim * heads.value_dim;
      if (!batch.begins(s))
        for (size_t i = 0; i < state.elements.size(); ++i)
          state.elements[i] = at(states, place + static_cast<int64_t>(i));
      for (int64_t row = first; row < end; ++row) {
        const HeadOfToken token{inputs, row, head};
        token.advance(state);
        token.write_out(out, state);
      }
      for (size_t i = 0; i < state.elements.size(); ++i)
        write(states.dtype(), states.raw(), place + static_cast<int64_t>(i), state.elements[i]);
    }
  }
}

}  // namespace lathe::kernels::reference
