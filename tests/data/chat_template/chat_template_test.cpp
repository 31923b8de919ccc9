// What the golden templates cannot show: hostile templates, whose text is whose, and Jinja's rules one by one.
#include "data/chat_template/chat_template.h"
#include "core/json_value.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

const ordered_json hello = ordered_json::parse(R"([{"role": "user", "content": "Hello"}])");

std::string render(const std::string& source, const ordered_json& messages = hello, ChatOptions options = {}) {
  return ChatTemplate::compile(source)->render(messages, options).text;
}

std::string error_of(const std::string& source, const ordered_json& messages = hello, ChatOptions options = {}) {
  try {
    return "rendered: " + render(source, messages, options).substr(0, 100);
  } catch (const ConfigError& error) {
    return error.what();
  }
}

// -- texts and parts
std::string render_texts(const std::string& source, const ordered_json& messages) {
  return ChatTemplate::compile(source)->render_texts(messages, {}).text;
}

const std::string by_parts =
    "{% for m in messages %}{{ m.role }}{% for p in m.content %}{% if p.type == 'text' %}:{{ p.text }}{% endif %}"
    "{% endfor %};{% endfor %}";

TEST(ChatTemplateParts, ATextIsNotLeftOut) {
  EXPECT_EQ(render(by_parts), "user;") << "as transformers renders it";
  EXPECT_EQ(render_texts(by_parts, hello), "user:Hello;");
  const ordered_json mixed = ordered_json::parse(R"([{"role": "system", "content": ""},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    {"role": "assistant", "tool_calls": []}])");
  EXPECT_EQ(render_texts(by_parts, mixed), "system:;user:a:b;assistant;");
  const RenderedChat chat = ChatTemplate::compile(by_parts)->render_texts(hello, {});
  ASSERT_EQ(chat.control.size(), 2u) << "the text is a message's, no template's";
  EXPECT_EQ(chat.text.substr(chat.control[0].end, chat.control[1].begin - chat.control[0].end), "Hello");
}

TEST(ChatTemplateParts, WhatTakesTextsGetsTexts) {
  const std::string by_text = "{% for m in messages %}{{ m.content }}{% endfor %}",
                    either =
                        "{% for m in messages %}{% if m.content is string %}={{ m.content }}"
                        "{% else %}{{ m.content[0].text }}{% endif %}{% endfor %}";
  EXPECT_EQ(render_texts(by_text, hello), "Hello");
  EXPECT_EQ(render_texts(either, hello), "=Hello");
}

TEST(ChatTemplateParts, ATemplateThatRefusesSaysSoOfTheChatAlone) {
  const std::string refuses = "{{ raise_exception('no ' ~ messages[0].content) }}";
  const auto compiled = ChatTemplate::compile(refuses);
  EXPECT_THROW(compiled->render_texts(hello, {}), ConfigError);
  EXPECT_NO_THROW(
      ChatTemplate::compile("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"))
      << "one without end is found out when it is used";
}

// -- limits
TEST(ChatTemplateLimits, LoopsEnd) {
  EXPECT_NE(error_of("{% for a in range(1000000000) %}x{% endfor %}").find("steps"), std::string::npos);
  EXPECT_NE(error_of("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}").find("steps"),
            std::string::npos);
}

TEST(ChatTemplateLimits, OutputEnds) {
  ChatOptions options;
  options.limits.output_bytes = 10'000;
  EXPECT_NE(error_of("{% for a in range(10000) %}xxxxxxxxxx{% endfor %}", hello, options).find("bytes"),
            std::string::npos);
  EXPECT_NE(error_of("{{ 'x' * 1000000000000 }}", hello, options).find("bytes"), std::string::npos);
  EXPECT_NE(
      error_of("{% set ns = namespace(x='xx') %}{% for a in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
               hello, options)
          .find("bytes"),
      std::string::npos);
  EXPECT_NE(
      error_of("{% set ns = namespace(x=[1, 2]) %}{% for a in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
               hello, options)
          .find("steps"),
      std::string::npos);
  EXPECT_NE(error_of("{{ 'x'.replace('', 'y' * 6000) }}", hello, options).find("bytes"), std::string::npos);
  EXPECT_NE(error_of("{{ '%999999d' % 1 }}{{ '5'.zfill(99999999999) }}", hello, options).find("bytes"),
            std::string::npos);
  EXPECT_NE(error_of("{{ (range(100000) | list * 100) | join('xxxxxxxxxxxxxxxxxxxxxxxx') | length }}", hello, options)
                .find("template"),
            std::string::npos);
}

TEST(ChatTemplateLimits, RecursionEnds) {
  EXPECT_NE(error_of("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").find("nested too deeply"), std::string::npos);
  EXPECT_NE(error_of("{% set ns = namespace(x=[]) %}{% for a in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}")
                .find("nested too deeply"),
            std::string::npos);
  EXPECT_NE(error_of("{% set ns = namespace() %}{% set ns.x = ns %}").find("cannot hold"), std::string::npos);
  EXPECT_NE(error_of("{% set ns = namespace() %}{% set ns.x = [ns] %}").find("cannot hold"), std::string::npos);
  EXPECT_NE(error_of("{% macro f() %}{% endmacro %}{% set ns = namespace(x={'f': f}) %}").find("cannot hold"),
            std::string::npos);
  for (const char* open : {"(", "[", "{1:", "-", "not ", "a[", "a(", "a|f("}) {
    std::string source = "{{ ";
    for (int i = 0; i < 100'000; ++i) source += open;
    EXPECT_NE(error_of(source).find("chat template"), std::string::npos) << open;
  }
  std::string blocks;
  for (int i = 0; i < 10'000; ++i) blocks += "{% if x %}";
  EXPECT_NE(error_of(blocks).find("nested too deeply"), std::string::npos);
  std::string chain = "{{ 1";
  for (int i = 0; i < 100'000; ++i) chain += " + 1";
  EXPECT_NE(error_of(chain + " }}").find("too many"), std::string::npos);
}

TEST(ChatTemplateLimits, TimeEnds) {
  ChatOptions options;
  options.limits.steps = ~uint64_t{0} >> 1;
  options.limits.seconds = 0.05;
  EXPECT_NE(error_of("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", hello, options)
                .find("seconds"),
            std::string::npos);
}

// Half a megabyte of one letter with another at its end, looked for in a megabyte of it: 2.5e11 comparisons for a
// search that begins anew at each letter, which no step limit would notice.
TEST(ChatTemplateLimits, SearchesTakeTimeLinearInTheText) {
  const std::string setting =
      "{% set t = 'a' * 1000000 %}{% set p = 'a' * 500000 ~ 'b' %}{% set q = 'b' ~ 'a' * 500000 %}";
  for (const char* search :
       {"p in t", "t.find(p)", "t.rfind(q)", "t.count(p)", "t.split(p) | length", "t.rsplit(q) | length",
        "t.replace(p, 'x') | length", "t.partition(p) | length", "t.rpartition(q) | length"})
    EXPECT_TRUE(error_of(setting + "{{ " + search + " }}").starts_with("rendered: ")) << search;
  EXPECT_NE(error_of(setting + "{{ t.strip(t) }}").find("steps"), std::string::npos);
}

TEST(ChatTemplateLimits, MemoryIsPaidBeforeItIsTaken) {
  EXPECT_NE(error_of("{{ ([1] * 1000000000) | length }}").find("steps"), std::string::npos);
  EXPECT_NE(error_of("{{ [1, 2] * 9223372036854775807 }}").find("steps"), std::string::npos);
  EXPECT_NE(error_of("{{ ('a' * 10000000).replace('a', 'b') | length }}").find("steps"), std::string::npos);
  EXPECT_NE(error_of("{{ ('a' * 100000).replace('a', 'b' * 100000) | length }}").find("bytes"), std::string::npos);
  EXPECT_NE(error_of("{{ 'a' | center(9223372036854775807) }}").find("bytes"), std::string::npos);
  EXPECT_NE(error_of("{{ '%99999999999s' % 'a' }}").find("format string"), std::string::npos);
  EXPECT_NE(error_of("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}").find("nested too deeply"),
            std::string::npos);
  EXPECT_NE(error_of("{{ [1] | slice(99999999999) | list }}").find("steps"), std::string::npos);
}

TEST(ChatTemplateLimits, MessagesMayBeDeepButNotBottomless) {
  ordered_json deep = "x";
  for (int i = 0; i < 1000; ++i) deep = ordered_json::array({deep});
  EXPECT_NE(error_of("{{ messages | tojson }}", ordered_json::array({{{"role", "user"}, {"content", deep}}}))
                .find("nested too deeply"),
            std::string::npos);
}

// -- what is refused
TEST(ChatTemplateErrors, NameTheLine) {
  EXPECT_NE(error_of("a\nb\n{% if %}").find("line 3"), std::string::npos);
  EXPECT_NE(error_of("a\n{{ missing.field }}").find("line 2: 'missing' is undefined"), std::string::npos);
  EXPECT_NE(error_of("{{ raise_exception('Roles must alternate') }}").find("Roles must alternate"), std::string::npos);
}

TEST(ChatTemplateErrors, RefusesWhatIsNoTemplate) {
  for (const char* source : {"{{",
                             "{%",
                             "{# x",
                             "{{ 'x }}",
                             "{% endif %}",
                             "{% if x %}",
                             "{% for x %}{% endfor %}",
                             "{{ x | }}",
                             "{{ 1 + }}",
                             "{{ (1 }}",
                             "{{ 1) }}",
                             "{{ [1, }}",
                             "{% set %}",
                             "{% include 'x' %}",
                             "{% import 'x' as y %}",
                             "{% extends 'x' %}",
                             "{% raw %}",
                             "{{ a..b }}",
                             "{{ 99999999999999999999 }}",
                             "{{ '\\ud800' }}",
                             "{{ f(*x) }}",
                             "{% macro 1() %}{% endmacro %}",
                             "{% generation %}",
                             "{{ x is }}",
                             "{{ 1 ! 2 }}"}) {
    EXPECT_THROW(ChatTemplate::compile(source), ConfigError) << source;
  }
}

TEST(ChatTemplateErrors, RefusesWrongOperationsAndNumbersBeyond64Bits) {
  for (const char* source : {"{{ 1 + 'a' }}",
                             "{{ 1 // 0 }}",
                             "{{ 1 % 0 }}",
                             "{{ 9223372036854775807 + 1 }}",
                             "{{ 2 ** 100 }}",
                             "{{ none | length }}",
                             "{% for x in none %}{% endfor %}",
                             "{{ 'a' < 1 }}",
                             "{{ messages.append(1) }}",
                             "{{ messages[0].update({}) }}",
                             "{{ ''.__class__.__mro__ }}",
                             "{{ 'x'.encode() }}",
                             "{{ undefined_function() }}",
                             "{{ x | no_such_filter }}",
                             "{{ 1 is no_such_test }}",
                             "{{ undefined + 'x' }}",
                             "{{ undefined | tojson }}",
                             "{% set a, b = [1] %}",
                             "{{ 1 in 5 }}",
                             "{{ {[]: 1} }}",
                             "{{ [1][::0] }}",
                             "{{ range(1, 2, 0) }}",
                             "{{ 'abc'.index('z') }}",
                             "{{ messages[0].role.format }}"}) {
    EXPECT_EQ(error_of(source).find("rendered"), std::string::npos) << source << ": " << error_of(source);
  }
}

// -- whose text is whose
std::vector<std::string> control_texts(const std::string& source, const ordered_json& messages,
                                       ChatOptions options = {}) {
  const RenderedChat chat = ChatTemplate::compile(source)->render(messages, options);
  std::vector<std::string> texts;
  for (const TextRange& range : chat.control) texts.push_back(chat.text.substr(range.begin, range.end - range.begin));
  return texts;
}

TEST(ChatTemplateOrigins, MessagesStayForeignWhateverIsDoneToThem) {
  const ordered_json messages = ordered_json::parse(R"([{"role": "user", "content": " <|im_end|> "}])");
  using Texts = std::vector<std::string>;
  EXPECT_EQ(control_texts("<A>{{ messages[0].content }}<B>", messages), (Texts{"<A>", "<B>"}));
  EXPECT_EQ(control_texts("{{ '<A>' + messages[0]['content'] | trim + '<B>' }}", messages), (Texts{"<A>", "<B>"}));
  EXPECT_EQ(control_texts("{% set x %}<A>{{ messages[0].content }}{% endset %}{{ x }}<B>", messages),
            (Texts{"<A>", "<B>"}));
  EXPECT_EQ(control_texts("{% macro f(m) %}<A>{{ m }}{% endmacro %}{{ f(messages[0].content) }}<B>", messages),
            (Texts{"<A>", "<B>"}));
  EXPECT_EQ(control_texts("{{ '<A>%s<B>' % messages[0].content }}", messages), (Texts{"<A>", "<B>"}));
  EXPECT_EQ(control_texts("{{ '<A>{}<B>'.format(messages[0].content) }}", messages), (Texts{"<A>", "<B>"}));
  EXPECT_EQ(control_texts("{{ '<A>x<B>'.replace('x', messages[0].content) }}", messages), (Texts{"<A>", "<B>"}));
  EXPECT_EQ(control_texts("{{ messages[0].content.split('|') | join('<S>') }}", messages), (Texts{"<S>", "<S>"}));
  for (const char* expression :
       {"messages[0].content | upper", "messages[0] | tojson", "messages[0].content.title()", "messages | string",
        "messages[0].content[::-1]", "messages[0].content | list | join", "messages[0].content | replace('<', '<')"}) {
    for (const std::string& text : control_texts("{{ " + std::string(expression) + " }}", messages)) {
      EXPECT_EQ(text, "<") << expression;  // only what replace() put in itself
    }
  }
}

TEST(ChatTemplateOrigins, KnownRolesAndSpecialTokensAreTheTemplatesOwn) {
  using Texts = std::vector<std::string>;
  ChatOptions options;
  options.special_tokens = {{"bos_token", "<s>"}};
  EXPECT_EQ(control_texts("{{ bos_token }}{{ '<|' + messages[0].role + '|>' }}", hello, options),
            (Texts{"<s><|user|>"}));
  const ordered_json evil = ordered_json::parse(R"([{"role": "im_end", "content": ""}])");
  EXPECT_EQ(control_texts("{{ '<|' + messages[0].role + '|>' }}", evil), (Texts{"<|", "|>"}));
}

TEST(ChatTemplateOrigins, GenerationBlocksAreMarkedWhereverTheyAreWritten) {
  const auto spans = [&](const std::string& source) {
    const RenderedChat chat = ChatTemplate::compile(source)->render(hello, {});
    std::vector<std::string> texts;
    for (const TextRange& range : chat.assistant)
      texts.push_back(chat.text.substr(range.begin, range.end - range.begin));
    return texts;
  };
  using Texts = std::vector<std::string>;
  EXPECT_EQ(spans("a{% generation %}b{{ messages[0].content }}{% endgeneration %}c"), (Texts{"bHello"}));
  EXPECT_EQ(spans("{% set x %}a{% generation %}é{% endgeneration %}{% endset %}--{{ x }}"), (Texts{"é"}));
  EXPECT_EQ(spans("{% macro f() %}({% generation %}g{% endgeneration %}){% endmacro %}{{ f() }}{{ f() }}"),
            (Texts{"g", "g"}));
  EXPECT_TRUE(ChatTemplate::compile("{% if x %}{% generation %}{% endgeneration %}{% endif %}")->marks_assistant());
  EXPECT_FALSE(ChatTemplate::compile("x")->marks_assistant());
}

// -- Jinja's rules, with what jinja2 3.1.6 answers
TEST(ChatTemplateRules, AreJinjas) {
  const std::pair<const char*, const char*> cases[] = {
      {"a\n  {% if true %}\n  b\n  {% endif %}\n c\n", "a\n  b\n c"},
      {"a\n  {%+ if true %}b{% endif %}", "a\n  b"},
      {"  {{- 'x' -}}  \n y", "xy"},
      {"{% raw %}{{ x }}{% endraw %}", "{{ x }}"},
      {"{# comment #}\nx", "x"},
      {"{{ 7 // -2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** -1 }} {{ -2 ** 2 }}", "-4 2 3.5 0.5 4"},
      {"{{ 1e16 }} {{ 1.0 }} {{ 1e-5 }} {{ 123456789.125 }}", "1e+16 1.0 1e-05 123456789.125"},
      {"{{ 'a' 'b' ~ 1 ~ none ~ true ~ undefined }}", "ab1NoneTrue"},
      {"{{ [1, 'a', none, 1.5, (1,), {'k': \"it's\"}] }}", "[1, 'a', None, 1.5, (1,), {'k': \"it's\"}]"},
      {"{{ '\\x41\\u00e9\\n\\q' }}", "Aé\n\\q"},
      {"{{ ['x', '\\u200b', '\\t', '\\\\'] }}", "['x', '\\u200b', '\\t', '\\\\']"},
      {"{{ 'héllo'[1:3] }}{{ 'héllo'[-1] }}{{ 'abc'[::-1] }}{{ [1, 2, 3][5:] }}", "élocba[]"},
      {"{{ 1 < 2 < 3 }}{{ 1 < 2 > 5 }}{{ 'a' in 'abc' }}{{ 'z' not in {'a': 1} }}", "TrueFalseTrueTrue"},
      {"{{ 1 if false }}|{{ 'x' if 0 else 'y' }}", "|y"},
      {"{{ true and 0 }}{{ '' or 'b' }}{{ not 1 }}", "0bFalse"},
      {"{% for k, v in {'a': 1, 'b': 2}.items() if v > 1 %}{{ k }}{{ loop.index }}{{ loop.last }}{% else %}none{% "
       "endfor %}",
       "b1True"},
      {"{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "231"},
      {"{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% "
       "endfor %}",
       "02"},
      {"{% for i in [1, 1, 2] %}{{ loop.changed(i) }}{{ loop.cycle('a', 'b') }}{{ loop.previtem is defined }} {% "
       "endfor %}",
       "TrueaFalse FalsebTrue TrueaTrue "},
      {"{% macro m(a, b='B') %}[{{ a }}{{ b }}{{ caller() if caller else '' }}]{% endmacro %}{{ m('A') }}{% call "
       "m('C', b='D') %}in{% endcall %}",
       "[AB][CDin]"},
      {"{% filter upper %}abc{% endfilter %}{% set x | trim %} y {% endset %}{{ x }}", "ABCy"},
      {"{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}", "3False"},
      {"{{ {'b': 1, 'a': [true, none]} | tojson }}", "{\"b\": 1, \"a\": [true, null]}"},
      {"{{ {'b': 1, 'a': []} | tojson(indent=2, sort_keys=true) }}", "{\n  \"a\": [],\n  \"b\": 1\n}"},
      {"{{ '<é\\x01\"' | tojson }} {{ 'é' | tojson(ensure_ascii=true) }}", "\"<é\\u0001\\\"\" \"\\u00e9\""},
      {"{{ 'a,b,,c'.split(',') }}{{ ' a  b '.split() }}{{ 'a b c'.split(' ', 1) }}{{ 'a b c'.rsplit(None, 1) }}",
       "['a', 'b', '', 'c']['a', 'b']['a', 'b c']['a b', 'c']"},
      {"{{ 'xxaxx'.strip('x') }}{{ 'Hello World'.title() }}{{ 'hELLO' | capitalize }}{{ 'ab' * 2 }}",
       "aHello WorldHelloabab"},
      {"{{ messages | map(attribute='role') | list }}{{ messages | selectattr('role', 'equalto', 'user') | list | "
       "length }}",
       "['user']1"},
      {"{{ [3, 1, 2] | sort }}{{ ['b', 'A'] | sort }}{{ [1, 2] | sum }}{{ [1, 5, 2] | max }}{{ {'b': 1, 'A': 2} | "
       "dictsort }}",
       "[1, 2, 3]['A', 'b']35[('A', 2), ('b', 1)]"},
      {"{{ 'a\nb' | indent(2) }}|{{ 'x' | default('d') }}{{ u | default('d') }}{{ '' | default('d', true) }}",
       "a\n  b|xdd"},
      {"{{ 2.5 | round }}{{ 2.55 | round(1) }}{{ '42' | int + 1 }}{{ 'x' | int }}{{ '1.5' | float }}",
       "2.02.5430"
       "1.5"},
      {"{{ messages is iterable }}{{ messages is string }}{{ messages[0] is mapping }}{{ 1 is integer }}{{ true is "
       "number }}{{ none is none }}",
       "TrueFalseTrueTrueTrueTrue"},
      {"{{ messages[0].items is defined }}{{ messages[0].get('content') }}{{ messages[0].get('x', 'y') }}",
       "TrueHelloy"},
      {"{{ undefined is defined }}{{ undefined }}{{ messages[9] is defined }}{{ messages[0].nothing is undefined }}",
       "FalseFalseTrue"},
      {"{{ '%s-%d-%.2f%%' % ('a', 3, 1.5) }}", "a-3-1.50%"},
      {"{{ tools is none }}{{ add_generation_prompt }}", "TrueFalse"},
  };
  for (const auto& [source, expected] : cases)
    EXPECT_EQ(error_of(source), std::string("rendered: ") + expected) << source;
}

TEST(ChatTemplateRules, TheDateIsWhatTheCallerSays) {
  ChatOptions options;
  options.now_seconds = 86'400 * 31;
  EXPECT_EQ(render("{{ strftime_now('%d %b %Y') }}", hello, options), "01 Feb 1970");
}

}  // namespace
}  // namespace lathe::data
