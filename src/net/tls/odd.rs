//! Signatures by the keys of certificates that webpki does not read: X.509 version 1, unknown critical extensions, RSA
//! keys of 1024 bits. Old servers have them, and a thumbprint may say that one of them is the right server.
//!
//! A thumbprint says which certificate is right; only the signature over the handshake proves that the peer has its key.
//! So this looks for the key in the certificate and checks that signature; it judges nothing else.

use ring::signature;
use ring::signature::UnparsedPublicKey;
use ring::signature::VerificationAlgorithm;
use rustls::SignatureScheme;

use crate::net::tls::der::BIT_STRING;
use crate::net::tls::der::INTEGER;
use crate::net::tls::der::SEQUENCE;
use crate::net::tls::der::TAGGED_0;
use crate::net::tls::der::element;

/// True when `signature` over `message` was made with the certificate's key. `tls13` leaves out what TLS 1.3 forbids.
pub fn is_signed(
    certificate: &[u8],
    scheme: SignatureScheme,
    tls13: bool,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let Some(key) = public_key(certificate) else { return false };
    algorithms(scheme, tls13).iter().any(|(kind, algorithm)| {
        key.kind.starts_with(kind)
            && UnparsedPublicKey::new(*algorithm, key.bits).verify(message, signature).is_ok()
    })
}

/// Object identifiers of kinds of keys, as the contents of their DER element; of curves, with the element that follows.
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const P256: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, //
    0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
];
const P384: &[u8] =
    &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

/// A kind of key, and a way to sign with it.
type Way = (&'static [u8], &'static dyn VerificationAlgorithm);

/// The ways that a scheme stands for. TLS 1.2 names digests only, TLS 1.3 the curve with it (RFC 8446 section 4.2.3).
fn algorithms(scheme: SignatureScheme, tls13: bool) -> Vec<Way> {
    match (scheme, tls13) {
        (SignatureScheme::RSA_PSS_SHA256, _) => vec![(RSA, &signature::RSA_PSS_2048_8192_SHA256)],
        (SignatureScheme::RSA_PSS_SHA384, _) => vec![(RSA, &signature::RSA_PSS_2048_8192_SHA384)],
        (SignatureScheme::RSA_PSS_SHA512, _) => vec![(RSA, &signature::RSA_PSS_2048_8192_SHA512)],
        (SignatureScheme::ED25519, _) => vec![(ED25519, &signature::ED25519)],
        (SignatureScheme::ECDSA_NISTP256_SHA256, true) => vec![(P256, &signature::ECDSA_P256_SHA256_ASN1)],
        (SignatureScheme::ECDSA_NISTP384_SHA384, true) => vec![(P384, &signature::ECDSA_P384_SHA384_ASN1)],
        (SignatureScheme::ECDSA_NISTP256_SHA256, false) => {
            vec![(P256, &signature::ECDSA_P256_SHA256_ASN1), (P384, &signature::ECDSA_P384_SHA256_ASN1)]
        }
        (SignatureScheme::ECDSA_NISTP384_SHA384, false) => {
            vec![(P256, &signature::ECDSA_P256_SHA384_ASN1), (P384, &signature::ECDSA_P384_SHA384_ASN1)]
        }
        (SignatureScheme::RSA_PKCS1_SHA256, false) => {
            vec![(RSA, &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY)]
        }
        (SignatureScheme::RSA_PKCS1_SHA384, false) => vec![(RSA, &signature::RSA_PKCS1_2048_8192_SHA384)],
        (SignatureScheme::RSA_PKCS1_SHA512, false) => {
            vec![(RSA, &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY)]
        }
        _ => Vec::new(),
    }
}

/// A certificate's key: what kind it is of, in DER, and its bits.
struct Key<'a> {
    kind: &'a [u8],
    bits: &'a [u8],
}

/// Walks to `tbsCertificate.subjectPublicKeyInfo` (RFC 5280 section 4.1).
fn public_key(certificate: &[u8]) -> Option<Key<'_>> {
    let (outer, _) = element(certificate, SEQUENCE)?;
    let (body, _) = element(outer, SEQUENCE)?;
    let rest = element(body, TAGGED_0).map_or(body, |(_, rest)| rest); // the version, absent in 1
    let (_, rest) = element(rest, INTEGER)?; // serial number
    let (_, rest) = element(rest, SEQUENCE)?; // how it was signed
    let (_, rest) = element(rest, SEQUENCE)?; // issuer
    let (_, rest) = element(rest, SEQUENCE)?; // dates
    let (_, rest) = element(rest, SEQUENCE)?; // subject
    let (key, _) = element(rest, SEQUENCE)?;
    let (kind, rest) = element(key, SEQUENCE)?;
    let (bits, _) = element(rest, BIT_STRING)?;
    let (0, bits) = bits.split_first()? else { return None }; // bits left over in the last byte
    Some(Key { kind, bits })
}

#[cfg(test)]
mod tests {
    use ring::signature::KeyPair;

    use super::*;

    #[test]
    fn the_key_of_a_certificate_is_found() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let key = public_key(made.cert.der()).unwrap();
        assert_eq!(key.kind, P256);
        let pair = signature::EcdsaKeyPair::from_pkcs8(
            &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
            &made.signing_key.serialize_der(),
            &ring::rand::SystemRandom::new(),
        )
        .unwrap();
        assert_eq!(key.bits, pair.public_key().as_ref());

        let signed = pair.sign(&ring::rand::SystemRandom::new(), b"hello").unwrap();
        let check =
            |scheme, message: &[u8]| is_signed(made.cert.der(), scheme, true, message, signed.as_ref());
        assert!(check(SignatureScheme::ECDSA_NISTP256_SHA256, b"hello"));
        assert!(!check(SignatureScheme::ECDSA_NISTP256_SHA256, b"hellO"));
        assert!(!check(SignatureScheme::ECDSA_NISTP384_SHA384, b"hello"));
        assert!(!check(SignatureScheme::RSA_PSS_SHA256, b"hello"));
        assert!(!check(SignatureScheme::RSA_PKCS1_SHA256, b"hello"));
    }

    #[test]
    fn a_cut_or_changed_certificate_is_no_reason_to_panic() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let der = made.cert.der();
        for cut in 0..der.len() {
            public_key(&der[..cut]);
            for bit in 0..8 {
                let mut changed = der.to_vec();
                changed[cut] ^= 1 << bit;
                public_key(&changed);
            }
        }
    }
}
