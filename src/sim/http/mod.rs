//! An HTTPS server for many short and a few long requests: one thread for each connection, bounds on everything that comes,
//! a deadline on every wait.

pub mod query;
pub mod request;
pub mod response;
pub mod server;
mod wire;
