//! What a chat costs beyond its texts.
//!
//! `OpenAI` renders messages and tools into a format of its own before a model
//! reads them. The figures here are those of the `OpenAI` Cookbook, "How to
//! count tokens with tiktoken", sections 6 and 7
//! (<https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken>,
//! read 2026-11-24), which were measured against the API and agree with it for
//! texts and for plain function tools.
//!
//! Where the vendor says nothing, this is an estimate, and says so below:
//! nested parameters, tool calls inside the history, images of unknown size.
//! Audio and files are not counted: their tokens cannot be told from outside.

use serde_json::{Map, Value};

use super::vocabulary::Vocabulary;

/// Around each message: its start, the end of its role, its end.
const MESSAGE: u64 = 3;

/// A name before a message.
const NAME: u64 = 1;

/// The start of the answer.
const REPLY: u64 = 3;

/// Around a function: 7, and 10 before `o200k`.
const FUNCTION: u64 = 7;
const FUNCTION_BEFORE_O200K: u64 = 10;

/// Around a function's parameters, and before each of them.
const PARAMETERS: u64 = 3;
const PARAMETER: u64 = 3;

/// Before each of a parameter's values; the first one takes the place of the type.
const ENUM_VALUE: u64 = 3;
const ENUM_SAVES: u64 = 3;

/// Around all tools.
const TOOLS: u64 = 12;

/// Around a call in the history. An estimate: as around a message.
const CALL: u64 = 3;

/// An image in low detail, and one of 1024 × 1024 pixels in high detail (85 + 4 × 170).
///
/// `OpenAI`'s guide "Images and vision", "Calculating costs", read 2026-11-24. The
/// true size is not known without loading the image.
const IMAGE_LOW: u64 = 85;
const IMAGE: u64 = 765;

/// Prompt tokens of a request's body.
pub fn request(vocabulary: &Vocabulary, body: &Value) -> u64 {
    if let Some(input) = body.get("input").filter(|_| has_no_messages(body)) {
        return embedded(vocabulary, input);
    }
    let messages: u64 = items(body.get("messages"))
        .map(|message| MESSAGE + says(vocabulary, message, true))
        .sum();
    let tools = items(body.get("tools")).map(|tool| tool.get("function").unwrap_or(tool));
    let functions: Vec<&Value> = tools.chain(items(body.get("functions"))).collect();
    let tools: u64 = match functions.as_slice() {
        [] => 0,
        functions => {
            let each = functions.iter().map(|tool| function(vocabulary, tool));
            TOOLS + each.sum::<u64>()
        }
    };
    messages + tools + REPLY
}

fn has_no_messages(body: &Value) -> bool {
    items(body.get("messages")).next().is_none()
}

/// Tokens of what is to be embedded: a text, texts, tokens, or several lists of them.
fn embedded(vocabulary: &Vocabulary, input: &Value) -> u64 {
    match input {
        Value::Array(inputs) => inputs.iter().map(|one| embedded(vocabulary, one)).sum(),
        Value::Number(_) => 1,
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Object(_) => {
            text(vocabulary, Some(input))
        }
    }
}

/// Tokens of an answer's message.
pub fn answer(vocabulary: &Vocabulary, message: &Value) -> u64 {
    says(vocabulary, message, false)
}

/// What a message says; its role and its name only in a prompt.
fn says(vocabulary: &Vocabulary, message: &Value, in_prompt: bool) -> u64 {
    let count = |name: &str| text(vocabulary, message.get(name));
    let mut tokens = content(vocabulary, message.get("content")) + count("refusal");
    tokens += items(message.get("tool_calls"))
        .filter_map(|call| call.get("function").or_else(|| call.get("custom")))
        .chain(message.get("function_call"))
        .map(|called| call(vocabulary, called))
        .sum::<u64>();
    if in_prompt {
        let name = message.get("name").map_or(0, |_| NAME + count("name"));
        return tokens + count("role") + name;
    }
    // Vendors spell it either way; nobody sends both, but one may repeat the other.
    tokens + count("reasoning_content").max(count("reasoning"))
}

fn content(vocabulary: &Vocabulary, content: Option<&Value>) -> u64 {
    let parts = items(content).map(|part| match part.get("type").and_then(Value::as_str) {
        Some("image_url") => image(part),
        _ => text(vocabulary, part.get("text")) + text(vocabulary, part.get("refusal")),
    });
    parts.sum::<u64>() + text(vocabulary, content)
}

fn image(part: &Value) -> u64 {
    match part.pointer("/image_url/detail").and_then(Value::as_str) {
        Some("low") => IMAGE_LOW,
        _ => IMAGE,
    }
}

fn call(vocabulary: &Vocabulary, called: &Value) -> u64 {
    let texts = ["name", "arguments", "input"].map(|name| text(vocabulary, called.get(name)));
    CALL + texts.iter().sum::<u64>()
}

fn function(vocabulary: &Vocabulary, function: &Value) -> u64 {
    let Some(name) = function.get("name").and_then(Value::as_str) else {
        // A tool that is no function: its text, as an estimate.
        return FUNCTION + vocabulary.count(&function.to_string());
    };
    let around = if vocabulary.is_before_o200k() {
        FUNCTION_BEFORE_O200K
    } else {
        FUNCTION
    };
    let line = format!("{name}:{}", described(function));
    let parameters = function
        .pointer("/parameters/properties")
        .and_then(Value::as_object)
        .map_or(0, |properties| parameters(vocabulary, properties));
    around + vocabulary.count(&line) + parameters
}

fn parameters(vocabulary: &Vocabulary, properties: &Map<String, Value>) -> u64 {
    if properties.is_empty() {
        return 0;
    }
    let each = properties
        .iter()
        .map(|(name, schema)| PARAMETER + parameter(vocabulary, name, schema));
    PARAMETERS + each.sum::<u64>()
}

fn parameter(vocabulary: &Vocabulary, name: &str, schema: &Value) -> u64 {
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or("any");
    let line = format!("{name}:{kind}:{}", described(schema));
    let values: u64 = items(schema.get("enum"))
        .map(|value| ENUM_VALUE + text(vocabulary, Some(value)))
        .sum();
    // What is nested: its text, as an estimate.
    let nested: u64 = ["properties", "items", "anyOf"]
        .into_iter()
        .filter_map(|inner| schema.get(inner))
        .map(|inner| vocabulary.count(&inner.to_string()))
        .sum();
    vocabulary.count(&line) + values.saturating_sub(ENUM_SAVES) + nested
}

/// The description without its full stop, which the rendering leaves out.
fn described(schema: &Value) -> &str {
    let text = schema.get("description").and_then(Value::as_str);
    text.map_or("", |text| text.strip_suffix('.').unwrap_or(text))
}

fn text(vocabulary: &Vocabulary, value: Option<&Value>) -> u64 {
    value
        .and_then(Value::as_str)
        .map_or(0, |text| vocabulary.count(text))
}

/// The items of a list; nothing where there is none.
fn items(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn new() -> Vocabulary {
        Vocabulary::of_model("gpt-4o").unwrap()
    }

    fn prompt(messages: &Value) -> u64 {
        request(&new(), &json!({"model": "gpt-4o", "messages": messages}))
    }

    #[test]
    fn a_message_costs_its_texts_and_its_frame() {
        // 3 around it, "user", "hello world" (2), 3 for the reply.
        assert_eq!(
            prompt(&json!([{"role": "user", "content": "hello world"}])),
            9
        );
        let named = json!([{"role": "user", "name": "ann", "content": "hello world"}]);
        assert_eq!(prompt(&named), 9 + 1 + new().count("ann"));
        let two =
            json!([{"role": "system", "content": ""}, {"role": "user", "content": "hello world"}]);
        assert_eq!(prompt(&two), 9 + 3 + 1);
    }

    #[test]
    fn parts_count_by_what_they_are() {
        let image = "data:image/png;base64,".to_owned() + &"A".repeat(100_000);
        let parts = json!([{"role": "user", "content": [
            {"type": "text", "text": "hello world"},
            {"type": "image_url", "image_url": {"url": image}},
            {"type": "image_url", "image_url": {"url": "https://a.b/c.png", "detail": "low"}},
        ]}]);
        assert_eq!(prompt(&parts), 9 + 765 + 85);
    }

    #[test]
    fn calls_in_the_history_count() {
        let called = json!({"name": "now", "arguments": "{}"});
        let calls = json!([{"role": "assistant", "content": null,
            "tool_calls": [{"id": "call_123", "type": "function", "function": called}]}]);
        let texts = new().count("now") + new().count("{}");
        assert_eq!(prompt(&calls), 3 + 1 + 3 + texts + 3);
        let old = json!([{"role": "assistant", "content": null, "function_call": called}]);
        assert_eq!(prompt(&old), prompt(&calls));
    }

    #[test]
    fn an_answer_has_no_frame_and_its_reasoning_counts_once() {
        let count = |message: &Value| answer(&new(), message);
        let plain = json!({"role": "assistant", "content": "hello world"});
        assert_eq!(count(&plain), 2);
        let thought = json!({"role": "assistant", "content": "hello world",
                             "reasoning_content": "hello", "reasoning": "hello"});
        assert_eq!(count(&thought), 3);
        assert_eq!(count(&json!({"refusal": "hello world"})), 2);
        assert_eq!(count(&json!({})), 0);
    }

    /// Worked out by hand from the figures of the Cookbook.
    #[test]
    fn tools_cost_what_the_cookbook_says() {
        let tool = json!({"type": "function", "function": {
            "name": "weather", "description": "Tells the weather.",
            "parameters": {"type": "object", "properties": {
                "city": {"type": "string", "description": "The city."},
                "unit": {"type": "string", "description": "", "enum": ["C", "F"]},
            }},
        }});
        let body = json!({"messages": [], "tools": [tool]});
        let texts = |vocabulary: &Vocabulary| {
            [
                "weather:Tells the weather",
                "city:string:The city",
                "unit:string:",
                "C",
                "F",
            ]
            .map(|text| vocabulary.count(text))
            .iter()
            .sum::<u64>()
        };
        let frames = 12 + 3 + 2 * 3 + (2 * 3 - 3) + REPLY;
        assert_eq!(request(&new(), &body), texts(&new()) + frames + 7);
        let old = Vocabulary::of_model("gpt-4").unwrap();
        assert_eq!(request(&old, &body), texts(&old) + frames + 10);
        let legacy = json!({"messages": [], "functions": [tool["function"]]});
        assert_eq!(request(&new(), &legacy), request(&new(), &body));
    }

    #[test]
    fn what_is_no_chat_counts_as_far_as_it_can() {
        for body in [
            json!(null),
            json!({"messages": "x"}),
            json!({"messages": [1, null]}),
        ] {
            assert!(request(&new(), &body) >= REPLY, "{body}");
        }
        let body = json!({"messages": [], "tools": [{"type": "web_search"}, {}, 7]});
        assert!(request(&new(), &body) > REPLY + TOOLS);
    }
}
