//! `audit_log`: who did what, one row for each event of `NEXUS_AUDIT`.

use nexus_events::{audit_event::AuditEvent, envelope::Envelope, log::Message};
use sqlx::SqliteConnection;

use super::{
    Known,
    entry::{Reason, explain},
    retention,
};
use crate::checkpoint::signed;

/// Applies an audit event; the inner result is the reason why it cannot be.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    known: &mut Known,
    envelope: &Envelope<'_>,
    message: &Message,
) -> Result<Result<(), Reason>, sqlx::Error> {
    let event = match AuditEvent::decode(envelope) {
        Ok(Some(event)) => event,
        Ok(None) => return Ok(Err(format!("unknown type {}", envelope.kind))),
        Err(error) => return Ok(Err(explain(&error))),
    };
    let at_ms = match envelope.moment() {
        Ok(moment) => moment.as_millis(),
        Err(error) => return Ok(Err(explain(&error))),
    };
    let actor = match &event {
        AuditEvent::ManagementCall(call) => Some(&call.actor.name),
        AuditEvent::AccessRefused(refusal) => Some(&refusal.actor.name),
        AuditEvent::UnauthenticatedCalls(_)
        | AuditEvent::BackupTaken(_)
        | AuditEvent::BreakerChanged(_)
        | AuditEvent::RetentionApplied(_)
        | AuditEvent::Unshippable(_) => None,
    };
    sqlx::query(
        "INSERT INTO audit_log (sequence, event_id, kind, at_ms, about, actor, data)
         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(signed(message.sequence))
    .bind(envelope.id.to_string())
    .bind(envelope.kind.split('.').nth(3).unwrap_or_default())
    .bind(at_ms)
    .bind(envelope.subject.as_ref())
    .bind(actor)
    .bind(envelope.data.get())
    .execute(&mut *connection)
    .await?;
    if let AuditEvent::RetentionApplied(retention) = &event {
        retention::apply(connection, known, *retention).await?;
    }
    Ok(Ok(()))
}
