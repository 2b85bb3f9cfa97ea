//! What the tests of dialects share: pairs of golden files, and hostile answers.
//!
//! The pairs lie in `src/dialect/<name>/testdata`. Built with `NEXUS_BLESS` set, the tests write
//! the second file of each pair in place of comparing it.

use std::{fs, path::PathBuf};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use nexus_events::clock::UnixMillis;
use serde_json::Value;

use super::{
    Asked, Dialect,
    candidate::{Carriers, Speaker},
    chat::Chunk,
    fields::Fields,
};
use crate::{
    protocol::openai::{
        request::{BadRequest, ChatRequest},
        response::error_object,
    },
    provider::translate::testing::corruptions,
    stream::{
        sse_decode::{SseDecoder, SseEvent},
        sse_encode::{self, DONE},
    },
};

/// The golden files of one dialect.
pub(super) struct Goldens {
    dir: PathBuf,
    dialect: &'static dyn Dialect,
}

pub(super) fn asked(body: &[u8]) -> Asked {
    Asked {
        id: "0199c0de-0000-7000-8000-000000000001".parse().unwrap(),
        time: UnixMillis::from_millis(1_764_000_000_000),
        body: Bytes::copy_from_slice(body),
    }
}

/// The chat request for a body, as the engine would read it.
pub(super) fn to_chat(
    dialect: &dyn Dialect,
    body: &[u8],
    speakers: &[Speaker],
) -> Result<Bytes, BadRequest> {
    to_chat_with(dialect, (body, &HeaderMap::new()), speakers)
}

/// The same of a request with headers.
pub(super) fn to_chat_with(
    dialect: &dyn Dialect,
    (body, headers): (&[u8], &HeaderMap),
    speakers: &[Speaker],
) -> Result<Bytes, BadRequest> {
    let mut carriers = Carriers::speaking(speakers.to_vec());
    let chat = dialect.request(&Fields::of_body(body)?, headers, &mut carriers)?;
    ChatRequest::parse(&chat).expect("a chat request");
    Ok(chat)
}

/// The member that a request is refused for.
pub(super) fn params(error: BadRequest) -> String {
    error.param.expect("a member")
}

/// The member that a request is refused for.
pub(super) fn refused(dialect: &dyn Dialect, body: &str) -> String {
    refused_by(dialect, body, &[Speaker::Compatible])
}

/// The same where those offer the model.
pub(super) fn refused_by(dialect: &dyn Dialect, body: &str, speakers: &[Speaker]) -> String {
    let error = to_chat(dialect, body.as_bytes(), speakers);
    params(error.expect_err(body))
}

/// The dialect's events for a chat stream.
pub(super) fn stream(dialect: &dyn Dialect, body: &[u8], chat: &[u8]) -> BytesMut {
    let mut events = dialect.events(asked(body));
    let mut out = BytesMut::new();
    for event in decoded(chat) {
        if event.data == DONE {
            events.done(&mut out);
        } else if let Some(error) = error_object(&event.data) {
            events.failed(&error, &mut out);
        } else if let Ok(chunk) = Chunk::read(&event.data) {
            events.chunk(&chunk, &mut out);
        }
    }
    out
}

/// Names and data of a stream's events.
pub(super) fn decoded(stream: &[u8]) -> Vec<SseEvent> {
    let mut decoder = SseDecoder::default();
    // The golden files end without the blank line that ends their last event.
    decoder.push([stream, b"\n\n"].concat().into());
    std::iter::from_fn(|| decoder.next_event().unwrap()).collect()
}

impl Goldens {
    pub(super) fn of(name: &str, dialect: &'static dyn Dialect) -> Self {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        Self {
            dir: dir.join("src/dialect").join(name).join("testdata"),
            dialect,
        }
    }

    /// Names and contents of the files with that ending, which is left off.
    fn files(&self, ending: &str) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        for file in fs::read_dir(&self.dir).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Some(case) = name.strip_suffix(ending) {
                files.push((case.to_owned(), fs::read(&path).unwrap()));
            }
        }
        assert!(!files.is_empty(), "no {ending}");
        files.sort();
        files
    }

    fn compare(&self, name: &str, actual: &[u8]) {
        let path = self.dir.join(name);
        let actual = String::from_utf8_lossy(actual);
        if option_env!("NEXUS_BLESS").is_some() {
            fs::write(&path, format!("{}\n", actual.trim_end())).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(actual.trim_end(), expected.trim_end(), "{name}");
    }

    /// The request that goes with an answer; `{}` where there is none of that name.
    fn body_of(&self, case: &str) -> Vec<u8> {
        let path = self.dir.join(format!("{case}.request.json"));
        fs::read(path).unwrap_or_else(|_| b"{}".to_vec())
    }

    /// `x.request.json` is what a client sends, `x.chat.json` what the engine gets; a name with
    /// `anthropic`, `gemini`, `openai` or `compatible` in it is of a model that is offered there, any other of
    /// one at a server of OpenAI's form.
    pub(super) fn requests(&self) {
        let known = [
            ("anthropic", Speaker::Anthropic),
            ("gemini", Speaker::Gemini),
            ("openai", Speaker::OpenAi),
            ("compatible", Speaker::Compatible),
        ];
        for (case, body) in self.files(".request.json") {
            let named = known.iter().filter(|(name, _)| case.contains(name));
            let mut speakers: Vec<_> = named.map(|(_, speaker)| *speaker).collect();
            if speakers.is_empty() {
                speakers.push(Speaker::Compatible);
            }
            let chat = to_chat(self.dialect, &body, &speakers).expect(&case);
            self.compare(&format!("{case}.chat.json"), &chat);
        }
    }

    /// `x.completion.json` is a chat answer, `x.answer.json` what the client gets.
    pub(super) fn answers(&self) {
        for (case, chat) in self.files(".completion.json") {
            let asked = asked(&self.body_of(&case));
            let answer = self.dialect.answer(&asked, &chat).unwrap();
            self.compare(&format!("{case}.answer.json"), &answer);
        }
    }

    /// `x.completion.sse` is a chat stream, `x.answer.sse` what the client gets.
    pub(super) fn streams(&self) {
        for (case, chat) in self.files(".completion.sse") {
            let body = self.body_of(&case);
            self.compare(
                &format!("{case}.answer.sse"),
                &stream(self.dialect, &body, &chat),
            );
        }
    }

    /// Puts something else in the place of every value of every answer, and leaves chunks out or
    /// says them twice: each ends in some answer, whose events `check` accepts.
    pub(super) fn corrupt(&self, check: impl Fn(&[Value])) {
        for (_, chat) in self.files(".completion.sse") {
            let events: Vec<String> = decoded(&chat)
                .iter()
                .map(|event| String::from_utf8(event.data.to_vec()).unwrap())
                .collect();
            let mut cases = Vec::new();
            for (at, event) in events.iter().enumerate().take(events.len() - 1) {
                let (mut without, mut twice) = (events.clone(), events.clone());
                without.remove(at);
                twice.insert(at, event.clone());
                cases.extend([without, twice]);
                for corrupted in corruptions(&serde_json::from_str(event).unwrap()) {
                    let mut events = events.clone();
                    events[at] = corrupted.to_string();
                    cases.push(events);
                }
            }
            for case in cases {
                let mut frames = BytesMut::new();
                for data in &case {
                    sse_encode::frame(&mut frames, data.as_bytes());
                }
                let out = stream(self.dialect, b"{}", &frames);
                let events = decoded(&out);
                let events = events.iter().filter(|event| event.data != DONE);
                let events: Vec<Value> = events
                    .map(|event| serde_json::from_slice(&event.data).unwrap())
                    .collect();
                check(&events);
            }
        }
        for (_, chat) in self.files(".completion.json") {
            for corrupted in corruptions(&serde_json::from_slice(&chat).unwrap()) {
                let corrupted = corrupted.to_string();
                if let Ok(answer) = self.dialect.answer(&asked(b"{}"), corrupted.as_bytes()) {
                    serde_json::from_slice::<Value>(&answer).unwrap();
                }
            }
        }
    }
}
