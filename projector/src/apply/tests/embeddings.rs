//! Exchanges that belong to no conversation.

use nexus_events::{exchange_event::TokensCounted, id::ConversationId};

use crate::testing::{Database, MemoryLog, TODAY, completed, key, read_request, received, request};

/// Embeddings are exchanges whose tokens count, and no conversation.
#[tokio::test]
async fn an_exchange_without_a_conversation_counts_and_is_none() {
    let mut log = MemoryLog::new();
    let id = request(TODAY);
    let nowhere: Option<ConversationId> = None;
    let content =
        r#"{"messages":[],"system":{"full":[]},"parameters":{"model":"gpt","input":"a"}}"#;
    let content = read_request(content);
    log.exchange(id, TODAY, &received(nowhere, None, &[]), Some(&content));
    log.exchange_bare(id, TODAY + 1, &completed(nowhere, None, 1, &[]));
    let counted = TokensCounted {
        input_tokens: 7,
        output_tokens: 0,
        vocabulary: "o200k".into(),
        audit: false,
        conversation: None,
        key: key(),
        provider_name: "openai".into(),
        configured_model: "gpt".into(),
    };
    log.exchange_bare(id, TODAY + 2, &counted);
    let mut database = Database::of(&log).await;
    let mut figure = async |query: &'static str| -> i64 {
        let connection = database.writer.connection();
        sqlx::query_scalar(query)
            .fetch_one(connection)
            .await
            .unwrap()
    };
    assert_eq!(figure("SELECT count(*) FROM conversations").await, 0);
    assert_eq!(figure("SELECT conversations FROM usage_totals").await, 0);
    assert_eq!(figure("SELECT requests FROM usage_totals").await, 1);
    assert_eq!(figure("SELECT prompt_tokens FROM usage_totals").await, 7);
    assert_eq!(
        figure("SELECT count(*) FROM exchanges WHERE conversation_id IS NULL").await,
        1
    );
}
