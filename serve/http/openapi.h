// The API's description, OpenAPI 3.1: serve/http/openapi.json, which tests/serve/http/openapi_test.cpp holds against
// the server.
#pragma once

#include <string_view>

namespace lathe::http {

std::string_view openapi_document();

}  // namespace lathe::http
