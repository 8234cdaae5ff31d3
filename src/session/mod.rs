//! Every verb of the library in safe Rust: a [`Library`] makes a [`Connection`], which opens an [`OpenDisk`].
//!
//! Tests, tools and the C interface are all users of this room. It knows nothing of C.
#![forbid(unsafe_code)]

mod chunks;
mod close;
pub mod connect;
pub mod copy;
mod create;
pub mod library;
mod maintain;
pub mod metadata;
pub mod open_disk;
mod repair;
mod settings;
mod vsphere;

pub use crate::engine::pool::Completion;
pub use crate::format::create::CreateSpec;
pub use crate::format::create::DiskType;
pub use crate::format::geometry::Adapter;
pub use crate::format::geometry::Geometry;
pub use connect::{ConnectParams, Connection, Credentials, DiskSpec};
pub use copy::CopySpec;
pub use library::Library;
pub use open_disk::{AllocatedBlocks, DiskInfo, OpenDisk, OpenFlags};
