#include "core/atomic_write.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <set>
#include <sstream>

#include "core/error.h"
#include "core/random.h"
#include "tests/support/temporary_folder.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

std::string content_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

void put(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const ResourceError& error) {
    return error.what();
  }
  return "no ResourceError";
}

class AtomicWrite : public testing::Test {
 protected:
  std::set<std::string> listing() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) names.insert(entry.path().filename().string());
    return names;
  }

  TemporaryFolder temporary_;
  const fs::path& folder_ = temporary_.path();
};

TEST_F(AtomicWrite, FileAppearsOnlyAtCommit) {
  const fs::path path = folder_ / "a.json";
  AtomicFile file(path);
  file.write("one ");
  EXPECT_FALSE(fs::exists(path));
  file.write("two");
  file.commit();
  EXPECT_EQ(content_of(path), "one two");
  EXPECT_EQ(listing(), std::set<std::string>{"a.json"});
  EXPECT_THROW(file.write("more"), Error);
  EXPECT_THROW(file.commit(), Error);
}

TEST_F(AtomicWrite, FileWithoutCommitLeavesTheOldOne) {
  const fs::path path = folder_ / "a.json";
  put(path, "old");
  {
    AtomicFile file(path);
    file.write("new");
  }
  EXPECT_EQ(content_of(path), "old");
  EXPECT_EQ(listing(), std::set<std::string>{"a.json"});
}

TEST_F(AtomicWrite, AReplacedFileKeepsItsMode) {
  const fs::path path = folder_ / "a";
  put(path, "old");
  fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
  write_file_atomically(path, "new");
  EXPECT_EQ(content_of(path), "new");
  EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

TEST_F(AtomicWrite, ARelativePathIsBesideTheWorkingDirectory) {
  const fs::path before = fs::current_path();
  fs::current_path(folder_);
  write_file_atomically("plain", "text");
  fs::current_path(before);
  EXPECT_EQ(content_of(folder_ / "plain"), "text");
}

TEST_F(AtomicWrite, TargetsThatAreNoFilesAreRefusedAndUntouched) {
  const std::string message = message_of([] { AtomicFile file("/dev/null"); });
  EXPECT_NE(message.find("/dev/null: it exists and is not a regular file"), std::string::npos) << message;
  EXPECT_THROW(AtomicFile file(folder_), ResourceError);
  EXPECT_THROW(AtomicFile file(""), ResourceError);
  EXPECT_THROW(AtomicFile file(folder_ / ".."), ResourceError);
  const std::string missing = message_of([&] { AtomicFile file(folder_ / "none" / "a"); });
  EXPECT_NE(missing.find("none/a: No such file or directory"), std::string::npos) << missing;
  put(folder_ / "file", "text");
  EXPECT_THROW(AtomicDirectory directory(folder_ / "file"), ResourceError);
  EXPECT_THROW(AtomicDirectory directory(folder_ / "none" / "a"), ResourceError);
  EXPECT_EQ(listing(), std::set<std::string>{"file"});
}

// A limit on file sizes stands in for a full disk: write() takes a part, then fails.
TEST_F(AtomicWrite, AFailedWriteNamesThePlaceAndLeavesTheOldFile) {
  const fs::path path = folder_ / "a.bin";
  put(path, "old");
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit unlimited{};
  ::getrlimit(RLIMIT_FSIZE, &unlimited);
  rlimit small = unlimited;
  small.rlim_cur = 10000;
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string message = message_of([&] {
    AtomicFile file(path);
    for (int i = 0; i < 5; ++i) file.write(std::string(4096, 'x'));
  });
  ::setrlimit(RLIMIT_FSIZE, &unlimited);
  ::signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("cannot write " + path.string() + " after 10000 bytes: File too large"), std::string::npos)
      << message;
  EXPECT_EQ(content_of(path), "old");
  EXPECT_EQ(listing(), std::set<std::string>{"a.bin"});
}

// Gives the calling process a mount namespace of its own, as root or through a user namespace that maps its user.
bool enter_own_mount_namespace() {
  const uid_t user = ::getuid();
  if (::unshare(CLONE_NEWNS) != 0) {
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    std::ofstream("/proc/self/uid_map") << "0 " << user << " 1";
  }
  return ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

// On a real full file system, which a child mounts for itself. Its exit code tells what was wrong.
TEST_F(AtomicWrite, AFullDiskLeavesTheOldFileAndNoRemains) {
  enum Outcome { right, message_wrong, old_file_harmed, temporary_stayed, threw, not_possible_here };
  const auto fill_a_disk = [&]() -> Outcome {
    if (!enter_own_mount_namespace()) return not_possible_here;
    if (::mount("lathe", folder_.c_str(), "tmpfs", 0, "size=65536") != 0) return not_possible_here;
    const fs::path path = folder_ / "a.bin";
    write_file_atomically(path, "old");
    const std::string message = message_of([&] { write_file_atomically(path, std::string(1 << 20, 'x')); });
    if (message.find("No space left on device (make room on that disk") == std::string::npos) return message_wrong;
    if (content_of(path) != "old") return old_file_harmed;
    return listing() == std::set<std::string>{"a.bin"} ? right : temporary_stayed;
  };
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      ::_exit(fill_a_disk());
    } catch (...) {
      ::_exit(threw);
    }
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == not_possible_here) GTEST_SKIP() << "this machine lets no test mount a file system";
  EXPECT_EQ(WEXITSTATUS(status), right);
}

TEST_F(AtomicWrite, WritersOfOneTargetDoNotDisturbEachOther) {
  const fs::path path = folder_ / "a";
  AtomicFile first(path);
  first.write("first");
  AtomicFile second(path);  // sweeps the dead writers' temporaries; the first one lives
  second.write("second");
  first.commit();
  EXPECT_EQ(content_of(path), "first");
  second.commit();
  EXPECT_EQ(content_of(path), "second");
}

TEST_F(AtomicWrite, TheRemainsOfKilledWritersAreSwept) {
  put(folder_ / ".a.writing-1-1", "half");
  fs::create_directory(folder_ / ".a.writing-1-2");
  put(folder_ / ".a.writing-1-2" / "weights", "half");
  put(folder_ / ".ab.writing-1-1", "another target's");
  write_file_atomically(folder_ / "a", "whole");
  EXPECT_EQ(listing(), (std::set<std::string>{"a", ".ab.writing-1-1"}));
}

TEST_F(AtomicWrite, DirectoryAppearsWholeAtCommit) {
  const fs::path path = folder_ / "checkpoint";
  AtomicDirectory directory(path / "");  // a trailing slash names the same target
  put(directory.staging() / "weights", "new");
  fs::create_directory(directory.staging() / "inner");
  put(directory.staging() / "inner" / "state", "deep");
  EXPECT_FALSE(fs::exists(path));
  directory.commit();
  EXPECT_EQ(content_of(path / "weights"), "new");
  EXPECT_EQ(content_of(path / "inner" / "state"), "deep");
  EXPECT_EQ(listing(), std::set<std::string>{"checkpoint"});
  EXPECT_THROW(directory.commit(), Error);
}

TEST_F(AtomicWrite, DirectoryReplacesTheOldOneWhole) {
  const fs::path path = folder_ / "checkpoint";
  fs::create_directory(path);
  put(path / "old", "old");
  {
    AtomicDirectory abandoned(path);
    put(abandoned.staging() / "half", "");
  }
  EXPECT_TRUE(fs::exists(path / "old"));
  EXPECT_EQ(listing(), std::set<std::string>{"checkpoint"});
  AtomicDirectory directory(path);
  put(directory.staging() / "new", "new");
  directory.commit();
  EXPECT_FALSE(fs::exists(path / "old"));
  EXPECT_EQ(content_of(path / "new"), "new");
  EXPECT_EQ(listing(), std::set<std::string>{"checkpoint"});
}

TEST_F(AtomicWrite, RecoveryPutsBackWhatAKilledReplacementLeftAside) {
  const fs::path path = folder_ / "checkpoint";
  const fs::path aside = folder_ / ".checkpoint.replaced";
  recover_directory(path);  // nothing to do
  fs::create_directory(aside);
  put(aside / "weights", "old");
  recover_directory(path);  // killed between the two renames
  EXPECT_EQ(content_of(path / "weights"), "old");
  fs::create_directory(aside);
  put(aside / "weights", "older");
  recover_directory(path);  // killed before the old one was removed
  EXPECT_EQ(content_of(path / "weights"), "old");
  EXPECT_EQ(listing(), std::set<std::string>{"checkpoint"});
}

// Two files of a directory carry the same number; a child replaces it over and over until it is killed.
TEST_F(AtomicWrite, AKilledWriterLeavesAWholeDirectory) {
  const fs::path path = folder_ / "checkpoint";
  const auto write_once = [&](int number) {
    AtomicDirectory directory(path);
    put(directory.staging() / "a", std::to_string(number));
    put(directory.staging() / "b", std::to_string(number));
    directory.commit();
  };
  write_once(0);
  RandomStream random(1, RandomPurpose::test);
  for (int kill = 0; kill < 20; ++kill) {
    int begun[2];
    ASSERT_EQ(::pipe(begun), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      for (int number = 1;; ++number) {
        write_once(number);
        if (number == 1 && ::write(begun[1], "x", 1) != 1) ::_exit(1);
      }
    }
    char byte = 0;
    ASSERT_EQ(::read(begun[0], &byte, 1), 1);
    ::usleep(static_cast<useconds_t>(random.below(3000)));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ::close(begun[0]);
    ::close(begun[1]);
    recover_directory(path);
    ASSERT_NE(content_of(path / "a"), "");
    ASSERT_EQ(content_of(path / "a"), content_of(path / "b"));
  }
  write_once(0);
  EXPECT_EQ(listing(), std::set<std::string>{"checkpoint"}) << "the next writer swept what the killed ones left";
}

}  // namespace
}  // namespace lathe
