//! Content ids: which content of a parent a child was made on.

use crate::disk::link::Text;
use crate::disk::link::TextPlace;
use crate::error::{Context, ErrorKind, Result};
use crate::format::descriptor::Descriptor;
use crate::storage::os;

/// The id of a disk that was never written to.
const FRESH: u32 = 0xffff_fffe;
/// Not an id: "no parent".
const NONE: u32 = 0xffff_ffff;

/// A random id that is neither special nor `old`.
pub fn new_cid(old: Option<u32>) -> Result<u32> {
    loop {
        let mut bytes = [0; 4];
        os::random_bytes(&mut bytes).context(|| "random content id")?;
        match u32::from_le_bytes(bytes) {
            0 | FRESH | NONE => {}
            same if Some(same) == old => {}
            id => return Ok(id),
        }
    }
}

impl Text {
    /// Overwrites the id's digits where they stand: each group of eight lies within what a disk writes at once or next to
    /// it, the file keeps its length, and a child of the old content can never look valid against changed content.
    /// QEMU leaves out leading zeros; where the digits have no room for eight, the text is rewritten.
    pub(super) fn renew_cid(&mut self) -> Result<()> {
        if let TextPlace::Nowhere { changed } = &mut self.place {
            *changed = true; // whoever serves it gives it another id, so that no child can rely on the one it had
            return Ok(());
        }
        let id = new_cid(self.descriptor.cid())?;
        let mut changed = self.descriptor.clone();
        changed.set_cid(id)?;
        let (bytes, start) = self.raw()?;
        match Descriptor::cid_patches(&bytes, id) {
            Ok(patches) => {
                for (at, digits) in patches {
                    self.storage.write_at(&digits, start + at as u64)?;
                }
                self.storage.flush()?;
            }
            Err(e) if e.kind() == ErrorKind::UnsupportedFeature => self.rewrite(&changed.to_bytes()?)?,
            Err(e) => return Err(e),
        }
        self.descriptor = changed;
        Ok(())
    }
}
