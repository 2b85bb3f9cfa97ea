// Embeddings with the official client for Node, which asks for base64; prints what it handed over.

import { createRequire } from "node:module";
import { join } from "node:path";

// ES modules do not look at NODE_PATH, `require` from inside that folder does.
const require = createRequire(join(process.env.NODE_PATH, "program.js"));
const OpenAI = require("openai");

const { BASE_URL, API_KEY, MODEL } = process.env;
const hub = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0, timeout: 60_000 });

async function told(request) {
  const answer = await hub.embeddings.create({ model: MODEL, ...request });
  return {
    vectors: answer.data.map((one) => Array.from(one.embedding)),
    usage: [answer.usage.prompt_tokens, answer.usage.total_tokens],
  };
}

async function refused(request) {
  try {
    await told(request);
  } catch (error) {
    return error.param;
  }
  return null;
}

const got = {
  one: await told({ input: "a b" }),
  several: await told({ input: ["a b", "c"], dimensions: 8, user: "ann" }),
  float: await told({ input: "a b", encoding_format: "float" }),
  tokens: await told({ input: [[1, 2, 3]], dimensions: 8 }),
  refused: await refused({ input: [] }),
};
console.log(JSON.stringify(got));
