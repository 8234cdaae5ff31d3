//! What a new disk is made of: pure functions from a specification to names and bytes. Nothing here writes.

mod sparse;
mod text;

use crate::error::{Error, ErrorKind, Result};
use crate::format::descriptor::ExtentAccess;
use crate::format::descriptor::ExtentKind;
use crate::format::descriptor::ExtentLine;
use crate::format::geometry::Adapter;
use crate::format::stream::write::stream_optimized;
use crate::units::Sectors;

pub use text::check_hint;
pub use text::descriptor_text;

/// The kind of disk to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskType {
    /// One growing file.
    MonolithicSparse,
    /// One preallocated file.
    MonolithicFlat,
    /// Growing files of 2 GB.
    SplitSparse,
    /// Preallocated files of 2 GB.
    SplitFlat,
    /// ESX thick.
    VmfsFlat,
    /// Compressed, written in sequence.
    StreamOptimized,
    /// ESX thin.
    VmfsThin,
    /// ESX sparse.
    VmfsSparse,
}

/// What a caller says about a disk to be made.
#[derive(Clone, Copy, Debug)]
pub struct CreateSpec {
    /// The kind of disk.
    pub disk_type: DiskType,
    /// The adapter it is for.
    pub adapter: Adapter,
    /// Virtual hardware version, any number.
    pub hardware_version: u16,
    /// Its size.
    pub capacity: Sectors,
    /// 512 or 4096.
    pub logical_sector_size: u32,
    /// 512 or 4096.
    pub physical_sector_size: u32,
}

/// What makes a new disk different from every other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewIdentity {
    /// The content id, also the end of the long content id.
    pub cid: u32,
    /// The other bytes of the long content id, random.
    pub content: [u8; 12],
    /// Random bytes of the disk's serial number.
    pub uuid: [u8; 16],
}

impl NewIdentity {
    /// The identity of a disk that holds nothing yet: VMware gives it a content id that no written disk has.
    pub fn from_random(random: &[u8; 28]) -> NewIdentity {
        NewIdentity {
            cid: EMPTY_DISK_CID,
            content: std::array::from_fn(|i| random[i]),
            uuid: std::array::from_fn(|i| random[12 + i]),
        }
    }

    /// 32 hexadecimal digits.
    pub fn long_content_id(&self) -> String {
        let content: String = self.content.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{content}{:08x}", self.cid)
    }
}

/// The files of a new disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The file that is opened comes last: when it exists, so do all others.
    pub files: Vec<NewFile>,
}

/// One file of a new disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Its name, in the folder of the disk.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
    /// What stands in it, ascending; everything else is zeros.
    pub pieces: Vec<Piece>,
    /// All of its length shall have space on the file system, or the file fails to be made.
    pub preallocate: bool,
}

/// Bytes and their place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where they stand.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What a caller says about a disk on top of another one.
#[derive(Clone, Copy, Debug)]
pub struct ChildSpec<'a> {
    /// The kind of disk: one of the two that grow.
    pub disk_type: DiskType,
    /// The size of the parent.
    pub capacity: Sectors,
    /// The content id of the parent.
    pub parent_cid: u32,
    /// Where the parent is, seen from the folder of the child.
    pub parent_hint: &'a str,
}

/// The files of a new disk called `name`, which is its name without folder.
///
/// One kind has no layout. A `VmfsSparse` disk (COWD) is the delta of a snapshot: hosts make it, on their own file systems, on top of a
/// disk that they lock, and take foreign changes of it for damage. There is no base disk of that kind, and none of the
/// programs that could open one on this machine could hand it back to a host.
pub fn layout(spec: &CreateSpec, name: &str, identity: &NewIdentity) -> Result<Layout> {
    match spec.disk_type {
        DiskType::MonolithicSparse => monolithic_sparse(spec, name, identity),
        DiskType::MonolithicFlat => monolithic_flat(spec, name, identity),
        DiskType::SplitSparse => split_sparse(spec, name, identity),
        DiskType::SplitFlat => split_flat(spec, name, identity),
        DiskType::VmfsFlat | DiskType::VmfsThin => vmfs(spec, name, identity),
        DiskType::StreamOptimized => stream_optimized(spec, name, identity),
        DiskType::VmfsSparse => Err(Error::new(
            ErrorKind::NotSupported,
            "disks of type VMFS_SPARSE are the deltas of an ESXi host, which alone makes them",
        )),
    }
}

/// One file that holds the descriptor and grows with the data. `name` is its name without folder.
pub fn monolithic_sparse(spec: &CreateSpec, name: &str, identity: &NewIdentity) -> Result<Layout> {
    one_sparse(name, spec.capacity, |extents| descriptor_text(spec, MONOLITHIC_SPARSE, extents, identity))
}

/// A descriptor called `name` and growing files called `..-s001.vmdk` and so on.
pub fn split_sparse(spec: &CreateSpec, name: &str, identity: &NewIdentity) -> Result<Layout> {
    many_sparse(name, spec.capacity, |extents| descriptor_text(spec, SPLIT_SPARSE, extents, identity))
}

/// A descriptor called `name` and a file of the disk's size called `..-flat.vmdk`.
pub fn monolithic_flat(spec: &CreateSpec, name: &str, identity: &NewIdentity) -> Result<Layout> {
    one_flat(spec, name, "monolithicFlat", ExtentKind::Flat, identity)
}

/// As [`monolithic_flat`], in the words of ESXi: thick, or thin with space taken when it is written to.
pub fn vmfs(spec: &CreateSpec, name: &str, identity: &NewIdentity) -> Result<Layout> {
    one_flat(spec, name, "vmfs", ExtentKind::Vmfs, identity)
}

/// A descriptor called `name` and preallocated files called `..-f001.vmdk` and so on.
pub fn split_flat(spec: &CreateSpec, name: &str, identity: &NewIdentity) -> Result<Layout> {
    check(name, spec.capacity)?;
    let extents =
        split(spec.capacity, |n, sectors| extent(ExtentKind::Flat, sectors, split_name(name, 'f', n)));
    let text = descriptor_text(spec, "twoGbMaxExtentFlat", &extents, identity)?;
    let mut files = extents.iter().map(|extent| flat_file(extent, true)).collect::<Result<Vec<NewFile>>>()?;
    files.push(descriptor_file(name, text));
    checked(files)
}

/// A disk of zero changes on top of another one.
pub fn child(spec: &ChildSpec<'_>, name: &str, identity: &NewIdentity) -> Result<Layout> {
    let text_as =
        |create_type| move |extents: &[ExtentLine]| text::child(spec, create_type, extents, identity);
    match spec.disk_type {
        DiskType::MonolithicSparse => one_sparse(name, spec.capacity, text_as(MONOLITHIC_SPARSE)),
        DiskType::SplitSparse => many_sparse(name, spec.capacity, text_as(SPLIT_SPARSE)),
        other => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("a child is a monolithic or split sparse disk, asked for {other:?}"),
        )),
    }
}

/// Makes the text of a descriptor for these extents.
trait MakeText: FnOnce(&[ExtentLine]) -> Result<Vec<u8>> {}
impl<F: FnOnce(&[ExtentLine]) -> Result<Vec<u8>>> MakeText for F {}

fn one_sparse(name: &str, capacity: Sectors, make_text: impl MakeText) -> Result<Layout> {
    check(name, capacity)?;
    let text = make_text(&[extent(ExtentKind::Sparse, capacity, name.to_owned())])?;
    checked(vec![sparse::sparse_file(capacity, name, Some(&text))?])
}

fn many_sparse(name: &str, capacity: Sectors, make_text: impl MakeText) -> Result<Layout> {
    check(name, capacity)?;
    let extents = split(capacity, |n, sectors| extent(ExtentKind::Sparse, sectors, split_name(name, 's', n)));
    let text = make_text(&extents)?;
    let mut files = extents.iter().map(sparse_extent).collect::<Result<Vec<NewFile>>>()?;
    files.push(descriptor_file(name, text));
    checked(files)
}

fn one_flat(
    spec: &CreateSpec,
    name: &str,
    create_type: &str,
    kind: ExtentKind,
    identity: &NewIdentity,
) -> Result<Layout> {
    check(name, spec.capacity)?;
    let extent = extent(kind, spec.capacity, format!("{}-flat.vmdk", base_name(name)));
    let text = descriptor_text(spec, create_type, std::slice::from_ref(&extent), identity)?;
    let data = flat_file(&extent, spec.disk_type != DiskType::VmfsThin)?;
    checked(vec![data, descriptor_file(name, text)])
}

fn extent(kind: ExtentKind, sectors: Sectors, name: String) -> ExtentLine {
    ExtentLine { access: ExtentAccess::ReadWrite, sectors, kind, name: Some(name), offset: Sectors(0) }
}

/// The file of a new flat extent.
pub fn flat_file(extent: &ExtentLine, preallocate: bool) -> Result<NewFile> {
    let name = extent.name.clone().unwrap_or_default();
    Ok(NewFile { name, len: extent.sectors.bytes()?, pieces: Vec::new(), preallocate })
}

/// The file of a new hosted sparse extent without a descriptor.
pub fn sparse_extent(extent: &ExtentLine) -> Result<NewFile> {
    sparse::sparse_file(extent.sectors, extent.name.as_deref().unwrap_or_default(), None)
}

fn descriptor_file(name: &str, text: Vec<u8>) -> NewFile {
    let len = text.len() as u64;
    let pieces = vec![Piece { offset: 0, bytes: text }];
    NewFile { name: name.to_owned(), len, pieces, preallocate: false }
}

/// Cuts a disk into pieces of at most [`piece_sectors`]; `make` gets their numbers, from 1, and sizes.
fn split<T>(capacity: Sectors, make: impl Fn(u64, Sectors) -> T) -> Vec<T> {
    let piece = piece_sectors(capacity);
    (0..capacity.0.div_ceil(piece)).map(|i| make(i + 1, Sectors(piece.min(capacity.0 - i * piece)))).collect()
}

/// Sectors of the pieces of a split disk: 2047 MiB as VMware's, larger where that would make more pieces than a process
/// may usually have files open (1024, of which the host needs some).
pub fn piece_sectors(capacity: Sectors) -> u64 {
    PIECE.max(capacity.0.div_ceil(MOST_PIECES).next_multiple_of(PIECE))
}

/// The name of the `n`th extent of the split disk `name`.
pub fn split_name(name: &str, letter: char, n: u64) -> String {
    format!("{}-{letter}{n:03}.vmdk", base_name(name))
}

const MONOLITHIC_SPARSE: &str = "monolithicSparse";
const SPLIT_SPARSE: &str = "twoGbMaxExtentSparse";
/// Sectors of a piece of a split disk, 2047 MiB.
const PIECE: u64 = 4_192_256;
/// Pieces that a split disk has at most.
const MOST_PIECES: u64 = 512;
/// Bytes that a file name may have on the file systems of Linux.
const LONGEST_NAME: usize = 255;
/// What the lock of a disk adds to its name.
const LOCK_SUFFIX: usize = 4;
/// The largest disk of VMware, 62 TiB.
const MAX_CAPACITY: u64 = 62 << 31;
/// The content id of a disk that nobody has written to.
const EMPTY_DISK_CID: u32 = 0xffff_fffe;

/// A size that a disk can have.
pub fn check_capacity(capacity: Sectors) -> Result<()> {
    if (1..=MAX_CAPACITY).contains(&capacity.0) {
        return Ok(());
    }
    let message = format!("a disk has 1 to {MAX_CAPACITY} sectors, asked for {}", capacity.0);
    Err(Error::new(ErrorKind::InvalidArgument, message))
}

fn check(name: &str, capacity: Sectors) -> Result<()> {
    check_name(name)?;
    check_capacity(capacity)
}

/// A layout whose names a file system can hold, that of the lock beside the disk included: a disk that cannot be locked
/// cannot be written to.
fn checked(files: Vec<NewFile>) -> Result<Layout> {
    let longest = files.iter().map(|file| file.name.as_str()).max_by_key(|name| name.len());
    let last = files.last().map(|file| file.name.as_str());
    if let Some(name) = longest.filter(|name| name.len() > LONGEST_NAME) {
        let message = format!("{name:?} has {} bytes, {LONGEST_NAME} are possible", name.len());
        return Err(Error::new(ErrorKind::NameTooLong, message));
    }
    check_length(last.unwrap_or_default())?;
    Ok(Layout { files })
}

/// A name that is not too long for a disk and the lock beside it.
pub fn check_length(name: &str) -> Result<()> {
    let len = name.len() + LOCK_SUFFIX;
    if len > LONGEST_NAME {
        let message =
            format!("with its lock the disk needs a name of {len} bytes, {LONGEST_NAME} are possible");
        return Err(Error::new(ErrorKind::NameTooLong, message));
    }
    Ok(())
}

/// A name that a descriptor can hold and that leads to its own folder.
pub fn check_name(name: &str) -> Result<()> {
    let bad = |c: char| matches!(c, '"' | '/' | '\n' | '\r' | '\0');
    if name.is_empty() || name == "." || name == ".." || name.contains(bad) {
        return Err(Error::new(ErrorKind::NameInvalid, format!("{name:?} cannot be the name of a disk")));
    }
    Ok(())
}

/// The name without `.vmdk`.
pub fn base_name(name: &str) -> &str {
    match name.len().checked_sub(5).and_then(|at| name.split_at_checked(at)) {
        Some((base, end)) if !base.is_empty() && end.eq_ignore_ascii_case(".vmdk") => base,
        _ => name,
    }
}
