//! Numbers, structures and signatures of the interface, written from its description.

use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;

/// Codes the tests name.
pub mod code {
    #![allow(missing_docs)]
    pub const OK: u64 = 0;
    pub const OUT_OF_MEMORY: u64 = 2;
    pub const OBJECT_NOT_FOUND: u64 = 2000;
    pub const PERMISSIONS: u64 = 3014;
    pub const SESSION: u64 = 3047;
    pub const MACHINE_NOT_FOUND: u64 = 4000;
    pub const OPERATION_DISABLED: u64 = 20005;
    pub const BUSY: u64 = 5;
    pub const FAIL: u64 = 1;
    pub const INVALID_ARG: u64 = 3;
    pub const FILE_NOT_FOUND: u64 = 4;
    pub const NOT_SUPPORTED: u64 = 6;
    pub const FILE_ERROR: u64 = 7;
    pub const DISK_FULL: u64 = 8;
    pub const FILE_READ_ONLY: u64 = 11;
    pub const ALREADY_EXISTS: u64 = 12;
    pub const ACCESS_ERROR: u64 = 13;
    pub const ALREADY_LOCKED: u64 = 15;
    pub const NAME_INVALID: u64 = 22;
    pub const FILE_TOO_BIG: u64 = 21;
    pub const NAME_TOO_LONG: u64 = 20004;
    pub const BUFFER_TOO_SMALL: u64 = 24;
    pub const INVALID_HANDLE: u64 = 1000;
    pub const REMOTE_OBJECT: u64 = 20;
    pub const END_OF_FILE: u64 = 14005;
    pub const HANDSHAKE: u64 = 14006;
    pub const SERVER_NOT_FOUND: u64 = 14008;
    pub const CONN_REFUSED: u64 = 14009;
    pub const SOCKET_ERROR: u64 = 14010;
    pub const CONN_LOST: u64 = 14011;
    pub const HOST_NOT_AVAILABLE: u64 = 14015;
    pub const NOINIT: u64 = 16001;
    pub const NEEDS_REPAIR: u64 = 16006;
    pub const OUT_OF_RANGE: u64 = 16007;
    pub const CID_MISMATCH: u64 = 16008;
    pub const UNSUPPORTED_VERSION: u64 = 16011;
    pub const OPEN_PARENT: u64 = 16012;
    pub const DISK_NOT_SUPPORTED: u64 = 16013;
    pub const TOO_MANY_LINKS: u64 = 16028;
    pub const INVALID_CHAIN: u64 = 16030;
    pub const KEY_NOT_FOUND: u64 = 16052;
    pub const INVALID_CONNECTION: u64 = 16054;
    pub const CORRUPT: u64 = 16062;
    pub const INVALID_DISK: u64 = 16063;
    pub const PARTIAL_CHAIN: u64 = 16003;
    pub const CAPACITY_MISMATCH: u64 = 16067;
    pub const PARENT_NOT_ALLOWED: u64 = 16068;
    pub const ATTACH_ROOT_LINK: u64 = 16069;
    pub const ASYNC: u64 = 25000;
}

/// Open flags.
pub mod flags {
    #![allow(missing_docs)]
    pub const READ_WRITE: u32 = 0;
    pub const UNBUFFERED: u32 = 1;
    pub const SINGLE_LINK: u32 = 2;
    pub const READ_ONLY: u32 = 4;
    pub const ZLIB: u32 = 16;
    pub const FASTLZ: u32 = 32;
    pub const SKIPZ: u32 = 64;
}

/// A kind of disk to create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// One growing file.
    Sparse = 1,
    /// One preallocated file.
    Flat = 2,
    /// Growing files of 2 GB.
    SplitSparse = 3,
    /// Preallocated files of 2 GB.
    SplitFlat = 4,
    /// ESX thick.
    VmfsFlat = 5,
    /// Compressed.
    Stream = 6,
    /// ESX thin.
    VmfsThin = 7,
    /// ESX delta.
    VmfsSparse = 8,
}

/// Adapters.
pub mod adapter {
    #![allow(missing_docs)]
    pub const IDE: u32 = 1;
    pub const BUSLOGIC: u32 = 2;
    pub const LSILOGIC: u32 = 3;
    pub const UNKNOWN: u32 = 256;
}

/// Geometry as the interface has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Geometry {
    /// Cylinders.
    pub cylinders: u32,
    /// Heads.
    pub heads: u32,
    /// Sectors per track.
    pub sectors: u32,
}

#[repr(C)]
pub(super) struct RawInfo {
    pub(super) bios: Geometry,
    pub(super) physical: Geometry,
    pub(super) capacity: u64,
    pub(super) adapter: u32,
    pub(super) links: c_int,
    pub(super) parent: *const c_char,
    pub(super) uuid: *const c_char,
    pub(super) logical_sector: u32,
    pub(super) physical_sector: u32,
}

#[repr(C)]
pub(super) struct RawBlockList {
    pub(super) count: u32,
    pub(super) blocks: [[u64; 2]; 1],
}

#[repr(C)]
pub(super) struct CreateParams {
    pub(super) kind: u32,
    pub(super) adapter: u32,
    pub(super) hw_version: u16,
    pub(super) capacity: u64,
    pub(super) logical_sector: u32,
    pub(super) physical_sector: u32,
}

/// What a disk says about itself, copied out of the library's block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Geometry the BIOS shows.
    pub bios: Geometry,
    /// The disk's geometry.
    pub physical: Geometry,
    /// Sectors.
    pub capacity: u64,
    /// Adapter.
    pub adapter: u32,
    /// Links in the chain.
    pub links: i32,
    /// The parent's name.
    pub parent: Option<String>,
    /// The uuid.
    pub uuid: Option<String>,
    /// Logical and physical sector size.
    pub sector_sizes: (u32, u32),
}

/// What a disk to create is made of.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The kind.
    pub kind: Kind,
    /// Its size in sectors.
    pub capacity: u64,
    /// The adapter.
    pub adapter: u32,
    /// The hardware version.
    pub hw_version: u16,
    /// Logical and physical sector size; 0 for those who do not say.
    pub sector_sizes: (u32, u32),
}

impl Spec {
    pub(super) fn raw(self) -> CreateParams {
        CreateParams {
            kind: self.kind as u32,
            adapter: self.adapter,
            hw_version: self.hw_version,
            capacity: self.capacity,
            logical_sector: self.sector_sizes.0,
            physical_sector: self.sector_sizes.1,
        }
    }

    /// A disk as nbdkit makes it by default: BusLogic, version 4.
    pub fn new(kind: Kind, capacity: u64) -> Self {
        Self { kind, capacity, adapter: adapter::BUSLOGIC, hw_version: 4, sector_sizes: (0, 0) }
    }
}

pub(super) type Handle = *mut c_void;
pub(super) type LogFn = unsafe extern "C" fn(*const c_char, *mut c_void);
pub(super) type ProgressFn = unsafe extern "C" fn(*mut c_void, c_int) -> c_char;
pub(super) type CompletionFn = unsafe extern "C" fn(*mut c_void, u64);
