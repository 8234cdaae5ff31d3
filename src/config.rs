//! The `key = value` file of the library's initialisation.
#![forbid(unsafe_code)]

/// Settings, all with defaults.
#[derive(Clone, Debug, Default)]
pub struct Config {}
