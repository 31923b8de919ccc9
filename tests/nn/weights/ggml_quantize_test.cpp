#include "nn/weights/ggml_quantize.h"

#include <gtest/gtest.h>

#include <cstring>

#include "nn/weights/ggml_types.h"
#include "tests/support/golden.h"

namespace lathe::nn {
namespace {

TEST(GgmlQuantize, GivesTheBytesOfTheGgufPackage) {
  const testing::GoldenTensors golden = testing::golden_tensors("gguf/quantized.safetensors");
  const Tensor& values = golden.at("values");
  for (const char* name : {"F16", "BF16", "Q8_0", "Q4_0", "Q4_1"}) {
    const GgmlWriter* writer = ggml_writer(name);
    ASSERT_NE(writer, nullptr) << name;
    const GgmlType& type = *ggml_type(writer->id);
    EXPECT_EQ(type.name, name);
    const Tensor& expected = golden.at(name);
    const int64_t blocks = values.numel() / type.block_elements;
    ASSERT_EQ(expected.nbytes(), blocks * type.block_bytes) << name;
    std::vector<std::byte> bytes(static_cast<size_t>(expected.nbytes()));
    writer->quantize(values.data<float>(), blocks, bytes.data());
    const auto* wanted = static_cast<const std::byte*>(expected.raw());
    for (size_t i = 0; i < bytes.size(); ++i)
      ASSERT_EQ(bytes[i], wanted[i]) << name << ", byte " << i << " of block " << i / type.block_bytes;
  }
}

TEST(GgmlQuantize, NamesOfTypesThatAreNotWrittenAreNone) {
  EXPECT_EQ(ggml_writer("q8_0"), ggml_writer("Q8_0"));
  for (const char* name : {"", "Q4_K", "q9", "F64"}) EXPECT_EQ(ggml_writer(name), nullptr) << name;
}

}  // namespace
}  // namespace lathe::nn
