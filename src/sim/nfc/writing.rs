//! Writes that are under way: rows of fragments, each row answered once.

use std::collections::HashMap;

use crate::error::Result;
use crate::net::nfc::Compression;
use crate::net::nfc::broken;
use crate::net::nfc::io::Fragments;
use crate::net::nfc::io::Io;
use crate::net::nfc::pack::Unpacker;
use crate::sim::fault::Hit;
use crate::sim::nfc::Refusal;
use crate::sim::nfc::Volume;
use crate::sim::nfc::queue::Reserved;

/// Writes that may be under way at once.
const MOST: usize = 256;

/// The writes of a session.
#[derive(Debug, Default)]
pub struct Writes {
    rows: HashMap<u32, Row>,
    unpacker: Unpacker,
    plain: Vec<u8>,
}

/// A write that is under way.
#[derive(Debug)]
pub struct Row {
    /// Its first fragment.
    pub first: Io,
    fragments: Fragments,
    /// Why it fails; its data are thrown away then.
    pub refusal: Option<Refusal>,
    /// What goes wrong with it.
    pub hit: Hit,
    /// Memory that it needs until it is answered.
    pub memory: Option<Reserved>,
}

impl Row {
    /// A write that begins with this fragment.
    pub fn new(first: Io, buffer: u32) -> Self {
        let fragments = Fragments::of_write(&first, buffer);
        Self { first, fragments, refusal: None, hit: Hit::default(), memory: None }
    }
}

impl Writes {
    /// This operation is under way.
    pub fn has(&self, op: u32) -> bool {
        self.rows.contains_key(&op)
    }

    /// A write begins.
    pub fn begin(&mut self, op: u32, row: Row) -> Result<()> {
        if self.rows.len() >= MOST {
            return Err(broken(format!("more than {MOST} writes that have begun and not ended")));
        }
        self.rows.insert(op, row);
        Ok(())
    }

    /// Notes a fragment of an operation, whose data are still to come.
    pub fn expect(&mut self, op: u32, io: &Io) -> Result<()> {
        let row = self.rows.get_mut(&op).ok_or_else(|| broken("a fragment of no write"))?;
        if io.handle != row.first.handle {
            return Err(broken("fragments of one write for different files"));
        }
        row.fragments.take(io).map(drop)
    }

    /// Writes a fragment's data, to nowhere if the file is not open any more. The row, if that was all of it.
    pub fn data(
        &mut self,
        op: u32,
        io: &Io,
        data: &[u8],
        volume: Option<&dyn Volume>,
    ) -> Result<Option<Row>> {
        let row = self.rows.get_mut(&op).ok_or_else(|| broken("data of no write"))?;
        if row.refusal.is_none() {
            let plain = match io.compression {
                Compression::None => data,
                packed => {
                    self.plain.resize(io.length as usize, 0); // at most a buffer: the fragment was checked
                    self.unpacker.unpack(packed, data, &mut self.plain)?;
                    &self.plain
                }
            };
            row.refusal = match volume
                .map(|volume| volume.write(plain, io.offset.saturating_add(io.at.into())))
            {
                Some(Ok(())) => None,
                Some(Err(e)) => Some(Refusal { code: 1, text: format!("vixsim: {e}") }),
                None => Some(Refusal { code: 3, text: "vixsim: the file was closed meanwhile".to_owned() }),
            };
        }
        let complete = row.fragments.is_complete();
        Ok(if complete { self.rows.remove(&op) } else { None })
    }
}
