//! The NFC server of the simulator, asked by a small client that is made of the codec alone: whole sessions in every way,
//! every knob, every rule, and clients that misbehave.
#![allow(clippy::unwrap_used)]

#[path = "sim_nfc/client.rs"]
mod client;
mod common;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use client::Client;
use client::Wire;
use client::Wish;
use common::nfc_house::CLUSTER;
use common::nfc_house::Host;
use common::nfc_house::PATH;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::net::nfc::Compression;
use vixDiskLib::net::nfc::aio::Kind;
use vixDiskLib::net::nfc::authd::Banner;
use vixDiskLib::net::nfc::authd::Command;
use vixDiskLib::net::nfc::classic;
use vixDiskLib::net::nfc::classic::Message;
use vixDiskLib::net::nfc::io::Io;
use vixDiskLib::net::nfc::open;
use vixDiskLib::net::stream::Stream;
use vixDiskLib::sim::nfc::Right;
use vixDiskLib::sim::nfc::dialect::DIALECTS;

const WRITE: Right = Right::Disk { key: 2000, write: true };

/// A disk with noise, text, single bytes and zeros, and a tail that is no whole cluster.
fn content() -> Vec<u8> {
    let mut bytes = vec![0; 20 * CLUSTER + 1536];
    let mut state = 1_u64;
    for (i, sector) in bytes.chunks_mut(512).enumerate() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match i / 128 % 5 {
            0 => sector.fill(i as u8),
            1 => sector.iter_mut().enumerate().for_each(|(j, b)| *b = (state >> (j % 8 * 8)) as u8 ^ j as u8),
            2 => sector[i % 500] = 7,
            3 => sector.iter_mut().zip(b"the quick brown fox ".iter().cycle()).for_each(|(b, t)| *b = *t),
            _ => {}
        }
    }
    bytes
}

fn client(host: &Host) -> Client {
    Client::open(&host.ticket(Right::Files), PATH, Wish::default()).unwrap()
}

fn writer(host: &Host) -> Client {
    Client::open(&host.ticket(WRITE), PATH, Wish { write: true, ..Wish::default() }).unwrap()
}

/// The connection ends, without another byte.
fn ends(wire: &Wire) {
    assert_eq!(wire.rest(), []);
}

#[test]
fn sessions_of_every_kind_read_the_same_bytes() {
    let content = content();
    for tls in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let host = Host::of("8.0", content.clone(), &[tls]);
        for secure in [false, true] {
            for buffer in [65536, 1 << 20, 2 << 20] {
                let mut client =
                    Client::open(&host.ticket(Right::Files), PATH, Wish { secure, buffer, write: false })
                        .unwrap();
                assert_eq!(
                    (client.opened.capacity, client.opened.geometry),
                    (content.len() as u64, (2088, 255, 63))
                );
                for order in ["ascending", "reversed", "random", "interleaved"] {
                    host.set(&format!("order={order}"));
                    for compression in Compression::ALL {
                        let ranges =
                            [(0, content.len() as u32), (512, 66_048), (content.len() as u64 - 512, 512)];
                        let (got, _) = client.reads(&ranges, compression).unwrap();
                        for ((offset, length), got) in ranges.iter().zip(got) {
                            let offset = *offset as usize;
                            assert!(
                                got == content[offset..offset + *length as usize],
                                "{order} {compression:?}"
                            );
                        }
                    }
                }
                assert_eq!(client.close().unwrap(), [], "no byte after the end");
            }
        }
    }
}

#[test]
fn fragments_come_in_the_order_that_is_set() {
    let host = Host::new(content());
    let mut client = client(&host);
    let mut order = |order: &str| {
        host.set(&format!("order={order}"));
        let (_, order) = client.reads(&[(0, 16 * 65536)], Compression::None).unwrap();
        order.iter().map(|(_, at, _)| at / 65536).collect::<Vec<_>>()
    };
    let ascending: Vec<u32> = (0..16).collect();
    assert_eq!(order("ascending"), ascending);
    assert_eq!(order("interleaved"), ascending);
    assert!(order("reversed").iter().rev().eq(&ascending));
    let mut random = order("random");
    assert_ne!(random, ascending);
    random.sort_unstable();
    assert_eq!(random, ascending);
}

#[test]
fn operations_that_are_due_together_are_mixed() {
    let host = Host::new(content());
    host.set("order=interleaved");
    let mut client = writer(&host);
    let count = |counter: &AtomicU64, expected: u64| {
        while counter.load(Ordering::Relaxed) < expected {
            std::thread::yield_now();
        }
    };
    let held = host.disk.hold();
    let read = |op: u32, total: u32| Io::read(client.opened.handle, Compression::None, 0, total).encode(op);
    client.wire.say(&read(50, 512)).unwrap();
    count(&host.disk.reads, 1); // what sends is busy with that one
    let mut bytes = [read(51, 2 * 65536), read(52, 3 * 65536)].concat();
    open::close_file(client.opened.handle, 53, &mut bytes);
    client.wire.say(&bytes).unwrap();
    count(&host.disk.flushed, 1); // all were read
    drop(held);
    let ops: Vec<u32> = (0..6).map(|_| client.frame().unwrap().header.op).collect();
    assert_eq!(ops, [50, 51, 52, 51, 52, 52]);
}

#[test]
fn delays_of_concurrent_operations_overlap() {
    let host = Host::new(content());
    host.set("delay=150ms");
    let mut client = client(&host);
    let begin = Instant::now();
    let ranges: Vec<(u64, u32)> = (0..32).map(|i| (i * 512, 512)).collect();
    client.reads(&ranges, Compression::None).unwrap();
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn packing_is_given_up_as_often_as_is_set() {
    let host = Host::new(vec![0; 64 * CLUSTER]);
    let mut client = client(&host);
    let mut packed = |percent: u8| {
        host.set(&format!("unpacked={percent}"));
        let (_, order) = client.reads(&[(0, 64 * CLUSTER as u32)], Compression::Skipz).unwrap();
        order.iter().filter(|(_, _, compression)| *compression == Compression::Skipz).count()
    };
    assert_eq!((packed(0), packed(100)), (64, 0));
    assert!((10..55).contains(&packed(50)));
}

#[test]
fn what_is_written_is_there() {
    for secure in [false, true] {
        let host = Host::new(content());
        let wish = Wish { secure, write: true, buffer: 65536 };
        let mut client = Client::open(&host.ticket(WRITE), PATH, wish).unwrap();
        let mut expected = content();
        for (i, compression) in Compression::ALL.into_iter().enumerate() {
            let offset = (i * 3 * CLUSTER + 512) as u64;
            let mut data = vec![i as u8 + 1; 2 * CLUSTER + 512];
            data[100..70_000].fill(0);
            expected[offset as usize..offset as usize + data.len()].copy_from_slice(&data);
            client.write(offset, &data, compression).unwrap().unwrap();
            assert!(client.read(offset, data.len() as u32).unwrap() == data, "{compression:?}");
        }
        assert_eq!(client.close().unwrap(), []);
        assert!(host.disk.content() == expected);
        assert_eq!(host.disk.flushed.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn tickets_permit_what_they_are_for() {
    let host = Host::new(content());
    let refused = |right: Right, path: &str, write: bool| {
        let mut session = Client::session(&host.ticket(right), Wish::default()).unwrap();
        let e = session.open_file(path, write).unwrap().unwrap_err();
        session.open_file(PATH, false).unwrap().unwrap(); // the session stays usable
        e
    };
    assert_eq!(refused(Right::Files, PATH, true).kind(), ErrorKind::ReadOnly);
    assert_eq!(refused(Right::Disk { key: 1, write: false }, PATH, true).kind(), ErrorKind::ReadOnly);
    let foreign = refused(Right::Files, "[ds] other/other.vmdk", false);
    assert!(
        foreign
            .to_string()
            .contains("NFC error 11 from server: NfcAioProcessOpenFileMsg: permission check failed")
    );
    let mut reader = client(&host);
    assert_eq!(
        reader.write(0, &[1; 512], Compression::None).unwrap().unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    assert!(host.disk.content() == content());
}

#[test]
fn a_ticket_is_good_once_unless_it_is_set_otherwise() {
    let host = Host::new(content());
    let ticket = host.ticket(Right::Files);
    Client::open(&ticket, PATH, Wish::default()).unwrap();
    let Err(e) = Client::open(&ticket, PATH, Wish::default()) else { panic!("a used ticket") };
    assert_eq!((e.kind(), e.to_string()), (ErrorKind::Unauthorised, "530 Login incorrect".to_owned()));
    host.set("reuse-tickets=yes");
    let again = host.ticket(Right::Files);
    for _ in 0..3 {
        Client::open(&again, PATH, Wish::default()).unwrap();
    }
    assert!(!host.lines.all().contains("canary"), "tickets are in no log");
}

#[test]
fn values_are_told_and_absent_ones_are_empty() {
    let host = Host::new(content());
    let mut client = client(&host);
    assert_eq!(client.key("adapterType").unwrap().as_deref(), Some("lsilogic"));
    assert_eq!(client.key("longContentID").unwrap(), None);
}

#[test]
fn maps_show_what_is_allocated() {
    let host = Host::new(content());
    let mut client = client(&host);
    let rows = client.blocks(CLUSTER as u64, 0, 20).unwrap().unwrap();
    assert_eq!(rows, [(0, 4), (5, 9), (10, 14), (15, 19)]);
    assert_eq!(client.blocks(2 * CLUSTER as u64, 4 * CLUSTER as u64, 3).unwrap().unwrap(), [(0, 3)]);
    for (chunk, start, chunks) in [
        (CLUSTER as u64, 512, 1),
        (0, 0, 1),
        (100, 0, 1),
        (CLUSTER as u64, 0, 21),
        (512, 0, 0),
        (u64::MAX, 0, 3),
    ] {
        assert!(client.blocks(chunk, start, chunks).unwrap().is_err(), "{chunk} {start} {chunks}");
    }
    client.read(0, 512).unwrap();
}

#[test]
fn a_handle_may_not_see_what_it_allocated() {
    let host = Host::new(vec![0; 8 * CLUSTER]);
    host.set("stale-allocation=yes");
    let mut writer = writer(&host);
    writer.write(CLUSTER as u64, &[1; CLUSTER], Compression::None).unwrap().unwrap();
    assert_eq!(writer.blocks(CLUSTER as u64, 0, 8).unwrap().unwrap(), []);
    writer.close().unwrap();
    assert_eq!(client(&host).blocks(CLUSTER as u64, 0, 8).unwrap().unwrap(), [(1, 2)]);
}

#[test]
fn ranges_outside_of_the_disk_are_refused_and_the_session_goes_on() {
    let host = Host::new(content());
    let mut client = writer(&host);
    let end = content().len() as u64;
    for (offset, length) in
        [(end, 512), (end - 512, 1024), (u64::MAX - 511, 512), (1, 512), (0, 513), (0, 64 << 20)]
    {
        assert!(client.read(offset, length).is_err(), "{offset} {length}");
        let after = client.frame().unwrap(); // the answer after the refusal
        assert_eq!(after.header.kind, Kind::Io);
    }
    assert!(client.write(end - 512, &[0; 1024], Compression::None).unwrap().is_err());
    assert!(client.read(0, 1024).unwrap() == content()[..1024]);
}

#[test]
fn sectors_that_cannot_be_read_are_refused_by_themselves() {
    let host = Host::new(content());
    host.disk.spoil(3 * CLUSTER as u64);
    let mut client = client(&host);
    let e = client.reads(&[(0, 6 * CLUSTER as u32)], Compression::None).unwrap_err();
    assert!(e.to_string().contains("a bad sector"), "{e}");
    assert_eq!(open::status(&client.frame().unwrap().payload), 1);
    assert!(client.read(0, 512).unwrap() == content()[..512]);
    let e = client.reads(&[(0, 6 * CLUSTER as u32)], Compression::Zlib).unwrap_err();
    assert!(e.to_string().contains("a bad sector"), "{e}");
}

#[test]
fn large_buffers_are_refused_and_smaller_ones_may_follow() {
    let host = Host::new(content());
    let wire = client::enter(&host.ticket(Right::Files), true).unwrap();
    client::greet(&wire).unwrap();
    let mut bytes = Vec::new();
    for (op, buffer) in [(0, 16 << 20), (1, 32 << 20), (2, 100), (3, 2 << 20)] {
        open::OpenSession { buffer, count: 1 }.encode(op, &mut bytes);
    }
    wire.say(&bytes).unwrap();
    for _ in 0..3 {
        let refusal = wire.hear(32).unwrap();
        assert_eq!(refusal[4], 1);
        wire.hear(usize::from(refusal[28])).unwrap();
        assert_ne!(wire.hear(32).unwrap()[16], 0, "the answer has a status");
    }
    assert_eq!(wire.hear(32).unwrap()[16..], [0; 16]);
}

#[test]
fn operations_beyond_the_memory_get_error_5() {
    let host = Host::new(content());
    host.set("memory=262144");
    let mut client = client(&host);
    let e = client.read(0, 524_288).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::OutOfMemory);
    assert!(e.to_string().contains("NFC error 5 from server: Failed to allocate the requested 524312 bytes"));
    client.frame().unwrap();
    for _ in 0..5 {
        client.read(0, 262_144).unwrap(); // given back each time
    }
}

#[test]
fn connections_beyond_the_limit_wait_or_are_refused() {
    let host = Host::new(content());
    host.set("connections=1");
    let first = client(&host);
    let ticket = host.ticket(Right::Files);
    let (done, waits) = std::sync::mpsc::channel();
    let second = std::thread::spawn(move || {
        let client = Client::open(&ticket, PATH, Wish::default());
        done.send(()).unwrap();
        client.map(|mut client| client.read(0, 512).unwrap())
    });
    assert!(waits.recv_timeout(Duration::from_millis(300)).is_err(), "it waits");
    assert_eq!(host.server.served(), 1);
    first.close().unwrap();
    assert!(second.join().unwrap().unwrap() == content()[..512]);
    let _third = client(&host);
    host.set("excess=refuse");
    ends(&Wire::connect(host.server.address()));
}

#[test]
fn authd_answers_as_real_hosts_do() {
    let host = Host::new(content());
    let ticket = host.ticket(Right::Files);
    let (wire, thumbprint) = client::knock(&ticket).unwrap();
    let tls = wire.tls(&thumbprint).unwrap();
    let ask = |command: Command<'_>| {
        tls.command(command).unwrap();
        let reply = tls.line().unwrap();
        (reply.code, reply.text)
    };
    assert_eq!(ask(Command::Banner).0, 220);
    assert_eq!(ask(Command::Thumbprint), (200, host.sha256.clone()));
    assert_eq!(ask(Command::Other("THUMBPRINT_SHA2 AA:BB")), (501, "Invalid arguments".to_owned()));
    assert_eq!(ask(Command::Other("USER root")), (530, "Login incorrect".to_owned()));
    assert_eq!(ask(Command::Other("SESSIONID x")), (530, "Please login with USER and PASS".to_owned()));
    assert_eq!(ask(Command::Proxy("vpxa-nfc")), (530, "Login incorrect".to_owned()));
    assert_eq!(ask(Command::Proxy("elsewhere")), (501, "Invalid arguments".to_owned()));
    tls.command(Command::Session(ticket.id.expose_text().unwrap())).unwrap();
    assert_eq!(ask(Command::Proxy("nfcssl")), (200, "Connect ha-nfcssl".to_owned()));
}

#[test]
fn the_banner_says_what_the_settings_say() {
    let host = Host::new(content());
    host.set("secure-data=no");
    host.set("sha256=no");
    let wire = Wire::connect(host.server.address());
    let banner = Banner::of(&wire.line().unwrap());
    assert_eq!(banner, Banner { tls: true, secure_data: false, sha256: false });
    let e = client::enter(&host.ticket(Right::Files), true).unwrap_err();
    assert!(e.to_string().starts_with("501"));
    client::enter(&host.ticket(Right::Files), false).unwrap();
}

#[test]
fn releases_do_what_is_known_of_them() {
    for dialect in DIALECTS {
        let host = Host::of(dialect.name, content(), &[&rustls::version::TLS12]);
        let wire = client::enter(&host.ticket(Right::Files), true).unwrap();
        let greeted = client::greet(&wire);
        match dialect.name {
            "6.5" | "6.7" => assert_eq!(greeted.unwrap_err().kind(), ErrorKind::NotSupported),
            "7.0" => assert_eq!(greeted.unwrap(), 7),
            _ => assert_eq!(greeted.unwrap(), 11),
        }
    }
    let host = Host::of("6.7", content(), &[&rustls::version::TLS12]);
    let wire = client::enter(&host.ticket(Right::Files), false).unwrap();
    wire.say(&Message::Parameters.encode()).unwrap();
    wire.say(&Message::Version { number: 11, second: 0 }.encode()).unwrap();
    let heard = |wire: &Wire| Message::parse(&wire.hear(classic::LENGTH).unwrap()).unwrap();
    assert_eq!(heard(&wire), Message::ParametersReply { versions: 1 });
    assert_eq!(heard(&wire), Message::Version { number: 2, second: 1 });
    wire.say(&Message::Names { client: 0, operation: 0 }.encode()).unwrap();
    assert_eq!(heard(&wire), Message::Complete);
}

#[test]
fn versions_and_late_parameters_can_be_set() {
    let host = Host::new(content());
    host.set("version=9");
    host.set("late-parameters=yes");
    let wire = client::enter(&host.ticket(Right::Files), false).unwrap();
    assert_eq!(client::greet(&wire).unwrap(), 9);
    host.set("version=2");
    let wire = client::enter(&host.ticket(Right::Files), false).unwrap();
    assert!(client::greet(&wire).is_err());
}

#[test]
fn messages_out_of_order_are_answered_with_the_end() {
    let host = Host::new(content());
    let hello = Message::Hello(classic::PLAIN_TEXT);
    let version = Message::Version { number: 11, second: 0 };
    for row in [
        &[Message::Parameters][..],
        &[hello, version],
        &[hello, hello],
        &[hello, Message::Parameters, Message::Frames],
    ] {
        for secure in [false, true] {
            let wire = client::enter(&host.ticket(Right::Files), secure).unwrap();
            row.iter().for_each(|message| wire.say(&message.encode()).unwrap());
            let mut last = Message::Frames;
            while let Ok(bytes) = wire.hear(classic::LENGTH) {
                last = Message::parse(&bytes).unwrap();
                if last == Message::Complete {
                    wire.0.shutdown();
                }
            }
            assert_eq!(last, Message::Complete, "{row:?}");
        }
    }
}

#[test]
fn two_messages_in_one_record_are_not_taken() {
    let host = Host::new(content());
    let row = [Message::Hello(classic::PLAIN_TEXT).encode(), Message::Parameters.encode()].concat();
    let wire = client::enter(&host.ticket(Right::Files), true).unwrap();
    wire.say(&row).unwrap();
    assert_eq!(Message::parse(&wire.hear(classic::LENGTH).unwrap()).unwrap(), Message::Complete);
    let wire = client::enter(&host.ticket(Right::Files), false).unwrap();
    wire.say(&row).unwrap(); // without TLS there are no records
    assert_ne!(Message::parse(&wire.hear(classic::LENGTH).unwrap()).unwrap(), Message::Complete);
}

#[test]
fn rules_refuse_operations_with_code_and_text() {
    let host = Host::new(content());
    for (rule, text) in [
        ("nfc.read:2=error(16392,\"DiskLib error 16392: Failed to lock the file\")", "DiskLib error 16392"),
        ("nfc.read:2=error(77)", "NFC error 77 from server: no text"),
        ("nfc.query:1=error(9,\"no map\")", "no map"),
        ("nfc.ddb:1=error(8)", "NFC error 8"),
        ("nfc.write:1=error(5)", "NFC error 5"),
    ] {
        host.fault(rule);
        let mut client = writer(&host);
        let e = match rule.split(':').next().unwrap() {
            "nfc.read" => {
                client.read(0, 512).unwrap();
                let e = client.read(0, 512).unwrap_err();
                assert_eq!(client.frame().unwrap().header.kind, Kind::Io);
                e
            }
            "nfc.query" => client.blocks(CLUSTER as u64, 0, 1).unwrap().unwrap_err(),
            "nfc.ddb" => client.key("uuid").unwrap_err(),
            _ => client.write(0, &[1; 131_072], Compression::None).unwrap().unwrap_err(),
        };
        assert!(e.to_string().contains(text), "{e}");
        client.read(0, 512).unwrap();
        host.knobs.faults.clear();
    }
    assert!(host.disk.content() == content(), "a refused write changes nothing");
}

#[test]
fn rules_refuse_sessions_and_files() {
    let host = Host::new(content());
    host.fault("nfc.open:1=error(20,\"Thin/TBZ/Sparse disks cannot be opened in multiwriter mode\")");
    host.fault("nfc.session:2=refuse");
    let mut session = Client::session(&host.ticket(Right::Files), Wish::default()).unwrap();
    assert!(session.open_file(PATH, false).unwrap().unwrap_err().to_string().contains("multiwriter"));
    assert!(session.open_file(PATH, false).unwrap().is_ok());
    assert!(Client::session(&host.ticket(Right::Files), Wish::default()).is_err());
    host.fault("nfc.*#5=error(3)");
    let mut client = client(&host);
    client.read(0, 512).unwrap(); // operation 4
    assert!(client.read(0, 512).is_err());
}

#[test]
fn a_second_file_is_refused_and_not_for_want_of_memory() {
    let host = Host::new(content());
    let mut client = client(&host);
    let refusal = client.open_file(PATH, false).unwrap().unwrap_err();
    assert!(refusal.to_string().contains("a second file in a session is not known to work"), "{refusal}");
    assert_ne!(refusal.kind(), ErrorKind::OutOfMemory, "nobody is to wait for memory: {refusal}");
    client.read(0, 512).unwrap(); // the first one stays open
}

#[test]
fn refusals_have_the_form_that_is_set() {
    let host = Host::new(content());
    host.fault("nfc.read=error(5,\"why\")");
    let mut client = client(&host);
    let mut frames = |form: &str, count: usize| {
        host.set(&format!("refusals={form}"));
        let op = client.op();
        client.wire.say(&Io::read(client.opened.handle, Compression::None, 0, 512).encode(op)).unwrap();
        (0..count)
            .map(|_| client.frame().unwrap())
            .map(|f| (f.header.kind, open::status(&f.payload)))
            .collect::<Vec<_>>()
    };
    assert_eq!(frames("with-answer", 2), [(Kind::Refusal, 5), (Kind::Io, 5)]);
    assert_eq!(frames("alone", 1), [(Kind::Refusal, 5)]);
    assert_eq!(frames("status-only", 1), [(Kind::Io, 5)]);
}

#[test]
fn rules_end_connections_in_many_ways() {
    let host = Host::new(content());
    let read = |rule: &str| {
        let mut client = client(&host);
        host.fault(rule);
        let op = client.op();
        client.wire.say(&Io::read(client.opened.handle, Compression::None, 0, 1024).encode(op)).unwrap();
        client
    };
    let whole = 60 + 1024;
    ends(&read("nfc.read=cut").wire);
    host.knobs.faults.clear();
    assert_eq!(read("nfc.read=short").wire.rest().len(), whole / 2);
    host.knobs.faults.clear();
    let mut magic = read("nfc.read=magic");
    assert!(magic.frame().is_err());
    host.knobs.faults.clear();
    let mut stray = read("nfc.read=stray");
    assert_eq!(stray.frame().unwrap().header.kind, Kind::Other(14));
    assert_eq!(stray.frame().unwrap().more, content()[..1024]);
    host.knobs.faults.clear();
    for (rule, bytes) in [("nfc.read=silence", 0), ("nfc.read=short(silence)", whole / 2)] {
        let silent = read(rule);
        silent.wire.hear(bytes).unwrap();
        let ready = vixDiskLib::net::stream::Ready { recv: true, send: false };
        let until = Instant::now() + Duration::from_millis(200);
        assert!(!silent.wire.0.wait(ready, until).unwrap().recv, "neither bytes nor the end");
        host.knobs.faults.clear();
    }
    let other = client(&host);
    ends(&read("nfc.read=shutdown").wire);
    ends(&other.wire);
    ends(&Wire::connect(host.server.address()));
    host.knobs.faults.clear();
    host.set("maintenance=no");
    client(&host).read(0, 512).unwrap();
}

#[test]
fn rules_hold_at_the_door_too() {
    let host = Host::new(content());
    host.fault("authd.connect:1=refuse");
    host.fault("authd.session:1=cut");
    host.fault("authd.proxy:1=refuse");
    host.fault("authd.tls:1=cut");
    ends(&Wire::connect(host.server.address()));
    assert!(client::enter(&host.ticket(Right::Files), true).is_err(), "session");
    let e = client::enter(&host.ticket(Right::Files), true).unwrap_err();
    assert_eq!(e.to_string(), "530 Login incorrect");
    assert!(client::enter(&host.ticket(Right::Files), true).is_err(), "tls");
    client::enter(&host.ticket(Right::Files), true).unwrap();
}

#[test]
fn connections_are_cut_at_any_byte() {
    let host = Host::new(content());
    for secure in [false, true] {
        let wish = Wish { secure, ..Wish::default() };
        for (setting, step) in [("cut-sent", 997), ("cut-received", 211)] {
            let mut cuts = 0;
            for at in (0..).map(|i| i * step) {
                while host.server.served() > 0 {
                    std::thread::yield_now(); // or one that ends anyway might be the one that is cut
                }
                host.set(&format!("{setting}={at}"));
                let done =
                    Client::open(&host.ticket(Right::Files), PATH, wish).and_then(|mut c| c.read(0, 4096));
                match done {
                    Ok(got) => {
                        assert!(got == content()[..4096]);
                        break;
                    }
                    Err(_) => cuts += 1,
                }
            }
            assert!(cuts >= 5, "{setting}: {cuts}");
            host.set(&format!("{setting}=default"));
        }
    }
}

#[test]
fn connections_are_cut_again_and_again() {
    let host = Host::new(content());
    host.set("cut-every=300000");
    let (mut got, mut cuts) = (Vec::new(), 0);
    let whole = content();
    while got.len() < whole.len() {
        let mut client = match Client::open(&host.ticket(Right::Files), PATH, Wish::default()) {
            Ok(client) => client,
            Err(_) => continue,
        };
        while let Some(length) = Some((whole.len() - got.len()).min(65536)).filter(|n| *n > 0) {
            match client.read(got.len() as u64, length as u32) {
                Ok(part) => got.extend(part),
                Err(_) => {
                    cuts += 1;
                    break;
                }
            }
        }
    }
    assert!(got == whole && cuts >= 4, "{cuts}");
}

#[test]
fn sector_sizes_may_be_left_out() {
    let host = Host::new(content());
    assert_eq!(client(&host).opened.sector_size, 512);
    host.set("no-sector-size=yes");
    assert_eq!(client(&host).opened.sector_size, 0);
}

#[test]
fn clients_that_break_the_protocol_are_dropped() {
    let host = Host::new(content());
    let good = |client: &Client| Io::write(client.opened.handle, 0, 1024, 0, 512);
    let bad: &[fn(Io) -> Io] = &[
        |io| Io { at: 1024, ..io },
        |io| Io { length: 0, wire: 0, ..io },
        |io| Io { wire: u32::MAX, ..io },
        |io| Io { wire: 4, ..io },
        |io| Io { at: 1, ..io },
        |io| Io { total: 0, ..io },
        |io| io.packed(Compression::Zlib, 512), // which is no zlib stream
    ];
    for (i, spoil) in bad.iter().enumerate() {
        let mut client = writer(&host);
        let op = client.op();
        let mut bytes = spoil(good(&client)).encode(op).to_vec();
        bytes.extend([9; 512]);
        client.wire.say(&bytes).unwrap();
        ends(&client.wire);
        assert!(host.disk.content() == content(), "{i}");
    }
    for garbage in [&[0; 16][..], b"GET / HTTP/1.1\r\n", &[0xff; 64]] {
        let client = client(&host);
        client.wire.say(garbage).unwrap();
        ends(&client.wire);
    }
    let twice = writer(&host);
    let mut bytes = good(&twice).encode(90).to_vec();
    bytes.extend([9; 512]);
    twice.wire.say(&bytes.repeat(2)).unwrap();
    ends(&twice.wire);
    client(&host).read(0, 512).unwrap();
}

#[test]
fn a_write_whose_file_is_closed_meanwhile_is_refused() {
    let host = Host::new(content());
    let mut client = writer(&host);
    let (handle, op) = (client.opened.handle, client.op());
    let mut bytes = Io::write(handle, 0, 1024, 0, 512).encode(op).to_vec();
    bytes.extend([9; 512]);
    let close = client.op();
    open::close_file(handle, close, &mut bytes);
    bytes.extend(Io::write(handle, 0, 1024, 512, 512).encode(op));
    bytes.extend([9; 512]);
    client.wire.say(&bytes).unwrap();
    client.answer(close).unwrap().unwrap();
    assert!(client.answer(op).unwrap().unwrap_err().text.contains("closed meanwhile"));
}

#[test]
fn the_last_words_may_come_all_at_once() {
    let host = Host::new(content());
    host.set("delay=50ms");
    let mut client = client(&host);
    let (file, session) = (client.op(), client.op());
    let mut bytes = Vec::new();
    open::close_file(client.opened.handle, file, &mut bytes);
    open::close_session(session, &mut bytes);
    bytes.extend(Message::Complete.encode());
    client.wire.say(&bytes).unwrap();
    assert_eq!(client.frame().unwrap().header.kind, Kind::CloseFile);
    assert_eq!(client.frame().unwrap().header.kind, Kind::CloseSession);
    ends(&client.wire);
}

#[test]
fn strangers_at_the_door_are_dropped() {
    let host = Host::new(content());
    for garbage in [&b"SESSION x\r\n"[..], b"\x16\x03\x01\xff\xff", &[0; 300]] {
        let wire = Wire::connect(host.server.address());
        wire.line().unwrap();
        wire.say(garbage).unwrap();
        wire.say(&[0; 70_000]).ok();
        wire.rest();
    }
    let (wire, thumbprint) = client::knock(&host.ticket(Right::Files)).unwrap();
    let tls = wire.tls(&thumbprint).unwrap();
    tls.say(&[b'x'; 5000]).unwrap();
    assert_eq!(tls.rest(), []);
    let ticket = host.ticket(Right::Files);
    let (wire, thumbprint) = client::knock(&ticket).unwrap();
    let tls = wire.tls(&thumbprint).unwrap();
    tls.command(Command::Session(ticket.id.expose_text().unwrap())).unwrap();
    tls.say(b"PROXY nfc\r\nmore").unwrap(); // more than the host may see inside of that TLS
    assert!(tls.line().unwrap().is_good());
    assert_eq!(tls.rest(), []);
    client(&host).read(0, 512).unwrap();
}

#[test]
fn silent_clients_are_dropped_in_time() {
    let host = Host::new(content());
    host.set("patience=1s");
    let begin = Instant::now();
    let silent = Wire::connect(host.server.address());
    silent.line().unwrap();
    ends(&silent);
    host.set("idle=1s");
    ends(&client(&host).wire);
    assert!(begin.elapsed() < Duration::from_secs(15));
}

#[test]
fn the_end_of_the_server_ends_everything_at_once() {
    let host = Host::new(content());
    host.set("delay=60s");
    host.fault("authd.connect:2=silence");
    let mut waiting = {
        host.set("delay=0s");
        let client = client(&host);
        host.set("delay=60s");
        client
    };
    let op = waiting.op();
    waiting.wire.say(&Io::read(waiting.opened.handle, Compression::None, 0, 512).encode(op)).unwrap();
    let held = Wire::connect(host.server.address());
    let at_the_door = Wire::connect(host.server.address());
    at_the_door.line().unwrap();
    let begin = Instant::now();
    drop(host);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    for wire in [&waiting.wire, &held, &at_the_door] {
        ends(wire);
    }
}

#[test]
fn a_client_that_takes_nothing_does_not_keep_the_server() {
    let host = Host::new(vec![1; 8 << 20]);
    host.set("patience=1s");
    let mut client = client(&host);
    let mut bytes = Vec::new();
    for _ in 0..64 {
        let op = client.op();
        bytes.extend(Io::read(client.opened.handle, Compression::None, 0, 8 << 20).encode(op));
    }
    client.wire.say(&bytes).unwrap();
    let begin = Instant::now();
    while host.server.served() > 0 {
        assert!(begin.elapsed() < Duration::from_secs(15), "it still serves");
        std::thread::yield_now();
    }
}
