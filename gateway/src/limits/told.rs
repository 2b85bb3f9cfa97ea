//! What a client is told of its limits, in the headers that `OpenAI`'s clients know.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::spelled;
use crate::shared::{
    Rate,
    quota::{Counted, Demand, Need, Standing, Verdict},
};

const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];

const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// The headers of a decision: of each sort, the limit that has the least left.
pub(super) fn headers(demand: &Demand, verdict: &Verdict) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (counted, names) in [(Counted::Requests, REQUESTS), (Counted::Tokens, TOKENS)] {
        let both = demand.shares.iter().zip(&verdict.standings);
        let rates = both.filter_map(|(share, standing)| match (share.need, standing.need) {
            (Need::Rate { rate: said, .. }, Need::Rate { rate, .. })
                if share.counted == counted =>
            {
                Some((said, rate, standing))
            }
            _ => None,
        });
        let tightest =
            rates.min_by_key(|(said, rate, standing)| (rate.uses(standing.left), said.limit));
        if let Some((said, rate, standing)) = tightest {
            headers.extend(names.into_iter().zip(values(said, rate, standing)));
        }
    }
    headers
}

/// The limit as it is configured; what is left, and when all of it is free again, as it is counted.
fn values(said: Rate, rate: Rate, standing: &Standing) -> [HeaderValue; 3] {
    let reset = spelled(rate.until(rate.capacity(), standing.left));
    [
        HeaderValue::from(said.limit),
        HeaderValue::from(rate.uses(standing.left)),
        // Digits, letters and dots: a header value that cannot be refused.
        HeaderValue::from_str(&reset).unwrap_or(HeaderValue::from_static("0s")),
    ]
}
