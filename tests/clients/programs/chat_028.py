"""The old Python client (openai 0.28) against the hub.

Takes BASE_URL, API_KEY, MODEL and TAG from the environment; TAG-chat and TAG-stream are the last
words of its two prompts. Prints one JSON object with what the client handed to its caller.
"""

import json
import os

import openai

MODEL = os.environ["MODEL"]
TAG = os.environ.get("TAG", "py028")

openai.api_base = os.environ["BASE_URL"]
openai.api_key = os.environ["API_KEY"]


def messages(name):
    return [{"role": "user", "content": f"Say something about {TAG}-{name}"}]


def failure(error):
    return {
        "class": type(error).__name__,
        "status": getattr(error, "http_status", None),
        "code": getattr(error, "code", None),
        "message": str(error),
    }


def failing(**arguments):
    try:
        openai.ChatCompletion.create(request_timeout=60, **arguments)
    except openai.error.OpenAIError as error:
        return failure(error)
    return None


def chat():
    try:
        answer = openai.ChatCompletion.create(
            model=MODEL, messages=messages("chat"), request_timeout=60
        )
    except openai.error.OpenAIError as error:
        return {"error": failure(error)}
    choice = answer["choices"][0]
    return {
        "id": answer["id"],
        "model": answer["model"],
        "text": choice["message"]["content"],
        "finish_reason": choice["finish_reason"],
        "usage": answer.get("usage"),
    }


def stream():
    got = {"text": "", "chunks": 0, "finish_reason": None, "error": None}
    try:
        chunks = openai.ChatCompletion.create(
            model=MODEL, messages=messages("stream"), stream=True, request_timeout=60
        )
        for chunk in chunks:
            got["chunks"] += 1
            for choice in chunk["choices"]:
                got["text"] += choice["delta"].get("content") or ""
                got["finish_reason"] = choice["finish_reason"] or got["finish_reason"]
    except Exception as error:  # A cut may surface as an error of the HTTP library.
        got["error"] = failure(error)
    return got


print(
    json.dumps(
        {
            "version": openai.version.VERSION,
            "models": [model["id"] for model in openai.Model.list()["data"]],
            "chat": chat(),
            "stream": stream(),
            "unknown_model": failing(model="no-such-model", messages=messages("unknown")),
            "wrong_key": failing(
                model=MODEL, messages=messages("wrong"), api_key="wrong"
            ),
        }
    )
)
