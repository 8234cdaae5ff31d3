//! The other end of TLS, for servers that stand in for real ones.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;

use crate::error::Context;
use crate::error::Result;
use crate::net::stream::Stream;
use crate::net::tls::handshake;
use crate::net::tls::inbox::Inbox;
use crate::net::tls::stream::TlsStream;

/// Makes encrypted streams out of plain ones whose clients begin with TLS. Clones share what they are made of.
#[derive(Clone)]
pub struct TlsServer(Arc<ServerConfig>);

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer").finish_non_exhaustive()
    }
}

impl TlsServer {
    /// With this certificate and these versions. Data before the end of the handshake are never taken.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        let mut config = Arc::unwrap_or_clone(config);
        config.enable_secret_extraction = true; // the two halves of a stream have their own keys
        config.max_early_data_size = 0;
        Self(Arc::new(config))
    }

    /// Shakes hands over a connected stream. What a call to receive on it gives is what is shown to the state machine, so
    /// that a stream that gives single records keeps what follows the last of them.
    pub fn wrap(&self, stream: Box<dyn Stream>, until: Instant) -> Result<Box<dyn Stream>> {
        let label = stream.label();
        let wrapped = UnbufferedServerConnection::new(Arc::clone(&self.0))
            .map_err(|e| handshake::failure(&e))
            .and_then(|mut tls| {
                let mut inbox = Inbox::new();
                handshake::shake(&mut tls, &*stream, &mut inbox, until)?;
                TlsStream::new(tls.dangerous_into_kernel_connection(), stream, inbox)
            });
        wrapped.map(|stream| Box::new(stream) as Box<dyn Stream>).context(|| format!("TLS with {label}"))
    }
}
