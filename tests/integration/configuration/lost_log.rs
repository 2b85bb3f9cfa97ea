//! A copy of the configuration beside a log that is not the one that it was taken from.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_lost_is_not_taken_for_the_one_before() -> Result<()> {
    let broker = Broker::start().await?;
    let (master, dir) = (MasterKey::draw()?, tempfile::tempdir()?);
    let first = log(&broker.url()).await?;
    let gateway = Gateway::start(&first, dir.path(), &master).await?;
    gateway.create("p").await?;
    gateway.stop().await?;

    let other = Broker::start().await?;
    let mut follower = follower(&log(&other.url()).await?, dir.path(), &master)?;
    let refused = follower.prepare(BOUND).await;
    assert!(
        matches!(refused, Err(FollowError::OtherStream)),
        "{refused:?}"
    );
    let kept = follower.configuration()?.unwrap();
    assert!(
        kept.current().provider_named("p").is_some(),
        "what is known stays in force"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_tail_is_not_followed_though_it_has_grown_again() -> Result<()> {
    let mut broker = Broker::start().await?;
    let (master, dirs) = (
        MasterKey::draw()?,
        [tempfile::tempdir()?, tempfile::tempdir()?],
    );
    let log = log(&broker.url()).await?;
    let one = Gateway::start(&log, dirs[0].path(), &master).await?;
    one.create("before").await?;
    one.stop().await?;
    let copy = broker.copy_store().await?;
    let one = Gateway::start(&log, dirs[0].path(), &master).await?;
    let lost = one.create("lost").await?;
    one.stop().await?;

    broker.put_back(&copy).await?;
    let refused = follower(&log, dirs[0].path(), &master)?
        .prepare(BOUND)
        .await;
    assert!(matches!(refused, Err(FollowError::Read(_))), "{refused:?}");
    // Another gateway knows no other log than this one, and changes it.
    let two = Gateway::start(&log, dirs[1].path(), &master).await?;
    assert_eq!(two.create("instead").await?, lost);
    two.create("after").await?;
    two.stop().await?;
    for _start in 0..2 {
        let mut follower = follower(&log, dirs[0].path(), &master)?;
        let refused = follower.prepare(BOUND).await;
        let told = refused.expect_err("the tail is lost").to_string();
        assert!(told.contains("its tail is lost"), "{told}");
        assert!(told.contains("config/snapshot.json"), "{told}");
        let kept = follower.configuration()?.unwrap().current();
        assert!(kept.provider_named("lost").is_some());
        assert!(kept.provider_named("instead").is_none());
    }
    // What is to be done about it stands in the reason.
    std::fs::remove_file(dirs[0].path().join("config/snapshot.json"))?;
    let one = Gateway::start(&log, dirs[0].path(), &master).await?;
    let has = ["lost", "instead", "after"]
        .map(|name| one.configuration.current().provider_named(name).is_some());
    assert_eq!(has, [false, true, true]);
    one.stop().await
}
