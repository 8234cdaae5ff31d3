//! TLS against a peer that nobody here wrote: `openssl s_server`, with good, old and odd certificates.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::BufRead;
use std::io::BufReader;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::channel;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Log;
use vixDiskLib::net::socket::Address;
use vixDiskLib::net::socket::Socket;
use vixDiskLib::net::stream::Patience;
use vixDiskLib::net::stream::Stream;
use vixDiskLib::net::tls::Tls;
use vixDiskLib::net::tls::TlsSettings;

use common::tools;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// A key and a self-signed certificate for `localhost`.
struct Identity {
    folder: TempDir,
}

impl Identity {
    /// What `openssl req` makes with these arguments.
    fn new(arguments: &[&str]) -> Self {
        let identity = Self { folder: common::scratch::folder() };
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-subj", "/CN=localhost", "-days", "30"]);
        command.args(["-addext", "subjectAltName=DNS:localhost"]).args(arguments);
        tools::check(command.arg("-keyout").arg(identity.key()).arg("-out").arg(identity.certificate()));
        identity
    }

    /// An X.509 version 1 certificate, which has no extensions.
    fn version_1(key: &[&str]) -> Self {
        let identity = Self { folder: common::scratch::folder() };
        let request = identity.folder.path().join("request");
        let mut command = Command::new("openssl");
        command.args(["req", "-new", "-nodes", "-subj", "/CN=localhost"]).args(key);
        tools::check(command.arg("-keyout").arg(identity.key()).arg("-out").arg(&request));
        let mut command = Command::new("openssl");
        command.args(["x509", "-req", "-days", "30", "-in"]).arg(request).arg("-signkey").arg(identity.key());
        tools::check(command.arg("-out").arg(identity.certificate()));
        let text = tools::check(
            Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(identity.certificate()),
        );
        assert!(text.out().contains("Version: 1 (0x0)"), "{}", text.out());
        identity
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    fn pinned(&self, digest: &str) -> TlsSettings {
        let mut command = Command::new("openssl");
        command.args(["x509", "-noout", "-fingerprint", digest, "-in"]).arg(self.certificate());
        let said = tools::check(&mut command).out();
        let thumbprint = said.trim().split_once('=').unwrap().1.to_owned();
        TlsSettings { thumbprint: Some(thumbprint), ..TlsSettings::default() }
    }
}

/// A running `openssl s_server` for one connection; ended by its id on drop.
struct Server {
    child: Child,
    /// Lines of its output.
    says: Receiver<String>,
    address: Address,
}

impl Server {
    fn new(identity: &Identity, arguments: &[&str]) -> Self {
        Self::within(Path::new("/"), identity, arguments)
    }

    fn within(folder: &Path, identity: &Identity, arguments: &[&str]) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "1"]).args(arguments);
        command.arg("-key").arg(identity.key()).arg("-cert").arg(identity.certificate());
        command.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n').map_while(|line| line.ok());
        let (say, says) = channel();
        std::thread::spawn(move || {
            lines.map(|line| say.send(String::from_utf8_lossy(&line).into_owned())).all(|sent| sent.is_ok())
        });
        let line = line_with(&says, "ACCEPT ");
        let port = line.trim().rsplit_once(':').unwrap().1.parse().unwrap();
        Self { child, says, address: Address::Tcp { host: "localhost".into(), port } }
    }

    fn connect(&self, settings: &TlsSettings) -> Result<Box<dyn Stream>> {
        let tls = Tls::new(settings, Log::none())?;
        tls.wrap(Box::new(Socket::connect(&self.address, soon())?), "localhost", soon())
    }

    /// Types a line: data, or `K` for new keys.
    fn types(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line_with(says: &Receiver<String>, what: &str) -> String {
    loop {
        let line = says.recv_timeout(Duration::from_secs(60));
        let line = line.unwrap_or_else(|e| panic!("waiting for {what:?}: {e}"));
        if line.contains(what) {
            return line;
        }
    }
}

fn send(stream: &dyn Stream, bytes: &[u8]) {
    assert_eq!(stream.send(&[IoSlice::new(bytes)], Patience::Until(soon())).unwrap(), Some(bytes.len()));
    assert!(stream.push(Patience::Until(soon())).unwrap());
}

/// Receives up to the end or until `enough` came.
fn receive(stream: &dyn Stream, enough: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buf = vec![0; 300_000];
    while all.len() < enough {
        match stream.recv(&mut [IoSliceMut::new(&mut buf)], Patience::Until(soon())).unwrap().unwrap() {
            0 => break,
            n => all.extend_from_slice(&buf[..n]),
        }
    }
    all
}

/// A line in each direction.
#[track_caller]
fn converse(server: &mut Server, stream: &dyn Stream) {
    server.types("from the server\n");
    assert_eq!(receive(stream, 16), b"from the server\n");
    send(stream, b"from the client\n");
    line_with(&server.says, "from the client");
}

const RSA: [&str; 2] = ["-newkey", "rsa:2048"];
const P256: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P384: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

#[test]
fn pinned_servers_with_every_kind_of_key_are_spoken_to() {
    requires!("openssl");
    for key in [&RSA[..], &P256, &P384, &["-newkey", "ed25519"]] {
        let identity = Identity::new(key);
        for (version, digest) in VERSIONS.iter().zip(["-sha1", "-sha256"]) {
            let mut server = Server::new(&identity, &[version]);
            let stream = server.connect(&identity.pinned(digest)).unwrap();
            converse(&mut server, &*stream);
        }
    }
}

#[test]
fn pinned_certificates_that_are_old_or_odd_still_have_to_sign() {
    requires!("openssl");
    let critical = [&RSA[..], &["-addext", "1.2.3.4=critical,ASN1:UTF8String:odd"]].concat();
    let cases = [
        (Identity::version_1(&RSA), &VERSIONS[..]),
        (Identity::version_1(&P256), &VERSIONS),
        (Identity::version_1(&P384), &VERSIONS),
        (Identity::new(&critical), &VERSIONS),
    ];
    for (identity, versions) in &cases {
        for version in *versions {
            let mut server = Server::new(identity, &[version]);
            let stream = server.connect(&identity.pinned("-sha1")).unwrap();
            converse(&mut server, &*stream);

            // Where nobody pins it, it is not taken.
            let server = Server::new(identity, &[version]);
            let settings = TlsSettings { ca_file: Some(identity.certificate()), ..TlsSettings::default() };
            assert!(server.connect(&settings).is_err());

            // Nor where only approved algorithms are asked for.
            let server = Server::new(identity, &[version]);
            let settings = TlsSettings { approved_only: true, ..identity.pinned("-sha1") };
            assert_eq!(server.connect(&settings).unwrap_err().kind(), ErrorKind::CertificateRefused);
        }
    }
}

#[test]
fn a_short_rsa_key_is_taken_where_it_is_pinned() {
    requires!("openssl");
    let identity = Identity::new(&["-newkey", "rsa:1024"]);
    let arguments = ["-tls1_2", "-cipher", "DEFAULT@SECLEVEL=0", "-sigalgs", "RSA+SHA256"];
    let mut server = Server::new(&identity, &arguments);
    let stream = server.connect(&identity.pinned("-sha1")).unwrap();
    converse(&mut server, &*stream);
}

#[test]
fn the_server_changes_keys_and_asks_for_ours() {
    requires!("openssl");
    let identity = Identity::new(&P256);
    let mut server = Server::new(&identity, &["-tls1_3"]);
    let stream = server.connect(&identity.pinned("-sha256")).unwrap();
    converse(&mut server, &*stream);
    for (round, command) in ["k\n", "K\n", "K\n"].iter().enumerate() {
        server.types(command);
        // What it reads together with a command is lost, so the line is typed until it comes.
        let line = format!("round {round}\n");
        let mut got = Vec::new();
        let begin = Instant::now();
        while !got.ends_with(line.as_bytes()) {
            assert!(begin.elapsed() < Duration::from_secs(60), "got {:?}", String::from_utf8_lossy(&got));
            server.types(&line);
            let mut buf = [0; 100];
            let patience = Patience::Until(Instant::now() + Duration::from_millis(200));
            if let Some(n) = stream.recv(&mut [IoSliceMut::new(&mut buf)], patience).unwrap() {
                assert_ne!(n, 0, "the end");
                got.extend_from_slice(&buf[..n]);
            }
        }
        send(&*stream, format!("answer {round}\n").as_bytes());
        line_with(&server.says, &format!("answer {round}"));
    }
}

#[test]
fn another_handshake_on_the_same_connection_is_not_granted() {
    requires!("openssl");
    let identity = Identity::new(&P256);
    let mut server = Server::new(&identity, &["-tls1_2"]);
    let stream = server.connect(&identity.pinned("-sha256")).unwrap();
    converse(&mut server, &*stream);
    server.types("r\n"); // a HelloRequest, which is ignored
    send(&*stream, b"still here\n");
    line_with(&server.says, "still here");
}

#[test]
fn megabytes_arrive_whole_and_the_end_is_said() {
    requires!("openssl");
    let identity = Identity::new(&P256);
    let folder = common::scratch::folder();
    let bytes: Vec<u8> = (0..20_000_003u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(folder.path().join("file"), &bytes).unwrap();
    for version in VERSIONS {
        let server = Server::within(folder.path(), &identity, &[version, "-WWW"]);
        let stream = server.connect(&identity.pinned("-sha1")).unwrap();
        send(&*stream, b"GET /file HTTP/1.0\r\n\r\n");
        let got = receive(&*stream, usize::MAX);
        assert!(got.ends_with(&bytes), "{} bytes, and not those of the file at the end", got.len());
    }
}

#[test]
fn a_server_that_knows_only_what_is_broken_is_refused_without_falling_back() {
    requires!("openssl");
    let rsa = Identity::new(&RSA);
    let old = ["-tls1_1", "-cipher", "ALL@SECLEVEL=0"];
    let static_rsa = ["-tls1_2", "-cipher", "AES128-GCM-SHA256"];
    let cbc = ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA"];
    let psk = ["-tls1_2", "-cipher", "PSK", "-psk", "0123456789abcdef0123456789abcdef"];
    for arguments in [&old[..], &static_rsa, &cbc, &psk] {
        let server = Server::new(&rsa, arguments);
        let e = server.connect(&rsa.pinned("-sha1")).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Protocol, "{arguments:?}: {e}");
    }
}

#[test]
fn a_server_that_demands_a_certificate_gets_the_right_one_or_says_no() {
    requires!("openssl");
    let identity = Identity::new(&P256);
    let client = Identity::new(&RSA);
    let anchors = client.certificate().display().to_string();
    for version in VERSIONS {
        let demands = [version, "-Verify", "1", "-verify_return_error", "-CAfile", &anchors];
        let mut server = Server::new(&identity, &demands);
        let settings = TlsSettings {
            certificate_file: Some(client.certificate()),
            key_file: Some(client.key()),
            ..identity.pinned("-sha1")
        };
        let stream = server.connect(&settings).unwrap();
        converse(&mut server, &*stream);

        let server = Server::new(&identity, &demands);
        // With TLS 1.3 the verdict comes after the handshake.
        let refused = server.connect(&identity.pinned("-sha1")).and_then(|stream| {
            stream.recv(&mut [IoSliceMut::new(&mut [0; 9])], Patience::Until(soon())).map(drop)
        });
        let kind = refused.unwrap_err().kind();
        // TLS 1.2 has no alert for a missing certificate; OpenSSL says that the handshake failed.
        let expected = if version == "-tls1_2" { ErrorKind::Protocol } else { ErrorKind::Unauthorised };
        assert_eq!(kind, expected, "{version}");
    }
}
