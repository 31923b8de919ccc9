#include "core/hub/digest.h"

#include <openssl/evp.h>

#include "core/error.h"
#include "core/hub/loaded_library.h"

namespace lathe::hub {
namespace {

struct Crypto {
  LoadedLibrary library{"libcrypto.so.3", "libssl3"};
  decltype(&EVP_MD_CTX_new) context_new = library.symbol<decltype(EVP_MD_CTX_new)>("EVP_MD_CTX_new");
  decltype(&EVP_MD_CTX_free) context_free = library.symbol<decltype(EVP_MD_CTX_free)>("EVP_MD_CTX_free");
  decltype(&EVP_sha1) sha1 = library.symbol<decltype(EVP_sha1)>("EVP_sha1");
  decltype(&EVP_sha256) sha256 = library.symbol<decltype(EVP_sha256)>("EVP_sha256");
  decltype(&EVP_DigestInit_ex) init = library.symbol<decltype(EVP_DigestInit_ex)>("EVP_DigestInit_ex");
  decltype(&EVP_DigestUpdate) update = library.symbol<decltype(EVP_DigestUpdate)>("EVP_DigestUpdate");
  decltype(&EVP_DigestFinal_ex) finish = library.symbol<decltype(EVP_DigestFinal_ex)>("EVP_DigestFinal_ex");
};

const Crypto& crypto() {
  static const Crypto loaded;
  return loaded;
}

}  // namespace

struct Digest::State {
  EVP_MD_CTX* context = crypto().context_new();
  ~State() { crypto().context_free(context); }
};

Digest::Digest(Kind kind) : state_(std::make_unique<State>()) {
  if (state_->context == nullptr ||
      crypto().init(state_->context, kind == Kind::sha1 ? crypto().sha1() : crypto().sha256(), nullptr) != 1)
    throw ResourceError("OpenSSL cannot compute the hash that files are checked by");
}
Digest::~Digest() = default;
Digest::Digest(Digest&&) noexcept = default;
Digest& Digest::operator=(Digest&&) noexcept = default;

void Digest::add(std::string_view bytes) { crypto().update(state_->context, bytes.data(), bytes.size()); }

std::string Digest::hex() {
  unsigned char raw[EVP_MAX_MD_SIZE];
  unsigned int count = 0;
  crypto().finish(state_->context, raw, &count);
  std::string text;
  for (unsigned int i = 0; i < count; ++i) {
    text += "0123456789abcdef"[raw[i] >> 4];
    text += "0123456789abcdef"[raw[i] & 15];
  }
  return text;
}

}  // namespace lathe::hub
