//! The `key = value` file of the library's initialisation.
#![forbid(unsafe_code)]

/// Settings, all with defaults.
#[derive(Clone, Debug, Default)]
pub struct Config {}

impl Config {
    /// Most threads for asynchronous requests, 0 for automatic.
    pub fn worker_threads(&self) -> usize {
        0
    }
    /// Extents may lie outside the folder of their descriptor.
    pub fn extents_outside_folder(&self) -> bool {
        false
    }
    /// Bytes for grain tables of one disk.
    pub fn grain_table_cache(&self) -> usize {
        8 << 20
    }
    /// Bytes for inflated grains of one disk.
    pub fn inflated_grain_cache(&self) -> usize {
        4 << 20
    }
}
