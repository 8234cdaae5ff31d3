//! Messages of 264 bytes: the handshake before the frames, and the farewell after them.
//!
//! ```text
//!   client   43  33  51                  54+names  55  52            4
//!   server              36  51                            52
//! ```
//!
//! A host reads one message per TLS record, and may answer 33 only after 51.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nfc::broken;
use crate::net::nfc::fields::Fields;
use crate::net::nfc::fields::put32;

/// Bytes of each of them.
pub const LENGTH: usize = 264;

/// The protocol's version that is spoken here.
pub const VERSION: u32 = 11;

/// The oldest version with which a handshake of this kind was seen.
pub const LEAST_VERSION: u32 = 3;

/// What a client says in its first message.
pub const PLAIN_TEXT: [u8; 16] = *b"PlainText\0\0\0\0\0\0\0";

/// Longest name of a client or its operation.
pub const MOST_NAME: u32 = 256;

/// What a client calls itself; other names were accepted too, but this one is known by every host.
pub const CLIENT: &str = "vddk";

/// What a client calls what it does.
pub const OPERATION: &str = "nbdmode";

/// What a client says about hosts that change under it. What each bit means is not known.
pub const FEATURES: u32 = 3;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// 4: the client has closed everything; or a server that refuses.
    Complete,
    /// 33: the client asks for the session's parameters.
    Parameters,
    /// 36: they are. Not zero where versions can be exchanged.
    ParametersReply {
        /// Versions can be exchanged.
        versions: u32,
    },
    /// 43: the client's first message.
    Hello([u8; 16]),
    /// 51: the version of either side.
    Version {
        /// The version.
        number: u32,
        /// 0 in some captures and 1 in others.
        second: u32,
    },
    /// 52: frames follow, and the answer to that.
    Frames,
    /// 54: the client's name and that of its operation have so many bytes, and follow.
    Names {
        /// Bytes of the client's name.
        client: u32,
        /// Bytes of the operation's name.
        operation: u32,
    },
    /// 55: what the client can do.
    Features(u32),
}

impl Message {
    /// The number of its kind.
    pub fn number(&self) -> u32 {
        match self {
            Message::Complete => COMPLETE,
            Message::Parameters => PARAMETERS,
            Message::ParametersReply { .. } => PARAMETERS_REPLY,
            Message::Hello(_) => HELLO,
            Message::Version { .. } => VERSION_MESSAGE,
            Message::Frames => FRAMES,
            Message::Names { .. } => NAMES,
            Message::Features(_) => FEATURES_MESSAGE,
        }
    }

    /// The bytes.
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        put32(&mut bytes, 0, self.number());
        match *self {
            Message::Complete | Message::Parameters | Message::Frames => {}
            Message::ParametersReply { versions } => put32(&mut bytes, 16, versions),
            Message::Hello(said) => bytes[4..20].copy_from_slice(&said),
            Message::Version { number, second } => {
                put32(&mut bytes, 4, number);
                put32(&mut bytes, 8, second);
            }
            Message::Names { client, operation } => {
                put32(&mut bytes, 4, client);
                put32(&mut bytes, 8, operation);
            }
            Message::Features(bits) => put32(&mut bytes, 4, bits),
        }
        bytes
    }

    /// Reads one. Names that are too long are refused here, before anybody waits for them.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let fields = Fields::exactly("a handshake message", bytes, LENGTH)?;
        Ok(match fields.u32(0)? {
            COMPLETE => Message::Complete,
            PARAMETERS => Message::Parameters,
            PARAMETERS_REPLY => Message::ParametersReply { versions: fields.u32(16)? },
            HELLO => Message::Hello(
                bytes.get(4..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default(),
            ),
            VERSION_MESSAGE => Message::Version { number: fields.u32(4)?, second: fields.u32(8)? },
            FRAMES => Message::Frames,
            NAMES => {
                let (client, operation) = (fields.u32(4)?, fields.u32(8)?);
                if client > MOST_NAME || operation > MOST_NAME {
                    return Err(broken(format!(
                        "names of {client} and {operation} bytes, at most {MOST_NAME}"
                    )));
                }
                Message::Names { client, operation }
            }
            FEATURES_MESSAGE => Message::Features(fields.u32(4)?),
            other => return Err(broken(format!("a handshake message of the unknown kind {other}"))),
        })
    }
}

/// The version to speak with a peer of this version.
pub fn agree(theirs: u32) -> Result<u32> {
    match theirs {
        LEAST_VERSION.. => Ok(theirs.min(VERSION)),
        _ => Err(Error::new(
            ErrorKind::NotSupported,
            format!("the host speaks version {theirs} of NFC, at least {LEAST_VERSION} is needed"),
        )),
    }
}

const COMPLETE: u32 = 4;
const PARAMETERS: u32 = 33;
const PARAMETERS_REPLY: u32 = 36;
const HELLO: u32 = 43;
const VERSION_MESSAGE: u32 = 51;
const FRAMES: u32 = 52;
const NAMES: u32 = 54;
const FEATURES_MESSAGE: u32 = 55;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_read_as_it_was_made() {
        for message in [
            Message::Complete,
            Message::Parameters,
            Message::ParametersReply { versions: 1 },
            Message::Hello(PLAIN_TEXT),
            Message::Version { number: 11, second: 1 },
            Message::Frames,
            Message::Names { client: 4, operation: 7 },
            Message::Features(3),
        ] {
            assert_eq!(Message::parse(&message.encode()).unwrap(), message);
        }
    }

    #[test]
    fn other_lengths_kinds_and_names_are_refused() {
        let bytes = Message::Frames.encode();
        assert!(Message::parse(&bytes[..LENGTH - 1]).is_err() && Message::parse(&[0; LENGTH + 1]).is_err());
        for (client, operation) in [(257, 1), (1, u32::MAX)] {
            assert!(Message::parse(&Message::Names { client, operation }.encode()).is_err());
        }
        for kind in (0..=u8::MAX).filter(|k| ![4, 33, 36, 43, 51, 52, 54, 55].contains(k)) {
            let mut bytes = [0; LENGTH];
            bytes[0] = kind;
            assert!(Message::parse(&bytes).is_err(), "{kind}");
        }
    }

    #[test]
    fn the_older_of_two_versions_is_spoken() {
        assert_eq!((agree(7).unwrap(), agree(11).unwrap(), agree(12).unwrap()), (7, 11, 11));
        assert_eq!(agree(2).unwrap_err().kind(), ErrorKind::NotSupported);
    }
}
