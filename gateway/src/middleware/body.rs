//! A request's body, read whole and once, within a size and a time.
//!
//! What is not read of one that is refused, [`super::unread`] throws away.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header::CONTENT_LENGTH};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::{
    error::{ApiError, INVALID_REQUEST},
    settings::BODY_BYTES_MAX,
    state::State,
};

/// The body of a request, at most 32 MiB.
#[derive(Clone, Debug)]
pub struct RequestBody(pub Bytes);

impl FromRequest<State> for RequestBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &State) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        read(&parts.headers, body, state.settings.body_time)
            .await
            .map(Self)
    }
}

/// Reads a body whole.
async fn read(headers: &HeaderMap, mut body: Body, bound: Duration) -> Result<Bytes, ApiError> {
    let announced = announced_length(headers);
    if announced.is_some_and(|length| length > BODY_BYTES_MAX) {
        return Err(ApiError::too_large(BODY_BYTES_MAX));
    }
    match timeout(bound, collect(&mut body, announced)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(ApiError::too_large(BODY_BYTES_MAX)),
        Ok(Err(error)) => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            INVALID_REQUEST,
            "incomplete_body",
            "The request's body did not arrive whole.",
        )
        .with_source(error)),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            INVALID_REQUEST,
            "request_timeout",
            format!(
                "The request's body did not arrive within {} seconds.",
                bound.as_secs()
            ),
        )),
    }
}

fn announced_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// All frames as one; `None` when there are more bytes than a body may have.
async fn collect(body: &mut Body, announced: Option<usize>) -> Result<Option<Bytes>, axum::Error> {
    let mut whole = BytesMut::new();
    let mut first = Bytes::new();
    while let Some(frame) = body.frame().await.transpose()? {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.is_empty() && whole.is_empty() {
            // Small bodies come in one frame and are not copied.
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(announced.unwrap_or(first.len() * 2).max(first.len()));
            whole.extend_from_slice(&first);
        }
        if whole.len() + data.len() > BODY_BYTES_MAX {
            return Ok(None);
        }
        whole.extend_from_slice(&data);
    }
    Ok(Some(if whole.is_empty() {
        first
    } else {
        whole.freeze()
    }))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn frames(sizes: &[usize]) -> Body {
        let frames: Vec<_> = sizes
            .iter()
            .map(|size| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; *size])))
            .collect();
        Body::from_stream(stream::iter(frames))
    }

    #[tokio::test]
    async fn a_body_is_read_whole_up_to_its_bound() {
        let none = HeaderMap::new();
        for sizes in [&[][..], &[10], &[10, 0, 20], &[BODY_BYTES_MAX - 1, 1]] {
            let bytes = read(&none, frames(sizes), SECOND).await.unwrap();
            assert_eq!(bytes.len(), sizes.iter().sum::<usize>());
        }
        let error = read(&none, frames(&[BODY_BYTES_MAX, 1]), SECOND)
            .await
            .unwrap_err();
        assert_eq!(error.status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn an_announced_length_above_the_bound_is_refused_unread() {
        let announced = HeaderMap::from_iter([(CONTENT_LENGTH, (BODY_BYTES_MAX + 1).into())]);
        let error = read(&announced, frames(&[]), SECOND).await.unwrap_err();
        assert_eq!(error.status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let error = read(&HeaderMap::new(), never, SECOND).await.unwrap_err();
        assert_eq!(error.status, StatusCode::REQUEST_TIMEOUT);
    }
}
