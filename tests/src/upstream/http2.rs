//! One HTTP/2 connection: each stream plays its script.
//!
//! What a script does to its connection it does here to its stream: to close and to reset are both
//! a stream that is reset, for the connection belongs to others as well.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_rustls::server::TlsStream;

use super::connection::{is_chat, script_of_other};
use super::record::{End, Exchange, Sent};
use super::render::{self, Step};
use super::request::Request;
use super::{Guest, Shared};

/// What a client begins an HTTP/2 connection with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of the head of a frame (RFC 9113, section 4.1): length, type, flags, stream.
const FRAME_HEAD_BYTES: usize = 9;

const HEADERS: u8 = 1;

/// Serves one connection until one side is done with it.
pub(super) async fn serve(stream: TlsStream<TcpStream>, streams_max: u32, guest: Guest) {
    let shared = &guest.shared;
    let one_less = |left: usize| left.checked_sub(1);
    let turning_away =
        shared
            .turning_away
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    if turning_away.is_ok() {
        // A client that leaves meanwhile has seen as much as it wanted.
        drop(turn_away(stream).await);
        return;
    }
    let mut settings = Builder::new();
    settings.max_concurrent_streams(streams_max);
    let Ok(mut connection) = settings.handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let answering = answer(request, respond, Arc::clone(shared), guest.number);
        let stop = guest.stop.clone();
        shared
            .tasks
            .spawn(async move { stop.run_until_cancelled(answering).await });
    }
}

/// Waits for a request and ends the connection: the last stream that was processed is none.
///
/// By hand: the library counts a stream as processed as soon as it knows of it.
async fn turn_away(mut stream: TlsStream<TcpStream>) -> Result<()> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).await?;
    ensure!(preface == *PREFACE, "no HTTP/2");
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    stream.write_all(&settings).await?;
    stream.flush().await?;
    loop {
        let mut head = [0; FRAME_HEAD_BYTES];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, ..] = head;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c]))?;
        stream.read_exact(&mut vec![0; length]).await?;
        if kind == HEADERS {
            break;
        }
    }
    // GOAWAY: the last stream is 0, the reason NO_ERROR.
    let go_away = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    stream.write_all(&go_away).await?;
    stream.shutdown().await?;
    // The client has read that when it closes.
    while stream.read_buf(&mut BytesMut::new()).await? > 0 {}
    Ok(())
}

async fn answer(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: Arc<Shared>,
    connection: usize,
) {
    let Ok(request) = read(request).await else {
        return respond.send_reset(Reason::CANCEL);
    };
    let is_chat = is_chat(&request);
    let script = if is_chat {
        shared.script_for(&request)
    } else {
        script_of_other(&shared, &request)
    };
    let steps = render::steps(&script, &request);
    let place = if is_chat {
        Some(shared.begin(request, connection))
    } else {
        shared.others.lock().push(request);
        None
    };
    let notes = Notes { shared, place };
    let end = play(respond, steps, &notes).await;
    notes.change(|exchange| exchange.end = Some(end));
}

/// Where it is remembered what happened with a request; of other routes than that of chats nowhere.
struct Notes {
    shared: Arc<Shared>,
    place: Option<usize>,
}

impl Notes {
    fn change(&self, change: impl FnOnce(&mut Exchange)) {
        if let Some(place) = self.place {
            self.shared.record(place, change);
        }
    }
}

async fn read(request: http::Request<RecvStream>) -> Result<Request> {
    let (head, mut stream) = request.into_parts();
    let mut body = BytesMut::new();
    while let Some(piece) = stream.data().await {
        let piece = piece.context("failed to read a body")?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    let path = head.uri.path_and_query();
    Ok(Request {
        at: Instant::now(),
        method: head.method.to_string(),
        path: path.map(ToString::to_string).unwrap_or_default(),
        headers: head.headers,
        body: body.freeze(),
    })
}

/// The way back to the client.
enum Way {
    /// Before the head.
    Begun(SendResponse<Bytes>),
    /// After it.
    Answering(SendStream<Bytes>),
}

/// Plays the steps.
async fn play(respond: SendResponse<Bytes>, steps: Vec<Step>, notes: &Notes) -> End {
    let mut way = Way::Begun(respond);
    for step in steps {
        let done = match step {
            Step::Head { status, bytes } => {
                notes.change(|exchange| exchange.status = Some(status));
                way.head(&bytes)
            }
            // The framing of HTTP/1.1.
            Step::Frame(_) => Ok(()),
            Step::Body { bytes, .. } => {
                let sent = way.body(bytes.clone()).await;
                if sent.is_ok() {
                    let at = Instant::now();
                    notes.change(|exchange| exchange.sent.push(Sent { at, bytes }));
                }
                sent
            }
            Step::Wait(gate) => way.unless_reset(gate.pass()).await,
            Step::Pause(pause) => way.unless_reset(sleep(pause)).await,
            Step::Stall => way.unless_reset(std::future::pending()).await,
            Step::Close => {
                way.reset(Reason::INTERNAL_ERROR);
                return End::Closed;
            }
            Step::Reset => {
                way.reset(Reason::CANCEL);
                return End::Reset;
            }
            Step::Refuse => {
                way.reset(Reason::REFUSED_STREAM);
                return End::Refused;
            }
        };
        if done.is_err() {
            return End::ClientLeft;
        }
    }
    match way.end() {
        Ok(()) => End::Complete,
        Err(_) => End::ClientLeft,
    }
}

impl Way {
    fn head(&mut self, bytes: &[u8]) -> Result<()> {
        if let Self::Begun(respond) = self {
            *self = Self::Answering(respond.send_response(response(bytes)?, false)?);
        }
        Ok(())
    }

    /// Sends a piece, as far as the client takes it.
    async fn body(&mut self, mut bytes: Bytes) -> Result<()> {
        let Self::Answering(stream) = self else {
            return Ok(());
        };
        while !bytes.is_empty() {
            stream.reserve_capacity(bytes.len());
            let room = poll_fn(|cx| stream.poll_capacity(cx)).await;
            let room = room.context("the stream is gone")??;
            stream.send_data(bytes.split_to(room.min(bytes.len())), false)?;
        }
        Ok(())
    }

    async fn unless_reset(&mut self, waiting: impl Future<Output = ()>) -> Result<()> {
        let reset = poll_fn(|cx| match self {
            Self::Begun(respond) => respond.poll_reset(cx),
            Self::Answering(stream) => stream.poll_reset(cx),
        });
        tokio::select! {
            () = waiting => Ok(()),
            reason = reset => anyhow::bail!("the client has reset the stream: {reason:?}"),
        }
    }

    fn reset(self, reason: Reason) {
        match self {
            Self::Begun(mut respond) => respond.send_reset(reason),
            Self::Answering(mut stream) => stream.send_reset(reason),
        }
    }

    fn end(self) -> Result<()> {
        match self {
            Self::Begun(mut respond) => respond.send_reset(Reason::INTERNAL_ERROR),
            Self::Answering(mut stream) => stream.send_data(Bytes::new(), true)?,
        }
        Ok(())
    }
}

/// The head of an answer, from how it is written in HTTP/1.1.
fn response(bytes: &[u8]) -> Result<Response<()>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    head.parse(bytes).context("a strange head")?;
    let mut response = Response::builder().status(head.code.context("no status")?);
    for field in head.headers.iter() {
        // Its own framing says where a body ends.
        if !field.name.eq_ignore_ascii_case("transfer-encoding") {
            response = response.header(field.name, field.value);
        }
    }
    response.body(()).context("a strange head")
}
