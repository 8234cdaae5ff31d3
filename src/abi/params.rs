//! Connection parameters: which bytes of a caller's structure exist, what they mean, and who owns copies.
//!
//! Programs built for older headers pass shorter structures, and nothing in them says so. Only structures that came from the
//! library are read to the end; of others the first 72 bytes exist, whatever the age of the program. What is not needed to
//! decide is not read: in the oldest layout a member may hold something that is not the pointer it should be.

use std::ffi::c_char;
use std::ptr;

use crate::abi::args;
use crate::abi::give;
use crate::abi::register::REGISTER;
use crate::abi::types::VixDiskLibConnectParams;
use crate::abi::types::VixDiskLibCreds;
use crate::abi::types::VixDiskLibDatastoreSpec;
use crate::abi::types::VixDiskLibDiskSpec;
use crate::abi::types::VixDiskLibSessionIdCreds;
use crate::abi::types::VixDiskLibUidPasswdCreds;
use crate::abi::types::VixDiskLibVStorageObjectSpec;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::session::ConnectParams;
use crate::session::Credentials;
use crate::session::DiskSpec;

/// The first interface version whose structures have `nfcHostPort` rather than padding.
const NFC_PORT_SINCE: u32 = 6;

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, what)
}

/// Reads one member, without assuming alignment or that the rest of the structure exists.
macro_rules! member {
    ($params:expr, $($name:tt)+) => {
        // SAFETY: the member lies in the part of the structure that its kind has; see `Source`.
        unsafe { (&raw const (*$params).$($name)+).read_unaligned() }
    };
}

/// Copies one string of the structure.
macro_rules! string {
    ($params:expr, $($name:tt)+) => {{
        let pointer = member!($params, $($name)+);
        // SAFETY: the caller promises that members which its other members call for are terminated strings or NULL.
        unsafe { args::text(pointer, stringify!($($name)+)) }
    }};
}

type Source = *const VixDiskLibConnectParams;

/// A copy of everything a caller says. NULL means local disks. `declared` is the interface version it was written for.
///
/// # Safety
/// `params` is NULL or points to at least 72 bytes of a connection parameter structure whose strings are terminated, or to a
/// whole one that came from this library.
pub unsafe fn read(params: Source, declared: u32) -> Result<ConnectParams> {
    if params.is_null() {
        return Ok(ConnectParams::default());
    }
    let whole = REGISTER.knows(params.addr());
    let mut read = ConnectParams {
        vmx_spec: string!(params, vmxSpec)?,
        server: string!(params, serverName)?,
        port: port(member!(params, port))?,
        nfc_port: nfc_port(member!(params, nfcHostPort), whole, declared)?,
        ..ConnectParams::default()
    };
    let remote = !is_empty(&read.server);
    // An NBD server has neither machines nor logins.
    let logs_in = remote && read.nbd_server()?.is_none();
    if whole && logs_in {
        // Next to a machine it says more about the disks; whatever it says wrong counts for nothing then.
        match disk_spec(params) {
            Err(e) if is_empty(&read.vmx_spec) => return Err(e),
            spec => read.disk = spec.unwrap_or_default(),
        }
    }
    if whole || remote || !is_empty(&read.vmx_spec) {
        read.thumbprint = string!(params, thumbPrint)?;
        read.credentials = credentials(params, logs_in)?;
    }
    Ok(read)
}

fn is_empty(text: &Option<String>) -> bool {
    text.as_deref().is_none_or(str::is_empty)
}

fn port(raw: u32) -> Result<u32> {
    if raw > 65535 { Err(invalid(format!("port {raw} is none"))) } else { Ok(raw) }
}

fn nfc_port(raw: u32, whole: bool, declared: u32) -> Result<u32> {
    match raw {
        _ if whole => port(raw),
        1..=65535 if declared >= NFC_PORT_SINCE => Ok(raw),
        _ => Ok(0),
    }
}

fn credentials(params: Source, needed: bool) -> Result<Credentials> {
    let user = || -> Result<Credentials> {
        Ok(Credentials::User {
            name: string!(params, creds.uid.userName)?.unwrap_or_default(),
            password: string!(params, creds.uid.password)?.unwrap_or_default().into(),
        })
    };
    match member!(params, credType) {
        1 => user(),
        2 => Ok(Credentials::Session {
            cookie: string!(params, creds.sessionId.cookie)?.unwrap_or_default().into(),
            name: string!(params, creds.sessionId.userName)?.unwrap_or_default(),
            key: string!(params, creds.sessionId.key)?.unwrap_or_default().into(),
        }),
        _ if !needed => Ok(Credentials::None),
        3 => Err(Error::new(ErrorKind::NotSupported, "login by ticket is not supported")),
        4 => Err(Error::new(
            ErrorKind::NotSupported,
            "login as the Windows user is not supported on this system",
        )),
        0 | 256 if !member!(params, creds.uid.userName).is_null() => user(),
        other => Err(invalid(format!("credType {other} is no way to log in"))),
    }
}

fn disk_spec(params: Source) -> Result<DiskSpec> {
    let needed = |value: Option<String>, name: &str| match value {
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(invalid(format!("{name} is missing"))),
    };
    match member!(params, specType) {
        0 => Ok(DiskSpec::Machine),
        1 => Ok(DiskSpec::FirstClassDisk {
            id: needed(string!(params, spec.vStorageObjSpec.id)?, "the id of the first class disk")?,
            datastore: needed(string!(params, spec.vStorageObjSpec.datastoreMoRef)?, "its datastore")?,
            snapshot: string!(params, spec.vStorageObjSpec.ssId)?.filter(|id| !id.is_empty()),
        }),
        2 => Ok(DiskSpec::Datastore {
            datastore: needed(string!(params, spec.dsSpec.datastoreMoRef)?, "the datastore")?,
            folder: needed(string!(params, spec.dsSpec.diskFolder)?, "the folder of the datastore")?,
        }),
        other => Err(invalid(format!("specType {other} is none"))),
    }
}

/// A zeroed structure; its strings will be the caller's.
pub fn allocate() -> Result<*mut VixDiskLibConnectParams> {
    let block = give::zeroed(size_of::<VixDiskLibConnectParams>())?.cast::<VixDiskLibConnectParams>();
    REGISTER.enter(block.addr(), Vec::new());
    Ok(block)
}

/// A structure of its own with copies of everything.
pub fn copy(of: &ConnectParams) -> Result<*mut VixDiskLibConnectParams> {
    let block = allocate()?;
    let mut strings = Vec::new();
    let filled = fill(of, &mut strings);
    REGISTER.enter(block.addr(), strings);
    match filled {
        Ok(params) => {
            // SAFETY: made by `allocate` just now, with room for the structure and aligned for it.
            unsafe { block.write(params) };
            Ok(block)
        }
        Err(e) => {
            release(block);
            Err(e)
        }
    }
}

fn fill(of: &ConnectParams, made: &mut Vec<usize>) -> Result<VixDiskLibConnectParams> {
    let mut give = |text: Option<&str>| -> Result<*mut c_char> {
        let Some(text) = text else { return Ok(ptr::null_mut()) };
        let string = give::string(text)?;
        made.push(string.expose_provenance());
        Ok(string)
    };
    let nothing =
        VixDiskLibSessionIdCreds { cookie: ptr::null_mut(), userName: ptr::null_mut(), key: ptr::null_mut() };
    let (cred_type, creds) = match &of.credentials {
        Credentials::None => (0, VixDiskLibCreds { sessionId: nothing }),
        Credentials::User { name, password } => {
            let uid = VixDiskLibUidPasswdCreds {
                userName: give(Some(name))?,
                password: give(password.expose_text())?,
            };
            (1, VixDiskLibCreds { uid })
        }
        Credentials::Session { cookie, name, key } => {
            let sessionId = VixDiskLibSessionIdCreds {
                cookie: give(cookie.expose_text())?,
                userName: give(Some(name))?,
                key: give(key.expose_text())?,
            };
            (2, VixDiskLibCreds { sessionId })
        }
    };
    let nowhere = VixDiskLibVStorageObjectSpec {
        id: ptr::null_mut(),
        datastoreMoRef: ptr::null_mut(),
        ssId: ptr::null_mut(),
    };
    let (spec_type, spec) = match &of.disk {
        DiskSpec::Machine => (0, VixDiskLibDiskSpec { vStorageObjSpec: nowhere }),
        DiskSpec::FirstClassDisk { id, datastore, snapshot } => {
            let vStorageObjSpec = VixDiskLibVStorageObjectSpec {
                id: give(Some(id))?,
                datastoreMoRef: give(Some(datastore))?,
                ssId: give(snapshot.as_deref())?,
            };
            (1, VixDiskLibDiskSpec { vStorageObjSpec })
        }
        DiskSpec::Datastore { datastore, folder } => {
            let dsSpec = VixDiskLibDatastoreSpec {
                datastoreMoRef: give(Some(datastore))?,
                diskFolder: give(Some(folder))?,
            };
            (2, VixDiskLibDiskSpec { dsSpec })
        }
    };
    Ok(VixDiskLibConnectParams {
        vmxSpec: give(of.vmx_spec.as_deref())?,
        serverName: give(of.server.as_deref())?,
        thumbPrint: give(of.thumbprint.as_deref())?,
        privateUse: 0,
        credType: cred_type,
        creds,
        port: of.port,
        nfcHostPort: of.nfc_port,
        vimApiVer: ptr::null_mut(),
        reserved: [0; 8],
        state: ptr::null_mut(),
        spec,
        specType: spec_type,
    })
}

/// Frees a structure of this library, and the strings in it that the library made. False for anything else, which is left
/// alone.
#[expect(clippy::not_unsafe_ptr_arg_deref, reason = "a pointer that is not in the register is not followed")]
pub fn release(params: *mut VixDiskLibConnectParams) -> bool {
    let Some(strings) = REGISTER.remove(params.addr()) else { return false };
    for string in strings {
        let string = ptr::with_exposed_provenance_mut::<c_char>(string);
        // SAFETY: made by `fill` for this structure, which is freed once: it was in the register until now. Some of them are
        // secrets, so they do not stay in memory.
        unsafe {
            libc::explicit_bzero(string.cast(), libc::strlen(string));
            give::free(string);
        }
    }
    // SAFETY: made by `allocate`, and out of the register now.
    unsafe { give::free(params) };
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first 72 bytes of a structure at the very end of what exists.
    fn short(server: *const c_char, fill: impl FnOnce(&mut [u64; 9])) -> ConnectParams {
        let mut words = Box::new([0_u64; 9]);
        words[1] = server as u64;
        words[3] = u64::MAX; // privateUse
        fill(&mut words);
        // SAFETY: 72 bytes, and not from this library.
        unsafe { read(words.as_ptr().cast(), 8) }.unwrap()
    }

    #[test]
    fn a_short_structure_is_read_no_further_than_it_goes() {
        let read = short(c"vc.example".as_ptr(), |words| {
            words[4] = 1;
            words[5] = c"user".as_ptr() as u64;
            words[8] = 443 | 902 << 32;
        });
        assert_eq!((read.server.as_deref(), read.port, read.nfc_port), (Some("vc.example"), 443, 902));
        assert!(
            matches!(read.credentials, Credentials::User { name, password } if name == "user" && password.is_empty())
        );
        assert_eq!(read.disk, DiskSpec::Machine);
    }

    #[test]
    fn for_local_disks_nothing_else_is_looked_at() {
        let read = short(c"".as_ptr(), |words| {
            words[2] = 1; // a thumbprint that is no pointer, as the oldest layout has it
            words[4] = 1;
            words[5] = 2;
            words[8] = 0xdead_beef << 32;
        });
        assert!(read.is_local() && read.thumbprint.is_none() && read.nfc_port == 0);
    }

    #[test]
    fn the_login_is_found_out_when_it_is_not_said() {
        let read = short(c"vc".as_ptr(), |words| words[5] = c"user".as_ptr() as u64);
        assert!(matches!(read.credentials, Credentials::User { .. }));
        for (cred_type, kind) in [
            (0, ErrorKind::InvalidArgument),
            (3, ErrorKind::NotSupported),
            (4, ErrorKind::NotSupported),
            (77, ErrorKind::InvalidArgument),
        ] {
            let mut words = [0_u64; 9];
            (words[1], words[4]) = (c"vc".as_ptr() as u64, cred_type);
            // SAFETY: 72 bytes, and not from this library.
            let refused = unsafe { super::read(words.as_ptr().cast(), 8) }.unwrap_err();
            assert_eq!(refused.kind(), kind, "{cred_type}");
        }
    }

    #[test]
    fn a_copy_says_the_same_and_is_freed_once() {
        let original = ConnectParams {
            server: Some("vc".into()),
            thumbprint: Some("AA:BB".into()),
            credentials: Credentials::Session {
                cookie: "c".to_owned().into(),
                name: "n".into(),
                key: "k".to_owned().into(),
            },
            port: 443,
            nfc_port: 903,
            disk: DiskSpec::FirstClassDisk { id: "id".into(), datastore: "ds".into(), snapshot: None },
            vmx_spec: None,
        };
        let block = copy(&original).unwrap();
        // SAFETY: a whole structure of this library.
        let back = unsafe { read(block, 1) }.unwrap();
        assert_eq!(
            (&back.server, &back.thumbprint, &back.disk),
            (&original.server, &original.thumbprint, &original.disk)
        );
        assert_eq!((back.port, back.nfc_port, back.vmx_spec), (443, 903, None));
        assert!(
            matches!(back.credentials, Credentials::Session { cookie, name, key } if (cookie.expose(), &*name, key.expose()) == (b"c", "n", b"k"))
        );
        assert!(release(block) && !release(block) && !release(ptr::null_mut()));
    }

    #[test]
    fn the_kind_of_disk_counts_only_in_our_structures_and_without_a_machine() {
        let block = allocate().unwrap();
        // SAFETY: a whole, live structure of this library; every string is static.
        unsafe {
            (*block).serverName = c"vc".as_ptr().cast_mut();
            (*block).credType = 1;
            (*block).specType = 2;
            assert_eq!(
                read(block, 8).unwrap_err().kind(),
                ErrorKind::InvalidArgument,
                "2 was once 'unknown'"
            );
            (*block).vmxSpec = c"moref=vm-1".as_ptr().cast_mut();
            assert_eq!(read(block, 8).unwrap().disk, DiskSpec::Machine);
            (*block).vmxSpec = ptr::null_mut();
            let (datastoreMoRef, diskFolder) = (c"ds".as_ptr().cast_mut(), c"f".as_ptr().cast_mut());
            (*block).spec.dsSpec = VixDiskLibDatastoreSpec { datastoreMoRef, diskFolder };
            let expected = DiskSpec::Datastore { datastore: "ds".into(), folder: "f".into() };
            assert_eq!(read(block, 8).unwrap().disk, expected);
            assert!(release(block));
        }
    }
}
