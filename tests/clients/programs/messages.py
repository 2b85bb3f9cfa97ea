"""The official Python client of Anthropic against the hub.

Takes BASE_URL (with /v1), API_KEY, MODEL and TAG from the environment; TAG-<what> is the last word
of each prompt. Prints one JSON object with what the client handed to its caller.
"""

import json
import os

import anthropic

MODEL = os.environ["MODEL"]
TAG = os.environ.get("TAG", "py")

TOOLS = [
    {
        "name": "forecast",
        "description": "The weather",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
]


def client(key):
    # No retries: the test wants to see the first answer.
    base = os.environ["BASE_URL"].removesuffix("/v1")
    return anthropic.Anthropic(base_url=base, api_key=key, max_retries=0, timeout=60)


def ask(name):
    return {
        "model": MODEL,
        "max_tokens": 64,
        "system": [
            {"type": "text", "text": "Be terse.", "cache_control": {"type": "ephemeral"}}
        ],
        "messages": [{"role": "user", "content": f"Say something about {TAG}-{name}"}],
    }


def failure(error):
    body = getattr(error, "body", None)
    return {
        "class": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "request_id": getattr(error, "request_id", None),
        "body": body if isinstance(body, dict) else str(body),
    }


def failing(call):
    try:
        call()
    except anthropic.APIError as error:
        return failure(error)
    return None


def told(message):
    return {
        "id": message.id,
        "request_id": getattr(message, "_request_id", None),
        "role": message.role,
        "text": "".join(block.text for block in message.content if block.type == "text"),
        "calls": [
            {"id": block.id, "name": block.name, "input": block.input}
            for block in message.content
            if block.type == "tool_use"
        ],
        "stop_reason": message.stop_reason,
        "usage": {
            "input": message.usage.input_tokens,
            "output": message.usage.output_tokens,
        },
    }


def whole(hub):
    try:
        return told(hub.messages.create(**ask("whole")))
    except anthropic.APIError as error:
        return {"error": failure(error)}


def stream(hub):
    got = {"text": "", "events": [], "error": None}
    try:
        with hub.messages.stream(**ask("stream")) as events:
            got["request_id"] = events.response.headers.get("request-id")
            for event in events:
                if event.type == "text":
                    got["text"] += event.text
                elif not got["events"] or got["events"][-1] != event.type:
                    got["events"].append(event.type)
            got["message"] = told(events.get_final_message())
    except Exception as error:  # A cut may surface as an error of the HTTP library.
        got["error"] = failure(error)
    return got


def tools(hub, streamed):
    request = {**ask("tools"), "tools": TOOLS, "tool_choice": {"type": "any"}}
    try:
        if streamed:
            with hub.messages.stream(**request) as events:
                answer = events.get_final_message()
        else:
            answer = hub.messages.create(**request)
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": "21"}
            for block in answer.content
            if block.type == "tool_use"
        ]
        request["messages"] += [
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": results},
        ]
        request["tool_choice"] = {"type": "auto"}
        return {**told(answer), "then": told(hub.messages.create(**request))}
    except anthropic.APIError as error:
        return {"error": failure(error)}


hub = client(os.environ["API_KEY"])
print(
    json.dumps(
        {
            "models": [model.id for model in hub.models.list()],
            "whole": whole(hub),
            "stream": stream(hub),
            "tools": tools(hub, streamed=False),
            "tools_streamed": tools(hub, streamed=True),
            "unknown_model": failing(
                lambda: hub.messages.create(**{**ask("unknown"), "model": "no-such-model"})
            ),
            "bad_request": failing(
                lambda: hub.messages.create(**ask("bad"), extra_body={"container": "c"})
            ),
            "wrong_key": failing(lambda: client("wrong").messages.create(**ask("wrong"))),
        }
    )
)
