"""Completions with the official Python client (openai >= 1); prints what it handed to its caller."""

import json
import os

import openai

MODEL = os.environ["MODEL"]
TAG = os.environ["TAG"]

hub = openai.OpenAI(
    base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], max_retries=0, timeout=60
)


def whole():
    answer = hub.completions.create(model=MODEL, prompt=f"About {TAG}-whole", max_tokens=64)
    choice = answer.choices[0]
    return {
        "object": answer.object,
        "text": choice.text,
        "finish_reason": choice.finish_reason,
        "usage": answer.usage.total_tokens,
    }


def stream():
    got = {"text": "", "finish_reason": None}
    for chunk in hub.completions.create(model=MODEL, prompt=[f"About {TAG}-stream"], stream=True):
        for choice in chunk.choices:
            got["text"] += choice.text
            got["finish_reason"] = choice.finish_reason or got["finish_reason"]
    return got


def refused():
    try:
        hub.completions.create(model=MODEL, prompt="x", suffix="y")
    except openai.BadRequestError as error:
        return error.param
    return None


print(json.dumps({"whole": whole(), "stream": stream(), "refused": refused()}))
