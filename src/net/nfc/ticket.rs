//! What a vSphere server gives for one connection to a host.

use std::fmt;

use crate::secret::Secret;

/// The port of hosts, where nothing else is said.
pub const PORT: u16 = 902;

/// Permission for one connection. It is good for one, and not for long.
#[derive(Clone)]
pub struct Ticket {
    /// The host to connect to; absent where it is the one that was logged in to.
    pub host: Option<String>,
    /// Its port.
    pub port: u16,
    /// Who the host is.
    pub identity: Option<HostIdentity>,
    /// The service to ask for: `vpxa-nfc` or `nfc`.
    pub service: String,
    /// What proves the permission.
    pub id: Secret,
}

/// Who a host is, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostIdentity {
    /// Digest of the certificate in hexadecimal: SHA-1, or SHA-256 by its length.
    Thumbprint(String),
    /// The certificate itself, in DER.
    Certificate(Vec<u8>),
}

/// Everything but the id.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("identity", &self.identity)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_not_printed() {
        let ticket = Ticket {
            host: None,
            port: PORT,
            identity: Some(HostIdentity::Thumbprint("AA:BB".to_owned())),
            service: "vpxa-nfc".to_owned(),
            id: Secret::from("52cdebc5-canary".to_owned()),
        };
        let printed = format!("{ticket:?}");
        assert!(printed.contains("vpxa-nfc") && !printed.contains("canary"), "{printed}");
    }
}
