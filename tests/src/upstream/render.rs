//! Turns a script and a request into the steps that a connection plays. Pure.
//!
//! First the course of the body as it would be undisturbed, a list of [`Beat`]s with every point at
//! which something could happen; then what the script wants to happen is woven in.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use serde_json::{Value, json};

use super::content;
use super::request::Request;
use super::script::{Answer, Cut, Fixed, Happening, Point, Reply, Script, Usage, Writes};
use crate::gate::Gate;

/// One thing that a connection does.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Send status and header fields.
    Head { status: u16, bytes: Bytes },
    /// Send bytes that are not part of a body: framing, or no HTTP at all.
    Frame(Bytes),
    /// Send a piece of the body in one write; `chunked` adds the framing of chunked coding.
    Body { bytes: Bytes, chunked: bool },
    /// Wait at a gate.
    Wait(Gate),
    /// Let time pass.
    Pause(Duration),
    /// Do nothing until the client goes.
    Stall,
    /// Close the connection.
    Close,
    /// Reset the connection.
    Reset,
    /// Say that the request was not processed, and end it.
    Refuse,
}

/// A moment in the undisturbed course of a body.
#[derive(Debug)]
enum Beat {
    /// Bytes that belong together: an event, or a whole body.
    Bytes(Bytes),
    /// A point at which a script may want something.
    Point(Point),
    /// The script's pause between chunks.
    Pause(Duration),
}

/// The steps for this request.
pub(super) fn steps(script: &Script, request: &Request) -> Vec<Step> {
    let mut play = Play {
        happenings: &script.happenings,
        ..Play::default()
    };
    match &script.reply {
        Reply::NotHttp(bytes) => {
            play.reach(Point::BeforeHeaders);
            play.steps.extend([Step::Frame(bytes.clone()), Step::Close]);
        }
        Reply::Refused => {
            play.reach(Point::BeforeHeaders);
            play.steps.push(Step::Refuse);
        }
        Reply::Fixed(fixed) => play.plain(fixed),
        Reply::Answer(answer) if request.wants_stream() => play.stream(answer, request),
        Reply::Answer(answer) => {
            let body = content::completion(answer, request).to_string();
            let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
            play.plain(&Fixed {
                status: 200,
                headers,
                body: body.into(),
            });
        }
    }
    play.steps
}

/// A play in the making.
#[derive(Default)]
struct Play<'a> {
    happenings: &'a [(Point, Happening)],
    steps: Vec<Step>,
    /// Whether the body has chunked coding.
    chunked: bool,
    /// How the events are put into writes; `None` for a body that is one piece.
    writes: Option<Writes>,
    /// Events that wait for their write, and how many they are.
    held: BytesMut,
    held_events: usize,
}

/// An end before its time: so many bytes of the next piece, then this.
type Ending = (usize, Cut);

impl Play<'_> {
    /// A reply with a `Content-Length`.
    fn plain(&mut self, fixed: &Fixed) {
        let course = vec![
            Beat::Point(Point::AfterChunks(0)),
            Beat::Bytes(fixed.body.clone()),
        ];
        self.whole(
            Step::Head {
                status: fixed.status,
                bytes: head_of(fixed),
            },
            course,
        );
    }

    fn stream(&mut self, answer: &Answer, request: &Request) {
        self.chunked = true;
        self.writes = Some(answer.writes);
        let bytes = Bytes::from_static(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
              cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n",
        );
        self.whole(
            Step::Head { status: 200, bytes },
            course_of_stream(answer, request),
        );
    }

    fn whole(&mut self, head: Step, course: Vec<Beat>) {
        if let Some(ending) = self.reach(Point::BeforeHeaders) {
            return self.end(&Bytes::new(), ending);
        }
        self.steps.push(head);
        if let Some(ending) = self.reach(Point::AfterHeaders) {
            return self.end(&Bytes::new(), ending);
        }
        self.body(course);
    }

    fn body(&mut self, course: Vec<Beat>) {
        let mut beats = course.into_iter();
        while let Some(beat) = beats.next() {
            match beat {
                Beat::Bytes(bytes) => self.hold(&bytes),
                Beat::Pause(pause) => {
                    self.flush();
                    self.steps.push(Step::Pause(pause));
                }
                Beat::Point(point) => {
                    if let Some(ending) = self.reach(point) {
                        let next = beats.find_map(Beat::into_bytes).unwrap_or_default();
                        return self.end(&next, ending);
                    }
                }
            }
        }
        self.end(&Bytes::new(), (0, Cut::Orderly));
    }

    /// Plays what happens at a point; says so if that is the end.
    fn reach(&mut self, point: Point) -> Option<Ending> {
        for (_, happening) in self.happenings.iter().filter(|(at, _)| *at == point) {
            self.flush();
            match happening {
                Happening::Wait(gate) => self.steps.push(Step::Wait(gate.clone())),
                Happening::Pause(pause) => self.steps.push(Step::Pause(*pause)),
                Happening::Stall => self.steps.push(Step::Stall),
                Happening::Insert(bytes) => self.send(bytes.clone()),
                Happening::End { bytes_of_next, how } => return Some((*bytes_of_next, *how)),
            }
        }
        None
    }

    fn end(&mut self, next: &Bytes, (bytes, how): Ending) {
        self.flush();
        self.send(next.slice(..bytes.min(next.len())));
        match how {
            Cut::Close => self.steps.push(Step::Close),
            Cut::Reset => self.steps.push(Step::Reset),
            Cut::Orderly if self.chunked => {
                self.steps
                    .push(Step::Frame(Bytes::from_static(b"0\r\n\r\n")));
            }
            Cut::Orderly => {}
        }
    }

    fn hold(&mut self, event: &[u8]) {
        self.held.extend_from_slice(event);
        self.held_events += 1;
        let full = match self.writes {
            Some(Writes::Events(count)) => self.held_events >= count,
            Some(Writes::Bytes) | None => true,
        };
        if full {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.held_events = 0;
        let held = self.held.split().freeze();
        self.send(held);
    }

    fn send(&mut self, bytes: Bytes) {
        let chunked = self.chunked;
        if bytes.is_empty() {
        } else if self.writes == Some(Writes::Bytes) {
            let single = |place| Step::Body {
                bytes: bytes.slice(place..=place),
                chunked,
            };
            self.steps.extend((0..bytes.len()).map(single));
        } else {
            self.steps.push(Step::Body { bytes, chunked });
        }
    }
}

impl Beat {
    fn into_bytes(self) -> Option<Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Point(_) | Self::Pause(_) => None,
        }
    }
}

fn head_of(fixed: &Fixed) -> Bytes {
    let status = StatusCode::from_u16(fixed.status).ok();
    let reason = status
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Unknown");
    let mut lines = vec![format!("HTTP/1.1 {} {reason}", fixed.status)];
    lines.extend(
        fixed
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}")),
    );
    lines.push(format!("content-length: {}\r\n\r\n", fixed.body.len()));
    lines.join("\r\n").into()
}

fn course_of_stream(answer: &Answer, request: &Request) -> Vec<Beat> {
    let event = |data: &str| {
        let line = if answer.crlf { "\r\n" } else { "\n" };
        let comment = if answer.comments {
            format!(": keep-alive{line}{line}")
        } else {
            String::new()
        };
        Beat::Bytes(format!("{comment}data: {data}{line}{line}").into())
    };
    let delta = |choice, delta: &Value, finish| {
        event(&content::chunk(request, choice, delta, finish).to_string())
    };
    let choices = 0..request.choices();

    let mut course = Vec::new();
    for choice in choices.clone() {
        course.push(delta(
            choice,
            &json!({"role": "assistant", "content": ""}),
            None,
        ));
    }
    course.push(Beat::Point(Point::AfterChunks(0)));
    let mut sent = 0;
    for (choice, chunk) in deltas(answer, request) {
        sent += 1;
        course.extend(answer.pause.map(Beat::Pause));
        course.push(delta(choice, &chunk, None));
        course.push(Beat::Point(Point::AfterChunks(sent)));
    }
    for choice in choices {
        course.push(delta(choice, &json!({}), Some(answer.finish_reason())));
    }
    if answer.usage == Usage::AsAsked && request.wants_usage() {
        course.push(event(&content::usage_chunk(answer, request).to_string()));
    }
    course.push(Beat::Point(Point::BeforeDone));
    if answer.done {
        course.push(event("[DONE]"));
    }
    course
}

/// The chunks in the order they are sent: choice by choice in turn, as a real stream has them.
fn deltas(answer: &Answer, request: &Request) -> Vec<(usize, Value)> {
    if let Some(call) = &answer.tool_call {
        return content::tool_call_deltas(call, &request.tag())
            .map(|delta| (0, delta))
            .collect();
    }
    let by_choice: Vec<Vec<String>> = (0..request.choices())
        .map(|choice| content::words(answer, request, choice))
        .collect();
    let rounds = by_choice.iter().map(Vec::len).max().unwrap_or(0);
    let mut deltas = Vec::new();
    for round in 0..rounds {
        for (choice, words) in by_choice.iter().enumerate() {
            deltas.extend(
                words
                    .get(round)
                    .map(|word| (choice, json!({"content": word}))),
            );
        }
    }
    deltas
}
