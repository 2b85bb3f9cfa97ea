//! Cases that chance found, and that once gave other tables in another order.
//!
//! A seed only means the same case as long as nobody changes how cases are drawn up; so what was
//! found is written out.

use super::{
    assert_order_does_not_matter,
    closed::Rollup,
    generated::{Case, End, Spec},
};

fn request((day, ms): (i64, i64), end: End, places: [u16; 6]) -> Spec {
    Spec {
        drawn: (day, ms),
        conversation: 0,
        message: 1,
        end,
        places: places.to_vec(),
        twice: false,
    }
}

async fn holds(requests: Vec<Spec>, rollups: &[i64], cutoff: Option<i64>, cuts: &[(usize, usize)]) {
    let case = Case {
        requests,
        odd: vec![u16::MAX],
        config: Vec::new(),
        rollups: rollups.iter().copied().map(Rollup::plain).collect(),
        cutoff,
        cuts: cuts.to_vec(),
        echoes: Vec::new(),
    };
    assert_order_does_not_matter(&case).await;
}

#[tokio::test]
async fn a_request_of_a_day_that_retention_has_passed() {
    holds(vec![request((1, 0), End::Open, [0; 6])], &[], Some(0), &[]).await;
}

#[tokio::test]
async fn a_rollup_of_the_day_of_a_request_that_was_read_in_part() {
    let requests = vec![request((0, 0), End::Completed, [0; 6])];
    holds(requests, &[0], None, &[(3, 1)]).await;
}

#[tokio::test]
async fn a_rollup_of_a_day_without_requests() {
    let requests = vec![
        request((0, 0), End::Open, [2620, 0, 2620, 0, 0, 0]),
        request(
            (0, 0),
            End::Completed,
            [1007, 5771, 7835, 38086, 56838, 44481],
        ),
    ];
    let cuts = [
        (1, 4),
        (2, 5),
        (2, 4),
        (2, 1),
        (2, 1),
        (3, 1),
        (3, 1),
        (3, 3),
        (2, 4),
        (3, 1),
        (3, 5),
        (3, 3),
        (2, 2),
        (1, 5),
        (1, 5),
        (2, 1),
        (3, 5),
        (3, 3),
        (3, 4),
        (2, 3),
        (1, 3),
        (1, 5),
        (3, 5),
        (1, 2),
        (3, 2),
        (2, 5),
        (1, 1),
        (3, 4),
        (1, 4),
        (1, 4),
        (1, 2),
        (3, 5),
        (2, 5),
        (3, 4),
    ];
    holds(requests, &[1], None, &cuts).await;
}

#[tokio::test]
async fn a_conversation_that_goes_with_its_last_request() {
    let in_conversation = |spec: Spec| Spec {
        conversation: 2,
        ..spec
    };
    let requests = vec![
        in_conversation(request((0, 0), End::PresumedLost, [0; 6])),
        in_conversation(request(
            (1, 0),
            End::Open,
            [0, 0, 2114, 13454, 46233, 36807],
        )),
    ];
    let cuts = [
        (2, 5),
        (2, 4),
        (2, 5),
        (2, 3),
        (3, 5),
        (1, 1),
        (3, 5),
        (2, 2),
        (1, 4),
        (3, 3),
        (1, 2),
        (3, 1),
        (2, 2),
        (2, 3),
        (3, 1),
        (3, 3),
        (1, 4),
        (1, 2),
        (2, 4),
        (3, 3),
        (3, 3),
        (2, 2),
        (1, 5),
        (1, 1),
        (1, 4),
        (3, 5),
        (2, 5),
        (3, 3),
        (2, 1),
        (2, 2),
    ];
    holds(requests, &[3], Some(0), &cuts).await;
}
