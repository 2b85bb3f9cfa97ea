// Responses with the official client for Node; prints what it handed to its caller.

import { createRequire } from "node:module";
import { join } from "node:path";

// ES modules do not look at NODE_PATH, `require` from inside that folder does.
const require = createRequire(join(process.env.NODE_PATH, "program.js"));
const OpenAI = require("openai");

const { BASE_URL, API_KEY, MODEL, TAG } = process.env;
const hub = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0, timeout: 60_000 });
const TOOLS = [
  {
    type: "function",
    name: "forecast",
    description: "The weather",
    strict: false,
    parameters: { type: "object", properties: { city: { type: "string" } } },
  },
];

const told = (response) => ({
  id: response.id,
  status: response.status,
  text: response.output_text,
  usage: { input: response.usage.input_tokens, output: response.usage.output_tokens },
});

const calls = (response) =>
  response.output
    .filter((item) => item.type === "function_call")
    .map(({ call_id, name, arguments: text }) => ({ call_id, name, arguments: text }));

async function whole() {
  const input = `About ${TAG}-whole`;
  return told(await hub.responses.create({ model: MODEL, instructions: "Be terse.", input }));
}

async function stream() {
  let deltas = "";
  const events = hub.responses.stream({ model: MODEL, input: `About ${TAG}-stream` });
  for await (const event of events) {
    if (event.type === "response.output_text.delta") deltas += event.delta;
  }
  return { ...told(await events.finalResponse()), deltas };
}

async function tools() {
  const asked = [{ role: "user", content: `About ${TAG}-tools` }];
  const response = await hub.responses.create({ model: MODEL, input: asked, tools: TOOLS });
  let streamed = null;
  const request = { model: MODEL, input: asked, tools: TOOLS, stream: true };
  for await (const event of await hub.responses.create(request)) {
    if (event.type === "response.completed") streamed = calls(event.response);
  }
  const results = calls(response).map(({ call_id }) => ({
    type: "function_call_output",
    call_id,
    output: "21",
  }));
  const input = [...asked, ...response.output, ...results];
  const then = await hub.responses.create({ model: MODEL, input, tools: TOOLS });
  return { calls: calls(response), streamed, then: told(then) };
}

async function refused() {
  try {
    await hub.responses.create({ model: MODEL, input: "x", previous_response_id: "resp_1" });
  } catch (error) {
    return { status: error.status, param: error.param };
  }
  return null;
}

const got = {
  whole: await whole(),
  stream: await stream(),
  tools: await tools(),
  refused: await refused(),
};
console.log(JSON.stringify(got));
