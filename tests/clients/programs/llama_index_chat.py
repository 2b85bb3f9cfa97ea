"""LlamaIndex against the hub.

Takes BASE_URL, API_KEY and MODEL from the environment; the name of each case is the last word of its
prompt. Prints one JSON object: for each case what LlamaIndex handed to its caller, and the ids that the
hub gave to its requests.
"""

import json
import os

import httpx
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

ids = []
noting = httpx.Client(
    event_hooks={"response": [lambda response: ids.append(response.headers.get("x-request-id"))]}
)


class City(BaseModel):
    """Where somebody is."""

    city: str


def forecast(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


TOOL = FunctionTool.from_defaults(fn=forecast)


def model(name=os.environ["MODEL"], key=os.environ["API_KEY"]):
    # No retries: the test wants to see the first answer.
    return OpenAILike(
        api_base=os.environ["BASE_URL"],
        api_key=key,
        model=name,
        is_chat_model=True,
        is_function_calling_model=True,
        should_use_structured_outputs=True,
        max_retries=0,
        timeout=60,
        http_client=noting,
    )


def asked(name):
    return [ChatMessage(role="user", content=f"Say something about {name}")]


def told(response, text=None):
    counts = response.raw.usage
    said = response.message.content if text is None else text
    return {"text": said, "usage": [counts.prompt_tokens, counts.completion_tokens]}


def stream(llm, messages, got):
    for response in llm.stream_chat(messages, stream_options={"include_usage": True}):
        got["text"] = response.message.content
    return told(response)


def stream_with_tools(llm, messages):
    options = {"stream_options": {"include_usage": True}}
    for response in llm.stream_chat_with_tools([TOOL], chat_history=messages, **options):
        pass
    return response


def whole_with_tools(llm, messages):
    return llm.chat_with_tools([TOOL], chat_history=messages)


def tools(answer, name):
    llm = model()
    messages = asked(name)
    calls = []
    while True:
        response = answer(llm, messages)
        wanted = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
        if not wanted:
            return {**told(response), "calls": calls}
        messages.append(response.message)
        for call in wanted:
            calls.append([call.tool_name, call.tool_kwargs["city"]])
            result = TOOL(**call.tool_kwargs).content
            messages.append(
                ChatMessage(
                    role="tool", content=result, additional_kwargs={"tool_call_id": call.tool_id}
                )
            )


def structured(name):
    response = model().as_structured_llm(City).chat(asked(name))
    return {"object": response.raw.model_dump()}


CASES = {
    "whole": lambda name, got: told(model().chat(asked(name))),
    "stream": lambda name, got: stream(model(), asked(name), got),
    "tools": lambda name, got: tools(whole_with_tools, name),
    "stream_tools": lambda name, got: tools(stream_with_tools, name),
    "object": lambda name, got: structured(name),
    "broken": lambda name, got: stream(model(), asked(name), got),
    "failing": lambda name, got: told(model().chat(asked(name))),
    "limited": lambda name, got: told(model().chat(asked(name))),
    "wrong_key": lambda name, got: told(model(key="wrong").chat(asked(name))),
    "unknown_model": lambda name, got: told(model("no-such-model").chat(asked(name))),
}


def run(name):
    ids.clear()
    got = {"error": None}
    try:
        got.update(CASES[name](name, got))
    except Exception as error:  # Whatever class a caller would have to catch.
        status = getattr(error, "status_code", None)
        got["error"] = {"class": type(error).__name__, "status": status, "message": str(error)}
    return {**got, "ids": list(ids)}


print(json.dumps({name: run(name) for name in CASES}))
