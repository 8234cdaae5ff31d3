//! Private keys as ring takes them.
//!
//! RFC 5915 has the private key of an elliptic curve in as many bytes as the curve's order. GnuTLS, whose `certtool` makes
//! many keys, writes it as a number: a zero stands in front of every second one, and one in 256 is short. OpenSSL and
//! GnuTLS read such keys, ring does not.

use rustls::pki_types::PrivateKeyDer;
use zeroize::Zeroize;
use zeroize::Zeroizing;

use crate::net::tls::der::INTEGER;
use crate::net::tls::der::OBJECT;
use crate::net::tls::der::OCTET_STRING;
use crate::net::tls::der::SEQUENCE;
use crate::net::tls::der::TAGGED_0;
use crate::net::tls::der::element;
use crate::net::tls::der::wrap;

/// The same key, in the full length of its curve. What is no key of a curve known here comes back as it is: whether it is
/// a key at all is for others to say.
pub fn in_full(mut key: PrivateKeyDer<'static>) -> PrivateKeyDer<'static> {
    let full = match &key {
        PrivateKeyDer::Sec1(der) => sec1(der.secret_sec1_der(), None)
            .map(|mut der| PrivateKeyDer::Sec1(std::mem::take(&mut *der).into())),
        PrivateKeyDer::Pkcs8(der) => pkcs8(der.secret_pkcs8_der())
            .map(|mut der| PrivateKeyDer::Pkcs8(std::mem::take(&mut *der).into())),
        _ => None,
    };
    match full {
        Some(full) => {
            key.zeroize();
            full
        }
        None => key,
    }
}

/// Contents of the object identifiers of elliptic keys and of the curves that ring signs with.
const ELLIPTIC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

const P256_LENGTH: usize = 32;
const P384_LENGTH: usize = 48;

/// `PrivateKeyInfo` (RFC 5208) around an `ECPrivateKey`. `None`: there is nothing to change, or it is something else.
fn pkcs8(der: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (body, []) = element(der, SEQUENCE)? else { return None };
    let (version, rest) = element(body, INTEGER)?;
    let (kind, rest) = element(rest, SEQUENCE)?;
    let (inner, rest) = element(rest, OCTET_STRING)?;
    let (ELLIPTIC, parameters) = element(kind, OBJECT)? else { return None };
    let (curve, _) = element(parameters, OBJECT)?;
    let inner = sec1(inner, Some(curve))?;
    let parts =
        [&wrap(INTEGER, &[version])[..], &wrap(SEQUENCE, &[kind]), &wrap(OCTET_STRING, &[&inner]), rest];
    Some(wrap(SEQUENCE, &parts))
}

/// `ECPrivateKey` (RFC 5915), whose curve is said around it or in it.
fn sec1(der: &[u8], curve: Option<&[u8]>) -> Option<Zeroizing<Vec<u8>>> {
    let (body, []) = element(der, SEQUENCE)? else { return None };
    let (version, rest) = element(body, INTEGER)?;
    let (number, rest) = element(rest, OCTET_STRING)?;
    let curve = match curve {
        Some(curve) => curve,
        None => element(element(rest, TAGGED_0)?.0, OBJECT)?.0,
    };
    let length = match curve {
        P256 => P256_LENGTH,
        P384 => P384_LENGTH,
        _ => return None,
    };
    if number.len() == length {
        return None;
    }
    let digits = number.get(number.iter().take_while(|byte| **byte == 0).count()..)?;
    // More digits than the curve has: not its key.
    let zeros = [0; P384_LENGTH];
    let zeros = zeros.get(..length.checked_sub(digits.len())?)?;
    let parts = [&wrap(INTEGER, &[version])[..], &wrap(OCTET_STRING, &[zeros, digits]), rest];
    Some(wrap(SEQUENCE, &parts))
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring::sign::any_supported_type;

    use super::*;

    // By certtool 3.7, made for these tests: with a zero in front, and without.
    const SEC1_ZERO: &str = "3078020101042100caa4fb4aeb45160eadf3deb75ec6dd0d4c985da62852b8f7568310c6799cc15ea00a06\
        082a8648ce3d030107a14403420004782e46d77d9a26f39970c20a146b9d1ed34d2349edf8caaa343b454762ff4b9e8377ebcafa4960\
        aac0d00f0c11c2639d5c289bb761bf211337bf17ca56bcb43c";
    const SEC1: &str = "3077020101042032ad512723f336e1e65623a71ab4cb19a5032c3edac1ab010b5ec96a8a77d228a00a06082a8648\
        ce3d030107a144034200043627dbc094a4030ab38a79346b67e3ab85def161e6f55d6be61ec5da4f2da8ce4038f63d161fb9a6cdc6bb\
        5c9eca0e8299dad22c1211ce52b874a487875e6310";
    const PKCS8_ZERO: &str = "308194020100301306072a8648ce3d020106082a8648ce3d030107047a3078020101042100abcf076b1e5ce7\
        43039bf6d95ad5c190b8ef43c62e047951e0f0e998dd030290a00a06082a8648ce3d030107a14403420004bbf2460d2ebbc4662bce63\
        40c37d3b0924efb1a34c8bb70b85eb5d44edb73ae32055eefcf6fbf8c795715463e33e24c5ba9fd0e71a475641229a7ed71e97c457";
    const PKCS8: &str = "308193020100301306072a8648ce3d020106082a8648ce3d030107047930770201010420284361e85acfe1c14619\
        39863e967fda20cf585bf063a16684db9a2c10b716afa00a06082a8648ce3d030107a14403420004b24a7fb7ff6d8734dbe438d2f649\
        5a0c12aababa13752a6c89ef8a47231679758754f83bcbf5e669b030d0444bfba53f725ff6f86fd70a222f80a6bf486a7d14";
    const P384_ZERO: &str = "3081a5020101043100b7b72292b1059e9d5c288da58751729320f9d7653a50062293b7bb80679326c6a340\
        972e7bbaa9b2e1e0369e9e077975a00706052b81040022a164036200045b07e84d0526e8a12cd686d7ad2647fb0c884d93c384c0c08d\
        f5b2f6a7d67c8209998947cc652ed1b570225dbd063c62f691e3ececee200bd2e60ca0da63561817fa2de5103c06db814eba6a5b499c\
        8c25b7a6138a752d5b8e9d67c56309e5df";
    // The key 1, whose public key is the base point of P-256 (SEC 2 section 2.4.2).
    const SHORT: &str = "3058020101040101a00a06082a8648ce3d030107a144034200046b17d1f2e12c4247f8bce6e563a440f277037d\
        812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";

    fn bytes(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    fn key(text: &str) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(bytes(text)).unwrap()
    }

    #[test]
    fn keys_with_a_zero_in_front_and_short_ones_are_taken() {
        for text in [SEC1_ZERO, PKCS8_ZERO, P384_ZERO, SHORT] {
            assert!(any_supported_type(&key(text)).is_err(), "this needs no help: {text}");
            // The public key in it is compared with the private one there.
            any_supported_type(&in_full(key(text))).unwrap();
        }
    }

    #[test]
    fn ordinary_keys_stay_as_they_are() {
        let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_der();
        for der in [bytes(SEC1), bytes(PKCS8), ed25519] {
            let key = in_full(PrivateKeyDer::try_from(der.clone()).unwrap());
            assert_eq!(key.secret_der(), der);
            any_supported_type(&key).unwrap();
        }
    }

    #[test]
    fn a_number_too_large_for_its_curve_stays_as_it_is() {
        let der = bytes(&SEC1_ZERO.replacen("042100", "042101", 1));
        assert_eq!(in_full(PrivateKeyDer::Sec1(der.clone().into())).secret_der(), der);
    }

    #[test]
    fn a_cut_or_changed_key_is_no_reason_to_panic() {
        for text in [SEC1_ZERO, PKCS8_ZERO, P384_ZERO, SHORT] {
            let der = bytes(text);
            for cut in 0..der.len() {
                let mut changed = vec![der[..cut].to_vec()];
                changed.extend((0..8).map(|bit| {
                    let mut changed = der.clone();
                    changed[cut] ^= 1 << bit;
                    changed
                }));
                for der in changed {
                    in_full(PrivateKeyDer::Sec1(der.clone().into()));
                    in_full(PrivateKeyDer::Pkcs8(der.into()));
                }
            }
        }
    }
}
