//! The disks of the simulated machines: files of this machine behind names of datastores, snapshots that make real children,
//! and which parts changed since when.

pub mod areas;
pub mod child;
pub mod merge;
pub mod open;
pub mod stores;
pub mod tracker;
pub mod uses;
