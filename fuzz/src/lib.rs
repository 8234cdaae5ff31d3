//! The bodies of the fuzz targets: plain functions over bytes that panic when a promise is broken.
//!
//! `fuzz_targets/` hands them to libFuzzer; `tests/fuzz_replay.rs` runs them over the corpus as an ordinary test; the
//! corrupt-field and fault tests use the tiny images, oracles and storages.
#![allow(dead_code, reason = "each user takes a part of it")]
#![allow(clippy::unwrap_used, reason = "a broken assumption of a test shall panic")]

pub mod abi_calls;
pub mod chain;
pub mod check;
pub mod extents;
pub mod http;
pub mod images;
pub mod limits;
pub mod nbd;
pub mod nfc;
pub mod nfc_wire;
pub mod oracle;
pub mod peer;
pub mod seeds;
pub mod soap;
pub mod sparse;
pub mod store;
pub mod text;

/// A target: its name and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("descriptor", text::descriptor),
    ("sparse", sparse::sparse),
    ("stream", extents::stream),
    ("cowd", extents::cowd),
    ("sesparse", extents::sesparse),
    ("chain", chain::chain),
    ("nfc_authd", nfc_wire::nfc_authd),
    ("nfc_frames", nfc_wire::nfc_frames),
    ("nfc_packed", nfc_wire::nfc_packed),
    ("abi_calls", abi_calls::abi_calls),
    ("nbd_client", nbd::nbd_client),
    ("nfc_client", nfc::nfc_client),
    ("soap", soap::soap),
    ("http_range", http::http_range),
];
