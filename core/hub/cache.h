// The folder in which huggingface_hub keeps what it fetched, read and written as it does, so that files are shared both
// ways and fetched once:
//
//   ROOT/models--ORG--NAME/blobs/ETAG             a file's bytes, by its hash
//                          refs/REVISION          the commit that a branch or tag stood for
//                          snapshots/COMMIT/FILE  a relative symbolic link to a blob
//   ROOT/.locks/models--ORG--NAME/ETAG.lock       held with flock while a blob is written
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::hub {

// A repository on a Hub, at one revision: a branch, a tag or a commit.
struct RepositoryId {
  std::string name;  // "ORG/NAME"
  std::string revision = "main";
};

// "ORG/NAME" or "ORG/NAME@REVISION", of the characters that the Hub allows; nothing for any other text.
std::optional<RepositoryId> parse_repository_id(std::string_view text);

// Whether a name that a server gave for a file may be joined to a folder: relative, and never out of it.
bool is_safe_file_name(std::string_view name);

class Cache {
 public:
  explicit Cache(std::filesystem::path root) : root_(std::move(root)) {}
  // HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub.
  static Cache of_environment();

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path repository(const std::string& name) const;
  std::filesystem::path blob(const std::string& name, const std::string& etag) const;
  std::filesystem::path snapshot(const std::string& name, const std::string& commit) const;
  std::filesystem::path lock(const std::string& name, const std::string& etag) const;

  // The commit of a revision: itself where it is one, else what refs/ says; nothing where that is unknown.
  std::optional<std::string> commit_of(const RepositoryId& id) const;
  // The snapshot of a revision; nothing where none of it was fetched.
  std::optional<std::filesystem::path> find_snapshot(const RepositoryId& id) const;
  // The revisions that refs/ knows, in the order of their names.
  std::vector<std::string> revisions(const std::string& name) const;

  // Notes which commit a branch or tag stands for. ResourceError.
  void write_ref(const RepositoryId& id, const std::string& commit) const;
  // snapshots/COMMIT/FILE → blobs/ETAG, replacing a link to another blob. ResourceError.
  void link(const std::string& name, const std::string& commit, const std::string& file, const std::string& etag) const;

 private:
  std::filesystem::path root_;
};

// A folder of huggingface_hub's settings: HF_HOME or its default.
std::filesystem::path hf_home();
// Whether a variable is 1, on, yes or true.
bool is_set(const char* variable);

}  // namespace lathe::hub
