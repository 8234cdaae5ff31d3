//! ESXi hosts that lie, stop in the middle, fall silent or never end: each is an error in bounded time and memory, never a
//! wrong byte, and closing is quick.
#![allow(clippy::unwrap_used)]

mod common;
#[allow(dead_code, reason = "a part of it")]
#[path = "../fuzz/src/limits.rs"]
mod limits;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use common::model;
use common::nfc_peer;
use common::nfc_peer::After;
use common::nfc_peer::Disk;
use common::nfc_peer::Frame;
use common::nfc_peer::Host;
use common::nfc_peer::Talk;
use common::nfc_peer::wanted;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Log;
use vixDiskLib::net::nfc::Compression;
use vixDiskLib::net::nfc::aio;
use vixDiskLib::net::nfc::aio::Header;
use vixDiskLib::net::nfc::aio::Kind;
use vixDiskLib::net::nfc::classic::Message;
use vixDiskLib::net::nfc::client::Buffers;
use vixDiskLib::net::nfc::client::Client;
use vixDiskLib::net::nfc::client::Options;
use vixDiskLib::net::nfc::ddb;
use vixDiskLib::net::nfc::io::Direction;
use vixDiskLib::net::nfc::io::Io;
use vixDiskLib::net::nfc::open;
use vixDiskLib::threads::Threads;
use vixDiskLib::transfer::Transfer;

#[global_allocator]
static ALLOCATOR: limits::Counting = limits::Counting;

const SIZE: u64 = 128 << 10;
const SECTORS: u64 = SIZE / 512;

/// Patience that lasts on a busy machine, and one for hosts that are silent.
const PATIENT: Duration = Duration::from_secs(30);
const IMPATIENT: Duration = Duration::from_millis(200);

/// What a bounded wait may take at most on a busy machine.
const BOUNDED: Duration = Duration::from_secs(20);

fn options(silence: Duration, reconnect: Duration) -> Options {
    let connect = PATIENT;
    Options { connect, read: silence, write: silence, request: silence, reconnect, ..Options::default() }
}

fn connect_packed(host: &Host, compression: Compression, options: &Options) -> Result<Arc<Client>> {
    let threads = Arc::new(Threads::new(|body| body()));
    Client::behind(host.open_door(), wanted(true, compression), options, Log::none(), threads)
}

fn connect(host: &Host, options: &Options) -> Result<Arc<Client>> {
    connect_packed(host, Compression::None, options)
}

fn disk() -> Disk {
    Disk::new(model::stamps(0, SECTORS, 1))
}

/// A host that answers reads by `lie` and everything else as it should.
fn liar(lie: impl Fn(&mut Talk, &Frame) -> std::io::Result<()> + Send + Sync + 'static) -> Host {
    liar_about(|frame| frame.kind == Kind::Io && frame.io().direction == Direction::Read, lie)
}

fn liar_about(
    what: impl Fn(&Frame) -> bool + Send + Sync + 'static,
    lie: impl Fn(&mut Talk, &Frame) -> std::io::Result<()> + Send + Sync + 'static,
) -> Host {
    let disk = disk();
    Host::new(move |_, talk| {
        talk.open(&disk)?;
        loop {
            let frame = talk.frame()?;
            if what(&frame) { lie(talk, &frame)? } else { talk.answer(&frame, &disk)? }
        }
    })
}

/// Reads two sectors from the third on; what it reads must be right.
fn read_two(client: &Client) -> Result<()> {
    let mut two = vec![0xa5; 1024];
    client.read(&mut two, 1024)?;
    assert!(two == model::stamps(2, 2, 1), "wrong bytes");
    Ok(())
}

/// Runs `work` and asserts that it, and closing, end in time and within memory.
#[track_caller]
fn bounded<T>(what: &str, client: &Client, work: impl FnOnce(&Client) -> T) -> T {
    let start = Instant::now();
    let (result, cost) = limits::measured(|| work(client));
    assert!(start.elapsed() < BOUNDED, "{what} took {:?}", start.elapsed());
    assert!(cost.memory < 16 << 20, "{what} held {} bytes", cost.memory);
    let start = Instant::now();
    client.close();
    assert!(start.elapsed() < Duration::from_secs(4), "{what}: closing took {:?}", start.elapsed());
    result
}

type Lie = fn(&mut Talk, &Frame) -> std::io::Result<()>;

fn right(io: &Io) -> Vec<u8> {
    model::stamps(io.offset / 512, u64::from(io.total) / 512, 1)
}

fn frame(talk: &mut Talk, op: u32, io: &Io, data: &[u8]) -> std::io::Result<()> {
    talk.raw(&[&io.encode(op)[..], data].concat())
}

/// The right answer with the fragment's structure changed.
fn changed(talk: &mut Talk, asked: &Frame, change: impl FnOnce(&mut Io)) -> std::io::Result<()> {
    let io = asked.io();
    let mut fragment = io.fragment(0, io.total);
    change(&mut fragment);
    frame(talk, asked.op, &fragment, &right(&io))
}

const LIES: &[(&str, Lie)] = &[
    ("a magic of zeros", |talk, _| talk.raw(&[0; 128])),
    ("a message of the handshake", |talk, _| talk.say(Message::Frames)),
    ("the farewell", |talk, _| talk.say(Message::Complete)),
    ("an unknown operation", |talk, asked| {
        let io = asked.io();
        frame(talk, asked.op + 1, &io.fragment(0, io.total), &right(&io))
    }),
    ("operation 2^32-1", |talk, asked| {
        let io = asked.io();
        frame(talk, u32::MAX, &io.fragment(0, io.total), &right(&io))
    }),
    ("an operation of the opening", |talk, _| {
        let mut bytes = Vec::new();
        open::resource_pool(1, 2, &mut bytes);
        talk.raw(&bytes)
    }),
    ("an answer twice, before the next", |talk, asked| {
        for _ in 0..2 {
            let io = asked.io();
            frame(talk, asked.op, &io.fragment(0, io.total), &right(&io))?;
        }
        talk.hold()
    }),
    ("a payload of 2^32-1 bytes", |talk, asked| {
        talk.raw(&Header { kind: Kind::Io, size: u32::MAX, op: asked.op }.encode())
    }),
    ("a payload of no bytes", |talk, asked| {
        talk.raw(&Header { kind: Kind::Io, size: 0, op: asked.op }.encode())
    }),
    ("data of 2^32-1 bytes", |talk, asked| changed(talk, asked, |io| io.wire = u32::MAX)),
    ("a fragment of 2^32-1 bytes", |talk, asked| changed(talk, asked, |io| io.length = u32::MAX)),
    ("a fragment at 2^32-1", |talk, asked| changed(talk, asked, |io| io.at = u32::MAX)),
    ("an operation of 2^32-1 bytes", |talk, asked| changed(talk, asked, |io| io.total = u32::MAX)),
    ("a fragment behind the range", |talk, asked| changed(talk, asked, |io| io.at = 512)),
    ("a fragment elsewhere on the disk", |talk, asked| changed(talk, asked, |io| io.offset = 0)),
    ("a fragment at 2^64-1", |talk, asked| changed(talk, asked, |io| io.offset = u64::MAX)),
    ("a fragment of a write", |talk, asked| changed(talk, asked, |io| io.direction = Direction::Write)),
    ("a direction that is none", |talk, asked| {
        let io = asked.io();
        let mut bytes = io.fragment(0, io.total).encode(asked.op);
        bytes[24] = 2;
        talk.raw(&bytes)
    }),
    ("a packing that is none", |talk, asked| {
        let io = asked.io();
        let mut bytes = io.fragment(0, io.total).encode(asked.op);
        bytes[28] = 4;
        talk.raw(&bytes)
    }),
    ("a packing that was not asked for", |talk, asked| {
        changed(talk, asked, |io| io.compression = Compression::Zlib)
    }),
    ("a fragment of no bytes", |talk, asked| {
        let io = Io { length: 0, wire: 0, ..asked.io().fragment(0, 0) };
        frame(talk, asked.op, &io, &[])
    }),
    ("a fragment of half a sector", |talk, asked| {
        let io = asked.io().fragment(0, 256);
        frame(talk, asked.op, &io, &[1; 256])
    }),
    ("data of another length than the fragment", |talk, asked| changed(talk, asked, |io| io.wire -= 1)),
    ("the same fragment twice", |talk, asked| {
        let io = asked.io();
        for _ in 0..2 {
            frame(talk, asked.op, &io.fragment(0, 512), &right(&io)[..512])?;
        }
        talk.hold()
    }),
    ("overlapping fragments", |talk, asked| {
        let io = asked.io();
        frame(talk, asked.op, &io.fragment(512, 512), &right(&io)[512..])?;
        frame(talk, asked.op, &io.fragment(0, 1024), &right(&io))
    }),
    ("a map", |talk, asked| {
        let mut bytes = Vec::new();
        open::answer(Kind::Blocks, asked.op, 48, 0, &mut bytes);
        talk.raw(&bytes)
    }),
    ("a value", |talk, asked| {
        let mut bytes = Vec::new();
        ddb::answer("lsilogic", asked.op, &mut bytes);
        talk.raw(&bytes)
    }),
    ("a refusal of something else", |talk, asked| {
        let other = Frame { op: asked.op + 9, ..asked.clone() };
        talk.refuse(&other, 1, "no")
    }),
    ("a refusal with a text of 2^32-1 bytes", |talk, asked| refusal(talk, asked, u32::MAX, &[])),
    ("a refusal of 2^32-1 bytes", |talk, asked| {
        talk.raw(&Header { kind: Kind::Refusal, size: u32::MAX, op: asked.op }.encode())
    }),
];

fn refusal(talk: &mut Talk, asked: &Frame, length: u32, text: &[u8]) -> std::io::Result<()> {
    let payload = [&7_u64.to_le_bytes()[..], &[0; 4], &length.to_le_bytes()].concat();
    let mut bytes = Vec::new();
    aio::frame(&mut bytes, Kind::Refusal, asked.op, &payload, text);
    talk.raw(&bytes)
}

#[test]
fn a_lie_about_a_read_is_a_protocol_error() {
    for (what, lie) in LIES {
        let host = liar(lie);
        let client = connect(&host, &options(PATIENT, Duration::ZERO)).unwrap();
        let error = bounded(what, &client, |client| {
            // A lie that comes behind a right answer is found by the next request.
            read_two(client).and_then(|()| read_two(client)).expect_err(what)
        });
        assert_eq!(error.kind(), ErrorKind::Protocol, "{what}: {error}");
        assert!(error.to_string().len() < 2000, "{what}: {error}");
    }
}

#[test]
fn a_lie_is_not_forgiven_by_trying_again_but_later_calls_may_succeed() {
    let content = disk();
    let host = Host::new(move |n, talk| match n {
        0 => {
            talk.open(&content)?;
            talk.frame()?;
            talk.raw(&[0; 64]).and_then(|()| talk.hold())
        }
        _ => nfc_peer::serve(talk, &content),
    });
    let client = connect(&host, &options(PATIENT, PATIENT)).unwrap();
    let error = bounded("a lie", &client, |client| read_two(client).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
}

/// Packed data that are wrong in every way that packed data can be.
#[test]
fn packed_data_that_lie_are_a_protocol_error() {
    let wrong: &[(Compression, &[u8])] = &[
        (Compression::Zlib, b"not zlib at all"),
        (Compression::Zlib, &[0x78, 0x01, 0x01, 0, 0, 0xff, 0xff, 0, 0, 0, 1]),
        (Compression::Fastlz, &[0x40, 1, 2, 3]),
        (Compression::Fastlz, &[0x01, 0x41, 0x41, 0xe0, 0xff, 0xff]),
        (Compression::Fastlz, &[0x1f]),
        (Compression::Skipz, &[0; 7]),
        (Compression::Skipz, &[0, 4, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 9]),
        (Compression::Skipz, &[0, 8, 0, 0, 0, 0, 0, 0]),
        (Compression::Skipz, &[0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 9]),
    ];
    for (compression, data) in wrong {
        let host = liar(move |talk, asked| {
            let io = asked.io();
            frame(talk, asked.op, &io.fragment(0, io.total).packed(*compression, data.len() as u32), data)
        });
        let client = connect_packed(&host, *compression, &options(PATIENT, Duration::ZERO)).unwrap();
        let what = format!("{compression:?} {data:?}");
        let error = bounded(&what, &client, |client| read_two(client).expect_err(&what));
        assert_eq!(error.kind(), ErrorKind::Protocol, "{what}: {error}");
    }
}

#[test]
fn a_refusal_in_another_layout_is_understood_as_far_as_it_goes() {
    let odd = |payload: &'static [u8], answers: bool| {
        liar(move |talk, asked| {
            let mut bytes = Vec::new();
            aio::frame(&mut bytes, Kind::Refusal, asked.op, payload, &[]);
            talk.raw(&bytes)?;
            if answers {
                frame(talk, asked.op, &asked.io().answer(1), &[])?;
            }
            Ok(())
        })
    };
    for answers in [false, true] {
        for payload in [&b"\x0b\0\0\0Failed to open"[..], &[11, 0, 0, 0], &[], &[9; 200]] {
            let host = odd(payload, answers);
            let client = connect(&host, &options(PATIENT, Duration::ZERO)).unwrap();
            let error = read_two(&client).unwrap_err();
            assert_ne!(error.kind(), ErrorKind::Protocol, "{payload:?}: {error}");
            client.write(&[1; 512], 0).expect("the connection goes on");
            let error = bounded("a refusal", &client, |client| read_two(client).unwrap_err());
            assert!(error.to_string().contains("NFC error"), "{error}");
            assert_eq!(host.seen(), 1);
        }
    }
    // What follows such a refusal and is no frame is the end of the connection, which may be made again.
    let content = disk();
    let host = Host::new(move |n, talk| {
        if n > 0 {
            return nfc_peer::serve(talk, &content);
        }
        talk.open(&content)?;
        let asked = talk.frame()?;
        let mut bytes = Vec::new();
        aio::frame(&mut bytes, Kind::Refusal, asked.op, &[5; 8], b"a text that nobody announced");
        talk.raw(&bytes)?;
        talk.hold()
    });
    let client = connect(&host, &options(PATIENT, PATIENT)).unwrap();
    assert!(read_two(&client).is_err());
    read_two(&client).unwrap();
    assert_eq!(host.seen(), 2);
}

/// Of the message by which hosts speak of another host only its existence is known.
#[test]
fn a_message_of_an_unknown_kind_is_a_reason_to_connect_again() {
    let content = disk();
    let host = Host::new(move |n, talk| {
        if n > 0 {
            return nfc_peer::serve(talk, &content);
        }
        talk.open(&content)?;
        talk.frame()?;
        let mut bytes = Vec::new();
        aio::frame(&mut bytes, Kind::Other(15), 77, &[1; 100], &[]);
        talk.raw(&bytes)?;
        talk.hold()
    });
    let client = connect(&host, &options(PATIENT, PATIENT)).unwrap();
    read_two(&client).unwrap();
    assert_eq!(host.seen(), 2);
}

#[test]
fn a_lie_about_what_is_allocated_is_a_protocol_error() {
    fn map(talk: &mut Talk, op: u32, chunks: u64, bitmap: &[u8]) -> std::io::Result<()> {
        let payload = [&[0; 32][..], &chunks.to_le_bytes(), &[0; 8]].concat();
        let mut bytes = Vec::new();
        aio::frame(&mut bytes, Kind::Blocks, op, &payload, bitmap);
        talk.raw(&bytes)
    }
    let lies: &[(&str, Lie)] = &[
        ("fewer chunks", |talk, asked| map(talk, asked.op, 1, &[0; 4])),
        ("more chunks", |talk, asked| map(talk, asked.op, 64, &[0; 8])),
        ("2^64-1 chunks", |talk, asked| map(talk, asked.op, u64::MAX, &[0; 8])),
        ("a value", |talk, asked| {
            let mut bytes = Vec::new();
            ddb::answer("x", asked.op, &mut bytes);
            talk.raw(&bytes)
        }),
    ];
    for (what, lie) in lies {
        let host = liar_about(|frame| frame.kind == Kind::Blocks, lie);
        let client = connect(&host, &options(PATIENT, Duration::ZERO)).unwrap();
        let error = bounded(what, &client, |client| client.allocation(0..SIZE, &mut |_| ()).expect_err(what));
        assert_eq!(error.kind(), ErrorKind::Protocol, "{what}: {error}");
    }
}

#[test]
fn a_lie_about_a_value_is_a_protocol_error() {
    for length in [65537, u32::MAX] {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let host = liar_about(
            |frame| frame.kind == Kind::DdbGet && frame.more == b"lie",
            move |talk, frame| {
                asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let mut bytes = Vec::new();
                let payload = [&[0; 12][..], &length.to_le_bytes()].concat();
                aio::frame(&mut bytes, Kind::DdbGet, frame.op, &payload, b"short");
                talk.raw(&bytes)
            },
        );
        let client = connect(&host, &options(PATIENT, Duration::ZERO)).unwrap();
        let error = bounded("a value", &client, |client| client.key("lie").unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }
}

/// What a host says before the first read, changed at one place.
#[test]
fn a_lie_while_opening_is_an_error_of_its_kind() {
    type Opening = fn(&mut Talk, &Disk) -> std::io::Result<()>;
    fn first(talk: &mut Talk, bytes: &[u8]) -> std::io::Result<()> {
        talk.hear_hello()?;
        talk.raw(bytes)?;
        talk.hold()
    }
    fn opened(talk: &mut Talk, disk: &Disk, change: impl Fn(&mut open::Opened)) -> std::io::Result<()> {
        talk.handshake()?;
        for _ in 0..3 {
            let frame = talk.frame()?;
            talk.answer(&frame, disk)?;
        }
        let frame = talk.frame()?;
        let mut answer = nfc_peer::opened(disk.size());
        change(&mut answer);
        let mut bytes = Vec::new();
        answer.encode(frame.op, &mut bytes);
        talk.raw(&bytes)?;
        talk.hold()
    }
    let wrong = ErrorKind::Protocol;
    let unable = ErrorKind::NotSupported;
    let lies: &[(&str, ErrorKind, Opening)] = &[
        ("zeros", wrong, |talk, _| first(talk, &[0; 264])),
        ("ones", wrong, |talk, _| first(talk, &[0xff; 264])),
        ("a line", wrong, |talk, _| first(talk, &b"220 hello\r\n".repeat(24))),
        ("the farewell", unable, |talk, _| first(talk, &Message::Complete.encode())),
        ("an old version", unable, |talk, _| {
            let version = Message::Version { number: 2, second: 0 };
            first(talk, &[Message::ParametersReply { versions: 1 }.encode(), version.encode()].concat())
        }),
        ("no versions", unable, |talk, _| first(talk, &Message::ParametersReply { versions: 0 }.encode())),
        ("the parameters twice", wrong, |talk, _| {
            first(talk, &Message::ParametersReply { versions: 1 }.encode().repeat(2))
        }),
        ("frames too early", wrong, |talk, _| first(talk, &Message::Frames.encode())),
        ("the version last, then nonsense", wrong, |talk, _| {
            let version = Message::Version { number: 11, second: 0 };
            let both = [version.encode(), Message::ParametersReply { versions: 1 }.encode(), [7; 264]];
            first(talk, &both.concat())
        }),
        ("no magic", wrong, |talk, _| {
            talk.handshake()?;
            talk.raw(&[1; 64])?;
            talk.hold()
        }),
        ("another operation", wrong, |talk, disk| {
            talk.handshake()?;
            let frame = talk.frame()?;
            talk.answer(&Frame { op: 5, ..frame }, disk)?;
            talk.hold()
        }),
        ("the answer to something else", wrong, |talk, _| {
            talk.handshake()?;
            let mut bytes = Vec::new();
            open::resource_pool(1, 0, &mut bytes);
            talk.raw(&bytes)?;
            talk.hold()
        }),
        ("a refused session", ErrorKind::ServerFault, |talk, _| {
            talk.handshake()?;
            let frame = talk.frame()?;
            talk.refuse(&frame, 77, "no")?;
            talk.hold()
        }),
        ("a session with a bad status", ErrorKind::ServerFault, |talk, _| {
            talk.handshake()?;
            let mut bytes = Vec::new();
            open::answer(Kind::OpenSession, 0, 16, 99, &mut bytes);
            talk.raw(&bytes)?;
            talk.hold()
        }),
        ("no handle", wrong, |talk, disk| opened(talk, disk, |o| o.handle = 0)),
        ("2^64-1 bytes", wrong, |talk, disk| opened(talk, disk, |o| o.capacity = u64::MAX)),
        ("half a sector", wrong, |talk, disk| opened(talk, disk, |o| o.capacity += 256)),
        ("sectors of 3 bytes", wrong, |talk, disk| opened(talk, disk, |o| o.sector_size = 3)),
        ("sectors of 2^31 bytes", wrong, |talk, disk| opened(talk, disk, |o| o.sector_size = 1 << 31)),
        ("a bad status", ErrorKind::ReadOnly, |talk, disk| opened(talk, disk, |o| o.status = 11)),
        ("values of 2^32-1 bytes", wrong, |talk, disk| {
            talk.handshake()?;
            for _ in 0..4 {
                let frame = talk.frame()?;
                talk.answer(&frame, disk)?;
            }
            let payload = [&[0; 12][..], &[0xff; 4]].concat();
            let mut bytes = Vec::new();
            aio::frame(&mut bytes, Kind::DdbGet, 4, &payload, b"x");
            talk.raw(&bytes)?;
            talk.hold()
        }),
        ("a value twice", wrong, |talk, disk| {
            talk.handshake()?;
            for _ in 0..4 {
                let frame = talk.frame()?;
                talk.answer(&frame, disk)?;
            }
            let mut bytes = Vec::new();
            ddb::answer("x", 4, &mut bytes);
            talk.raw(&bytes.repeat(2))?;
            talk.hold()
        }),
    ];
    for &(what, kind, lie) in lies {
        let host = Host::new(move |_, talk| lie(talk, &disk()));
        let start = Instant::now();
        let (result, cost) = limits::measured(|| connect(&host, &options(PATIENT, Duration::ZERO)).map(drop));
        let error = result.expect_err(what);
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(start.elapsed() < BOUNDED && cost.memory < 8 << 20, "{what}: {} bytes", cost.memory);
    }
}

/// Values may be refused, with or without an answer behind the refusal, and come in any order.
#[test]
fn refused_values_are_absent_ones() {
    for answers in [false, true] {
        let host = Host::new(move |_, talk| {
            let disk = disk();
            talk.handshake()?;
            let mut values = Vec::new();
            for _ in 0..4 + ddb::KNOWN_KEYS.len() {
                let frame = talk.frame()?;
                match frame.kind {
                    Kind::DdbGet => values.push(frame),
                    _ => talk.answer(&frame, &disk)?,
                }
            }
            for frame in values.iter().rev() {
                match frame.more.as_slice() {
                    b"uuid" if answers => talk.refuse(frame, 3, "no such key")?,
                    b"uuid" => refusal(talk, frame, 2, b"no")?,
                    _ => talk.answer(frame, &disk)?,
                }
            }
            nfc_peer::serve_frames(talk, &disk)
        });
        let client = connect(&host, &options(PATIENT, Duration::ZERO)).unwrap();
        let keys: Vec<_> = client.opened().keys.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["adapterType", "geometry.biosHeads"]);
        read_two(&client).unwrap();
    }
}

/// One of each kind of call; what is read must be right.
fn session(client: &Client) -> Result<()> {
    read_two(client)?;
    client.write(&model::stamps(8, 4, 7), 8 * 512)?;
    let mut all = vec![0; SIZE as usize];
    client.read(&mut all, 0)?;
    let expected =
        [model::stamps(0, 8, 1), model::stamps(8, 4, 7), model::stamps(12, SECTORS - 12, 1)].concat();
    assert!(all == expected, "wrong bytes");
    let mut parts = Vec::new();
    assert!(client.allocation(0..SIZE, &mut |part| parts.push(part))?);
    assert_eq!(parts, std::slice::from_ref(&(0..SIZE)));
    assert_eq!(client.key("adapterType")?.as_deref(), Some("lsilogic"));
    client.flush()
}

/// The bytes that a whole session sends before the farewell.
fn length_of_session(compression: Compression) -> u64 {
    let disk = disk();
    let host = Host::new(move |_, talk| nfc_peer::serve(talk, &disk));
    let client = connect_packed(&host, compression, &options(PATIENT, Duration::ZERO)).unwrap();
    session(&client).unwrap();
    host.sent() as u64
}

/// Positions in a session that are worth ending it at: all but those inside of long data.
fn places(length: u64) -> impl Iterator<Item = u64> {
    (0..length).filter(move |at| *at < 3600 || *at % 1499 < 3 || *at + 600 > length)
}

#[test]
fn a_session_may_end_at_each_byte() {
    for compression in [Compression::None, Compression::Skipz] {
        for cut in places(length_of_session(compression)) {
            let disk = disk();
            let gate = move |_| Some((cut, After::Close));
            let host = Host::behind(gate, move |_, talk| nfc_peer::serve(talk, &disk));
            let start = Instant::now();
            let result = connect_packed(&host, compression, &options(PATIENT, Duration::ZERO))
                .and_then(|client| session(&client));
            let error = result.expect_err("the session was cut");
            assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{compression:?}, cut at {cut}: {error}");
            assert!(start.elapsed() < BOUNDED, "{compression:?}, cut at {cut}: {:?}", start.elapsed());
        }
    }
}

/// The first connection ends somewhere, the next ones do not: nobody notices.
#[test]
fn a_session_goes_on_after_an_end_at_each_byte() {
    let opened = 1700; // an end before that fails the first connection, which nobody makes again
    for cut in places(length_of_session(Compression::None)).filter(|cut| *cut > opened && cut % 3 == 0) {
        let disk = disk();
        let gate = move |n| if n == 0 { Some((cut, After::Close)) } else { None };
        let host = Host::behind(gate, move |_, talk| nfc_peer::serve(talk, &disk));
        let client = connect(&host, &options(PATIENT, PATIENT)).unwrap();
        bounded("a session", &client, session).unwrap();
        assert_eq!(host.seen(), 2, "cut at {cut}");
    }
}

#[test]
fn silence_at_each_step_ends_in_time() {
    let cuts: Vec<u64> = places(length_of_session(Compression::None)).filter(|at| at % 23 == 0).collect();
    // Most of it is waiting: many at once.
    std::thread::scope(|scope| {
        for cuts in cuts.chunks(cuts.len().div_ceil(16)) {
            scope.spawn(move || {
                for &cut in cuts {
                    silent_at(cut);
                }
            });
        }
    });
}

fn silent_at(cut: u64) {
    let disk = disk();
    let gate = move |_| Some((cut, After::Silence));
    let host = Host::behind(gate, move |_, talk| nfc_peer::serve(talk, &disk));
    let start = Instant::now();
    let options = Options { connect: IMPATIENT, ..options(IMPATIENT, Duration::ZERO) };
    let error = connect(&host, &options).and_then(|client| session(&client)).expect_err("silence");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "silent at {cut}: {error}");
    assert!(start.elapsed() < BOUNDED, "silent at {cut}: {:?}", start.elapsed());
}

/// Starts `count` reads and tells how each ended.
fn start_reads(client: &Arc<Client>, count: usize) -> mpsc::Receiver<(usize, Result<()>)> {
    let (tell, told) = mpsc::channel();
    for n in 0..count {
        let tell = tell.clone();
        let finish = Box::new(move |_: Transfer, result: Result<()>| tell.send((n, result)).unwrap());
        assert!(client.start(Transfer::ReadOwned(vec![0; 4096]), 0, finish).is_none());
    }
    told
}

#[test]
fn closing_ends_what_a_silent_host_owes() {
    let content = disk();
    let host = Host::new(move |_, talk| {
        talk.open(&content)?;
        talk.hold()
    });
    let client = connect(&host, &options(Duration::from_secs(600), PATIENT)).unwrap();
    let told = start_reads(&client, 100);
    let waits = Arc::clone(&client);
    let synchronous = std::thread::spawn(move || read_two(&waits));
    assert!(told.recv_timeout(IMPATIENT).is_err(), "nothing was answered");
    let start = Instant::now();
    client.close();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(synchronous.join().unwrap().is_err());
    let mut ends: Vec<usize> = told
        .iter()
        .map(|(n, result)| {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
            n
        })
        .collect();
    ends.sort_unstable();
    assert_eq!(ends, (0..100).collect::<Vec<_>>(), "each ends once");
}

/// With nothing in flight the client takes its leave, but not for long.
#[test]
fn a_farewell_is_not_waited_for_without_end() {
    for silent_from in [Kind::CloseFile, Kind::CloseSession] {
        let content = disk();
        let host = Host::new(move |_, talk| {
            talk.handshake()?;
            loop {
                let frame = talk.frame()?;
                if frame.kind == silent_from {
                    return talk.hold();
                }
                talk.answer(&frame, &content)?;
            }
        });
        let client = connect(&host, &options(Duration::from_secs(600), PATIENT)).unwrap();
        read_two(&client).unwrap();
        let start = Instant::now();
        client.close();
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }
}

#[test]
fn crumbs_get_no_more_time_than_silence() {
    let host = liar(|talk, asked| {
        let io = asked.io();
        for at in (0..io.total).step_by(512) {
            std::thread::sleep(Duration::from_millis(30)); // the host's pace, nothing waits for it
            let data = &right(&io)[at as usize..][..512];
            frame(talk, asked.op, &io.fragment(at, 512), data)?;
        }
        Ok(())
    });
    let client = connect(&host, &options(Duration::from_millis(300), Duration::ZERO)).unwrap();
    let error = bounded("crumbs", &client, |client| client.read(&mut [0; 65536], 0).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
}

/// A header with nothing behind it, for a write that has more patience than a read.
#[test]
fn half_a_header_is_waited_for_as_long_as_what_is_in_flight_allows() {
    let host = liar_about(
        |frame| frame.kind == Kind::Io,
        |talk, asked| {
            talk.raw(&asked.io().answer(0).encode(asked.op)[..9])?;
            talk.hold()
        },
    );
    let patience =
        Options { read: IMPATIENT, write: Duration::from_millis(900), ..options(PATIENT, Duration::ZERO) };
    for (write, least) in [(false, IMPATIENT), (true, Duration::from_millis(900))] {
        let client = connect(&host, &patience).unwrap();
        let start = Instant::now();
        let error = bounded("half a header", &client, |client| match write {
            true => client.write(&[1; 512], 0).unwrap_err(),
            false => read_two(client).unwrap_err(),
        });
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!(start.elapsed() >= least, "{:?}", start.elapsed());
    }
}

/// A host that never has memory: the error comes in bounded time and says what may help.
#[test]
fn a_host_that_never_has_memory_is_given_up() {
    let host = liar(|talk, asked| talk.refuse(asked, 5, "Failed to allocate the requested 2097176 bytes"));
    let options = Options { memory: Duration::from_secs(1), ..options(PATIENT, Duration::ZERO) };
    let client = connect(&host, &options).unwrap();
    let start = Instant::now();
    let error = read_two(&client).unwrap_err();
    assert!(start.elapsed() < BOUNDED, "{:?}", start.elapsed());
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    let text = error.to_string();
    assert!(text.contains("fewer disks") && text.contains("Failed to allocate the requested"), "{text}");
}

/// What is acknowledged before all of it was taken may be right or wrong, but nothing hangs and nothing breaks.
#[test]
fn an_acknowledgement_that_comes_too_early_is_survived() {
    let host = Host::new(|_, talk| {
        let disk = Disk::new(vec![0; 16 << 20]);
        talk.open(&disk)?;
        let mut last = None;
        loop {
            let frame = talk.frame()?;
            if frame.kind == Kind::Io && last != Some(frame.op) {
                last = Some(frame.op); // at its first fragment
                talk.raw(&frame.io().answer(0).encode(frame.op))?;
            }
        }
    });
    let client = connect(&host, &options(Duration::from_secs(5), Duration::ZERO)).unwrap();
    bounded("early acknowledgements", &client, |client| client.write(&[1; 8 << 20], 0)).unwrap();
}

#[test]
fn a_host_that_takes_nothing_is_given_up() {
    let host = Host::new(|_, talk| {
        talk.open(&Disk::new(vec![0; 64 << 20]))?;
        // Takes nothing, says nothing, and goes when the test is over.
        std::thread::park_timeout(Duration::from_secs(3));
        Ok(())
    });
    let client = connect(&host, &options(IMPATIENT, Duration::ZERO)).unwrap();
    let start = Instant::now();
    let error = client.write(&vec![1; 32 << 20], 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(start.elapsed() < BOUNDED);
}

#[test]
fn an_empty_disk_reads_as_nothing() {
    let host = Host::new(|_, talk| nfc_peer::serve(talk, &Disk::new(Vec::new())));
    let client = connect(&host, &options(PATIENT, Duration::ZERO)).unwrap();
    client.read(&mut [], 0).unwrap();
    client.write(&[], 0).unwrap();
    client.flush().unwrap();
    assert!(client.allocation(0..0, &mut |_| panic!("nothing is there")).unwrap());
    assert_eq!(client.read(&mut [0; 1], 0).unwrap_err().kind(), ErrorKind::OutOfRange);
    assert_eq!(client.write(&[0; 1], 0).unwrap_err().kind(), ErrorKind::OutOfRange);
}

/// A host that refuses the usual buffers is not asked again for the same.
#[test]
fn usual_buffers_that_are_refused_are_the_end() {
    let host = Host::new(|_, talk| {
        talk.handshake()?;
        let frame = talk.frame()?;
        talk.refuse(&frame, 5, "no memory")?;
        talk.hold()
    });
    for buffers in [Buffers::default(), Buffers { bytes: 1 << 20, count: 1 }] {
        let threads = Arc::new(Threads::new(|body| body()));
        let wanted = vixDiskLib::net::nfc::client::Wanted { buffers, ..wanted(false, Compression::None) };
        let options = options(PATIENT, PATIENT);
        let error = Client::behind(host.open_door(), wanted, &options, Log::none(), threads).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    }
    assert_eq!(host.seen(), 3);
}
