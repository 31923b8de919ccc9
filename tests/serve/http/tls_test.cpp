// The same server behind TLS, asked by OpenSSL.
#include <gtest/gtest.h>
#if LATHE_TLS
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>
#include <cstdio>

#include "tests/serve/http/test_server.h"

namespace lathe::http {
namespace {

namespace net = boost::asio;
using TlsStream = net::ssl::stream<net::ip::tcp::socket>;

// A certificate of an hour, signed with its own key.
void write_certificate(const std::filesystem::path& cert_file, const std::filesystem::path& key_file) {
  const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key(EVP_EC_gen("P-256"), EVP_PKEY_free);
  const std::unique_ptr<X509, void (*)(X509*)> cert(X509_new(), X509_free);
  X509_gmtime_adj(X509_getm_notBefore(cert.get()), 0);
  X509_gmtime_adj(X509_getm_notAfter(cert.get()), 3600);
  X509_set_pubkey(cert.get(), key.get());
  X509_NAME* name = X509_get_subject_name(cert.get());
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("here"), -1, -1, 0);
  X509_set_issuer_name(cert.get(), name);
  ASSERT_GT(X509_sign(cert.get(), key.get(), EVP_sha256()), 0);
  std::FILE* file = std::fopen(cert_file.c_str(), "w");
  PEM_write_X509(file, cert.get());
  std::fclose(file);
  file = std::fopen(key_file.c_str(), "w");
  PEM_write_PrivateKey(file, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(file);
}

class Tls : public testing::Test {
 protected:
  void SetUp() override {
    write_certificate(folder_.path() / "cert.pem", folder_.path() / "key.pem");
    options_.server.tls_cert = folder_.path() / "cert.pem";
    options_.server.tls_key = folder_.path() / "key.pem";
  }

  // All that comes until the server says goodbye; `ended` is told how.
  std::string ask(uint16_t port, const std::string& request, net::ssl::context& context,
                  boost::system::error_code& ended) {
    net::io_context io;
    TlsStream stream(io, context);
    stream.next_layer().connect({net::ip::address_v4::loopback(), port});
    stream.handshake(net::ssl::stream_base::client);
    net::write(stream, net::buffer(request));
    std::string received;
    net::read(stream, net::dynamic_buffer(received), ended);
    return received;
  }

  TemporaryFolder folder_;
  TestServerOptions options_;
};

TEST_F(Tls, AnswersWholeAndAsAStreamAndSaysGoodbye) {
  TestServer server(options_);
  net::ssl::context context(net::ssl::context::tls_client);
  context.load_verify_file((folder_.path() / "cert.pem").string());
  context.set_verify_mode(net::ssl::verify_peer);
  for (const bool stream : {false, true}) {
    boost::system::error_code ended;
    const std::string answer = ask(
        server.port(),
        Client::written("POST", "/v1/completions", completion({{"stream", stream}}).dump(), "Connection: close\r\n"),
        context, ended);
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK")) << answer;
    EXPECT_EQ(ended, net::error::eof) << "the end was cut off: " << ended.message();
  }
  EXPECT_TRUE(server.becomes_idle());
}

TEST_F(Tls, OldVersionsAndPlainRequestsAreRefusedAndTheServerGoesOn) {
  TestServer server(options_);
  net::ssl::context old(net::ssl::context::tls_client);
  ::SSL_CTX_set_max_proto_version(old.native_handle(), TLS1_1_VERSION);
  boost::system::error_code ended;
  EXPECT_THROW(ask(server.port(), "GET /health HTTP/1.1\r\n\r\n", old, ended), boost::system::system_error);
  Client plain(server.port());
  plain.ask("GET", "/health", "");
  EXPECT_TRUE(plain.ended());
  net::ssl::context context(net::ssl::context::tls_client);
  EXPECT_TRUE(ask(server.port(), Client::written("GET", "/health", "", "Connection: close\r\n"), context, ended)
                  .starts_with("HTTP/1.1 200"));
}

TEST_F(Tls, ACertificateThatIsNoneIsASentence) {
  std::ofstream(folder_.path() / "cert.pem") << "nonsense";
  EXPECT_THROW(Server(options_.server, [](const auto&) {}), ConfigError);
  options_.server.tls_key.clear();
  EXPECT_THROW(Server(options_.server, [](const auto&) {}), ConfigError);
}

}  // namespace
}  // namespace lathe::http
#endif
