//! TLS for a part of a conversation.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::stream::Stream;
use crate::net::tls::stream::TlsStream;

/// A stream that is encrypted for a while. Dropping it says nothing to the peer and leaves what is below it open.
#[derive(Debug)]
pub struct Episode {
    stream: TlsStream,
    certificate: Vec<u8>,
}

impl Episode {
    pub(super) fn new(stream: TlsStream, certificate: Vec<u8>) -> Episode {
        Episode { stream, certificate }
    }

    /// The encrypted stream.
    pub fn stream(&self) -> &dyn Stream {
        &self.stream
    }

    /// The server's certificate, in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Ends this TLS without a word. An error if anything that came was not received: it would be lost, or be taken for
    /// what comes next.
    pub fn leave(self) -> Result<()> {
        match self.stream.left_over() {
            0 => Ok(()),
            bytes => Err(Error::new(
                ErrorKind::Protocol,
                format!("{}: {bytes} bytes came after what should have been the last", self.stream.label()),
            )),
        }
    }
}
