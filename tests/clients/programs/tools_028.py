"""Tool calls with the old Python client (openai 0.28).

Takes BASE_URL, API_KEY, MODEL and TAG from the environment; TAG is the last word of the prompt.
Prints one JSON object with what the client handed to its caller.
"""

import json
import os

import openai

openai.api_base = os.environ["BASE_URL"]
openai.api_key = os.environ["API_KEY"]

ASK = {
    "model": os.environ["MODEL"],
    "messages": [{"role": "user", "content": f"What will the weather be? {os.environ['TAG']}"}],
    "tools": [{"type": "function", "function": {"name": "forecast", "parameters": {}}}],
    "request_timeout": 60,
}


def whole():
    choice = openai.ChatCompletion.create(**ASK)["choices"][0]
    calls = [
        {"id": one["id"], **one["function"]} for one in choice["message"]["tool_calls"]
    ]
    return {"calls": calls, "finish_reason": choice["finish_reason"]}


def stream():
    calls = {}
    finish_reason = None
    for chunk in openai.ChatCompletion.create(stream=True, **ASK):
        for choice in chunk["choices"]:
            finish_reason = choice["finish_reason"] or finish_reason
            for piece in choice["delta"].get("tool_calls", []):
                one = calls.setdefault(piece["index"], {"name": "", "arguments": ""})
                one["id"] = piece.get("id") or one["id"]
                one["name"] += piece["function"].get("name", "")
                one["arguments"] += piece["function"]["arguments"]
    return {"calls": list(calls.values()), "finish_reason": finish_reason}


print(json.dumps({"whole": whole(), "stream": stream()}))
