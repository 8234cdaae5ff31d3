//! What the data of a fragment look like when they are packed.
//!
//! Each fragment stands alone. Whoever packs keeps a [`Packer`], whoever unpacks an [`Unpacker`]: what the algorithms need
//! is made once and not for each fragment.

mod fastlz;
mod skipz;
mod zlib;

use crate::error::Context;
use crate::error::Result;
use crate::net::nfc::Compression;

/// Packs fragments, one after the other.
#[derive(Debug)]
pub struct Packer {
    way: Way,
    packed: Vec<u8>,
}

#[derive(Debug)]
enum Way {
    None,
    Zlib(zlib::Encoder),
    Fastlz(fastlz::Encoder),
    Skipz,
}

impl Packer {
    /// Packs in this way.
    pub fn new(compression: Compression) -> Self {
        let way = match compression {
            Compression::None => Way::None,
            Compression::Zlib => Way::Zlib(zlib::Encoder::new()),
            Compression::Fastlz => Way::Fastlz(fastlz::Encoder::new()),
            Compression::Skipz => Way::Skipz,
        };
        Self { way, packed: Vec::new() }
    }

    /// The way it packs.
    pub fn compression(&self) -> Compression {
        match self.way {
            Way::None => Compression::None,
            Way::Zlib(_) => Compression::Zlib,
            Way::Fastlz(_) => Compression::Fastlz,
            Way::Skipz => Compression::Skipz,
        }
    }

    /// The fragment packed. `None`: it does not get smaller, and is to be sent as it is.
    pub fn pack(&mut self, plain: &[u8]) -> Option<&[u8]> {
        self.packed.clear();
        let smaller = match &mut self.way {
            Way::None => false,
            Way::Zlib(encoder) => encoder.encode(plain, &mut self.packed),
            Way::Fastlz(encoder) => encoder.encode(plain, &mut self.packed),
            Way::Skipz => skipz::encode(plain, &mut self.packed),
        };
        Some(self.packed.as_slice()).filter(|packed| smaller && packed.len() < plain.len())
    }
}

/// Unpacks fragments, one after the other.
#[derive(Debug, Default)]
pub struct Unpacker {
    zlib: Option<zlib::Decoder>,
}

impl Unpacker {
    /// Ready for every way.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fills `plain` from a packed fragment, which must give exactly as many bytes.
    pub fn unpack(&mut self, compression: Compression, packed: &[u8], plain: &mut [u8]) -> Result<()> {
        let done = match compression {
            Compression::None => copy(packed, plain),
            Compression::Zlib => self.zlib.get_or_insert_with(zlib::Decoder::new).decode(packed, plain),
            Compression::Fastlz => fastlz::decode(packed, plain),
            Compression::Skipz => skipz::decode(packed, plain),
        };
        done.context(|| {
            format!("a fragment of {} bytes, packed with {compression:?} into {}", plain.len(), packed.len())
        })
    }
}

fn copy(packed: &[u8], plain: &mut [u8]) -> Result<()> {
    if packed.len() != plain.len() {
        return Err(crate::net::nfc::broken("its data have another length"));
    }
    plain.copy_from_slice(packed);
    Ok(())
}

#[cfg(test)]
mod tests;
