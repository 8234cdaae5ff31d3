//! A client of HTTP/1.1 over any [`Stream`](crate::net::stream::Stream).
//!
//! ```text
//!   client        connections that are kept for the next exchange
//!    │
//!   connection    one exchange at a time, all of it until one moment
//!    ├─ message   heads: bytes out, bytes in
//!    └─ body      where a body ends, and where its bytes go
//!   range         parts of what a server has
//!   hidden        what a server may repeat and nobody may read in an error or a log
//! ```
//!
//! Redirections are not followed: who was told a server's name does not want to hear of another's. Nothing is compressed,
//! cached or sent ahead of an answer.

mod body;
pub mod client;
mod connection;
pub mod hidden;
mod message;
pub mod percent;
pub mod range;
mod wiped;

pub use crate::net::http::body::Target;
pub use crate::net::http::client::Answer;
pub use crate::net::http::client::Client;
pub use crate::net::http::client::Dial;
pub use crate::net::http::client::Door;
pub use crate::net::http::hidden::Hidden;
pub use crate::net::http::message::Head;
pub use crate::net::http::message::Method;
pub use crate::net::http::message::Request;
pub use crate::net::http::range::ContentRange;
pub use crate::net::http::wiped::Wiped;
