// Tool calls with the official Node client.
//
// Takes BASE_URL, API_KEY, MODEL and TAG from the environment; TAG is the last word of the prompt.
// Asks for a tool call in both modes and goes on with its result, as an agent does. Prints one JSON
// object with what the client handed to its caller.

import { createRequire } from "node:module";
import { join } from "node:path";

// ES modules do not look at NODE_PATH, `require` from inside that folder does.
const require = createRequire(join(process.env.NODE_PATH, "program.js"));
const OpenAI = require("openai");

const { BASE_URL: baseURL, API_KEY: apiKey, MODEL: model, TAG: tag } = process.env;
const hub = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 60_000 });
const tools = [
  {
    type: "function",
    function: {
      name: "forecast",
      parameters: { type: "object", properties: { city: { type: "string" } } },
    },
  },
];
const question = () => [{ role: "user", content: `What will the weather be? ${tag}` }];

const calls = (message) =>
  message.tool_calls.map(({ id, function: { name, arguments: text } }) => ({
    id,
    name,
    arguments: text,
  }));

async function whole() {
  const messages = question();
  const { data, response } = await hub.chat.completions
    .create({ model, messages, tools })
    .withResponse();
  const [choice] = data.choices;
  // The client's own object goes back into the history, as its documentation shows it.
  messages.push(choice.message);
  messages.push({
    role: "tool",
    tool_call_id: choice.message.tool_calls[0].id,
    content: "12 °C",
  });
  const then = await hub.chat.completions.create({ model, messages, tools }).withResponse();
  return {
    calls: calls(choice.message),
    finish_reason: choice.finish_reason,
    conversation: response.headers.get("x-conversation-id"),
    then_calls: calls(then.data.choices[0].message),
    then_conversation: then.response.headers.get("x-conversation-id"),
    then_request: then.response.headers.get("x-request-id"),
  };
}

async function stream() {
  // The client's own helper puts the pieces together.
  const final = await hub.chat.completions.stream({ model, messages: question(), tools }).finalMessage();
  return { calls: calls(final) };
}

console.log(JSON.stringify({ whole: await whole(), stream: await stream() }));
