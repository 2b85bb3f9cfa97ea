// The official Node client against the hub.
//
// Takes BASE_URL, API_KEY, MODEL and TAG from the environment; TAG-chat and TAG-stream are the last
// words of its two prompts. Prints one JSON object with what the client handed to its caller.

import { createRequire } from "node:module";
import { join } from "node:path";

// ES modules do not look at NODE_PATH, `require` from inside that folder does.
const require = createRequire(join(process.env.NODE_PATH, "program.js"));
const OpenAI = require("openai");
const { VERSION } = require("openai/version");

const model = process.env.MODEL;
const tag = process.env.TAG ?? "node";

// No retries: the test wants to see the first answer.
const client = (apiKey) =>
  new OpenAI({ baseURL: process.env.BASE_URL, apiKey, maxRetries: 0, timeout: 60_000 });

const messages = (name) => [
  { role: "system", content: "You are terse." },
  { role: "user", content: `Say something about ${tag}-${name}` },
];

const usage = (block) =>
  block
    ? {
        prompt: block.prompt_tokens,
        completion: block.completion_tokens,
        total: block.total_tokens,
      }
    : null;

const failure = (error) => ({
  class: error.constructor.name,
  status: error.status ?? null,
  code: error.code ?? null,
  type: error.type ?? null,
  message: String(error.message),
});

async function failing(call) {
  try {
    await call();
    return null;
  } catch (error) {
    return failure(error);
  }
}

async function models(hub) {
  const ids = [];
  for await (const one of hub.models.list()) ids.push(one.id);
  return ids;
}

async function chat(hub) {
  try {
    const answer = await hub.chat.completions.create({ model, messages: messages("chat") });
    const [choice] = answer.choices;
    return {
      id: answer.id,
      request_id: answer._request_id,
      model: answer.model,
      text: choice.message.content,
      finish_reason: choice.finish_reason,
      usage: usage(answer.usage),
    };
  } catch (error) {
    return { error: failure(error) };
  }
}

async function stream(hub) {
  const got = { text: "", chunks: 0, finish_reason: null, usage: null, error: null };
  try {
    const { data, response } = await hub.chat.completions
      .create({
        model,
        messages: messages("stream"),
        stream: true,
        stream_options: { include_usage: true },
      })
      .withResponse();
    got.request_id = response.headers.get("x-request-id");
    for await (const chunk of data) {
      got.chunks += 1;
      got.usage = usage(chunk.usage) ?? got.usage;
      for (const choice of chunk.choices) {
        got.text += choice.delta.content ?? "";
        got.finish_reason = choice.finish_reason ?? got.finish_reason;
      }
    }
  } catch (error) {
    got.error = failure(error);
  }
  return got;
}

const hub = client(process.env.API_KEY);
console.log(
  JSON.stringify({
    version: VERSION,
    models: await models(hub),
    chat: await chat(hub),
    stream: await stream(hub),
    unknown_model: await failing(() =>
      hub.chat.completions.create({ model: "no-such-model", messages: messages("unknown") }),
    ),
    wrong_key: await failing(() =>
      client("wrong").chat.completions.create({ model, messages: messages("wrong") }),
    ),
  }),
);
