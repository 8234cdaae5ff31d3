//! Protocol clients. They know sockets and bytes on the wire, and nothing of disks.
//!
//! ```text
//!   nbd/  the NBD protocol: uri ▸ handshake ▸ client (codec below both)
//!    │
//!   stream   what a connection is to a protocol: sends, receives, waits
//!    ├─ socket   TCP and Unix sockets (system calls in os)
//!    └─ tls      rustls over one of them
//! ```

#[forbid(unsafe_code)]
pub mod nbd;
#[forbid(unsafe_code)]
pub mod nfc {
    //! NFC, the protocol in which hosts hand out the content of disks.
    pub mod ticket;
}
mod os;
#[forbid(unsafe_code)]
mod resolve;
#[forbid(unsafe_code)]
pub mod socket;
#[forbid(unsafe_code)]
pub mod stream;
#[forbid(unsafe_code)]
pub mod tls;
#[forbid(unsafe_code)]
pub mod vim;
