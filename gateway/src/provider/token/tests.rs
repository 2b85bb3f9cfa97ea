use std::sync::atomic::AtomicUsize;

use futures_util::future::join_all;

use super::*;

const HOUR: Duration = Duration::from_hours(1);
const SECOND: Duration = Duration::from_secs(1);

fn grant(secret: &str) -> Grant {
    Grant {
        url: "http://x.test/token".parse().unwrap(),
        api_key: Secret::new("api".to_owned()),
        secret_key: Secret::new(secret.to_owned()),
        is_refused: |_| false,
    }
}

/// Draws `token-1`, `token-2`, …, each after a moment.
#[derive(Default)]
struct Endpoint {
    drawn: AtomicUsize,
}

impl Endpoint {
    async fn draw(&self) -> Result<Drawn, ProviderError> {
        let number = self.drawn.fetch_add(1, Ordering::AcqRel) + 1;
        tokio::task::yield_now().await;
        Ok(Drawn {
            token: Secret::new(format!("token-{number}")),
            expires_in: HOUR,
        })
    }

    async fn fail(&self) -> Result<Drawn, ProviderError> {
        self.draw().await?;
        Err(ProviderError::malformed("no"))
    }

    fn drawn(&self) -> usize {
        self.drawn.load(Ordering::Acquire)
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_while_one_is_drawn_waits_for_it() {
    let (tokens, endpoint, grant) = (Tokens::default(), Endpoint::default(), grant("s"));
    let all = join_all((0..20).map(|_| tokens.get(&grant, None, endpoint.draw()))).await;
    assert!(
        all.into_iter()
            .all(|token| token.unwrap().expose() == "token-1")
    );
    assert_eq!(endpoint.drawn(), 1);
    // Other keys have a token of their own.
    let other = self::grant("t");
    let token = tokens.get(&other, None, endpoint.draw()).await.unwrap();
    assert_eq!(token.expose(), "token-2");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_drawn_anew_before_it_expires() {
    let (tokens, endpoint, grant) = (Tokens::default(), Endpoint::default(), grant("s"));
    for (wait, drawn) in [
        (Duration::ZERO, 1),
        (HOUR.saturating_sub(MARGIN_MAX + SECOND), 1),
        (SECOND * 2, 2),
    ] {
        tokio::time::advance(wait).await;
        tokens.get(&grant, None, endpoint.draw()).await.unwrap();
        assert_eq!(endpoint.drawn(), drawn);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_serves_to_its_end_when_no_other_can_be_drawn() {
    let (tokens, endpoint, grant) = (Tokens::default(), Endpoint::default(), grant("s"));
    let old = tokens.get(&grant, None, endpoint.draw()).await.unwrap();
    tokio::time::advance(HOUR.saturating_sub(MARGIN_MAX)).await;
    for _ in 0..3 {
        let token = tokens.get(&grant, None, endpoint.fail()).await.unwrap();
        assert_eq!(token.expose(), old.expose());
    }
    assert_eq!(endpoint.drawn(), 2, "not for each request");
    // Not one that the provider has refused, and not beyond its end.
    assert!(
        tokens
            .get(&grant, Some(&old), endpoint.fail())
            .await
            .is_err()
    );
    tokio::time::advance(MARGIN_MAX).await;
    assert!(tokens.get(&grant, None, endpoint.fail()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_once_for_all_who_had_it() {
    let (tokens, endpoint, grant) = (Tokens::default(), Endpoint::default(), grant("s"));
    let old = tokens.get(&grant, None, endpoint.draw()).await.unwrap();
    let again = (0..20).map(|_| tokens.get(&grant, Some(&old), endpoint.draw()));
    let all = join_all(again).await;
    assert!(
        all.into_iter()
            .all(|token| token.unwrap().expose() == "token-2")
    );
    assert_eq!(endpoint.drawn(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shared_by_who_waited_and_not_kept() {
    let (tokens, endpoint, grant) = (Tokens::default(), Endpoint::default(), grant("s"));
    let all = join_all((0..20).map(|_| tokens.get(&grant, None, endpoint.fail()))).await;
    assert!(
        all.into_iter()
            .all(|token| token.is_err_and(|error| error.message == "no"))
    );
    assert_eq!(endpoint.drawn(), 1, "the others did not ask");
    assert!(tokens.get(&grant, None, endpoint.draw()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_leaves_the_drawing_to_the_next_and_nobody_waits_for_ever() {
    let (tokens, endpoint, grant) = (Tokens::default(), Endpoint::default(), grant("s"));
    {
        let mut first = std::pin::pin!(tokens.get(&grant, None, endpoint.draw()));
        assert!(futures_util::poll!(first.as_mut()).is_pending());
    }
    assert!(tokens.get(&grant, None, endpoint.draw()).await.is_ok());
    let other = self::grant("t");
    let never = tokens.get(&other, None, std::future::pending()).await;
    assert_eq!(never.unwrap_err().reason, FailureReason::UpstreamTimeout);
}

#[test]
fn what_is_kept_is_bounded_and_tells_nothing() {
    let tokens = Tokens::default();
    for number in 0..KEPT_MAX * 3 {
        let _slot = tokens.slot(&grant(&number.to_string()));
        assert!(tokens.0.lock().len() <= KEPT_MAX);
    }
    assert!(!format!("{:?} {tokens:?}", grant("hidden")).contains("hidden"));
}
