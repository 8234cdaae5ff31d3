//! The NFC client against a host inside the test that does what it should, in every way that hosts may do it.
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]

mod common;

use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use common::model;
use common::model::Rng;
use common::nfc_peer;
use common::nfc_peer::After;
use common::nfc_peer::Disk;
use common::nfc_peer::Frame;
use common::nfc_peer::Host;
use common::nfc_peer::Talk;
use common::nfc_peer::wanted;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Level;
use vixDiskLib::logging::Log;
use vixDiskLib::logging::Sink;
use vixDiskLib::net::nfc::Compression;
use vixDiskLib::net::nfc::aio::Kind;
use vixDiskLib::net::nfc::client::Buffers;
use vixDiskLib::net::nfc::client::Client;
use vixDiskLib::net::nfc::client::Options;
use vixDiskLib::net::nfc::client::Wanted;
use vixDiskLib::net::nfc::io::Direction;
use vixDiskLib::net::nfc::open;
use vixDiskLib::net::nfc::refusal::NO_MEMORY;
use vixDiskLib::threads::Threads;
use vixDiskLib::transfer::Transfer;

const SIZE: u64 = 6 << 20;

fn options() -> Options {
    let long = Duration::from_secs(30);
    Options {
        connect: long,
        read: long,
        write: long,
        request: long,
        reconnect: Duration::ZERO,
        ..Options::default()
    }
}

fn mending() -> Options {
    Options { reconnect: Duration::from_secs(30), ..options() }
}

fn connect_with(host: &Host, wanted: Wanted, options: &Options, log: Log) -> Result<Arc<Client>> {
    Client::behind(host.open_door(), wanted, options, log, Arc::new(Threads::new(|body| body())))
}

fn connect(host: &Host, wanted: Wanted, options: &Options) -> Arc<Client> {
    connect_with(host, wanted, options, Log::none()).unwrap()
}

/// Zeros, stamps and noise.
fn content() -> Vec<u8> {
    let mut bytes = model::stamps(0, SIZE / 512, 1);
    bytes[1 << 20..2 << 20].fill(0);
    let noise = Rng::new(7).bytes(1 << 20);
    bytes[3 << 20..4 << 20].copy_from_slice(&noise);
    bytes
}

fn honest(disk: &Arc<Disk>) -> Host {
    let disk = Arc::clone(disk);
    Host::new(move |_, talk| nfc_peer::serve(talk, &disk))
}

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Sink for Lines {
    fn line(&self, _: Level, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

impl Lines {
    fn log() -> (Arc<Lines>, Log) {
        let lines = Arc::<Lines>::default();
        (Arc::clone(&lines), Log::new(lines, Level::Debug))
    }

    fn count(&self, part: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }
}

/// Reads and writes of many shapes, each compared.
fn work(client: &Client, disk: &Disk) {
    for (offset, len) in
        [(0, 512), (512, 65536), (1000, 3), (0, 6 << 20), (777, 1_500_001), (SIZE - 1, 1), (SIZE, 0)]
    {
        let mut buf = vec![0xa5; len];
        client.read(&mut buf, offset).unwrap();
        let offset = usize::try_from(offset).unwrap();
        assert!(buf == disk.bytes.lock().unwrap()[offset..offset + len], "{len} bytes at {offset}");
    }
    for (offset, data) in [
        (512, model::stamps(1, 3, 9)),
        (2 << 20, vec![0; 1 << 20]),
        (4 << 20, Rng::new(3).bytes(1_200_000 / 512 * 512)),
        (12_345, vec![7; 100]),
        (1 << 20, model::stamps(2048, 4096, 5)),
    ] {
        client.write(&data, offset).unwrap();
        client.flush().unwrap();
        let offset = usize::try_from(offset).unwrap();
        assert!(disk.bytes.lock().unwrap()[offset..offset + data.len()] == data, "write at {offset}");
    }
    let mut all = vec![0; SIZE as usize];
    client.read(&mut all, 0).unwrap();
    assert!(all == *disk.bytes.lock().unwrap());
}

#[test]
fn the_bytes_are_the_same_with_every_packing_buffer_and_order_of_fragments() {
    for compression in Compression::ALL {
        for buffers in [(0, 0), (65536, 1), (1 << 20, 4), (2 << 20, 8)] {
            for reversed in [false, true] {
                let disk = Arc::new(Disk { reversed, ..Disk::new(content()) });
                let host = honest(&disk);
                let buffers = Buffers { bytes: buffers.0, count: buffers.1 };
                let client = connect(&host, Wanted { buffers, ..wanted(true, compression) }, &options());
                work(&client, &disk);
                client.close();
                assert_eq!(host.seen(), 1);
            }
        }
    }
}

#[test]
fn started_transfers_end_once_with_the_right_bytes() {
    for compression in [Compression::None, Compression::Skipz] {
        let disk = Arc::new(Disk { reversed: true, ..Disk::new(content()) });
        let host = honest(&disk);
        let client = connect(&host, wanted(true, compression), &options());
        let (tell, told) = mpsc::channel();
        let data: &'static [u8] = Box::leak(model::stamps(0, 4096, 3).into_boxed_slice());
        for n in 0..64_u64 {
            let tell = tell.clone();
            let finish =
                Box::new(move |transfer, result: Result<()>| tell.send((n, transfer, result)).unwrap());
            let transfer = match n % 4 {
                3 => Transfer::Write(&data[n as usize * 512..][..300 * 512]),
                _ => Transfer::ReadOwned(vec![0; 200_704]),
            };
            let offset = if n % 4 == 3 { (5 << 20) + n * 512 } else { n * 65536 };
            assert!(client.start(transfer, offset, finish).is_none());
        }
        drop(tell);
        let mut ends: Vec<u64> = told
            .iter()
            .map(|(n, transfer, result)| {
                result.unwrap();
                if let Transfer::ReadOwned(bytes) = transfer {
                    let from = n as usize * 65536;
                    assert!(bytes == content()[from..from + bytes.len()], "{n}");
                }
                n
            })
            .collect();
        ends.sort_unstable();
        assert_eq!(ends, (0..64).collect::<Vec<_>>());
        let (tell, told) = mpsc::channel();
        let finish = Box::new(move |_: Transfer, result: Result<()>| tell.send(result).unwrap());
        assert!(client.start(Transfer::ReadOwned(vec![0; 10]), 5, finish).is_some(), "no whole sectors");
        assert!(told.recv().is_err());
    }
}

#[test]
fn what_was_found_is_told() {
    let disk = Arc::new(Disk::new(content()));
    let host = honest(&disk);
    let (lines, log) = Lines::log();
    let client = connect_with(&host, wanted(false, Compression::Fastlz), &options(), log).unwrap();
    let opened = client.opened();
    assert_eq!((opened.capacity, opened.sector_size, opened.geometry), (SIZE, 512, (3, 255, 63)));
    assert_eq!((opened.host.as_str(), opened.port, opened.version), ("127.0.0.1", host.port(), 11));
    let keys: Vec<_> = opened.keys.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(keys, disk.keys);
    assert_eq!(opened.url, format!("FASTLZ-vpxa-nfc://[ds] vm/vm.vmdk@127.0.0.1:{}", host.port()));
    assert_eq!(client.key("uuid").unwrap().as_deref(), Some("60 00 C2 9a"));
    assert_eq!(client.key("nothing").unwrap(), None);
    assert_eq!(client.key("not a key").unwrap_err().kind(), ErrorKind::InvalidArgument);
    let past = client.read(&mut [0; 512], SIZE).unwrap_err();
    assert_eq!(past.kind(), ErrorKind::OutOfRange, "{past}");
    assert_eq!(client.write(&[0; 512], 0).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(lines.count("connected again"), 0);
}

#[test]
fn the_farewell_closes_everything_in_order() {
    let disk = Arc::new(Disk::new(content()));
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let host = Host::new(move |_, talk| {
        let served = nfc_peer::serve(talk, &disk);
        tell.lock().unwrap().send(served.is_ok()).unwrap();
        served
    });
    let client = connect(&host, wanted(false, Compression::None), &options());
    client.read(&mut [0; 512], 0).unwrap();
    client.close();
    assert!(told.recv().unwrap(), "file, session and handshake were closed");
    assert_eq!(client.read(&mut [0; 512], 0).unwrap_err().kind(), ErrorKind::Cancelled);
    client.close();
}

fn allocated(client: &Client, range: Range<u64>) -> Option<Vec<Range<u64>>> {
    let mut parts = Vec::new();
    client.allocation(range, &mut |part| parts.push(part)).unwrap().then_some(parts)
}

#[test]
fn what_is_allocated_is_told_in_order_and_joined() {
    let disk = Arc::new(Disk {
        allocated: vec![0..70_000, 1 << 20..2 << 20, 5 << 20..SIZE],
        ..Disk::new(content())
    });
    let host = honest(&disk);
    let client = connect(&host, wanted(true, Compression::None), &options());
    assert_eq!(allocated(&client, 0..SIZE).unwrap(), [0..131_072, 1 << 20..2 << 20, 5 << 20..SIZE]);
    assert_eq!(allocated(&client, 66_000..1 << 20 | 1).unwrap(), [66_000..131_072, 1 << 20..1 << 20 | 1]);
    assert_eq!(allocated(&client, 300_000..300_000).unwrap(), []);
    client.write(&[1; 512], 3 << 20).unwrap();
    assert_eq!(
        allocated(&client, 2 << 20..5 << 20).unwrap(),
        [3 << 20..(3 << 20) + 65536],
        "what was written counts, whatever the host says"
    );
}

#[test]
fn a_tail_shorter_than_a_chunk_counts_as_allocated() {
    let disk = Arc::new(Disk { allocated: vec![], ..Disk::new(vec![0; (1 << 20) + 1536]) });
    let host = honest(&disk);
    let client = connect(&host, wanted(false, Compression::None), &options());
    let size = (1 << 20) + 1536;
    assert_eq!(allocated(&client, 0..size).unwrap(), [1 << 20..size]);
    assert_eq!(allocated(&client, size - 512..size).unwrap(), [size - 512..size]);
}

#[test]
fn a_host_that_does_not_tell_what_is_allocated_is_asked_once() {
    let disk = Arc::new(Disk::new(content()));
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&asked);
    let host = Host::new(move |_, talk| {
        talk.open(&disk)?;
        loop {
            let frame = talk.frame()?;
            match frame.kind {
                Kind::Blocks => {
                    seen.fetch_add(1, Ordering::SeqCst);
                    talk.refuse(&frame, 6, "not for this datastore")?;
                }
                _ => talk.answer(&frame, &disk)?,
            }
        }
    });
    let (lines, log) = Lines::log();
    let client = connect_with(&host, wanted(false, Compression::None), &options(), log).unwrap();
    assert_eq!(allocated(&client, 0..SIZE), None);
    assert_eq!(allocated(&client, 0..SIZE), None);
    assert_eq!((asked.load(Ordering::SeqCst), lines.count("does not tell what is allocated")), (1, 1));
    client.read(&mut [0; 4096], 0).unwrap();
}

/// A disk far larger than a round of questions, of which every other chunk is allocated somewhere.
#[test]
fn a_large_map_is_asked_for_in_pieces() {
    let size = 200_u64 << 30;
    let host = Host::new(move |_, talk| {
        talk.handshake()?;
        let disk =
            Disk { allocated: vec![0..1, 100 << 30..150 << 30, size - 1..size], ..Disk::new(Vec::new()) };
        let most = AtomicUsize::new(0);
        loop {
            let frame = talk.frame()?;
            match frame.kind {
                Kind::OpenFile => {
                    let mut bytes = Vec::new();
                    nfc_peer::opened(size).encode(frame.op, &mut bytes);
                    talk.raw(&bytes)?;
                }
                _ => talk.answer(&frame, &disk)?,
            }
            most.fetch_add(1, Ordering::Relaxed);
        }
    });
    let client = connect(&host, wanted(false, Compression::None), &options());
    let chunk = 65536;
    assert_eq!(allocated(&client, 0..size).unwrap(), [0..chunk, 100 << 30..150 << 30, size - chunk..size]);
}

#[test]
fn errors_of_the_host_are_told_in_its_words_and_the_connection_goes_on() {
    for (code, text, kind) in [
        (13, "permission denied", ErrorKind::AccessDenied),
        (16392, "Failed to lock the file", ErrorKind::Locked),
        (99, "", ErrorKind::ServerFault),
    ] {
        let disk = Arc::new(Disk::new(content()));
        let host = Host::new(move |_, talk| {
            talk.open(&disk)?;
            let mut refused = 0;
            loop {
                let frame = talk.frame()?;
                let last = frame.kind == Kind::Io && {
                    let io = frame.io();
                    io.direction == Direction::Read || io.at + io.length == io.total
                };
                match last && refused < 2 {
                    true => {
                        refused += 1;
                        talk.refuse(&frame, code, text)?;
                    }
                    false => talk.answer(&frame, &disk)?,
                }
            }
        });
        let client = connect(&host, wanted(true, Compression::None), &options());
        let error = client.read(&mut [0; 4096], 4096).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(&format!("NFC error {code} from server: {text}")), "{error}");
        let error = client.write(&[0; 200_192], 4096).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let mut buf = [0; 4096];
        client.read(&mut buf, 0).unwrap();
        assert!(buf == content()[..4096]);
        assert_eq!(host.seen(), 1);
    }
}

/// Refuses what is longer than `bytes` for want of memory, and everything while more than `most` are in flight.
fn short_of_memory(bytes: u32) -> impl Fn(&mut Talk, &Frame, &Disk) -> std::io::Result<()> {
    move |talk, frame, disk| match frame.kind {
        Kind::Io if frame.io().total > bytes => {
            let needed = frame.io().total + 24;
            talk.refuse(frame, NO_MEMORY, &format!("Failed to allocate the requested {needed} bytes"))
        }
        _ => talk.answer(frame, disk),
    }
}

#[test]
fn a_host_short_of_memory_is_asked_for_less() {
    let disk = Arc::new(Disk::new(content()));
    let host = Host::new(move |_, talk| {
        talk.open(&disk)?;
        let answer = short_of_memory(128 << 10);
        loop {
            let frame = talk.frame()?;
            answer(talk, &frame, &disk)?;
        }
    });
    let (lines, log) = Lines::log();
    let client = connect_with(&host, wanted(false, Compression::None), &options(), log).unwrap();
    let mut all = vec![0; SIZE as usize];
    client.read(&mut all, 0).unwrap();
    assert!(all == content());
    let line = "[NFC ERROR] NfcFssrvrProcessErrorMsg: received NFC error 5 from server: Failed to allocate the requested";
    assert!(lines.count(line) > 0);
    assert_eq!(host.seen(), 1);
}

/// Questions are not cut by what data are cut by: a chunk may be longer than the longest operation.
#[test]
fn a_host_short_of_memory_still_tells_what_is_allocated() {
    let disk = Arc::new(Disk { allocated: vec![2 << 20..4 << 20], ..Disk::new(content()) });
    let host = Host::new(move |_, talk| {
        talk.open(&disk)?;
        let mut refused = 0;
        loop {
            let frame = talk.frame()?;
            match frame.kind {
                Kind::Blocks if refused < 3 => {
                    refused += 1;
                    talk.refuse(&frame, NO_MEMORY, "Failed to allocate the requested 4096 bytes")?;
                }
                _ => talk.answer(&frame, &disk)?,
            }
        }
    });
    let options = Options { chunk: 2 << 20, ..options() };
    let client = connect(&host, wanted(false, Compression::None), &options);
    assert_eq!(allocated(&client, 0..SIZE).unwrap(), [2 << 20..4 << 20]);
}

#[test]
fn frames_of_a_session_are_the_published_ones() {
    let handle = nfc_peer::HANDLE.to_le_bytes();
    let frame = |kind: u8, size: u8, op: u32, payload: &[u8]| {
        let mut bytes = vec![0x7a, 0xda, 0x00, 0xa1, kind, 0, 0, 0, size, 0, 0, 0];
        bytes.extend(op.to_le_bytes());
        bytes.extend(payload);
        bytes
    };
    let io = move |fields: [u32; 8]| [&handle[..], &fields.map(u32::to_le_bytes).concat(), &[0; 4]].concat();
    let path = b"[ds] vm/vm.vmdk";
    let host = Host::new(move |_, talk| {
        talk.handshake()?;
        let disk = Disk::new(vec![0; 16 << 20]);
        let expect = |talk: &mut Talk, wanted: Vec<u8>| -> std::io::Result<()> {
            assert_eq!(talk.take(wanted.len())?, wanted);
            Ok(())
        };
        expect(talk, frame(2, 16, 0, &[[0, 0, 0, 0], [0, 0, 1, 0], [4, 0, 0, 0], [0; 4]].concat()))?;
        talk.raw(&frame(2, 16, 0, &[0; 16]))?;
        expect(talk, frame(9, 12, 1, &[0; 12]))?;
        talk.raw(&frame(9, 12, 1, &[0, 0, 4, 0, 0, 0, 4, 0, 1, 0, 0, 0]))?;
        expect(talk, frame(22, 4, 2, &[1, 0, 0, 0]))?;
        talk.raw(&frame(22, 4, 2, &[1, 0, 0, 0]))?;
        let file = [&[15, 0, 0, 0][..], &[0; 12], &[2, 0, 0, 0, 0x1a, 0, 0, 0], &[0; 36], path].concat();
        expect(talk, frame(4, 60, 3, &file))?;
        let mut opened = Vec::new();
        nfc_peer::opened(disk.size()).encode(3, &mut opened);
        talk.raw(&opened)?;
        let key = [&handle[..], &[11, 0, 0, 0, 0, 0, 0, 0], b"adapterType"].concat();
        expect(talk, frame(11, 16, 4, &key))?;
        talk.raw(&frame(11, 16, 4, &[&[0; 12][..], &[8, 0, 0, 0], b"lsilogic"].concat()))?;
        let mut next = 5;
        for key in &vixDiskLib::net::nfc::ddb::KNOWN_KEYS[1..] {
            let length = u32::try_from(key.len()).unwrap().to_le_bytes();
            expect(talk, frame(11, 16, next, &[&handle[..], &length, &[0; 4], key.as_bytes()].concat()))?;
            talk.raw(&frame(11, 16, next, &[0; 16]))?;
            next += 1;
        }
        // 129 sectors in two fragments, the second first.
        expect(talk, frame(7, 44, next, &io([1, 0, 0, 0, 0x10200, 0, 0x10200, 0x10200])))?;
        let reply =
            |fields: [u32; 8]| [&[0; 8][..], &fields.map(u32::to_le_bytes).concat(), &[0; 4]].concat();
        talk.raw(&frame(7, 44, next, &reply([1, 0, 0, 0, 0x10200, 0x10000, 512, 512])))?;
        talk.raw(&[2; 512])?;
        talk.raw(&frame(7, 44, next, &reply([1, 0, 0, 0, 0x10200, 0, 65536, 65536])))?;
        talk.raw(&[1; 65536])?;
        next += 1;
        expect(talk, frame(7, 44, next, &io([0, 0, 0x10_0000, 0, 512, 0, 512, 512])))?;
        expect(talk, vec![9; 512])?;
        talk.raw(&frame(7, 44, next, &reply([0, 0, 0x10_0000, 0, 512, 0, 512, 512])))?;
        next += 1;
        let query = [
            &handle[..],
            &[0; 8],
            &[0, 0, 1, 0, 0, 0, 0, 0],
            &[0, 0, 3, 0, 0, 0, 0, 0],
            &[16, 0, 0, 0, 0, 0, 0, 0],
            &[0; 8],
        ]
        .concat();
        expect(talk, frame(13, 48, next, &query))?;
        let map = [&[0; 32][..], &[16, 0, 0, 0, 0, 0, 0, 0], &[0; 8], &[0x0f, 0x03, 0, 0]].concat();
        talk.raw(&frame(13, 48, next, &map))?;
        next += 1;
        expect(talk, frame(5, 8, next, &handle))?;
        talk.raw(&frame(5, 8, next, &handle))?;
        expect(talk, frame(3, 4, next + 1, &[0; 4]))?;
        talk.raw(&frame(3, 4, next + 1, &[0; 4]))?;
        expect(talk, [&[4][..], &[0; 263]].concat())
    });
    let client = connect(&host, wanted(true, Compression::None), &options());
    assert_eq!(client.opened().keys, [("adapterType".to_owned(), "lsilogic".to_owned())]);
    let mut buf = vec![0; 129 * 512];
    client.read(&mut buf, 0).unwrap();
    assert!(buf[..65536].iter().all(|b| *b == 1) && buf[65536..].iter().all(|b| *b == 2));
    client.write(&[9; 512], 2048 * 512).unwrap();
    let parts = allocated(&client, 384 * 512..384 * 512 + (16 << 16)).unwrap();
    let sectors: Vec<_> =
        parts.iter().map(|part| (part.start / 512, (part.end - part.start) / 512)).collect();
    assert_eq!(sectors, [(384, 512), (1408, 256), (2048, 128)], "the host's, and what was written");
    client.close();
}

#[test]
fn a_packed_sector_as_it_was_published_is_read() {
    let disk = Arc::new(Disk::new(content()));
    let host = Host::new(move |_, talk| {
        talk.open(&disk)?;
        let frame = talk.frame()?;
        assert_eq!(frame.io().compression, Compression::Fastlz);
        let packed = [1, 0x41, 0x41, 0xe0, 0xfd, 1, 0xe0, 0xea, 1, 4, 0x41, 0x41, 0x41, 0x41, 0x41];
        let head = frame.io().fragment(0, 512).packed(Compression::Fastlz, 15);
        talk.raw(&head.encode(frame.op))?;
        talk.raw(&packed)?;
        nfc_peer::serve_frames(talk, &disk)
    });
    let client = connect(&host, wanted(false, Compression::Fastlz), &options());
    let mut buf = [0; 512];
    client.read(&mut buf, 4096).unwrap();
    assert!(buf.iter().all(|b| *b == b'A'));
}

#[test]
fn a_copy_with_many_cuts_ends_with_equal_data() {
    for compression in [Compression::None, Compression::Zlib] {
        let disk = Arc::new(Disk { reversed: true, ..Disk::new(content()) });
        let shared = Arc::clone(&disk);
        let gate = |n| Some((40_000 + (n as u64 * 7919) % 190_000, After::Close));
        let host = Host::behind(gate, move |_, talk| nfc_peer::serve(talk, &shared));
        let client = connect(&host, wanted(true, compression), &mending());
        let mut all = vec![0; SIZE as usize];
        for (i, part) in all.chunks_mut(100_000 / 512 * 512).enumerate() {
            client.read(part, i as u64 * (100_000 / 512 * 512)).unwrap();
        }
        assert!(all == content());
        let new = model::stamps(0, SIZE / 512, 4);
        client.write(&new, 0).unwrap();
        client.flush().unwrap();
        assert!(new == *disk.bytes.lock().unwrap());
        assert!(host.seen() > 8, "{} connections", host.seen());
    }
}

#[test]
fn a_disk_that_changed_is_not_gone_on_with() {
    let host = Host::behind(
        |n| (n == 0).then_some((264 * 3 + 2000, After::Close)),
        |n, talk| {
            let disk = Disk::new(vec![0; if n == 0 { 1 << 20 } else { 2 << 20 }]);
            nfc_peer::serve(talk, &disk)
        },
    );
    let client = connect(&host, wanted(false, Compression::None), &mending());
    let error = client.read(&mut [0; 65536], 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CapacityMismatch, "{error}");
    assert!(error.to_string().contains("changed while the connection was lost"), "{error}");
}

#[test]
fn buffers_that_are_refused_are_given_up_for_the_usual_ones() {
    let disk = Arc::new(Disk::new(content()));
    let host = Host::new(move |_, talk| {
        talk.handshake()?;
        let frame = talk.frame()?;
        let asked = open::OpenSession::parse(&frame.payload).unwrap();
        if asked.buffer > 2 << 20 {
            talk.refuse(&frame, 3, "buffer too large")?;
            return talk.hold();
        }
        assert_eq!((asked.buffer, asked.count), (65536, 4));
        talk.answer(&frame, &disk)?;
        nfc_peer::serve_frames(talk, &disk)
    });
    let (lines, log) = Lines::log();
    let buffers = Buffers { bytes: 4 << 20, count: 4 };
    let client =
        connect_with(&host, Wanted { buffers, ..wanted(false, Compression::None) }, &options(), log).unwrap();
    let mut all = vec![0; SIZE as usize];
    client.read(&mut all, 0).unwrap();
    assert!(all == content());
    assert_eq!((host.seen(), lines.count("does not take 4 buffers of 4194304 bytes")), (2, 1));
}

#[test]
fn too_many_buffers_are_refused_before_anybody_is_asked() {
    let host = Host::new(|_, talk| talk.hold());
    for (bytes, count) in [(1 << 20, 17), (32 << 20, 1), (u32::MAX, u32::MAX), (100, 1)] {
        let wanted = Wanted { buffers: Buffers { bytes, count }, ..wanted(false, Compression::None) };
        let error = connect_with(&host, wanted, &options(), Log::none()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    assert_eq!(host.seen(), 0);
}

/// The host answers nothing until so many operations came: they have to be in flight at once, and not more than that.
#[test]
fn operations_in_flight_are_as_many_as_were_asked_for() {
    for (buffers, piece, expected) in [((0, 0), 1 << 20, 4), ((1 << 18, 3), 1 << 18, 3)] {
        let size = 64 << 20;
        let host = Host::new(move |_, talk| {
            let disk = Disk::new(vec![3; size]);
            talk.open(&disk)?;
            let frames: Vec<Frame> = (0..expected).map(|_| talk.frame()).collect::<std::io::Result<_>>()?;
            assert!(frames.iter().all(|frame| frame.io().total == piece));
            for frame in frames {
                talk.answer(&frame, &disk)?;
            }
            nfc_peer::serve_frames(talk, &disk)
        });
        let buffers = Buffers { bytes: buffers.0, count: buffers.1 };
        let client = connect(&host, Wanted { buffers, ..wanted(false, Compression::None) }, &options());
        let mut all = vec![0; size];
        client.read(&mut all, 0).unwrap();
        assert!(all.iter().all(|b| *b == 3));
    }
}

/// While a map of a large disk is asked for, questions leave room: a read that begins later is sent before they end.
#[test]
fn a_map_does_not_stand_in_the_way_of_reads() {
    let size = 64_u64 << 30;
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let host = Host::new(move |_, talk| {
        talk.handshake()?;
        let disk = Disk::new(vec![5; 1 << 20]);
        let mut waiting = Vec::new();
        loop {
            let frame = talk.frame()?;
            match frame.kind {
                Kind::OpenFile => {
                    let mut bytes = Vec::new();
                    nfc_peer::opened(size).encode(frame.op, &mut bytes);
                    talk.raw(&bytes)?;
                }
                Kind::Blocks => {
                    if waiting.is_empty() {
                        tell.lock().unwrap().send(()).unwrap();
                    }
                    waiting.push(frame); // not answered before the read is
                }
                Kind::Io => {
                    assert!(waiting.len() < 16, "{} questions", waiting.len());
                    talk.answer(&frame, &disk)?;
                    for frame in waiting.drain(..) {
                        talk.answer(&frame, &disk)?;
                    }
                    return nfc_peer::serve_frames(talk, &disk);
                }
                _ => talk.answer(&frame, &disk)?,
            }
        }
    });
    let client = connect(&host, wanted(false, Compression::None), &options());
    std::thread::scope(|scope| {
        let mapping = scope.spawn(|| allocated(&client, 0..size));
        told.recv().unwrap();
        let start = Instant::now();
        let mut buf = vec![0; 4096];
        client.read(&mut buf, 0).unwrap();
        assert!(buf.iter().all(|b| *b == 5) && start.elapsed() < Duration::from_secs(20));
        assert_eq!(mapping.join().unwrap().unwrap(), [0..1 << 20]);
    });
}

#[test]
fn a_flush_returns_when_started_writes_are_acknowledged() {
    let disk = Arc::new(Disk::new(content()));
    let shared = Arc::clone(&disk);
    let host = honest(&shared);
    let client = connect(&host, wanted(true, Compression::None), &options());
    let done = Arc::new(AtomicUsize::new(0));
    static DATA: [u8; 65536] = [8; 65536];
    for n in 0..40 {
        let done = Arc::clone(&done);
        let finish = Box::new(move |_: Transfer, result: Result<()>| {
            result.unwrap();
            done.fetch_add(1, Ordering::SeqCst);
        });
        assert!(client.start(Transfer::Write(&DATA), n * 65536, finish).is_none());
    }
    client.flush().unwrap();
    assert!(disk.bytes.lock().unwrap()[..40 * 65536].iter().all(|b| *b == 8));
}
