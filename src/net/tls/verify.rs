//! Who the server is.

use std::sync::Arc;

use rustls::CertificateError;
use rustls::DigitallySignedStruct;
use rustls::OtherError;
use rustls::SignatureScheme;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::verify_tls12_signature;
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;

use crate::logging::Log;
use crate::net::tls::odd;
use crate::net::tls::thumbprint;
use crate::net::tls::thumbprint::Thumbprint;

/// Which certificate is the right one.
#[derive(Debug)]
pub enum Right {
    /// The one with this thumbprint.
    Pinned(Thumbprint),
    /// One that a trust anchor vouches for, for the server's name, on this day.
    Vouched(Arc<WebPkiServerVerifier>),
    /// Any.
    Any,
}

/// Checks certificates, and that the peer has their keys.
#[derive(Debug)]
pub struct Verifier {
    pub right: Right,
    /// For the signatures of the handshake.
    pub algorithms: WebPkiSupportedAlgorithms,
    /// Keys that webpki does not take are looked at by [`odd`].
    pub takes_odd: bool,
    pub log: Log,
}

/// The wrong certificate.
#[derive(Debug)]
struct Mismatch(String);

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mismatch {}

impl Verifier {
    fn check_pin(&self, expected: &Thumbprint, certificate: &[u8]) -> Result<(), rustls::Error> {
        expected.check(certificate).map_err(|actual| {
            let expected = expected.given();
            // Users and programs look for exactly this line to learn the thumbprint, with what is logged by default.
            self.log.info(|| {
                format!(
                    "VixDiskLibVim: Failed to verify SSL certificate: \
                     actual thumbprint={actual} expected={expected}"
                )
            });
            let what = format!("its thumbprint is {actual}, expected was {expected}");
            CertificateError::Other(OtherError(Arc::new(Mismatch(what)))).into()
        })
    }

    /// The verdict of webpki on a signature of the handshake, or where it does not understand the certificate, ours.
    fn judge(
        &self,
        verdict: Result<HandshakeSignatureValid, rustls::Error>,
        tls13: bool,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let offered = self.supported_verify_schemes().contains(&signed.scheme);
        if verdict.is_err()
            && self.takes_odd
            && offered
            && odd::is_signed(certificate, signed.scheme, tls13, message, signed.signature())
        {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verdict
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.right {
            Right::Any => Ok(ServerCertVerified::assertion()),
            Right::Pinned(expected) => {
                self.check_pin(expected, certificate).map(|()| ServerCertVerified::assertion())
            }
            Right::Vouched(webpki) => {
                webpki.verify_server_cert(certificate, chain, name, ocsp, now).inspect_err(|_| {
                    self.log.debug(|| {
                        format!("the refused certificate's thumbprint is {}", thumbprint::of(certificate))
                    });
                })
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verdict = verify_tls12_signature(message, certificate, signed, &self.algorithms);
        self.judge(verdict, false, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verdict = verify_tls13_signature(message, certificate, signed, &self.algorithms);
        self.judge(verdict, true, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
