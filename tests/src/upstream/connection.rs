//! One connection: read a request, play its script, remember what left, again.

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_rustls::server::TlsStream;

use super::record::{End, Sent};
use super::render::{self, Step};
use super::request::{self, Request};
use super::script::Script;
use super::{Guest, Shared, content};

/// A connection, in clear or over TLS.
pub(super) trait Connection: AsyncRead + AsyncWrite + Unpin {
    /// The TCP connection beneath.
    fn tcp(&self) -> &TcpStream;
}

impl Connection for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Connection for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Serves one connection until one side is done with it.
pub(super) async fn serve(mut stream: impl Connection, guest: Guest) {
    let mut buffer = BytesMut::new();
    // A request that cannot be read ends the connection: the hub sees it as a cut, which it is.
    while let Ok(Some(request)) = request::read(&mut stream, &mut buffer).await {
        let end = if is_chat(&request) {
            answer_chat(&mut stream, &mut buffer, &guest, request).await
        } else {
            answer_other(&mut stream, &guest.shared, request).await
        };
        match end {
            End::Complete => {}
            End::Reset => {
                // With no lingering, closing the socket sends RST instead of FIN.
                drop(stream.tcp().set_zero_linger());
                return;
            }
            End::Closed | End::Refused | End::ClientLeft => return,
        }
    }
}

pub(super) fn is_chat(request: &Request) -> bool {
    let path = request.path.split('?').next().unwrap_or_default();
    request.method == "POST" && path.ends_with("/chat/completions")
}

/// What is done with a request to another route than that of chats.
pub(super) fn script_of_other(shared: &Shared, request: &Request) -> Script {
    let path = request.path.split('?').next().unwrap_or_default();
    if let Some(script) = shared.routed(path, request) {
        script
    } else if request.method == "GET" && path.ends_with("/models") {
        Script::json(200, &content::models())
    } else {
        let message = format!("no route {} {}", request.method, request.path);
        Script::json(
            404,
            &content::error(&message, "invalid_request_error", Some("not_found")),
        )
    }
}

async fn answer_other(stream: &mut impl Connection, shared: &Shared, request: Request) -> End {
    let script = script_of_other(shared, &request);
    let steps = render::steps(&script, &request);
    shared.others.lock().push(request);
    for step in steps {
        if let Step::Head { bytes, .. } | Step::Body { bytes, .. } = step
            && stream.write_all(&bytes).await.is_err()
        {
            return End::ClientLeft;
        }
    }
    End::Complete
}

async fn answer_chat(
    stream: &mut impl Connection,
    buffer: &mut BytesMut,
    guest: &Guest,
    request: Request,
) -> End {
    let shared = &guest.shared;
    let script = shared.script_for(&request);
    let steps = render::steps(&script, &request);
    let place = shared.begin(request, guest.number);
    let (mut reader, mut writer) = split(stream);
    let play = play(&mut writer, shared, place, steps);
    let end = tokio::select! {
        biased;
        end = play => end,
        () = client_leaves(&mut reader, buffer) => End::ClientLeft,
    };
    shared.record(place, |exchange| exchange.end = Some(end));
    end
}

/// Plays the steps; the end is what the last of them made of the connection.
async fn play(
    writer: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
    place: usize,
    steps: Vec<Step>,
) -> End {
    for step in steps {
        let written = match step {
            Step::Head { status, bytes } => {
                shared.record(place, |exchange| exchange.status = Some(status));
                write(writer, &bytes).await
            }
            Step::Frame(bytes) => write(writer, &bytes).await,
            Step::Body { bytes, chunked } => {
                let written = if chunked {
                    write(writer, &framed(&bytes)).await
                } else {
                    write(writer, &bytes).await
                };
                if written.is_ok() {
                    let sent = Sent {
                        at: Instant::now(),
                        bytes,
                    };
                    shared.record(place, |exchange| exchange.sent.push(sent));
                }
                // The next write must be another one, also for whoever reads in this thread.
                tokio::task::yield_now().await;
                written
            }
            Step::Wait(gate) => {
                gate.pass().await;
                Ok(())
            }
            Step::Pause(pause) => {
                sleep(pause).await;
                Ok(())
            }
            Step::Stall => std::future::pending().await,
            Step::Close => return End::Closed,
            Step::Reset => return End::Reset,
            // HTTP/1.1 has no words for it.
            Step::Refuse => return End::Refused,
        };
        if written.is_err() {
            return End::ClientLeft;
        }
    }
    End::Complete
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<()> {
    writer
        .write_all(bytes)
        .await
        .context("failed to write to the client")
}

/// One chunk of chunked coding (RFC 9112, section 7.1), in one piece so that it is one write.
fn framed(bytes: &Bytes) -> BytesMut {
    let mut framed = BytesMut::from(format!("{:x}\r\n", bytes.len()).as_bytes());
    framed.extend_from_slice(bytes);
    framed.extend_from_slice(b"\r\n");
    framed
}

/// Comes back when the client has closed or reset the connection; keeps what it sends meanwhile.
async fn client_leaves(reader: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) {
    while reader.read_buf(buffer).await.is_ok_and(|count| count > 0) {}
}
