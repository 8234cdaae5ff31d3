//! The proxy of these tests does what it says, seen by negotiating through it.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;
use std::time::Instant;

use common::proxy::Fate;
use common::proxy::Lane;
use common::proxy::Proxy;
use common::servers;
use common::servers::Door;
use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::net::nbd::handshake;
use vixDiskLib::net::nbd::handshake::Wants;
use vixDiskLib::net::socket::Socket;

fn negotiate(proxy: &Proxy, time: Duration) -> Result<u64, Error> {
    let until = Instant::now() + time;
    let socket = Socket::connect(&proxy.address(), until)?;
    handshake::negotiate(Box::new(socket), &Wants::all_of(""), None, until).map(|(_, export)| export.size)
}

const LONG: Duration = Duration::from_secs(60);

/// The bytes nbdkit sends during a negotiation, found by cutting at each of them.
#[test]
fn a_cut_at_each_byte_ends_the_negotiation_until_all_of_it_came() {
    requires!("nbdkit");
    let server = servers::nbdkit(Door::UNIX, &[], &["memory", "1M"]);
    let proxy = Proxy::new(server.address(), |n| Fate { down: Lane::cut_after(n as u64), ..Fate::default() });
    let needed = (0..1000).find(|_| match negotiate(&proxy, LONG) {
        Ok(size) => size == 1 << 20,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{error}");
            false
        }
    });
    let needed = needed.expect("an end");
    assert_eq!(proxy.seen(), needed + 1);
    assert!((120..300).contains(&needed), "{needed} bytes");
}

#[test]
fn silence_ends_with_the_time() {
    requires!("nbdkit");
    let server = servers::nbdkit(Door::TCP, &[], &["memory", "1M"]);
    let up = Proxy::new(server.address(), |_| Fate { up: Lane::stall_after(20), ..Fate::default() });
    let down = Proxy::new(server.address(), |_| Fate { down: Lane::stall_after(30), ..Fate::default() });
    for proxy in [up, down] {
        let start = Instant::now();
        assert_eq!(negotiate(&proxy, Duration::from_millis(300)).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!((Duration::from_millis(299)..Duration::from_secs(10)).contains(&start.elapsed()));
    }
}

#[test]
fn each_question_costs_a_round_trip() {
    requires!("nbdkit");
    let server = servers::nbdkit(Door::TCP, &[], &["memory", "1M"]);
    let proxy = Proxy::new(server.address(), |_| Fate::round_trip(Duration::from_millis(20)));
    let start = Instant::now();
    assert_eq!(negotiate(&proxy, LONG).unwrap(), 1 << 20);
    // The greeting, EXTENDED_HEADERS, STRUCTURED_REPLY, SET_META_CONTEXT, GO: four and a half at least.
    assert!(start.elapsed() >= Duration::from_millis(90), "{:?}", start.elapsed());
}

#[test]
fn a_damaged_byte_and_a_refused_connection_are_errors() {
    requires!("nbdkit");
    let server = servers::nbdkit(Door::TCP, &[], &["memory", "1M"]);
    let proxy = Proxy::new(server.address(), |n| match n {
        0 => Fate { down: Lane { flip: Some(3), ..Lane::default() }, ..Fate::default() },
        1 => Fate::REFUSED,
        _ => Fate::default(),
    });
    assert_eq!(negotiate(&proxy, LONG).unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(negotiate(&proxy, LONG).unwrap_err().kind(), ErrorKind::ConnectionLost);
    assert_eq!(negotiate(&proxy, LONG).unwrap(), 1 << 20);
}
