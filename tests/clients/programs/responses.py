"""Responses with the official Python client; prints what it handed to its caller."""

import json
import os

import openai

MODEL = os.environ["MODEL"]
TAG = os.environ["TAG"]
TOOLS = [
    {
        "type": "function",
        "name": "forecast",
        "description": "The weather",
        "strict": False,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
]

hub = openai.OpenAI(
    base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], max_retries=0, timeout=60
)


def told(response):
    return {
        "id": response.id,
        "status": response.status,
        "text": response.output_text,
        "usage": {"input": response.usage.input_tokens, "output": response.usage.output_tokens},
    }


def calls(response):
    return [
        {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
        for item in response.output
        if item.type == "function_call"
    ]


def whole():
    return told(
        hub.responses.create(
            model=MODEL, instructions="Be terse.", input=f"About {TAG}-whole", metadata={"a": "b"}
        )
    )


def stream():
    deltas = ""
    with hub.responses.stream(model=MODEL, input=f"About {TAG}-stream") as events:
        for event in events:
            if event.type == "response.output_text.delta":
                deltas += event.delta
        return {**told(events.get_final_response()), "deltas": deltas}


def tools():
    asked = [{"role": "user", "content": f"About {TAG}-tools"}]
    response = hub.responses.create(model=MODEL, input=asked, tools=TOOLS)
    streamed = None
    for event in hub.responses.create(model=MODEL, input=asked, tools=TOOLS, stream=True):
        if event.type == "response.completed":
            streamed = calls(event.response)
    results = [
        {"type": "function_call_output", "call_id": call["call_id"], "output": "21"}
        for call in calls(response)
    ]
    then = hub.responses.create(
        model=MODEL, input=asked + list(response.output) + results, tools=TOOLS
    )
    return {"calls": calls(response), "streamed": streamed, "then": told(then)}


def refused():
    try:
        hub.responses.create(model=MODEL, input="x", previous_response_id="resp_1")
    except openai.BadRequestError as error:
        return {"status": error.status_code, "param": error.param}
    return None


print(json.dumps({"whole": whole(), "stream": stream(), "tools": tools(), "refused": refused()}))
