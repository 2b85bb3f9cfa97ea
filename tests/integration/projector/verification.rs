//! `verify`: a rebuild beside the read model, compared at the same position.

use nexus_projector::verify;
use nexus_tests::Result;

use super::Setup;
use crate::running::Running;

#[tokio::test]
async fn verification_finds_what_the_log_does_not_say() -> Result<()> {
    let mut setup = Setup::new().await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let last = setup.exchanges(10).await?;
    running.applied(last).await?;
    let scratch = setup.folder.path().join("scratch");

    let verdict = verify(&setup.log, &setup.dir(), &scratch).await?;
    assert_eq!(verdict.difference, None);
    assert_eq!(verdict.events, 20);
    assert!(verdict.rows > 50, "{verdict:?}");

    setup
        .tamper("UPDATE usage_totals SET requests = requests + 1")
        .await?;
    let verdict = verify(&setup.log, &setup.dir(), &scratch).await?;
    let difference = verdict.difference.expect("the tables differ");
    assert_eq!(difference.table, "usage_totals");
    assert!(
        difference
            .live
            .is_some_and(|row| row.contains("requests=11"))
    );
    assert!(
        difference
            .rebuilt
            .is_some_and(|row| row.contains("requests=10"))
    );

    setup
        .tamper("UPDATE usage_totals SET requests = requests - 1")
        .await?;
    setup
        .tamper("DELETE FROM chat_messages WHERE rowid = 1")
        .await?;
    let verdict = verify(&setup.log, &setup.dir(), &scratch).await?;
    assert_eq!(
        verdict
            .difference
            .map(|difference| difference.table)
            .as_deref(),
        Some("chat_messages")
    );
    running.stop().await
}

#[tokio::test]
async fn verification_names_a_table_that_only_one_has_or_that_has_other_columns() -> Result<()> {
    let mut setup = Setup::new().await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let last = setup.exchanges(1).await?;
    running.applied(last).await?;
    running.stop().await?;
    let scratch = setup.folder.path().join("scratch");
    for (tampering, table, live, rebuilt) in [
        (
            "CREATE TABLE zones (id INTEGER PRIMARY KEY, name TEXT)",
            "zones",
            Some("id, name"),
            None,
        ),
        (
            "ALTER TABLE retention RENAME COLUMN cutoff_ms TO cut_ms",
            "retention",
            Some("cut_ms"),
            Some("cutoff_ms"),
        ),
        (
            "DROP TABLE chat_stats",
            "chat_stats",
            None,
            Some("request_id"),
        ),
        ("DROP TABLE audit_log", "audit_log", None, Some("sequence")),
    ] {
        setup.tamper(tampering).await?;
        let verdict = verify(&setup.log, &setup.dir(), &scratch).await?;
        let difference = verdict.difference.expect("the tables differ");
        assert_eq!(difference.table, table);
        assert!(difference.whole_table && difference.events.is_empty());
        for (columns, expected) in [(&difference.live, live), (&difference.rebuilt, rebuilt)] {
            assert_eq!(columns.is_some(), expected.is_some(), "{difference:?}");
            let columns = columns.as_deref().unwrap_or_default();
            assert!(columns.contains(expected.unwrap_or_default()), "{columns}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn verification_works_while_the_projector_goes_on() -> Result<()> {
    let mut setup = Setup::new().await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let last = setup.exchanges(5).await?;
    running.applied(last).await?;
    let scratch = setup.folder.path().join("scratch");
    let (log, dir) = (setup.log.clone(), setup.dir());
    let (verdict, last) = tokio::join!(verify(&log, &dir, &scratch), setup.exchanges(40));
    let verdict = verdict?;
    assert_eq!(verdict.difference, None);
    assert!(verdict.as_of.exchanges >= 10);
    running.applied(last?).await?;
    running.stop().await
}
