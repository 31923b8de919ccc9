"""Drives lathe-serve with the clients that people have, unchanged: openai, and huggingface_hub's InferenceClient.

usage: clients.py PROGRAM TESTS_GOLDEN
Ends with 77 (ctest: skipped) where one of the packages of requirements.txt is missing.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import openai
    import pydantic
    from huggingface_hub import InferenceClient
except ImportError as missing:
    print(f"skipped: {missing}; pip install -r tests/serve/clients/requirements.txt")
    sys.exit(77)

from tiny_server import TOOL_TEMPLATE, Server, make_model

MESSAGES = [{"role": "system", "content": "it"}, {"role": "user", "content": "it is"}]
GREEDY = {"temperature": 0, "max_tokens": 20, "extra_body": {"ignore_eos": True}}


def chat(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=MESSAGES, **GREEDY)
    assert whole.choices[0].finish_reason == "length" and whole.usage.completion_tokens == 20
    stream = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True,
                                            stream_options={"include_usage": True}, **GREEDY)
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices].count("length") == 1
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage.model_copy(
        update={"prompt_tokens_details": chunks[-1].usage.prompt_tokens_details})

    several = client.chat.completions.create(model="tiny", messages=MESSAGES, n=3, seed=1, max_tokens=5, logprobs=True,
                                             top_logprobs=2)
    assert len(several.choices) == 3
    for choice in several.choices:
        for token in choice.logprobs.content:
            assert len(token.top_logprobs) == 2 and token.logprob <= 0 and bytes(token.bytes) is not None


def chat_with_the_stream_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="tiny", messages=MESSAGES, **GREEDY) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.current_completion_snapshot
    assert text == final.choices[0].message.content and final.choices[0].finish_reason == "length"


def tool_calls(client: openai.OpenAI) -> None:
    def tool(name: str, properties: dict) -> dict:
        schema = {"type": "object", "properties": properties, "required": list(properties),
                  "additionalProperties": False}
        return {"type": "function", "function": {"name": name, "parameters": schema, "strict": True}}

    tools = [tool("order", {"size": {"enum": ["s", "m"]}, "many": {"type": "boolean"}}),
             tool("count", {"n": {"type": "integer", "minimum": 0, "maximum": 9}})]

    def check(calls: list) -> None:
        assert calls
        for call in calls:
            arguments = json.loads(call.function.arguments)
            if call.function.name == "order":
                assert arguments.keys() == {"size", "many"} and arguments["size"] in "sm"
            else:
                assert call.function.name == "count" and 0 <= arguments["n"] <= 9

    asked = {"model": "tiny", "messages": MESSAGES, "tools": tools, "max_tokens": 220}
    whole = client.chat.completions.create(tool_choice="required", seed=1, **asked).choices[0]
    assert whole.finish_reason == "tool_calls" and whole.message.content is None
    check(whole.message.tool_calls)
    with client.chat.completions.stream(tool_choice="required", seed=1, **asked) as stream:
        for _ in stream:
            pass
        streamed = stream.current_completion_snapshot.choices[0]
    assert streamed.finish_reason == "tool_calls"
    assert [c.function.arguments for c in streamed.message.tool_calls] == [
        c.function.arguments for c in whole.message.tool_calls]
    named = client.chat.completions.create(tool_choice={"type": "function", "function": {"name": "count"}}, **asked)
    (call,) = named.choices[0].message.tool_calls
    assert call.function.name == "count"
    # The conversation goes on with what the tool said.
    history = MESSAGES + [named.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "it"}]
    client.chat.completions.create(model="tiny", messages=history, tools=tools, max_tokens=5)


def responses(client: openai.OpenAI) -> None:
    asked = {"model": "tiny", "input": "it is", "instructions": "it", "max_output_tokens": 20, "temperature": 0,
             "extra_body": {"ignore_eos": True}}
    whole = client.responses.create(**asked)
    assert whole.status == "incomplete" and whole.incomplete_details.reason == "max_output_tokens"
    assert whole.usage.output_tokens == 20 and whole.output_text
    with client.responses.stream(**asked) as stream:
        events = list(stream)
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].type == "response.incomplete"
    assert text == whole.output_text == events[-1].response.output_text

    tool = {"type": "function", "name": "order", "strict": True, "parameters": {
        "type": "object", "properties": {"size": {"enum": ["s", "m"]}}, "required": ["size"],
        "additionalProperties": False}}
    called = client.responses.create(model="tiny", input="it is", tools=[tool], tool_choice="required",
                                     parallel_tool_calls=False, max_output_tokens=220, extra_body={"seed": 1})
    call = called.output[0]
    assert call.type == "function_call" and json.loads(call.arguments)["size"] in ("s", "m")
    history = [{"role": "user", "content": "it is"}, call,
               {"type": "function_call_output", "call_id": call.call_id, "output": "so"}]
    client.responses.create(model="tiny", input=history, tools=[tool], max_output_tokens=5)

    class Order(pydantic.BaseModel):
        many: bool

    parsed = client.responses.parse(model="tiny", input="it is", text_format=Order, max_output_tokens=220)
    assert isinstance(parsed.output_parsed.many, bool)


def completions(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="tiny", prompt=["it is", "is"], echo=True, **GREEDY)
    assert [c.text.startswith(p) for c, p in zip(whole.choices, ("it is", "is"))] == [True, True]
    stream = client.completions.create(model="tiny", prompt="it is", stream=True, **GREEDY)
    assert "it is" + "".join(c.choices[0].text for c in stream) == whole.choices[0].text
    echoed = client.completions.create(model="tiny", prompt="it is", echo=True, logprobs=1, temperature=0, max_tokens=0)
    assert echoed.choices[0].text == "it is" and echoed.choices[0].logprobs.token_logprobs[0] is None
    scored = client.completions.create(model="tiny", prompt="it is", logprobs=2, **GREEDY)
    assert len(scored.choices[0].logprobs.tokens) == 20 and len(scored.choices[0].logprobs.top_logprobs) == 20


def models_and_embeddings(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    by_default = client.embeddings.create(model="tiny", input=["it is", "is"])  # the client asks for base64
    as_numbers = client.embeddings.create(model="tiny", input=["it is", "is"], encoding_format="float")
    for a, b in zip(by_default.data, as_numbers.data):
        assert len(a.embedding) == 64
        assert all(abs(x - y) < 1e-6 for x, y in zip(a.embedding, b.embedding))


def errors(client: openai.OpenAI, url: str) -> None:
    def expect(kind, call):
        try:
            call()
        except kind as error:
            return error
        raise AssertionError(f"expected {kind.__name__}")

    error = expect(openai.BadRequestError, lambda: client.chat.completions.create(model="tiny", messages=[]))
    assert error.param == "messages" and error.type == "invalid_request_error"
    expect(openai.NotFoundError, lambda: client.chat.completions.create(model="other", messages=MESSAGES))
    expect(openai.BadRequestError,
           lambda: client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=100000))
    stranger = openai.OpenAI(base_url=url + "/v1", api_key="wrong", max_retries=0)
    expect(openai.AuthenticationError, lambda: stranger.models.list())
    chat(client)


def text_generation_inference(url: str) -> None:
    # The client posts to its model's address itself, with the fields of TGI.
    client = InferenceClient(model=url, token="secret", timeout=60)
    whole = client.text_generation("it is", max_new_tokens=12, details=True)
    assert whole.details.generated_tokens == len(whole.details.tokens) <= 12
    assert "".join(t.text for t in whole.details.tokens) == whole.generated_text
    streamed = list(client.text_generation("it is", max_new_tokens=12, stream=True, details=True))
    assert streamed[-1].generated_text == whole.generated_text
    assert [s.token.id for s in streamed] == [t.id for t in whole.details.tokens]
    assert client.text_generation("it is", max_new_tokens=12) == whole.generated_text
    sampled = [client.text_generation("it is", max_new_tokens=12, do_sample=True, seed=5) for _ in range(2)]
    assert sampled[0] == sampled[1]
    answer = InferenceClient(base_url=url + "/v1", api_key="secret").chat_completion(MESSAGES, model="tiny", max_tokens=5)
    assert answer.choices[0].message.role == "assistant"


def weights_in_codes(program: str, model: pathlib.Path) -> None:
    asked = {"model": "tiny", "prompt": "it is", "logprobs": 1, **GREEDY}
    answers = []
    for flags in ((), ("--load_in_8bit",), ("--load_in_4bit", "--bnb_4bit_use_double_quant")):
        server = Server(program, model, *flags)
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60)
        answers.append([client.completions.create(**asked).choices[0].logprobs.token_logprobs for _ in range(2)])
        server.stop()
    assert all(first == again for first, again in answers)
    assert len({tuple(first) for first, _ in answers}) == 3
    both = subprocess.run([program, str(model), "--port", "0", "--load_in_4bit", "--load_in_8bit"], timeout=60,
                          capture_output=True, text=True)
    assert both.returncode == 2 and "load_in_8bit" in both.stderr


def main() -> None:
    program, golden = sys.argv[1], pathlib.Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        keys = folder / "keys"
        keys.write_text("secret me admin\n")
        model = make_model(golden, folder, TOOL_TEMPLATE)
        server = Server(program, model, "--api_keys", str(keys))
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="secret", max_retries=0, timeout=60)
        for check in (chat, chat_with_the_stream_helper, tool_calls, responses, completions, models_and_embeddings):
            check(client)
            print("passed:", check.__name__)
        errors(client, server.url)
        print("passed: errors")
        text_generation_inference(server.url)
        print("passed: text_generation_inference")
        server.stop()
        weights_in_codes(program, model)
        print("passed: weights_in_codes")


if __name__ == "__main__":
    main()
