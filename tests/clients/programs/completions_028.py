"""Completions with the old Python client (openai 0.28); prints what it handed to its caller."""

import json
import os

import openai

MODEL = os.environ["MODEL"]
TAG = os.environ["TAG"]

openai.api_base = os.environ["BASE_URL"]
openai.api_key = os.environ["API_KEY"]


def whole():
    answer = openai.Completion.create(model=MODEL, prompt=f"About {TAG}-whole", max_tokens=64)
    choice = answer.choices[0]
    return {
        "object": answer.object,
        "text": choice.text,
        "finish_reason": choice.finish_reason,
        "usage": answer.usage.total_tokens,
    }


def stream():
    got = {"text": "", "finish_reason": None}
    for chunk in openai.Completion.create(model=MODEL, prompt=f"About {TAG}-stream", stream=True):
        for choice in chunk.choices:
            got["text"] += choice.text
            got["finish_reason"] = choice.finish_reason or got["finish_reason"]
    return got


def refused():
    try:
        openai.Completion.create(model=MODEL, prompt="x", suffix="y")
    except openai.error.InvalidRequestError as error:
        return error.param
    return None


print(json.dumps({"whole": whole(), "stream": stream(), "refused": refused()}))
