//! The door of a host: its TLS, the ticket, the service, and the second TLS behind it. What a host may say there, and how
//! it may lie.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use common::model;
use common::nfc_peer;
use common::nfc_peer::After;
use common::nfc_peer::Disk;
use common::nfc_peer::Host;
use common::nfc_peer::Talk;
use common::tools;
use ring::digest;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::pem::PemObject;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Level;
use vixDiskLib::logging::Log;
use vixDiskLib::logging::Sink;
use vixDiskLib::net::nfc::Compression;
use vixDiskLib::net::nfc::authd::Banner;
use vixDiskLib::net::nfc::classic;
use vixDiskLib::net::nfc::client::Buffers;
use vixDiskLib::net::nfc::client::Client;
use vixDiskLib::net::nfc::client::Dial;
use vixDiskLib::net::nfc::client::Options;
use vixDiskLib::net::nfc::client::Tickets;
use vixDiskLib::net::nfc::ticket::HostIdentity;
use vixDiskLib::net::nfc::ticket::Ticket;
use vixDiskLib::net::tls::TlsSettings;
use vixDiskLib::secret::Secret;
use vixDiskLib::threads::Threads;

const SECTORS: u64 = 256;
const PATIENT: Duration = Duration::from_secs(30);
const IMPATIENT: Duration = Duration::from_millis(250);
const BOUNDED: Duration = Duration::from_secs(20);
const CANARY: &str = "52cdebc5-b7ee-359a-canary-76f0bc105ac5";
const ALL: Banner = Banner { tls: true, secure_data: true, sha256: true };
const VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// A certificate and its key.
struct Identity {
    certificate: CertificateDer<'static>,
    key: Arc<CertifiedKey>,
}

impl Identity {
    fn new() -> Identity {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        Self::of(made.cert.der().clone(), &key)
    }

    /// The key is not compared with the certificate, which rustls could not read.
    fn of(certificate: CertificateDer<'static>, key: &PrivateKeyDer<'static>) -> Identity {
        let key = any_supported_type(key).unwrap();
        let key = Arc::new(CertifiedKey::new(vec![certificate.clone()], key));
        Identity { certificate, key }
    }

    /// An X.509 version 1 certificate, as hosts of old have them.
    fn version_1() -> Identity {
        let folder = common::scratch::folder();
        let file = |name: &str| folder.path().join(name);
        let mut command = Command::new("openssl");
        command.args(["req", "-new", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=esxi", "-keyout"]);
        tools::check(command.arg(file("key")).arg("-out").arg(file("request")));
        let mut command = Command::new("openssl");
        command.args(["x509", "-req", "-days", "30", "-in"]).arg(file("request")).arg("-signkey");
        tools::check(command.arg(file("key")).arg("-out").arg(file("certificate")));
        let mut command = Command::new("openssl");
        let text = tools::check(command.args(["x509", "-noout", "-text", "-in"]).arg(file("certificate")));
        assert!(text.out().contains("Version: 1 (0x0)"), "{}", text.out());
        let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
        Self::of(CertificateDer::from_pem_file(file("certificate")).unwrap(), &key)
    }

    fn config(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let resolver = Arc::new(SingleCertAndKey::from(self.key.as_ref().clone()));
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        Arc::new(config)
    }

    fn thumbprint(&self, algorithm: &'static digest::Algorithm) -> String {
        let digest = digest::digest(algorithm, &self.certificate);
        digest.as_ref().iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":")
    }

    fn sha1(&self) -> String {
        self.thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY)
    }

    fn sha256(&self) -> String {
        self.thumbprint(&digest::SHA256)
    }
}

/// Tickets for a port of this machine, counted.
#[derive(Debug)]
struct Counted {
    port: u16,
    host: Option<String>,
    identity: Option<HostIdentity>,
    given: AtomicUsize,
}

impl Counted {
    fn new(port: u16, identity: Option<HostIdentity>) -> Arc<Counted> {
        Arc::new(Counted { port, host: Some("127.0.0.1".to_owned()), identity, given: AtomicUsize::new(0) })
    }

    fn given(&self) -> usize {
        self.given.load(Ordering::SeqCst)
    }
}

impl Tickets for Counted {
    fn ticket(&self, _until: Instant) -> Result<Ticket> {
        self.given.fetch_add(1, Ordering::SeqCst);
        Ok(Ticket {
            host: self.host.clone(),
            port: self.port,
            identity: self.identity.clone(),
            service: "vpxa-nfc".to_owned(),
            id: Secret::from(CANARY.to_owned()),
        })
    }
}

fn dial(tickets: &Arc<Counted>, ssl: bool) -> Dial {
    Dial {
        tickets: tickets.clone(),
        login_host: "127.0.0.1".to_owned(),
        nfc_port: None,
        path: "[ds] vm/vm.vmdk".to_owned(),
        write: false,
        ssl,
        compression: Compression::None,
        buffers: Buffers::default(),
        tls: TlsSettings::default(),
        any_second_certificate: false,
        client_name: classic::CLIENT.to_owned(),
    }
}

fn options(connect: Duration) -> Options {
    Options { connect, reconnect: Duration::ZERO, read: PATIENT, ..Options::default() }
}

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Sink for Lines {
    fn line(&self, _: Level, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// Connects, and asserts that nothing that is said holds the ticket's id.
fn connect_within(dial: Dial, time: Duration) -> (Result<Arc<Client>>, Vec<String>) {
    let lines = Arc::<Lines>::default();
    let log = Log::new(lines.clone(), Level::Debug);
    let client = Client::connect(dial, &options(time), log, Arc::new(Threads::new(|body| body())));
    let lines = lines.0.lock().unwrap().clone();
    let said = client.as_ref().err().map(|error| format!("{error} {error:?}")).into_iter();
    for text in lines.iter().cloned().chain(said) {
        assert!(!text.to_lowercase().contains("canary"), "{text}");
    }
    (client, lines)
}

fn connect(dial: Dial) -> Result<Arc<Client>> {
    connect_within(dial, PATIENT).0
}

fn disk() -> Disk {
    Disk::new(model::stamps(0, SECTORS, 1))
}

fn read_all(client: &Client) {
    let mut all = vec![0; SECTORS as usize * 512];
    client.read(&mut all, 0).unwrap();
    assert!(all == model::stamps(0, SECTORS, 1));
    client.close();
}

/// A host as it should be, with another certificate behind its door if there is one.
fn host(
    banner: Banner,
    door: &Identity,
    behind: Option<&Identity>,
    version: &'static rustls::SupportedProtocolVersion,
) -> Host {
    let (first, sha256) = (door.config(&[version]), behind.unwrap_or(door).sha256());
    let second = behind.unwrap_or(door).config(&[version]);
    Host::new(move |_, talk| {
        let service = talk.door(banner, &first, &sha256)?;
        if service.ends_with("ssl") {
            talk.start_tls(&second)?;
        }
        nfc_peer::serve(talk, &disk())
    })
}

fn thumbprint(text: String) -> Option<HostIdentity> {
    Some(HostIdentity::Thumbprint(text))
}

#[test]
fn every_way_to_name_the_host_opens_its_door_with_both_versions_of_tls() {
    let identity = Identity::new();
    for version in VERSIONS {
        for ssl in [false, true] {
            for named in [
                thumbprint(identity.sha1()),
                thumbprint(identity.sha1().to_lowercase().replace(':', "")),
                thumbprint(identity.sha256()),
                Some(HostIdentity::Certificate(identity.certificate.to_vec())),
                None,
            ] {
                let host = host(ALL, &identity, None, version);
                let tickets = Counted::new(host.port(), named.clone());
                let mut dial = dial(&tickets, ssl);
                if named.is_none() {
                    dial.tls.thumbprint = Some(identity.sha1()); // a bare host: the certificate of its other port
                }
                let (client, lines) = connect_within(dial, PATIENT);
                let client = client.unwrap();
                read_all(&client);
                let service = if ssl { "vpxa-nfcssl" } else { "vpxa-nfc" };
                let url = format!("{service}://[ds] vm/vm.vmdk@127.0.0.1:{}", host.port());
                assert_eq!(
                    (client.opened().url.as_str(), client.opened().service.as_str()),
                    (url.as_str(), service)
                );
                let line = format!("NBD_ClientOpen: attempting to create connection to {url}");
                assert!(lines.contains(&line), "{lines:?}");
                assert_eq!(tickets.given(), 1);
            }
        }
    }
}

#[test]
fn another_host_behind_the_door_is_refused_and_its_thumbprint_told() {
    let (identity, other) = (Identity::new(), Identity::new());
    for version in VERSIONS {
        for (named, expected) in [
            (HostIdentity::Thumbprint(other.sha1()), other.sha1()),
            (HostIdentity::Certificate(other.certificate.to_vec()), other.sha1()),
            (HostIdentity::Thumbprint("nonsense".to_owned()), "nonsense".to_owned()),
        ] {
            let host = host(ALL, &identity, None, version);
            let tickets = Counted::new(host.port(), Some(named));
            let (client, lines) = connect_within(dial(&tickets, true), PATIENT);
            let error = client.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::CertificateRefused, "{error}");
            let line = format!(
                "VixDiskLibVim: Failed to verify SSL certificate: actual thumbprint={} expected={expected}",
                identity.sha1()
            );
            assert!(lines.contains(&line), "{lines:?}");
            assert_eq!(tickets.given(), 1, "another ticket would not help");
        }
    }
}

#[test]
fn without_a_name_for_the_host_somebody_has_to_vouch_for_it() {
    let identity = Identity::new();
    let host = host(ALL, &identity, None, VERSIONS[1]);
    let error = connect(dial(&Counted::new(host.port(), None), false)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CertificateRefused, "{error}");
}

#[test]
fn the_second_certificate_has_to_be_known() {
    let (identity, other) = (Identity::new(), Identity::new());
    for version in VERSIONS {
        let named = thumbprint(identity.sha1());
        // The host says the digest of the other one inside of the first TLS.
        let told = host(ALL, &identity, Some(&other), version);
        read_all(&connect(dial(&Counted::new(told.port(), named.clone()), true)).unwrap());
        // It does not.
        let silent = host(Banner { sha256: false, ..ALL }, &identity, Some(&other), version);
        let error = connect(dial(&Counted::new(silent.port(), named.clone()), true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CertificateRefused, "{error}");
        // And nobody cares.
        let any = Dial { any_second_certificate: true, ..dial(&Counted::new(silent.port(), named), true) };
        read_all(&connect(any).unwrap());
    }
}

#[test]
fn what_a_host_cannot_do_is_not_supported() {
    let identity = Identity::new();
    for (banner, ssl) in [
        (Banner { tls: false, ..ALL }, false),
        (Banner { tls: false, ..ALL }, true),
        (Banner { secure_data: false, ..ALL }, true),
    ] {
        let host = host(banner, &identity, None, VERSIONS[0]);
        let tickets = Counted::new(host.port(), thumbprint(identity.sha1()));
        let error = connect(dial(&tickets, ssl)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotSupported, "{banner:?}: {error}");
    }
    let old = Banner { secure_data: false, sha256: false, ..ALL };
    let host = host(old, &identity, None, VERSIONS[0]);
    read_all(&connect(dial(&Counted::new(host.port(), thumbprint(identity.sha1())), false)).unwrap());
}

/// A certificate that no parser of this library reads is as good as any other where it is pinned.
#[test]
fn a_certificate_of_version_1_is_taken_where_a_ticket_names_it() {
    requires!("openssl");
    let identity = Identity::version_1();
    for version in VERSIONS {
        let host = host(ALL, &identity, None, version);
        for named in
            [thumbprint(identity.sha1()), Some(HostIdentity::Certificate(identity.certificate.to_vec()))]
        {
            read_all(&connect(dial(&Counted::new(host.port(), named), true)).unwrap());
        }
        let error = connect(dial(&Counted::new(host.port(), None), true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CertificateRefused, "{error}");
    }
}

/// Serves the door by hand: `answer` gets each line, and the service when all is well.
fn doorman(
    identity: &Identity,
    answer: impl Fn(usize, &mut Talk, &str) -> std::io::Result<bool> + Send + Sync + 'static,
) -> Host {
    let config = identity.config(&VERSIONS);
    Host::new(move |n, talk| {
        talk.raw(&ALL.reply().encode())?;
        talk.start_tls(&config)?;
        loop {
            let line = String::from_utf8(talk.line()?).unwrap();
            if answer(n, talk, line.trim_end_matches(['\r', '\n']))? {
                talk.leave_tls();
                return nfc_peer::serve(talk, &disk());
            }
        }
    })
}

fn usual(talk: &mut Talk, line: &str) -> std::io::Result<bool> {
    match line {
        "BANNER " => talk.raw(&ALL.reply().encode())?,
        "THUMBPRINT_SHA2 PlainText" => talk.raw(b"200 AA:BB\r\n")?,
        line if line.starts_with("PROXY ") => {
            talk.raw(b"200 Connect ha-nfc\r\n")?;
            return Ok(true);
        }
        line => assert_eq!(line, format!("SESSION {CANARY}")),
    }
    Ok(false)
}

#[test]
fn a_refused_ticket_is_replaced_once() {
    let identity = Identity::new();
    for always in [false, true] {
        for at in ["BANNER", "PROXY"] {
            let host = doorman(&identity, move |n, talk, line| {
                if line.starts_with(at) && (always || n == 0) {
                    talk.raw(b"530 Login incorrect\r\n")?;
                    return Ok(false);
                }
                usual(talk, line)
            });
            let tickets = Counted::new(host.port(), thumbprint(identity.sha1()));
            let client = connect(dial(&tickets, false));
            assert_eq!(tickets.given(), 2);
            match client {
                Ok(client) if !always => read_all(&client),
                Err(error) if always => {
                    assert_eq!(error.kind(), ErrorKind::TicketRefused, "{error}");
                    assert!(error.to_string().contains("530 Login incorrect"), "{error}");
                }
                other => panic!("{at} {always}: {other:?}"),
            }
        }
    }
}

#[test]
fn each_message_of_the_handshake_is_a_record_of_its_own() {
    let identity = Identity::new();
    let config = identity.config(&[VERSIONS[0]]);
    let sha256 = identity.sha256();
    let lengths: Arc<Mutex<Vec<usize>>> = Arc::default();
    let seen = Arc::clone(&lengths);
    let host = Host::new(move |_, talk| {
        talk.door(ALL, &config, &sha256)?;
        talk.start_tls(&config)?;
        let record = |talk: &mut Talk| -> std::io::Result<()> {
            talk.record()?;
            let mut bytes = vec![0; 1 << 14];
            let length = std::io::Read::read(&mut talk.tls().reader(), &mut bytes)?;
            seen.lock().unwrap().push(length);
            Ok(())
        };
        (0..3).try_for_each(|_| record(talk))?;
        talk.say(classic::Message::Version { number: 11, second: 0 })?;
        talk.say(classic::Message::ParametersReply { versions: 1 })?;
        (0..5).try_for_each(|_| record(talk))?;
        talk.say(classic::Message::Frames)?;
        nfc_peer::serve_frames(talk, &disk())
    });
    read_all(&connect(dial(&Counted::new(host.port(), thumbprint(identity.sha1())), true)).unwrap());
    assert_eq!(*lengths.lock().unwrap(), [264, 264, 264, 264, 4, 7, 264, 264]);
}

#[test]
fn where_a_ticket_leads_can_be_overruled() {
    let identity = Identity::new();
    let host = host(ALL, &identity, None, VERSIONS[1]);
    let named = thumbprint(identity.sha1());
    let tickets = Arc::new(Counted { port: 1, host: None, identity: named, given: AtomicUsize::new(0) });
    let there = Dial { nfc_port: Some(host.port()), ..dial(&tickets, true) };
    let client = connect(there).unwrap();
    assert_eq!((client.opened().host.as_str(), client.opened().port), ("127.0.0.1", host.port()));
    read_all(&client);
    let error = connect(dial(&tickets, true)).unwrap_err(); // the ticket's own port, where nobody listens
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
}

#[test]
fn what_is_no_door_is_a_protocol_error() {
    let identity = Identity::new();
    let greetings: &[(&str, &[u8])] = &[
        ("a web server", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ("an empty line", b"\r\n"),
        ("another code", b"421 SSL Required, NFCSSL supported, too many connections\r\n"),
        ("a line without end", &[b'2'; 5000]),
        ("zeros", &[0; 4096]),
    ];
    for (what, greeting) in greetings {
        let greeting = greeting.to_vec();
        let host = Host::new(move |_, talk| {
            talk.raw(&greeting)?;
            talk.hold()
        });
        let error = connect(dial(&Counted::new(host.port(), thumbprint(identity.sha1())), true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{what}: {error}");
    }
    // Endless, and never a line.
    let host = Host::new(|_, talk| {
        loop {
            talk.raw(b"220 SSL Required ")?;
        }
    });
    let error = connect(dial(&Counted::new(host.port(), thumbprint(identity.sha1())), true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
}

#[test]
fn lies_inside_of_the_first_tls_are_errors() {
    type Lie = fn(&mut Talk, &str) -> std::io::Result<bool>;
    let lies: &[(&str, &[ErrorKind], Lie)] = &[
        ("no digits", &[ErrorKind::Protocol], |talk, line| match line {
            "BANNER " => talk.raw(b"hello there\r\n").map(|()| false),
            line => usual(talk, line),
        }),
        ("a line without end", &[ErrorKind::Protocol], |talk, line| match line {
            "BANNER " => talk.raw(&[b'2'; 3000]).map(|()| false),
            line => usual(talk, line),
        }),
        ("bytes behind the last line", &[ErrorKind::Protocol], |talk, line| match line {
            line if line.starts_with("PROXY") => {
                talk.raw(b"200 Connect ha-nfc\r\n$\0\0\0")?;
                talk.hold().map(|()| false)
            }
            line => usual(talk, line),
        }),
        ("a farewell of TLS behind the last line", &[ErrorKind::Protocol], |talk, line| match line {
            line if line.starts_with("PROXY") => {
                std::io::Write::write_all(&mut talk.tls().writer(), b"200 Connect ha-nfc\r\n")?;
                talk.tls().send_close_notify();
                talk.raw(b"")?;
                talk.leave_tls();
                talk.hold().map(|()| false)
            }
            line => usual(talk, line),
        }),
        ("a farewell of TLS instead of an answer", &[ErrorKind::ConnectionLost], |talk, line| match line {
            "BANNER " => {
                talk.tls().send_close_notify();
                talk.raw(b"")?;
                talk.hold().map(|()| false)
            }
            line => usual(talk, line),
        }),
        ("the end instead of an answer", &[ErrorKind::ConnectionLost], |talk, line| match line {
            line if line.starts_with("PROXY") => Err(nfc_peer::closed()),
            line => usual(talk, line),
        }),
        ("records of garbage", &[ErrorKind::Protocol], |talk, line| match line {
            "BANNER " => {
                talk.push(&[0x17, 3, 3, 0, 32])?;
                talk.push(&[9; 32])?;
                talk.hold().map(|()| false)
            }
            line => usual(talk, line),
        }),
    ];
    let identity = Identity::new();
    for &(what, kinds, lie) in lies {
        let host = doorman(&identity, move |_, talk, line| lie(talk, line));
        let tickets = Counted::new(host.port(), thumbprint(identity.sha1()));
        let start = Instant::now();
        let error = connect(dial(&tickets, false)).expect_err(what);
        assert!(kinds.contains(&error.kind()), "{what}: {:?} {error}", error.kind());
        assert!(start.elapsed() < BOUNDED, "{what}: {:?}", start.elapsed());
    }
}

/// The bytes that a host sends until the disk is open.
fn length_of_opening(identity: &Identity, ssl: bool) -> u64 {
    let host = host(ALL, identity, None, VERSIONS[1]);
    let client = connect(dial(&Counted::new(host.port(), thumbprint(identity.sha1())), ssl)).unwrap();
    let sent = host.sent() as u64;
    client.close();
    sent
}

fn cut_host(identity: &Identity, cut: u64, after: After) -> Host {
    let (config, sha256) = (identity.config(&[VERSIONS[1]]), identity.sha256());
    Host::behind(
        move |_| Some((cut, after)),
        move |_, talk| {
            let service = talk.door(ALL, &config, &sha256)?;
            if service.ends_with("ssl") {
                talk.start_tls(&config)?;
            }
            nfc_peer::serve(talk, &disk())
        },
    )
}

#[test]
fn the_way_in_may_end_at_each_byte() {
    let identity = Identity::new();
    for ssl in [false, true] {
        let length = length_of_opening(&identity, ssl) - 40; // signatures differ in length
        for cut in (0..length).filter(|at| at % 3 == 0) {
            let host = cut_host(&identity, cut, After::Close);
            let error = connect(dial(&Counted::new(host.port(), thumbprint(identity.sha1())), ssl))
                .expect_err("the connection was cut");
            let kind = if cut == 0 { ErrorKind::HostFull } else { ErrorKind::ConnectionLost };
            assert_eq!(error.kind(), kind, "cut at {cut}: {error}");
        }
    }
}

#[test]
fn silence_on_the_way_in_ends_in_time() {
    let identity = Identity::new();
    let length = length_of_opening(&identity, true) - 40;
    let cuts: Vec<u64> = (0..length).filter(|at| at % 41 == 0).collect();
    std::thread::scope(|scope| {
        for cuts in cuts.chunks(cuts.len().div_ceil(16)) {
            let identity = &identity;
            scope.spawn(move || {
                for &cut in cuts {
                    let host = cut_host(identity, cut, After::Silence);
                    let tickets = Counted::new(host.port(), thumbprint(identity.sha1()));
                    let start = Instant::now();
                    let error = connect_within(dial(&tickets, true), IMPATIENT).0.expect_err("silence");
                    assert_eq!(error.kind(), ErrorKind::TimedOut, "silent at {cut}: {error}");
                    assert!(start.elapsed() < BOUNDED, "silent at {cut}: {:?}", start.elapsed());
                }
            });
        }
    });
}

/// The farewell of TLS in the middle of the data is the end of the connection, and another one is made.
#[test]
fn a_farewell_of_tls_between_data_is_a_loss() {
    let identity = Identity::new();
    let (config, sha256) = (identity.config(&[VERSIONS[1]]), identity.sha256());
    let host = Host::new(move |n, talk| {
        talk.door(ALL, &config, &sha256)?;
        talk.start_tls(&config)?;
        if n > 0 {
            return nfc_peer::serve(talk, &disk());
        }
        talk.open(&disk())?;
        talk.frame()?;
        talk.tls().send_close_notify();
        talk.raw(b"")?;
        talk.hold()
    });
    let tickets = Counted::new(host.port(), thumbprint(identity.sha1()));
    let mending = Options { reconnect: PATIENT, ..options(PATIENT) };
    let threads = Arc::new(Threads::new(|body| body()));
    let client = Client::connect(dial(&tickets, true), &mending, Log::none(), threads).unwrap();
    read_all(&client);
    assert_eq!((host.seen(), tickets.given()), (2, 2), "each connection has a ticket of its own");
}
