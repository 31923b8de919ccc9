#include "data/tokenizer/unigram.h"

#include <gtest/gtest.h>

#include <utility>

namespace lathe::data {
namespace {

// What tokenizers 0.23 writes after it read the numbers on the left.
TEST(Unigram, ScoresAreReadAsTheLibraryReadsThem) {
  const std::pair<double, double> rows[] = {{-10.178008394710085, -10.178008394710083},
                                            {-3.2188758248682006, -3.218875824868201},
                                            {-3.6109179126442243, -3.610917912644224},
                                            {-10.313940202155331, -10.313940202155331},
                                            {-13.5, -13.5},
                                            {0.0, 0.0},
                                            {-1e-05, -1e-05},
                                            {12.0, 12.0},
                                            {3e40, 3e40}};
  for (const auto& [nearest, read] : rows) EXPECT_EQ(unigram_score(nearest), read) << nearest;
}

}  // namespace
}  // namespace lathe::data
