//! How bytes of a disk are reached.
#![forbid(unsafe_code)]
