//! A vCenter or a bare ESXi host in one process, for tests: this crate's own and those of programs that use the library.
//!
//! It answers on loopback only, unless told otherwise, with what the public references tag as observed or documented; what
//! is unknown it refuses instead of inventing it. No code of the library uses it.
#![forbid(unsafe_code)]

pub mod fault;
