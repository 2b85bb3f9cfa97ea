//! Requests that members are put into.

use serde_json::{Value, json};

/// A request that each member is put into.
fn base(way: &str) -> Value {
    let user = json!({"role": "user", "content": "hi"});
    match way {
        "chat" => json!({
            "model": "m", "messages": [user],
            "tools": [{"type": "function", "function": {"name": "f"}}],
        }),
        "responses" => json!({
            "model": "m", "input": "hi", "tools": [{"type": "function", "name": "f"}],
        }),
        "completions" => json!({"model": "m", "prompt": "hi"}),
        "embeddings" => json!({"model": "m", "input": "hi"}),
        _ => json!({
            "model": "m", "max_tokens": 9, "messages": [user],
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        }),
    }
}

/// What has to stand around a member that lies deeper.
pub(super) fn base_for(way: &str, path: &str) -> Value {
    let mut base = base(way);
    if path.starts_with("response_format.") {
        base["response_format"] = json!({
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": {"type": "object", "properties": {}}},
        });
    }
    if path.starts_with("stream_options.") {
        base["stream"] = json!(true);
        base["stream_options"] = json!({});
    }
    if way == "chat" && path.starts_with("messages.0.content.") {
        let mut parts = vec![json!({"type": "text", "text": "hi"})];
        if path.starts_with("messages.0.content.1.") {
            let image = json!({"url": "data:image/png;base64,eA=="});
            parts.push(json!({"type": "image_url", "image_url": image}));
        }
        base["messages"][0]["content"] = json!(parts);
    }
    if way == "chat" && (path.starts_with("messages.1.") || path.starts_with("messages.2.")) {
        let call =
            json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
        base["messages"] = json!([
            base["messages"][0],
            {"role": "assistant", "content": "I look.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "21"},
        ]);
    }
    if way == "responses" {
        deeper_in_responses(&mut base, path);
    }
    if way == "messages" && path.starts_with("messages.") {
        let source = json!({"type": "base64", "media_type": "application/pdf", "data": "eA=="});
        let mut parts = vec![json!({"type": "text", "text": "hi"})];
        if path.starts_with("messages.0.content.1.") {
            parts.push(json!({"type": "document", "source": source}));
        }
        base["messages"] = json!([{"role": "user", "content": parts}]);
        if path.starts_with("messages.2.") {
            let call = json!({"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}});
            let result = json!({"type": "tool_result", "tool_use_id": "toolu_1", "content": "21"});
            base["messages"] = json!([
                base["messages"][0],
                {"role": "assistant", "content": [call]},
                {"role": "user", "content": [result]},
            ]);
        }
    }
    base
}

fn deeper_in_responses(base: &mut Value, path: &str) {
    if path.starts_with("text.format.") {
        base["text"] = json!({"format": {
            "type": "json_schema", "name": "a", "schema": {"type": "object", "properties": {}},
        }});
    }
    if path.starts_with("input.") {
        let call =
            json!({"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"});
        let items = vec![
            json!({"type": "message", "role": "user", "content": "hi"}),
            call,
            json!({"type": "function_call_output", "call_id": "c1", "output": "21"}),
        ];
        base["input"] = json!(items);
    }
}
