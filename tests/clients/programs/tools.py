"""Tool calls with the official Python client (openai >= 1).

Takes BASE_URL, API_KEY, MODEL and TAG from the environment; TAG is the last word of the prompt.
Asks for a tool call in both modes and goes on with its result, as an agent does. Prints one JSON
object with what the client handed to its caller.
"""

import json
import os

import openai

hub = openai.OpenAI(
    base_url=os.environ["BASE_URL"],
    api_key=os.environ["API_KEY"],
    max_retries=0,
    timeout=60,
)
MODEL = os.environ["MODEL"]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "forecast",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


def question():
    return [{"role": "user", "content": f"What will the weather be? {os.environ['TAG']}"}]


def call(message):
    return [
        {"id": one.id, "name": one.function.name, "arguments": one.function.arguments}
        for one in message.tool_calls
    ]


def whole():
    messages = question()
    raw = hub.chat.completions.with_raw_response.create(
        model=MODEL, messages=messages, tools=TOOLS
    )
    choice = raw.parse().choices[0]
    # The client's own object goes back into the history, as its documentation shows it.
    messages.append(choice.message)
    messages.append(
        {"role": "tool", "tool_call_id": choice.message.tool_calls[0].id, "content": "12 °C"}
    )
    then = hub.chat.completions.with_raw_response.create(
        model=MODEL, messages=messages, tools=TOOLS
    )
    return {
        "calls": call(choice.message),
        "finish_reason": choice.finish_reason,
        "conversation": raw.headers["x-conversation-id"],
        "then_calls": call(then.parse().choices[0].message),
        "then_conversation": then.headers["x-conversation-id"],
        "then_request": then.headers["x-request-id"],
    }


def stream():
    calls = {}
    finish_reason = None
    chunks = hub.chat.completions.create(
        model=MODEL, messages=question(), tools=TOOLS, stream=True
    )
    for chunk in chunks:
        for choice in chunk.choices:
            finish_reason = choice.finish_reason or finish_reason
            for piece in choice.delta.tool_calls or []:
                one = calls.setdefault(piece.index, {"id": None, "name": "", "arguments": ""})
                one["id"] = piece.id or one["id"]
                one["name"] += piece.function.name or ""
                one["arguments"] += piece.function.arguments or ""
    return {"calls": list(calls.values()), "finish_reason": finish_reason}


print(json.dumps({"whole": whole(), "stream": stream()}))
