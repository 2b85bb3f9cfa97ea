//! Property: wherever the network cuts a stream, the adapter gives the same chunks, and the
//! answer that is put together from them is the same.

use proptest::prelude::*;

use super::*;
use crate::{
    exchange::answer::{Answer, content},
    stream::sse_decode::{EventTooLarge, SseDecoder},
};

/// What an adapter makes of a stream, up to its end mark or its first fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    chunks: Vec<String>,
    done: bool,
    fault: Option<String>,
    /// The stream would cut off an event, if it ended here.
    inside_event: bool,
    /// What is put together of the chunks.
    answer: String,
}

/// Reads a stream as a relay does.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let (mut decoder, mut answer) = (SseDecoder::default(), Answer::default());
    let mut seen = Seen::default();
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        if let Err(fault) = drain(&mut decoder, &mut answer, &mut seen) {
            seen.fault = Some(fault);
        }
        if seen.done || seen.fault.is_some() {
            break;
        }
    }
    // Behind its end, what follows depends on what came with it.
    seen.inside_event = !seen.done && seen.fault.is_none() && decoder.inside_event();
    let choices = answer.choices();
    seen.answer = serde_json::to_string(&content(&choices, None)).unwrap();
    seen
}

fn drain(decoder: &mut SseDecoder, answer: &mut Answer, seen: &mut Seen) -> Result<(), String> {
    while let Some(event) = decoder
        .next_event()
        .map_err(|error: EventTooLarge| error.to_string())?
    {
        match OpenAi.decode_chunk(&event) {
            Ok(Streamed::Chunk(chunk)) => {
                seen.chunks.push(chunk.json.get().to_owned());
                answer
                    .add(&chunk.parsed)
                    .map_err(|error| error.to_string())?;
            }
            Ok(Streamed::Done) => {
                seen.done = true;
                return Ok(());
            }
            Ok(Streamed::Nothing) => {}
            Err(error) => return Err(format!("{:?}: {error}", error.reason)),
        }
    }
    Ok(())
}

/// The data of an event, as some provider or other sends it.
fn data() -> impl Strategy<Value = String> {
    let text = prop::sample::select(vec![
        "a",
        "",
        " ",
        "\u{e9}\u{1f30a}",
        "data: x",
        "[DONE]",
        "\\n",
    ]);
    prop_oneof![
        4 => (0..2_u32, text).prop_map(|(index, text)| format!(
            r#"{{"id":"c","model":"m","choices":[{{"index":{index},"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#
        )),
        1 => Just(r#"{"choices":[{"index":0,"delta":{"role":"assistant","tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":"{"}}]}}]}"#.to_owned()),
        1 => Just("{\n  \"choices\": [\n    {\"index\": 0, \"delta\": {\"content\": \"pretty\"}}\n  ]\n}".to_owned()),
        1 => Just(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#.to_owned()),
        1 => Just(r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#.to_owned()),
        1 => Just(String::new()),
    ]
}

/// What ends a stream, or breaks it.
fn ending() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => Just("data: [DONE]\n\n"),
        1 => Just("data:[DONE]\r\rdata: {\"choices\":[]}\r\r"),
        1 => Just("data: {\"error\":{\"message\":\"overloaded\"}}\n\n"),
        1 => Just("event: error\ndata: {\"message\":\"no\"}\n\n"),
        1 => Just("data: {\"choices\":\n\n"),
        1 => Just("data: {\"cho"),
        1 => Just(""),
    ]
}

/// A stream: events between comments, with line ends of every kind.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let line_end = prop::sample::select(vec!["\n", "\r", "\r\n"]);
    let comment = prop::sample::select(vec!["", "", ": ping", "id: 7", "retry: 3"]);
    let event =
        (data(), line_end, comment, any::<bool>()).prop_map(|(data, end, comment, blank)| {
            let blank = if blank { " " } else { "" };
            let comment = Some(comment)
                .filter(|comment| !comment.is_empty())
                .map(str::to_owned);
            let lines = data.split('\n').map(|line| format!("data:{blank}{line}"));
            let lines: Vec<String> = comment.into_iter().chain(lines).collect();
            lines.join(end) + end + end
        });
    let mark = prop::sample::select(vec!["", "\u{feff}"]);
    (mark, prop::collection::vec(event, 0..6), ending()).prop_map(|(mark, events, ending)| {
        format!("{mark}{}{ending}", events.concat()).into_bytes()
    })
}

proptest! {
    // Each case is read once for each of its bytes.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn wherever_a_stream_is_cut_its_chunks_are_the_same(
        stream in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let whole = read([stream.as_slice()]);
        for place in 0..=stream.len() {
            let (before, after) = stream.split_at(place);
            prop_assert_eq!(&read([before, after]), &whole, "cut at {}", place);
        }
        prop_assert_eq!(&read(stream.chunks(1)), &whole, "byte by byte");
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(stream.len());
        let mut from = 0;
        let pieces: Vec<&[u8]> = cuts
            .into_iter()
            .map(|cut| &stream[std::mem::replace(&mut from, cut)..cut])
            .collect();
        prop_assert_eq!(&read(pieces), &whole, "in pieces");
    }
}
