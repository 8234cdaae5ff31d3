//! The C interface: what every program that uses the library sees.
//!
//! Thin on purpose. An exported function checks and converts its arguments, finds the object a handle names, calls one verb of
//! [`crate::session`] and turns the outcome into a code. It knows nothing of formats or files. This is where `unsafe` lives.
//!
//! ```text
//!   init connect disk io metadata maintain     the exported functions, by family; the header is made from these files
//!     fence      no panic passes, a fault is said once      args params   what comes from C
//!     process    the one library; fork       give register    what goes to C and comes back to be freed
//!     handle     numbers instead of addresses               error codes   kinds, codes, texts
//!     log_sink log_file va_list                             lines on their way to the host
//!     types      the header's types and constants
//! ```
#![allow(unsafe_code)]

pub mod args;
pub mod codes;
pub mod connect;
pub mod disk;
pub mod error;
pub mod fence;
pub mod give;
pub mod handle;
pub mod init;
pub mod io;
pub mod log_file;
pub mod log_sink;
pub mod maintain;
pub mod metadata;
pub mod params;
pub mod process;
pub mod register;
pub mod types;
pub mod va_list;
