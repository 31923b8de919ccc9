// safetensors: the usual writer's bytes, and every rule of the format.
#include "nn/weights/safetensors.h"

#include <gtest/gtest.h>

#include "core/random.h"
#include "tests/nn/golden_files.h"

namespace lathe::nn {
namespace {

std::string file_of(const std::string& header, size_t data_bytes, std::optional<uint64_t> header_length = {}) {
  const uint64_t length = header_length.value_or(header.size());
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data_bytes, '\1');
}

std::shared_ptr<const SafetensorsFile> opened(const std::string& bytes) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "model.safetensors";
  std::ofstream(path, std::ios::binary) << bytes;
  return SafetensorsFile::open(path);
}

std::string error_of(const std::string& bytes) {
  try {
    const auto file = opened(bytes);
    for (const std::string& name : file->names()) file->tensor(name);
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no error";
}

void expect_error(const std::string& bytes, const std::string& part) {
  const std::string error = error_of(bytes);
  EXPECT_NE(error.find(part), std::string::npos) << "expected \"" << part << "\", found: " << error;
}

const std::string good =
    R"({"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]}})";

TEST(Safetensors, ReadsViewsOfTheFile) {
  const auto file = opened(file_of(good, 22));
  EXPECT_EQ(file->names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(file->tensor("a").shape(), (Shape{2, 2}));
  EXPECT_EQ(file->tensor("b").dtype(), DType::bf16);
  EXPECT_TRUE(file->tensor("b").data<bf16>()[2].bits == 0x0101);
  EXPECT_THROW(file->tensor("c"), FormatError);
}

// A header that is not padded leaves tensors where their type may not be read in place.
TEST(Safetensors, ReadsTensorsThatLieMisaligned) {
  for (size_t blanks = 0; blanks < 8; ++blanks) {
    const auto file = opened(file_of(good + std::string(blanks, ' '), 22));
    const float value = file->tensor("a").data<float>()[3];
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    EXPECT_EQ(bits, 0x01010101u);
  }
}

TEST(Safetensors, ReadsWhatItWroteAndPeersWrote) {
  const TemporaryFolder folder;
  const auto peer = SafetensorsFile::open(golden("tiny_llama/untied/model.safetensors"));
  NamedTensors tensors;
  for (const std::string& name : peer->names()) tensors.emplace_back(name, peer->tensor(name));
  std::reverse(tensors.begin(), tensors.end());
  write_safetensors(folder.path() / "model.safetensors", tensors);
  const auto bytes_of = [](const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(stream), {});
  };
  EXPECT_EQ(bytes_of(folder.path() / "model.safetensors"), bytes_of(golden("tiny_llama/untied/model.safetensors")));
}

TEST(Safetensors, EveryTruncationAndExtensionIsAnError) {
  const std::string whole = file_of(good, 22);
  for (size_t length = 0; length < whole.size(); ++length)
    EXPECT_NE(error_of(whole.substr(0, length)), "no error") << length;
  expect_error(whole + "x", "bytes follow");
}

TEST(Safetensors, NoChangedByteCrashes) {
  const std::string whole = file_of(good, 22);
  RandomStream random(8, RandomPurpose::test);
  for (int i = 0; i < 4000; ++i) {
    std::string bytes = whole;
    bytes[random.below(bytes.size())] = static_cast<char>(random.below(256));
    error_of(bytes);
  }
}

TEST(Safetensors, LyingHeadersAreNamed) {
  const auto one = [](const std::string& entry, size_t data = 16) { return file_of("{\"a\":" + entry + "}", data); };
  expect_error(file_of(good, 22, 1 << 20), "may be truncated");
  expect_error(file_of(good, 22, 200'000'000), "above the format's limit");
  expect_error(file_of("[1]      ", 0), "'{'");
  expect_error(file_of("{\"a\"     ", 0), "no JSON");
  expect_error(file_of("{\"\xff\":1}", 0), "no JSON");
  expect_error(
      file_of(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
          1),
      "twice");
  expect_error(one("3"), "no object");
  expect_error(one(R"({"shape":[4],"data_offsets":[0,16]})"), "\"dtype\" is missing");
  expect_error(one(R"({"dtype":"F31","shape":[4],"data_offsets":[0,16]})"), "unknown dtype F31");
  expect_error(one(R"({"dtype":"F32","shape":[5],"data_offsets":[0,16]})"), "does not take the 16 bytes");
  expect_error(one(R"({"dtype":"F32","shape":[-4],"data_offsets":[0,16]})"), "natural number");
  expect_error(one(R"({"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,16]})"), "a");
  expect_error(one(R"({"dtype":"F32","shape":[4],"data_offsets":[16,0]})"), "before it begins");
  expect_error(one(R"({"dtype":"F32","shape":[4],"data_offsets":[0,-1]})"), "natural numbers");
  expect_error(one(R"({"dtype":"F32","shape":[4],"data_offsets":[0]})"), "natural numbers");
  expect_error(one(R"({"dtype":"F32","shape":[4],"data_offsets":[0,16]})", 12), "may be truncated");
  expect_error(one(R"({"dtype":"F32","shape":[1,1,1,1,1,1,4],"data_offsets":[0,16]})"), "a");
  expect_error(
      file_of(
          R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
          6),
      "overlaps");
  expect_error(
      file_of(
          R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[6,10]}})",
          10),
      "a hole");
  expect_error(file_of(R"({"__metadata__":{"a":1}})", 0), "no string");
  expect_error(one(R"({"dtype":"F8_E4M3","shape":[16],"data_offsets":[0,16]})"), "cannot be computed with");
}

TEST(Safetensors, WhatLiesInAWeightFilesPlaceIsNamed) {
  expect_error("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git-lfs pointer");
  expect_error("<!DOCTYPE html>\n<html><body>Sign in</body></html>", "web page");
  expect_error("\n  <html lang=\"en\">", "web page");
  expect_error(std::string("PK\x03\x04", 4) + std::string(60, 'x'), "zip archive");
  expect_error("GGUF" + std::string(60, '\0'), "GGUF file");
  expect_error("\x1F\x8B" + std::string(60, '\0'), "gunzip");
}

// With a look at every tensor for every tensor, these 100,000 took minutes.
TEST(Safetensors, AHeaderOfManyTensorsTakesTimeLinearInThem) {
  std::string header = "{";
  for (int i = 0; i < 100'000; ++i)
    header += (i > 0 ? ",\"model.layers.0.mlp.experts." : "\"model.layers.0.mlp.experts.") + std::to_string(i) +
              R"(.down_proj.weight":{"dtype":"U8","shape":[1],"data_offsets":[)" + std::to_string(i) + "," +
              std::to_string(i + 1) + "]}";
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "many.safetensors", std::ios::binary) << file_of(header + "}", 100'000);
  EXPECT_EQ(SafetensorsFile::open(folder.path() / "many.safetensors")->names().size(), 100'000u);
}

TEST(Safetensors, DeepNestingIsRefused) {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  expect_error(file_of("{\"a\":{\"dtype\":\"U8\",\"shape\":" + deep + ",\"data_offsets\":[0,1]}}", 1), "nested");
}

TEST(Safetensors, ShardsMustHoldWhatTheIndexSays) {
  const TemporaryFolder folder;
  write_safetensors(folder.path() / "one.safetensors", {{"a", Tensor::zeros({2}, DType::f32)}});
  const auto index = [&](const std::string& map) {
    std::ofstream(folder.path() / "model.safetensors.index.json") << "{\"weight_map\":" << map << "}";
  };
  index(R"({"a":"one.safetensors"})");
  EXPECT_NE(open_safetensors_weights(folder.path())->find("a"), nullptr);
  for (const char* wrong : {R"({"b":"one.safetensors"})", R"({"a":"../one.safetensors"})", R"({"a":3})", "[]",
                            R"({"a":"two.safetensors"})"}) {
    index(wrong);
    EXPECT_THROW(open_safetensors_weights(folder.path()), Error) << wrong;
  }
}

TEST(Safetensors, AllMissingShardsAreNamedAtOnce) {
  const TemporaryFolder folder;
  write_safetensors(folder.path() / "b.safetensors", {{"b", Tensor::zeros({2}, DType::f32)}});
  std::ofstream(folder.path() / "model.safetensors.index.json")
      << R"({"weight_map": {"a": "a.safetensors", "b": "b.safetensors", "c": "c.safetensors", "d": "a.safetensors"}})";
  try {
    open_safetensors_weights(folder.path());
    FAIL() << "no error";
  } catch (const ResourceError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("of the 3 files"), std::string::npos) << text;
    EXPECT_NE(text.find("2 are missing: a.safetensors, c.safetensors;"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace lathe::nn
