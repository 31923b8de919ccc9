#!/usr/bin/env python3
"""make_families.py FOLDER: the chat templates in FOLDER (trl/chat_templates of the TRL package), rendered by transformers' own jinja2
environment. Those in families/ are copies of the ones whose licence lets them be handed on (families/LICENCES.md)."""

import datetime
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
from transformers.utils import chat_template_utils  # noqa: E402

HERE = Path(__file__).resolve().parent


def s(text):
    return {"role": "system", "content": text}


def u(text):
    return {"role": "user", "content": text}


def a(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


WEATHER = {"type": "function", "function": {"name": "weather", "description": "Says the weather; \"now\" & <then>, größer", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "where"}, "days": {"type": "integer", "minimum": 1},
                                     "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
                                     "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["city"]}}}
NOW = {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}}}
CHATS = [
    [u("Hello")],
    [s("Be brief."), u("Hello")],
    [u("Hello"), a("Hi! How can I help?")],
    [s("Be brief."), u("Hello"), a("Hi!"), u("And now?"), a("Bye.")],
    [s("S"), u("1"), a("2"), u("3"), a("4"), u("5")],
    [u("  spaces around  \n"), a("\n\n  and here \t"), u("日本語 😀 \"quotes\" <b>&amp;</b> {{ 7 * 7 }}")],
    [u("q"), a("<think>\nshort thought\n</think>\n\nanswer"), u("next"), a("<think>hm</think>\nanswer two"), u("and")],
    [u("q"), a("answer", reasoning_content="long thought"), u("next"), a("more", reasoning_content="again")],
    [u("q"), a("answer", thinking="long thought")],
    [s(""), u("x"), a("")],
]
TOOL_CHATS = [
    [u("Weather in Kraków?")],
    [s("Use tools."), u("Weather in Kraków?"), a("", tool_calls=[call("weather", city="Kraków", days=2)]),
     {"role": "tool", "name": "weather", "content": "{\"c\": 21}"}, a("21 degrees.")],
    [u("Two?"), a("Let me look.", tool_calls=[call("weather", city="Oslo", tags=["a", "b"]), call("now")]),
     {"role": "tool", "name": "weather", "content": "1"}, {"role": "tool", "name": "now", "content": "2"}],
]


def render(name, template, messages, add_generation_prompt, tools=None, **variables):
    row = {"template": name, "messages": messages, "add_generation_prompt": add_generation_prompt,
           "variables": {"bos_token": "<s>", "eos_token": "</s>", **variables}}
    if tools is not None:
        row["tools"] = tools
    marks = "generation %}" in template or "generation -%}" in template
    try:
        text, spans = chat_template_utils.render_jinja_template(
            conversations=[messages], tools=tools, chat_template=template, add_generation_prompt=add_generation_prompt,
            return_assistant_tokens_mask=marks, **row["variables"])
    except Exception as error:
        return {**row, "error": f"{type(error).__name__}: {error}"}
    row["expected"] = text[0]
    if marks:
        row["assistant_spans"] = [[len(text[0][:at].encode()) for at in span] for span in spans[0]]
    return row


class Fixed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 31, 12, 0, 0)


def main():
    source = Path(sys.argv[1])
    rows = []
    with mock.patch.object(chat_template_utils, "datetime", Fixed):
        for path in sorted(source.glob("*.jinja")):
            name, template = path.stem, path.read_text(encoding="utf-8")
            for i, messages in enumerate(CHATS):
                rows.append(render(name, template, messages, i % 2 == 0))
            for messages in TOOL_CHATS:
                rows.append(render(name, template, messages, True, tools=[WEATHER, NOW]))
            rows += [render(name, template, CHATS[1], True, enable_thinking=flag) for flag in (True, False)]
            rows.append(render(name, template, CHATS[6], True, preserve_thinking=True, reasoning_effort="high"))
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "families"
    oracle.write_rows(out / "cases.json", rows)
    oracle.write_versions(out)


main()
