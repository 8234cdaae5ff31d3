//! What a new disk is made of: pure functions from a specification to names and bytes. Nothing here writes.

use crate::error::{Error, ErrorKind, Result};
use crate::format::ddb;
use crate::format::descriptor::Descriptor;
use crate::format::descriptor::ExtentAccess;
use crate::format::descriptor::ExtentKind;
use crate::format::descriptor::ExtentLine;
use crate::format::geometry::Adapter;
use crate::units::SECTOR;
use crate::units::Sectors;

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

/// One file that holds the descriptor and grows with the data. `name` is its name without folder.
pub fn monolithic_sparse(spec: &CreateSpec, name: &str, identity: &NewIdentity) -> Result<Layout> {
    check_name(name)?;
    check_capacity(spec.capacity)?;
    let extent = ExtentLine {
        access: ExtentAccess::ReadWrite,
        sectors: spec.capacity,
        kind: ExtentKind::Sparse,
        name: Some(name.to_owned()),
        offset: Sectors(0),
    };
    let text = descriptor_text(spec, "monolithicSparse", &[extent], identity)?;
    Ok(Layout { files: vec![sparse_file(spec.capacity, name, Some(&text))?] })
}

/// A descriptor called `name` and a file of the disk's size called `..-flat.vmdk`.
pub fn monolithic_flat(spec: &CreateSpec, name: &str, identity: &NewIdentity) -> Result<Layout> {
    check_name(name)?;
    check_capacity(spec.capacity)?;
    let flat = format!("{}-flat.vmdk", base_name(name));
    let extent = ExtentLine {
        access: ExtentAccess::ReadWrite,
        sectors: spec.capacity,
        kind: ExtentKind::Flat,
        name: Some(flat.clone()),
        offset: Sectors(0),
    };
    let text = descriptor_text(spec, "monolithicFlat", &[extent], identity)?;
    let data = NewFile { name: flat, len: spec.capacity.bytes()?, pieces: Vec::new(), preallocate: true };
    let len = text.len() as u64;
    let pieces = vec![Piece { offset: 0, bytes: text }];
    let descriptor = NewFile { name: name.to_owned(), len, pieces, preallocate: false };
    Ok(Layout { files: vec![data, descriptor] })
}

/// The descriptor of a base disk, in the order and spelling of VMware. The comment in front of the extents is needed: QEMU
/// counts an extent twice that follows an empty line.
pub fn descriptor_text(
    spec: &CreateSpec,
    create_type: &str,
    extents: &[ExtentLine],
    identity: &NewIdentity,
) -> Result<Vec<u8>> {
    let mut text = String::from("# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\n");
    text += &format!("CID={:08x}\nparentCID=ffffffff\ncreateType=\"{create_type}\"\n", identity.cid);
    text += "\n# Extent description\n";
    for extent in extents {
        text += &extent.to_line();
        text.push('\n');
    }
    text += "\n# The Disk Data Base \n#DDB\n\n";
    for (key, value) in ddb::new_disk(spec, identity) {
        text += &format!("ddb.{key} = \"{value}\"\n");
    }
    // Whatever was put in must come out of it again.
    let descriptor = Descriptor::parse(text.as_bytes())?;
    if descriptor.extents() != extents {
        return Err(Error::new(ErrorKind::Internal, "the new descriptor does not say what it was made from"));
    }
    Ok(text.into_bytes())
}

/// A hosted sparse file without data: header, descriptor, the redundant and the primary directory with all their tables.
/// The tables are zeros and therefore no pieces.
fn sparse_file(capacity: Sectors, name: &str, descriptor: Option<&[u8]>) -> Result<NewFile> {
    let places = SparsePlaces::new(capacity, descriptor.is_some())?;
    let mut pieces = vec![Piece { offset: 0, bytes: places.header(capacity).to_vec() }];
    if let Some(text) = descriptor {
        let room = DESCRIPTOR_SECTORS * SECTOR;
        if text.len() as u64 > room {
            let message = format!("the descriptor has {} bytes, the file has room for {room}", text.len());
            return Err(Error::new(ErrorKind::NameTooLong, message));
        }
        pieces.push(Piece { offset: SECTOR, bytes: text.to_vec() });
    }
    for directory in [places.redundant, places.primary] {
        pieces.push(Piece { offset: directory * SECTOR, bytes: places.directory(directory)? });
    }
    Ok(NewFile { name: name.to_owned(), len: places.overhead * SECTOR, pieces, preallocate: false })
}

/// Where the parts of a hosted sparse file stand, in sectors.
#[derive(Debug)]
struct SparsePlaces {
    descriptor: bool,
    tables: u64,
    /// Length of a directory.
    directory_sectors: u64,
    redundant: u64,
    primary: u64,
    overhead: u64,
}

impl SparsePlaces {
    fn new(capacity: Sectors, descriptor: bool) -> Result<SparsePlaces> {
        let grains = capacity.0.div_ceil(GRAIN);
        let tables = grains.div_ceil(ENTRIES);
        let directory_sectors = (tables * 4).div_ceil(SECTOR);
        let redundant = if descriptor { 1 + DESCRIPTOR_SECTORS } else { 1 };
        let primary = redundant + directory_sectors + tables * TABLE_SECTORS;
        let end = primary + directory_sectors + tables * TABLE_SECTORS;
        let overhead = end.next_multiple_of(GRAIN);
        if overhead + grains * GRAIN > ADDRESSABLE {
            let message = format!(
                "a sparse file can address {ADDRESSABLE} sectors, a disk of {} needs {}",
                capacity.0,
                overhead + grains * GRAIN
            );
            return Err(Error::new(ErrorKind::FileTooBig, message));
        }
        Ok(SparsePlaces { descriptor, tables, directory_sectors, redundant, primary, overhead })
    }

    fn header(&self, capacity: Sectors) -> [u8; 512] {
        let (descriptor, descriptor_sectors) = if self.descriptor { (1, DESCRIPTOR_SECTORS) } else { (0, 0) };
        let mut header = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"KDMV");
        put(4, &1u32.to_le_bytes()); // version
        put(8, &FLAGS.to_le_bytes());
        put(12, &capacity.0.to_le_bytes());
        put(20, &GRAIN.to_le_bytes());
        put(28, &u64::to_le_bytes(descriptor));
        put(36, &descriptor_sectors.to_le_bytes());
        put(44, &512u32.to_le_bytes()); // entries of a table
        put(48, &self.redundant.to_le_bytes());
        put(56, &self.primary.to_le_bytes());
        put(64, &self.overhead.to_le_bytes());
        put(72, &[0]); // not being written
        put(73, b"\n \r\n"); // shows whether a text-mode copy mangled the file
        header
    }

    /// The directory at sector `at`: the sectors of its tables, which follow it.
    fn directory(&self, at: u64) -> Result<Vec<u8>> {
        let first = at + self.directory_sectors;
        let sector_of = |table| u32::try_from(first + table * TABLE_SECTORS).ok();
        let entries: Option<Vec<[u8; 4]>> =
            (0..self.tables).map(|table| sector_of(table).map(u32::to_le_bytes)).collect();
        let entries = entries.ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("{} tables do not fit in 32-bit sectors", self.tables))
        })?;
        Ok(entries.concat())
    }
}

/// Sectors of a grain in everything VMware writes.
const GRAIN: u64 = 128;
/// Entries of a grain table.
const ENTRIES: u64 = 512;
/// Sectors of a grain table.
const TABLE_SECTORS: u64 = 4;
/// Sectors that are kept for an embedded descriptor.
const DESCRIPTOR_SECTORS: u64 = 20;
/// Line-end check bytes are valid, and there is a redundant directory.
const FLAGS: u32 = 3;
/// Table entries are 32-bit sector numbers.
const ADDRESSABLE: u64 = 1 << 32;
/// The largest disk of VMware, 62 TiB.
const MAX_CAPACITY: u64 = 62 << 31;
/// The content id of a disk that nobody has written to.
const EMPTY_DISK_CID: u32 = 0xffff_fffe;

fn check_capacity(capacity: Sectors) -> Result<()> {
    if (1..=MAX_CAPACITY).contains(&capacity.0) {
        return Ok(());
    }
    let message = format!("a disk has 1 to {MAX_CAPACITY} sectors, asked for {}", capacity.0);
    Err(Error::new(ErrorKind::InvalidArgument, message))
}

/// A name that a descriptor can hold and that leads to its own folder.
fn check_name(name: &str) -> Result<()> {
    let bad = |c: char| matches!(c, '"' | '/' | '\n' | '\r' | '\0');
    if name.is_empty() || name == "." || name == ".." || name.contains(bad) {
        return Err(Error::new(ErrorKind::NameInvalid, format!("{name:?} cannot be the name of a disk")));
    }
    Ok(())
}

/// The name without `.vmdk`.
fn base_name(name: &str) -> &str {
    match name.len().checked_sub(5).and_then(|at| name.split_at_checked(at)) {
        Some((base, end)) if !base.is_empty() && end.eq_ignore_ascii_case(".vmdk") => base,
        _ => name,
    }
}
