#include "core/hub/cache.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "tests/support/temporary_folder.h"

namespace lathe::hub {
namespace {

namespace fs = std::filesystem;

TEST(HubCache, ReadsNamesOfRepositoriesAndNothingElse) {
  const auto id = parse_repository_id("HuggingFaceTB/SmolLM2-135M-Instruct");
  ASSERT_TRUE(id);
  EXPECT_EQ(id->name, "HuggingFaceTB/SmolLM2-135M-Instruct");
  EXPECT_EQ(id->revision, "main");
  EXPECT_EQ(parse_repository_id("org/name@refs/pr/3")->revision, "refs/pr/3");
  for (const char* text : {"", "name", "/name", "org/", "a/b/c", "../x", "org/..", "org/.hidden", "org/na me", "org/-x",
                           "org/a--b", "org/name@", "org/name@../x", "org/name@/x", "./model", "org/na\nme"})
    EXPECT_FALSE(parse_repository_id(text)) << text;
}

TEST(HubCache, NamesOfFilesStayWithinTheirFolder) {
  for (const char* name : {"config.json", "a/b/c.gguf", ".gitattributes", "a b.json"})
    EXPECT_TRUE(is_safe_file_name(name)) << name;
  for (const char* name : {"", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a\\b", "a\tb"})
    EXPECT_FALSE(is_safe_file_name(name)) << name;
  EXPECT_FALSE(is_safe_file_name(std::string("a\0b", 3)));
}

TEST(HubCache, LaysFilesOutAsHuggingFaceHubDoes) {
  const TemporaryFolder folder;
  const Cache cache(folder.path());
  const std::string commit(40, 'a'), etag(64, 'b');
  fs::create_directories(cache.blob("org/name", etag).parent_path());
  std::ofstream(cache.blob("org/name", etag)) << "bytes";
  cache.link("org/name", commit, "sub/file.json", etag);
  cache.write_ref({"org/name", "refs/pr/3"}, commit);
  cache.write_ref({"org/name", commit}, commit);  // a commit needs no name

  const fs::path root = folder.path() / "models--org--name";
  EXPECT_EQ(fs::read_symlink(root / "snapshots" / commit / "sub/file.json"), "../../../blobs/" + etag);
  EXPECT_TRUE(fs::is_regular_file(root / "refs/refs/pr/3"));
  EXPECT_EQ(cache.lock("org/name", etag), folder.path() / ".locks/models--org--name" / (etag + ".lock"));
  EXPECT_EQ(cache.find_snapshot({"org/name", "refs/pr/3"}), root / "snapshots" / commit);
  EXPECT_EQ(cache.find_snapshot({"org/name", commit}), root / "snapshots" / commit);
  EXPECT_FALSE(cache.find_snapshot({"org/name", "main"}));
  EXPECT_EQ(cache.revisions("org/name"), std::vector<std::string>{"refs/pr/3"});
}

TEST(HubCache, ALinkFollowsItsFileToAnotherBlob) {
  const TemporaryFolder folder;
  const Cache cache(folder.path());
  cache.link("org/name", "c", "config.json", "one");
  cache.link("org/name", "c", "config.json", "two");
  EXPECT_EQ(fs::read_symlink(folder.path() / "models--org--name/snapshots/c/config.json"), "../../blobs/two");
}

TEST(HubCache, ARefThatIsNoCommitIsAnError) {
  const TemporaryFolder folder;
  const Cache cache(folder.path());
  fs::create_directories(folder.path() / "models--org--name/refs");
  std::ofstream(folder.path() / "models--org--name/refs/main") << "../../elsewhere";
  EXPECT_THROW(cache.commit_of({"org/name", "main"}), FormatError);
}

}  // namespace
}  // namespace lathe::hub
