// Grammars: which texts an expression, a schema or a choice lets through, and what is refused by name.
#include "serve/engine/grammar/grammar.h"
#include "core/json_value.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "serve/engine/grammar/automaton.h"

namespace lathe::engine {
namespace {

using json = nlohmann::ordered_json;
using Texts = std::vector<std::string>;

bool accepts(Automaton& automaton, const std::string& text) {
  int32_t state = automaton.start();
  for (const char byte : text) {
    if (state == Automaton::dead) return false;
    state = automaton.next(state, static_cast<uint8_t>(byte));
  }
  return state != Automaton::dead && automaton.accepts(state);
}
bool accepts(const std::shared_ptr<const Grammar>& grammar, const std::string& text) {
  Automaton automaton(grammar);
  return accepts(automaton, text);
}

void expect_texts(const std::string& what, const std::shared_ptr<const Grammar>& grammar, const Texts& good,
                  const Texts& bad) {
  Automaton automaton(grammar);
  for (const std::string& text : good) EXPECT_TRUE(accepts(automaton, text)) << what << " and " << text;
  for (const std::string& text : bad) EXPECT_FALSE(accepts(automaton, text)) << what << " and " << text;
}

TEST(Grammar, ARegularExpressionMatchesWholeTexts) {
  const std::tuple<const char*, Texts, Texts> cases[] = {
      {"abc", {"abc"}, {"", "ab", "abcd"}},
      {"^a|b$", {"a", "b"}, {"ab", ""}},
      {"a*b+c?", {"b", "aab", "bbc"}, {"a", "c", "bcc"}},
      {"(ab|c){2,3}", {"abc", "ccc", "ababab"}, {"ab", "cccc"}},
      {"[a-c]{2}", {"ab"}, {"a", "abc", "ad"}},
      {"x{2,}", {"xx", "xxxxx"}, {"x"}},
      {"a{,2}b{}", {"ab{}", "aab{}", "b{}"}, {"aaab{}", "ab"}},
      {"[^\"\\\\]+", {"é日🙂 x"}, {"a\"", "\\", ""}},
      {"\\d{3}-\\w+\\s?", {"123-ab_9", "000-a "}, {"12-a", "123-"}},
      {"[]a]+", {"]a"}, {"b"}},
      {"[a-]+", {"a-"}, {"b"}},
      {"\\x41\\u00e9", {"Aé"}, {"A"}},
      {".", {"é", "\t"}, {"\n", "", "\xC3"}},
      {"(?:a|)b", {"ab", "b"}, {"a"}},
      {"a+?b", {"aab"}, {"b"}},
      {"()*a", {"a"}, {""}},
      {"[\\d\\-x]+", {"1-x"}, {"a"}},
      {"\\$\\^\\.", {"$^."}, {"a"}},
      {"[^\\x00-\\x7f]", {"é", "🙂"}, {"a", "\xED\xA0\x80", "\xC0\x80"}}};
  for (const auto& [pattern, good, bad] : cases) expect_texts(pattern, regex_grammar(pattern), good, bad);
}

TEST(Grammar, AnExpressionThatIsNotSupportedOrTooLargeIsRefused) {
  for (const char* pattern : {"(",
                              ")",
                              "a)",
                              "[a",
                              "a**",
                              "*a",
                              "a{3,2}",
                              "(?=a)",
                              "(?<n>a)",
                              "\\b",
                              "\\1",
                              "\\p{L}",
                              "a^b",
                              "(a$)b",
                              "a$b",
                              "a++",
                              "[z-a]",
                              "\\ud800",
                              "\\x4",
                              "\\",
                              "a{10001}",
                              "((a{100}){100}){100}",
                              "[^\\x00-\\U0010ffff]",
                              "\xFF",
                              "[\\S\\s]{0}[^\\S\\s]"})
    EXPECT_THROW(regex_grammar(pattern), ConfigError) << pattern;
  EXPECT_THROW(regex_grammar(std::string(200, '(') + std::string(200, ')')), ConfigError);
}

TEST(Grammar, AChoiceIsOneOfItsTexts) {
  const Texts choices{"yes", "yesterday", "no \"way\""};
  expect_texts("choice", choice_grammar(choices), choices, {"", "ye", "yesno", "no"});
  EXPECT_THROW(choice_grammar({}), ConfigError);
  EXPECT_THROW(choice_grammar(Texts{"a", ""}), ConfigError);
}

TEST(Grammar, AnyObjectIsJson) {
  expect_texts(
      "json_object", json_object_grammar(),
      {"{}", "{\"a\": 1}", "{\n  \"a\": [1, -2.5e-3, true, false, null],\n  \"b\": {\"é\\n\\u00e9\": \"\"}\n}"},
      {"", "[]", "1", "{", "{\"a\"}", "{\"a\": 01}", "{\"a\": 1,}", "{'a': 1}", "{\"a\": \"\n\"}", "{} ",
       "{\"\\ud800\": 1}", "{\"a\": .5}", "{\"a\": +1}"});
  std::string nested = "1";
  for (int i = 0; i < 20; ++i) nested = "{\"a\": [" + nested + "]}";
  EXPECT_TRUE(accepts(json_object_grammar(), nested));
}

struct SchemaCase {
  const char* schema;
  Texts good, bad;
};

TEST(Grammar, ASchemaLetsThroughWhatSatisfiesIt) {
  const SchemaCase cases[] = {
      {R"({"type": "string"})", {R"("")", R"("a\"b")", R"("é")"}, {"a", R"("a)", "1"}},
      {R"({"type": "string", "minLength": 2, "maxLength": 3})",
       {R"("ab")", R"("日本語")", R"("\n\n")"},
       {R"("a")", R"("abcd")"}},
      {R"({"type": "string", "pattern": "^[A-Z]{2}\"$"})", {R"("AB\"")"}, {R"("AB"")", R"("ab\"")"}},
      {R"({"type": "string", "pattern": "b"})", {R"("abc")", R"("b")"}, {R"("ac")"}},
      {R"({"type": "string", "format": "date"})", {R"("2024-02-28")"}, {R"("2024-02-30")", R"("24-01-01")"}},
      {R"({"type": "string", "format": "date-time"})", {R"("2024-12-31T23:59:59Z")"}, {R"("2024-12-31")"}},
      {R"({"type": "string", "format": "uuid"})", {R"("123e4567-e89b-12d3-a456-426614174000")"}, {R"("123e4567")"}},
      {R"({"type": "string", "format": "ipv4"})", {R"("255.1.0.10")"}, {R"("256.1.0.1")", R"("1.2.3")"}},
      {R"({"type": "string", "format": "email"})", {R"("a.b@example.org")"}, {R"("a@b")", R"("@b.org")"}},
      {R"({"type": "boolean"})", {"true", "false"}, {"null", "True"}},
      {R"({"type": ["null", "integer"]})", {"null", "12", "-7", "0"}, {"1.5", "-0", "007", "\"1\""}},
      {R"({"type": "number"})", {"1", "-0.25", "1e10", "2.5E-3"}, {"1.", ".5", "1e", "Infinity"}},
      {R"({"type": "number", "minimum": 0, "maximum": 1})", {"0", "0.5", "1", "1.0"}, {"1.5", "-0.5", "1e3", "2"}},
      {R"({"type": "number", "minimum": -2})", {"-2", "-1.5", "-0.5", "100.25"}, {"-2.5", "-3"}},
      {R"({"type": "number", "maximum": -2})", {"-2", "-2.5", "-300.1"}, {"-1.5", "0", "2"}},
      {R"({"enum": ["a", 1, null, {"b": [1]}]})", {R"("a")", "1", "null", R"({"b":[1]})"}, {R"("b")", "2"}},
      {R"({"type": "string", "enum": ["a", 1]})", {R"("a")"}, {"1"}},
      {R"({"const": "x"})", {R"("x")"}, {R"("y")"}},
      {R"({"type": "array", "items": {"type": "integer"}})",
       {"[]", "[1]", "[1, 2,3]", "[\n 1]"},
       {"[1,]", "[a]", "[,1]"}},
      {R"({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3})",
       {"[1, 2]", "[1, 2, 3]"},
       {"[]", "[1]", "[1, 2, 3, 4]"}},
      {R"({"type": "array", "maxItems": 0})", {"[]"}, {"[1]"}},
      {R"({"type": "array", "minItems": 1})", {"[{}]", "[1, \"a\"]"}, {"[]"}},
      {R"({"prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false})",
       {R"([1, "a"])"},
       {"[1]", R"([1, "a", 2])"}},
      {R"({"type": "object", "required": ["name"],
           "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}})",
       {R"({"name": "x"})", R"({"name": "x", "age": 3})"},
       {"{}", R"({"age": 3})", R"({"age": 3, "name": "x"})", R"({"name": "x", "b": 1})", R"({"name": "x",})"}},
      {R"({"properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}})",
       {"{}", R"({"a": null})", R"({"b": null})", R"({"a": null, "c": null})", R"({"c": null})"},
       {R"({"a": null "c": null})", R"({, "c": null})"}},
      {R"({"properties": {"ab": {"type": "null"}, "a\"": {"type": "null"}},
           "additionalProperties": {"type": "integer"}})",
       {R"({"ab": null})", R"({"a": 1})", R"({"abc": 1})", R"({"ab": null, "a\"": null, "x": 1, "y": 2})", R"({"": 1})",
        R"({"éa": 2})"},
       {R"({"ab": 1})", R"({"a\u0062": 1})", R"({"x": null})", R"({"x": 1, "ab": null})"}},
      {R"({"type": "object", "additionalProperties": false})", {"{}", "{ }"}, {R"({"a": 1})"}},
      {R"({"type": "object"})", {"{}", R"({"a": [1, {}]})"}, {"[]"}},
      {R"({"anyOf": [{"type": "integer"}, {"type": "null"}]})", {"1", "null"}, {"true"}},
      {R"({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"const": 7}}})", {"7"}, {"8"}},
      {R"({"oneOf": [{"type": "integer"}, {"type": "string"}]})", {"1", R"("")"}, {"null"}},
      {R"({"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}], "discriminator": {"propertyName": "kind"},
           "$defs": {"cat": {"type": "object", "properties": {"kind": {"const": "cat"}}, "required": ["kind"]},
                     "dog": {"type": "object", "properties": {"kind": {"const": "dog"}}, "required": ["kind"]}}})",
       {R"({"kind": "cat"})", R"({"kind": "dog"})"},
       {"{}", R"({"kind": "cow"})"}},
      {R"({"$ref": "#/definitions/tree", "definitions": {"tree": {"type": "object", "properties":
           {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/definitions/tree"}}},
           "required": ["v", "kids"]}}})",
       {R"({"v": 1, "kids": []})", R"({"v": 1, "kids": [{"v": 2, "kids": [{"v": 3, "kids": []}]}]})"},
       {R"({"v": 1})", R"({"v": 1, "kids": [{}]})"}},
      {"{}", {"1", "{}", "[null]"}, {"", "x"}},
      {"true", {"1", "{}"}, {"x"}}};
  for (const auto& [schema, good, bad] : cases)
    expect_texts(schema, json_schema_grammar(json::parse(schema)), good, bad);
}

TEST(Grammar, IntegersLieWithinTheirBounds) {
  for (const auto& [least, most] : {std::pair{-120, 7}, {0, 0}, {3, 115}, {-99, -10}, {-1, 1}, {100, 100}, {9, 1001}}) {
    const auto grammar = json_schema_grammar({{"type", "integer"}, {"minimum", least}, {"maximum", most}});
    const auto exclusive =
        json_schema_grammar({{"type", "integer"}, {"exclusiveMinimum", least - 0.5}, {"exclusiveMaximum", most + 1}});
    Automaton automaton(grammar), exclusive_automaton(exclusive);
    for (int value = -1100; value <= 1100; ++value) {
      EXPECT_EQ(accepts(automaton, std::to_string(value)), least <= value && value <= most) << value;
      EXPECT_EQ(accepts(exclusive_automaton, std::to_string(value)), least <= value && value <= most) << value;
    }
  }
  EXPECT_TRUE(accepts(json_schema_grammar({{"type", "integer"}, {"minimum", 5}}), "999999999999999"));
  EXPECT_FALSE(accepts(json_schema_grammar({{"type", "integer"}, {"minimum", 5}}), "4"));
}

TEST(Grammar, WhatASchemaCannotSayHereIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"type": "array", "uniqueItems": true})", "uniqueItems"},
      {R"({"type": "object", "patternProperties": {}})", "patternProperties"},
      {R"({"type": "object", "minProperties": 1})", "minProperties"},
      {R"({"type": "integer", "multipleOf": 2})", "multipleOf"},
      {R"({"not": {}})", "not"},
      {R"({"if": {}})", "if"},
      {R"({"type": "text"})", "text"},
      {R"({"type": []})", "type"},
      {R"({"type": "string", "format": "hostname"})", "hostname"},
      {R"x({"type": "string", "pattern": "(?=a)"})x", "(?"},
      {R"({"type": "string", "pattern": "a", "minLength": 3})", "one is supported at a time"},
      {R"({"type": "string", "minLength": 3, "maxLength": 2})", "minLength"},
      {R"({"type": "string", "minLength": -3})", "minLength"},
      {R"({"type": "string", "maxLength": 1000000})", "states"},
      {R"({"type": "number", "minimum": 0.5})", "minimum"},
      {R"({"type": "integer", "minimum": 5, "maximum": 4})", "bounds"},
      {R"({"type": "object", "properties": {"a": {}}, "required": ["b"]})", "\"b\""},
      {R"({"type": "object", "properties": []})", "properties"},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", "oneOf"},
      {R"({"allOf": [{}, {}]})", "allOf"},
      {R"({"enum": []})", "enum"},
      {R"({"type": "string", "enum": [1]})", "enum"},
      {R"({"$ref": "#/$defs/none"})", "$ref"},
      {R"({"$ref": "http://example.org/schema"})", "$ref"},
      {R"({"$ref": "#"})", "refers to itself"},
      {R"({"anyOf": [{"$ref": "#"}, {"type": "null"}]})", "refers to itself"},
      {R"({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]})", "no text"},
      {R"([1])", "schema"},
      {"false", "schema"}};
  for (const auto& [schema, named] : cases) {
    try {
      json_schema_grammar(json::parse(schema));
      ADD_FAILURE() << schema << " was taken";
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find(named), std::string::npos) << error.what();
    }
  }
  json nested = json::object();
  for (int i = 0; i < 200; ++i) nested = {{"type", "array"}, {"items", nested}};
  EXPECT_THROW(json_schema_grammar(nested), ConfigError);
}

TEST(Grammar, LongStringsFit) {
  const auto grammar = json_schema_grammar({{"type", "string"}, {"maxLength", 4000}});
  EXPECT_TRUE(accepts(grammar, "\"" + std::string(4000, 'a') + "\""));
  EXPECT_FALSE(accepts(grammar, "\"" + std::string(4001, 'a') + "\""));
  expect_texts("pattern", json_schema_grammar({{"type", "string"}, {"pattern", "^[^0-9]{1,2000}$"}}),
               {"\"a\\n\\\"é\"", "\"" + std::string(2000, 'x') + "\""},
               {"\"a1\"", "\"" + std::string(2001, 'x') + "\""});
}

// Within the nesting that is allowed every text can still be ended.
TEST(Grammar, NestingEndsBeforeATextCannotBeEnded) {
  const auto grammar = json_schema_grammar(json::parse(
      R"({"type": "array", "minItems": 1, "maxItems": 1, "items": {"anyOf": [{"$ref": "#"}, {"const": 1}]}})"));
  Automaton automaton(grammar);
  int32_t state = automaton.start();
  int opened = 0;
  for (; automaton.next(state, '[') != Automaton::dead; ++opened) state = automaton.next(state, '[');
  EXPECT_GT(opened, 20);
  EXPECT_LE(opened, most_rule_nesting);
  state = automaton.next(state, '1');
  for (int i = 0; i < opened; ++i) {
    ASSERT_NE(state, Automaton::dead);
    EXPECT_FALSE(automaton.accepts(state));
    state = automaton.next(state, ']');
  }
  EXPECT_TRUE(automaton.accepts(state));
}

}  // namespace
}  // namespace lathe::engine
