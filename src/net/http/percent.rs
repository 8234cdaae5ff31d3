//! Percent-encoding (RFC 3986 section 2.1).

use std::fmt::Write;

/// The bytes with every `%XX` undone once; `None` when there is none.
pub fn decoded_bytes(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut changed = false;
    while let Some((&first, behind)) = rest.split_first() {
        let pair =
            behind.first_chunk::<2>().filter(|pair| first == b'%' && pair.iter().all(u8::is_ascii_hexdigit));
        match pair.and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                changed = true;
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    changed.then_some(bytes)
}

/// The text with every `%XX` undone once; `None` when there is none, or what comes out is no text.
pub fn decoded(text: &str) -> Option<String> {
    decoded_bytes(text.as_bytes()).and_then(|bytes| String::from_utf8(bytes).ok())
}

/// The text with everything encoded that is not unreserved.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}"); // a String takes everything
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_comes_back() {
        for text in ["", "plain", "a b", "100%", "%41", "ü/?&=#\u{0}"] {
            let once = encoded(text);
            assert!(once.bytes().all(|b| b.is_ascii_graphic()), "{once}");
            assert_eq!(decoded(&once).unwrap_or(once), text);
        }
        assert_eq!(encoded("a b/ü"), "a%20b%2F%C3%BC");
    }

    #[test]
    fn what_is_not_encoded_is_left_alone() {
        for text in ["plain", "100%", "%zz", "%4", "%+1"] {
            assert_eq!(decoded(text), None, "{text}");
        }
        assert_eq!(decoded("%41%zz%4a%"), Some("A%zzJ%".to_owned()));
        assert_eq!(decoded("%ff"), None, "no text");
        assert_eq!(decoded_bytes(b"%ff"), Some(vec![0xff]));
    }
}
