// The leading singular vectors of a weight, which PiSSA starts from.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace lathe::nn {

// W ≈ Σᵢ values[i] · left[i] · right[i]ᵀ, the values descending. Which of v and −v a vector is, is left open.
struct SingularVectors {
  std::vector<double> values;
  std::vector<double> left, right;  // [rank, out] and [rank, in], rows of length 1 (right: 0 where the value is 0)
};

// The `rank` largest of `weight` f32 [out, in], on the cpu: by the eigenvectors of its smaller Gram matrix, in f64. At
// most min(out, in) of them.
SingularVectors leading_singular_vectors(const Tensor& weight, int64_t rank);

// Nearly the same, much sooner, by the randomised range finder with `iterations` power iterations (Halko, Martinsson
// and Tropp 2011, algorithm 4.4; torch.svd_lowrank). The random numbers follow from the seed and the number.
SingularVectors random_singular_vectors(const Tensor& weight, int64_t rank, int64_t iterations, uint64_t seed,
                                        uint64_t number);

// `rows` [count, length], one after another, made orthonormal by Gram and Schmidt's method, twice. A row that depends
// on those before it becomes zeros.
void orthonormalise(std::vector<double>& rows, int64_t length);

}  // namespace lathe::nn
