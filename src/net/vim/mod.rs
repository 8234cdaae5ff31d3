//! A client of the SOAP interface of vCenter and ESXi: as much of it as is needed to find a machine's disks and to be
//! let in to them.
//!
//! ```text
//!   Session ── machine, places, tickets, relocation: the calls by what they are for
//!    │          properties, devices, hardware: what the answers say
//!    │ ask, with a new login where it is needed
//!   wire       a call over HTTP: call (written), fault and xml (read), cookie, version
//! ```
//!
//! Names and ids of a server are its own; nothing here guesses them. What a server says is bounded before it is read, read
//! by namespace, and quoted in errors only where it repeats no secret.

mod about;
mod call;
mod content;
mod cookie;
mod devices;
mod fault;
mod hardware;
mod machine;
mod moref;
mod places;
mod properties;
mod relocation;
mod session;
mod spec;
mod tickets;
mod version;
mod wire;
mod xml;

use std::time::Duration;

use crate::net::tls::TlsSettings;
pub use crate::net::vim::about::About;
pub use crate::net::vim::cookie::header as cookie_header;
pub use crate::net::vim::hardware::Adapter;
pub use crate::net::vim::hardware::Backing;
pub use crate::net::vim::hardware::Hardware;
pub use crate::net::vim::hardware::Power;
pub use crate::net::vim::hardware::VirtualDisk;
pub use crate::net::vim::hardware::same_path;
pub use crate::net::vim::moref::Moref;
pub use crate::net::vim::session::Session;
pub use crate::net::vim::spec::MachineSpec;
use crate::secret::Secret;

/// Where a server is and how it proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// The port, 443 as a rule.
    pub port: u16,
    /// Who it must be.
    pub tls: TlsSettings,
}

/// How to get in. Printing it shows the user's name at most.
#[derive(Clone)]
pub enum Login {
    /// With a password; such a session is logged out at its end and logs in again where it expired.
    User {
        /// The user.
        name: String,
        /// The password.
        password: Secret,
    },
    /// With the cookie of a session that another program logged in. It is left as it is at the end.
    ///
    /// `vmware_soap_session="x"`, `vmware_soap_session=x`, `"x"` and `x` mean the same; what follows a `;` does not count.
    Cookie(Secret),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Login::User { name, .. } => f.debug_struct("User").field("name", name).finish_non_exhaustive(),
            Login::Cookie(_) => f.debug_struct("Cookie").finish_non_exhaustive(),
        }
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// A connection, with TLS.
    pub connect: Duration,
    /// One call, the connection for it included, and what has to be repeated of it.
    pub request: Duration,
    /// The farewell.
    pub farewell: Duration,
}

/// Three minutes for a call, one of them for its connection, and two seconds to leave.
impl Default for Times {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(60),
            request: Duration::from_secs(180),
            farewell: Duration::from_secs(2),
        }
    }
}
