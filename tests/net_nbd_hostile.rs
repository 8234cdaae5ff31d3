//! NBD servers that lie, stop in the middle, fall silent or never end: each is an error in bounded time and memory, never
//! a wrong byte, and closing is quick.
#![allow(clippy::unwrap_used)]

mod common;
#[allow(dead_code, reason = "a part of it")]
#[path = "../fuzz/src/limits.rs"]
mod limits;

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use common::model;
use common::nbd_peer;
use common::nbd_peer::After;
use common::nbd_peer::DONE;
use common::nbd_peer::EVERYTHING;
use common::nbd_peer::Offer;
use common::nbd_peer::Peer;
use common::nbd_peer::Request;
use common::nbd_peer::STYLES;
use common::nbd_peer::Style;
use common::nbd_peer::Talk;
use common::nbd_peer::chunk;
use common::nbd_peer::verb;
use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Log;
use vixDiskLib::net::nbd::Allocation;
use vixDiskLib::net::nbd::BlockSizes;
use vixDiskLib::net::nbd::Export;
use vixDiskLib::net::nbd::Replies;
use vixDiskLib::net::nbd::client::Client;
use vixDiskLib::net::nbd::client::Dial;
use vixDiskLib::net::nbd::client::Dialler;
use vixDiskLib::net::nbd::client::Options;
use vixDiskLib::net::stream::Patience;
use vixDiskLib::net::stream::Ready;
use vixDiskLib::net::stream::Stream;
use vixDiskLib::threads::Threads;
use vixDiskLib::transfer::Transfer;

#[global_allocator]
static ALLOCATOR: limits::Counting = limits::Counting;

const SIZE: u64 = 64 << 10;
const SECTORS: u64 = SIZE / 512;

/// Patience that lasts on a busy machine, and one for peers that are silent.
const PATIENT: Duration = Duration::from_secs(30);
const IMPATIENT: Duration = Duration::from_millis(200);

/// What a bounded wait may take at most on a busy machine.
const BOUNDED: Duration = Duration::from_secs(20);

fn options(request: Duration, reconnect: Duration) -> Options {
    Options { connect: PATIENT, request, reconnect, connections: 1, window: 0, write: true }
}

fn connect(peer: &Peer, options: &Options) -> Result<Arc<Client>> {
    let dial = Dial { address: peer.address(), export: String::new(), tls: None };
    Client::connect(dial, options, Log::none(), Arc::new(Threads::new(|body| body())))
}

fn content() -> Arc<Mutex<Vec<u8>>> {
    Arc::new(Mutex::new(model::stamps(0, SECTORS, 1)))
}

/// A peer that answers reads by `lie` and everything else as it should.
fn liar(
    offer: Offer,
    lie: impl Fn(&mut Talk, &Request) -> std::io::Result<()> + Send + Sync + 'static,
) -> Peer {
    let content = content();
    Peer::new(offer, move |_, talk| {
        loop {
            let request = talk.request()?;
            match request.verb {
                verb::READ | verb::STATUS => lie(talk, &request)?,
                _ => nbd_peer::answer(talk, &request, &content)?,
            }
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

type Lie = fn(&mut Talk, &Request) -> std::io::Result<()>;

fn right(request: &Request) -> Vec<u8> {
    model::stamps(request.offset / 512, request.length / 512, 1)
}

const IN_EVERY_STYLE: &[(&str, Lie)] = &[
    ("a magic of zeros", |talk, _| talk.raw(&[0; 64])),
    ("the magic of a request", |talk, _| talk.raw(&0x2560_9513_2560_9513_u64.to_be_bytes().repeat(8))),
    ("a negotiation again", |talk, _| talk.raw(&b"NBDMAGICIHAVEOPT".repeat(4))),
    ("an unknown cookie", |talk, request| {
        let other = Request { cookie: request.cookie ^ 1 << 40, ..request.clone() };
        nbd_peer::answer(talk, &other, &content())
    }),
    ("a cookie of all ones", |talk, request| {
        nbd_peer::answer(talk, &Request { cookie: u64::MAX, ..request.clone() }, &content())
    }),
    ("an answer twice, before the next", |talk, request| {
        nbd_peer::answer(talk, request, &content())?;
        nbd_peer::answer(talk, request, &content())?;
        talk.hold()
    }),
];

const IN_CHUNKS: &[(&str, Lie)] = &[
    ("a chunk of 2^32-1 bytes", |talk, request| {
        talk.head(request, DONE, chunk::DATA, u64::from(u32::MAX))?;
        talk.raw(&request.offset.to_be_bytes())
    }),
    ("data before the range", |talk, request| {
        talk.data(request, DONE, request.offset - 512, &right(request))
    }),
    ("data behind the range", |talk, request| {
        talk.data(request, DONE, request.offset + 512, &right(request))
    }),
    ("data at 2^64-1", |talk, request| talk.data(request, DONE, u64::MAX, &right(request))),
    ("data elsewhere", |talk, request| talk.data(request, DONE, 0, &right(request))),
    ("too much data", |talk, request| talk.data(request, DONE, request.offset, &[1; 1025])),
    ("data of no bytes", |talk, request| talk.data(request, 0, request.offset, &[])),
    ("data without an offset", |talk, request| talk.chunk(request, DONE, chunk::DATA, &[0; 7])),
    ("the same data twice", |talk, request| {
        talk.data(request, 0, request.offset, &right(request))?;
        talk.data(request, DONE, request.offset, &right(request))
    }),
    ("overlapping data", |talk, request| {
        talk.data(request, 0, request.offset, &right(request)[..600])?;
        talk.data(request, DONE, request.offset + 512, &right(request)[512..])
    }),
    ("a missing part", |talk, request| talk.data(request, DONE, request.offset, &right(request)[..1023])),
    ("a missing part in the middle", |talk, request| {
        talk.data(request, 0, request.offset, &right(request)[..512])?;
        talk.data(request, DONE, request.offset + 513, &right(request)[513..])
    }),
    ("nothing at all", |talk, request| talk.done(request)),
    ("an end that is none", |talk, request| talk.chunk(request, 0, chunk::NONE, &[])),
    ("an end with a payload", |talk, request| talk.chunk(request, DONE, chunk::NONE, &[0; 8])),
    ("a hole over data", |talk, request| {
        talk.data(request, 0, request.offset, &right(request))?;
        talk.hole(request, DONE, request.offset, 1)
    }),
    ("a hole of no bytes", |talk, request| talk.hole(request, 0, request.offset, 0)),
    ("a hole of 2^32-1 bytes", |talk, request| talk.hole(request, DONE, request.offset, u32::MAX)),
    ("a hole at 2^64-1", |talk, request| talk.hole(request, DONE, u64::MAX, 1)),
    ("a hole cut short", |talk, request| talk.chunk(request, DONE, chunk::HOLE, &[0; 11])),
    ("extents for a read", |talk, request| talk.status(request, &[(1024, 0)])),
    ("a chunk of an unknown kind", |talk, request| talk.chunk(request, DONE, 42, &[0; 42])),
    ("an error with a text too long", |talk, request| {
        talk.chunk(request, DONE, chunk::ERROR, &[0, 0, 0, 5, 0xff, 0xff, b'x'])
    }),
    ("an error with a text too short", |talk, request| {
        talk.chunk(request, DONE, chunk::ERROR, &[0, 0, 0, 5, 0, 1, b'x', b'y'])
    }),
    ("an error that is none", |talk, request| talk.chunk(request, DONE, chunk::ERROR, &[0; 6])),
    ("an error cut short", |talk, request| talk.chunk(request, DONE, chunk::ERROR, &[0, 0, 0, 5, 0])),
    ("an error somewhere, cut short", |talk, request| {
        talk.chunk(request, DONE, chunk::ERROR_OFFSET, &[0, 0, 0, 5, 0, 0])
    }),
    ("an error of 2^32-1 bytes", |talk, request| talk.head(request, DONE, chunk::ERROR, u64::from(u32::MAX))),
    ("errors without end", |talk, request| {
        let error = [&5_u32.to_be_bytes()[..], &[0, 0], &request.offset.to_be_bytes()].concat();
        loop {
            talk.chunk(request, 0, chunk::ERROR_OFFSET, &error)?;
        }
    }),
];

#[test]
fn a_lie_about_a_read_is_a_protocol_error() {
    for style in STYLES {
        let chunked = if style == Style::Simple { &[][..] } else { IN_CHUNKS };
        for (what, lie) in IN_EVERY_STYLE.iter().chain(chunked) {
            let peer = liar(Offer::new(SIZE, style), lie);
            let client = connect(&peer, &options(PATIENT, Duration::ZERO)).unwrap();
            let what = format!("{what} ({style:?})");
            let error = bounded(&what, &client, |client| {
                // A lie that comes behind a right answer is found by the next request.
                read_two(client).and_then(|()| read_two(client)).expect_err(&what)
            });
            assert_eq!(error.kind(), ErrorKind::Protocol, "{what}: {error}");
            assert!(error.to_string().len() < 2000, "{what}: {error}");
        }
    }
}

#[test]
fn a_chunk_of_2_to_the_64_is_a_protocol_error() {
    for length in [u64::MAX, 1 << 63, u64::from(u32::MAX) + 9] {
        let peer = liar(Offer::new(SIZE, Style::Extended), move |talk, request| {
            talk.head(request, DONE, chunk::DATA, length)?;
            talk.raw(&request.offset.to_be_bytes())
        });
        let client = connect(&peer, &options(PATIENT, Duration::ZERO)).unwrap();
        let error = bounded("a long chunk", &client, |client| read_two(client).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Protocol, "{length}: {error}");
    }
}

/// The first connection lies, the others would not: a lie is not forgiven by trying again, but later calls may succeed.
#[test]
fn a_liar_is_given_up_at_once_however_long_reconnecting_may_take() {
    let content = content();
    let peer = Peer::new(Offer::new(SIZE, Style::Structured), move |n, talk| match n {
        0 => talk.raw(&[0; 64]).and_then(|()| talk.hold()),
        _ => nbd_peer::serve(talk, &content),
    });
    let client = connect(&peer, &options(PATIENT, PATIENT)).unwrap();
    let error = bounded("a lie", &client, |client| read_two(client).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
}

fn statuses(client: &Client) -> Result<Vec<Allocation>> {
    let mut seen = Vec::new();
    let told = client.allocation(1024..SIZE, &mut |extent| seen.push(extent))?;
    assert!(told, "the server tells");
    Ok(seen)
}

#[test]
fn a_lie_about_what_is_allocated_is_a_protocol_error() {
    let lies: &[(&str, Lie)] = &[
        ("no extents", |talk, request| talk.status(request, &[])),
        ("an extent of no bytes", |talk, request| talk.status(request, &[(512, 0), (0, 1), (SIZE, 0)])),
        ("only a hundred extents of no bytes", |talk, request| talk.status(request, &[(0, 0); 100])),
        ("nothing", |talk, request| talk.done(request)),
        ("another context", |talk, request| {
            let kind = if talk.offer().style == Style::Extended { chunk::STATUS_EXT } else { chunk::STATUS };
            let extents = if kind == chunk::STATUS { 1 } else { 3 };
            talk.chunk(
                request,
                DONE,
                kind,
                &[&[0, 0, 0, 9, 0, 0, 0, 1][..], &[1; 8].repeat(extents)].concat()[..],
            )
        }),
        ("the context twice", |talk, request| {
            let extents = if talk.offer().style == Style::Extended {
                [&nbd_peer::CONTEXT.to_be_bytes()[..], &1_u32.to_be_bytes(), &SIZE.to_be_bytes(), &[0; 8]]
                    .concat()
            } else {
                [&nbd_peer::CONTEXT.to_be_bytes()[..], &[0, 1, 0, 0], &[0; 4]].concat()
            };
            let kind = if talk.offer().style == Style::Extended { chunk::STATUS_EXT } else { chunk::STATUS };
            talk.chunk(request, 0, kind, &extents)?;
            talk.chunk(request, DONE, kind, &extents)
        }),
        ("half an extent", |talk, request| {
            let kind = if talk.offer().style == Style::Extended { chunk::STATUS_EXT } else { chunk::STATUS };
            talk.chunk(request, DONE, kind, &[&nbd_peer::CONTEXT.to_be_bytes()[..], &[0; 14]].concat())
        }),
        ("2^32-1 bytes of extents", |talk, request| {
            let kind = if talk.offer().style == Style::Extended { chunk::STATUS_EXT } else { chunk::STATUS };
            // A length that is possible for the kind: 4 + 8n or 8 + 16n.
            talk.head(request, DONE, kind, if kind == chunk::STATUS { 0xffff_fffc } else { 0xffff_fff8 })?;
            talk.raw(&nbd_peer::CONTEXT.to_be_bytes())?;
            talk.hold()
        }),
        ("data", |talk, request| talk.data(request, DONE, request.offset, &[0; 512])),
    ];
    for style in [Style::Structured, Style::Extended] {
        for (what, lie) in lies {
            let peer = liar(Offer::new(SIZE, style), lie);
            let client = connect(&peer, &options(Duration::from_secs(2), Duration::ZERO)).unwrap();
            let what = format!("{what} ({style:?})");
            let error = bounded(&what, &client, |client| statuses(client).expect_err(&what));
            let kinds = [ErrorKind::Protocol, ErrorKind::TimedOut];
            let silent = what.starts_with("2^32-1");
            assert!(error.kind() == kinds[0] || silent && error.kind() == kinds[1], "{what}: {error}");
        }
    }
}

#[test]
fn extents_that_are_odd_and_allowed_cover_the_range_once() {
    let odd: &[(&str, Lie)] = &[
        ("more than was asked for", |talk, request| {
            talk.status(request, &[(512, 3), (u64::from(u32::MAX), 0)])
        }),
        ("less than was asked for", |talk, request| talk.status(request, &[(request.length.min(512), 1)])),
        ("bits that mean nothing", |talk, request| talk.status(request, &[(request.length, 0xffff_fff0)])),
    ];
    for style in [Style::Structured, Style::Extended] {
        for (what, lie) in odd {
            let peer = liar(Offer::new(SIZE, style), lie);
            let client = connect(&peer, &options(PATIENT, Duration::ZERO)).unwrap();
            let seen = bounded(what, &client, |client| statuses(client).unwrap());
            let mut at = 1024;
            for extent in &seen {
                assert_eq!(extent.range.start, at, "{what} ({style:?}): {seen:?}");
                at = extent.range.end;
            }
            assert_eq!(at, SIZE, "{what} ({style:?}): {seen:?}");
        }
    }
}

#[test]
fn errors_of_the_server_are_told_in_its_words() {
    for style in STYLES {
        for (number, kind) in [
            (1, ErrorKind::AccessDenied),
            (5, ErrorKind::Io),
            (28, ErrorKind::DiskFull),
            (0xdead_beef, ErrorKind::Io),
        ] {
            let peer =
                liar(Offer::new(SIZE, style), move |talk, request| talk.fail(request, number, "no\x1b way"));
            let client = connect(&peer, &options(PATIENT, Duration::ZERO)).unwrap();
            let error = read_two(&client).unwrap_err();
            assert_eq!(error.kind(), kind, "{number:#x} ({style:?}): {error}");
            let text = error.to_string();
            assert_eq!(text.contains("way"), style != Style::Simple, "{text}");
            assert!(!text.contains('\x1b'), "{text:?}");
            client.write(&[1; 512], 0).expect("an error of one request is not the end of the connection");
        }
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
    if client.export().allocation.is_some() {
        statuses(client)?;
    }
    client.zero(32 << 10..36 << 10)?;
    client.trim(36 << 10..40 << 10)?;
    let mut zeros = vec![1; 8 << 10];
    client.read(&mut zeros, 32 << 10)?;
    assert!(model::is_zero(&zeros), "wrong zeros");
    client.flush()
}

/// Where a session may end, told by one that does not.
struct Places {
    /// Bytes that are sent until the transmission phase begins, and all in all.
    negotiated: u64,
    length: u64,
    /// Each byte of the negotiation and of every head, payload's beginning and end.
    telling: Vec<u64>,
    /// Those, and some in the middle of long data.
    all: Vec<u64>,
}

impl Places {
    /// More than the longest head with what a chunk says before its data.
    const HEAD: u64 = 44;
    const BEFORE: u64 = 4;
    const DATA_STEP: usize = 97;

    fn of_session(style: Style) -> Places {
        let content = content();
        let peer = Peer::new(Offer::new(SIZE, style), move |_, talk| nbd_peer::serve(talk, &content));
        let client = connect(&peer, &options(PATIENT, Duration::ZERO)).unwrap();
        session(&client).unwrap();
        client.close();
        let (negotiated, length) = (peer.negotiated() as u64, peer.sent() as u64);
        let mut telling: BTreeSet<u64> = (0..negotiated).chain(length - Self::BEFORE..length).collect();
        for mark in peer.marks() {
            let mark = mark as u64;
            telling.extend(mark.saturating_sub(Self::BEFORE)..length.min(mark + Self::HEAD));
        }
        let all: BTreeSet<u64> =
            telling.iter().copied().chain((0..length).step_by(Self::DATA_STEP)).collect();
        let [telling, all] = [telling, all].map(|places| places.into_iter().collect());
        Places { negotiated, length, telling, all }
    }
}

#[test]
fn the_places_where_sessions_are_ended_are_in_every_reply() {
    for style in STYLES {
        let Places { negotiated, length, telling, all } = Places::of_session(style);
        assert!((100..1000).contains(&negotiated) && length > SIZE + negotiated, "{style:?}: {length}");
        assert!(telling.iter().copied().take_while(|at| *at < negotiated).eq(0..negotiated));
        // What comes behind the long read: the heads of four replies, and chunks of one, at the least.
        let behind = telling.iter().filter(|at| **at > negotiated + SIZE).count();
        assert!(behind >= 4 * 16 && all.len() > telling.len() + 500, "{style:?}: {behind} of {}", all.len());
        assert_eq!((all.first(), all.last()), (Some(&0), Some(&(length - 1))));
    }
}

/// At each byte of the negotiation and of every head, and in the middle of data.
#[test]
fn a_session_may_end_anywhere() {
    for style in STYLES {
        for cut in Places::of_session(style).all {
            let content = content();
            let gate = move |_| (Offer::new(SIZE, style), Some((cut, After::Close)));
            let peer = Peer::behind(gate, move |_, talk| nbd_peer::serve(talk, &content));
            let start = Instant::now();
            let result =
                connect(&peer, &options(PATIENT, Duration::ZERO)).and_then(|client| session(&client));
            let error = result.expect_err("the session was cut");
            assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{style:?}, cut at {cut}: {error}");
            assert!(start.elapsed() < BOUNDED, "{style:?}, cut at {cut}: {:?}", start.elapsed());
        }
    }
}

/// The first connection ends somewhere behind its negotiation, the next ones do not: nobody notices, but for a flush after
/// writes.
#[test]
fn a_session_goes_on_after_an_end_anywhere() {
    for style in STYLES {
        let places = Places::of_session(style);
        // An end before that fails the first connection, which nobody makes again.
        for cut in places.all.into_iter().filter(|cut| *cut >= places.negotiated) {
            let content = content();
            let gate =
                move |n| (Offer::new(SIZE, style), if n == 0 { Some((cut, After::Close)) } else { None });
            let peer = Peer::behind(gate, move |_, talk| nbd_peer::serve(talk, &content));
            let client = connect(&peer, &options(PATIENT, PATIENT)).unwrap();
            let result = bounded("a session", &client, session);
            match result {
                Ok(()) => assert_eq!(peer.seen(), 2, "{style:?}, cut at {cut}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("may not be on the disk"), "{style:?}, cut at {cut}: {error}");
                }
            }
        }
    }
}

/// At each byte of the negotiation and of every head.
#[test]
fn silence_at_each_step_ends_in_time() {
    for style in STYLES {
        let cuts = Places::of_session(style).telling;
        // Most of it is waiting: many at once.
        std::thread::scope(|scope| {
            for cuts in cuts.chunks(cuts.len().div_ceil(48)) {
                scope.spawn(move || {
                    for &cut in cuts {
                        silent_at(style, cut);
                    }
                });
            }
        });
    }
}

fn silent_at(style: Style, cut: u64) {
    let content = content();
    let gate = move |_| (Offer::new(SIZE, style), Some((cut, After::Silence)));
    let peer = Peer::behind(gate, move |_, talk| nbd_peer::serve(talk, &content));
    let start = Instant::now();
    let options = Options { connect: IMPATIENT, ..options(IMPATIENT, Duration::ZERO) };
    let error = connect(&peer, &options).and_then(|client| session(&client)).expect_err("silence");
    // A flush has more to say than that.
    let told = error.kind() == ErrorKind::TimedOut || error.to_string().contains("may not be on the disk");
    assert!(told, "{style:?}, silent at {cut}: {error}");
    assert!(start.elapsed() < BOUNDED, "{style:?}, silent at {cut}: {:?}", start.elapsed());
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
fn closing_ends_what_a_silent_peer_owes() {
    for style in STYLES {
        let peer = Peer::new(Offer { flags: EVERYTHING, ..Offer::new(SIZE, style) }, |_, talk| talk.hold());
        for connections in [1, 4] {
            let options = Options { connections, ..options(Duration::from_secs(600), PATIENT) };
            let client = connect(&peer, &options).unwrap();
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
    }
}

#[test]
fn closing_does_not_wait_for_a_peer_that_drips() {
    let peer = liar(Offer::new(SIZE, Style::Structured), |talk, request| {
        talk.head(request, DONE, chunk::DATA, 8 + request.length)?;
        talk.raw(&request.offset.to_be_bytes())?;
        loop {
            talk.raw(&[0])?;
            std::thread::sleep(Duration::from_millis(20)); // the peer's pace, nothing waits for it
        }
    });
    let client = connect(&peer, &options(PATIENT, PATIENT)).unwrap();
    let told = start_reads(&client, 1);
    assert!(told.recv_timeout(IMPATIENT).is_err());
    let start = Instant::now();
    client.close();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(told.recv().unwrap().1.is_err());
}

#[test]
fn a_peer_that_takes_nothing_is_given_up() {
    let peer = Peer::new(Offer::new(1 << 30, Style::Structured), |_, _| {
        // Takes nothing, says nothing, and goes when the test is over.
        std::thread::park_timeout(Duration::from_secs(3));
        Ok(())
    });
    let client = connect(&peer, &options(IMPATIENT, Duration::ZERO)).unwrap();
    let big = vec![1; 8 << 20];
    let start = Instant::now();
    let error = client.write(&big, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(start.elapsed() < BOUNDED);
}

/// What is acknowledged before all of it was taken may be right or wrong, but nothing hangs and nothing breaks.
#[test]
fn an_acknowledgement_that_comes_too_early_is_survived() {
    let peer = Peer::new(Offer::new(1 << 30, Style::Simple), |_, talk| {
        for cookie in 0..64 {
            talk.simple(cookie, 0, &[])?;
        }
        loop {
            let request = talk.request()?;
            talk.simple(request.cookie, 0, &[])?;
        }
    });
    let client = connect(&peer, &options(Duration::from_secs(2), Duration::ZERO)).unwrap();
    let big = vec![1; 8 << 20];
    if let Err(error) = bounded("early acknowledgements", &client, |client| client.write(&big, 0)) {
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }
}

/// A stream whose peer acknowledges a write before the call that sends it returns.
#[derive(Debug, Default)]
struct Overtaking {
    heard: Mutex<Vec<u8>>,
    said: Mutex<Said>,
    changed: Condvar,
}

#[derive(Debug)]
struct Hasty(Arc<Overtaking>);

#[derive(Debug, Default)]
struct Said {
    bytes: Vec<u8>,
    shut: bool,
    /// Somebody receives and there is nothing.
    starving: bool,
}

impl Stream for Hasty {
    fn send(&self, parts: &[IoSlice<'_>], _: Patience) -> Result<Option<usize>> {
        let mut heard = self.0.heard.lock().unwrap();
        parts.iter().for_each(|part| heard.extend(part.iter()));
        while heard.len() >= 28 + 4096 {
            let reply = [&0x6744_6698_0000_0000_u64.to_be_bytes()[..], &heard[8..16]].concat();
            heard.drain(..28 + 4096);
            let mut said = self.0.said.lock().unwrap();
            said.bytes.extend(reply);
            said.starving = false;
            self.0.changed.notify_all();
            // Long enough for the receiver to take it, and to wait for more if that is what it does.
            let wait = Duration::from_millis(500);
            drop(self.0.changed.wait_timeout_while(said, wait, |said| !said.starving).unwrap());
        }
        Ok(Some(parts.iter().map(|part| part.len()).sum()))
    }

    fn recv(&self, parts: &mut [IoSliceMut<'_>], patience: Patience) -> Result<Option<usize>> {
        let mut said = self.0.said.lock().unwrap();
        while said.bytes.is_empty() && !said.shut {
            let Patience::Until(until) = patience else { return Ok(None) };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            said.starving = true;
            self.0.changed.notify_all();
            said = self.0.changed.wait_timeout(said, left).unwrap().0;
        }
        let count = parts[0].len().min(said.bytes.len());
        parts[0][..count].copy_from_slice(&said.bytes[..count]);
        said.bytes.drain(..count);
        Ok(Some(count))
    }

    fn wait(&self, wanted: Ready, _: Instant) -> Result<Ready> {
        Ok(Ready { recv: wanted.recv && !self.0.said.lock().unwrap().bytes.is_empty(), send: wanted.send })
    }

    fn shutdown(&self) {
        self.0.said.lock().unwrap().shut = true;
        self.0.changed.notify_all();
    }

    fn label(&self) -> String {
        "a hasty peer".to_owned()
    }
}

impl Dialler for Hasty {
    fn dial(&self, _: Instant) -> Result<(Box<dyn Stream>, Export)> {
        let blocks = BlockSizes { minimum: 1, preferred: 4096, maximum: 1 << 20 };
        let export = Export { size: SIZE, flags: 5, blocks, replies: Replies::Simple, allocation: None };
        Ok((Box::new(Hasty(Arc::clone(&self.0))), export))
    }

    fn label(&self) -> String {
        "a hasty peer".to_owned()
    }
}

/// Seen with nbd-server on a busy machine: the last acknowledgement overtook the end of the sending, and the thread that
/// receives waited for another one.
#[test]
fn an_acknowledgement_may_overtake_the_end_of_the_sending() {
    let options = options(Duration::from_secs(5), Duration::ZERO);
    let threads = Arc::new(Threads::new(|body| body()));
    let dial = Hasty(Arc::default());
    let client = Client::connect(dial, &options, Log::none(), threads).unwrap();
    static DATA: [u8; 4096] = [7; 4096];
    client.write(&DATA, 0).unwrap();
    for _ in 0..3 {
        let (tell, told) = mpsc::channel();
        let finish = Box::new(move |_: Transfer, result: Result<()>| tell.send(result).unwrap());
        assert!(client.start(Transfer::Write(&DATA), 4096, finish).is_none());
        told.recv().unwrap().unwrap();
    }
}

#[test]
fn an_export_that_changed_is_not_gone_on_with() {
    for (what, after) in [
        ("its size", Offer::new(SIZE * 2, Style::Structured)),
        ("its flags", Offer { flags: 3, ..Offer::new(SIZE, Style::Structured) }),
        ("its blocks", Offer { blocks: Some((4096, 4096, 8192)), ..Offer::new(SIZE, Style::Structured) }),
    ] {
        let content = content();
        let offers = move |n| match n {
            0 => (Offer::new(SIZE, Style::Structured), Some((330, After::Close))),
            _ => (after, None),
        };
        let peer = Peer::behind(offers, move |_, talk| nbd_peer::serve(talk, &content));
        let client = connect(&peer, &options(PATIENT, PATIENT)).unwrap();
        let error = bounded(what, &client, |client| session(client).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Protocol, "{what}: {error}");
        assert!(error.to_string().contains("changed"), "{what}: {error}");
    }
}

/// Requests that only fit one style of headers must not be cut short for another.
#[test]
fn another_style_of_replies_after_a_loss_is_lived_with_or_refused() {
    let huge = 1_u64 << 40;
    for first in [Style::Extended, Style::Structured] {
        for then in STYLES {
            let asked: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
            let seen = Arc::clone(&asked);
            let peer = Peer::behind(
                move |n| (Offer::new(huge, if n == 0 { first } else { then }), None),
                move |n, talk| {
                    if n == 0 {
                        talk.request()?;
                        return Ok(()); // the end, with a request unanswered
                    }
                    loop {
                        let request = talk.request()?;
                        seen.lock().unwrap().push((request.offset, request.length));
                        talk.done(&request)?;
                    }
                },
            );
            let client = connect(&peer, &options(PATIENT, PATIENT)).unwrap();
            let zeroed = bounded("zeroing", &client, |client| client.zero(0..huge));
            let mut asked = asked.lock().unwrap().clone();
            asked.sort_unstable();
            match zeroed {
                Ok(_) => {
                    let end = asked.iter().fold(0, |at, (offset, length)| {
                        assert!(*offset <= at, "{first:?} then {then:?}: a gap at {at:#x}");
                        at.max(offset + length)
                    });
                    assert_eq!(end, huge, "{first:?} then {then:?}");
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Protocol, "{first:?} then {then:?}: {error}");
                }
            }
        }
    }
}

#[test]
fn an_empty_export_reads_as_nothing() {
    for style in STYLES {
        let content = Arc::new(Mutex::new(Vec::new()));
        let peer = Peer::new(Offer::new(0, style), move |_, talk| nbd_peer::serve(talk, &content));
        let client = connect(&peer, &options(PATIENT, Duration::ZERO)).unwrap();
        client.read(&mut [], 0).unwrap();
        client.write(&[], 0).unwrap();
        client.flush().unwrap();
        client.zero(0..0).unwrap();
        assert_eq!(client.read(&mut [0; 1], 0).unwrap_err().kind(), ErrorKind::EndOfFile);
        assert_eq!(client.write(&[0; 1], 0).unwrap_err().kind(), ErrorKind::EndOfFile);
    }
}

#[test]
fn a_loss_after_unflushed_writes_is_told_by_the_next_flush_and_only_by_it() {
    let content = content();
    let offers = |n| {
        // The first connection ends inside the answer to the read behind the write.
        (Offer::new(SIZE, Style::Simple), if n == 0 { Some((400, After::Close)) } else { None })
    };
    let peer = Peer::behind(offers, move |_, talk| nbd_peer::serve(talk, &content));
    let client = connect(&peer, &options(PATIENT, PATIENT)).unwrap();
    client.write(&model::stamps(2, 2, 1), 1024).unwrap();
    read_two(&client).unwrap();
    assert_eq!(peer.seen(), 2);
    let error: Error = client.flush().unwrap_err();
    assert!(error.to_string().contains("may not be on the disk"), "{error}");
    client.flush().unwrap();
}
