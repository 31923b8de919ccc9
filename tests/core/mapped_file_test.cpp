#include "core/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "core/error.h"
#include "tests/support/temporary_folder.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

class MappedFileTest : public testing::Test {
 protected:
  std::string message(const fs::path& path) {
    try {
      MappedFile::open(path);
    } catch (const ResourceError& error) {
      return error.what();
    }
    return "no ResourceError";
  }

  TemporaryFolder temporary_;
  const fs::path& folder_ = temporary_.path();
};

TEST_F(MappedFileTest, ShowsTheWholeFile) {
  std::string text(100001, 'x');
  text.front() = 'a';
  text.back() = 'z';
  const fs::path path = folder_ / "file";
  std::ofstream(path, std::ios::binary) << text;
  const auto file = MappedFile::open(path);
  ASSERT_EQ(file->bytes().size(), text.size());
  EXPECT_EQ(std::memcmp(file->bytes().data(), text.data(), text.size()), 0);
  EXPECT_EQ(file->path(), path);
}

TEST_F(MappedFileTest, StaysReadableAfterTheFileIsReplaced) {
  const fs::path path = folder_ / "file";
  std::ofstream(path) << "old";
  const auto file = MappedFile::open(path);
  std::ofstream(folder_ / "new") << "replacement";
  fs::rename(folder_ / "new", path);
  EXPECT_EQ(std::memcmp(file->bytes().data(), "old", 3), 0);
}

TEST_F(MappedFileTest, AnEmptyFileHasNoBytes) {
  std::ofstream(folder_ / "empty").close();
  EXPECT_TRUE(MappedFile::open(folder_ / "empty")->bytes().empty());
}

TEST_F(MappedFileTest, WhatIsNoReadableFileSaysWhy) {
  EXPECT_EQ(message(folder_ / "none"), "cannot open " + (folder_ / "none").string() + ": No such file or directory");
  EXPECT_NE(message(folder_).find("it is a directory"), std::string::npos);
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_NE(message(folder_ / "pipe").find("it is not a regular file"), std::string::npos) << "and does not block";
  EXPECT_NE(message("/dev/zero").find("it is not a regular file"), std::string::npos);
}

}  // namespace
}  // namespace lathe
