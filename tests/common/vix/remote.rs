//! Connections to servers: parameters with a server in them.

use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_void;
use std::ptr::null;
use std::ptr::null_mut;

use super::Vix;
use super::code;
use super::connection::Connection;
use super::types::Handle;

/// What a program says about a server.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// `serverName`.
    pub name: String,
    /// `thumbPrint`, `None` for NULL.
    pub thumbprint: Option<String>,
    /// `port`.
    pub port: u32,
    /// Transports, `None` for NULL.
    pub modes: Option<String>,
    /// `snapshotRef`, `None` for NULL.
    pub snapshot: Option<String>,
    /// `readOnly`.
    pub read_only: bool,
    /// `vmxSpec`, `None` for NULL.
    pub machine: Option<String>,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// The cookie of a session, instead of a login.
    pub cookie: Option<String>,
    /// `nfcHostPort`.
    pub nfc_port: u32,
    /// `specType` and `spec`. Programs that say something here have to get the structure from the library.
    pub disks: Disks,
}

/// Which disks a connection is for.
#[derive(Clone, Debug, Default)]
pub enum Disks {
    /// Those of the machine.
    #[default]
    OfMachine,
    /// A first class disk.
    FirstClass {
        /// Its id.
        id: String,
        /// The reference of its datastore.
        datastore: String,
        /// The id of a snapshot, `None` for NULL.
        snapshot: Option<String>,
    },
    /// Those of a folder of a datastore.
    OfFolder {
        /// The reference of the datastore.
        datastore: String,
        /// The folder.
        folder: String,
    },
}

/// The structure as the interface has it for `VIXDISKLIB_CRED_UID`.
#[repr(C)]
struct Params {
    machine: *const c_char,
    server: *const c_char,
    thumbprint: *const c_char,
    private: i64,
    cred_type: u32,
    user: *const c_char,
    password: *const c_char,
    rest_of_creds: [u64; 1],
    port: u32,
    nfc_port: u32,
    later: [u64; 3],
    spec: [*const c_char; 3],
    spec_type: u32,
}

const _: () = assert!(size_of::<Params>() == 128 && std::mem::offset_of!(Params, port) == 64);
const _: () =
    assert!(std::mem::offset_of!(Params, spec) == 96 && std::mem::offset_of!(Params, spec_type) == 120);

impl Server {
    /// This name and nothing else.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The same with a list of transports.
    #[must_use]
    pub fn over(self, modes: &str) -> Self {
        Self { modes: Some(modes.to_owned()), ..self }
    }

    /// Calls with the structure.
    fn with<T>(&self, vix: &Vix, call: impl FnOnce(*const c_void) -> T) -> T {
        let text = |text: &str| CString::new(text).expect("text without NUL");
        let server = text(&self.name);
        let (thumbprint, machine) = (self.thumbprint.as_deref().map(text), self.machine.as_deref().map(text));
        let login = self.login.as_ref().map(|(user, password)| (text(user), text(password)));
        let cookie = self.cookie.as_deref().map(text);
        let pointer = |text: &Option<CString>| text.as_ref().map_or(null(), |text| text.as_ptr());
        let user = login.as_ref().map_or(null(), |login| login.0.as_ptr());
        let (spec_type, spec) = match &self.disks {
            Disks::OfMachine => (0, [None, None, None]),
            Disks::FirstClass { id, datastore, snapshot } => {
                (1, [Some(text(id)), Some(text(datastore)), snapshot.as_deref().map(text)])
            }
            Disks::OfFolder { datastore, folder } => (2, [Some(text(datastore)), Some(text(folder)), None]),
        };
        let params = Params {
            machine: pointer(&machine),
            server: server.as_ptr(),
            thumbprint: pointer(&thumbprint),
            private: 0,
            cred_type: if cookie.is_some() { 2 } else { u32::from(login.is_some()) },
            user: cookie.as_ref().map_or(user, |cookie| cookie.as_ptr()),
            password: login.as_ref().map_or(null(), |login| login.1.as_ptr()),
            rest_of_creds: [0],
            port: self.port,
            nfc_port: self.nfc_port,
            later: [0; 3],
            spec: spec.each_ref().map(pointer),
            spec_type,
        };
        if spec_type == 0 {
            return call((&raw const params).cast());
        }
        let ours = call!(vix, "AllocateConnectParams", fn() -> *mut c_void,);
        assert!(!ours.is_null(), "AllocateConnectParams");
        // SAFETY: the library gave a structure of this layout, aligned for its pointers.
        unsafe { ours.cast::<Params>().write(params) };
        let result = call(ours.cast_const());
        call!(vix, "FreeConnectParams", fn(*mut c_void), ours);
        result
    }
}

impl Vix {
    /// `PrepareForAccess` alone.
    pub fn prepare(&self, server: &Server, identity: &CStr) -> u64 {
        server.with(self, |params| {
            call!(
                self,
                "PrepareForAccess",
                fn(*const c_void, *const c_char) -> u64,
                params,
                identity.as_ptr()
            )
        })
    }

    /// `EndAccess` alone.
    pub fn end_access(&self, server: &Server, identity: &CStr) -> u64 {
        server.with(self, |params| {
            call!(self, "EndAccess", fn(*const c_void, *const c_char) -> u64, params, identity.as_ptr())
        })
    }

    /// `ConnectEx` to a server.
    pub fn connect_to(&self, server: &Server) -> Result<Connection<'_>, u64> {
        let text = |text: &Option<String>| text.as_deref().map(|text| CString::new(text).expect("no NUL"));
        let (modes, snapshot) = (text(&server.modes), text(&server.snapshot));
        let pointer = |text: &Option<CString>| text.as_ref().map_or(null(), |text| text.as_ptr());
        let mut handle: Handle = null_mut();
        let result = server.with(self, |params| {
            call!(
                self,
                "ConnectEx",
                fn(*const c_void, c_char, *const c_char, *const c_char, *mut Handle) -> u64,
                params,
                c_char::from(server.read_only),
                pointer(&snapshot),
                pointer(&modes),
                &raw mut handle
            )
        });
        if result != code::OK {
            assert!(handle.is_null(), "the connection is NULL after a failure");
            return Err(result);
        }
        Ok(Connection { vix: self, handle })
    }

    /// `PrepareForAccess`, `EndAccess` and `Cleanup` of a server, with the two counts of the last one.
    pub fn access(&self, server: &Server) -> (u64, u64, u64, [u32; 2]) {
        const IDENTITY: &CStr = c"a test";
        let (prepared, ended) = (self.prepare(server, IDENTITY), self.end_access(server, IDENTITY));
        let mut counts = [u32::MAX; 2];
        let [cleaned, remaining] = &mut counts;
        let cleaned_up = server.with(self, |params| {
            call!(
                self,
                "Cleanup",
                fn(*const c_void, *mut u32, *mut u32) -> u64,
                params,
                &raw mut *cleaned,
                &raw mut *remaining
            )
        });
        (prepared, ended, cleaned_up, counts)
    }
}
