// The Vercel AI SDK against the hub.
//
// Takes BASE_URL, API_KEY and MODEL from the environment; the name of each case is the last word of its
// prompt. Prints one JSON object: for each case what the SDK handed to its caller, and the ids that the
// hub gave to its requests.

import { createRequire } from "node:module";
import { join } from "node:path";

// ES modules do not look at NODE_PATH, `require` from inside that folder does.
const require = createRequire(join(process.env.NODE_PATH, "program.js"));
const { generateObject, generateText, jsonSchema, stepCountIs, streamText, tool } = require("ai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");

const { BASE_URL: baseURL, API_KEY, MODEL } = process.env;
let ids = [];

// A provider that notes the ids of requests, in the way its documentation shows for logging.
const model = (name = MODEL, apiKey = API_KEY) =>
  createOpenAICompatible({
    name: "nexus",
    baseURL,
    apiKey,
    includeUsage: true,
    supportsStructuredOutputs: true,
    fetch: async (...request) => {
      const response = await fetch(...request);
      ids.push(response.headers.get("x-request-id"));
      return response;
    },
  })(name);

// No retries: the test wants to see the first answer.
const asked = (name) => ({ prompt: `Say something about ${name}`, maxRetries: 0 });

const city = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = {
  forecast: tool({ inputSchema: jsonSchema(city), execute: async ({ city }) => `rain in ${city}` }),
};
const agent = { tools, stopWhen: stepCountIs(4) };

const calls = (steps) =>
  steps.flatMap(({ toolCalls }) => toolCalls.map(({ toolName, input }) => [toolName, input.city]));
const usage = (block) => [block.inputTokens, block.outputTokens];
const failure = (error) => ({
  class: error.name ?? null,
  status: error.statusCode ?? null,
  message: String(error.message ?? error),
});

async function whole(name, options = {}) {
  const got = await generateText({ model: model(), ...asked(name), ...options });
  return { text: got.text, usage: usage(got.usage), calls: calls(got.steps) };
}

async function stream(name, options = {}) {
  const got = { text: "", error: null };
  // What goes wrong in the middle is a part of the stream; nothing is printed beside it.
  const result = streamText({ model: model(), ...asked(name), ...options, onError: () => {} });
  for await (const part of result.fullStream) {
    if (part.type === "text-delta") got.text += part.text;
    if (part.type === "error") got.error = failure(part.error);
    if (part.type === "finish") got.finish_reason = part.finishReason;
  }
  if (got.error) return got;
  return { ...got, usage: usage(await result.usage), calls: calls(await result.steps) };
}

async function object(name) {
  const got = await generateObject({ model: model(), schema: jsonSchema(city), ...asked(name) });
  return { object: got.object };
}

const fails = (name, ...of) => generateText({ model: model(...of), ...asked(name) });

const cases = {
  whole,
  stream,
  tools: (name) => whole(name, agent),
  stream_tools: (name) => stream(name, agent),
  object,
  broken: stream,
  failing: fails,
  limited: fails,
  wrong_key: (name) => fails(name, MODEL, "wrong"),
  unknown_model: (name) => fails(name, "no-such-model"),
};

const told = {};
for (const [name, run] of Object.entries(cases)) {
  ids = [];
  const got = await run(name).catch((error) => ({ error: failure(error) }));
  told[name] = { error: null, ...got, ids };
}
console.log(JSON.stringify(told));
