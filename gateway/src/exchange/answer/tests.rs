use super::*;

fn add(answer: &mut Answer, chunk: &str) {
    answer.add(&serde_json::from_str(chunk).unwrap()).unwrap();
}

/// The message of choice 0 after those deltas.
fn message(deltas: &[&str]) -> String {
    let mut answer = Answer::default();
    for delta in deltas {
        add(
            &mut answer,
            &format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#),
        );
    }
    answer.choices()[0].message.get().to_owned()
}

/// The names beside the answer are no content: they must fit into one message of the broker.
#[test]
fn what_a_provider_says_about_its_answer_is_bounded() {
    let long = "é".repeat(1 << 20);
    let usage = format!(r#"{{"prompt_tokens":1,"completion_tokens":2,"x":"{long}"}}"#);
    let chunk = format!(
        r#"{{"id":"{long}","model":"{long}","choices":[{{"index":0,"delta":{{"content":"a"}},"finish_reason":"{long}"}}],"usage":{usage}}}"#
    );
    let mut streamed = Answer::default();
    add(&mut streamed, &chunk);
    let response = chunk.replace("delta", "message");
    let mut whole = Answer::default();
    whole
        .take(&serde_json::from_str(&response).unwrap())
        .unwrap();
    let mut embedded = Answer::default();
    embedded.take_embeddings(&Embedded {
        body: bytes::Bytes::new(),
        model: Some(long.clone()),
        usage: None,
        usage_raw: to_raw_value(&long).ok(),
    });
    assert_eq!(embedded.model().unwrap().len(), 256);
    assert!(embedded.usage_raw().is_none());
    for answer in [streamed, whole] {
        assert_eq!(
            (answer.id().unwrap().len(), answer.model().unwrap().len()),
            (256, 256)
        );
        assert_eq!(answer.finish_reasons()[0].len(), 64);
        assert!(answer.usage_raw().is_none());
        assert_eq!(answer.usage().unwrap().output_tokens, 2);
    }
}

#[test]
fn text_is_appended_and_nulls_are_nothing() {
    let message = message(&[
        r#"{"role":"assistant","content":"","refusal":null}"#,
        r#"{"content":"a\"b\u00e9"}"#,
        r#"{"content":" c","reasoning_content":"why"}"#,
        r#"{"reasoning_content":"?"}"#,
        "{}",
    ]);
    assert_eq!(
        message,
        r#"{"role":"assistant","content":"a\"bé c","reasoning_content":"why?"}"#
    );
}

#[test]
fn arguments_that_come_as_a_value_stay_as_they_came() {
    let message = message(&[
        r#"{"tool_calls":[{"index":0,"id":"c1","function":{"name":"look","arguments":{"a":null,"b":[],"n":1.0}}}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"arguments":""}}]}"#,
    ]);
    assert_eq!(
        message,
        r#"{"tool_calls":[{"id":"c1","function":{"name":"look","arguments":{"a":null,"b":[],"n":1.0}}}]}"#
    );
}

#[test]
fn tool_calls_are_put_together_by_their_index() {
    let message = message(&[
        r#"{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"look","arguments":""}}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\""}}]}"#,
        r#"{"tool_calls":[{"index":3,"id":"c2","type":"function","function":{"name":"hear","arguments":"{"}},{"index":0,"function":{"arguments":":1}"}}]}"#,
        r#"{"tool_calls":[{"index":3,"id":"","function":{"name":"hear","arguments":"}"}}]}"#,
    ]);
    assert_eq!(
        message,
        r#"{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"look","arguments":"{\"x\":1}"}},{"id":"c2","type":"function","function":{"name":"hear","arguments":"{}"}}]}"#
    );
}

#[test]
fn tool_calls_without_an_index_go_by_their_id() {
    let message = message(&[
        r#"{"tool_calls":[{"id":"c1","function":{"name":"a","arguments":"1"}}]}"#,
        r#"{"tool_calls":[{"function":{"arguments":"2"}}]}"#,
        r#"{"tool_calls":[{"id":"c2","function":{"name":"b","arguments":"3"}}]}"#,
    ]);
    assert_eq!(
        message,
        r#"{"tool_calls":[{"id":"c1","function":{"name":"a","arguments":"12"}},{"id":"c2","function":{"name":"b","arguments":"3"}}]}"#
    );
}

#[test]
fn what_is_not_known_is_merged_by_its_form() {
    let message = message(&[
        r#"{"function_call":{"name":"f","arguments":"{"},"audio":{"id":"a","data":"AA"},"annotations":[{"type":"url"}],"score":1,"odd":"x"}"#,
        r#"{"function_call":{"arguments":"}"},"audio":{"id":"a","data":"BB","expires_at":7},"annotations":[{"type":"file"}],"score":2.50,"odd":[1]}"#,
    ]);
    assert_eq!(
        message,
        r#"{"function_call":{"name":"f","arguments":"{}"},"audio":{"id":"a","data":"AABB","expires_at":7},"annotations":[{"type":"url"},{"type":"file"}],"score":2.50,"odd":[1]}"#
    );
}

#[test]
fn choices_are_kept_apart_and_in_order() {
    let mut answer = Answer::default();
    add(
        &mut answer,
        r#"{"id":"r","model":"m","choices":[{"index":1,"delta":{"content":"b"}}]}"#,
    );
    add(
        &mut answer,
        r#"{"id":"x","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"},{"index":1,"delta":{"content":"B"}}]}"#,
    );
    assert!(!answer.is_finished());
    add(
        &mut answer,
        r#"{"choices":[{"index":1,"delta":{},"finish_reason":"length"}]}"#,
    );
    add(
        &mut answer,
        r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"x":{"y":1}}}"#,
    );
    assert!(answer.is_finished());
    assert_eq!((answer.id(), answer.model()), (Some("r"), Some("m")));
    assert_eq!(answer.usage().unwrap().output_tokens, 2);
    assert!(answer.usage_raw().unwrap().get().contains(r#"{"y":1}"#));
    let choices = answer.choices();
    let said: Vec<(u32, &str, Option<&str>)> = choices
        .iter()
        .map(|choice| {
            (
                choice.index,
                choice.message.get(),
                choice.finish_reason.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            (0, r#"{"content":"a"}"#, Some("stop")),
            (1, r#"{"content":"bB"}"#, Some("length"))
        ]
    );
}

#[test]
fn a_whole_answer_is_kept_as_it_came() {
    let body = r#"{"id":"r","choices":[{"index":0,"message":{"role":"assistant", "content":null},"finish_reason":"stop"}]}"#;
    let mut answer = Answer::default();
    answer.take(&serde_json::from_str(body).unwrap()).unwrap();
    assert_eq!(
        answer.choices()[0].message.get(),
        r#"{"role":"assistant", "content":null}"#
    );
    assert!(answer.usage().is_none());
}

#[test]
fn an_answer_has_bounds() {
    let mut answer = Answer::default();
    let long = format!(
        r#"{{"choices":[{{"index":0,"delta":{{"content":"{}"}}}}]}}"#,
        "x".repeat(ANSWER_BYTES_MAX / 2)
    );
    let chunk: ChatChunk<'_> = serde_json::from_str(&long).unwrap();
    answer.add(&chunk).unwrap();
    assert_eq!(answer.add(&chunk), Err(AnswerTooLarge));
    let mut answer = Answer::default();
    let mut outcomes = (0..=CHOICES_MAX).map(|index| {
        let chunk = format!(r#"{{"choices":[{{"index":{index},"delta":{{}}}}]}}"#);
        answer.add(&serde_json::from_str(&chunk).unwrap())
    });
    assert!(
        outcomes
            .by_ref()
            .take(CHOICES_MAX)
            .all(|outcome| outcome.is_ok())
    );
    assert_eq!(outcomes.next(), Some(Err(AnswerTooLarge)));
}

#[test]
fn what_a_whole_answer_says_beside_its_message_is_recorded() {
    let body = r#"{"id":"c","object":"chat.completion","created":7,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"logprobs":{"content":[{"token":"hi","logprob":-1.50}]},"finish_reason":"stop"},{"index":1,"message":{"role":"assistant","content":"ho"},"logprobs":null,"finish_reason":"stop","content_filter_results":{}}],"usage":{"prompt_tokens":1,"completion_tokens":2},"system_fingerprint":"fp","service_tier":null}"#;
    let mut answer = Answer::default();
    answer.take(&serde_json::from_str(body).unwrap()).unwrap();
    let choices = answer.choices();
    let content = serde_json::to_string(&content(&choices, answer.rest())).unwrap();
    assert_eq!(
        content,
        r#"{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"hi"},"logprobs":{"content":[{"token":"hi","logprob":-1.50}]}},{"index":1,"finish_reason":"stop","message":{"role":"assistant","content":"ho"},"content_filter_results":{}}],"created":7,"system_fingerprint":"fp"}"#
    );
    // Readers take what they know of it.
    let read: AnswerContent<'_> = serde_json::from_str(&content).unwrap();
    assert_eq!(read.choices.len(), 2);
}

/// What adding a delta comes to.
fn adding(answer: &mut Answer, delta: &str) -> Result<(), AnswerTooLarge> {
    let chunk = format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#);
    answer.add(&serde_json::from_str(&chunk).unwrap())
}

#[test]
fn what_is_looked_through_for_each_delta_is_bounded() {
    let items = |item: &dyn Fn(usize) -> String| -> String {
        let items: Vec<String> = (0..5_000).map(item).collect();
        items.join(",")
    };
    for too_many in [
        format!(
            r#"{{"tool_calls":[{}]}}"#,
            items(&|n| format!(r#"{{"index":{n}}}"#))
        ),
        format!(
            r#"{{"tool_calls":[{}]}}"#,
            items(&|n| format!(r#"{{"id":"c{n}"}}"#))
        ),
        format!(
            r#"{{"thinking_blocks":[{}]}}"#,
            items(&|n| format!(r#"{{"index":{n}}}"#))
        ),
        format!("{{{}}}", items(&|n| format!(r#""m{n}":1"#))),
        format!(r#"{{"audio":{{{}}}}}"#, items(&|n| format!(r#""m{n}":1"#))),
    ] {
        let outcome = adding(&mut Answer::default(), &too_many);
        assert_eq!(outcome, Err(AnswerTooLarge), "{} bytes", too_many.len());
    }
    // An endless stream of calls, each in a chunk of its own.
    let mut answer = Answer::default();
    let mut calls = (0..5_000).map(|n| {
        let call = format!(r#"{{"tool_calls":[{{"index":{n},"function":{{"arguments":""}}}}]}}"#);
        adding(&mut answer, &call)
    });
    assert!(calls.any(|outcome| outcome.is_err()));
    // What nothing goes on with is not looked through.
    let long = format!(r#"{{"content":[{}{{}}]}}"#, "{},".repeat(100_000));
    adding(&mut Answer::default(), &long).unwrap();
}

#[test]
fn many_choices_are_too_many_whatever_their_index() {
    let many = |choice: &str| format!(r#"{{"choices":[{}]}}"#, vec![choice; 200].join(","));
    let whole = many(r#"{"index":0,"message":{}}"#);
    let taken = Answer::default().take(&serde_json::from_str(&whole).unwrap());
    assert_eq!(taken, Err(AnswerTooLarge));
    let chunk = many(r#"{"index":0,"delta":{}}"#);
    let added = Answer::default().add(&serde_json::from_str(&chunk).unwrap());
    assert_eq!(added, Err(AnswerTooLarge));
}
