//! Parts of what a server has (RFC 9110 section 14).

use std::ops::Range;

use crate::net::http::body::number;
use crate::net::http::message::Head;

/// What the header `Content-Range` of an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentRange {
    /// The body is this part of so many bytes; `None`: the server does not tell of how many.
    Part(Range<u64>, Option<u64>),
    /// What was asked for is no part of so many bytes.
    Outside(u64),
}

impl ContentRange {
    /// What the head says. `None`: nothing, or nothing that makes sense, or more than one thing.
    pub fn of(head: &Head) -> Option<Self> {
        let mut all = head.all("Content-Range");
        match (all.next(), all.next()) {
            (Some(only), None) => Self::parse(only.trim_ascii()),
            _ => None,
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (unit, rest) = text.split_at_checked(UNIT.len())?;
        let rest = rest.strip_prefix(b" ").filter(|_| unit.eq_ignore_ascii_case(UNIT))?.trim_ascii();
        let slash = rest.iter().position(|byte| *byte == b'/')?;
        let (part, total) = (rest.get(..slash)?, rest.get(slash.checked_add(1)?..)?);
        if part == b"*" {
            return number(total, 10).map(ContentRange::Outside);
        }
        let dash = part.iter().position(|byte| *byte == b'-')?;
        let first = number(part.get(..dash)?, 10)?;
        let end = number(part.get(dash.checked_add(1)?..)?, 10)?.checked_add(1)?;
        let total = match total {
            b"*" => None,
            digits => Some(number(digits, 10)?),
        };
        let sensible = first < end && total.is_none_or(|total| end <= total);
        sensible.then_some(ContentRange::Part(first..end, total))
    }
}

const UNIT: &[u8] = b"bytes";

/// The value of the header `Range` for a part that is not empty.
pub fn asked_for(range: &Range<u64>) -> String {
    format!("bytes={}-{}", range.start, range.end.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(headers: &str) -> Option<ContentRange> {
        let head = format!("HTTP/1.1 206 Partial Content\r\n{headers}\r\n");
        ContentRange::of(&Head::parse(head.as_bytes()).unwrap())
    }

    #[test]
    fn a_part_is_understood_with_and_without_its_whole() {
        assert_eq!(said("Content-Range: bytes 0-0/1\r\n"), Some(ContentRange::Part(0..1, Some(1))));
        assert_eq!(said("content-range:  Bytes 5-9/*\r\n"), Some(ContentRange::Part(5..10, None)));
        assert_eq!(said("Content-Range: bytes */77\r\n"), Some(ContentRange::Outside(77)));
        assert_eq!(asked_for(&(5..10)), "bytes=5-9");
    }

    #[test]
    fn what_makes_no_sense_says_nothing() {
        for value in [
            "",
            "bytes",
            "bytes 0-9",
            "bytes 9-0/10",
            "bytes 0-10/10",
            "bytes 0-18446744073709551615/*",
            "bytes 0-99999999999999999999/*",
            "bytes -5/10",
            "bytes 1-/10",
            "bytes +1-5/10",
            "bytes 1-5/ten",
            "bytes 1-5/",
            "bytes */*",
            "items 0-9/10",
            "bytes=0-9/10",
            "0-9/10",
        ] {
            assert_eq!(said(&format!("Content-Range: {value}\r\n")), None, "{value}");
        }
        assert_eq!(said("Content-Range: bytes 0-9/10\r\nContent-Range: bytes 0-9/10\r\n"), None);
        assert_eq!(said(""), None);
    }
}
