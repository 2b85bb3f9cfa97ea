// A large body with a key that is none, with nothing but what Node has.
//
// Takes BASE_URL and API_KEY from the environment. Prints one JSON object: what came of each of ten
// tries, a status or the code of an error.

const { BASE_URL: baseURL, API_KEY: apiKey } = process.env;
const content = "x".repeat(10 * 1024 * 1024);
const body = JSON.stringify({ model: "any", messages: [{ role: "user", content }] });

async function attempt() {
  try {
    const answer = await fetch(`${baseURL}/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json" },
      body,
    });
    await answer.text();
    return answer.status;
  } catch (error) {
    return error.cause?.code ?? String(error);
  }
}

const answers = [];
for (let count = 0; count < 10; count += 1) {
  answers.push(await attempt());
}
console.log(JSON.stringify({ answers }));
