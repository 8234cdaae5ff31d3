//! One zlib stream (RFC 1950) for each fragment.

use std::fmt;

use libdeflater::CompressionLvl;
use libdeflater::Compressor;
use libdeflater::Decompressor;

use crate::error::Result;
use crate::net::nfc::broken;

/// Packs.
pub struct Encoder(Compressor);

/// Unpacks.
pub struct Decoder(Decompressor);

impl Encoder {
    /// The fastest level that packs: what is sent goes over a network once.
    pub fn new() -> Self {
        Self(Compressor::new(CompressionLvl::new(1).unwrap_or_default()))
    }

    /// False when the fragment does not get smaller.
    pub fn encode(&mut self, plain: &[u8], packed: &mut Vec<u8>) -> bool {
        packed.resize(plain.len(), 0); // more would be of no use
        let written = self.0.zlib_compress(plain, packed).unwrap_or(plain.len());
        packed.truncate(written);
        written < plain.len()
    }
}

impl Decoder {
    /// For any number of fragments.
    pub fn new() -> Self {
        Self(Decompressor::new())
    }

    /// Fills `plain`.
    pub fn decode(&mut self, packed: &[u8], plain: &mut [u8]) -> Result<()> {
        match self.0.zlib_decompress(packed, plain) {
            Ok(length) if length == plain.len() => Ok(()),
            Ok(length) => Err(broken(format!("its stream ends after {length} bytes"))),
            Err(e) => Err(broken(format!("its stream is bad: {e}"))),
        }
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("zlib::Encoder")
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("zlib::Decoder")
    }
}
