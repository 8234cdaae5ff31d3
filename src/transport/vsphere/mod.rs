//! Disks of vSphere.

pub mod name;
pub mod path;
