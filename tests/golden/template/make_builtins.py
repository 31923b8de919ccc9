#!/usr/bin/env python3
"""make_builtins.py: small templates, one for each filter, method and construct, rendered by transformers' own jinja2 environment."""

import json
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

HERE = Path(__file__).resolve().parent

TREE = [{"name": "a", "children": [{"name": "b", "children": [{"name": "c", "children": []}]}, {"name": "d", "children": []}]}, {"name": "e"}]
PEOPLE = [{"name": "Zoe", "city": "Oslo", "age": 30}, {"name": "adam", "city": "bergen", "age": 4}, {"name": "Bo", "city": "oslo", "age": 30},
          {"name": "Cy", "city": "Bergen", "age": 4}, {"name": "Di"}]
VARIABLES = {"tree": TREE, "people": PEOPLE, "large": 12345678901234567890, "largest": 18446744073709551615, "edge": 9223372036854775808,
             "small": -9223372036854775808, "text": "The quick brown fox jumps over the lazy dog", "word": "Ünïcode", "real": 0.1, "half": 2.5,
             "numbers": [3, 1, 2], "objects": {"k": 12345678901234567890, "f": 1e22, "t": True}}

TEMPLATES = [
    # integers that a double cannot hold
    "{{ large }} {{ largest }} {{ edge }} {{ small }}", "{{ messages[0].n }}", "{{ objects }}", "{{ objects | tojson }}", "{{ [large, small] }}",
    "{{ large | int }} {{ large | string }} {{ large | abs }} {{ large | round }}", "{{ '12345678901234567890' | int }}", "{{ large == 12345678901234567890 }}",
    "{{ large == largest }} {{ large < largest }} {{ large > small }} {{ large in [1, large] }}", "{{ large is integer }} {{ large is number }} {{ large is string }}",
    "{{ {large: 1}[large] }}", "{{ [largest, large, edge] | sort }}", "{{ [large, 5] | max }} {{ [large, 5] | min }}", "{{ '%d' % large }} {{ '%s' % large }}",
    "{{ 9007199254740993 }} {{ 9007199254740993 | round }} {{ 9007199254740993 | tojson }} {{ 5 | round }} {{ 2.5 | round }} {{ 3.7 | round | int }}",
    "{{ +large }}", "{{ large | float }}", "{{ real }} {{ half }} {{ objects.f }} {{ 1e16 }} {{ 1.5e-7 }}", "{{ large if large else 0 }} {{ large | default(1) }}",
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % -3 }} {{ 2 ** 10 }} {{ 7 / 2 }}", "{{ 4611686018427387904 * 2 - 1 }}" if False else "{{ 4611686018427387903 * 2 }}",
    # loops
    "{% for n in tree recursive %}[{{ n.name }}{% if n.children %}{{ loop(n.children) }}{% endif %}]{% endfor %}",
    "{% for n in tree recursive %}{{ loop.depth }}{{ loop.depth0 }}{{ loop.index }}{{ n.name }} {% if n.children %}({{ loop(n.children) }}){% else %}.{% endif %}{% endfor %}",
    "{% set x = 'o' %}{% for n in tree recursive %}{{ x }}{{ n.name }}{{ loop(n.children or []) }}{% else %}none{% endfor %}",
    "{% macro m(n) %}<{{ n.name }}>{% endmacro %}{% for n in tree if n.name != 'e' recursive %}{{ m(n) }}{{ loop(n.children) }}{% endfor %}",
    "{% for n in numbers %}{{ loop(numbers) }}{% endfor %}",
    "{% for n in numbers %}{{ loop.cycle('odd', 'even') }}{{ loop.changed(n > 1) }}{{ loop.previtem }}{{ loop.nextitem }} {% endfor %}",
    # objects that change
    "{% set c = cycler('a', 'b', 'c') %}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.current }}",
    "{% set c = cycler(1, 2) %}{% for n in numbers %}{{ c.next() }}{{ n }}{% endfor %}", "{{ cycler() }}",
    "{% set j = joiner(', ') %}{% for n in numbers %}{{ j() }}{{ n }}{% endfor %}", "{% set j = joiner() %}{{ j() }}|{{ j() }}|{{ j() }}",
    "{% set ns = namespace(a=1) %}{% for n in numbers %}{% set ns.a = ns.a + n %}{% endfor %}{{ ns.a }}",
    # filters over lists
    "{% for k, v in people | groupby('city', default='none') %}{{ k }}:{{ v | map(attribute='name') | join(',') }};{% endfor %}",
    "{% for g in people | groupby('age', default=0) %}{{ g.grouper }}={{ g.list | length }} {% endfor %}",
    "{% for k, v in people | groupby('city', default='x', case_sensitive=True) %}{{ k }}{{ v | length }} {% endfor %}",
    "{{ (people | groupby('age', default=1))[0][0] }}", "{% for k, v in [] | groupby('a') %}{{ k }}{% else %}none{% endfor %}",
    "{% for part in [1,2,3,4,5,6,7] | slice(3) %}{{ part }}{% endfor %}", "{% for part in [1,2,3,4,5,6,7] | slice(3, 'x') %}{{ part }}{% endfor %}",
    "{% for part in [1,2,3,4] | slice(2, 'x') %}{{ part }}{% endfor %}", "{% for part in [1,2,3,4,5,6,7] | batch(3, 0) %}{{ part }}{% endfor %}",
    "{{ people | map(attribute='age', default=0) | sum }} {{ people | map('length') | list }}", "{{ numbers | sort(reverse=True) }} {{ ['b', 'A', 'c'] | sort }} {{ numbers | reverse | list }}",
    "{{ ['a', 'A', 'b'] | unique | list }} {{ people | selectattr('age') | map(attribute='name') | list }}", "{{ people | rejectattr('age', 'eq', 30) | map(attribute='name') | join(' ') }}",
    "{{ objects | dictsort }} {{ objects | items | list }} {{ 'abc' | first }}{{ 'abc' | last }} {{ [1, [2, 3]] | list | length }}",
    "{{ people[0] | attr('name') }}", "{{ text | attr('upper') }}" if False else "{{ 'a' | attr('nothing') }}|",
    # filters of text
    "{{ text | truncate(20) }}", "{{ text | truncate(20, True) }}", "{{ text | truncate(20, False, '…') }}", "{{ text | truncate(20, True, '', 0) }}", "{{ text | truncate(40) }}",
    "{{ text | truncate(2) }}", "{{ text | truncate(9, leeway=0) }}", "{{ 'abcdefghij' | truncate(5, leeway=0) }}", "{{ text | truncate }}",
    "[{{ 'ab' | center(7) }}][{{ 'abc' | center(6) }}][{{ word | center(12) }}][{{ 'abc' | center(2) }}]", "[{{ 'x' | center }}]",
    "{{ 'a b/c?d=é&~' | urlencode }}", "{{ word | upper }} {{ word | lower }} {{ word | title }} {{ word | capitalize }} {{ 'a-b c(d' | title }}",
    "{{ text | wordcount }} {{ '  x ' | trim }}| {{ '--x-' | trim('-') }} {{ 'a\nb' | indent }} {{ 'a\nb' | indent(2, True) }}", "{{ '<a href=\"x\">&</a>' | e }} {{ 'x' | safe }}",
    "{{ '%5s|%-5s|%s' | format('ab', 'cd', 'ef') }} {{ '%05d %x %.2f' | format(42, 255, 3.14159) }}", "{{ 'x' | replace('', '-') }} {{ 'aaa' | replace('a', 'b', 2) }}",
    # methods
    "[{{ 'ab'.center(7) }}][{{ 'ab'.ljust(4, '.') }}][{{ 'ab'.rjust(4) }}][{{ 'aBc'.swapcase() }}][{{ '7'.zfill(3) }}]", "{{ 'a,b,c'.rsplit(',', 1) }} {{ 'a b  c'.split() }} {{ 'aXbX'.split('X') }}",
    "{{ 'banana'.find('an') }} {{ 'banana'.rfind('an') }} {{ 'banana'.count('an') }} {{ 'banana'.partition('n') }} {{ 'banana'.rpartition('n') }} {{ 'b'.find('x') }}",
    "{{ 'aaaa'.rfind('aa') }} {{ ''.rfind('') }} {{ 'abc'.rfind('') }} {{ 'aabaab'.rsplit('ab') }}", "{{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.py'.removesuffix('.py') }} {{ 'ab'.startswith(('x', 'a')) }}",
    "{{ none | selectattr('x') | list }} {{ none | map('upper') | list }} {{ 0 | reject('odd') | list }} {{ undefined_name | rejectattr('a', 'eq', 1) | list }}", "{{ none | list }}",
    "{{ objects.keys() | list }} {{ objects.get('nope', 5) }} {{ numbers.index(1) }} {{ numbers.count(2) }}",
]


def main():
    rows = []
    messages = [{"role": "user", "content": "hi", "n": 12345678901234567890}]
    for template in TEMPLATES:
        try:
            text, _ = render_jinja_template(conversations=[messages], chat_template=template, **VARIABLES)
            rows.append({"template": template, "expected": text[0]})
        except Exception as error:  # what Jinja refuses
            rows.append({"template": template, "error": f"{type(error).__name__}: {error}"})
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (HERE / "builtins.json").write_text(
        f'{{"messages": {json.dumps(messages)},\n"variables": {json.dumps(VARIABLES, ensure_ascii=False)},\n"rows": [\n{lines}\n]}}\n', encoding="utf-8")
    print(len(rows), "rows,", sum("error" in row for row in rows), "refused")


main()
