// What /openapi.json says is what the server does: its paths, and the bounds of every number and word in it.
#include "serve/http/openapi.h"

#include <algorithm>

#include "tests/serve/http/test_server.h"

namespace lathe::http {
namespace {

using nlohmann::json;

const json& document() {
  static const json read = json::parse(openapi_document());
  return read;
}

// With what it refers to.
json resolved(json schema) {
  while (schema.contains("$ref"))
    schema = document().at(json::json_pointer(schema["$ref"].get<std::string>().substr(1)));
  for (const json& part : schema.value("allOf", json::array()))
    schema["properties"].update(resolved(part)["properties"]);
  return schema;
}

json request_schema(const char* path) {
  return resolved(document()["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]);
}

// Values that the schema of a field excludes.
std::vector<json> excluded(const json& schema) {
  std::vector<json> values;
  std::vector<std::string> types;
  for (const json& type :
       schema.value("type", json()).is_array() ? schema["type"] : json::array({schema.value("type", json())}))
    if (type.is_string()) types.push_back(type);
  const auto is = [&](const char* type) { return std::ranges::find(types, type) != types.end(); };
  if (is("integer") || is("number")) {
    values.insert(values.end(), {"1", true, json::array()});
    if (is("integer")) values.push_back(1.5);
    // Bounds at the ends of 64 bits have no neighbours.
    if (schema.contains("minimum") && schema["minimum"] > -9e18) values.push_back(schema["minimum"].get<double>() - 1);
    if (schema.contains("maximum") && schema["maximum"] < 9e18) values.push_back(schema["maximum"].get<double>() + 1);
    if (schema.contains("exclusiveMinimum")) values.push_back(schema["exclusiveMinimum"]);
  } else if (is("boolean") && types.size() <= 2) {
    values.insert(values.end(), {"true", 1});
  } else if (is("string") && types.size() <= 2) {
    values.insert(values.end(), {5, json::array()});
  } else if (schema.contains("enum")) {
    values.insert(values.end(), {"none of them", 7});
  }
  return values;
}

TEST(OpenApi, DescribesEveryEndpointAndNoOther) {
  std::vector<std::string> described, served = {"GET /", "GET /health", "GET /ping", "GET /v1/models/{model}"};
  for (const auto& [path, methods] : document()["paths"].items())
    for (const auto& [method, unused] : methods.items())
      described.push_back((method == "get" ? "GET " : "POST ") + path);
  for (const auto& [method, path] : endpoint_names()) served.push_back(std::string(method) + " " + std::string(path));
  std::ranges::sort(described);
  std::ranges::sort(served);
  EXPECT_EQ(described, served);
}

class OpenApiFields : public testing::TestWithParam<const char*> {};

TEST_P(OpenApiFields, AreRefusedByNameOutsideTheirBounds) {
  TestServer server;
  Client client(server.port());
  const std::string path = GetParam();
  json whole;
  if (path == "/v1/chat/completions") whole = chat();
  if (path == "/v1/completions") whole = completion();
  if (path == "/v1/responses") whole = {{"input", "it is"}, {"max_output_tokens", 3}};
  if (path == "/v1/embeddings") whole = {{"input", "it is"}};
  if (path == "/generate") whole = {{"inputs", "it is"}, {"parameters", {{"max_new_tokens", 3}}}};
  ASSERT_EQ(client.post(path, whole).status, 200);
  int refused = 0;
  const auto expect_refused = [&](const json& properties, const std::string& within) {
    for (const auto& [name, schema] : properties.items())
      for (const json& value : excluded(resolved(schema))) {
        json body = whole;
        (within.empty() ? body : body[within])[name] = value;
        const Answer answer = client.post(path, body);
        EXPECT_EQ(answer.status, 400) << path << " " << name << " " << value << "\n" << answer.body;
        if (path != "/generate") {
          EXPECT_EQ(answer.json()["error"]["param"], name) << value << "\n" << answer.body;
        }
        ++refused;
      }
  };
  const json properties = request_schema(path.c_str())["properties"];
  expect_refused(properties, "");
  if (path == "/generate") expect_refused(properties["parameters"]["properties"], "parameters");
  EXPECT_GT(refused, path == "/v1/embeddings" ? 5 : 40) << "the walk found the fields";
  EXPECT_EQ(client.post(path, whole).status, 200) << "the next good request works";
}

INSTANTIATE_TEST_SUITE_P(Paths, OpenApiFields,
                         testing::Values("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings",
                                         "/generate"),
                         [](const auto& info) { return "path" + std::to_string(info.index); });

TEST(OpenApi, IsGivenOut) {
  TestServer server;
  Client client(server.port());
  const Answer answer = client.get("/openapi.json");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.json(), document());
}

}  // namespace
}  // namespace lathe::http
