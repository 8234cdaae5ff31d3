//! Disks that stand on each other: which may be a parent, and two chains made into one.

use std::collections::HashSet;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::disk::CHANGED;
use crate::disk::Disk;
use crate::disk::UNCHANGED;
use crate::disk::open::MAX_LINKS;
use crate::disk::owner::OwnerIndex;
use crate::error::{Error, ErrorKind, Result};
use crate::format::descriptor::Descriptor;
use crate::format::descriptor::ExtentKind;
use crate::units::SECTOR;

/// Kinds of disks that are devices: they change without anybody giving them a new content id.
const DEVICES: [&str; 3] = ["fullDevice", "partitionedDevice", "vmfsRaw"];

impl Disk {
    /// The content id that a child of this disk must name. `ParentNotAllowed` for disks that cannot have one: devices, and
    /// stream-optimised files, which are for transport.
    pub fn check_parent(&self) -> Result<u32> {
        let leaf = self.leaf();
        let refused =
            |why: &str| Err(Error::new(ErrorKind::ParentNotAllowed, format!("{} {why}", leaf.label())));
        if leaf.pieces().iter().any(|piece| piece.image().packed_unit().is_some()) {
            return refused("is compressed and cannot be a parent");
        }
        if leaf.with_descriptor(is_device) {
            return refused("is a device and cannot be a parent");
        }
        match leaf.content_id() {
            Some(cid) => Ok(cid),
            None => refused("has no content id that is known, and cannot be a parent"),
        }
    }

    /// Calls `make`, which makes a child, with the content id it must name. What this disk holds is stable then, and from
    /// its next change on it has another id: the child cannot look valid on changed content. First changes wait meanwhile;
    /// a write that is already under way belongs to the child's view or not.
    pub fn with_child_in_mind<T>(&self, make: impl FnOnce(u32) -> Result<T>) -> Result<T> {
        let _marking = self.marking.lock();
        let _ = self.changed.compare_exchange(CHANGED, UNCHANGED, Ordering::AcqRel, Ordering::Acquire);
        self.flush()?;
        make(self.check_parent()?)
    }

    /// Whether `upper` can stand on this disk.
    pub fn check_below(&self, upper: &Disk) -> Result<()> {
        let (Some(bottom), Some(base)) = (upper.links.last(), self.links.last()) else {
            return Err(Error::new(ErrorKind::Internal, "a chain without links"));
        };
        let wanted = bottom.with_descriptor(Descriptor::parent_cid);
        let rooted = base.with_descriptor(Descriptor::parent_cid).is_none();
        let refused = |kind, text: String| Err(Error::new(kind, text));
        let Some(wanted) = wanted else {
            let kind = if rooted { ErrorKind::RootLinks } else { ErrorKind::InvalidChain };
            return refused(kind, format!("{} has no parent or stands on its own already", bottom.label()));
        };
        if !rooted {
            let text = format!("{} is open without its parents", base.label());
            return refused(ErrorKind::PartialChain, text);
        }
        if upper.capacity != self.capacity {
            let (child, parent) = (upper.capacity / SECTOR, self.capacity / SECTOR);
            let text = format!("the child has {child} sectors, the parent {parent}");
            return refused(ErrorKind::CapacityMismatch, text);
        }
        let cid = self.check_parent()?;
        if cid != wanted {
            let text = format!(
                "{} was made on content {wanted:08x}, {} has {cid:08x}",
                bottom.label(),
                self.leaf().label()
            );
            return refused(ErrorKind::CidMismatch, text);
        }
        self.check_depth(upper.links.len())?;
        let mut seen = HashSet::new();
        match upper.links.iter().chain(&self.links).find(|link| !seen.insert(link.identity())) {
            Some(twice) => {
                refused(ErrorKind::InvalidChain, format!("{} would stand twice in the chain", twice.label()))
            }
            None => Ok(()),
        }
    }

    /// Whether the chain may have `more` links.
    pub fn check_depth(&self, more: usize) -> Result<()> {
        if self.links.len() + more > MAX_LINKS {
            return Err(Error::new(ErrorKind::TooManyLinks, format!("more than {MAX_LINKS} links")));
        }
        Ok(())
    }

    /// The chain of `upper` on top of that of `lower`, as one disk that writes where `upper` does. The two must not be
    /// used any more; `upper` must not be finished.
    pub fn stacked(upper: &Disk, lower: &Disk) -> Result<Disk> {
        lower.check_below(upper)?;
        let links: Vec<_> = upper.links.iter().chain(&lower.links).cloned().collect();
        Ok(Disk {
            capacity: upper.capacity,
            writable: upper.writable,
            is_child: true,
            owners: OwnerIndex::new(links.len()),
            changed: AtomicU8::new(upper.changed.load(Ordering::Acquire)),
            marking: Mutex::new(()),
            starts: false,
            links,
        })
    }
}

fn is_device(descriptor: &Descriptor) -> bool {
    let kind = descriptor.create_type().unwrap_or_default();
    let device = |extent: ExtentKind| matches!(extent, ExtentKind::VmfsRdm | ExtentKind::VmfsRaw);
    DEVICES.iter().any(|name| kind.eq_ignore_ascii_case(name))
        || descriptor.extents().iter().any(|extent| device(extent.kind))
}
