//! From the base URL that an operator typed to the address of an endpoint.
//!
//! Base URLs are copied from the documents of a hundred servers, with and
//! without a version, with and without a slash. The rules, in order:
//!
//! 1. ends in `#`: the rest is the whole address, used as it is;
//! 2. ends in the endpoint's own path: it is that address already;
//! 3. has a version (`v1`, `v1beta`, `v4`) among its path segments: the
//!    endpoint's path follows;
//! 4. else `/v1` and the endpoint's path follow.
//!
//! Slashes at the end make no difference, and a query stays where it was.

use url::Url;

/// The base URL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadBaseUrl {
    /// It is no URL.
    #[error("read the provider's URL")]
    Malformed(#[from] url::ParseError),
    /// Its scheme is not `http` or `https`, or it has no host.
    #[error("use the provider's URL: it is not an http or https address with a host")]
    NotHttp,
}

/// The address of an endpoint such as `chat/completions` below a base URL.
///
/// # Errors
/// [`BadBaseUrl`].
pub fn endpoint(base: &str, path: &str) -> Result<Url, BadBaseUrl> {
    versioned_endpoint(base, "v1", path)
}

/// The same for an API whose version, where the base URL names none, is another than `v1`.
///
/// # Errors
/// [`BadBaseUrl`].
pub fn versioned_endpoint(base: &str, version: &str, path: &str) -> Result<Url, BadBaseUrl> {
    let base = base.trim();
    let (base, as_it_is) = match base.strip_suffix('#') {
        Some(rest) => (rest, true),
        None => (base, false),
    };
    let mut url = parse(base)?;
    if as_it_is {
        return Ok(url);
    }
    url.set_fragment(None);
    let given = url.path().trim_end_matches('/');
    let full = if given.ends_with(&format!("/{path}")) {
        given.to_owned()
    } else if given.split('/').any(is_version) {
        format!("{given}/{path}")
    } else {
        format!("{given}/{version}/{path}")
    };
    url.set_path(&full);
    Ok(url)
}

/// An http or https address with a host.
///
/// # Errors
/// [`BadBaseUrl`].
pub fn parse(base: &str) -> Result<Url, BadBaseUrl> {
    let url = Url::parse(base)?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(BadBaseUrl::NotHttp);
    }
    Ok(url)
}

/// `v1`, `v4`, `v1beta`, `v1beta2`: a `v`, digits, perhaps a stage.
fn is_version(segment: &str) -> bool {
    let Some(rest) = segment.strip_prefix('v') else {
        return false;
    };
    let stage = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    stage.len() < rest.len()
        && (stage.is_empty() || stage.starts_with("alpha") || stage.starts_with("beta"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_base_url_works() {
        let cases = [
            (
                "https://api.openai.com",
                "https://api.openai.com/v1/chat/completions",
            ),
            (
                "https://api.openai.com/",
                "https://api.openai.com/v1/chat/completions",
            ),
            (
                "https://api.openai.com/v1",
                "https://api.openai.com/v1/chat/completions",
            ),
            (
                " https://api.openai.com/v1// ",
                "https://api.openai.com/v1/chat/completions",
            ),
            ("http://h:1/openai", "http://h:1/openai/v1/chat/completions"),
            (
                "http://h/v1/acct/openai",
                "http://h/v1/acct/openai/chat/completions",
            ),
            (
                "http://h/v1beta/openai/",
                "http://h/v1beta/openai/chat/completions",
            ),
            (
                "http://h/api/paas/v4",
                "http://h/api/paas/v4/chat/completions",
            ),
            ("http://h/vllm", "http://h/vllm/v1/chat/completions"),
            (
                "http://h/v1/chat/completions",
                "http://h/v1/chat/completions",
            ),
            (
                "http://h/v1?api-version=2",
                "http://h/v1/chat/completions?api-version=2",
            ),
            ("http://h/ask#", "http://h/ask"),
            ("http://h/ask/#", "http://h/ask/"),
        ];
        for (base, expected) in cases {
            assert_eq!(
                endpoint(base, "chat/completions").unwrap().as_str(),
                expected,
                "{base}"
            );
        }
    }

    #[test]
    fn what_is_no_http_address_is_refused() {
        for base in ["", "api.openai.com", "ftp://h/", "file:///x", "http://"] {
            assert!(endpoint(base, "chat/completions").is_err(), "{base}");
        }
    }
}
