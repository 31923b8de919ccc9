#include "core/hub/cache.h"

#include <algorithm>
#include <cstdlib>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/mapped_file.h"

namespace lathe::hub {
namespace {

namespace fs = std::filesystem;

bool is_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_commit(std::string_view text) { return text.size() == 40 && is_hex(text); }

// One side of ORG/NAME: letters, digits, '-', '_' and '.', which neither begins nor ends with '-' or '.'.
bool is_name_part(std::string_view part) {
  if (part.empty() || part.size() > 96) return false;
  const auto at_edge = [](char c) { return c == '-' || c == '.'; };
  if (at_edge(part.front()) || at_edge(part.back()) || part.find("--") != part.npos || part.find("..") != part.npos)
    return false;
  return std::all_of(part.begin(), part.end(), [](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
           c == '.';
  });
}

std::string environment(const char* variable) {
  const char* value = std::getenv(variable);
  return value == nullptr ? "" : value;
}

fs::path with_home(const std::string& path) {
  if (path == "~" || path.starts_with("~/"))
    return fs::path(environment("HOME")) / path.substr(std::min<size_t>(path.size(), 2));
  return path;
}

void make_folders(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw ResourceError("cannot create " + folder.string() + ": " + error.message());
}

}  // namespace

std::optional<RepositoryId> parse_repository_id(std::string_view text) {
  RepositoryId id;
  const size_t at = text.find('@');
  if (at != text.npos) {
    id.revision = text.substr(at + 1);
    if (!is_safe_file_name(id.revision)) return std::nullopt;
  }
  id.name = text.substr(0, at);
  const size_t slash = id.name.find('/');
  if (slash == id.name.npos) return std::nullopt;
  if (!is_name_part(std::string_view(id.name).substr(0, slash)) ||
      !is_name_part(std::string_view(id.name).substr(slash + 1)))
    return std::nullopt;
  return id;
}

bool is_safe_file_name(std::string_view name) {
  if (name.empty() || name.size() > 1024 || name.front() == '/' || name.back() == '/') return false;
  for (const char c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F || c == '\\') return false;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return true;
}

bool is_set(const char* variable) {
  std::string value = environment(variable);
  std::transform(value.begin(), value.end(), value.begin(), [](unsigned char c) { return std::toupper(c); });
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

fs::path hf_home() {
  if (const std::string home = environment("HF_HOME"); !home.empty()) return with_home(home);
  if (const std::string cache = environment("XDG_CACHE_HOME"); !cache.empty()) return with_home(cache) / "huggingface";
  return with_home("~/.cache") / "huggingface";
}

Cache Cache::of_environment() {
  for (const char* variable : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"})
    if (const std::string root = environment(variable); !root.empty()) return Cache(with_home(root));
  return Cache(hf_home() / "hub");
}

fs::path Cache::repository(const std::string& name) const {
  std::string folder = "models--" + name;
  const size_t slash = folder.find('/');
  if (slash != folder.npos) folder.replace(slash, 1, "--");
  return root_ / folder;
}

fs::path Cache::blob(const std::string& name, const std::string& etag) const {
  return repository(name) / "blobs" / etag;
}

fs::path Cache::snapshot(const std::string& name, const std::string& commit) const {
  return repository(name) / "snapshots" / commit;
}

fs::path Cache::lock(const std::string& name, const std::string& etag) const {
  return root_ / ".locks" / repository(name).filename() / (etag + ".lock");
}

std::optional<std::string> Cache::commit_of(const RepositoryId& id) const {
  if (is_commit(id.revision)) return id.revision;
  const fs::path ref = repository(id.name) / "refs" / id.revision;
  std::error_code ignored;
  if (!fs::is_regular_file(ref, ignored)) return std::nullopt;
  std::string commit = file_text(ref);
  while (!commit.empty() && std::isspace(static_cast<unsigned char>(commit.back()))) commit.pop_back();
  if (!is_safe_file_name(commit) || commit.find('/') != commit.npos)
    throw FormatError(ref.string(), -1, "expected the hash of a commit; remove the file and fetch the model again");
  return commit;
}

std::optional<fs::path> Cache::find_snapshot(const RepositoryId& id) const {
  const std::optional<std::string> commit = commit_of(id);
  if (!commit) return std::nullopt;
  fs::path folder = snapshot(id.name, *commit);
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) return std::nullopt;
  return folder;
}

std::vector<std::string> Cache::revisions(const std::string& name) const {
  std::vector<std::string> names;
  const fs::path refs = repository(name) / "refs";
  std::error_code error;
  for (fs::recursive_directory_iterator entry(refs, error), end; !error && entry != end; entry.increment(error))
    if (entry->is_regular_file(error)) names.push_back(entry->path().lexically_relative(refs).string());
  std::sort(names.begin(), names.end());
  return names;
}

void Cache::write_ref(const RepositoryId& id, const std::string& commit) const {
  if (id.revision == commit) return;
  const fs::path ref = repository(id.name) / "refs" / id.revision;
  make_folders(ref.parent_path());
  std::error_code ignored;
  if (fs::is_regular_file(ref, ignored) && file_text(ref) == commit) return;
  write_file_atomically(ref, commit);
}

void Cache::link(const std::string& name, const std::string& commit, const std::string& file,
                 const std::string& etag) const {
  const fs::path at = snapshot(name, commit) / file;
  const fs::path to = blob(name, etag).lexically_relative(at.parent_path());
  make_folders(at.parent_path());
  std::error_code error;
  if (fs::is_symlink(at, error) && fs::read_symlink(at, error) == to) return;
  // Beside its name, then renamed: whoever reads sees the old file or the new one.
  const fs::path aside = at.string() + ".linking";
  fs::remove(aside, error);
  fs::create_symlink(to, aside, error);
  if (!error) fs::rename(aside, at, error);
  if (error) throw ResourceError("cannot link " + at.string() + " to " + to.string() + ": " + error.message());
}

}  // namespace lathe::hub
