//! What the tests of all adapters share: pairs of golden files, and hostile answers.
//!
//! The pairs lie in `src/provider/<kind>/testdata`. Built with `NEXUS_BLESS` set, the tests write
//! the second file of each pair in place of comparing it.

use std::{fs, path::PathBuf};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use nexus_events::{clock::UnixMillis, exchange_event::FailureReason};
use serde_json::{Value, json};

use crate::{
    protocol::openai::request::ChatRequest,
    provider::{
        Asked, HttpRequest, Provider, ProviderCall, ProviderError, Streamed, Target,
        UpstreamRequest, adapter,
    },
    stream::{sse_decode::SseDecoder, sse_encode},
};

const ID: &str = "0199c0de-0000-7000-8000-000000000001";
const SECOND: i64 = 1_764_000_000;

/// The golden files of one kind of provider.
pub(in crate::provider) struct Goldens {
    dir: PathBuf,
    adapter: &'static dyn Provider,
}

/// How a stream ended.
#[derive(Debug)]
pub(in crate::provider) struct Translated {
    /// As the client would get it.
    pub(in crate::provider) frames: BytesMut,
    pub(in crate::provider) done: bool,
    pub(in crate::provider) error: Option<ProviderError>,
}

pub(crate) fn target(server_url: &str) -> Target<'_> {
    Target {
        server_url,
        server_key: Some("secret"),
        model: "upstream-model",
    }
}

pub(crate) fn encode(
    kind: &str,
    body: &Bytes,
    target: Target<'_>,
) -> Result<HttpRequest, ProviderError> {
    match encode_with(kind, body, target)? {
        UpstreamRequest::Http(request) => Ok(request),
        UpstreamRequest::WithToken(with) => Ok(with.request),
        UpstreamRequest::Local(_) => panic!("no HTTP request"),
    }
}

pub(in crate::provider) fn encode_with(
    kind: &str,
    body: &Bytes,
    target: Target<'_>,
) -> Result<UpstreamRequest, ProviderError> {
    adapter(kind).unwrap().encode(ProviderCall {
        id: ID.parse().unwrap(),
        time: UnixMillis::from_millis(SECOND * 1000),
        request: &ChatRequest::parse(body).unwrap(),
        body,
        target,
    })
}

/// The body for the provider for a request of these members, beside the message.
pub(in crate::provider) fn encode_members(
    kind: &str,
    members: &str,
) -> Result<String, ProviderError> {
    let message = r#""messages":[{"role":"user","content":"hi"}]"#;
    encode_body(kind, &format!(r#"{{"model":"m",{message},{members}}}"#))
}

pub(in crate::provider) fn encode_body(kind: &str, body: &str) -> Result<String, ProviderError> {
    let body = Bytes::from(body.to_owned());
    let request = encode(kind, &body, target("http://provider.test"))?;
    Ok(String::from_utf8(request.body.to_vec()).unwrap())
}

/// The member that a request is refused for.
pub(in crate::provider) fn refused<T>(outcome: Result<T, ProviderError>) -> String {
    let error = outcome.err().expect("refused");
    assert_eq!(error.client_status(), StatusCode::BAD_REQUEST);
    error.object.unwrap().param.unwrap()
}

fn asked(body: &Bytes) -> Asked<'_> {
    Asked {
        id: ID.parse().unwrap(),
        time: UnixMillis::from_millis(SECOND * 1000),
        model: "asked-model",
        body,
    }
}

/// What a client gets for an answer, in the way in which a stream is relayed.
pub(in crate::provider) fn translate(kind: &str, request: &str, stream: &[u8]) -> Translated {
    let adapter = adapter(kind).unwrap();
    let request = Bytes::from(request.to_owned());
    let mut translator = adapter.translator(asked(&request));
    let mut decoder = SseDecoder::default();
    decoder.push(Bytes::copy_from_slice(stream));
    let mut translated = Translated {
        frames: BytesMut::new(),
        done: false,
        error: None,
    };
    let mut out = Vec::new();
    while let Some(event) = decoder.next_event().unwrap() {
        let outcome = if let Some(translator) = &mut translator {
            translator.event(&event, &mut out)
        } else {
            out.push(event);
            Ok(())
        };
        for event in out.drain(..) {
            match adapter.decode_chunk(&event) {
                Ok(Streamed::Chunk(_)) => {}
                Ok(Streamed::Done) => translated.done = true,
                // What a translator says must be what OpenAI could have said.
                other if translator.is_some() => panic!("{other:?}"),
                Ok(Streamed::Nothing) => continue,
                Err(error) => {
                    translated.error = Some(error);
                    return translated;
                }
            }
            sse_encode::frame(&mut translated.frames, &event.data);
            if translated.done {
                return translated;
            }
        }
        if let Err(error) = outcome {
            translated.error = Some(error);
            break;
        }
    }
    translated
}

pub(in crate::provider) fn respond(kind: &str, body: &[u8]) -> Result<Bytes, ProviderError> {
    let adapter = adapter(kind).unwrap();
    let body = Bytes::copy_from_slice(body);
    let translated = adapter.translate_response(asked(&Bytes::from_static(b"{}")), body)?;
    adapter.decode_response(&translated)?;
    Ok(translated)
}

impl Goldens {
    pub(in crate::provider) fn of(kind: &str) -> Self {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        Self {
            dir: dir.join("src/provider").join(kind).join("testdata"),
            adapter: adapter(kind).unwrap(),
        }
    }

    fn kind(&self) -> String {
        let kind = self.dir.parent().unwrap().file_name().unwrap();
        kind.to_str().unwrap().to_owned()
    }

    /// Names and contents of the files with that ending, which is left off.
    pub(in crate::provider) fn files(&self, ending: &str) -> Vec<(String, Vec<u8>)> {
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

    pub(in crate::provider) fn compare(&self, name: &str, actual: &[u8]) {
        let path = self.dir.join(name);
        let actual = String::from_utf8_lossy(actual);
        if option_env!("NEXUS_BLESS").is_some() {
            fs::write(&path, format!("{}\n", actual.trim_end())).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(actual.trim_end(), expected.trim_end(), "{name}");
    }

    /// `x.request.json` is what a client sends, `x.provider.json` what the provider gets.
    pub(in crate::provider) fn requests(&self) {
        for (case, body) in self.files(".request.json") {
            let body = Bytes::from(body);
            // Two halves, where a kind wants them.
            let target = Target {
                server_key: Some("api:secret"),
                ..target("http://provider.test")
            };
            let sent = encode(&self.kind(), &body, target).unwrap();
            self.compare(&format!("{case}.provider.json"), &sent.body);
        }
    }

    /// `x.response.json` is what a provider answers, `x.openai.json` what the client gets.
    pub(in crate::provider) fn responses(&self) {
        for (case, body) in self.files(".response.json") {
            let got = respond(&self.kind(), &body).unwrap();
            self.compare(&format!("{case}.openai.json"), &got);
        }
    }

    /// `x.stream.sse` is what a provider answers, `x.openai.sse` what the client gets.
    pub(in crate::provider) fn streams(&self) {
        for (case, stream) in self.files(".stream.sse") {
            let translated = translate(&self.kind(), "{}", &stream);
            assert!(translated.error.is_none(), "{case}: {translated:?}");
            assert!(translated.done, "{case}");
            self.compare(&format!("{case}.openai.sse"), &translated.frames);
        }
    }

    /// `429-x.error.json` is an error with that status, `429-x.openai-error.json` what is read of
    /// it.
    pub(in crate::provider) fn errors(&self) {
        for (case, body) in self.files(".error.json") {
            let status: u16 = case.split('-').next().unwrap().parse().unwrap();
            let status = StatusCode::from_u16(status).unwrap();
            let error = self.adapter.decode_error(status, &HeaderMap::new(), &body);
            let object = error.object.as_deref();
            let read = json!({
                "status": error.client_status().as_u16(),
                "retry": format!("{:?}", error.retry),
                "error": object.map(|object| json!({
                    "message": object.message, "type": object.kind,
                    "code": object.code, "param": object.param,
                })),
            });
            self.compare(
                &format!("{case}.openai-error.json"),
                read.to_string().as_bytes(),
            );
        }
    }

    /// Cuts answers off at every byte: no half is ever taken for the whole, and none panics.
    pub(in crate::provider) fn cut_off(&self) {
        for (case, stream) in self.files(".stream.sse") {
            let whole = translate(&self.kind(), "{}", &stream).frames;
            for end in 0..stream.len() {
                let cut = translate(&self.kind(), "{}", &stream[..end]);
                assert!(cut.error.is_none(), "{case} {end}: {cut:?}");
                assert!(whole.starts_with(&cut.frames), "{case} {end}");
                // All but the line feeds that end the last event.
                assert!(!cut.done || cut.frames == whole, "{case} {end}");
            }
        }
        for (case, body) in self.files(".response.json") {
            for end in 0..body.trim_ascii_end().len() {
                assert_is_malformed(&respond(&self.kind(), &body[..end]).unwrap_err(), &case);
            }
        }
    }

    /// Puts something else in the place of every value of every answer.
    pub(in crate::provider) fn corrupt(&self) {
        let kind = self.kind();
        for (case, stream) in self.files(".stream.sse") {
            let events = events(&stream);
            for (at, event) in events.iter().enumerate() {
                // The mark of the end is no JSON.
                let Ok(value) = serde_json::from_str::<Value>(event) else {
                    continue;
                };
                for corrupted in corruptions(&value) {
                    let corrupted = corrupted.to_string();
                    let mut events = events.clone();
                    events[at] = &corrupted;
                    let translated = translate(&kind, "{}", &joined(&events));
                    if let Some(error) = translated.error {
                        assert_is_malformed(&error, &format!("{case}: {corrupted}"));
                    }
                }
            }
        }
        for (case, body) in self.files(".response.json") {
            let value: Value = serde_json::from_slice(&body).unwrap();
            for corrupted in corruptions(&value) {
                let corrupted = corrupted.to_string();
                if let Err(error) = respond(&kind, corrupted.as_bytes()) {
                    assert_is_malformed(&error, &format!("{case}: {corrupted}"));
                }
            }
        }
    }

    /// Events in another order, twice, or not at all.
    pub(in crate::provider) fn disordered(&self) -> Vec<(String, Translated)> {
        let mut outcomes = Vec::new();
        for (case, stream) in self.files(".stream.sse") {
            let events = events(&stream);
            let mut reversed = events.clone();
            reversed.reverse();
            outcomes.push((
                format!("{case} reversed"),
                translate(&self.kind(), "{}", &joined(&reversed)),
            ));
            for at in 0..events.len() {
                let (mut without, mut twice) = (events.clone(), events.clone());
                without.remove(at);
                twice.insert(at, events[at]);
                for events in [without, twice] {
                    let translated = translate(&self.kind(), "{}", &joined(&events));
                    if let Some(error) = &translated.error {
                        assert_is_malformed(error, &case);
                    }
                }
            }
        }
        outcomes
    }
}

pub(in crate::provider) fn assert_is_malformed(error: &ProviderError, what: &str) {
    let expected = [
        FailureReason::UpstreamMalformed,
        FailureReason::UpstreamError,
    ];
    assert!(expected.contains(&error.reason), "{what}: {error:?}");
}

fn events(stream: &[u8]) -> Vec<&str> {
    let lines = std::str::from_utf8(stream).unwrap().lines();
    lines
        .filter_map(|line| line.strip_prefix("data: "))
        .collect()
}

fn joined(events: &[&str]) -> Vec<u8> {
    let frames: Vec<String> = events
        .iter()
        .map(|data| format!("data: {data}\n\n"))
        .collect();
    frames.concat().into_bytes()
}

/// The value with each value in it replaced by one of another kind, and with each member removed.
pub(crate) fn corruptions(value: &Value) -> Vec<Value> {
    let others = [
        json!(null),
        json!(-1),
        json!(u64::MAX),
        json!("\u{0}"),
        json!([[]]),
        json!({}),
    ];
    let mut all = others.to_vec();
    match value {
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                for corrupted in corruptions(item) {
                    let mut items = items.clone();
                    items[at] = corrupted;
                    all.push(Value::Array(items));
                }
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let mut without = members.clone();
                without.remove(name);
                all.push(Value::Object(without));
                for corrupted in corruptions(member) {
                    let mut members = members.clone();
                    members.insert(name.clone(), corrupted);
                    all.push(Value::Object(members));
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    all
}
