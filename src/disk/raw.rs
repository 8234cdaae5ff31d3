//! A disk that is one storage from its first byte to its last, without a description.

use std::sync::Arc;

use crate::disk::Disk;
use crate::disk::link::Link;
use crate::disk::link::Piece;
use crate::disk::link::Text;
use crate::disk::link::TextPlace;
use crate::error::{Error, ErrorKind, Result};
use crate::format::descriptor::Descriptor;
use crate::format::flat::Flat;
use crate::format::raw;
use crate::storage::Identity;
use crate::storage::Storage;
use crate::units::SECTOR;
use crate::units::Sectors;

impl Disk {
    /// The disk that `storage`, of whole sectors, holds. It may be empty. Its transfers go straight to
    /// [`Storage::start`].
    pub fn raw(storage: Arc<dyn Storage>, write: bool, identity: Identity) -> Result<Self> {
        let descriptor = raw::describe(Sectors(storage.size()? / SECTOR))?;
        Self::described(storage, write, identity, descriptor)
    }

    /// The same with what is known of it besides its bytes.
    pub fn described(
        storage: Arc<dyn Storage>,
        write: bool,
        identity: Identity,
        descriptor: Descriptor,
    ) -> Result<Self> {
        let (len, label) = (storage.size()?, storage.label());
        if len % SECTOR != 0 {
            let text = format!("{label} has {len} bytes, expected whole sectors");
            return Err(Error::new(ErrorKind::Internal, text));
        }
        let piece = Piece::new(0, len, Box::new(Flat::open(storage.clone(), 0, len, write)?));
        let text = Text { descriptor, storage, place: TextPlace::Nowhere { changed: false } };
        let link = Link::raw(label, identity, piece, text);
        let disk = Disk::new(vec![Arc::new(link)], write, false)?;
        Ok(Self { starts: true, ..disk })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;

    fn raw(len: usize, write: bool) -> Disk {
        Disk::raw(Arc::new(MemoryStorage::new("m", vec![7; len])), write, Identity(1, 2)).unwrap()
    }

    #[test]
    fn a_raw_disk_is_read_and_written_in_place() {
        let disk = raw(2048, true);
        disk.write(&[1; 512], 512).unwrap();
        let mut all = [0; 2048];
        disk.read(&mut all, 0).unwrap();
        assert!(all[512..1024] == [1; 512] && all[..512] == [7; 512] && all[1024..] == [7; 1024]);
        disk.flush().unwrap();
        disk.finish().unwrap();
        assert_eq!(raw(512, false).write(&[1; 512], 0).unwrap_err().kind(), ErrorKind::ReadOnly);
    }

    #[test]
    fn an_empty_disk_holds_nothing_and_harms_nobody() {
        let disk = raw(0, true);
        disk.read(&mut [], 0).unwrap();
        disk.write(&[], 0).unwrap();
        disk.allocated(0..0, &mut |_| unreachable!()).unwrap();
        assert_eq!(disk.read(&mut [0; 512], 0).unwrap_err().kind(), ErrorKind::OutOfRange);
    }

    #[test]
    fn its_description_cannot_be_changed() {
        let refused = raw(512, true).leaf().change_descriptor(|d| d.set_ddb("comment", "x")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotSupportedRemote);
    }
}
