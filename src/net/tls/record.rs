//! TLS records once the handshake is over: one record in, one record out. No sockets, no waiting.
//!
//! rustls makes the keys and does the arithmetic of the ciphers ([`MessageDecrypter`], [`MessageEncrypter`]); here are the
//! sequence numbers and the framing of RFC 8446 section 5 and RFC 5246 section 6.2. That splits a connection into two
//! halves that share nothing, and opens records where they lie instead of copying them through rustls' queues.

use std::ops::Range;

use rustls::ConnectionTrafficSecrets;
use rustls::ContentType;
use rustls::ProtocolVersion;
use rustls::SupportedCipherSuite;
use rustls::crypto::cipher::InboundOpaqueMessage;
use rustls::crypto::cipher::MessageDecrypter;
use rustls::crypto::cipher::MessageEncrypter;
use rustls::crypto::cipher::OutboundChunks;
use rustls::crypto::cipher::OutboundPlainMessage;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;

/// Type, version, length.
pub const HEADER: usize = 5;

/// Most plain bytes of one record.
pub const PLAIN: usize = 1 << 14;

/// Most bytes that encryption may add: 256 in TLS 1.3, 2048 in TLS 1.2.
const GROWTH: usize = 2048;

/// Longest record.
pub const LONGEST: usize = HEADER + PLAIN + GROWTH;

/// The length of the record at the front of `bytes`, header included. `None`: not all of it is there.
pub fn length(bytes: &[u8]) -> Result<Option<usize>> {
    let Some((&[kind, major, _minor, high, low], _)) = bytes.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !(20..=23).contains(&kind) || major != 3 || length > PLAIN + GROWTH {
        let what = format!("expected a TLS record, got type {kind}, version {major}, length {length}");
        return Err(Error::new(ErrorKind::Protocol, what));
    }
    Ok(Some(HEADER + length).filter(|whole| *whole <= bytes.len()))
}

/// What a record held.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// Data, at this place of the record.
    Data(Range<usize>),
    /// Part of the handshake protocol.
    Handshake(Vec<u8>),
    /// A message about the connection: level and description.
    Alert(u8, u8),
}

/// The half that receives.
pub struct Opener {
    decrypter: Box<dyn MessageDecrypter>,
    /// Number of the next record. It cannot wrap: 2^64 records cannot be received.
    next: u64,
}

impl Opener {
    /// From the first record under these keys.
    pub fn new(suite: SupportedCipherSuite, keys: (u64, ConnectionTrafficSecrets)) -> Result<Self> {
        let (next, secrets) = keys;
        let (key, iv) = parts(secrets)?;
        let decrypter = match suite {
            SupportedCipherSuite::Tls13(suite) => suite.aead_alg.decrypter(key, iv),
            SupportedCipherSuite::Tls12(suite) => {
                let (fixed, _) = split_iv(iv.as_ref(), suite.aead_alg.key_block_shape().fixed_iv_len)?;
                suite.aead_alg.decrypter(key, fixed)
            }
        };
        Ok(Self { decrypter, next })
    }

    /// Decrypts a whole record where it lies.
    pub fn open(&mut self, record: &mut [u8]) -> Result<Opened> {
        let start = record.as_ptr().addr();
        let Some((&mut [kind, major, minor, _, _], payload)) = record.split_first_chunk_mut::<HEADER>()
        else {
            return Err(Error::new(ErrorKind::Internal, "a TLS record without a header"));
        };
        let kind = ContentType::from(kind);
        if kind == ContentType::ChangeCipherSpec {
            return Err(Error::new(ErrorKind::Protocol, "a change of ciphers after the handshake"));
        }
        let version = ProtocolVersion::from(u16::from_be_bytes([major, minor]));
        let message = InboundOpaqueMessage::new(kind, version, payload);
        let plain = self
            .decrypter
            .decrypt(message, self.next)
            .map_err(|e| Error::new(ErrorKind::Protocol, format!("TLS record {}: {e}", self.next)))?;
        self.next += 1;
        let at = plain.payload.as_ptr().addr().wrapping_sub(start);
        let place = at..at.wrapping_add(plain.payload.len());
        match (plain.typ, plain.payload) {
            (ContentType::ApplicationData, _) => Ok(Opened::Data(place)),
            (ContentType::Handshake, payload) => Ok(Opened::Handshake(payload.to_vec())),
            (ContentType::Alert, &[level, description]) => Ok(Opened::Alert(level, description)),
            (kind, payload) => {
                let what = format!("a TLS record of {} bytes of type {kind:?}", payload.len());
                Err(Error::new(ErrorKind::Protocol, what))
            }
        }
    }
}

/// The half that sends.
pub struct Sealer {
    encrypter: Box<dyn MessageEncrypter>,
    next: u64,
    /// Records that may be made with these keys.
    limit: u64,
}

impl Sealer {
    /// From the first record under these keys.
    pub fn new(suite: SupportedCipherSuite, keys: (u64, ConnectionTrafficSecrets)) -> Result<Self> {
        let (next, secrets) = keys;
        let (key, iv) = parts(secrets)?;
        let (encrypter, limit) = match suite {
            SupportedCipherSuite::Tls13(suite) => {
                (suite.aead_alg.encrypter(key, iv), suite.common.confidentiality_limit)
            }
            SupportedCipherSuite::Tls12(suite) => {
                let (fixed, explicit) = split_iv(iv.as_ref(), suite.aead_alg.key_block_shape().fixed_iv_len)?;
                (suite.aead_alg.encrypter(key, fixed, explicit), suite.common.confidentiality_limit)
            }
        };
        // The last number of all is never used, so that counting cannot wrap.
        Ok(Self { encrypter, next, limit: limit.min(u64::MAX - 1) })
    }

    /// True when the keys are good for no more than a message about that.
    pub fn is_worn(&self) -> bool {
        self.next.saturating_add(KEPT_BACK) >= self.limit
    }

    /// Makes a record of at most [`PLAIN`] bytes.
    pub fn seal(&mut self, kind: ContentType, plain: OutboundChunks<'_>) -> Result<Vec<u8>> {
        if self.next >= self.limit {
            return Err(Error::new(ErrorKind::ConnectionLost, "the keys of the TLS connection are used up"));
        }
        let message = OutboundPlainMessage { typ: kind, version: ProtocolVersion::TLSv1_2, payload: plain };
        let sealed = self
            .encrypter
            .encrypt(message, self.next)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("encrypting a TLS record: {e}")))?;
        self.next += 1;
        Ok(sealed.encode())
    }
}

/// Records that worn keys are still good for: a change of keys, a farewell.
const KEPT_BACK: u64 = 8;

fn parts(
    secrets: ConnectionTrafficSecrets,
) -> Result<(rustls::crypto::cipher::AeadKey, rustls::crypto::cipher::Iv)> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((key, iv)),
        _ => Err(Error::new(ErrorKind::Internal, "a TLS cipher that was not offered")),
    }
}

/// TLS 1.2: the part of the nonce that the handshake fixed, and where its visible part begins to count.
fn split_iv(iv: &[u8], fixed: usize) -> Result<(&[u8], &[u8])> {
    iv.split_at_checked(fixed).ok_or_else(|| Error::new(ErrorKind::Internal, "a TLS nonce too short"))
}

#[cfg(test)]
mod tests {
    use rustls::crypto::cipher::AeadKey;
    use rustls::crypto::cipher::Iv;
    use rustls::crypto::ring::cipher_suite::TLS13_AES_256_GCM_SHA384;

    use super::*;

    fn keys(next: u64) -> (u64, ConnectionTrafficSecrets) {
        (next, ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([7; 32]), iv: Iv::from([9; 12]) })
    }

    #[test]
    fn what_is_sealed_can_be_opened_once_and_in_order() {
        let mut sealer = Sealer::new(TLS13_AES_256_GCM_SHA384, keys(5)).unwrap();
        let mut opener = Opener::new(TLS13_AES_256_GCM_SHA384, keys(5)).unwrap();
        for text in [&b"one"[..], b"", &[3; PLAIN]] {
            let mut record = sealer.seal(ContentType::ApplicationData, OutboundChunks::Single(text)).unwrap();
            assert!(record.len() <= LONGEST);
            assert_eq!(length(&record).unwrap(), Some(record.len()));
            let again = record.clone();
            let Opened::Data(place) = opener.open(&mut record).unwrap() else { panic!("no data") };
            assert_eq!(&record[place], text);
            assert!(opener.open(&mut again.clone()).is_err());
        }
    }

    #[test]
    fn keys_are_worn_in_time_for_a_few_messages_and_then_refuse() {
        let limit = 1 << 24; // for AES-GCM
        let mut sealer = Sealer::new(TLS13_AES_256_GCM_SHA384, keys(limit - KEPT_BACK - 1)).unwrap();
        let mut seal = || sealer.seal(ContentType::Alert, OutboundChunks::Single(&[1, 0])).map(|_| ());
        assert!(seal().is_ok());
        for _ in 0..KEPT_BACK {
            assert!(seal().is_ok());
        }
        assert_eq!(seal().unwrap_err().kind(), ErrorKind::ConnectionLost);
        let worn = |next| Sealer::new(TLS13_AES_256_GCM_SHA384, keys(next)).unwrap().is_worn();
        assert!(!worn(limit - KEPT_BACK - 1) && worn(limit - KEPT_BACK) && worn(u64::MAX));
    }

    #[test]
    fn headers_are_checked_before_anything_is_waited_for() {
        assert_eq!(length(b"").unwrap(), None);
        assert_eq!(length(&[23, 3, 3, 0]).unwrap(), None);
        assert_eq!(length(&[23, 3, 3, 0, 1]).unwrap(), None);
        assert_eq!(length(&[23, 3, 3, 0, 1, 7, 7]).unwrap(), Some(6));
        for wrong in [[19, 3, 3, 0, 1], [24, 3, 3, 0, 1], [23, 2, 3, 0, 1], [23, 3, 3, 0x48, 1]] {
            assert_eq!(length(&wrong).unwrap_err().kind(), ErrorKind::Protocol, "{wrong:?}");
        }
    }
}
