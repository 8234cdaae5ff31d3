//! How a connection to an export is made, for the first time and again.

use std::fmt::Debug;
use std::time::Instant;

use crate::error::Result;
use crate::net::nbd::Export;
use crate::net::nbd::handshake::Wants;
use crate::net::nbd::handshake::negotiate;
use crate::net::socket::Address;
use crate::net::socket::Socket;
use crate::net::stream::Stream;
use crate::net::tls::Tls;

/// Makes connections to one export.
pub trait Dialler: Debug + Send + Sync {
    /// A stream on which requests can be sent, and what the server said about the export.
    fn dial(&self, until: Instant) -> Result<(Box<dyn Stream>, Export)>;

    /// Where it leads, for messages.
    fn label(&self) -> String;
}

/// An export of a server.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Where the server listens.
    pub address: Address,
    /// The export's name, `""` for the server's default.
    pub export: String,
    /// TLS, and the name that the server's certificate must be for. With it, nothing goes over the wire without it.
    pub tls: Option<(Tls, String)>,
}

impl Dialler for Dial {
    fn dial(&self, until: Instant) -> Result<(Box<dyn Stream>, Export)> {
        let stream = Box::new(Socket::connect(&self.address, until)?);
        let wants = Wants::all_of(self.export.clone());
        match &self.tls {
            None => negotiate(stream, &wants, None, until),
            Some((tls, host)) => {
                negotiate(stream, &wants, Some(&|plain| tls.wrap(plain, host, until)), until)
            }
        }
    }

    fn label(&self) -> String {
        format!("NBD export {:?} of {}", self.export, self.address)
    }
}
