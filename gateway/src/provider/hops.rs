//! Which hubs a request has passed, so that none gets it twice.
//!
//! *The thought.* A provider may be another hub, and that one's provider a
//! third: hubs in a row are good, hubs in a circle are one request without end.
//! No hub knows what is behind the next one, so the request carries where it
//! has been. Each call to a provider has the header [`X_NEXUS_HOP`]: the ids of
//! the hubs that the request came through, the first one first, and at its end
//! the id of the hub that calls. A hub that finds its own id in the list refuses
//! the request, whether the circle is one hub long or five; the provider's
//! failure then tells the operator.
//!
//! *Which id.* It is drawn from the installation's message key through a hash:
//! all gateways of an installation have the same, and it gives nothing away.
//!
//! *Bounds.* A list has [`HOPS_MAX`] ids at most: a hub that would make it
//! longer refuses the request, so also a circle ends in which somebody changes
//! the ids. What is no list of ids is refused, too; a client has no reason to
//! send the header at all.

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sha2::Sha256;

use super::UpstreamRequest;
use crate::{
    configuration::MessageKey,
    error::{ApiError, INVALID_REQUEST},
};

/// The hubs that a request has passed: ids with commas between them.
pub const X_NEXUS_HOP: HeaderName = HeaderName::from_static("x-nexus-hop");

/// Hubs that a request may have passed: 8. Two or three in a row are a large company.
pub const HOPS_MAX: usize = 8;

/// Bytes of an id: 8, so that two installations have the same by no chance that counts.
const ID_BYTES: usize = 8;

/// The hubs that a request has passed before it came here; most have passed none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hops(Option<HeaderValue>);

/// The id of an installation.
pub fn id(key: &MessageKey) -> HeaderValue {
    // A key of any length will do for this hash.
    let digest = Hmac::<Sha256>::new_from_slice(key.as_bytes())
        .map(|mac| mac.chain_update(b"nexus hop").finalize().into_bytes())
        .unwrap_or_default();
    let bytes = digest.iter().take(ID_BYTES);
    let number = bytes.fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    // Hexadecimal digits are a header value.
    HeaderValue::try_from(format!("{number:016x}")).unwrap_or(HeaderValue::from_static("nexus"))
}

impl Hops {
    /// Reads where a request has been, and refuses one that has been here or in too many places.
    ///
    /// # Errors
    /// 508 `loop_detected` and `too_many_hops`; 400: the header is no list of ids.
    pub fn of(headers: &HeaderMap, key: &MessageKey) -> Result<Self, ApiError> {
        let mut lines = headers.get_all(X_NEXUS_HOP).iter().peekable();
        // The own id is computed for those few that carry any.
        if lines.peek().is_none() {
            return Ok(Self::default());
        }
        let own = id(key);
        let (mut list, mut count, mut is_looped) = (String::new(), 0_usize, false);
        for line in lines {
            for id in line.as_bytes().split(|byte| *byte == b',') {
                let id = read(id).ok_or_else(garbage)?;
                is_looped |= id.as_bytes() == own.as_bytes();
                count += 1;
                if count <= HOPS_MAX {
                    list += if list.is_empty() { "" } else { "," };
                    list += id;
                }
            }
        }
        if is_looped {
            return Err(looped());
        }
        if count >= HOPS_MAX {
            return Err(too_many());
        }
        HeaderValue::try_from(list)
            .map(|list| Self(Some(list)))
            .map_err(ApiError::internal)
    }

    /// Notes them in a request to a provider; who sends it adds itself with [`add`].
    pub fn note_in(&self, request: &mut UpstreamRequest) {
        let Some(list) = &self.0 else { return };
        let headers = match request {
            UpstreamRequest::Http(request) => &mut request.headers,
            UpstreamRequest::WithToken(with) => &mut with.request.headers,
            UpstreamRequest::Local(_) => return,
        };
        headers.insert(X_NEXUS_HOP, list.clone());
    }
}

/// Adds an id to the list of a request that is sent.
pub fn add(headers: &mut HeaderMap, id: &HeaderValue) {
    let passed = headers.get(&X_NEXUS_HOP).map(HeaderValue::as_bytes);
    let list = passed.map(|passed| [passed, b",", id.as_bytes()].concat());
    // Both are lists of hexadecimal digits.
    let list = list.and_then(|list| HeaderValue::try_from(list).ok());
    headers.insert(X_NEXUS_HOP, list.unwrap_or_else(|| id.clone()));
}

/// An id as [`id`] writes it, with blanks around it as proxies may put them.
fn read(text: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == 2 * ID_BYTES && text.bytes().all(is_hex)).then_some(text)
}

fn garbage() -> ApiError {
    let message = "The header 'X-Nexus-Hop' must be a list of the hubs that the request has \
                   passed: 16 hexadecimal digits each, with commas between them. Clients leave \
                   it out.";
    ApiError::invalid_request(Some("X-Nexus-Hop"), message)
}

fn looped() -> ApiError {
    let message = "This request has passed this hub before: the server_url of a provider, here or \
                   of a hub behind it, leads back to it.";
    ApiError::new(
        StatusCode::LOOP_DETECTED,
        INVALID_REQUEST,
        "loop_detected",
        message,
    )
}

fn too_many() -> ApiError {
    let message = format!("This request has passed {HOPS_MAX} hubs or more, and goes no further.");
    ApiError::new(
        StatusCode::LOOP_DETECTED,
        INVALID_REQUEST,
        "too_many_hops",
        message,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> MessageKey {
        MessageKey::from_bytes([byte; 32])
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        let lines = lines
            .iter()
            .map(|line| (X_NEXUS_HOP, HeaderValue::from_str(line).unwrap()));
        lines.collect()
    }

    fn text(id: &HeaderValue) -> &str {
        id.to_str().unwrap()
    }

    #[test]
    fn each_hub_adds_itself_and_a_circle_of_any_length_is_seen() {
        let own = key(0);
        let mut passed = HeaderMap::new();
        for hub in 1..=u8::try_from(HOPS_MAX).unwrap() {
            add(&mut passed, &id(&key(hub - 1)));
            let ids = passed[X_NEXUS_HOP].to_str().unwrap().split(',').count();
            assert_eq!(ids, usize::from(hub));
            let error = Hops::of(&passed, &own).unwrap_err();
            assert_eq!(error.status, StatusCode::LOOP_DETECTED);
            assert_eq!(error.code.as_deref(), Some("loop_detected"), "{hub} hubs");
            if usize::from(hub) < HOPS_MAX {
                Hops::of(&passed, &key(hub)).unwrap();
            }
        }
        let error = Hops::of(&passed, &key(99)).unwrap_err();
        assert_eq!(error.status, StatusCode::LOOP_DETECTED);
        assert_eq!(error.code.as_deref(), Some("too_many_hops"));
        assert!(!text(&id(&key(7))).contains("07070707"));
    }

    #[test]
    fn what_was_passed_is_passed_on_however_it_is_written() {
        let (one, two) = (id(&key(1)), id(&key(2)));
        let (one, two) = (text(&one), text(&two));
        let list = format!("{one},{two}");
        let expected = Hops(Some(HeaderValue::from_str(&list).unwrap()));
        for lines in [&[&*list][..], &[one, two], &[&*format!(" {one} ,\t{two} ")]] {
            assert_eq!(Hops::of(&headers(lines), &key(3)).unwrap(), expected);
        }
        assert_eq!(Hops::of(&HeaderMap::new(), &key(3)).unwrap(), Hops(None));
    }

    #[test]
    fn garbage_is_refused_however_long_it_is() {
        let good = id(&key(1));
        let good = text(&good);
        let long = format!("{good},").repeat(2000);
        for line in [
            "",
            ",",
            "x",
            "0123456789ABCDEF",
            "0123456789abcde",
            "0123456789abcdef0",
            "0123456789abcdef 0123456789abcdef",
            &format!("{good},"),
            &format!("{good},,{good}"),
            &long,
        ] {
            let error = Hops::of(&headers(&[line]), &key(3)).unwrap_err();
            assert_eq!(error.status, StatusCode::BAD_REQUEST, "{line}");
            assert_eq!(error.param.as_deref(), Some("X-Nexus-Hop"));
        }
    }
}
