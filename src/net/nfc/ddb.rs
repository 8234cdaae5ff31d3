//! Values of a disk's data base, one by one: there is no known way to list or to change them.

use crate::error::Result;
use crate::net::nfc::aio;
use crate::net::nfc::aio::Kind;
use crate::net::nfc::broken;
use crate::net::nfc::fields::Fields;
use crate::net::nfc::fields::put32;
use crate::net::nfc::fields::put64;

/// Longest key.
pub const MOST_KEY: usize = 256;

/// Longest value that is taken from a server.
pub const MOST_VALUE: u32 = 64 << 10;

/// The keys that programs ask about, without their prefix `ddb.`.
pub const KNOWN_KEYS: &[&str] = &[
    "adapterType",
    "uuid",
    "geometry.cylinders",
    "geometry.heads",
    "geometry.sectors",
    "geometry.biosCylinders",
    "geometry.biosHeads",
    "geometry.biosSectors",
    "logicalSectorSize",
    "physicalSectorSize",
    "longContentID",
    "virtualHWVersion",
    "toolsVersion",
    "toolsInstallType",
    "thinProvisioned",
    "isNativeLinkedClone",
    "isDigest",
    "iofilters",
    "KMFilters",
    "sidecars",
    "resumeConsolidateSector",
];

/// The request for a value; its key follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Get {
    /// The file.
    pub handle: u64,
    /// Bytes of the key.
    pub key: u32,
}

impl Get {
    /// Appends the request for this key, given without its prefix `ddb.`.
    pub fn encode(handle: u64, key: &str, op: u32, into: &mut Vec<u8>) -> Result<()> {
        let length = u32::try_from(key.len()).ok().filter(|n| *n > 0 && key.len() <= MOST_KEY);
        let Some(length) = length.filter(|_| key.bytes().all(|b| b.is_ascii_graphic())) else {
            return Err(broken(format!("a key of {} bytes cannot be asked for", key.len())));
        };
        let mut payload = [0; 16];
        put64(&mut payload, 0, handle);
        put32(&mut payload, 8, length);
        aio::frame(into, Kind::DdbGet, op, &payload, key.as_bytes());
        Ok(())
    }

    /// Reads the request. A key that is too long is refused here, before anybody waits for it.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let fields = Fields::exactly("DDB_GET", payload, 16)?;
        let request = Self { handle: fields.u64(0)?, key: fields.u32(8)? };
        if request.key == 0 || request.key as usize > MOST_KEY {
            return Err(broken(format!("DDB_GET with a key of {} bytes, at most {MOST_KEY}", request.key)));
        }
        Ok(request)
    }
}

/// Appends the answer: the value, or nothing where there is none.
pub fn answer(value: &str, op: u32, into: &mut Vec<u8>) {
    let value = value.as_bytes().get(..value.len().min(MOST_VALUE as usize)).unwrap_or_default();
    let mut payload = [0; 16];
    put32(&mut payload, 12, value.len() as u32); // at most MOST_VALUE
    aio::frame(into, Kind::DdbGet, op, &payload, value);
}

/// Bytes of the value that follows an answer; 0: there is no such key.
pub fn value_length(payload: &[u8]) -> Result<u32> {
    let length = Fields::exactly("the answer to DDB_GET", payload, 16)?.u32(12)?;
    if length > MOST_VALUE {
        return Err(broken(format!("a value of {length} bytes, at most {MOST_VALUE}")));
    }
    Ok(length)
}

/// A value that came. What is no text is none.
pub fn value(bytes: &[u8]) -> Result<Option<String>> {
    match std::str::from_utf8(bytes) {
        Ok("") => Ok(None),
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(broken("a value of the disk's data base that is no text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_bounded() {
        let mut bytes = Vec::new();
        for key in ["", "a b", "a\n", "ä", &"k".repeat(MOST_KEY + 1)] {
            assert!(Get::encode(1, key, 0, &mut bytes).is_err(), "{key}");
        }
        Get::encode(5, "uuid", 9, &mut bytes).unwrap();
        assert_eq!(Get::parse(&bytes[16..32]).unwrap(), Get { handle: 5, key: 4 });
        for length in [0, MOST_KEY as u32 + 1, u32::MAX] {
            bytes[24..28].copy_from_slice(&length.to_le_bytes());
            assert!(Get::parse(&bytes[16..32]).is_err());
        }
        let mut payload = [0; 16];
        payload[12..].copy_from_slice(&(MOST_VALUE + 1).to_le_bytes());
        assert!(value_length(&payload).is_err() && value_length(&[0; 8]).is_err());
    }

    #[test]
    fn an_absent_key_has_an_empty_value() {
        let mut bytes = Vec::new();
        answer("", 9, &mut bytes);
        assert_eq!((value_length(&bytes[16..]).unwrap(), value(b"").unwrap()), (0, None));
        bytes.clear();
        answer("lsilogic", 9, &mut bytes);
        assert_eq!(value_length(&bytes[16..32]).unwrap(), 8);
        assert_eq!(value(&bytes[32..]).unwrap().as_deref(), Some("lsilogic"));
        assert!(value(&[0xff]).is_err());
    }
}
