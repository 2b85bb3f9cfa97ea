"""Embeddings with the official Python client, which asks for base64; prints what it handed over."""

import json
import os

import openai

hub = openai.OpenAI(
    base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], max_retries=0, timeout=60
)


def told(**request):
    answer = hub.embeddings.create(model=os.environ["MODEL"], **request)
    return {
        "vectors": [one.embedding for one in answer.data],
        "usage": [answer.usage.prompt_tokens, answer.usage.total_tokens],
    }


def refused(**request):
    try:
        told(**request)
    except openai.BadRequestError as error:
        return error.param
    return None


print(
    json.dumps(
        {
            "one": told(input="a b"),
            "several": told(input=["a b", "c"], dimensions=8, user="ann"),
            "float": told(input="a b", encoding_format="float"),
            "tokens": told(input=[[1, 2, 3]], dimensions=8),
            "refused": refused(input=[]),
        }
    )
)
