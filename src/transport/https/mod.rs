//! Disks whose files are read over HTTPS from a datastore: `/folder` of a vCenter or a host.
//!
//! ```text
//!   served     a disk as blocks ─▶ lanes: several reads at once     (joint: one long read in pieces)
//!     │ Disk: our own formats
//!   folder     where names inside images lead
//!   file       a file as a storage ─▶ windows: small reads come from larger ones
//!     │ path
//!   site       exchanges with the server: the session's cookie, ranges, what is tried again
//! ```
//!
//! It is the slowest way to a disk, and it reads only; so it has to be asked for by name. What it needs is a session and the
//! right to browse the datastore: no port but that of the interface, and no machine.

pub mod file;
pub mod folder;
mod joint;
mod lanes;
pub mod path;
pub mod served;
pub mod site;
mod windows;

pub use crate::transport::https::path::FilePath;
pub use crate::transport::https::path::Spelling;
pub use crate::transport::https::path::Spellings;
pub use crate::transport::https::served::ServedDisk;
pub use crate::transport::https::site::Pass;
pub use crate::transport::https::site::Site;
pub use crate::transport::https::site::SiteOptions;

#[cfg(test)]
mod tests;
