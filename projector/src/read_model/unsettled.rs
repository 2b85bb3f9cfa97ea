//! What the sweeper of lost gateways asks for: requests that are open, or ended and not counted,
//! by the outbox that they came through.
//!
//! The read model is only an index here. It tells where in `NEXUS_EXCHANGES` the events of a
//! request lie and up to where it has read that stream; what came after that, and whether the
//! events say what it says, is for the log to tell.

use nexus_events::id::{OutboxId, RequestId};
use sqlx::{Sqlite, Transaction};

use super::{ReadError, ReadModel, count, optional_count, parsed};

const TABLE: &str = "exchanges";

/// As the partial index has it, word for word: else SQLite would read the whole table.
macro_rules! unsettled {
    () => {
        "is_received = 1 AND usage_source IS NULL AND counted_input_tokens IS NULL"
    };
}

/// How far the exchanges were read, and of which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadUpTo {
    /// When the stream was created, nanoseconds since 1970: its identity.
    pub created_ns: i64,
    /// The last sequence that was read.
    pub sequence: u64,
}

/// Which of an outbox's unsettled requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Open, and not presumed lost yet.
    Unmarked,
    /// Presumed lost and still open, or ended and not counted.
    Unfinished,
}

/// A request that is open, or ended and not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsettledRequest {
    /// Its id.
    pub request: RequestId,
    /// Sequence of its first event, `received`.
    pub received: u64,
    /// Sequence of `presumed_lost`.
    pub presumed_lost: Option<u64>,
    /// Sequence of the terminal event that counts.
    pub terminal: Option<u64>,
}

/// A page of unsettled requests, in the order of their ids.
#[derive(Clone, Debug)]
pub struct Unsettled {
    /// As of where.
    pub upto: ReadUpTo,
    /// The requests.
    pub requests: Vec<UnsettledRequest>,
}

#[derive(sqlx::FromRow)]
struct Row {
    request_id: String,
    first_sequence: i64,
    presumed_lost_sequence: Option<i64>,
    terminal_sequence: Option<i64>,
}

impl ReadModel {
    /// The outboxes with unsettled requests, those with the oldest first; at most `max`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn unsettled_outboxes(&self, max: u32) -> Result<Vec<OutboxId>, ReadError> {
        let mut snapshot = self.snapshot().await?;
        let outboxes: Vec<String> = sqlx::query_scalar(concat!(
            "SELECT outbox_id FROM exchanges WHERE ",
            unsettled!(),
            " AND outbox_id IS NOT NULL GROUP BY outbox_id ORDER BY min(request_id) LIMIT ?"
        ))
        .bind(i64::from(max))
        .fetch_all(&mut *snapshot)
        .await?;
        outboxes
            .iter()
            .map(|outbox| parsed(TABLE, "outbox_id", outbox))
            .collect()
    }

    /// The unsettled requests of an outbox whose ids come after `after`, at most `max`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn unsettled(
        &self,
        outbox: OutboxId,
        wanted: Wanted,
        after: Option<RequestId>,
        max: u32,
    ) -> Result<Unsettled, ReadError> {
        let sql = match wanted {
            Wanted::Unmarked => concat!(
                "SELECT request_id, first_sequence, presumed_lost_sequence, terminal_sequence
                 FROM exchanges WHERE ",
                unsettled!(),
                " AND outbox_id = ? AND request_id > ?
                  AND terminal_sequence IS NULL AND presumed_lost_sequence IS NULL
                  ORDER BY request_id LIMIT ?"
            ),
            Wanted::Unfinished => concat!(
                "SELECT request_id, first_sequence, presumed_lost_sequence, terminal_sequence
                 FROM exchanges WHERE ",
                unsettled!(),
                " AND outbox_id = ? AND request_id > ?
                  AND (terminal_sequence IS NOT NULL OR presumed_lost_sequence IS NOT NULL)
                  ORDER BY request_id LIMIT ?"
            ),
        };
        let mut snapshot = self.snapshot().await?;
        let upto = upto(&mut snapshot).await?;
        let rows: Vec<Row> = sqlx::query_as(sql)
            .bind(outbox.to_string())
            .bind(after.map(|after| after.to_string()).unwrap_or_default())
            .bind(i64::from(max))
            .fetch_all(&mut *snapshot)
            .await?;
        let requests = rows.into_iter().map(Row::request).collect::<Result<_, _>>();
        Ok(Unsettled {
            upto,
            requests: requests?,
        })
    }
}

/// How far the read transaction sees the exchanges.
async fn upto(snapshot: &mut Transaction<'static, Sqlite>) -> Result<ReadUpTo, ReadError> {
    let read: Option<(i64, i64)> = sqlx::query_as(
        "SELECT created_ns, sequence FROM checkpoint
         WHERE stream = 'NEXUS_EXCHANGES' AND outbox = ''",
    )
    .fetch_optional(&mut **snapshot)
    .await?;
    let (created_ns, sequence) = read.unwrap_or_default();
    Ok(ReadUpTo {
        created_ns,
        sequence: count("checkpoint", "sequence", sequence)?,
    })
}

impl Row {
    fn request(self) -> Result<UnsettledRequest, ReadError> {
        let of = |column, value| optional_count(TABLE, column, value);
        Ok(UnsettledRequest {
            request: parsed(TABLE, "request_id", &self.request_id)?,
            received: count(TABLE, "first_sequence", self.first_sequence)?,
            presumed_lost: of("presumed_lost_sequence", self.presumed_lost_sequence)?,
            terminal: of("terminal_sequence", self.terminal_sequence)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use nexus_events::{exchange_event::PresumedLost, subject::Stream};

    use super::*;
    use crate::testing::{Database, MemoryLog, TODAY, completed, conversation, received, request};

    /// A log with one request of each kind, in the order: open, presumed lost, ended and not
    /// counted, ended and counted by the provider.
    fn log() -> (MemoryLog, [RequestId; 4]) {
        let mut log = MemoryLog::new();
        let ids = [0, 1, 2, 3].map(|ms| request(TODAY + ms));
        let talk = conversation(TODAY);
        for id in ids {
            log.exchange_bare(id, TODAY, &received(talk, None, &[]));
        }
        let lost = PresumedLost {
            outbox: log.outbox(),
        };
        log.exchange_bare(ids[1], TODAY, &lost);
        log.exchange_bare(ids[1], TODAY, &lost);
        log.exchange_bare(ids[2], TODAY, &completed(talk, None, 1, &[]));
        log.exchange_bare(ids[3], TODAY, &completed(talk, Some((1, 1)), 1, &[]));
        (log, ids)
    }

    #[tokio::test]
    async fn unsettled_requests_are_found_by_their_outbox() {
        let (log, ids) = log();
        let mut database = Database::of(&log).await;
        let (read_model, outbox) = (database.read_model(), log.outbox());
        assert_eq!(read_model.unsettled_outboxes(9).await.unwrap(), [outbox]);
        let of = async |wanted, after, max| {
            let page = read_model.unsettled(outbox, wanted, after, max).await;
            page.unwrap().requests
        };
        let unmarked = of(Wanted::Unmarked, None, 9).await;
        assert_eq!(unmarked.len(), 1);
        assert_eq!(unmarked[0].request, ids[0]);
        assert_eq!(unmarked[0].received, 1);
        let unfinished = of(Wanted::Unfinished, None, 9).await;
        let found: Vec<RequestId> = unfinished.iter().map(|one| one.request).collect();
        assert_eq!(found, ids[1..3]);
        let sequence = |place: usize| Some(log.of(Stream::Exchanges)[place].message.sequence);
        // The first of two counts.
        assert_eq!(unfinished[0].presumed_lost, sequence(4));
        assert_eq!(unfinished[1].terminal, sequence(6));
        assert_eq!(of(Wanted::Unfinished, None, 1).await, unfinished[..1]);
        assert_eq!(
            of(Wanted::Unfinished, Some(ids[1]), 9).await,
            unfinished[1..]
        );
        let page = read_model
            .unsettled(outbox, Wanted::Unmarked, None, 9)
            .await;
        let last = log.of(Stream::Exchanges).last().unwrap().message.sequence;
        assert_eq!(page.unwrap().upto.sequence, last);
        // An outbox that nothing came through.
        let other = OutboxId::draw(&crate::testing::at(TODAY));
        let none = read_model.unsettled(other, Wanted::Unmarked, None, 9).await;
        assert_eq!(none.unwrap().requests, []);
        // What is asked for every few seconds must not cost a walk through the table.
        for sql in [
            concat!(
                "SELECT outbox_id FROM exchanges WHERE ",
                unsettled!(),
                " AND outbox_id IS NOT NULL GROUP BY outbox_id"
            ),
            concat!(
                "SELECT request_id, first_sequence, presumed_lost_sequence, terminal_sequence
                 FROM exchanges WHERE ",
                unsettled!(),
                " AND outbox_id = 'a' AND request_id > 'b' ORDER BY request_id LIMIT 1"
            ),
        ] {
            let plan = database.plan(sql).await;
            assert!(plan.contains("exchanges_unsettled"), "{plan}");
        }
    }

    #[tokio::test]
    async fn who_is_presumed_lost_is_shown_so_until_the_end() {
        let (mut log, ids) = log();
        let mut database = Database::of(&log).await;
        let lost = database
            .read_model()
            .request(ids[1])
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (lost.state.as_str(), lost.presumed_lost),
            ("presumed_lost", true)
        );
        log.exchange_bare(ids[1], TODAY, &completed(conversation(TODAY), None, 1, &[]));
        database.apply_all(&log).await;
        let ended = database
            .read_model()
            .request(ids[1])
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (ended.state.as_str(), ended.presumed_lost),
            ("completed", false)
        );
    }
}
