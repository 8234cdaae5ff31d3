//! Hosted sparse extents (`KDMV`): grains found through a directory of tables.

pub mod header;

pub use header::Header;
