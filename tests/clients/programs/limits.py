"""Limits as the official Python client (openai >= 1) shows them.

Takes BASE_URL, API_KEY and MODEL from the environment. Asks twice; prints one JSON object with the
headers that came with each, and the error that the second one raised.
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


def ask():
    return hub.chat.completions.with_raw_response.create(
        model=os.environ["MODEL"],
        max_tokens=100,
        messages=[{"role": "user", "content": "How far may I go?"}],
    )


def limits(headers):
    return {
        name.removeprefix("x-ratelimit-"): value
        for name, value in headers.items()
        if name.startswith("x-ratelimit-")
    }


first = ask()
try:
    ask()
    refused = None
except openai.RateLimitError as error:
    refused = {
        "type": error.type,
        "code": error.code,
        "retry_after": error.response.headers.get("retry-after"),
        "limits": limits(error.response.headers),
    }
print(
    json.dumps(
        {
            "text": first.parse().choices[0].message.content,
            "limits": limits(first.headers),
            "refused": refused,
        }
    )
)
