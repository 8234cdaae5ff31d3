//! The types and constants of the header, laid out as C has them.
//!
//! Enumerations are named types in the header and plain integers here: a caller can pass any value. The aliases that end in
//! `Raw` stand for them in fields and parameters; `cbindgen.toml` turns their names back.
#![allow(non_camel_case_types)]

use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_long;
use std::ffi::c_void;

use crate::abi::va_list::VaList;

/// A code of the error table; 0 is success.
pub type VixError = u64;

/// A truth value: zero is false, anything else is true. Not a Rust `bool`, whose other values are undefined.
pub type Bool = c_char;

/// Sectors of 512 bytes: a position or a number.
pub type VixDiskLibSectorType = u64;

/// Bytes in a sector: the unit of every sector argument, also on disks with sectors of 4096 bytes.
pub const VIXDISKLIB_SECTOR_SIZE: i32 = 512;

/// Smallest chunk of an allocation query, in sectors.
pub const VIXDISKLIB_MIN_CHUNK_SIZE: i32 = 128;
/// Largest documented chunk of an allocation query, in sectors. Larger ones are accepted.
pub const VIXDISKLIB_MAX_CHUNK_SIZE: i32 = 131_072;
/// Most chunks in one allocation query.
pub const VIXDISKLIB_MAX_CHUNK_NUMBER: i32 = 524_288;

/// Open without the host's file cache.
pub const VIXDISKLIB_FLAG_OPEN_UNBUFFERED: i32 = 1 << 0;
/// Open only the named link of a chain, without its parents.
pub const VIXDISKLIB_FLAG_OPEN_SINGLE_LINK: i32 = 1 << 1;
/// Open for reading only.
pub const VIXDISKLIB_FLAG_OPEN_READ_ONLY: i32 = 1 << 2;
/// Compress network transfers with zlib. No effect on local disks.
pub const VIXDISKLIB_FLAG_OPEN_COMPRESSION_ZLIB: i32 = 1 << 4;
/// Compress network transfers with FastLZ. No effect on local disks.
pub const VIXDISKLIB_FLAG_OPEN_COMPRESSION_FASTLZ: i32 = 1 << 5;
/// Leave zero blocks out of network transfers. No effect on local disks.
pub const VIXDISKLIB_FLAG_OPEN_COMPRESSION_SKIPZ: i32 = 1 << 6;
/// The bits that belong to compression; at most one of them may be set.
pub const VIXDISKLIB_FLAG_OPEN_COMPRESSION_MASK: i32 = 0x3f0;

/// Virtual hardware of Workstation 4.
pub const VIXDISKLIB_HWVERSION_WORKSTATION_4: i32 = 3;
/// Virtual hardware of Workstation 5.
pub const VIXDISKLIB_HWVERSION_WORKSTATION_5: i32 = 4;
/// Virtual hardware of Workstation 6.
pub const VIXDISKLIB_HWVERSION_WORKSTATION_6: i32 = 6;
/// Virtual hardware of ESX 3.0.
pub const VIXDISKLIB_HWVERSION_ESX30: i32 = 4;
/// Virtual hardware of ESX 4.x.
pub const VIXDISKLIB_HWVERSION_ESX4X: i32 = 7;
/// Virtual hardware of ESXi 5.0.
pub const VIXDISKLIB_HWVERSION_ESX50: i32 = 8;
/// Virtual hardware of ESXi 5.1.
pub const VIXDISKLIB_HWVERSION_ESX51: i32 = 9;
/// Virtual hardware of ESXi 5.5.
pub const VIXDISKLIB_HWVERSION_ESX55: i32 = 10;
/// Virtual hardware of ESXi 6.0.
pub const VIXDISKLIB_HWVERSION_ESX60: i32 = 11;
/// Virtual hardware of ESXi 6.5.
pub const VIXDISKLIB_HWVERSION_ESX65: i32 = 13;
/// The newest virtual hardware with a name here.
pub const VIXDISKLIB_HWVERSION_CURRENT: i32 = 13;

/// Kinds of virtual disks.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum VixDiskLibDiskType {
    /// One growing file.
    VIXDISKLIB_DISK_MONOLITHIC_SPARSE = 1,
    /// One preallocated file.
    VIXDISKLIB_DISK_MONOLITHIC_FLAT = 2,
    /// Growing files of 2 GB.
    VIXDISKLIB_DISK_SPLIT_SPARSE = 3,
    /// Preallocated files of 2 GB.
    VIXDISKLIB_DISK_SPLIT_FLAT = 4,
    /// ESX, thick.
    VIXDISKLIB_DISK_VMFS_FLAT = 5,
    /// Compressed, written in sequence.
    VIXDISKLIB_DISK_STREAM_OPTIMIZED = 6,
    /// ESX, thin.
    VIXDISKLIB_DISK_VMFS_THIN = 7,
    /// ESX, sparse.
    VIXDISKLIB_DISK_VMFS_SPARSE = 8,
    /// Something else.
    VIXDISKLIB_DISK_UNKNOWN = 256,
}

/// Virtual adapters that a disk can be made for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum VixDiskLibAdapterType {
    /// IDE.
    VIXDISKLIB_ADAPTER_IDE = 1,
    /// SCSI, BusLogic.
    VIXDISKLIB_ADAPTER_SCSI_BUSLOGIC = 2,
    /// SCSI, LSI Logic.
    VIXDISKLIB_ADAPTER_SCSI_LSILOGIC = 3,
    /// Something else.
    VIXDISKLIB_ADAPTER_UNKNOWN = 256,
}

/// Ways to log in to a server.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum VixDiskLibCredType {
    /// User name and password.
    VIXDISKLIB_CRED_UID = 1,
    /// The cookie of a session that exists already.
    VIXDISKLIB_CRED_SESSIONID = 2,
    /// A ticket; not supported.
    VIXDISKLIB_CRED_TICKETID = 3,
    /// The login of the Windows user; not supported.
    VIXDISKLIB_CRED_SSPI = 4,
    /// Not said.
    VIXDISKLIB_CRED_UNKNOWN = 256,
}

/// What the `spec` of connection parameters holds.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum VixDiskLibSpecType {
    /// Nothing: the disks are those of `vmxSpec`.
    VIXDISKLIB_SPEC_VMX = 0,
    /// A first class disk.
    VIXDISKLIB_SPEC_VSTORAGE_OBJECT = 1,
    /// A folder of a datastore.
    VIXDISKLIB_SPEC_DATASTORE = 2,
    /// Not said.
    VIXDISKLIB_SPEC_UNKNOWN = 256,
}

/// A [`VixDiskLibDiskType`] as a caller passes it.
pub type DiskTypeRaw = u32;
/// A [`VixDiskLibAdapterType`] as a caller passes it.
pub type AdapterTypeRaw = u32;
/// A [`VixDiskLibCredType`] as a caller passes it.
pub type CredTypeRaw = u32;
/// A [`VixDiskLibSpecType`] as a caller passes it.
pub type SpecTypeRaw = u32;

/// What a connection handle points to. Nothing: handles are numbers that only look like pointers.
pub struct VixDiskLibConnectionStruct {
    _never: (),
}

/// What a disk handle points to. Nothing: handles are numbers that only look like pointers.
pub struct VixDiskLibHandleStruct {
    _never: (),
}

/// A connection made by VixDiskLib_Connect or VixDiskLib_ConnectEx.
pub type VixDiskLibConnection = *mut VixDiskLibConnectionStruct;

/// A disk opened by VixDiskLib_Open.
pub type VixDiskLibHandle = *mut VixDiskLibHandleStruct;

/// A message function: `printf` format and arguments.
pub type LogFunc = Option<unsafe extern "C" fn(fmt: *const c_char, args: *mut VaList)>;

/// Told how far a long operation is, 0 to 100, on the calling thread. The result is ignored.
pub type VixDiskLibProgressFunc =
    Option<unsafe extern "C" fn(progressData: *mut c_void, percentCompleted: c_int) -> Bool>;

/// Told that an asynchronous request is done, on any thread, possibly before the request's call has returned. The buffer
/// and `cbData` are not touched afterwards.
pub type VixDiskLibCompletionCB = Option<unsafe extern "C" fn(cbData: *mut c_void, result: VixError)>;

/// Cylinders, heads and sectors per track.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VixDiskLibGeometry {
    /// Cylinders.
    pub cylinders: u32,
    /// Heads.
    pub heads: u32,
    /// Sectors per track.
    pub sectors: u32,
}

/// What a new disk shall be.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VixDiskLibCreateParams {
    /// Kind of disk.
    pub diskType: DiskTypeRaw,
    /// Adapter it is made for.
    pub adapterType: AdapterTypeRaw,
    /// Virtual hardware version, any number.
    pub hwVersion: u16,
    /// Size in sectors.
    pub capacity: VixDiskLibSectorType,
    /// 512 or 4096; anything else means 512.
    pub logicalSectorSize: u32,
    /// 512 or 4096; anything else means 512.
    pub physicalSectorSize: u32,
}

/// Login by user name and password.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct VixDiskLibUidPasswdCreds {
    /// User.
    pub userName: *mut c_char,
    /// Password.
    pub password: *mut c_char,
}

/// Login by the cookie of an existing session.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct VixDiskLibSessionIdCreds {
    /// Value of the server's session cookie.
    pub cookie: *mut c_char,
    /// User; not needed for the login.
    pub userName: *mut c_char,
    /// Key; not needed for the login.
    pub key: *mut c_char,
}

/// What a ticket points to; not supported.
pub struct VixDiskLibTicketIdCreds {
    _never: (),
}

/// One of the ways to log in; `credType` says which.
#[repr(C)]
#[derive(Clone, Copy)]
pub union VixDiskLibCreds {
    /// For VIXDISKLIB_CRED_UID.
    pub uid: VixDiskLibUidPasswdCreds,
    /// For VIXDISKLIB_CRED_SESSIONID.
    pub sessionId: VixDiskLibSessionIdCreds,
    /// For VIXDISKLIB_CRED_TICKETID.
    pub ticketId: *mut VixDiskLibTicketIdCreds,
}

/// A first class disk.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct VixDiskLibVStorageObjectSpec {
    /// UUID of the disk.
    pub id: *mut c_char,
    /// Managed object id of its datastore.
    pub datastoreMoRef: *mut c_char,
    /// UUID of a snapshot of it, or NULL.
    pub ssId: *mut c_char,
}

/// A folder of a datastore.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct VixDiskLibDatastoreSpec {
    /// Managed object id of the datastore.
    pub datastoreMoRef: *mut c_char,
    /// Folder that disk paths are relative to.
    pub diskFolder: *mut c_char,
}

/// Which disks the connection is for; `specType` says which member counts.
#[repr(C)]
#[derive(Clone, Copy)]
pub union VixDiskLibDiskSpec {
    /// For VIXDISKLIB_SPEC_VSTORAGE_OBJECT.
    pub vStorageObjSpec: VixDiskLibVStorageObjectSpec,
    /// For VIXDISKLIB_SPEC_DATASTORE.
    pub dsSpec: VixDiskLibDatastoreSpec,
}

/// Library state next to connection parameters.
pub struct VixDiskLibConnectParamsState {
    _never: (),
}

/// Where to connect to. All zero, or NULL in place of a pointer to it, means local disks. Take it from
/// VixDiskLib_AllocateConnectParams: members after `vimApiVer` are looked at only in structures that come from there.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct VixDiskLibConnectParams {
    /// The virtual machine: "moref=vm-12".
    pub vmxSpec: *mut c_char,
    /// Host name or address of vCenter or ESXi; NULL or empty for local disks.
    pub serverName: *mut c_char,
    /// Fingerprint of the server's certificate, "AB:CD:...".
    pub thumbPrint: *mut c_char,
    /// Ignored.
    pub privateUse: c_long,
    /// Which member of `creds` counts.
    pub credType: CredTypeRaw,
    /// Login.
    pub creds: VixDiskLibCreds,
    /// Port of the server, 0 for the default.
    pub port: u32,
    /// Port for disk traffic, 0 for the default.
    pub nfcHostPort: u32,
    /// Not used.
    pub vimApiVer: *mut c_char,
    /// The library's own.
    pub reserved: [c_char; 8],
    /// The library's own.
    pub state: *mut VixDiskLibConnectParamsState,
    /// Which disks, when there is no `vmxSpec`.
    pub spec: VixDiskLibDiskSpec,
    /// Which member of `spec` counts.
    pub specType: SpecTypeRaw,
}

/// What a disk says about itself.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct VixDiskLibInfo {
    /// Geometry that the BIOS shows; zeros when the disk does not say.
    pub biosGeo: VixDiskLibGeometry,
    /// Geometry of the disk.
    pub physGeo: VixDiskLibGeometry,
    /// Size in sectors.
    pub capacity: VixDiskLibSectorType,
    /// Adapter it was made for.
    pub adapterType: AdapterTypeRaw,
    /// Links in the opened chain, 1 for a disk without parent.
    pub numLinks: c_int,
    /// Name of the parent as the disk has it, or NULL.
    pub parentFileNameHint: *mut c_char,
    /// Identity of the disk, or NULL.
    pub uuid: *mut c_char,
    /// 512 or 4096.
    pub logicalSectorSize: u32,
    /// 512 or 4096.
    pub physicalSectorSize: u32,
}

/// A range of sectors.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VixDiskLibBlock {
    /// First sector.
    pub offset: u64,
    /// Number of sectors.
    pub length: u64,
}

/// Ranges of sectors, ascending and disjoint.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VixDiskLibBlockList {
    /// How many there are; 0 is possible.
    pub numBlocks: u32,
    /// The first of them; the others follow.
    pub blocks: [VixDiskLibBlock; 1],
}

const _: () = {
    assert!(size_of::<VixDiskLibCreateParams>() == 32);
    assert!(size_of::<VixDiskLibConnectParams>() == 128);
    assert!(size_of::<VixDiskLibInfo>() == 64);
    assert!(size_of::<VixDiskLibBlockList>() == 24);
};
