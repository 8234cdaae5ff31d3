//! The machinery of a pipelined client: calls that are sent as many requests at once, over a connection that any number of
//! threads share.

pub mod books;
pub mod calls;
pub mod connection;
pub mod coverage;
pub mod durability;
mod helpers;
pub mod inbox;
mod mend;
pub mod outbox;
pub mod unaligned;
pub mod window;
