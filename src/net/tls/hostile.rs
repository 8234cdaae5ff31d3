//! A server that shook hands properly and then says what it should not.

use std::io::IoSliceMut;
use std::io::Read;
use std::io::Write;

use rustls::ContentType;
use rustls::ServerConnection;
use rustls::crypto::cipher::OutboundChunks;

use super::record::Sealer;
use super::tests::Authority;
use super::tests::BOTH;
use super::tests::config;
use super::tests::patient;
use super::tests::plain;
use super::tests::wrap;
use super::*;

/// A record: its kind and what is in it.
type Said = (ContentType, Vec<u8>);

/// What the client makes of these records: the data, and how it ended.
fn hears(version: &'static rustls::SupportedProtocolVersion, said: Vec<Said>) -> (Vec<u8>, Result<()>) {
    let authority = Authority::new();
    let mut config = config(&authority.server(), version);
    config.enable_secret_extraction = true;
    config.send_tls13_tickets = 0;
    let (socket, served) = plain(move |mut socket| {
        let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut socket).unwrap();
        }
        let suite = tls.negotiated_cipher_suite().unwrap();
        let mut sealer = Sealer::new(suite, tls.dangerous_extract_secrets().unwrap().tx).unwrap();
        let farewell = (ContentType::Alert, vec![1, 0]);
        for (kind, bytes) in said.into_iter().chain([farewell]) {
            let sealed = sealer.seal(kind, OutboundChunks::Single(&bytes)).unwrap();
            if socket.write_all(&sealed).is_err() {
                return; // the client went away
            }
        }
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let stream = wrap(&authority.settings(), socket, "localhost").unwrap();
    let mut all = Vec::new();
    let end = loop {
        let mut buf = [0; 1000];
        match stream.recv(&mut [IoSliceMut::new(&mut buf)], patient()) {
            Ok(Some(0)) => break Ok(()),
            Ok(n) => all.extend_from_slice(&buf[..n.unwrap()]),
            Err(e) => break Err(e),
        }
    };
    stream.shutdown();
    drop(stream);
    served.join().unwrap();
    (all, end)
}

fn data(bytes: &[u8]) -> Said {
    (ContentType::ApplicationData, bytes.to_vec())
}

fn handshake(bytes: &[u8]) -> Said {
    (ContentType::Handshake, bytes.to_vec())
}

fn alert(level: u8, description: u8) -> Said {
    (ContentType::Alert, vec![level, description])
}

#[track_caller]
fn is_heard(version: usize, said: Vec<Said>, expected: &[u8]) {
    let (got, end) = hears(BOTH[version], said);
    end.unwrap();
    assert_eq!(got, expected);
}

#[track_caller]
fn is_refused(version: usize, said: Vec<Said>) {
    let said = [vec![data(b"before")], said, vec![data(b"behind")]].concat();
    let (got, end) = hears(BOTH[version], said);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(got, b"before", "nothing behind a fault is handed out");
}

const TLS12: usize = 0;
const TLS13: usize = 1;

/// A session ticket of so many bytes.
fn ticket(length: usize) -> Vec<u8> {
    [&[4][..], &(length as u32).to_be_bytes()[1..], &vec![9; length]].concat()
}

#[test]
fn tickets_are_passed_over_whole_split_and_joined() {
    let whole = ticket(300);
    let mut said = vec![data(b"one"), handshake(&whole), data(b"two")];
    said.push(handshake(&[whole.clone(), whole.clone()].concat()));
    said.extend(whole.chunks(7).map(handshake));
    said.push(data(b"three"));
    is_heard(TLS13, said, b"onetwothree");
    let long: Vec<Said> = ticket(60_000).chunks(16_000).map(handshake).collect();
    is_heard(TLS13, [long, vec![data(b"end")]].concat(), b"end");
}

#[test]
fn messages_that_have_no_place_there_are_refused() {
    is_refused(TLS13, vec![handshake(&ticket(70_000)[..16_000])]); // longer than any
    is_refused(TLS13, vec![handshake(&ticket(300)[..100])]); // data inside of a message
    is_refused(TLS13, vec![handshake(&[13, 0, 0, 0])]); // asks for a certificate
    is_refused(TLS13, vec![handshake(&[0, 0, 0, 0])]);
    is_refused(TLS13, vec![handshake(&[24, 0, 0, 1, 2])]);
    is_refused(TLS13, vec![handshake(&[24, 0, 0, 2, 0, 0])]);
    is_refused(TLS13, vec![handshake(&[&[24, 0, 0, 1, 0][..], &ticket(1)].concat())]); // under which keys?
    is_refused(TLS13, vec![handshake(&[24, 0, 0, 1, 0])]); // and then not doing so
    is_refused(TLS12, vec![handshake(&[24, 0, 0, 1, 0])]);
    is_refused(TLS12, vec![handshake(&ticket(300))]);
    is_refused(TLS12, vec![handshake(&[0, 0, 0, 1, 0])]);
    for version in [TLS12, TLS13] {
        is_refused(version, vec![(ContentType::ChangeCipherSpec, vec![1])]);
        is_refused(version, vec![(ContentType::Alert, vec![1])]);
        is_refused(version, vec![(ContentType::Heartbeat, vec![1, 0, 0])]);
    }
}

#[test]
fn warnings_and_empty_records_are_passed_over_but_not_for_ever() {
    is_heard(TLS12, vec![alert(1, 90), handshake(&[0, 0, 0, 0]), data(b""), data(b"x")], b"x");
    is_heard(TLS13, vec![alert(1, 90), data(b""), data(b"x")], b"x");
    for version in [TLS12, TLS13] {
        is_heard(version, [vec![data(b""); 60], vec![data(b"x")], vec![data(b""); 60]].concat(), b"x");
        is_refused(version, vec![data(b""); 70]);
        is_refused(version, vec![alert(1, 90); 70]);
        is_refused(version, vec![alert(2, 80)]);
    }
    is_refused(TLS12, vec![handshake(&[0, 0, 0, 0]); 70]);
    is_refused(TLS13, vec![handshake(&ticket(10)); 70]);
    is_refused(TLS13, vec![alert(1, 100)]); // TLS 1.3 has no such warning
}
