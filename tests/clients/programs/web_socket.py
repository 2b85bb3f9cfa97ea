"""Two requests over one WebSocket, with the `websockets` library.

Takes BASE_URL, API_KEY, MODEL and TAG from the environment; TAG is the last word of each prompt.
Sends the key as a browser does, as a subprotocol. Prints one JSON object with what came back.
"""

import json
import os

from websockets.sync.client import connect

ADDRESS = os.environ["BASE_URL"].replace("http", "ws", 1).removesuffix("/v1") + "/ws/chat"
PROMPT = f"What will the weather be? {os.environ['TAG']}"


def frames(socket, name):
    while True:
        frame = json.loads(socket.recv(timeout=60))
        assert frame["id"] == name, frame
        yield frame
        if frame["type"] in ("done", "error"):
            return


def streamed(answer):
    chunks = [frame["chunk"] for frame in answer if frame["type"] == "chunk"]
    deltas = [choice["delta"].get("content") or "" for one in chunks for choice in one["choices"]]
    return "".join(deltas)


with connect(ADDRESS, subprotocols=["nexus.v1", "nexus-key." + os.environ["API_KEY"]]) as socket:
    simple = {"id": "simple", "message": PROMPT, "model_name": os.environ["MODEL"]}
    socket.send(json.dumps(simple))
    text = streamed(frames(socket, "simple"))
    messages = [
        {"role": "user", "content": PROMPT},
        {"role": "assistant", "content": text},
        {"role": "user", "content": PROMPT},
    ]
    body = {"model": os.environ["MODEL"], "messages": messages}
    socket.send(json.dumps({"type": "chat", "id": "whole", "body": body}))
    started, answer, done = frames(socket, "whole")
    print(
        json.dumps(
            {
                "protocol": socket.subprotocol,
                "streamed": text,
                "whole": answer["body"]["choices"][0]["message"]["content"],
                "last": done["type"],
                "request_id": started["request_id"],
                "conversation_id": started["conversation_id"],
            }
        )
    )
