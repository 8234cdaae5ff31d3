//! How the bytes of a disk are reached. The only transport of this build is `file`: disks on file systems of this machine.
#![forbid(unsafe_code)]

pub mod local;

/// The transports of this build in the order of preference, colon separated as the interface wants them.
pub const MODES: &str = "file";

/// What an open disk on local files reports as its transport.
pub const FILE: &str = "file";
