"""OpenAI's own tokenizer (tiktoken) as the reference for the hub's counts.

Takes from the environment: CASES, a JSON file with `texts` and `chats`; TIKTOKEN_CACHE_DIR, a folder
with the vocabularies under the names that tiktoken looks for, because there is no internet. It compares
them with the hashes that OpenAI published, so another vocabulary cannot slip in. Prints by vocabulary the
number of tokens of each text, and of each chat by the rule of the OpenAI Cookbook, "How to count tokens
with tiktoken".
"""

import json
import os
import pathlib

import tiktoken

# What the Cookbook says of the models of each vocabulary: what a function begins with.
FUNCTION_STARTS = {"cl100k_base": 10, "o200k_base": 7}


def count(encoding, text):
    # What looks like a special token is text: people type it.
    return len(encoding.encode_ordinary(text))


def messages_tokens(encoding, messages):
    total = 3  # the answer is begun with <|start|>assistant<|message|>
    for message in messages:
        total += 3
        for member, text in message.items():
            total += count(encoding, text)
            if member == "name":
                total += 1
    return total


def without_stop(text):
    return text[:-1] if text.endswith(".") else text


def functions_tokens(encoding, start, tools):
    if not tools:
        return 0
    total = 12
    for tool in tools:
        function = tool["function"]
        total += start + count(encoding, function["name"] + ":" + without_stop(function["description"]))
        properties = function["parameters"]["properties"]
        if properties:
            total += 3
        for name, schema in properties.items():
            total += 3
            if "enum" in schema:
                total -= 3
                total += sum(3 + count(encoding, value) for value in schema["enum"])
            total += count(encoding, f"{name}:{schema['type']}:{without_stop(schema['description'])}")
    return total


def main():
    cases = json.loads(pathlib.Path(os.environ["CASES"]).read_text(encoding="utf-8"))
    counts = {}
    for name, start in FUNCTION_STARTS.items():
        encoding = tiktoken.get_encoding(name)
        counts[name] = {
            "texts": [count(encoding, text) for text in cases["texts"]],
            "chats": [
                messages_tokens(encoding, chat["messages"]) + functions_tokens(encoding, start, chat.get("tools"))
                for chat in cases["chats"]
            ],
        }
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
