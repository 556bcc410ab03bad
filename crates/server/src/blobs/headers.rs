//! What requests for blobs say in their headers and queries.
//!
//! Owns: ranges, tags, and which media types a browser may show. Must not: read a blob.
//! Next: `../blobs.rs`; RFC 9110 §13 and §14, RFC 6266.

use std::ops::Range;

use axum::http::{HeaderMap, HeaderName, header};
use url::form_urlencoded;

/// Media types that run nothing in a browser, wherever they are opened. Not among them: HTML, SVG, XML, PDF.
const SAFE: [&str; 18] = [
    "audio/aac",
    "audio/flac",
    "audio/mp4",
    "audio/mpeg",
    "audio/ogg",
    "audio/wav",
    "audio/webm",
    "image/avif",
    "image/bmp",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "text/plain",
    "text/plain; charset=utf-8",
    "video/mp4",
    "video/ogg",
    "video/webm",
];

/// Longest name that is repeated, bytes.
const NAME_BYTES_MAX: usize = 255;

/// What a request wants of a blob.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    Whole,
    /// These bytes, of which there is at least one.
    Part(Range<u64>),
    /// Bytes that there are not.
    Nothing,
}

/// The range that is wanted of a blob with this tag. What is not understood, several ranges too, means all of it.
pub(super) fn wanted_range(headers: &HeaderMap, tag: &str, size: u64) -> Wanted {
    let has_other = headers.get(header::IF_RANGE).is_some_and(|value| value.as_bytes() != tag.as_bytes());
    let range = headers.get(header::RANGE).filter(|_| !has_other);
    range.and_then(|range| parse(range.to_str().ok()?, size)).unwrap_or(Wanted::Whole)
}

fn parse(range: &str, size: u64) -> Option<Wanted> {
    let (from, to) = range.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().unwrap_or(u64::MAX));
    let (from, to) = match (from, to) {
        ("", "") => return None,
        ("", last) => (size.saturating_sub(number(last)?), size),
        (from, "") => (number(from)?, size.max(number(from)?)),
        (from, to) => (number(from)?, number(to)?.saturating_add(1)),
    };
    if to < from || (to == from && from < size) {
        return None;
    }
    Some(if from >= size { Wanted::Nothing } else { Wanted::Part(from..to.min(size)) })
}

/// Whether a list of tags has this one.
pub(super) fn names(headers: &HeaderMap, name: &HeaderName, tag: &str) -> bool {
    let lists = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut tags = lists.flat_map(|list| list.split(',')).map(str::trim);
    tags.any(|found| found == "*" || found.strip_prefix("W/").unwrap_or(found) == tag)
}

/// As what a browser is to take a blob.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Disposition {
    pub(super) media_type: &'static str,
    pub(super) disposition: String,
}

impl Disposition {
    /// As a query asks, as far as that is safe.
    pub(super) fn wanted(query: &str) -> Self {
        let (mut media_type, mut name) = (None, None);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "type" => media_type = SAFE.into_iter().find(|safe| safe.eq_ignore_ascii_case(&value)),
                "name" => name = Some(value),
                _ => {}
            }
        }
        let kind = if media_type.is_some() { "inline" } else { "attachment" };
        let name = name.filter(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX);
        let disposition =
            name.map_or_else(|| kind.to_owned(), |name| format!("{kind}; filename*=UTF-8''{}", encoded(&name)));
        Self { media_type: media_type.unwrap_or("application/octet-stream"), disposition }
    }
}

/// With everything but letters, digits and a few marks as percent and digits, so that nothing in it means anything.
fn encoded(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str, size: u64) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, text.parse().expect("a header"));
        wanted_range(&headers, "\"tag\"", size)
    }

    #[test]
    fn ranges_are_read_as_the_rfc_has_them() {
        for (text, from, to) in [
            ("bytes=0-0", 0, 1),
            ("bytes=0-", 0, 10),
            ("bytes=3-5", 3, 6),
            ("bytes=9-", 9, 10),
            ("bytes=3-99999999999999999999999", 3, 10),
            ("bytes=-3", 7, 10),
            ("bytes=-30", 0, 10),
        ] {
            assert_eq!(range(text, 10), Wanted::Part(from..to), "{text}");
        }
        for text in ["bytes=10-", "bytes=10-12", "bytes=99999999999999999999999-", "bytes=-0"] {
            assert_eq!(range(text, 10), Wanted::Nothing, "{text}");
        }
        for text in ["bytes=5-3", "bytes=1-2,4-5", "bytes=-", "bytes=a-b", "bytes", "lines=1-2", "bytes=+1-2"] {
            assert_eq!(range(text, 10), Wanted::Whole, "{text}");
        }
        assert_eq!(range("bytes=0-", 0), Wanted::Nothing);
    }

    #[test]
    fn a_range_of_another_version_is_the_whole() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=1-2".parse().expect("a header"));
        headers.insert(header::IF_RANGE, "\"other\"".parse().expect("a header"));
        assert_eq!(wanted_range(&headers, "\"tag\"", 10), Wanted::Whole);
        headers.insert(header::IF_RANGE, "\"tag\"".parse().expect("a header"));
        assert_eq!(wanted_range(&headers, "\"tag\"", 10), Wanted::Part(1..3));
    }

    #[test]
    fn only_what_runs_nothing_is_shown() {
        let wanted = |query: &str| {
            let Disposition { media_type, disposition } = Disposition::wanted(query);
            (media_type, disposition)
        };
        assert_eq!(wanted("type=image%2Fpng"), ("image/png", "inline".into()));
        for query in ["", "type=text/html", "type=image/svg%2Bxml", "type=image/png%0d%0aX:1", "type=application/xml"] {
            assert_eq!(wanted(query), ("application/octet-stream", "attachment".into()), "{query}");
        }
        let (_, named) = wanted("name=a%22%0d%0aX:%20b/%C3%BC.png");
        assert_eq!(named, "attachment; filename*=UTF-8''a%22%0D%0AX%3A%20b%2F%C3%BC.png");
    }
}
