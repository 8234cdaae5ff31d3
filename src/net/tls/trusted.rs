//! Tests of servers whose own certificate is the one that the user named, and of the words for those that are refused.

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::KeyPair;
use tempfile::NamedTempFile;

use super::TlsSettings;
use super::tests::Authority;
use super::tests::Pair;
use super::tests::REFUSED;
use super::tests::config;
use super::tests::echo;
use super::tests::verdict;
use super::tests::with_tls;
use super::tests::wrap;

/// A certificate for `localhost` that its own key signed.
fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> Pair {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    Pair { certificate: params.self_signed(&key).unwrap().der().clone(), key }
}

/// As `openssl req -x509` makes them.
fn authority(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

/// A file with these certificates, and settings that name it.
fn naming(pairs: &[&Pair]) -> (NamedTempFile, TlsSettings) {
    let file = NamedTempFile::new().unwrap();
    let text: String = pairs
        .iter()
        .map(|pair| {
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64(&pair.certificate))
        })
        .collect();
    std::fs::write(file.path(), text).unwrap();
    let settings = TlsSettings { ca_file: Some(file.path().to_owned()), ..TlsSettings::default() };
    (file, settings)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks(3)
        .flat_map(|three| {
            let group = (0..3).fold(0, |group, i| group << 8 | u32::from(*three.get(i).unwrap_or(&0)));
            (0..4).map(move |i| match i <= three.len() {
                true => char::from(DIGITS[(group >> (18 - 6 * i) & 63) as usize]),
                false => '=',
            })
        })
        .collect()
}

#[test]
fn a_certificate_that_the_user_named_is_the_servers() {
    let plain = self_signed(|_| ());
    let of_authority = self_signed(authority);
    let by_unknown = Authority::new().server();
    let (_file, settings) = naming(&[&plain, &of_authority, &by_unknown]);
    for pair in [&plain, &of_authority, &by_unknown] {
        assert_eq!(verdict(&settings, pair, "localhost"), Ok(()));
        assert_eq!(verdict(&settings, pair, "other.example"), REFUSED);
    }
}

#[test]
fn another_self_signed_certificate_is_refused() {
    for change in [|_: &mut CertificateParams| (), authority] {
        // The same names in it, which say nothing.
        let (ours, theirs) = (self_signed(change), self_signed(change));
        let (_file, settings) = naming(&[&ours]);
        assert_eq!(verdict(&settings, &ours, "localhost"), Ok(()));
        assert_eq!(verdict(&settings, &theirs, "localhost"), REFUSED);
    }
}

#[test]
fn the_named_certificate_with_another_key_is_refused() {
    let ours = self_signed(authority);
    let (_file, settings) = naming(&[&ours]);
    let thief = Pair { certificate: ours.certificate.clone(), key: KeyPair::generate().unwrap() };
    for version in super::tests::BOTH {
        let (socket, served) = with_tls(stolen(&thief, version), echo);
        let e = wrap(&settings, socket, "localhost").unwrap_err();
        assert!(e.to_string().contains("did not prove that it has the key"), "{e}");
        assert!(served.join().unwrap().is_err());
    }
}

/// rustls would not serve a certificate with a key that is not its own.
fn stolen(thief: &Pair, version: &'static rustls::SupportedProtocolVersion) -> rustls::ServerConfig {
    let key = rustls::crypto::ring::sign::any_supported_type(&thief.key()).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![thief.certificate.clone()], key);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(std::sync::Arc::new(rustls::sign::SingleCertAndKey::from(certified)))
}

#[test]
fn dates_and_purpose_of_a_named_certificate_count() {
    let expired = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let unborn = |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(3000, 1, 1);
    let clients =
        self_signed(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let pairs = [
        self_signed(expired),
        self_signed(unborn),
        self_signed(|params| (authority(params), expired(params)).1),
        self_signed(|params| (authority(params), unborn(params)).1),
        Authority::new().issue(&["localhost"], expired),
        clients,
    ];
    let (_file, settings) = naming(&pairs.iter().collect::<Vec<_>>());
    for (i, pair) in pairs.iter().enumerate() {
        assert_eq!(verdict(&settings, pair, "localhost"), REFUSED, "{i}");
    }
}

/// Why a server with this certificate is refused.
fn refusal(settings: &TlsSettings, pair: &Pair, host: &str) -> String {
    let (socket, served) = with_tls(config(pair, &rustls::version::TLS13), echo);
    let said = wrap(settings, socket, host).unwrap_err().to_string();
    assert!(served.join().unwrap().is_err());
    said
}

#[test]
fn refusals_are_told_in_plain_words() {
    let vouching = Authority::new();
    let settings = vouching.settings();
    let right = vouching.server();
    let expired =
        vouching.issue(&["localhost"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let unborn =
        vouching.issue(&["localhost"], |params| params.not_before = rcgen::date_time_ymd(3000, 1, 1));
    let nameless = vouching.issue(&[], |_| ());
    let clients = vouching.issue(&["localhost"], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let (ours, theirs) = (self_signed(|_| ()), self_signed(|_| ()));
    let (_file, naming) = naming(&[&ours]);
    let pinned = TlsSettings { thumbprint: Some("12:34".into()), ..TlsSettings::default() };
    let host = "localhost";
    for (settings, pair, host, words) in [
        (&settings, &theirs, host, "nobody who is trusted vouches for it"),
        (&settings, &self_signed(authority), host, "it is an authority's and not a server's"),
        (&settings, &expired, host, "it expired "),
        (&settings, &unborn, host, "its time begins only in "),
        (
            &settings,
            &right,
            "other.example",
            "it should be for \"other.example\" but is for localhost, 127.0.0.1",
        ),
        (&settings, &nameless, host, "it should be for \"localhost\" but has no names"),
        (&settings, &clients, host, "it is not for servers"),
        (&naming, &theirs, host, "the authority that it names has not signed it"),
        (&pinned, &right, host, "its thumbprint is "),
    ] {
        let said = refusal(settings, pair, host);
        assert!(said.contains(&format!("the server's certificate is refused: {words}")), "{said}");
        for inside in ["Other", "Error", "Context", "Mismatch", "DnsName", "(\"", "UNIX"] {
            assert!(!said.contains(inside), "{inside}: {said}");
        }
    }
}
