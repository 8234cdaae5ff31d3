//! The encodings of a descriptor: from their names to text and back, refusing what cannot be represented.
//!
//! Only encodings in which quotes, line ends, blanks and `=` are single bytes that never occur inside other characters are
//! accepted, so that a descriptor can be cut into lines and values before it is decoded.

use std::borrow::Cow;

use encoding_rs::Encoding;

use crate::error::{Error, ErrorKind, Result};

/// How the bytes of a descriptor become text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Codec {
    /// An encoding known by name.
    Known(&'static Encoding),
    /// A name that means nothing here: ASCII only, anything else is refused.
    AsciiOnly,
}

/// Names that VMware or Windows use and the registry of the Web does not know.
const ALIASES: [(&str, &Encoding); 5] = [
    ("windows-932", encoding_rs::SHIFT_JIS),
    ("windows-936", encoding_rs::GBK),
    ("windows-949", encoding_rs::EUC_KR),
    ("windows-950", encoding_rs::BIG5),
    ("cp1252", encoding_rs::WINDOWS_1252),
];

impl Codec {
    /// UTF-8, what new descriptors are written in.
    pub const UTF_8: Codec = Codec::Known(encoding_rs::UTF_8);

    /// The codec of a name as it stands in a descriptor.
    pub fn named(name: &str) -> Codec {
        let alias = ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name.trim()));
        let found = alias.map(|(_, encoding)| *encoding).or_else(|| Encoding::for_label(name.as_bytes()));
        match found {
            Some(encoding) if encoding.is_ascii_compatible() => Codec::Known(encoding),
            _ => Codec::AsciiOnly,
        }
    }

    /// The codec of a descriptor that does not say: UTF-8 if that is what it is, else windows-1252.
    pub fn guess(bytes: &[u8]) -> Codec {
        if std::str::from_utf8(bytes).is_ok() {
            Codec::UTF_8
        } else {
            Codec::Known(encoding_rs::WINDOWS_1252)
        }
    }

    /// The text behind `bytes`; a malformed sequence is refused.
    pub fn decode(self, bytes: &[u8]) -> Result<Cow<'_, str>> {
        let text = match self {
            Codec::Known(encoding) => encoding.decode_without_bom_handling_and_without_replacement(bytes),
            Codec::AsciiOnly => ascii(bytes).map(Cow::Borrowed),
        };
        text.ok_or_else(|| {
            Error::new(
                ErrorKind::Encoding,
                format!("expected {self} text, found {:?}", String::from_utf8_lossy(bytes)),
            )
        })
    }

    /// The text behind `bytes` for showing; what cannot be decoded becomes U+FFFD.
    pub fn decode_lossy(self, bytes: &[u8]) -> String {
        match self {
            Codec::Known(encoding) => encoding.decode_without_bom_handling(bytes).0.into_owned(),
            Codec::AsciiOnly => String::from_utf8_lossy(bytes).into_owned(),
        }
    }

    /// The bytes of `text`; a character that the encoding lacks is refused.
    pub fn encode(self, text: &str) -> Result<Cow<'_, [u8]>> {
        let bytes = match self {
            Codec::Known(encoding) => {
                let (bytes, _, unmappable) = encoding.encode(text);
                (!unmappable).then_some(bytes)
            }
            Codec::AsciiOnly => text.is_ascii().then_some(Cow::Borrowed(text.as_bytes())),
        };
        bytes.ok_or_else(|| Error::new(ErrorKind::Encoding, format!("{text:?} cannot be written in {self}")))
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Codec::Known(encoding) => encoding.name(),
            Codec::AsciiOnly => "ASCII (the descriptor names an unknown encoding)",
        })
    }
}

/// `bytes` as text if all of it is ASCII.
fn ascii(bytes: &[u8]) -> Option<&str> {
    if bytes.is_ascii() { std::str::from_utf8(bytes).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_descriptors_lead_to_their_encodings() {
        for (name, text, bytes) in [
            ("UTF-8", "é", &b"\xc3\xa9"[..]),
            ("windows-1252", "é", b"\xe9"),
            ("Shift_JIS", "表", b"\x95\x5c"),
            ("GBK", "盘", b"\xc5\xcc"),
            ("windows-936", "盘", b"\xc5\xcc"),
            ("Big5", "碟", b"\xba\xd0"),
        ] {
            let codec = Codec::named(name);
            assert_eq!(codec.decode(bytes).unwrap(), text, "{name}");
            assert_eq!(&*codec.encode(text).unwrap(), bytes, "{name}");
        }
    }

    #[test]
    fn unknown_and_wide_encodings_take_ascii_only() {
        for name in ["UTF-16", "klingon", "ISO-2022-JP", ""] {
            let codec = Codec::named(name);
            assert_eq!(codec, Codec::AsciiOnly, "{name}");
            assert_eq!(codec.decode(b"plain").unwrap(), "plain");
            assert_eq!(codec.decode(b"\xe9").unwrap_err().kind(), ErrorKind::Encoding);
            assert_eq!(codec.encode("é").unwrap_err().kind(), ErrorKind::Encoding);
        }
    }

    #[test]
    fn a_character_that_the_encoding_lacks_is_refused() {
        assert_eq!(Codec::named("windows-1252").encode("盘").unwrap_err().kind(), ErrorKind::Encoding);
        assert_eq!(Codec::UTF_8.decode(b"\xff").unwrap_err().kind(), ErrorKind::Encoding);
    }

    #[test]
    fn without_a_name_valid_utf8_wins_over_windows_1252() {
        assert_eq!(Codec::guess("é".as_bytes()), Codec::UTF_8);
        assert_eq!(Codec::guess(b"\xe9").decode(b"\xe9").unwrap(), "é");
    }
}
