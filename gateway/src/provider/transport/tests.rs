use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// Answers one connection with those bytes, then keeps it open or closes it.
async fn server(
    answer: &'static [u8],
    keep_open: bool,
) -> (String, tokio::task::JoinHandle<io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let serve = async move {
        let (mut socket, _) = listener.accept().await?;
        let mut request = [0; 4096];
        let _bytes = socket.read(&mut request).await?;
        socket.write_all(answer).await?;
        if keep_open {
            let _end = socket.read(&mut request).await?;
        }
        Ok(())
    };
    (url, tokio::task::spawn_local(serve))
}

pub(super) fn transport() -> Transport {
    // A second installation is refused, which is as good.
    let _installed = rustls::crypto::ring::default_provider()
        .install_default()
        .is_ok();
    let settings = TransportSettings {
        connect: Duration::from_secs(5),
        first_byte: Duration::from_millis(200),
        idle: Duration::from_millis(200),
        ..TransportSettings::default()
    };
    Transport::new(settings, &Roots::default()).unwrap()
}

fn request(url: &str) -> UpstreamRequest {
    UpstreamRequest::Http(HttpRequest {
        url: url.parse().unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"{}"),
    })
}

/// Sends to a server that answers with those bytes and reads all of it.
async fn outcome(answer: &'static [u8], keep_open: bool) -> Result<Bytes, ProviderError> {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let (url, _serving) = server(answer, keep_open).await;
            let mut upstream = transport().send(request(&url), Bounds::default()).await?;
            upstream.body.read_whole(16).await
        })
        .await
}

#[tokio::test]
async fn an_answer_comes_whole() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    assert_eq!(outcome(answer, true).await.unwrap(), "hi");
}

#[tokio::test]
async fn each_way_to_fail_has_its_reason() {
    let cases: [(&'static [u8], bool, FailureReason); 5] = [
        (b"", false, FailureReason::UpstreamCut),
        (b"", true, FailureReason::UpstreamTimeout),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi",
            false,
            FailureReason::UpstreamCut,
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi",
            true,
            FailureReason::UpstreamStalled,
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n0123456789abcdefg",
            true,
            FailureReason::UpstreamTooLarge,
        ),
    ];
    for (answer, keep_open, reason) in cases {
        let error = outcome(answer, keep_open).await.unwrap_err();
        assert_eq!(error.reason, reason, "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn a_closed_port_is_a_refusal_that_another_provider_may_mend() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error = transport()
        .send(request(&url), Bounds::default())
        .await
        .unwrap_err();
    assert_eq!(
        (error.reason, error.retry),
        (FailureReason::UpstreamRefused, Retry::Now)
    );
}
