//! Disks with something in them, as the tests of whole-disk operations want them, and names that have to work.

use std::path::Path;

use super::model::is_zero;
use super::model::stamps;
use super::vix;
use super::vix::Connection;
use super::vix::Kind;
use super::vix::Spec;
use super::vix::code;
use super::vix::flags;

/// The kinds that can be written anywhere, again and again.
pub const KINDS: [Kind; 6] =
    [Kind::Sparse, Kind::Flat, Kind::SplitSparse, Kind::SplitFlat, Kind::VmfsFlat, Kind::VmfsThin];

/// Sectors of [`make`]'s disks.
pub const CAPACITY: u64 = 3000;

/// Names that are unusual and right.
pub const ODD_NAMES: [&str; 11] = [
    "a b.vmdk",
    " leading and trailing ",
    "50%.vmdk",
    "%s%n%p.vmdk",
    "é盘.vmdk",
    "it's #1=x.vmdk",
    "no ending",
    "D.VMDK",
    "-o.vmdk",
    "back\\slash;$(x)`y`.vmdk",
    "..vmdk",
];

/// A disk of [`CAPACITY`] sectors with stamps in 100..150.
#[track_caller]
pub fn make(connection: &Connection<'_>, path: &Path, kind: Kind) {
    connection.must_create(path, Spec::new(kind, CAPACITY));
    write(connection, path, 100, 50, 1);
}

/// Opens, writes stamps and closes.
#[track_caller]
pub fn write(connection: &Connection<'_>, path: &Path, start: u64, count: u64, version: u64) {
    let disk = connection.must_open(path, flags::READ_WRITE);
    disk.must_write(start, &stamps(start, count, version));
    assert_eq!(disk.close(), code::OK, "{}", vix::log_text());
}

/// A child of a disk, with stamps of version 7 in 2000..2003.
#[track_caller]
pub fn make_child(connection: &Connection<'_>, parent: &Path, child: &Path) {
    let disk = connection.must_open(parent, flags::READ_ONLY);
    let (result, _) = disk.create_child(child, Kind::Sparse);
    assert_eq!(result, code::OK, "{}", vix::log_text());
    assert_eq!(disk.close(), code::OK);
    write(connection, child, 2000, 3, 7);
}

/// What [`make`] wrote is there and nothing else, up to the end of a disk of any size.
#[track_caller]
pub fn check(connection: &Connection<'_>, path: &Path) {
    let disk = connection.must_open(path, flags::READ_ONLY);
    let capacity = disk.info().capacity;
    let all = disk.must_read(0, capacity);
    assert!(capacity >= CAPACITY, "{}: {capacity} sectors", path.display());
    assert_eq!(all[100 * 512..150 * 512], stamps(100, 50, 1), "{}", path.display());
    assert!(is_zero(&all[..100 * 512]) && is_zero(&all[150 * 512..]), "{}", path.display());
    assert_eq!(disk.close(), code::OK);
}

/// The same through the child of [`make_child`].
#[track_caller]
pub fn check_child(connection: &Connection<'_>, path: &Path) {
    let disk = connection.must_open(path, flags::READ_ONLY);
    assert_eq!(disk.must_read(100, 50), stamps(100, 50, 1), "{}", path.display());
    assert_eq!(disk.must_read(2000, 3), stamps(2000, 3, 7), "{}", path.display());
    assert_eq!(disk.close(), code::OK);
}
