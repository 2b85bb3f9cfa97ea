//! The proxy between a plain TCP client and an echo server.

use std::io::ErrorKind;

use tokio::time::{Instant, timeout};

use super::*;

/// Far more than an echo over loopback takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a test waits to see that nothing comes.
const SILENCE: Duration = Duration::from_millis(200);

/// Sends everything back, until the client ends its direction; then says "bye".
async fn echo_server(tasks: &TaskTracker) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connections = tasks.clone();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(echo(stream));
        }
    });
    address
}

async fn echo(stream: TcpStream) {
    let (mut from, mut to) = stream.into_split();
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        to.write_all(&buffer[..count]).await.unwrap();
    }
    drop(to.write_all(b"bye").await);
}

async fn connected() -> (Chaos, TcpStream) {
    let chaos = Chaos::start(&echo_server(&TaskTracker::new()).await).unwrap();
    let mut client = TcpStream::connect(chaos.url_host_port()).await.unwrap();
    assert_eq!(say(&mut client, b"hello").await, b"hello");
    (chaos, client)
}

async fn say(client: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    client.write_all(bytes).await.unwrap();
    let mut back = vec![0; bytes.len()];
    timeout(PATIENCE, client.read_exact(&mut back))
        .await
        .expect("no echo")
        .unwrap();
    back
}

#[tokio::test]
async fn cuts_what_there_is_and_serves_what_comes() {
    let (chaos, mut client) = connected().await;
    chaos.cut();
    let end = timeout(PATIENCE, client.read(&mut [0])).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    let mut second = TcpStream::connect(chaos.url_host_port()).await.unwrap();
    assert_eq!(say(&mut second, b"again").await, b"again");
    assert_eq!(chaos.connections(), 2);
}

#[tokio::test]
async fn refuses_until_it_accepts_again() {
    let (chaos, mut client) = connected().await;
    chaos.refuse().await.unwrap();
    let error = TcpStream::connect(chaos.url_host_port()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(say(&mut client, b"still").await, b"still");
    chaos.accept().unwrap();
    let mut second = TcpStream::connect(chaos.url_host_port()).await.unwrap();
    assert_eq!(say(&mut second, b"again").await, b"again");
}

#[tokio::test]
async fn holds_bytes_back_and_lets_them_flow() {
    let (chaos, mut client) = connected().await;
    chaos.stall();
    client.write_all(b"held").await.unwrap();
    let mut back = [0; 4];
    assert!(
        timeout(SILENCE, client.read_exact(&mut back))
            .await
            .is_err()
    );
    chaos.flow();
    client.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"held");
}

#[tokio::test]
async fn slows_down() {
    let (chaos, mut client) = connected().await;
    chaos.slow(NonZeroU32::new(2_000).unwrap());
    let begun = Instant::now();
    assert_eq!(say(&mut client, &[7; 1_000]).await, [7; 1_000]);
    // Half a second at this rate, each way; less one step of either.
    assert!(
        begun.elapsed() > Duration::from_millis(400),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn half_close_ends_one_direction_only() {
    let (chaos, mut client) = connected().await;
    chaos.half_close();
    let mut rest = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut rest))
        .await
        .expect("no end")
        .unwrap();
    assert_eq!(rest, b"bye");
}
