//! `data:` URLs, in which clients send images and files.

/// What a data URL in base64 holds; the data stays encoded, as providers take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::provider) struct DataUrl<'a> {
    pub(in crate::provider) media_type: &'a str,
    pub(in crate::provider) base64: &'a str,
}

impl<'a> DataUrl<'a> {
    /// `None` for another URL, and for data that is not in base64 or does not say what it is.
    pub(in crate::provider) fn parse(url: &'a str) -> Option<Self> {
        let scheme = url.get(.."data:".len())?;
        if !scheme.eq_ignore_ascii_case("data:") {
            return None;
        }
        let (head, base64) = url.get("data:".len()..)?.split_once(',')?;
        let (media_type, _) = head
            .rsplit_once(';')
            .filter(|(_, encoding)| encoding.trim().eq_ignore_ascii_case("base64"))?;
        // Parameters such as `charset` are of no use to providers.
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        (!media_type.is_empty() && !base64.is_empty()).then_some(Self { media_type, base64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_url_is_a_media_type_and_data() {
        let image = Some(DataUrl {
            media_type: "image/png",
            base64: "iVBORw==",
        });
        for url in [
            "data:image/png;base64,iVBORw==",
            "DATA:image/png;charset=utf-8;BASE64,iVBORw==",
        ] {
            assert_eq!(DataUrl::parse(url), image, "{url}");
        }
        for url in [
            "",
            "data:",
            "data:,x",
            "data:image/png,x",
            "data:;base64,x",
            "data:image/png;base64,",
            "https://example.test/a.png",
            "datä:image/png;base64,x",
        ] {
            assert_eq!(DataUrl::parse(url), None, "{url}");
        }
    }
}
