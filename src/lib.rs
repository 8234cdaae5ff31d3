//! An open implementation of the VixDiskLib interface.
//!
//! ```text
//!       C program / nbdkit / Python ctypes                             the host's threads
//!  ─────────────┬─────────────────────────────────────────────────────────────────────────
//!   abi/        │ VixDiskLib_* ── fence ── args ── handle token        unsafe lives here
//!  ─────────────┼─────────────────────────────────────────────────────────────────────────
//!   session/    │ Library ▸ Connection ▸ OpenDisk      every verb in safe Rust
//!               │        │              │
//!               │        ▼              ▼
//!               │   transport/      engine/  queue, workers, wait barrier, ticker
//!               │   local nbd          │
//!               │   vsphere https      │
//!               │        │ builds      ▼
//!               │        ├─────────▶ disk/    a chain of links; the one read / write / extents loop
//!               │        │              │
//!               │        ▼              ▼
//!               │      net/         format/  VMDK: descriptor, flat, sparse, stream, cowd, sesparse; raw
//!               │   http vim nfc        │ asks
//!               │   nbd tls             ▼
//!               │                   storage/ Storage trait: file, block device, memory
//!  ─────────────┴─────────────────────────────────────────────────────────────────────────
//!   base:  error  units  logging  config  threads  transfer  os  secret
//!   beside:  sim  a vCenter and its hosts for tests, which bin/vixsim runs
//! ```
//!
//! Names point downwards only; `tests/layering.rs` checks it.
#![allow(non_snake_case)] // the library's file name is part of the interface
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod error;
pub mod logging;
pub mod os;
pub mod secret;
pub mod threads;
pub mod transfer;
pub mod units;

pub mod storage;

pub mod format;

pub mod disk;

pub mod net;

pub mod transport;

pub mod engine;

pub mod session;

pub mod sim;

pub mod abi;
