"""The official Python client (openai >= 1) against the hub.

Takes BASE_URL, API_KEY, MODEL and TAG from the environment; TAG-chat and TAG-stream are the last
words of its two prompts. Prints one JSON object with what the client handed to its caller.
"""

import json
import os

import openai

MODEL = os.environ["MODEL"]
TAG = os.environ.get("TAG", "py")


def client(key):
    # No retries: the test wants to see the first answer.
    return openai.OpenAI(
        base_url=os.environ["BASE_URL"], api_key=key, max_retries=0, timeout=60
    )


def messages(name):
    return [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": f"Say something about {TAG}-{name}"},
    ]


def usage(block):
    return block and {
        "prompt": block.prompt_tokens,
        "completion": block.completion_tokens,
        "total": block.total_tokens,
    }


def failure(error):
    return {
        "class": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "code": getattr(error, "code", None),
        "type": getattr(error, "type", None),
        "message": str(error),
    }


def failing(call):
    try:
        call()
    except openai.APIError as error:
        return failure(error)
    return None


def chat(hub):
    try:
        answer = hub.chat.completions.create(model=MODEL, messages=messages("chat"))
    except openai.APIError as error:
        return {"error": failure(error)}
    choice = answer.choices[0]
    return {
        "id": answer.id,
        "request_id": answer._request_id,
        "model": answer.model,
        "text": choice.message.content,
        "finish_reason": choice.finish_reason,
        "usage": usage(answer.usage),
    }


def stream(hub):
    got = {"text": "", "chunks": 0, "finish_reason": None, "usage": None, "error": None}
    try:
        chunks = hub.chat.completions.create(
            model=MODEL,
            messages=messages("stream"),
            stream=True,
            stream_options={"include_usage": True},
        )
        got["request_id"] = chunks.response.headers.get("x-request-id")
        for chunk in chunks:
            got["chunks"] += 1
            got["usage"] = usage(chunk.usage) or got["usage"]
            for choice in chunk.choices:
                got["text"] += choice.delta.content or ""
                got["finish_reason"] = choice.finish_reason or got["finish_reason"]
    except Exception as error:  # A cut may surface as an error of the HTTP library.
        got["error"] = failure(error)
    return got


hub = client(os.environ["API_KEY"])
print(
    json.dumps(
        {
            "version": openai.__version__,
            "models": [model.id for model in hub.models.list()],
            "chat": chat(hub),
            "stream": stream(hub),
            "unknown_model": failing(
                lambda: hub.chat.completions.create(
                    model="no-such-model", messages=messages("unknown")
                )
            ),
            "wrong_key": failing(
                lambda: client("wrong").chat.completions.create(
                    model=MODEL, messages=messages("wrong")
                )
            ),
        }
    )
)
