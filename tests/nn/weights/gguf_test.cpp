// GGUF: what is read, and that every broken file is an error with its place, never a crash.
#include "nn/weights/gguf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "core/random.h"
#include "nn/weights/ggml_types.h"
#include "nn/weights/safetensors.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

// Writes GGUF byte by byte, right or wrong.
class GgufBytes {
 public:
  explicit GgufBytes(uint32_t version = 3, uint64_t tensors = 0, uint64_t pairs = 0) {
    bytes_ = "GGUF";
    put(version);
    put(tensors);
    put(pairs);
  }
  template <class T>
  GgufBytes& put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  GgufBytes& text(const std::string& value) {
    put<uint64_t>(value.size());
    bytes_ += value;
    return *this;
  }
  GgufBytes& tensor(const std::string& name, const std::vector<uint64_t>& extents, uint32_t type, uint64_t offset) {
    text(name).put<uint32_t>(static_cast<uint32_t>(extents.size()));
    for (const uint64_t extent : extents) put(extent);
    return put(type).put(offset);
  }
  GgufBytes& align(size_t to = 32) {
    bytes_.resize((bytes_.size() + to - 1) / to * to, '\0');
    return *this;
  }
  GgufBytes& data(size_t count) {
    bytes_.append(count, '\1');
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

std::shared_ptr<const GgufFile> opened(const std::string& bytes) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "model.gguf";
  std::ofstream(path, std::ios::binary) << bytes;
  return GgufFile::open(path);
}

std::string error_of(const std::string& bytes) {
  try {
    opened(bytes);
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no error";
}

void expect_error(const GgufBytes& file, const std::string& part) {
  const std::string error = error_of(file.bytes());
  EXPECT_NE(error.find(part), std::string::npos) << "expected \"" << part << "\", found: " << error;
}

GgufBytes small_file() {
  GgufBytes file(3, 2, 3);
  file.text("general.architecture").put<uint32_t>(8).text("llama");
  file.text("numbers").put<uint32_t>(9).put<uint32_t>(5).put<uint64_t>(3).put<int32_t>(-1).put<int32_t>(2).put<int32_t>(
      3);
  file.text("flag").put<uint32_t>(7).put<uint8_t>(1);
  file.tensor("a.weight", {4, 2}, 0, 0).tensor("b.weight", {32}, 8, 32);
  return file.align().data(32 + 34);
}

TEST(Gguf, ReadsMetadataAndTensors) {
  const auto file = opened(small_file().bytes());
  EXPECT_EQ(file->get<std::string>("general.architecture"), "llama");
  EXPECT_EQ(file->get<std::vector<int64_t>>("numbers"), (std::vector<int64_t>{-1, 2, 3}));
  EXPECT_TRUE(file->get<bool>("flag"));
  ASSERT_NE(file->find_tensor("a.weight"), nullptr);
  EXPECT_EQ(file->find_tensor("a.weight")->shape, (Shape{2, 4}));  // ne[0] is the row's length
  EXPECT_EQ(file->find_tensor("c.weight"), nullptr);
  EXPECT_THROW(file->get<int64_t>("general.architecture"), FormatError);
  EXPECT_THROW(file->get<int64_t>("nothing"), FormatError);
  EXPECT_FALSE(file->get_optional<int64_t>("nothing"));
}

TEST(Gguf, EveryTruncationIsAnError) {
  const std::string whole = small_file().bytes();
  for (size_t length = 0; length < whole.size(); ++length)
    EXPECT_NE(error_of(whole.substr(0, length)), "no error") << length;
}

// Whatever byte is hit, the file is read or refused: nothing else (the sanitizers watch).
TEST(Gguf, NoChangedByteCrashes) {
  const std::string whole = small_file().bytes();
  RandomStream random(7, RandomPurpose::test);
  for (int i = 0; i < 4000; ++i) {
    std::string bytes = whole;
    const auto changes = 1 + random.below(3);
    for (uint64_t c = 0; c < changes; ++c) bytes[random.below(bytes.size())] = static_cast<char>(random.below(256));
    error_of(bytes);
  }
}

TEST(Gguf, LyingHeadersAreNamed) {
  expect_error(GgufBytes(1), "version 1");
  expect_error(GgufBytes(3, uint64_t{1} << 60, 0), "the number of tensors");
  expect_error(GgufBytes(3, 0, uint64_t{1} << 60), "the number of metadata pairs");
  EXPECT_NE(error_of("GGML0000").find("no GGUF file"), std::string::npos);
}

TEST(Gguf, LyingMetadataIsNamed) {
  expect_error(GgufBytes(3, 0, 1).put<uint64_t>(uint64_t{1} << 62).data(32), "a string of");
  expect_error(GgufBytes(3, 0, 1).text("k").put<uint32_t>(77).data(32), "unknown value type 77");
  expect_error(GgufBytes(3, 0, 1).text("k").put<uint32_t>(9).put<uint32_t>(4).put<uint64_t>(uint64_t{1} << 61).data(32),
               "items cannot fit");
  expect_error(GgufBytes(3, 0, 1).text("k").put<uint32_t>(9).put<uint32_t>(9).put<uint64_t>(1).data(32),
               "array of arrays");
  expect_error(GgufBytes(3, 0, 1).text("k").put<uint32_t>(7).put<uint8_t>(2).data(32), "neither 0 nor 1");
  expect_error(GgufBytes(3, 0, 1).text("k").put<uint32_t>(10).put<uint64_t>(~uint64_t{0}).data(32), "above 2^63");
  expect_error(
      GgufBytes(3, 0, 2).text("k").put<uint32_t>(4).put<uint32_t>(1).text("k").put<uint32_t>(4).put<uint32_t>(1).data(
          32),
      "stands twice");
  expect_error(GgufBytes(3, 0, 1).text("general.alignment").put<uint32_t>(4).put<uint32_t>(48).data(64),
               "power of two");
}

TEST(Gguf, LyingTensorsAreNamed) {
  const auto with = [](const std::vector<uint64_t>& extents, uint32_t type, uint64_t offset) {
    return GgufBytes(3, 1, 0).tensor("w", extents, type, offset).align().data(256);
  };
  expect_error(with({1, 1, 1, 1, 1}, 0, 0), "5 dimensions");
  expect_error(with({}, 0, 0), "0 dimensions");
  expect_error(with({4}, 99, 0), "unknown tensor type 99");
  expect_error(with({33}, 8, 0), "no multiple of Q8_0");
  expect_error(with({4}, 0, 16), "not aligned");
  expect_error(with({4}, 0, 1 << 20), "runs past the file's end");
  expect_error(with({65}, 0, 0), "runs past the file's end");
  expect_error(with({0}, 0, 0), "absurd extent");
  expect_error(with({uint64_t{1} << 40, uint64_t{1} << 40}, 0, 0), "absurd extent");
  expect_error(with({4}, 0, ~uint64_t{0} - 31), "above 2^63");
  expect_error(GgufBytes(3, 2, 0).tensor("a", {32}, 0, 0).tensor("b", {32}, 0, 64).align().data(256), "overlaps");
  expect_error(GgufBytes(3, 2, 0).tensor("a", {8}, 0, 0).tensor("a", {8}, 0, 32).align().data(256), "stands twice");
}

TEST(Gguf, NumbersAreReadWithinBounds) {
  const auto file = opened(GgufBytes(3, 0, 3)
                               .text("id")
                               .put<uint32_t>(10)
                               .put<uint64_t>(4294967298)
                               .text("nan")
                               .put<uint32_t>(6)
                               .put<float>(std::nanf(""))
                               .text("half")
                               .put<uint32_t>(12)
                               .put<double>(0.5)
                               .align()
                               .bytes());
  EXPECT_THROW(file->get_integer("id", 0, INT32_MAX), FormatError);
  EXPECT_EQ(file->get_integer("id", 0, INT64_MAX), 4294967298);
  EXPECT_THROW(file->get_integer("half", 0, 1), FormatError);
  EXPECT_THROW(file->get_number("nan"), FormatError);
  EXPECT_EQ(file->get_number("half"), 0.5);
}

// One of two parts, with a tensor of eight floats named after it.
std::string part_of_two(uint16_t number, const std::string& tensor) {
  return GgufBytes(3, 1, 3)
      .text("split.no")
      .put<uint32_t>(2)
      .put<uint16_t>(number)
      .text("split.count")
      .put<uint32_t>(2)
      .put<uint16_t>(2)
      .text("name")
      .put<uint32_t>(8)
      .text(tensor)
      .tensor(tensor, {8}, 0, 0)
      .align()
      .data(32)
      .bytes();
}

TEST(Gguf, ASplitModelIsOpenedWholeByAnyPart) {
  const TemporaryFolder folder;
  const auto first = folder.path() / "m-00001-of-00002.gguf", second = folder.path() / "m-00002-of-00002.gguf";
  const auto write = [](const std::filesystem::path& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
  };
  const auto error_at = [](const std::filesystem::path& path) -> std::string {
    try {
      GgufFile::open(path);
    } catch (const FormatError& error) {
      return error.what();
    }
    return "no error";
  };
  write(first, part_of_two(0, "a"));
  EXPECT_NE(error_at(first).find("part 1 of 2"), std::string::npos) << error_at(first);
  EXPECT_NE(error_at(first).find("m-00002-of-00002.gguf is not there"), std::string::npos) << error_at(first);
  EXPECT_NE(error_at(first).find("llama-gguf-split --merge"), std::string::npos) << error_at(first);
  std::string bytes = part_of_two(1, "b");
  bytes.replace(bytes.size() - 4, 4, std::string("\0\0\x80\x3f", 4));  // 1.0f
  write(second, bytes);
  for (const auto& path : {first, second}) {
    const auto file = GgufFile::open(path);
    ASSERT_EQ(file->tensors().size(), 2u);
    EXPECT_EQ(file->get<std::string>("name"), "a");  // the first part's metadata
    EXPECT_EQ(file->path_of(*file->find_tensor("b")), second);
    std::vector<float> values(8);
    open_gguf_weights(file, {})->read_rows("b", 0, 1, values.data());
    EXPECT_EQ(values[7], 1.0f);
    open_gguf_weights(file, {})->read_rows("a", 0, 1, values.data());
    EXPECT_NE(values[7], 1.0f);
  }
  write(second, part_of_two(1, "a"));
  EXPECT_NE(error_at(first).find("stands twice"), std::string::npos) << error_at(first);
  const auto renamed = folder.path() / "model.gguf";
  write(renamed, part_of_two(0, "a"));
  EXPECT_NE(error_at(renamed).find("-00001-of-00002.gguf"), std::string::npos) << error_at(renamed);
}

TEST(Gguf, AllMissingPartsAreNamedAtOnce) {
  const TemporaryFolder folder;
  std::string part = part_of_two(0, "a");
  // split.count, whose value is the last u16 of its kind, says four.
  const size_t key = part.find("split.count");
  ASSERT_NE(key, std::string::npos);
  part[key + 11 + 4] = 4;
  const auto path = folder.path() / "m-00001-of-00004.gguf";
  std::ofstream(path, std::ios::binary) << part;
  std::ofstream(folder.path() / "m-00003-of-00004.gguf") << "there";
  try {
    GgufFile::open(path);
    FAIL() << "no error";
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("m-00002-of-00004.gguf, m-00004-of-00004.gguf are not there"),
              std::string::npos)
        << error.what();
  }
}

TEST(Gguf, SomethingElseInItsPlaceIsNamed) {
  EXPECT_NE(error_of("version https://git-lfs.github.com/spec/v1\n").find("git-lfs pointer"), std::string::npos);
  EXPECT_NE(error_of("<!DOCTYPE html><html>").find("web page"), std::string::npos);
  EXPECT_NE(error_of(std::string("\x10\0\0\0\0\0\0\0{\"a\":1}", 15)).find("safetensors"), std::string::npos);
}

TEST(Gguf, WhatIsNoFileIsToldSo) {
  EXPECT_THROW(GgufFile::open("no/such/file.gguf"), Error);
  EXPECT_THROW(GgufFile::open(std::filesystem::temp_directory_path()), Error);
  EXPECT_THROW(open_model_files("no/such/model"), ConfigError);
}

void put_f16(std::vector<std::byte>& block, size_t at, float value) {
  const f16 half(value);
  std::memcpy(&block[at], &half.bits, 2);
}

// One block of each type with hand-computed values: formulas of facts that the golden model's Q4_1 and Q8_0 do not
// reach.
TEST(GgmlTypes, BlocksMeanWhatTheirFormulasSay) {
  const auto dequantized = [](uint32_t id, const std::vector<std::byte>& block) {
    const GgmlType* type = ggml_type(id);
    EXPECT_EQ(static_cast<int64_t>(block.size()), type->block_bytes) << type->name;
    std::vector<float> out(static_cast<size_t>(type->block_elements));
    type->dequantize(block.data(), 1, out.data());
    return out;
  };
  std::vector<std::byte> q4_0(18);
  put_f16(q4_0, 0, 0.5f);
  q4_0[2] = std::byte{0xF1};  // element 0: 1, element 16: 15
  EXPECT_EQ(dequantized(2, q4_0)[0], (1 - 8) * 0.5f);
  EXPECT_EQ(dequantized(2, q4_0)[16], (15 - 8) * 0.5f);
  EXPECT_EQ(dequantized(2, q4_0)[1], -8 * 0.5f);

  std::vector<std::byte> q5_1(24);
  put_f16(q5_1, 0, 2.0f);
  put_f16(q5_1, 2, -3.0f);
  q5_1[4] = std::byte{0x02};  // the fifth bit of element 1
  q5_1[7] = std::byte{0x80};  // and of element 31
  q5_1[8 + 1] = std::byte{0x03};
  q5_1[8 + 15] = std::byte{0x40};
  EXPECT_EQ(dequantized(7, q5_1)[1], 2.0f * (3 + 16) - 3.0f);
  EXPECT_EQ(dequantized(7, q5_1)[31], 2.0f * (4 + 16) - 3.0f);
  EXPECT_EQ(dequantized(7, q5_1)[0], -3.0f);

  std::vector<std::byte> q4_k(144);
  put_f16(q4_k, 0, 0.25f);
  put_f16(q4_k, 2, 0.5f);
  // scale and minimum of group 0 in bytes 4 and 8, of group 5 in the low and high nibble of byte 4 + 9 with two bits
  // each from bytes 4 + 1 and 4 + 5.
  q4_k[4] = std::byte{5};
  q4_k[8] = std::byte{7};
  q4_k[4 + 9] = std::byte{0x3A};
  q4_k[4 + 1] = std::byte{0x40};
  q4_k[4 + 5] = std::byte{0x80};
  q4_k[16] = std::byte{0x09};           // group 0, element 0
  q4_k[16 + 64 + 3] = std::byte{0xC0};  // group 5, element 3
  const auto k = dequantized(12, q4_k);
  EXPECT_EQ(k[0], 0.25f * 5 * 9 - 0.5f * 7);
  EXPECT_EQ(k[5 * 32 + 3], 0.25f * (0x0A | 0x10) * 12 - 0.5f * (0x03 | 0x20));

  std::vector<std::byte> q6_k(210);
  put_f16(q6_k, 208, 0.125f);
  q6_k[64 + 63] = std::byte{0x0D};        // second half, element 63: low nibble
  q6_k[128 + 32 + 31] = std::byte{0x04};  // its two high bits: 01 at shift 2
  q6_k[192 + 8 + 3] = std::byte{0xFE};    // scale −2
  EXPECT_EQ(dequantized(14, q6_k)[128 + 63], 0.125f * -2 * ((0x0D | 0x10) - 32));
}

// Every block type against the gguf package's own dequantisation of the same bytes. Products of two scales may round
// twice there and once here: the last bits of an f32.
TEST(GgmlTypes, BlocksAreWhatTheGgufPackageMakesOfThem) {
  const auto file = SafetensorsFile::open(golden("gguf/blocks.safetensors"));
  const std::pair<uint32_t, const char*> types[] = {{2, "Q4_0"},  {3, "Q4_1"},  {6, "Q5_0"},    {7, "Q5_1"},
                                                    {8, "Q8_0"},  {10, "Q2_K"}, {11, "Q3_K"},   {12, "Q4_K"},
                                                    {13, "Q5_K"}, {14, "Q6_K"}, {20, "IQ4_NL"}, {23, "IQ4_XS"}};
  for (const auto& [id, name] : types) {
    const GgmlType* type = ggml_type(id);
    ASSERT_EQ(type->name, name);
    const Tensor bytes = file->tensor(std::string(name) + ".bytes"),
                 values = file->tensor(std::string(name) + ".values");
    ASSERT_EQ(bytes.dim(1), type->block_bytes) << name;
    std::vector<float> found(static_cast<size_t>(bytes.dim(0) * type->block_elements));
    ASSERT_EQ(values.numel(), static_cast<int64_t>(found.size())) << name;
    type->dequantize(static_cast<const std::byte*>(bytes.raw()), bytes.dim(0), found.data());
    for (size_t i = 0; i < found.size(); ++i)
      ASSERT_LE(std::fabs(found[i] - values.data<float>()[i]), 1e-6f * std::max(1.0f, std::fabs(found[i])))
          << name << " " << i;
  }
}

// All 256 exponents, from subnormal scales to those beyond f32, to the bit.
TEST(GgmlTypes, Mxfp4IsWhatTheGgufPackageMakesOfIt) {
  const auto file = SafetensorsFile::open(golden("gguf/mxfp4.safetensors"));
  const Tensor bytes = file->tensor("bytes"), values = file->tensor("values");
  const GgmlType* type = ggml_type(39);
  ASSERT_EQ(bytes.dim(1), type->block_bytes);
  std::vector<float> found(static_cast<size_t>(values.numel()));
  type->dequantize(static_cast<const std::byte*>(bytes.raw()), bytes.dim(0), found.data());
  for (size_t i = 0; i < found.size(); ++i) ASSERT_EQ(found[i], values.data<float>()[i]) << i;
}

// Every entry of every grid, and scales from 0 to the largest, to the bit.
TEST(GgmlTypes, IndicesOfGridsAreWhatTheGgufPackageMakesOfThem) {
  const auto file = SafetensorsFile::open(golden("gguf/iq_blocks.safetensors"));
  const std::pair<uint32_t, const char*> types[] = {{16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"},
                                                    {21, "IQ3_S"},   {22, "IQ2_S"},  {29, "IQ1_M"}};
  for (const auto& [id, name] : types) {
    const GgmlType* type = ggml_type(id);
    ASSERT_EQ(type->name, name);
    const Tensor bytes = file->tensor(std::string(name) + ".bytes"),
                 values = file->tensor(std::string(name) + ".values");
    ASSERT_EQ(bytes.dim(1), type->block_bytes) << name;
    std::vector<float> found(static_cast<size_t>(bytes.dim(0) * type->block_elements));
    ASSERT_EQ(values.numel(), static_cast<int64_t>(found.size())) << name;
    type->dequantize(static_cast<const std::byte*>(bytes.raw()), bytes.dim(0), found.data());
    for (size_t i = 0; i < found.size(); ++i)
      ASSERT_EQ(std::bit_cast<uint32_t>(found[i]), std::bit_cast<uint32_t>(values.data<float>()[i]))
          << name << " " << i << ": " << found[i] << ", expected " << values.data<float>()[i];
  }
}

// The order in which products stream codes keeps every one of them: the same values to the bit.
TEST(GgmlTypes, RepackedBlocksStandForTheSameValues) {
  const auto file = SafetensorsFile::open(golden("gguf/blocks.safetensors"));
  const auto mxfp4 = SafetensorsFile::open(golden("gguf/mxfp4.safetensors"));
  const auto grids = SafetensorsFile::open(golden("gguf/iq_blocks.safetensors"));
  int formats = 0;
  for (uint32_t id = 0; id < 40; ++id) {
    const GgmlType* type = ggml_type(id);
    const auto format = type == nullptr ? std::nullopt : kernels::ggml_format(type->name);
    if (!format) continue;
    ++formats;
    const std::string name = std::string(type->name) + ".bytes";
    const Tensor bytes = type->name == "MXFP4"   ? mxfp4->tensor("bytes")
                         : grids->contains(name) ? grids->tensor(name)
                                                 : file->tensor(name);
    std::vector<const std::byte*> rows;  // of one block each
    for (int64_t i = 0; i < bytes.dim(0); ++i) rows.push_back(static_cast<const std::byte*>(bytes.select(0, i).raw()));
    const Tensor expected = Tensor::empty({bytes.dim(0), type->block_elements}, DType::f32),
                 found = Tensor::empty(expected.shape(), DType::f32);
    type->dequantize(static_cast<const std::byte*>(bytes.raw()), bytes.dim(0), expected.data<float>());
    kernels::GgmlWeight::pack({*format, type->block_elements, rows}, DType::f32).dequantize(found);
    EXPECT_EQ(std::memcmp(found.raw(), expected.raw(), static_cast<size_t>(found.nbytes())), 0) << type->name;
  }
  EXPECT_EQ(formats, 20);
}

}  // namespace
}  // namespace lathe::nn
