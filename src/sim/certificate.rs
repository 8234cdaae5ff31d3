//! The certificate of the simulated machines: one that the caller brings, or a self-signed one made at the start.

use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::CertificateParams;
use rcgen::DistinguishedName;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use ring::digest;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::sim::random;

/// A certificate and its key in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and those above it, in PEM.
    pub certificate: PathBuf,
    /// Its private key in PEM, not encrypted.
    pub key: PathBuf,
}

/// Who the simulated machines are to TLS clients.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What connections are accepted with.
    pub config: Arc<ServerConfig>,
    /// The certificate in PEM.
    pub pem: String,
    /// `AA:BB:..`, 20 bytes.
    pub sha1: String,
    /// `AA:BB:..`, 32 bytes.
    pub sha256: String,
}

impl Identity {
    /// Reads the files, or makes a certificate for this machine and `address`.
    pub fn new(files: Option<&CertificateFiles>, address: IpAddr) -> Result<Identity> {
        let (chain, key) = match files {
            Some(files) => read(files)?,
            None => make(address)?,
        };
        let Some(leaf) = chain.first() else {
            return Err(Error::new(ErrorKind::InvalidArgument, "the certificate file has no certificate"));
        };
        let (sha1, sha256) =
            (thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY, leaf), thumbprint(&digest::SHA256, leaf));
        let pem = pem_of(leaf);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_no_client_auth())
            .and_then(|builder| builder.with_single_cert(chain, key))
            .map_err(|e| unusable(&e))?;
        Ok(Identity { config: Arc::new(config), pem, sha1, sha256 })
    }
}

fn unusable(e: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("the certificate cannot be used: {e}"))
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read(files: &CertificateFiles) -> Result<Pair> {
    let open = |path: &Path| std::fs::read(path).context(|| path.display().to_string());
    let (certificate, key) = (open(&files.certificate)?, open(&files.key)?);
    let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|e| unusable(&e)).context(|| files.certificate.display().to_string())?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| unusable(&e));
    Ok((chain, key.context(|| files.key.display().to_string())?))
}

/// A certificate of version 3 with the names that a client on this machine may use. It is no authority: parsers that find
/// one where a server should be refuse it.
fn make(address: IpAddr) -> Result<Pair> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !address.is_unspecified() && !names.contains(&address.to_string()) {
        names.push(address.to_string());
    }
    let mut params = CertificateParams::new(names).map_err(|e| unusable(&e))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "vixsim");
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut serial = random::bytes::<16>()?;
    serial[0] &= 0x7f;
    params.serial_number = Some(serial.to_vec().into());
    let key = KeyPair::generate().map_err(|e| unusable(&e))?;
    let certificate = params.self_signed(&key).map_err(|e| unusable(&e))?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|e| unusable(&e))?;
    Ok((vec![certificate.der().clone()], key))
}

fn thumbprint(algorithm: &'static digest::Algorithm, bytes: &[u8]) -> String {
    let digest = digest::digest(algorithm, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// The PEM form of a certificate.
fn pem_of(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in base64(der).as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for letter in 0..4 {
            let index = (bits >> (18 - 6 * letter) & 63) as usize;
            text.push(if letter <= group.len() { char::from(LETTERS[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pem_form_reads_back() {
        let identity = Identity::new(None, IpAddr::from([127, 0, 0, 1])).unwrap();
        let read = CertificateDer::from_pem_slice(identity.pem.as_bytes()).unwrap();
        assert_eq!(thumbprint(&digest::SHA256, &read), identity.sha256);
        assert_eq!((identity.sha1.len(), identity.sha256.len()), (59, 95));
    }

    #[test]
    fn base64_pads_as_it_should() {
        assert_eq!([&b"a"[..], b"ab", b"abc", b""].map(base64), ["YQ==", "YWI=", "YWJj", ""]);
    }
}
