//! What a copy will take.

use crate::disk::copy;
use crate::error::{Context, Error, Result};
use crate::format::create;
use crate::format::create::DiskType;
use crate::format::create::NewIdentity;
use crate::session::copy::likeness::create_spec;
use crate::session::copy::likeness::kind_of;
use crate::session::open_disk::OpenDisk;
use crate::session::open_disk::pack_options;

impl OpenDisk {
    /// Bytes of all files of a copy of this kind, `None` for a copy of the disk's own kind. For kinds that leave zeros out
    /// the data is read, and for stream-optimised disks packed, so that the answer is exact but for what file systems add;
    /// that takes as long as reading or packing takes.
    pub fn space_for_copy(&self, kind: Option<DiskType>) -> Result<u64> {
        let _inside = self.enter()?;
        let source = self.disk();
        let disk_type = kind.unwrap_or_else(|| kind_of(source));
        let spec = create_spec(source, Some(disk_type), None);
        let story = || format!("space for a copy of {}", self.label());
        let layout =
            create::layout(&spec, "copy.vmdk", &NewIdentity::from_random(&[0; 28])).context(story)?;
        let fixed: u64 = layout.files.iter().map(|file| file.len.next_multiple_of(BLOCK)).sum();
        let used = |piece| Ok::<u64, Error>(copy::used_bytes(source).context(story)?.next_multiple_of(piece));
        match disk_type {
            DiskType::MonolithicSparse | DiskType::SplitSparse => Ok(fixed.saturating_add(used(copy::UNIT)?)),
            DiskType::VmfsThin => {
                let used = used(BLOCK)?;
                let fixed = fixed.saturating_sub(spec.capacity.bytes()?.next_multiple_of(BLOCK));
                // A file with holes also has a list of its pieces.
                Ok(fixed.saturating_add(used).saturating_add(used / PIECE_LIST).saturating_add(4 * BLOCK))
            }
            DiskType::StreamOptimized => {
                let packing = pack_options(&self.library().config());
                Ok(copy::packed_size(source, packing).context(story)?.next_multiple_of(BLOCK))
            }
            _ => Ok(fixed),
        }
    }
}

/// File systems give space in pieces of this.
const BLOCK: u64 = 4096;
/// What a file system needs to note where data is, as a part of the data: 12 bytes for 64 KiB, and generously rounded up.
const PIECE_LIST: u64 = 2048;
