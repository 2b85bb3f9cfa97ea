use bytes::Bytes;
use nexus_events::{clock::SystemClock, id::RequestId};
use serde_json::{json, value::to_raw_value};

use super::*;
use crate::exchange::answer::AnsweredChoice;

fn uncounted(body: impl Into<Bytes>, answers: &[&str]) -> Uncounted {
    let choice = |(index, answer): (usize, &&str)| AnsweredChoice {
        rest: None,
        index: u32::try_from(index).unwrap(),
        finish_reason: None,
        message: to_raw_value(&json!({"role": "assistant", "content": answer})).unwrap(),
    };
    Uncounted {
        request: RequestId::draw(&SystemClock),
        model: "gpt-4o".to_owned(),
        body: body.into(),
        choices: answers.iter().enumerate().map(choice).collect(),
    }
}

fn hello() -> String {
    json!({"model": "x", "messages": [{"role": "user", "content": "hello world"}]}).to_string()
}

#[tokio::test]
async fn a_request_and_all_choices_of_its_answer_are_counted() {
    let tokenizer = TokenCounter::new(TaskTracker::new());
    let counted = tokenizer
        .count(uncounted(hello(), &["hello", "hello world"]))
        .await;
    let expected = Counted {
        input_tokens: 9,
        output_tokens: 3,
        vocabulary: "o200k_base".to_owned(),
    };
    assert_eq!(counted, expected);
}

#[tokio::test]
async fn what_cannot_be_read_is_guessed() {
    let tokenizer = TokenCounter::new(TaskTracker::new());
    let counted = tokenizer
        .count(uncounted("\"\\ud800 12345", &["hello"]))
        .await;
    assert_eq!(counted.vocabulary, GUESS);
    assert_eq!(counted.input_tokens, 4, "13 bytes");
    assert!(counted.output_tokens > 0);
}

#[tokio::test]
async fn who_comes_while_all_turns_are_taken_waits_and_is_counted() {
    let tokenizer = TokenCounter::with_turns(TaskTracker::new(), 1);
    let turn = Arc::clone(&tokenizer.turns).acquire_owned().await.unwrap();
    let counts = (0..100).map(|_| tokenizer.count(uncounted(hello(), &["hello"])));
    let mut counts = std::pin::pin!(futures_util::future::join_all(counts));
    assert!(counts.as_mut().now_or_never().is_none());
    drop(turn);
    let counted = counts.await;
    assert_eq!(counted.len(), 100);
    assert!(counted.iter().all(|counted| counted.input_tokens == 9));
}

#[tokio::test]
async fn an_audit_is_made_when_a_thread_is_free_and_never_waits() {
    let tokenizer = TokenCounter::with_turns(TaskTracker::new(), 1);
    let audit = || tokenizer.count_if_idle(uncounted(hello(), &["hello"]));
    assert_eq!(audit().await.unwrap().input_tokens, 9);
    let turn = Arc::clone(&tokenizer.turns).acquire_owned().await.unwrap();
    assert_eq!(audit().await, None);
    // A turn that others wait for is not free when it is given back.
    let mut owed = std::pin::pin!(tokenizer.count(uncounted(hello(), &["hello"])));
    assert!(owed.as_mut().now_or_never().is_none());
    drop(turn);
    assert_eq!(audit().await, None);
    assert_eq!(owed.await.input_tokens, 9);
}

#[tokio::test]
async fn what_is_embedded_is_counted_in_each_of_its_forms() {
    let tokenizer = TokenCounter::new(TaskTracker::new());
    for (input, expected) in [
        (json!("hello world"), 2),
        (json!(["hello", "hello world"]), 3),
        (json!([1, 2, 3]), 3),
        (json!([[1], [2, 3]]), 3),
    ] {
        // Recovered from the log, it has an empty list of messages.
        for body in [
            json!({"model": "x", "input": input}),
            json!({"model": "x", "input": input, "messages": []}),
        ] {
            let counted = tokenizer.count(uncounted(body.to_string(), &[])).await;
            assert_eq!(
                (counted.input_tokens, counted.output_tokens),
                (expected, 0),
                "{body}"
            );
        }
    }
}
