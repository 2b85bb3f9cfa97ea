"""LangChain against the hub.

Takes BASE_URL, API_KEY and MODEL from the environment; the name of each case is the last word of its
prompt. Prints one JSON object: for each case what LangChain handed to its caller, and the ids that the
hub gave to its requests.
"""

import json
import os

import httpx
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

ids = []
noting = httpx.Client(
    event_hooks={"response": [lambda response: ids.append(response.headers.get("x-request-id"))]}
)

CITY = {
    "title": "City",
    "description": "Where somebody is",
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}


@tool
def forecast(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


def model(name=os.environ["MODEL"], key=os.environ["API_KEY"]):
    # No retries: the test wants to see the first answer.
    return ChatOpenAI(
        base_url=os.environ["BASE_URL"],
        api_key=key,
        model=name,
        stream_usage=True,
        max_retries=0,
        timeout=60,
        http_client=noting,
    )


def asked(name):
    return [HumanMessage(f"Say something about {name}")]


def told(message):
    counts = message.usage_metadata
    return {"text": message.content, "usage": [counts["input_tokens"], counts["output_tokens"]]}


def whole(chat, messages):
    return chat.invoke(messages)


def stream(chat, messages, got=None):
    message = None
    for chunk in chat.stream(messages):
        message = chunk if message is None else message + chunk
        if got is not None:
            got["text"] = message.content
    return message


def tools(answer, name):
    chat = model().bind_tools([forecast])
    messages = asked(name)
    calls = []
    while True:
        message = answer(chat, messages)
        if not message.tool_calls:
            return {**told(message), "calls": calls}
        messages.append(message)
        for call in message.tool_calls:
            calls.append([call["name"], call["args"]["city"]])
            result = forecast.invoke(call["args"])
            messages.append(ToolMessage(result, tool_call_id=call["id"]))


CASES = {
    "whole": lambda name, got: told(whole(model(), asked(name))),
    "stream": lambda name, got: told(stream(model(), asked(name))),
    "tools": lambda name, got: tools(whole, name),
    "stream_tools": lambda name, got: tools(stream, name),
    "object": lambda name, got: {"object": model().with_structured_output(CITY).invoke(asked(name))},
    "broken": lambda name, got: told(stream(model(), asked(name), got)),
    "failing": lambda name, got: told(whole(model(), asked(name))),
    "limited": lambda name, got: told(whole(model(), asked(name))),
    "wrong_key": lambda name, got: told(whole(model(key="wrong"), asked(name))),
    "unknown_model": lambda name, got: told(whole(model("no-such-model"), asked(name))),
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
