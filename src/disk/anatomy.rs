//! What a link is made of, read without opening its data: for work on its files as files.

use std::ops::Range;

use crate::disk::open::MAX_DESCRIPTOR;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::descriptor::Descriptor;
use crate::format::sparse::Header;
use crate::format::sparse::embedded;
use crate::storage::Storage;
use crate::units::SECTOR;

/// A link as the file says that is opened for it.
#[derive(Clone, Debug)]
pub struct Anatomy {
    /// Its description.
    pub descriptor: Descriptor,
    /// The sparse file around the description, if it does not stand in a file of its own.
    pub embedded: Option<Embedded>,
}

/// The file that a description is embedded in.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// The header of that file.
    pub header: Header,
    /// The bytes in which the description stands.
    pub area: Range<u64>,
}

impl Anatomy {
    /// Reads a description. `NotADisk` when the file is none and has none inside.
    pub fn read(storage: &dyn Storage) -> Result<Anatomy> {
        let size = storage.size()?;
        let mut head = vec![0; usize::try_from(size.min(SECTOR)).unwrap_or(0)];
        storage.read_at(&mut head, 0)?;
        if head.starts_with(b"KDMV") || head.starts_with(b"kdmv") {
            return Self::read_embedded(storage, &head, size);
        }
        if size > MAX_DESCRIPTOR || head.first().is_none_or(|&b| b == 0) {
            let message = format!("neither a descriptor nor a file with one inside ({size} bytes)");
            return Err(Error::new(ErrorKind::NotADisk, message));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        storage.read_at(&mut bytes, 0)?;
        Ok(Anatomy { descriptor: Descriptor::parse(&bytes)?, embedded: None })
    }

    /// A file that its writer did not finish (its magic is in small letters) has a description all the same.
    fn read_embedded(storage: &dyn Storage, head: &[u8], size: u64) -> Result<Anatomy> {
        let mut head = head.to_vec();
        head.iter_mut().take(4).for_each(|letter| letter.make_ascii_uppercase());
        let header = Header::parse(&head, size)?;
        let Some(area) = header.descriptor.clone() else {
            let message = "an extent without a descriptor of its own: name the descriptor that names it";
            return Err(Error::new(ErrorKind::NotADisk, message));
        };
        let mut bytes = vec![0; usize::try_from(area.end - area.start).unwrap_or(0)]; // at most 16 MiB
        storage.read_at(&mut bytes, area.start)?;
        let descriptor = Descriptor::parse(&bytes).context(|| "embedded descriptor")?;
        Ok(Anatomy { descriptor, embedded: Some(Embedded { header, area }) })
    }

    /// Puts a changed description in the place of an embedded one.
    pub fn rewrite_embedded(
        storage: &dyn Storage,
        embedded: &Embedded,
        descriptor: &Descriptor,
    ) -> Result<()> {
        embedded::replace(storage, &embedded.area, &descriptor.to_bytes()?)
            .context(|| format!("embedded descriptor of {}", storage.label()))
    }
}
