#include "core/hub/download.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <fstream>

#include "core/mapped_file.h"
#include "core/random.h"
#include "tests/support/local_hub.h"
#include "tests/support/temporary_folder.h"

namespace lathe::hub {
namespace {

namespace fs = std::filesystem;
using testing::hub_commit;
using testing::LocalHub;
using testing::ServerAnswer;
using testing::ServerRequest;

const std::string& weights_bytes() {
  static const std::string bytes = [] {
    RandomStream random(7, RandomPurpose::test);
    std::string made(3'000'000, '\0');
    for (char& byte : made) byte = static_cast<char>(random.below(256));
    return made;
  }();
  return bytes;
}

class HubDownload : public ::testing::Test {
 protected:
  HubDownload() {
    server.files = {{"config.json", {"{\"model_type\": \"llama\"}", false}},
                    {"sub/weights.safetensors", {weights_bytes(), true}}};
  }
  HubSettings settings() const {
    HubSettings settings;
    settings.endpoint = server.server.address() + "/";
    settings.tries = 3;
    settings.first_wait_ms = 0;
    return settings;
  }
  Hub hub() const { return Hub(settings(), Cache(folder.path())); }
  // What the error says; "" where there was none.
  std::string fetch_error(const std::string& file) const {
    try {
      hub().fetch("org/tiny", hub_commit, {file, std::nullopt});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  std::string blob_of(const std::string& file) const {
    return (folder.path() / "models--org--tiny/blobs" / server.files.at(file).etag()).string();
  }
  std::vector<ServerRequest> gets(const testing::LocalServer& from) const {
    std::vector<ServerRequest> result;
    for (const ServerRequest& request : from.requests())
      if (request.method == "GET") result.push_back(request);
    return result;
  }

  TemporaryFolder folder;
  LocalHub server;
  const std::string large = "sub/weights.safetensors";
};

TEST_F(HubDownload, DigestsAreThoseOfTheStandard) {
  Digest one(Digest::Kind::sha1), two(Digest::Kind::sha256);
  for (Digest* digest : {&one, &two}) {
    digest->add("a");
    digest->add("bc");
  }
  EXPECT_EQ(one.hex(), "a9993e364706816aba3e25717850c26c9cd0d89d");
  EXPECT_EQ(two.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_F(HubDownload, ListsAndFetchesFilesOfBothKinds) {
  Hub hub = this->hub();
  const Listing listing = hub.list({"org/tiny", "v1/b"});
  EXPECT_EQ(listing.commit, hub_commit);
  EXPECT_EQ(listing.license, "apache-2.0");
  ASSERT_EQ(listing.files.size(), 2u);
  EXPECT_EQ(listing.files[1].size, 3'000'000);
  int64_t told = 0;
  for (const HubFile& file : listing.files) {
    const fs::path path =
        hub.fetch("org/tiny", listing.commit, file, [&](const std::string&, int64_t done, int64_t) { told = done; });
    EXPECT_EQ(file_text(path), server.files.at(file.name).bytes);
    EXPECT_EQ(fs::canonical(path), fs::canonical(blob_of(file.name)));
  }
  EXPECT_EQ(told, 3'000'000);
  const size_t before = server.server.requests().size();
  hub.fetch("org/tiny", listing.commit, listing.files[1]);
  EXPECT_EQ(server.server.requests().size(), before) << "what is there is asked for again";
}

TEST_F(HubDownload, TheTokenGoesToTheHubAndNotToTheStoreThatItRedirectsTo) {
  server.token = "hf_secret";
  HubSettings with_token = settings();
  with_token.token = "hf_secret";
  Hub hub(with_token, Cache(folder.path()));
  hub.list({"org/tiny"});
  hub.fetch("org/tiny", hub_commit, {large, std::nullopt});
  ASSERT_FALSE(server.store.requests().empty());
  for (const ServerRequest& request : server.store.requests()) EXPECT_EQ(request.header("Authorization"), "");
  for (const ServerRequest& request : server.server.requests())
    EXPECT_EQ(request.header("Authorization"), "Bearer hf_secret");
}

TEST_F(HubDownload, AConnectionThatBreaksGoesOnFromWhereItWas) {
  int answers = 0;
  server.store_fault = [&](const ServerRequest& request) -> std::optional<ServerAnswer> {
    ServerAnswer answer = LocalHub::bytes_of(server.files.at(large).bytes, request);
    if (++answers < 3) answer.break_after = 1'000'000;
    return answer;
  };
  const fs::path path = hub().fetch("org/tiny", hub_commit, {large, std::nullopt});
  EXPECT_EQ(file_text(path), server.files.at(large).bytes);
  const auto requests = gets(server.store);
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[0].header("Range"), "");
  EXPECT_EQ(requests[2].header("Range"), "bytes=2000000-");
}

TEST_F(HubDownload, ALaterRunTakesUpWhatAnEarlierOneLeft) {
  server.store_fault = [&](const ServerRequest& request) -> std::optional<ServerAnswer> {
    ServerAnswer answer = LocalHub::bytes_of(server.files.at(large).bytes, request);
    answer.break_after = request.header("Range").empty() ? 1'000'000 : 0;
    return answer;
  };
  const std::string error = fetch_error(large);
  EXPECT_NE(error.find("1000000 of 3000000 bytes fetched"), std::string::npos) << error;
  EXPECT_NE(error.find("run the same command"), std::string::npos) << error;
  EXPECT_FALSE(fs::exists(blob_of(large)));
  EXPECT_EQ(fs::file_size(blob_of(large) + ".incomplete"), 1'000'000u);
  server.store_fault = nullptr;
  EXPECT_EQ(fetch_error(large), "");
  EXPECT_EQ(gets(server.store).back().header("Range"), "bytes=1000000-");
  EXPECT_EQ(file_text(blob_of(large)), server.files.at(large).bytes);
  EXPECT_FALSE(fs::exists(blob_of(large) + ".incomplete"));
}

TEST_F(HubDownload, AServerWithoutRangesSendsTheFileAgain) {
  fs::create_directories(fs::path(blob_of(large)).parent_path());
  std::ofstream(blob_of(large) + ".incomplete") << "another beginning";
  server.store_fault = [&](const ServerRequest&) -> std::optional<ServerAnswer> {
    return ServerAnswer{200, {}, server.files.at(large).bytes, {}};
  };
  EXPECT_EQ(fetch_error(large), "");
  EXPECT_EQ(file_text(blob_of(large)), server.files.at(large).bytes);
}

TEST_F(HubDownload, BytesOfAnotherHashAreRefusedAndNotKept) {
  server.store_fault = [&](const ServerRequest&) -> std::optional<ServerAnswer> {
    std::string bytes = server.files.at(large).bytes;
    bytes[77] ^= 1;
    return ServerAnswer{200, {}, bytes, {}};
  };
  EXPECT_NE(fetch_error(large).find("not those that the server announced"), std::string::npos) << fetch_error(large);
  EXPECT_FALSE(fs::exists(blob_of(large)));
  EXPECT_FALSE(fs::exists(blob_of(large) + ".incomplete"));
  EXPECT_FALSE(fs::exists(folder.path() / "models--org--tiny/snapshots" / hub_commit / large));
}

TEST_F(HubDownload, ASmallFileIsHeldToGitsHash) {
  server.fault = [&](const ServerRequest& request) -> std::optional<ServerAnswer> {
    if (request.method != "GET") return std::nullopt;
    return ServerAnswer{200, {}, "{\"model_type\": \"lama!\"}", {}};
  };
  EXPECT_NE(fetch_error("config.json").find("not those that the server announced"), std::string::npos);
}

TEST_F(HubDownload, MoreBytesThanAnnouncedAreRefused) {
  server.store_fault = [&](const ServerRequest&) -> std::optional<ServerAnswer> {
    return ServerAnswer{200, {}, server.files.at(large).bytes + "more", {}};
  };
  EXPECT_NE(fetch_error(large).find("more than the 3000000 bytes"), std::string::npos);
}

TEST_F(HubDownload, ABusyServerIsAskedAgain) {
  int refusals = 0;
  server.fault = [&](const ServerRequest&) -> std::optional<ServerAnswer> {
    if (++refusals > 2) return std::nullopt;
    return ServerAnswer{refusals == 1 ? 503 : 429, {}, "", {}};
  };
  EXPECT_EQ(hub().list({"org/tiny"}).files.size(), 2u);
}

TEST_F(HubDownload, WhatAServerRefusesIsSaidWithWhatToDo) {
  const auto list_error = [&](const RepositoryId& id, ServerAnswer answer) -> std::string {
    server.fault = [answer](const ServerRequest&) { return std::optional(answer); };
    try {
      hub().list(id);
    } catch (const ResourceError& error) {
      return error.what();
    }
    return "";
  };
  const RepositoryId id{"org/tiny", "v9"};
  const auto expect = [&](ServerAnswer answer, std::initializer_list<const char*> parts) {
    const std::string error = list_error(id, std::move(answer));
    for (const char* part : parts) EXPECT_NE(error.find(part), std::string::npos) << part << " in " << error;
  };
  expect({401, {{"X-Error-Code", "GatedRepo"}}, "", {}}, {"org/tiny", "gated", "ask for access", "HF_TOKEN", "401"});
  expect({401, {{"X-Error-Message", "Invalid credentials"}}, "", {}}, {"not open to you", "HF_TOKEN", "Invalid"});
  expect({403, {}, "", {}}, {"not open to you", "403"});
  expect({404, {{"X-Error-Code", "RepoNotFound"}}, "", {}}, {"is not there"});
  expect({404, {{"X-Error-Code", "RevisionNotFound"}}, "", {}}, {"no revision v9"});
  expect({500, {}, "", {}}, {"the server fails"});
  expect({429, {}, "", {}}, {"too many requests"});
}

TEST_F(HubDownload, ListingsThatAreNoneAreErrors) {
  for (const char* body :
       {"<html>", "[]", "{}", R"({"sha": "../x", "siblings": []})", R"({"sha": "a"})",
        R"({"sha": "a", "siblings": [3]})", R"({"sha": "a", "siblings": [{"rfilename": "../../x"}]})",
        R"({"sha": "a", "siblings": [{"rfilename": "/etc/x"}]})"}) {
    server.fault = [body](const ServerRequest&) { return std::optional(ServerAnswer{200, {}, body, {}}); };
    EXPECT_THROW(hub().list({"org/tiny"}), FormatError) << body;
  }
}

TEST_F(HubDownload, AnETagThatIsNoNameOfAFileIsAnError) {
  server.fault = [](const ServerRequest&) { return std::optional(ServerAnswer{200, {{"ETag", "\"../x\""}}, "", {}}); };
  EXPECT_NE(fetch_error("config.json").find("no ETag"), std::string::npos);
}

TEST_F(HubDownload, ADiskThatIsTooSmallIsToldBeforeAByteIsFetched) {
  server.fault = [&](const ServerRequest&) {
    return std::optional(ServerAnswer{302,
                                      {{"Location", server.store.address() + "/x"},
                                       {"X-Linked-Etag", std::string(64, 'a')},
                                       {"X-Linked-Size", "900000000000000000"}},
                                      "",
                                      {}});
  };
  const std::string error = fetch_error(large);
  EXPECT_NE(error.find("are free in"), std::string::npos) << error;
  EXPECT_TRUE(gets(server.server).empty());
}

// A file's largest size stands for a disk that fills up while bytes come in.
TEST_F(HubDownload, ADiskThatFillsUpKeepsWhatCame) {
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small = {1'500'000, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string error = fetch_error(large);
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, old_handler);
  EXPECT_NE(error.find("make room on that disk"), std::string::npos) << error;
  EXPECT_EQ(fs::file_size(blob_of(large) + ".incomplete"), 1'500'000u);
  EXPECT_EQ(fetch_error(large), "");
  EXPECT_EQ(file_text(blob_of(large)), server.files.at(large).bytes);
}

TEST_F(HubDownload, ARedirectInACircleEnds) {
  server.fault = [&](const ServerRequest& request) {
    return std::optional(ServerAnswer{302, {{"Location", request.target}}, "", {}});
  };
  EXPECT_NE(fetch_error("config.json").find("redirects"), std::string::npos);
}

TEST_F(HubDownload, NoServerIsASentence) {
  HubSettings nobody = settings();
  nobody.endpoint = "http://127.0.0.1:1";
  EXPECT_THROW(Hub(nobody, Cache(folder.path())).list({"org/tiny"}), TransferError);
  nobody.endpoint = "no address";
  EXPECT_THROW(Hub(nobody, Cache(folder.path())).list({"org/tiny"}), TransferError);
  nobody.token = "two\r\nlines";
  EXPECT_THROW(Hub(nobody, Cache(folder.path())), ConfigError);
}

}  // namespace
}  // namespace lathe::hub
