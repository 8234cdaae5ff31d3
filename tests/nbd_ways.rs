//! Every way to an export through the C interface: what servers bound, refuse or leave open, certificates in all places
//! where they may be named, long round trips, and times that a configuration sets.

mod common;

use std::net::TcpListener;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use common::child::in_child;
use common::export::configured;
use common::export::use_as_disk;
use common::model::stamps;
use common::nbd_peer::Offer;
use common::nbd_peer::Peer;
use common::nbd_peer::STYLES;
use common::nbd_peer::Style;
use common::nbd_peer::verb;
use common::pki::Pki;
use common::process;
use common::proxy::Fate;
use common::proxy::Proxy;
use common::servers;
use common::servers::Door;
use common::vix;
use common::vix::Connection;
use common::vix::Disk;
use common::vix::Server;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;

fn connect(server: &Server) -> Connection<'static> {
    Vix::started().connect_to(server).unwrap_or_else(|e| panic!("ConnectEx = {e}\n{}", vix::log_text()))
}

fn try_open(server: &Server, how: u32) -> Result<Disk<'static>, u64> {
    connect(server).leaked().open(Path::new(""), how)
}

#[track_caller]
fn open(server: &Server, how: u32) -> Disk<'static> {
    try_open(server, how).unwrap_or_else(|e| panic!("Open = {e}\n{}", vix::log_text()))
}

/// nbdkit refuses what is not in whole blocks of 4 KiB, and what is longer than 64 KiB.
#[test]
fn an_export_with_large_blocks_and_short_requests_is_a_disk() {
    requires!("nbdkit");
    in_child(|| {
        let policy = ["blocksize-minimum=4096", "blocksize-maximum=64k", "blocksize-error-policy=error"];
        for door in [Door::TCP, Door::UNIX] {
            let plugin = [&["memory", "32M"][..], &policy].concat();
            let server = servers::nbdkit(door, &["--filter=blocksize-policy"], &plugin);
            use_as_disk(open(&Server::named(server.uri("")), flags::READ_WRITE), "nbd");
        }
    });
}

#[test]
fn a_server_that_leaves_tls_open_is_reached_by_both_transports() {
    requires!("nbdkit", "certtool");
    in_child(|| {
        let pki = Pki::new();
        configured(&format!("vixDiskLib.tls.caFile={}\n", pki.ca().display()));
        for (list, mode) in
            [("nbd", "nbd"), ("nbdssl", "nbdssl"), ("nbd:nbdssl", "nbd"), ("nbdssl:nbd", "nbdssl")]
        {
            // The later option counts.
            let server = servers::nbdkit(Door::tls(&pki), &["--tls=on"], &["memory", "32M"]);
            let plain = Server::named(server.uri("").replacen("nbds:", "nbd:", 1));
            use_as_disk(open(&plain.clone().over(list), flags::READ_WRITE), mode);
            // A name that wants TLS gets it.
            let disk = open(&Server::named(server.uri("")), flags::READ_ONLY);
            assert_eq!((disk.transport().as_str(), disk.must_read(7, 1)), ("nbdssl", stamps(7, 1, 1)));
            assert_eq!(disk.close(), code::OK);
        }
    });
}

#[test]
fn tls_over_a_unix_socket_is_a_way_to_a_disk() {
    requires!("nbdkit", "certtool");
    in_child(|| {
        let pki = Pki::new();
        configured(&format!("vixDiskLib.tls.caFile={}\n", pki.ca().display()));
        let server = servers::nbdkit(Door { unix: true, ..Door::tls(&pki) }, &[], &["memory", "32M"]);
        let uri = server.uri("");
        assert!(uri.starts_with("nbds+unix:///?socket="), "{uri}");
        use_as_disk(open(&Server::named(&uri), flags::READ_WRITE), "nbdssl");
        // Whole, as the path of a local connection.
        let local = Vix::started().connect(false).expect("a local connection");
        let disk = local.must_open(Path::new(&uri), flags::READ_ONLY);
        assert_eq!((disk.transport().as_str(), disk.must_read(7, 1)), ("nbdssl", stamps(7, 1, 1)));
        assert_eq!(disk.close(), code::OK);
    });
}

#[test]
fn the_name_in_the_certificate_is_the_one_that_the_uri_gives() {
    requires!("nbdkit", "certtool");
    in_child(|| {
        let pki = Pki::new();
        configured(&format!("vixDiskLib.tls.caFile={}\n", pki.ca().display()));
        let elsewhere = format!("--tls-certificates={}", pki.elsewhere().display());
        for unix in [false, true] {
            let door = Door { unix, ..Door::tls(&pki) };
            let here = servers::nbdkit(door, &[], &["memory", "1M"]);
            let there = servers::nbdkit(door, &[&elsewhere], &["memory", "1M"]);
            let joint = if unix { '&' } else { '?' };
            for (server, name, expected) in [
                (&here, None, Ok(())),
                (&here, Some("localhost"), Ok(())),
                (&here, Some("other"), Err(code::FAIL)),
                (&here, Some("elsewhere.example"), Err(code::FAIL)),
                (&there, None, Err(code::FAIL)),
                (&there, Some("elsewhere.example"), Ok(())),
                (&there, Some("elsewhere.example.org"), Err(code::FAIL)),
            ] {
                let named = name.map(|name| format!("{joint}tls-hostname={name}")).unwrap_or_default();
                let uri = server.uri("") + &named;
                let opened = try_open(&Server::named(&uri), flags::READ_ONLY).map(drop);
                assert_eq!(opened, expected, "{uri}\n{}", vix::log_text());
            }
        }
    });
}

/// Where no file is configured the system's authorities count, in whose place OpenSSL's variable puts others.
#[test]
fn the_authorities_of_the_system_vouch_for_a_server() {
    requires!("nbdkit", "certtool");
    in_child(|| {
        let pki = Pki::new();
        let server = servers::nbdkit(Door::tls(&pki), &[], &["memory", "1M"]);
        let named = Server::named(server.uri(""));
        configured("");
        for (authority, expected) in
            [(pki.ca(), Ok(())), (pki.stranger().join("ca-cert.pem"), Err(code::FAIL)), (pki.ca(), Ok(()))]
        {
            process::set_variable("SSL_CERT_FILE", &authority);
            let opened = try_open(&named, flags::READ_ONLY).map(drop);
            assert_eq!(opened, expected, "{}\n{}", authority.display(), vix::log_text());
        }
    });
}

/// One after the other, each read would wait for the whole way there and back.
#[test]
fn reads_in_a_row_do_not_wait_for_the_way_there_and_back() {
    requires!("nbdkit");
    in_child(|| {
        let (trip, count, sectors) = (Duration::from_millis(20), 256, 128);
        let server = servers::nbdkit(Door::TCP, &[], &["pattern", "32M"]);
        let proxy = Proxy::new(server.address(), move |_| Fate::round_trip(trip));
        let disk = open(&Server::named(proxy.uri(false, "")), flags::READ_ONLY);
        let start = Instant::now();
        for n in 0..count {
            let bytes = disk.must_read(n * sectors, sectors);
            let right = |(i, word): (usize, &[u8])| *word == (n * sectors * 512 + i as u64 * 8).to_be_bytes();
            assert!(bytes.chunks(8).enumerate().all(right), "read {n}");
        }
        let (took, one_by_one) = (start.elapsed(), trip * count as u32);
        assert!(took < one_by_one / 3, "{took:?}, one by one it would be {one_by_one:?}");
        assert_eq!(disk.close(), code::OK);
    });
}

/// Bytes of the exports whose maps are asked for.
const MAPPED: u64 = 1 << 30;

/// Asks for the whole map in 16 steps, as programs do.
fn map_in_steps(disk: &Disk<'_>) -> Vec<(u64, u64)> {
    let step = MAPPED / 512 / 16;
    let ask = |n| disk.allocated(n * step, step, 128).unwrap_or_else(|e| panic!("{e}\n{}", vix::log_text()));
    (0..16).flat_map(ask).collect()
}

#[test]
fn a_map_takes_few_round_trips_at_first_and_none_later() {
    requires!("nbdkit");
    in_child(|| {
        let trip = Duration::from_millis(100);
        let scattered = ["sparse-random", "size=1G", "percent=5", "runlength=1048576", "seed=3"];
        let server = servers::nbdkit(Door::TCP, &[], &scattered);
        let proxy = Proxy::new(server.address(), move |_| Fate::round_trip(trip));
        let disk = open(&Server::named(proxy.uri(false, "")), flags::READ_ONLY);
        let start = Instant::now();
        let map = map_in_steps(&disk);
        let first = start.elapsed();
        assert!(first >= trip && first < trip * 6, "{first:?} with a round trip of {trip:?}");
        assert!(map.len() > 20, "{map:?}");
        let start = Instant::now();
        assert_eq!(map_in_steps(&disk), map);
        let again = start.elapsed();
        assert!(again < trip / 4, "{again:?} with a round trip of {trip:?}");
        assert_eq!(disk.close(), code::OK);
    });
}

/// How often a map was asked for, and for what.
type Asked = Arc<Mutex<Vec<(u64, u64)>>>;

/// Two extents for each question: the first 128 KiB of it hold data, the rest does not.
fn mapped(style: Style) -> (Peer, Asked) {
    let asked = Asked::default();
    let seen = asked.clone();
    let peer = Peer::new(Offer::new(MAPPED, style), move |_, talk| {
        loop {
            let request = talk.request()?;
            match request.verb {
                verb::STATUS => {
                    seen.lock().expect("the list").push((request.offset, request.length));
                    let data = request.length.min(128 << 10);
                    talk.status(&request, &[(data, 0), (request.length - data, 3)])?;
                }
                verb::FLUSH | verb::WRITE => talk.done(&request)?,
                verb::READ if style == Style::Simple => {
                    talk.simple(request.cookie, 0, &vec![0; request.length as usize])?;
                }
                verb::READ => {
                    let length = u32::try_from(request.length).expect("a short read");
                    talk.hole(&request, 1, request.offset, length)?;
                }
                _ => return Ok(()),
            }
        }
    });
    (peer, asked)
}

#[test]
fn a_map_is_asked_for_once_where_nobody_writes_and_each_time_where_somebody_may() {
    in_child(|| {
        for style in STYLES {
            let (peer, asked) = mapped(style);
            let uri = servers::uri(&peer.address(), false, "");
            let disk = open(&Server::named(&uri), flags::READ_ONLY);
            let first = map_in_steps(&disk);
            let second = map_in_steps(&disk);
            assert_eq!(first, second);
            let questions = std::mem::take(&mut *asked.lock().expect("the list"));
            if style == Style::Simple {
                assert_eq!(questions, [], "there is nothing to ask");
                assert_eq!(first.iter().map(|part| part.1).sum::<u64>(), MAPPED / 512, "all of it counts");
            } else {
                assert_eq!(questions, [(0, MAPPED)], "{style:?}: one question for all");
                assert_eq!(first, [(0, 256)], "{style:?}");
            }
            assert_eq!(disk.close(), code::OK);
            let disk = open(&Server::named(&uri), flags::READ_WRITE);
            for count in [1, 2] {
                disk.allocated(0, MAPPED / 512, 128).expect("a map");
                let asked = asked.lock().expect("the list").len();
                assert_eq!(asked, if style == Style::Simple { 0 } else { count }, "{style:?}");
            }
            assert_eq!(disk.close(), code::OK);
        }
    });
}

/// What half a second may become on a busy machine.
const SOON: Range<Duration> = Duration::from_millis(400)..Duration::from_secs(3);

#[track_caller]
fn soon<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    assert!(SOON.contains(&start.elapsed()), "{what}: {:?}", start.elapsed());
    result
}

/// Half a second for each of these, and next to nothing for making up for a loss.
fn impatient(keys: &[&str]) -> String {
    let lines = keys.iter().map(|key| format!("vixDiskLib.nfc.{key}=500\n"));
    lines.chain(["vixDiskLib.nbd.reconnectTimeoutMs=500\n".to_owned()]).collect()
}

#[test]
fn the_times_of_a_configuration_bound_what_a_silent_server_is_given() {
    requires!("nbdkit");
    in_child(|| {
        type Work = fn(&Disk<'_>) -> u64;
        let read: Work = |disk| disk.read(0, &mut [0; 512]);
        let long_read: Work = |disk| disk.read(0, &mut vec![0; 1 << 20]);
        let write: Work = |disk| disk.write(0, &[1; 512]);
        let flush: Work = |disk| disk.flush();
        for (key, how, what, work) in [
            ("ReadTimeoutMs", flags::READ_ONLY, "a read", read),
            ("ReadTimeoutsMs", flags::READ_ONLY, "a long read", long_read),
            ("WriteTimeoutMs", flags::READ_WRITE, "a write", write),
            ("WriteTimeoutsMs", flags::READ_WRITE, "a flush", flush),
            ("RequestTimeoutMs", flags::READ_ONLY, "a read", read),
            ("RequestTimeoutMs", flags::READ_WRITE, "a write", write),
        ] {
            // A silent server is connected to again, and takes part in nothing.
            configured(&impatient(&[key])); // which bounds connecting again, too: reconnectTimeoutMs
            let server = servers::nbdkit(Door::TCP, &[], &["memory", "1M"]);
            let disk = open(&Server::named(server.uri("")), how);
            disk.must_read(0, 8);
            if how == flags::READ_WRITE {
                disk.must_write(0, &[2; 512]); // something to flush
            }
            server.silence();
            let result = soon(&format!("{what} with {key}"), || work(&disk));
            assert_ne!(result, code::OK, "{what} with {key}");
            drop(disk);
        }
    });
}

#[test]
fn the_time_to_connect_bounds_opening_where_nobody_answers() {
    in_child(|| {
        configured(&impatient(&["AcceptTimeoutMs"]));
        // The system takes the connection, and nobody says anything on it.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its number");
        for scheme in ["nbd", "nbds"] {
            let server = Server::named(format!("{scheme}://{address}"));
            let result = soon(scheme, || try_open(&server, flags::READ_ONLY).map(drop));
            assert!(result.is_err_and(|code| code != code::OK), "{scheme}: {result:?}");
        }
    });
}

/// Closing right after reads in a row, when what was read ahead is still under way: nbdkit 1.32 ends, for everybody, when a
/// client is gone before its answer.
#[test]
fn a_server_outlives_clients_that_go_in_the_middle_of_a_row() {
    requires!("nbdkit");
    in_child(|| {
        let plugin = &["null", "1G"];
        for options in [&["--filter=noextents"][..], &["--filter=noextents", "--no-sr"]] {
            let server = servers::nbdkit(Door::TCP, options, plugin);
            let connection = connect(&Server::named(server.uri("")));
            for pieces in 3..33 {
                let disk = connection.must_open(Path::new(""), flags::READ_ONLY);
                for piece in 0..pieces {
                    assert!(disk.must_read(piece * 128, 128) == vec![0; 65536]);
                }
                assert_eq!(disk.close(), code::OK);
            }
            assert_eq!(connection.disconnect(), code::OK);
            assert!(!server.said().contains("error"), "{}", server.said());
            server.finish();
        }
    });
}
