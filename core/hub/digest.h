// SHA-1 and SHA-256 of bytes that come piece by piece: what a Hub says of its files.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace lathe::hub {

class Digest {
 public:
  enum class Kind { sha1, sha256 };
  // ResourceError where OpenSSL's libcrypto is not installed.
  explicit Digest(Kind kind);
  ~Digest();
  Digest(Digest&&) noexcept;
  Digest& operator=(Digest&&) noexcept;

  void add(std::string_view bytes);
  std::string hex();  // once, after the last byte

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lathe::hub
