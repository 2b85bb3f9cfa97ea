//! The CloudEvents envelope; the only place that writes or reads one.
//!
//! CloudEvents 1.0, structured JSON: the whole event is the payload. An event
//! is encoded once, when it is appended to the outbox, as a complete envelope
//! but for `outbox` and `position`. Those depend on where the outbox put it,
//! so the shipper adds them at the end with [`Record::shipped`], which copies
//! bytes and parses nothing.
//!
//! Message content is the last member of `data`. A record knows where it
//! begins, so a large one can be moved to the object store without reading the
//! event: the shipped event then has `"content":null` and a `dataref`.

use std::{borrow::Cow, io::Write};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    clock::{Clock, UnixMillis},
    id::{EventId, OutboxId},
    subject::Lane,
};

/// Content above this size is moved to the object store: 512 KiB.
///
/// NATS refuses messages above its `max_payload`, 1 MiB by default; half of it
/// leaves room for the rest of the event.
pub const CONTENT_BYTES_MAX: usize = 512 * 1024;

/// Scheme of a `dataref` that points into the object store; the event's id follows.
pub const DATAREF_PREFIX: &str = "nats-object://NEXUS_BODIES/";

/// What every kind of `data` says about itself.
pub trait EventData: Serialize {
    /// The CloudEvents type: `ai.nexus.<family>.<name>.v<N>`.
    fn kind(&self) -> &'static str;

    /// Whether the envelope leaves out what the type implies.
    fn brief(&self) -> bool {
        false
    }
}

/// When an event happened and what it is called: drawn once for each event.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The event's id.
    pub id: EventId,
    /// When it happened.
    pub time: UnixMillis,
}

impl Stamp {
    /// Draws an id at the present moment.
    pub fn draw(clock: &dyn Clock) -> Self {
        Self {
            id: EventId::draw(clock),
            time: clock.now(),
        }
    }
}

/// The attributes that do not come from the data.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Id and time.
    pub stamp: Stamp,
    /// Who says it, a path such as `/nexus/gateway/<outbox id>`.
    pub source: &'a str,
    /// What it is about: the request's id for exchanges and chunks.
    pub subject: &'a str,
    /// W3C trace context of the request, if there is one.
    pub traceparent: Option<&'a str>,
}

/// Message content goes nowhere: for events that carry none.
pub const NO_CONTENT: Option<&()> = None;

/// An event that cannot be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("the event cannot be written as JSON")]
pub struct EncodeError(#[from] serde_json::Error);

/// An event as it is appended to the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The event's id.
    pub id: EventId,
    /// The lane that ships it.
    pub lane: Lane,
    /// The NATS subject.
    pub subject: String,
    /// The envelope, complete but for `outbox` and `position`.
    pub payload: Vec<u8>,
    /// Where the value of `data.content` begins in the payload; 0 when there is none.
    pub content_at: u32,
}

/// A record ready to be published.
#[derive(Debug)]
pub struct Shipment {
    /// The message's payload.
    pub payload: Vec<u8>,
    /// Content to be put into the object store first, under the event's id.
    pub content: Option<Vec<u8>>,
}

impl Record {
    /// Encodes an event for a lane of the outbox.
    ///
    /// # Errors
    /// [`EncodeError`] when the data or the content is not representable as JSON.
    pub fn encode<D: EventData, C: Serialize + ?Sized>(
        lane: Lane,
        subject: String,
        attributes: Attributes<'_>,
        data: &D,
        content: Option<&C>,
    ) -> Result<Self, EncodeError> {
        let (payload, content_at) = encode(attributes, data, content)?;
        Ok(Self {
            id: attributes.stamp.id,
            lane,
            subject,
            payload,
            content_at,
        })
    }

    /// The message that the shipper publishes: with the outbox and the position,
    /// and without content that is too large for a message.
    pub fn shipped(&self, outbox: OutboxId, position: u64) -> Shipment {
        ship(&self.payload, self.content_at, self.id, (outbox, position))
    }
}

/// See [`Record::shipped`]; for a record that lies in a segment.
pub(crate) fn ship(
    payload: &[u8],
    content_at: u32,
    id: EventId,
    (outbox, position): (OutboxId, u64),
) -> Shipment {
    let content_at = usize::try_from(content_at).unwrap_or(0);
    // A payload ends in `}}`: one brace closes the data, one the envelope.
    let content = match payload.get(content_at..payload.len().saturating_sub(2)) {
        Some(content) if content_at > 0 && content.len() > CONTENT_BYTES_MAX => Some(content),
        _ => None,
    };
    let mut message = Vec::with_capacity(128 + content.map_or(payload.len(), |_| content_at + 96));
    if content.is_some() {
        message.extend_from_slice(payload.get(..content_at).unwrap_or_default());
        message.extend_from_slice(b"null}");
    } else {
        let open_end = payload.len().saturating_sub(1);
        message.extend_from_slice(payload.get(..open_end).unwrap_or_default());
    }
    let dataref = content.map(|_| format!(r#","dataref":"{DATAREF_PREFIX}{id}""#));
    // Writing to a Vec cannot fail.
    write!(
        message,
        r#"{},"outbox":"{outbox}","position":{position}}}"#,
        dataref.unwrap_or_default()
    )
    .unwrap_or_default();
    Shipment {
        payload: message,
        content: content.map(<[u8]>::to_vec),
    }
}

/// Encodes an event that does not pass through an outbox: configuration and rollups.
///
/// # Errors
/// [`EncodeError`].
pub fn encode_direct<D: EventData>(
    attributes: Attributes<'_>,
    data: &D,
) -> Result<Vec<u8>, EncodeError> {
    encode(attributes, data, NO_CONTENT).map(|(payload, _)| payload)
}

fn encode<D: EventData, C: Serialize + ?Sized>(
    attributes: Attributes<'_>,
    data: &D,
    content: Option<&C>,
) -> Result<(Vec<u8>, u32), EncodeError> {
    #[derive(Serialize)]
    struct Head<'a> {
        specversion: &'static str,
        id: EventId,
        source: &'a str,
        #[serde(rename = "type")]
        kind: &'a str,
        time: String,
        subject: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        datacontenttype: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        dataschema: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        traceparent: Option<&'a str>,
    }
    let (kind, brief) = (data.kind(), data.brief());
    let head = Head {
        specversion: "1.0",
        id: attributes.stamp.id,
        source: attributes.source,
        kind,
        time: attributes.stamp.time.to_rfc3339(),
        subject: attributes.subject,
        datacontenttype: (!brief).then_some("application/json"),
        dataschema: (!brief).then(|| format!("/schemas/{kind}")),
        traceparent: attributes.traceparent.filter(|_| !brief),
    };
    let mut payload = Vec::with_capacity(512);
    serde_json::to_writer(&mut payload, &head)?;
    payload.pop();
    payload.extend_from_slice(br#","data":"#);
    serde_json::to_writer(&mut payload, data)?;
    let mut content_at = 0;
    if let Some(content) = content {
        payload.pop();
        // An empty data object would make the comma wrong; every kind has members.
        payload.extend_from_slice(br#","content":"#);
        content_at = u32::try_from(payload.len()).unwrap_or(0);
        serde_json::to_writer(&mut payload, content)?;
        payload.push(b'}');
    }
    payload.push(b'}');
    Ok((payload, content_at))
}

/// An event as it was read; its data still raw.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    /// The event's id.
    pub id: EventId,
    /// Who said it.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// The CloudEvents type.
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    /// When it happened, RFC 3339.
    #[serde(borrow)]
    pub time: Cow<'a, str>,
    /// What it is about.
    #[serde(borrow, default)]
    pub subject: Cow<'a, str>,
    /// Trace context of the request.
    #[serde(borrow, default)]
    pub traceparent: Option<Cow<'a, str>>,
    /// Where content that was too large for a message lies.
    #[serde(borrow, default)]
    pub dataref: Option<Cow<'a, str>>,
    /// The outbox that it came through.
    #[serde(default)]
    pub outbox: Option<OutboxId>,
    /// Its position in the lane of that outbox, from 1.
    #[serde(default)]
    pub position: Option<u64>,
    /// The data, raw.
    #[serde(borrow)]
    pub data: &'a RawValue,
}

/// A payload that is no event of ours.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not a CloudEvents envelope.
    #[error("not a CloudEvents envelope")]
    Envelope(#[source] serde_json::Error),
    /// The time is no RFC 3339 text.
    #[error("the time of the event is not RFC 3339")]
    Time(#[source] chrono::ParseError),
    /// The data is not what the type promises.
    #[error("the data is not what {kind} promises")]
    Data {
        /// The event's type.
        kind: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

impl<'a> Envelope<'a> {
    /// Reads an envelope.
    ///
    /// # Errors
    /// [`DecodeError::Envelope`].
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        serde_json::from_slice(payload).map_err(DecodeError::Envelope)
    }

    /// When it happened.
    ///
    /// # Errors
    /// [`DecodeError::Time`].
    pub fn moment(&self) -> Result<UnixMillis, DecodeError> {
        UnixMillis::parse_rfc3339(&self.time).map_err(DecodeError::Time)
    }

    /// Reads the data as `T`; members that `T` does not know are left aside.
    ///
    /// # Errors
    /// [`DecodeError::Data`].
    pub fn data_as<T: Deserialize<'a>>(&self) -> Result<T, DecodeError> {
        serde_json::from_str(self.data.get()).map_err(|source| DecodeError::Data {
            kind: self.kind.clone().into_owned(),
            source,
        })
    }

    /// Reads the message content as `T`; `None` when the event carries none here.
    ///
    /// # Errors
    /// [`DecodeError::Data`].
    pub fn content_as<T: Deserialize<'a>>(&self) -> Result<Option<T>, DecodeError> {
        #[derive(Deserialize)]
        struct Content<T> {
            #[serde(default = "Option::default")]
            content: Option<T>,
        }
        self.data_as::<Content<T>>().map(|data| data.content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[derive(Serialize)]
    struct Sample {
        number: u32,
    }

    impl EventData for Sample {
        fn kind(&self) -> &'static str {
            "ai.nexus.test.sample.v1"
        }
    }

    fn record(content: &str) -> Record {
        let clock = ManualClock::at(UnixMillis::from_millis(1_795_000_000_000));
        let attributes = Attributes {
            stamp: Stamp::draw(&clock),
            source: "/nexus/test",
            subject: "it \"quotes\"",
            traceparent: None,
        };
        let data = Sample { number: 7 };
        Record::encode(
            Lane::Exchanges,
            "x".into(),
            attributes,
            &data,
            Some(content),
        )
        .unwrap()
    }

    #[test]
    fn a_shipped_event_reads_back() {
        let outbox = OutboxId::draw(&ManualClock::at(UnixMillis::from_millis(1)));
        let record = record("hello");
        let shipment = record.shipped(outbox, 42);
        assert!(shipment.content.is_none());
        let envelope = Envelope::decode(&shipment.payload).unwrap();
        assert_eq!(envelope.id, record.id);
        assert_eq!(envelope.subject, "it \"quotes\"");
        assert_eq!(envelope.outbox, Some(outbox));
        assert_eq!(envelope.position, Some(42));
        assert_eq!(envelope.moment().unwrap().as_millis(), 1_795_000_000_000);
        assert_eq!(envelope.content_as::<String>().unwrap().unwrap(), "hello");
    }

    #[test]
    fn large_content_leaves_the_message() {
        let outbox = OutboxId::draw(&ManualClock::at(UnixMillis::from_millis(1)));
        let content = "x".repeat(CONTENT_BYTES_MAX);
        let record = record(&content);
        let shipment = record.shipped(outbox, 1);
        let envelope = Envelope::decode(&shipment.payload).unwrap();
        assert_eq!(envelope.content_as::<String>().unwrap(), None);
        assert_eq!(
            envelope.dataref.unwrap(),
            format!("{DATAREF_PREFIX}{}", record.id)
        );
        let moved: String = serde_json::from_slice(&shipment.content.unwrap()).unwrap();
        assert_eq!(moved, content);
    }
}
