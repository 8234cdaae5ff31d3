//! Protocol clients. They know sockets and bytes on the wire, and nothing of disks.
//!
//! ```text
//!   nbd/  the NBD protocol: uri ▸ handshake ▸ client (codec below both)
//!   nfc/  the protocol of ESXi hosts: ticket ▸ client (codec below both)
//!   vim/  the SOAP interface of vSphere, over http/
//!    │
//!   pipe/    what pipelined clients have in common: calls, pieces in flight, threads, losses
//!    │
//!   stream   what a connection is to a protocol: sends, receives, waits
//!    ├─ socket   TCP and Unix sockets (system calls in os)
//!    └─ tls      rustls over one of them
//!   listen   the other end, for servers that stand in for real ones
//! ```

#[forbid(unsafe_code)]
pub mod http;
#[forbid(unsafe_code)]
pub mod listen;
#[forbid(unsafe_code)]
pub mod nbd;
#[forbid(unsafe_code)]
pub mod nfc;
mod os;
#[forbid(unsafe_code)]
mod pipe;
#[forbid(unsafe_code)]
mod resolve;
#[forbid(unsafe_code)]
pub mod socket;
#[forbid(unsafe_code)]
pub mod stream;
#[forbid(unsafe_code)]
mod talk;
#[forbid(unsafe_code)]
pub mod tls;
#[forbid(unsafe_code)]
pub mod vim;
