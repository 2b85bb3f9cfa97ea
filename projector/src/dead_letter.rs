//! Events that could not be applied are kept whole, with the reason.
//!
//! They block nobody and are not lost: a rebuild with a newer version of the
//! apply code reads them from the log again.

use nexus_events::{id::RequestId, log::Message, subject::Stream};
use sqlx::SqliteConnection;

use crate::checkpoint::signed;

/// An event that cannot be applied.
#[derive(Debug)]
pub(crate) struct DeadLetter<'a> {
    pub(crate) message: &'a Message,
    /// The request that it is about, where that can be read: it expires with it.
    pub(crate) request: Option<RequestId>,
    pub(crate) reason: String,
}

impl DeadLetter<'_> {
    /// Keeps it.
    ///
    /// # Errors
    /// The database cannot be written.
    pub(crate) async fn keep(
        self,
        connection: &mut SqliteConnection,
        stream: Stream,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO dead_letter (stream, sequence, request_id, reason, subject, payload)
             VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(stream.name())
        .bind(signed(self.message.sequence))
        .bind(self.request.map(|request| request.to_string()))
        .bind(self.reason)
        .bind(&self.message.subject)
        .bind(self.message.payload.as_ref())
        .execute(connection)
        .await
        .map(drop)
    }
}
