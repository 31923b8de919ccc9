#include "programs/cli/yaml_arguments.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <fstream>
#include <sstream>

#include "core/error.h"

namespace lathe::cli {
namespace {

constexpr size_t max_file_bytes = size_t{1} << 20;
constexpr int max_nesting = 100;

[[noreturn]] void refuse(const std::string& file, const YAML::Mark& mark, const std::string& reason) {
  throw FormatError(file, -1, "line " + std::to_string(mark.line + 1) + ": " + reason);
}

// Follows the parser's events through a document and refuses what a tree of nodes must not be built of.
class Bounds : public YAML::EventHandler {
 public:
  explicit Bounds(const std::string& file) : file_(file) {}
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { expect_no_anchor(mark, anchor); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override { expect_no_anchor(mark, anchor); }
  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, const std::string&) override {
    expect_no_anchor(mark, anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, anchor);
  }
  void OnSequenceEnd() override { --depth_; }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, anchor);
  }
  void OnMapEnd() override { --depth_; }

 private:
  void expect_no_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) const {
    if (anchor != YAML::NullAnchor)
      refuse(file_, mark, "anchors (&) and aliases (*) are not read; write the value out");
  }
  void open(const YAML::Mark& mark, YAML::anchor_t anchor) {
    expect_no_anchor(mark, anchor);
    if (++depth_ > max_nesting) refuse(file_, mark, "is nested deeper than " + std::to_string(max_nesting) + " levels");
  }

  const std::string& file_;
  int depth_ = 0;
};

std::string contents_of(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw ConfigError("config", file + " cannot be opened");
  std::string text(max_file_bytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (stream.bad()) throw ConfigError("config", file + " cannot be read");
  text.resize(static_cast<size_t>(stream.gcount()));
  if (text.size() > max_file_bytes) throw FormatError(file, -1, "has more than 1 MiB; a config is a list of flags");
  return text;
}

YAML::Node parsed(const std::string& file) {
  const std::string text = contents_of(file);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    Bounds bounds(file);
    parser.HandleNextDocument(bounds);
    return YAML::Load(text);
  } catch (const YAML::Exception& error) {
    refuse(file, error.mark, error.msg);
  }
}

std::string value_text(const std::string& file, const std::string& key, const YAML::Node& node) {
  if (node.IsScalar()) return node.Scalar();
  std::string joined;
  bool good = node.IsSequence();
  for (size_t i = 0; good && i < node.size(); ++i) {
    good = node[i].IsScalar();
    if (good) joined += (i == 0 ? "" : ",") + node[i].Scalar();
  }
  if (!good)
    throw ConfigError(
        key, "expected a value or a list of values in " + file + ", line " + std::to_string(node.Mark().line + 1));
  return joined;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> read_yaml_settings(const std::string& file) {
  const YAML::Node root = parsed(file);
  std::vector<std::pair<std::string, std::string>> settings;
  if (root.IsNull()) return settings;
  if (!root.IsMap()) throw FormatError(file, -1, "expected a YAML mapping of flag names to values");
  for (const auto& pair : root) {
    if (!pair.first.IsScalar()) refuse(file, pair.first.Mark(), "expected the name of a flag before the colon");
    const std::string& key = pair.first.Scalar();
    if (!pair.second.IsNull()) settings.emplace_back(key, value_text(file, key, pair.second));
  }
  return settings;
}

}  // namespace lathe::cli
