//! Why a request is refused: a frame with a code and a text, followed by the answer to the request.
//!
//! The layout of 16 bytes was measured on hosts of versions 7 and 8. Whether others have another one is not known; what
//! can be made out of a payload of another length is its first number and whatever in it looks like text.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nfc::aio;
use crate::net::nfc::aio::Kind;
use crate::net::nfc::broken;
use crate::net::nfc::fields::Fields;
use crate::net::nfc::fields::printable;

/// Bytes of the payload that is known.
pub const PAYLOAD: usize = 16;

/// Longest text that is taken from a peer.
pub const MOST_TEXT: u32 = 4096;

/// The code of a request for which the server has no memory.
pub const NO_MEMORY: u64 = 5;

/// The code of what a ticket does not permit.
pub const NOT_PERMITTED: u64 = 11;

/// Why a request is refused, in the server's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A number of NFC's own or one of the host's disk library; 0 is not one.
    pub code: u64,
    /// What the server says about it.
    pub text: String,
}

/// The payload of a refusal, whose text may be still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    refusal: Refusal,
    /// Bytes of text that follow the payload.
    pub follows: u32,
}

impl Heard {
    /// Reads the payload.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        if let Ok(fields) = Fields::exactly("a refusal", payload, PAYLOAD)
            && fields.u32(8)? == 0
        {
            let (code, follows) = (fields.u64(0)?, fields.u32(12)?);
            if follows > MOST_TEXT {
                return Err(broken(format!("a refusal with a text of {follows} bytes, at most {MOST_TEXT}")));
            }
            return Ok(Self { refusal: Refusal { code, text: String::new() }, follows });
        }
        let code = payload.first_chunk().map_or(0, |code| u64::from(u32::from_le_bytes(*code)));
        let text = longest_text(payload.get(4..).unwrap_or_default());
        Ok(Self { refusal: Refusal { code, text: printable(text) }, follows: 0 })
    }

    /// With the text that followed.
    pub fn with(mut self, text: &[u8]) -> Refusal {
        if !text.is_empty() {
            self.refusal.text = printable(text);
        }
        self.refusal
    }
}

/// The longest row of printable bytes, if it is long enough to be meant as text.
fn longest_text(bytes: &[u8]) -> &[u8] {
    let rows = bytes.split(|b| !(b.is_ascii_graphic() || *b == b' '));
    rows.max_by_key(|row| row.len()).filter(|row| row.len() >= 4).unwrap_or_default()
}

impl Refusal {
    /// Appends the frame that refuses an operation.
    pub fn encode(&self, op: u32, into: &mut Vec<u8>) {
        let text = self.text.as_bytes();
        let text = text.get(..text.len().min(MOST_TEXT as usize)).unwrap_or_default();
        let mut payload = [0; PAYLOAD];
        payload[..8].copy_from_slice(&self.code.to_le_bytes());
        payload[12..].copy_from_slice(&(text.len() as u32).to_le_bytes()); // at most MOST_TEXT
        aio::frame(into, Kind::Refusal, op, &payload, text);
    }

    /// As an error of ours. The text decides where it says what happened, because the same codes come from several
    /// places of a host; the code decides where it says more.
    pub fn error(&self) -> Error {
        let text = if self.text.is_empty() { "no text" } else { &self.text };
        Error::new(self.kind(), format!("received NFC error {} from server: {text}", self.code))
    }

    /// The server is out of memory: less at a time may do.
    pub fn lacks_memory(&self) -> bool {
        self.code == NO_MEMORY || self.text.contains("Failed to allocate")
    }

    fn kind(&self) -> ErrorKind {
        let says = |word: &str| self.text.to_ascii_lowercase().contains(word);
        match self.code {
            _ if self.lacks_memory() => ErrorKind::OutOfMemory,
            _ if says("permission") || says("access denied") => ErrorKind::AccessDenied,
            _ if says("not found") || says("no such file") => ErrorKind::NotFound,
            _ if says("lock") || says("busy") => ErrorKind::Locked,
            2 => ErrorKind::OutOfMemory,
            3 => ErrorKind::InvalidArgument,
            4 => ErrorKind::NotFound,
            6 => ErrorKind::NotSupported,
            8 => ErrorKind::DiskFull,
            10 => ErrorKind::Cancelled,
            NOT_PERMITTED => ErrorKind::ReadOnly,
            12 => ErrorKind::AlreadyExists,
            13 => ErrorKind::AccessDenied,
            15 => ErrorKind::Locked,
            21 => ErrorKind::FileTooBig,
            22 => ErrorKind::NameInvalid,
            _ => ErrorKind::ServerFault, // what programs know as "Unknown error"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u64, text: &str) -> Refusal {
        Refusal { code, text: text.to_owned() }
    }

    #[test]
    fn a_refusal_is_read_as_it_was_made() {
        for original in
            [refusal(11, "NfcAioProcessOpenFileMsg: permission check failed"), refusal(1_048_585, "")]
        {
            let mut bytes = Vec::new();
            original.encode(9, &mut bytes);
            let header = aio::Header::parse(&bytes[..16]).unwrap();
            assert_eq!((header.kind, header.op, header.size), (Kind::Refusal, 9, 16));
            let heard = Heard::parse(&bytes[16..32]).unwrap();
            assert_eq!(heard.follows as usize, original.text.len());
            assert_eq!(heard.with(&bytes[32..]), original);
        }
    }

    #[test]
    fn texts_are_bounded_and_fit_for_a_log() {
        let mut payload = [0; 16];
        payload[12..].copy_from_slice(&(MOST_TEXT + 1).to_le_bytes());
        assert!(Heard::parse(&payload).is_err());
        payload[12..].copy_from_slice(&5_u32.to_le_bytes());
        assert_eq!(Heard::parse(&payload).unwrap().with(b"a\n\x1bb\0").text, "ab");
        let mut bytes = Vec::new();
        refusal(1, &"x".repeat(5000)).encode(0, &mut bytes);
        assert_eq!(bytes.len(), 32 + MOST_TEXT as usize);
    }

    #[test]
    fn other_layouts_give_their_first_number_and_their_text() {
        let mut payload = vec![0x0b, 0, 0, 0, 1, 2];
        payload.extend_from_slice(b"Failed to open\0\x01abc");
        assert_eq!(Heard::parse(&payload).unwrap().with(b""), refusal(11, "Failed to open"));
        assert_eq!(Heard::parse(&[1, 2]).unwrap().with(b""), refusal(0, ""));
        assert_eq!(Heard::parse(&[]).unwrap().follows, 0);
    }

    #[test]
    fn codes_and_texts_become_kinds() {
        for (code, text, kind) in [
            (5, "Failed to allocate the requested 2097176 bytes", ErrorKind::OutOfMemory),
            (5, "", ErrorKind::OutOfMemory),
            (11, "", ErrorKind::ReadOnly),
            (11, "NfcAioProcessOpenFileMsg: permission check failed", ErrorKind::AccessDenied),
            (16392, "DiskLib error 16392: Failed to lock the file", ErrorKind::Locked),
            (4, "", ErrorKind::NotFound),
            (99, "The file was not found", ErrorKind::NotFound),
            (20, "Thin/TBZ/Sparse disks cannot be opened in multiwriter mode", ErrorKind::ServerFault),
            (0, "", ErrorKind::ServerFault),
        ] {
            let error = refusal(code, text).error();
            assert_eq!(error.kind(), kind, "{code} {text}");
            assert!(error.to_string().contains(&format!("NFC error {code} from server: {text}")));
        }
    }
}
