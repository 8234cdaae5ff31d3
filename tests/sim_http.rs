//! The simulator's HTTPS server and clients that no server likes.
#![allow(clippy::unwrap_used)] // a test may end where it stands

mod common;

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use vixDiskLib::error::ErrorKind;
use vixDiskLib::logging::Log;
use vixDiskLib::net::socket::Address;
use vixDiskLib::net::socket::Socket;
use vixDiskLib::net::stream::Patience;
use vixDiskLib::net::stream::Stream;
use vixDiskLib::net::tls::Tls;
use vixDiskLib::net::tls::TlsSettings;
use vixDiskLib::sim::Sim;
use vixDiskLib::sim::options::Options;

const LIMIT: Duration = Duration::from_secs(60);

fn sim() -> Sim {
    Sim::start(Options::default()).unwrap()
}

/// A connection to the server, inside of TLS.
struct Client(Box<dyn Stream>);

impl Client {
    fn new(sim: &Sim) -> Client {
        let address = Address::Tcp { host: "127.0.0.1".to_owned(), port: sim.address().port() };
        let until = Instant::now() + LIMIT;
        let socket = Socket::connect(&address, until).unwrap();
        let settings =
            TlsSettings { thumbprint: Some(sim.ready().thumbprint_sha256), ..TlsSettings::default() };
        let tls = Tls::new(&settings, Log::none()).unwrap();
        Client(tls.wrap(Box::new(socket), "127.0.0.1", until).unwrap())
    }

    /// Sends as much as the server takes; it may have ended the connection meanwhile.
    fn send(&self, mut bytes: &[u8]) {
        let patience = Patience::Until(Instant::now() + LIMIT);
        while !bytes.is_empty() {
            match self.0.send(&[IoSlice::new(bytes)], patience) {
                Ok(Some(len)) => bytes = &bytes[len..],
                _ => return,
            }
        }
        let _ = self.0.push(patience);
    }

    /// Everything until the end of the connection, or until `enough`.
    fn receive(&self, enough: impl Fn(&str) -> bool) -> String {
        let mut all = Vec::new();
        loop {
            let mut piece = [0; 4096];
            let patience = Patience::Until(Instant::now() + LIMIT);
            match self.0.recv(&mut [IoSliceMut::new(&mut piece)], patience) {
                Ok(Some(0)) => break,
                Ok(Some(len)) => all.extend_from_slice(&piece[..len]),
                Ok(None) => panic!("silence after {:?}", String::from_utf8_lossy(&all)),
                Err(e) if e.kind() == ErrorKind::ConnectionLost => break,
                Err(e) => panic!("{e}"),
            }
            if enough(&String::from_utf8_lossy(&all)) {
                break;
            }
        }
        String::from_utf8(all).unwrap()
    }

    /// The status of the answer to a request, and whether the connection ended after it.
    fn status(&self, request: &[u8]) -> String {
        self.send(request);
        let answer = self.receive(|text| text.contains("\r\n\r\n"));
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    }
}

const CONTENT: &str = "<e:Envelope xmlns:e=\"http://schemas.xmlsoap.org/soap/envelope/\"><e:Body><RetrieveServiceContent \
     xmlns=\"urn:vim25\"><_this type=\"ServiceInstance\">ServiceInstance</_this></RetrieveServiceContent></e:Body></e:Envelope>";

fn post(headers: &str, body: &str) -> Vec<u8> {
    format!("POST /sdk HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}").into_bytes()
}

#[test]
fn requests_that_are_none_get_their_status() {
    let sim = sim();
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(200));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("400", b"\0\0\0\0\r\n\r\n".to_vec()),
        ("400", b"GET / HTTP/3.0\r\n\r\n".to_vec()),
        ("400", post("Content-Length: -1\r\n", "")),
        ("400", post("Content-Length: 1x\r\n", "")),
        ("400", post("Transfer-Encoding: gzip\r\n", "")),
        ("400", post("Transfer-Encoding: chunked\r\n", "zz\r\n")),
        ("400", post("Transfer-Encoding: chunked\r\n", "1\r\nabc\r\n")),
        ("413", post("Content-Length: 18446744073709551615\r\n", "")),
        ("413", post("Content-Length: 9000000\r\n", "")),
        ("413", post("Transfer-Encoding: chunked\r\n", "fffffffffffffff\r\n")),
        ("431", long.into_bytes()),
        ("431", many.into_bytes()),
        ("404", b"GET /nothing HTTP/1.1\r\n\r\n".to_vec()),
        ("405", b"GET /sdk HTTP/1.1\r\n\r\n".to_vec()),
        ("500", post("Content-Length: 0\r\n", "")),
        ("500", post("Content-Length: 3\r\n", "\u{e9}x")),
    ];
    for (status, request) in cases {
        let shown: String = String::from_utf8_lossy(&request).chars().take(80).collect();
        assert_eq!(Client::new(&sim).status(&request), status, "{shown:?}");
    }
    assert_eq!(
        Client::new(&sim).status(&post(&format!("Content-Length: {}\r\n", CONTENT.len()), CONTENT)),
        "200"
    );
}

#[test]
fn a_body_may_come_in_chunks_and_many_requests_at_once() {
    let sim = sim();
    let (first, second) = CONTENT.split_at(40);
    let chunks = format!("{:x}\r\n{first}\r\n{:X};x=y\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    let client = Client::new(&sim);
    let mut both = post("Transfer-Encoding: chunked\r\n", &chunks);
    both.extend(post(&format!("Content-Length: {}\r\nConnection: close\r\n", CONTENT.len()), CONTENT));
    client.send(&both);
    let answer = client.receive(|_| false);
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    assert_eq!(answer.matches("</soapenv:Envelope>").count(), 2);
    let waiting = Client::new(&sim);
    waiting.send(&post(&format!("Content-Length: {}\r\nExpect: 100-continue\r\n", CONTENT.len()), ""));
    assert_eq!(waiting.receive(|text| text.ends_with("\r\n\r\n")), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(waiting.status(CONTENT.as_bytes()), "200");
}

#[test]
fn a_client_without_tls_or_that_leaves_halfway_harms_nobody() {
    let sim = sim();
    let mut plain = TcpStream::connect(sim.address()).unwrap();
    plain.set_read_timeout(Some(LIMIT)).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest); // an alert, or the end
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    for end in [0, 1, 20, 60, 150] {
        Client::new(&sim).send(&post(&format!("Content-Length: {}\r\n", CONTENT.len()), CONTENT)[..end]);
    }
    assert_eq!(Client::new(&sim).status(b"GET /sdk/vimServiceVersions.xml HTTP/1.1\r\n\r\n"), "200");
}

#[test]
fn its_end_does_not_wait_for_silent_clients() {
    let sim = sim();
    let silent: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(sim.address()).unwrap()).collect();
    let half = Client::new(&sim);
    half.send(b"POST /sdk HTT");
    let begun = Instant::now();
    drop(sim);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(half.receive(|_| false), "");
    drop(silent);
}

#[test]
fn many_simulators_live_in_one_process() {
    let sims: Vec<Sim> = (0..8).map(|_| sim()).collect();
    let mut ports: Vec<u16> =
        sims.iter().flat_map(|sim| [sim.ready().sdk_port, sim.ready().nfc_port]).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 16);
    for sim in &sims {
        assert_eq!(Client::new(sim).status(b"GET /sdk/vimServiceVersions.xml HTTP/1.1\r\n\r\n"), "200");
    }
}
