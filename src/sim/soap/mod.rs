//! The management interface: envelopes in and out, and which object answers which method.
//!
//! ```text
//!   POST /sdk ─▶ envelope ─▶ methods (table) ─▶ service │ login │ tickets │ search │ machine │ snapshot │ …
//!                                            └▶ collector: properties, views, filters
//! ```

pub mod authorization;
pub mod browse;
pub mod call;
pub mod changes;
pub mod consolidate;
pub mod envelope;
pub mod fault;
pub mod first_class;
pub mod generic;
pub mod login;
pub mod machine;
pub mod methods;
pub mod nfc;
pub mod reconfigure;
pub mod relocate;
pub mod search;
pub mod service;
pub mod snapshot;
pub mod tasks;

#[cfg(test)]
mod tests;
