//! Who the server is.

use std::sync::Arc;

use rustls::CertificateError;
use rustls::DigitallySignedStruct;
use rustls::SignatureScheme;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::verify_server_name;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::verify_tls12_signature;
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::server::ParsedCertificate;

use crate::logging::Log;
use crate::net::tls::odd;
use crate::net::tls::refusal;
use crate::net::tls::refusal::Refusal;
use crate::net::tls::thumbprint;
use crate::net::tls::thumbprint::Thumbprint;

/// Which certificate is the right one.
#[derive(Debug)]
pub enum Right {
    /// One of these; there is at least one.
    Pinned(Vec<Pin>),
    /// One that is trusted, for the server's name, on this day.
    Vouched(Trust),
    /// Any.
    Any,
}

/// A certificate that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// The one with this thumbprint.
    Thumbprint(Thumbprint),
    /// This one, in DER.
    Certificate(Vec<u8>),
}

impl Pin {
    /// `Err`: what the certificate has instead, and what was expected.
    fn check(&self, certificate: &[u8]) -> Result<(), (String, String)> {
        match self {
            Pin::Thumbprint(expected) => {
                expected.check(certificate).map_err(|actual| (actual, expected.given().to_owned()))
            }
            Pin::Certificate(expected) if expected == certificate => Ok(()),
            Pin::Certificate(expected) => Err((thumbprint::of(certificate), thumbprint::of(expected))),
        }
    }
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

/// Whom the settings trust.
#[derive(Debug)]
pub struct Trust {
    /// Those who vouch for servers.
    pub webpki: Arc<WebPkiServerVerifier>,
    /// Certificates that a server may have itself: all that the user named, none of the system's.
    pub named: Vec<CertificateDer<'static>>,
}

impl Trust {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if self.named.iter().any(|named| named == certificate) {
            return self.check_named(certificate, name, now);
        }
        match self.webpki.verify_server_cert(certificate, chain, name, &[], now) {
            // Of the certificate's own signature, not of the one that proves the server's key.
            Err(rustls::Error::InvalidCertificate(CertificateError::BadSignature)) => Err(
                CertificateError::from(Refusal("the authority that it names has not signed it".to_owned()))
                    .into(),
            ),
            verdict => verdict.map(|_| ()),
        }
    }

    /// A certificate that the user named needs nobody to vouch for it, and may be an authority's: that is what self-signed
    /// certificates look like. Name, dates and purpose count all the same, so webpki has to be able to read it; for a
    /// certificate that it cannot read, there are thumbprints.
    fn check_named(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        // Without the server's other certificates, so that none of them has a say. webpki looks at the dates first and at
        // issuer and signature last; what is forgiven here stands behind all that is not, but for the name.
        match self.webpki.verify_server_cert(certificate, &[], name, &[], now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer
                | CertificateError::BadSignature
                | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
            )) => {}
            Err(rustls::Error::InvalidCertificate(why)) if refusal::is_authority(&why) => {}
            verdict => return verdict.map(|_| ()),
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
    }
}

impl Verifier {
    fn check_pins(&self, pins: &[Pin], certificate: &[u8]) -> Result<(), rustls::Error> {
        let mut first = None;
        for pin in pins {
            match pin.check(certificate) {
                Ok(()) => return Ok(()),
                Err(mismatch) => first = first.or(Some(mismatch)),
            }
        }
        let (actual, expected) = first.unwrap_or_else(|| (thumbprint::of(certificate), String::new()));
        // Users and programs look for exactly this line to learn the thumbprint, with what is logged by default.
        self.log.info(|| {
            format!(
                "VixDiskLibVim: Failed to verify SSL certificate: \
                 actual thumbprint={actual} expected={expected}"
            )
        });
        let what = format!("its thumbprint is {actual}, expected was {expected}");
        Err(CertificateError::from(Refusal(what)).into())
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
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.right {
            Right::Any => Ok(ServerCertVerified::assertion()),
            Right::Pinned(pins) => {
                self.check_pins(pins, certificate).map(|()| ServerCertVerified::assertion())
            }
            Right::Vouched(trust) => match trust.check(certificate, chain, name, now) {
                Ok(()) => Ok(ServerCertVerified::assertion()),
                Err(e) => {
                    self.log.debug(|| {
                        format!("the refused certificate's thumbprint is {}", thumbprint::of(certificate))
                    });
                    Err(e)
                }
            },
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
