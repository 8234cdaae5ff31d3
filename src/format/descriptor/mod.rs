//! The text that describes one link of a disk: who it is, what its extents are, its database.
//!
//! ```text
//! # Disk DescriptorFile
//! version=1                                      header: key=value
//! CID=fffffffe
//! parentCID=ffffffff
//! createType="monolithicFlat"
//!
//! # Extent description
//! RW 20480 FLAT "d-flat.vmdk" 0                  access, sectors, type, name, offset
//!
//! # The Disk Data Base
//! #DDB
//! ddb.adapterType = "lsilogic"                   database: key = "value"
//! ```
//!
//! A [`Descriptor`] keeps the bytes it was parsed from. A change replaces the bytes it is about and parses the result
//! again, so lines that are not understood, comments, blanks, line ends and the encoding stay as they are, byte for byte.
//!
//! What decides about data are the types in the extent lines; `createType` is for messages.

mod edit;
mod extent;
mod parse;

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::format::encoding::Codec;
use crate::units::Sectors;

pub use extent::ExtentAccess;
pub use extent::ExtentKind;
pub use extent::ExtentLine;

/// The longest descriptor that is read or written: a disk of 62 TB in pieces of 2 GB needs less than a tenth of it.
pub const MAX_LEN: usize = 16 << 20;

/// One link's description. See the module.
#[derive(Clone, Debug)]
pub struct Descriptor {
    /// What it was parsed from, up to the NUL.
    text: Vec<u8>,
    codec: Codec,
    version: Placed<u32>,
    cid: Option<Placed<u32>>,
    parent_cid: Option<u32>,
    create_type: Option<String>,
    parent_hint: Option<String>,
    change_track: Option<Placed<String>>,
    extents: Vec<ExtentLine>,
    ddb: Vec<DdbEntry>,
    /// Where a line for the database belongs: behind its last line, or behind its title.
    ddb_end: Option<usize>,
}

/// A value and the bytes of the text that say it.
#[derive(Clone, Debug)]
struct Placed<T> {
    value: T,
    place: Range<usize>,
}

/// A line of the database.
#[derive(Clone, Debug)]
struct DdbEntry {
    /// Without `ddb.`, as it is spelled.
    key: String,
    value: String,
    /// The bytes of the value, quotes included.
    place: Range<usize>,
}

impl Descriptor {
    /// Reads a descriptor; a NUL or the end of `bytes` ends it. See `parse.rs` for what is refused.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse::descriptor(bytes)
    }

    /// True when the beginning of a file looks like a descriptor: text that comes to a `version` line before anything that
    /// is neither a comment nor a `key=value` line.
    pub fn looks_like(head: &[u8]) -> bool {
        parse::looks_like(head)
    }

    /// 1, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version.value
    }

    /// The content id of this link.
    pub fn cid(&self) -> Option<u32> {
        self.cid.as_ref().map(|cid| cid.value)
    }

    /// The content id that the parent must have, `None` for a base disk.
    pub fn parent_cid(&self) -> Option<u32> {
        self.parent_cid
    }

    /// The name of the kind of link. For messages only: extents say what they are.
    pub fn create_type(&self) -> Option<&str> {
        self.create_type.as_deref()
    }

    /// Where the parent was when this link was made.
    pub fn parent_hint(&self) -> Option<&str> {
        self.parent_hint.as_deref()
    }

    /// The file that tracks changed blocks of this link, when tracking is on.
    pub fn change_track_path(&self) -> Option<&str> {
        self.change_track.as_ref().map(|path| path.value.as_str())
    }

    /// The extents in the order in which they make up the disk; at least one.
    pub fn extents(&self) -> &[ExtentLine] {
        &self.extents
    }

    /// The size of the link: the sum of its extents.
    pub fn capacity(&self) -> Result<Sectors> {
        let sum = self.extents.iter().try_fold(0u64, |sum, extent| sum.checked_add(extent.sectors.0));
        let capacity = sum.map(Sectors).filter(|sum| sum.bytes().is_ok());
        capacity.ok_or_else(|| {
            let count = self.extents.len();
            Error::new(
                ErrorKind::NotADisk,
                format!("the {count} extents together are larger than 2^64 bytes"),
            )
        })
    }

    /// The value of a key of the database. `key` is without `ddb.`, in any case. Of a repeated key the first counts.
    /// Bytes that are not text in the descriptor's encoding show as U+FFFD.
    pub fn ddb(&self, key: &str) -> Option<&str> {
        self.entry(key).map(|entry| entry.value.as_str())
    }

    /// The keys of the database, without `ddb.`, as they are spelled and in their order.
    pub fn ddb_keys(&self) -> impl Iterator<Item = &str> {
        self.ddb
            .iter()
            .enumerate()
            .filter(|(i, entry)| !self.repeats(*i, &entry.key))
            .map(|(_, e)| e.key.as_str())
    }

    /// The encoding of the text.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    fn entry(&self, key: &str) -> Option<&DdbEntry> {
        self.ddb.iter().find(|entry| entry.key.eq_ignore_ascii_case(key))
    }

    /// True when an entry before the `nth` has the same key.
    fn repeats(&self, nth: usize, key: &str) -> bool {
        self.ddb.iter().take(nth).any(|earlier| earlier.key.eq_ignore_ascii_case(key))
    }
}
