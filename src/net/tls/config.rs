//! Settings and files turned into a configuration of rustls.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Log;
use crate::net::tls::TlsSettings;
use crate::net::tls::key;
use crate::net::tls::thumbprint::Thumbprint;
use crate::net::tls::verify::Pin;
use crate::net::tls::verify::Right;
use crate::net::tls::verify::Trust;
use crate::net::tls::verify::Verifier;
use crate::secret::Secret;

/// Certificates and keys are small; a file that is larger is something else.
const LARGEST_FILE: u64 = 4 << 20;

/// Reads what the settings name, and the system's anchors only where they are needed. `pins` replace what the settings say
/// about who is the right server.
pub fn build(settings: &TlsSettings, pins: Vec<Pin>, log: Log) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(provider(settings.approved_only));
    let right = match settings.pin() {
        _ if !pins.is_empty() => Right::Pinned(pins),
        Some(given) => Right::Pinned(vec![Pin::Thumbprint(Thumbprint::parse(given))]),
        None if settings.verify => Right::Vouched(vouched(settings, &provider)?),
        None => Right::Any,
    };
    let verifier = Verifier {
        takes_odd: !matches!(right, Right::Vouched(_)) && !settings.approved_only,
        right,
        algorithms: provider.signature_verification_algorithms,
        log,
    };
    let versions = &[&rustls::version::TLS13, &rustls::version::TLS12];
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("no TLS ciphers are left: {e}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity(settings)? {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|e| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("the client certificate and key are of no use: {e}"),
            )
        })?,
    };
    // Every connection proves its certificate; a resumed one would not.
    config.resumption = Resumption::disabled();
    // The two halves of a connection take their keys with them: see `record`.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

fn provider(approved_only: bool) -> CryptoProvider {
    let all = ring::default_provider();
    if !approved_only {
        return all;
    }
    CryptoProvider {
        cipher_suites: vec![
            ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
            ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
            ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ring::cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            ring::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ],
        // SP 800-56A does not know X25519.
        kx_groups: vec![ring::kx_group::SECP256R1, ring::kx_group::SECP384R1],
        ..all
    }
}

fn vouched(settings: &TlsSettings, provider: &Arc<CryptoProvider>) -> Result<Trust> {
    let (certificates, from) = match &settings.ca_file {
        Some(path) => (certificates(path)?, path.display().to_string()),
        None => (system_anchors()?, "the system's trust anchors".to_owned()),
    };
    let named = if settings.ca_file.is_some() { certificates.clone() } else { Vec::new() };
    let mut roots = RootCertStore::empty();
    let (used, odd) = roots.add_parsable_certificates(certificates);
    if used == 0 {
        let what = format!("{from}: none of {odd} certificates can vouch for a server");
        return Err(Error::new(ErrorKind::CertificateRefused, what));
    }
    let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|e| Error::new(ErrorKind::Internal, format!("{from}: {e}")))?;
    Ok(Trust { webpki, named })
}

fn system_anchors() -> Result<Vec<CertificateDer<'static>>> {
    let found = rustls_native_certs::load_native_certs();
    match found.errors.first() {
        Some(e) if found.certs.is_empty() => {
            let what = format!("no trust anchors of the system could be read: {e}");
            Err(Error::new(ErrorKind::CertificateRefused, what))
        }
        _ => Ok(found.certs),
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(settings: &TlsSettings) -> Result<Option<Identity>> {
    match (&settings.certificate_file, &settings.key_file) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some((certificates(certificate)?, private_key(key)?))),
        (Some(certificate), None) => private_key(certificate) // one file may hold both
            .and_then(|key| Ok(Some((certificates(certificate)?, key))))
            .context(|| "a client certificate needs its key"),
        (None, Some(key)) => {
            let what = format!("{}: a key without its certificate", key.display());
            Err(Error::new(ErrorKind::InvalidArgument, what))
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(path)?;
    let found = CertificateDer::pem_slice_iter(text.expose())
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| unusable(path, "certificates", &e))?;
    if found.is_empty() {
        let what = format!("{}: no certificate in PEM is in it", path.display());
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(text.expose())
        .map(key::in_full)
        .map_err(|e| unusable(path, "an unencrypted private key", &e))
}

fn unusable(path: &Path, what: &str, e: &rustls_pki_types::pem::Error) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{}: expected {what} in PEM: {e}", path.display()))
}

/// A whole file, in memory that is wiped: any of them may hold a key.
fn read(path: &Path) -> Result<Secret> {
    let file = File::open(path).context(|| path.display().to_string())?;
    let length = file.metadata().context(|| path.display().to_string())?.len();
    if length > LARGEST_FILE {
        let what = format!("{}: {length} bytes are too many for certificates", path.display());
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    // Room for all of it, so that the vector does not move and leave copies behind.
    let mut bytes = Vec::with_capacity(length as usize + 1);
    file.take(LARGEST_FILE).read_to_end(&mut bytes).context(|| path.display().to_string())?;
    Ok(Secret::new(bytes))
}
