//! Tokens are counted once, and an audit is no count.

use nexus_events::exchange_event::TokensCounted;

use crate::testing::{Database, MemoryLog, TODAY, completed, conversation, key, received, request};

/// A request and its end, with those tokens.
pub(super) fn exchange(
    log: &mut MemoryLog,
    drawn: i64,
    tokens: Option<(u64, u64)>,
) -> nexus_events::id::RequestId {
    let id = request(drawn);
    let conversation = conversation(drawn);
    log.exchange_bare(id, drawn, &received(conversation, None, &[]));
    log.exchange_bare(id, drawn + 100, &completed(conversation, tokens, 1, &[]));
    id
}

#[tokio::test]
async fn counted_tokens_fill_in_once_and_an_audit_never() {
    let mut log = MemoryLog::new();
    let id = exchange(&mut log, TODAY, None);
    let counted = |input, audit| TokensCounted {
        input_tokens: input,
        output_tokens: 1,
        vocabulary: "o200k".into(),
        audit,
        conversation: Some(conversation(TODAY)),
        key: key(),
        provider_name: "openai".into(),
        configured_model: "gpt".into(),
    };
    log.exchange_bare(id, TODAY, &counted(99, true));
    let mut database = Database::of(&log).await;
    assert_eq!(
        database
            .number("SELECT prompt_tokens FROM usage_totals")
            .await,
        0
    );
    log.exchange_bare(id, TODAY, &counted(5, false));
    log.exchange_bare(id, TODAY, &counted(50, false));
    log.exchange_bare(id, TODAY, &counted(98, true));
    database.apply_all(&log).await;
    let shown = database.read_model().request(id).await.unwrap().unwrap();
    assert_eq!(
        (shown.state.as_str(), shown.later_terminals),
        ("completed", 0)
    );
    assert_eq!(
        shown.token_check.unwrap().tokens_usage.prompt,
        99,
        "the first one"
    );
    assert_eq!(
        database
            .number("SELECT prompt_tokens FROM usage_totals")
            .await,
        5
    );
    assert_eq!(
        database.number("SELECT sum(tokens) FROM chat_stats").await,
        6
    );
    assert_eq!(
        database.number("SELECT requests FROM usage_totals").await,
        1
    );
}

#[tokio::test]
async fn only_the_first_terminal_event_counts() {
    let mut log = MemoryLog::new();
    let id = exchange(&mut log, TODAY, Some((10, 20)));
    let mut database = Database::of(&log).await;
    log.exchange_bare(
        id,
        TODAY,
        &completed(conversation(TODAY), Some((1000, 2000)), 1, &[]),
    );
    database.apply_all(&log).await;
    let request = database.read_model().request(id).await.unwrap().unwrap();
    assert_eq!(request.tokens_usage.unwrap().total, 30);
    assert_eq!(request.later_terminals, 1);
    assert_eq!(
        database
            .number("SELECT prompt_tokens FROM usage_totals")
            .await,
        10
    );
}
