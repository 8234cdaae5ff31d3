use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertifiedIssuer;
use rcgen::IsCa;
use rcgen::KeyPair;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;

use super::*;
use crate::logging::Level;
use crate::logging::Sink;
use crate::net::socket::Address;
use crate::net::socket::Socket;
use crate::net::stream::Patience;
use crate::net::stream::Ready;

const LONG: Duration = Duration::from_secs(60);
pub(super) const SHORT: Duration = Duration::from_millis(50);

pub(super) fn soon() -> Instant {
    Instant::now() + LONG
}

/// Waits as long as a test may.
pub(super) fn patient() -> Patience {
    Patience::Until(soon())
}

/// A certificate authority with a folder for what is made under it.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate and its key.
pub(super) struct Pair {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: KeyPair,
}

impl Pair {
    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    fn sha1(&self) -> String {
        thumbprint::of(&self.certificate)
    }
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("authority {}", NEXT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca-cert.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    pub(super) fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { certificate: certificate.der().clone(), key }
    }

    pub(super) fn server(&self) -> Pair {
        self.issue(&["localhost", "127.0.0.1"], |_| ())
    }

    pub(super) fn settings(&self) -> TlsSettings {
        let mut settings = TlsSettings::default();
        settings.use_folder(self.folder.path());
        settings
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(super) fn config(pair: &Pair, version: &'static rustls::SupportedProtocolVersion) -> ServerConfig {
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.certificate.clone()], pair.key())
        .unwrap()
}

pub(super) const BOTH: [&rustls::SupportedProtocolVersion; 2] =
    [&rustls::version::TLS12, &rustls::version::TLS13];

type Served = rustls::StreamOwned<ServerConnection, TcpStream>;

/// A server for one connection, and the connected socket.
pub(super) fn plain<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (Box<dyn Stream>, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
    let served = thread::spawn(move || serve(listener.accept().unwrap().0));
    (Box::new(Socket::connect(&address, soon()).unwrap()), served)
}

pub(super) fn with_tls<T: Send + 'static>(
    config: ServerConfig,
    serve: impl FnOnce(&mut Served) -> io::Result<T> + Send + 'static,
) -> (Box<dyn Stream>, JoinHandle<io::Result<T>>) {
    plain(move |socket| {
        let tls = ServerConnection::new(Arc::new(config)).unwrap();
        serve(&mut Served::new(tls, socket))
    })
}

/// Gives back what comes, to the end.
pub(super) fn echo(served: &mut Served) -> io::Result<()> {
    let mut buf = vec![0; 40_000];
    loop {
        match served.read(&mut buf)? {
            0 => {
                served.conn.send_close_notify();
                return served.flush();
            }
            n => served.write_all(&buf[..n])?,
        }
    }
}

pub(super) fn wrap(settings: &TlsSettings, stream: Box<dyn Stream>, host: &str) -> Result<Box<dyn Stream>> {
    Tls::new(settings, Log::none()).unwrap().wrap(stream, host, soon())
}

pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn send_all(stream: &dyn Stream, bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        // A head, a body and a tail in odd sizes, as requests have them.
        let end = bytes.len().min(at + 300_000);
        let part = &bytes[at..end];
        let (head, body) = part.split_at(part.len().min(28));
        let (body, tail) = body.split_at(body.len() / 3);
        let parts = [IoSlice::new(head), IoSlice::new(body), IoSlice::new(&[]), IoSlice::new(tail)];
        at += stream.send(&parts, patient()).unwrap().unwrap();
    }
    assert!(stream.push(patient()).unwrap());
}

pub(super) fn recv_exact(stream: &dyn Stream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut at = 0;
    while at < length {
        let (head, body) = bytes[at..].split_at_mut((length - at).min(100));
        let mut parts = [IoSliceMut::new(head), IoSliceMut::new(body)];
        match stream.recv(&mut parts, patient()).unwrap() {
            Some(0) => panic!("the end after {at} of {length} bytes"),
            n => at += n.unwrap(),
        }
    }
    bytes
}

/// Sends and receives at once, and compares.
fn round_trip(stream: &dyn Stream, length: usize) {
    let bytes = pattern(length);
    thread::scope(|scope| {
        scope.spawn(|| send_all(stream, &bytes));
        assert!(recv_exact(stream, length) == bytes, "other bytes came back");
    });
}

#[test]
fn both_versions_carry_megabytes_in_both_directions_at_once() {
    let authority = Authority::new();
    for version in BOTH {
        let (socket, served) = with_tls(config(&authority.server(), version), echo);
        let stream = wrap(&authority.settings(), socket, "localhost").unwrap();
        assert!(stream.label().ends_with(" with TLS"));
        round_trip(&*stream, 16 << 20);
        stream.shutdown();
        served.join().unwrap().unwrap();
    }
}

#[test]
fn every_cipher_works() {
    let authority = Authority::new();
    let mut seen = 0;
    for suite in rustls::crypto::ring::ALL_CIPHER_SUITES {
        let name = format!("{:?}", suite.suite());
        if name.contains("ECDHE_RSA") {
            continue; // the certificate here is an ECDSA one
        }
        let server = authority.server();
        let only = rustls::crypto::CryptoProvider { cipher_suites: vec![*suite], ..(*provider()).clone() };
        let config = ServerConfig::builder_with_provider(Arc::new(only))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![server.certificate.clone()], server.key())
            .unwrap();
        let (socket, served) = with_tls(config, |served| {
            let result = echo(served);
            result.map(|()| format!("{:?}", served.conn.negotiated_cipher_suite().unwrap().suite()))
        });
        let stream = wrap(&authority.settings(), socket, "localhost").unwrap();
        round_trip(&*stream, 1_000_003);
        stream.shutdown();
        assert_eq!(served.join().unwrap().unwrap(), name);
        seen += 1;
    }
    assert_eq!(seen, 6);
}

/// Passes on single bytes, or nothing at all.
#[derive(Debug)]
struct Dribble(Box<dyn Stream>);

impl Stream for Dribble {
    fn send(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<Option<usize>> {
        let first = parts.iter().find(|part| !part.is_empty()).map_or(&[][..], |part| &part[..1]);
        self.0.send(&[IoSlice::new(first)], patience)
    }

    fn recv(&self, parts: &mut [IoSliceMut<'_>], patience: Patience) -> Result<Option<usize>> {
        let first = parts.iter_mut().find(|part| !part.is_empty()).unwrap();
        self.0.recv(&mut [IoSliceMut::new(&mut first[..1])], patience)
    }

    fn wait(&self, wanted: Ready, until: Instant) -> Result<Ready> {
        self.0.wait(wanted, until)
    }

    fn shutdown(&self) {
        self.0.shutdown();
    }

    fn label(&self) -> String {
        self.0.label()
    }
}

#[test]
fn single_bytes_are_put_together() {
    let authority = Authority::new();
    for version in BOTH {
        let (socket, served) = with_tls(config(&authority.server(), version), echo);
        let stream = wrap(&authority.settings(), Box::new(Dribble(socket)), "localhost").unwrap();
        round_trip(&*stream, 50_000);
        drop(stream);
        assert!(served.join().unwrap().is_err(), "a lost connection is not an end");
    }
}

#[test]
fn keys_change_while_data_flow() {
    let authority = Authority::new();
    let (socket, served) = with_tls(config(&authority.server(), &rustls::version::TLS13), |served| {
        let mut buf = vec![0; 20_000];
        loop {
            match served.read(&mut buf)? {
                0 => return Ok(()),
                n => {
                    // Announces new keys, and asks for ours.
                    served.conn.refresh_traffic_keys().map_err(io::Error::other)?;
                    served.write_all(&buf[..n])?;
                }
            }
        }
    });
    let stream = wrap(&authority.settings(), socket, "localhost").unwrap();
    round_trip(&*stream, 3 << 20);
    stream.shutdown();
    served.join().unwrap().unwrap();
}

/// What the client says to a server with this certificate.
pub(super) fn verdict(settings: &TlsSettings, pair: &Pair, host: &str) -> std::result::Result<(), ErrorKind> {
    let mut verdicts = Vec::new();
    for version in BOTH {
        let (socket, served) = with_tls(config(pair, version), echo);
        let stream = wrap(settings, socket, host);
        verdicts.push(stream.as_ref().map(|_| ()).map_err(Error::kind));
        if let Ok(stream) = stream {
            round_trip(&*stream, 1000);
            stream.shutdown();
        }
        let _ = served.join().unwrap(); // fails with the client's alert
    }
    assert_eq!(verdicts[0], verdicts[1], "TLS 1.2 and 1.3 differ");
    verdicts[0]
}

pub(super) const REFUSED: std::result::Result<(), ErrorKind> = Err(ErrorKind::CertificateRefused);

#[test]
fn only_the_right_server_is_taken() {
    let authority = Authority::new();
    let settings = authority.settings();
    let right = authority.server();
    assert_eq!(verdict(&settings, &right, "localhost"), Ok(()));
    assert_eq!(verdict(&settings, &right, "localhost."), Ok(()));
    assert_eq!(verdict(&settings, &right, "127.0.0.1"), Ok(()));
    assert_eq!(verdict(&settings, &right, "127.0.0.2"), REFUSED);
    assert_eq!(verdict(&settings, &right, "other.example"), REFUSED);
    assert_eq!(verdict(&settings, &Authority::new().server(), "localhost"), REFUSED);

    let expired =
        authority.issue(&["localhost"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    assert_eq!(verdict(&settings, &expired, "localhost"), REFUSED);
    let unborn =
        authority.issue(&["localhost"], |params| params.not_before = rcgen::date_time_ymd(3000, 1, 1));
    assert_eq!(verdict(&settings, &unborn, "localhost"), REFUSED);

    // The system's anchors know nothing of this authority.
    assert_eq!(verdict(&TlsSettings::default(), &right, "localhost"), REFUSED);
}

#[test]
fn a_name_that_no_certificate_can_be_for_is_refused_where_names_count() {
    let authority = Authority::new();
    let right = authority.server();
    for host in ["", "a b", "[::1]"] {
        let (socket, _served) = plain(|_| ());
        assert_eq!(
            wrap(&authority.settings(), socket, host).unwrap_err().kind(),
            ErrorKind::CertificateRefused
        );
        let pinned = TlsSettings { thumbprint: Some(right.sha1()), ..TlsSettings::default() };
        assert_eq!(verdict(&pinned, &right, host), Ok(()));
    }
}

#[test]
fn a_thumbprint_replaces_issuer_name_and_dates() {
    let authority = Authority::new();
    let server =
        authority.issue(&["elsewhere"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let sha256 = ring::digest::digest(&ring::digest::SHA256, &server.certificate);
    let sha256 = sha256.as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>();
    for given in [server.sha1(), sha256] {
        let pinned = TlsSettings { thumbprint: Some(given), ..TlsSettings::default() };
        assert_eq!(verdict(&pinned, &server, "localhost"), Ok(()));
        // Another certificate of the same authority, for the right name, in its time.
        let pinned = TlsSettings { ca_file: authority.settings().ca_file, ..pinned };
        assert_eq!(verdict(&pinned, &authority.server(), "localhost"), REFUSED);
        // It holds without verification, too.
        let pinned = TlsSettings { verify: false, ..pinned };
        assert_eq!(verdict(&pinned, &authority.server(), "localhost"), REFUSED);
    }
}

#[test]
fn without_verification_any_server_is_taken() {
    let settings = TlsSettings { verify: false, thumbprint: Some(" ".into()), ..TlsSettings::default() };
    assert_eq!(verdict(&settings, &Authority::new().server(), "elsewhere"), Ok(()));
}

/// Keeps lines.
#[derive(Default)]
struct Lines(Mutex<Vec<(Level, String)>>);

impl Sink for Lines {
    fn line(&self, level: Level, text: &str) {
        self.0.lock().push((level, text.to_owned()));
    }
}

#[test]
fn a_wrong_thumbprint_is_logged_in_the_words_that_programs_look_for() {
    let server = Authority::new().server();
    for given in ["12:34", "xx:xx:xx"] {
        let lines = Arc::new(Lines::default());
        let settings = TlsSettings { thumbprint: Some(given.into()), ..TlsSettings::default() };
        let tls = Tls::new(&settings, Log::new(lines.clone(), Level::Debug)).unwrap();
        let (socket, served) = with_tls(config(&server, &rustls::version::TLS13), echo);
        let e = tls.wrap(socket, "localhost", soon()).unwrap_err();
        served.join().unwrap().unwrap_err();
        assert!(e.to_string().contains(&server.sha1()), "{e}");
        let line = format!(
            "VixDiskLibVim: Failed to verify SSL certificate: actual thumbprint={} expected={given}",
            server.sha1()
        );
        assert_eq!(*lines.0.lock(), [(Level::Info, line)]);
    }
}

#[test]
fn a_server_that_wants_our_certificate_gets_it() {
    let authority = Authority::new();
    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).unwrap();
    let wants =
        || WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider()).build().unwrap();
    for version in BOTH {
        let server = authority.server();
        let config = || {
            ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[version])
                .unwrap()
                .with_client_cert_verifier(wants())
                .with_single_cert(vec![server.certificate.clone()], server.key())
                .unwrap()
        };
        let attempt = |settings: &TlsSettings| {
            let (socket, served) = with_tls(config(), echo);
            // With TLS 1.3 the client is done before the server looks at its certificate.
            let result = wrap(settings, socket, "localhost").and_then(|stream| {
                let _ = stream.send(&[IoSlice::new(b"hello")], patient());
                let got = stream.recv(&mut [IoSliceMut::new(&mut [0; 9])], patient());
                stream.shutdown();
                got
            });
            let _ = served.join().unwrap();
            result.map_err(|e| e.kind())
        };
        assert_eq!(attempt(&authority.settings()), Err(ErrorKind::Unauthorised), "{version:?}");

        let with_certificate = |pair: &Pair, folder: &Path| {
            let pem = pem(&pair.certificate);
            std::fs::write(folder.join("client-cert.pem"), pem).unwrap();
            std::fs::write(folder.join("client-key.pem"), pair.key.serialize_pem()).unwrap();
            let mut settings = authority.settings();
            settings.use_folder(folder);
            settings.ca_file = Some(authority.folder.path().join("ca-cert.pem"));
            settings
        };
        let folder = tempfile::tempdir().unwrap();
        let ours = authority.issue(&["client"], |_| ());
        assert_eq!(attempt(&with_certificate(&ours, folder.path())), Ok(Some(5)), "{version:?}");
        let foreign = Authority::new().issue(&["client"], |_| ());
        let refused = attempt(&with_certificate(&foreign, folder.path()));
        assert_eq!(refused, Err(ErrorKind::Unauthorised), "{version:?}");
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    // rustls and rcgen read PEM; neither writes that of a certificate that is DER already.
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in certificate.chunks(48) {
        for three in line.chunks(3) {
            let bits =
                three.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - three.len()));
            for digit in 0..4 {
                let index = (bits >> (18 - 6 * digit)) & 63;
                text.push(if digit > three.len() { '=' } else { DIGITS[index as usize] as char });
            }
        }
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

#[test]
fn files_that_are_of_no_use_say_why() {
    let authority = Authority::new();
    let folder = authority.folder.path();
    let ca = folder.join("ca-cert.pem");
    let empty = folder.join("empty");
    std::fs::write(&empty, "no PEM at all").unwrap();
    let other = folder.join("other-key.pem");
    std::fs::write(&other, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let kind = |ca: Option<&Path>, certificate: Option<&Path>, key: Option<&Path>| {
        let owned = |path: Option<&Path>| path.map(Path::to_path_buf);
        let settings = TlsSettings {
            ca_file: owned(ca),
            certificate_file: owned(certificate),
            key_file: owned(key),
            ..TlsSettings::default()
        };
        Tls::new(&settings, Log::none()).map(|_| ()).map_err(|e| e.kind())
    };
    assert_eq!(kind(Some(&ca), None, None), Ok(()));
    assert_eq!(kind(Some(&folder.join("none")), None, None), Err(ErrorKind::NotFound));
    assert_eq!(kind(Some(&empty), None, None), Err(ErrorKind::InvalidArgument));
    assert_eq!(kind(Some(&other), None, None), Err(ErrorKind::InvalidArgument));
    assert_eq!(kind(Some(folder), None, None), Err(ErrorKind::NotAFile));
    assert_eq!(kind(Some(&ca), Some(&ca), None), Err(ErrorKind::InvalidArgument));
    assert_eq!(kind(Some(&ca), None, Some(&other)), Err(ErrorKind::InvalidArgument));
    assert_eq!(kind(Some(&ca), Some(&ca), Some(&other)), Err(ErrorKind::InvalidArgument));
    assert_eq!(kind(Some(&ca), Some(&ca), Some(&empty)), Err(ErrorKind::InvalidArgument));
}

#[test]
fn approved_algorithms_alone_are_offered_where_that_is_asked() {
    let authority = Authority::new();
    let settings = TlsSettings { approved_only: true, ..authority.settings() };
    assert_eq!(verdict(&settings, &authority.server(), "localhost"), Ok(()));
    let offered = config::build(&settings, Vec::new(), Log::none()).unwrap();
    let provider = offered.crypto_provider();
    for suite in &provider.cipher_suites {
        assert!(format!("{suite:?}").contains("AES"), "{suite:?}");
    }
    assert!(provider.kx_groups.iter().all(|group| format!("{:?}", group.name()).starts_with("secp")));
}

#[test]
fn what_is_no_tls_is_refused() {
    for nonsense in
        [&b"NBDMAGICIHAVEOPT\0\x03"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x01\xff\xff"]
    {
        let (socket, served) = plain(move |mut peer| {
            let _ = peer.write_all(nonsense);
            peer.read_to_end(&mut Vec::new())
        });
        let e = wrap(&TlsSettings::default(), socket, "localhost").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Protocol, "{e}");
        let _ = served.join().unwrap();
    }
}

#[test]
fn a_server_that_falls_silent_is_given_up_in_time() {
    let authority = Authority::new();
    let settings = authority.settings();
    let tls = Tls::new(&settings, Log::none()).unwrap();
    // Silence from the beginning, and single bytes of a record for ever.
    for dribbles in [false, true] {
        let (socket, served) = plain(move |mut peer| {
            let mut record = vec![0x16, 3, 3, 0x40, 0];
            record.resize(0x4005, 0);
            for byte in record {
                if peer.write_all(&[byte]).is_err() {
                    break;
                }
                if dribbles {
                    thread::sleep(SHORT / 10);
                } else {
                    let _ = peer.read_to_end(&mut Vec::new());
                    break;
                }
            }
        });
        let begin = Instant::now();
        let e = tls.wrap(socket, "localhost", begin + SHORT * 3).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::TimedOut, "{e}");
        assert!(begin.elapsed() >= SHORT * 3 && begin.elapsed() < LONG / 2, "{:?}", begin.elapsed());
        served.join().unwrap();
    }
}

/// Bytes that a peer said once, said again up to a point, or with one of them changed.
#[derive(Debug)]
struct Replay {
    bytes: Vec<u8>,
    at: Mutex<usize>,
}

impl Stream for Replay {
    fn send(&self, parts: &[IoSlice<'_>], _patience: Patience) -> Result<Option<usize>> {
        Ok(Some(parts.iter().map(|part| part.len()).sum()))
    }

    fn recv(&self, parts: &mut [IoSliceMut<'_>], _patience: Patience) -> Result<Option<usize>> {
        let mut at = self.at.lock();
        let n = parts[0].len().min(self.bytes.len() - *at);
        parts[0][..n].copy_from_slice(&self.bytes[*at..*at + n]);
        *at += n;
        Ok(Some(n))
    }

    fn wait(&self, wanted: Ready, _until: Instant) -> Result<Ready> {
        Ok(wanted)
    }

    fn shutdown(&self) {}

    fn label(&self) -> String {
        "replay".into()
    }
}

#[test]
fn a_recorded_server_is_refused_at_every_length_and_with_every_change() {
    // The first flight of a server: a hello for another client's random number, and all that follows.
    let authority = Authority::new();
    let settings = authority.settings();
    let tls = Tls::new(&settings, Log::none()).unwrap();
    for version in BOTH {
        let mut server = ServerConnection::new(Arc::new(config(&authority.server(), version))).unwrap();
        let mut client =
            UnbufferedClientConnection::new(Arc::clone(&tls.0.config), tls.name("localhost").unwrap())
                .unwrap();
        let mut hello = vec![0; 4096];
        let length = match client.process_tls_records(&mut []).state.unwrap() {
            rustls::unbuffered::ConnectionState::EncodeTlsData(mut state) => {
                state.encode(&mut hello).unwrap()
            }
            state => panic!("{state:?}"),
        };
        server.read_tls(&mut &hello[..length]).unwrap();
        server.process_new_packets().unwrap();
        let mut flight = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut flight).unwrap();
        }
        let attempt = |bytes: Vec<u8>| {
            let replay = Replay { bytes, at: Mutex::new(0) };
            tls.wrap(Box::new(replay), "localhost", soon()).map(|_| ()).unwrap_err().kind()
        };
        for cut in 0..flight.len() {
            let kind = attempt(flight[..cut].to_vec());
            assert!(matches!(kind, ErrorKind::ConnectionLost | ErrorKind::Protocol), "{cut}: {kind:?}");
        }
        for at in (0..flight.len()).step_by(3) {
            let mut changed = flight.clone();
            changed[at] ^= 1 << (at % 8);
            let kind = attempt(changed);
            let known = [ErrorKind::Protocol, ErrorKind::ConnectionLost, ErrorKind::CertificateRefused];
            assert!(known.contains(&kind), "{at}: {kind:?}");
        }
    }
}

#[test]
fn an_end_without_farewell_is_a_lost_connection() {
    let authority = Authority::new();
    for (version, polite) in BOTH.iter().flat_map(|v| [(*v, false), (*v, true)]) {
        let (socket, served) = with_tls(config(&authority.server(), version), move |served| {
            served.write_all(b"hello")?;
            if polite {
                served.conn.send_close_notify();
            }
            served.flush()?;
            served.sock.shutdown(std::net::Shutdown::Write)?;
            let _ = served.sock.read_to_end(&mut Vec::new());
            Ok(())
        });
        let stream = wrap(&authority.settings(), socket, "localhost").unwrap();
        assert_eq!(recv_exact(&*stream, 5), b"hello");
        for _ in 0..2 {
            let end = stream.recv(&mut [IoSliceMut::new(&mut [0; 9])], patient());
            match polite {
                true => assert_eq!(end.unwrap(), Some(0)),
                false => assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionLost),
            }
        }
        stream.shutdown();
        served.join().unwrap().unwrap();
    }
}

#[test]
fn a_changed_repeated_or_plain_record_is_refused() {
    let authority = Authority::new();
    for version in BOTH {
        for attack in 0..4 {
            let (socket, served) = with_tls(config(&authority.server(), version), move |served| {
                served.write_all(b"hello")?; // completes the handshake
                let mut record = Vec::new();
                served.conn.writer().write_all(&[7; 1000])?;
                while served.conn.wants_write() {
                    served.conn.write_tls(&mut record)?;
                }
                match attack {
                    0 => record[500] ^= 1,
                    1 => record.extend_from_within(..), // the second one comes under a used number
                    2 => record = [&[0x17, 3, 3, 0, 5][..], b"plain"].concat(),
                    _ => record = vec![0x15, 3, 3, 0, 2, 1, 0], // a farewell that anybody could say
                }
                served.sock.write_all(&record)?;
                let _ = served.sock.read_to_end(&mut Vec::new());
                Ok(())
            });
            let stream = wrap(&authority.settings(), socket, "localhost").unwrap();
            assert_eq!(recv_exact(&*stream, 5), b"hello");
            let mut buf = [0; 3000];
            let e = loop {
                match stream.recv(&mut [IoSliceMut::new(&mut buf)], patient()) {
                    Ok(n) => assert_eq!((attack, n), (1, Some(1000))),
                    Err(e) => break e,
                }
            };
            assert_eq!(e.kind(), ErrorKind::Protocol, "{version:?} attack {attack}: {e}");
            let again = stream.recv(&mut [IoSliceMut::new(&mut buf)], patient()).unwrap_err();
            assert_eq!(again.kind(), ErrorKind::Protocol);
            stream.shutdown();
            served.join().unwrap().unwrap();
        }
    }
}

#[test]
fn bytes_that_were_fetched_count_as_ready() {
    let authority = Authority::new();
    let (socket, served) = with_tls(config(&authority.server(), &rustls::version::TLS13), |served| {
        served.write_all(&[1; 100])?;
        served.write_all(&[2; 100])?;
        served.flush()?;
        served.read(&mut [0; 1]).map(drop)
    });
    let stream = wrap(&authority.settings(), socket, "localhost").unwrap();
    let wanted = Ready { recv: true, send: false };
    assert_eq!(stream.wait(wanted, soon()).unwrap(), wanted);
    // Fetches both records sooner or later, and takes them byte by byte.
    for i in 0..200 {
        assert_eq!(stream.wait(wanted, soon()).unwrap(), wanted, "byte {i}");
        assert_eq!(recv_exact(&*stream, 1), [if i < 100 { 1 } else { 2 }]);
    }
    assert_eq!(stream.wait(wanted, Instant::now() + SHORT).unwrap(), Ready::default());
    assert_eq!(stream.recv(&mut [IoSliceMut::new(&mut [0])], Patience::None).unwrap(), None);
    assert_eq!(
        stream.wait(Ready { send: true, ..wanted }, soon()).unwrap(),
        Ready { send: true, recv: false }
    );
    stream.shutdown();
    served.join().unwrap().unwrap();
}

#[test]
fn shutdown_ends_the_waits_of_both_halves() {
    let authority = Authority::new();
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let (socket, served) = with_tls(config(&authority.server(), &rustls::version::TLS13), move |served| {
        served.write_all(b"x")?;
        let _ = gate.recv();
        Ok(())
    });
    let stream = wrap(&authority.settings(), socket, "localhost").unwrap();
    recv_exact(&*stream, 1);
    thread::scope(|scope| {
        let receiving = scope.spawn(|| stream.recv(&mut [IoSliceMut::new(&mut [0])], patient()));
        let sending = scope.spawn(|| {
            let much = vec![0; 1 << 20];
            while stream.send(&[IoSlice::new(&much)], patient()).is_ok() {}
        });
        thread::sleep(SHORT);
        let begin = Instant::now();
        stream.shutdown();
        assert_eq!(receiving.join().unwrap().unwrap_err().kind(), ErrorKind::ConnectionLost);
        sending.join().unwrap();
        assert!(begin.elapsed() < LONG / 2);
    });
    drop(go);
    served.join().unwrap().unwrap();
}
