//! Target for the NFC client: the bytes of a host behind its door are the input.
//!
//! The first byte says how they are used (see [`Config`]), the rest is what the host says: with or without the opening of
//! the disk, in one connection or two. The client makes a fixed row of calls. Every sector that a read returns must be one
//! that the host sent for that place, put together and unpacked by a second reader of the protocol in this file.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Log;
use vixDiskLib::net::nfc::Compression;
use vixDiskLib::net::nfc::client::Buffers;
use vixDiskLib::net::nfc::client::Client;
use vixDiskLib::net::nfc::client::Door;
use vixDiskLib::net::nfc::client::Failure;
use vixDiskLib::net::nfc::client::Options;
use vixDiskLib::net::nfc::client::Passed;
use vixDiskLib::net::nfc::client::Wanted;
use vixDiskLib::threads::Threads;
use vixDiskLib::transfer::Transfer;

use super::peer::Scripted;
use super::peer::Then;

/// The reads of the session for a disk of this size: offset and length.
fn reads_of(size: u64) -> [(u64, usize); 4] {
    [(1024, 1024), (size - 512, 512), (100, 4000), (0, size as usize)]
}

/// How an input is used: the bits of its first byte.
#[derive(Clone, Copy, Debug)]
struct Config {
    /// Bits 0 and 1.
    compression: Compression,
    /// Bit 2: silence instead of the end of the stream.
    then: Then,
    /// Bit 3: a few bytes at a time.
    portions: bool,
    /// Bit 4: transfers are started too.
    starts: bool,
    /// Bit 5: the second half of the bytes is a second connection.
    twice: bool,
    /// Bytes of the disk. Bit 6: more than one fragment.
    size: u64,
    /// Bit 7: the opening is a part of the input.
    opens: bool,
}

impl Config {
    fn of(byte: u8) -> Self {
        let bit = |n: u8| byte & 1 << n != 0;
        let compression = Compression::ALL[usize::from(byte & 3)];
        let then = if bit(2) { Then::Silence } else { Then::Close };
        let size = if bit(6) { 66_560 } else { 5_632 };
        Self { compression, then, portions: bit(3), starts: bit(4), twice: bit(5), size, opens: bit(7) }
    }
}

/// Words of a host.
pub fn nfc_client(data: &[u8]) {
    let Some((&first, words)) = data.split_first() else { return };
    let config = Config::of(first);
    let halves = if config.twice { words.split_at(words.len() / 2) } else { (words, &[][..]) };
    let lines = [halves.0, halves.1]
        .iter()
        .take(1 + usize::from(config.twice))
        .enumerate()
        .map(|(n, half)| {
            [&if config.opens { Vec::new() } else { opening(config.size, n == 0) }, *half].concat()
        })
        .collect();
    let reads = session(&Lines::new(config, lines), config);
    if config.opens {
        return; // where the frames begin is not known here
    }
    let mut sent = what_was_sent(halves.0);
    sent.extend(what_was_sent(halves.1));
    for (offset, got) in reads {
        let mut at = 0;
        while at < got.len() {
            let place = offset + at as u64;
            let end = got.len().min(at + 512 - (place % 512) as usize);
            let proven = sent.iter().any(|part| part.proves(place, &got[at..end]));
            assert!(proven, "{} bytes at {place:#x} are not what the host sent", end - at);
            at = end;
        }
    }
}

/// Each connection is a stream with the next line of words.
#[derive(Debug)]
struct Lines {
    config: Config,
    lines: Mutex<std::vec::IntoIter<Vec<u8>>>,
    heard: Mutex<Option<Arc<Mutex<Vec<u8>>>>>,
}

impl Lines {
    fn new(config: Config, lines: Vec<Vec<u8>>) -> Arc<Self> {
        Arc::new(Self { config, lines: Mutex::new(lines.into_iter()), heard: Mutex::default() })
    }
}

#[derive(Debug)]
struct OpenDoor(Arc<Lines>);

impl Door for OpenDoor {
    fn pass(&self, _until: Instant) -> Result<Passed, Failure> {
        let line = self.0.lines.lock().unwrap().next();
        let line = line.ok_or_else(|| Error::new(ErrorKind::NotFound, "no more words"))?;
        let portion = if self.0.config.portions { 7 } else { usize::MAX };
        let stream = Scripted::new(&line, self.0.config.then).in_portions(portion);
        *self.0.heard.lock().unwrap() = Some(stream.heard());
        let (host, service) = ("fuzzed".to_owned(), "nfc".to_owned());
        Ok(Passed { stream: Box::new(stream), host, port: 902, service })
    }
}

fn options(config: Config) -> Options {
    let short = Duration::from_millis(1);
    Options {
        connect: Duration::from_secs(1),
        read: short,
        write: short,
        request: short,
        memory: short,
        reconnect: if config.twice { Duration::from_millis(5) } else { Duration::ZERO },
        chunk: 1024,
        ..Options::default()
    }
}

/// Makes the calls; what the reads returned.
fn session(lines: &Arc<Lines>, config: Config) -> Vec<(u64, Vec<u8>)> {
    let threads = Arc::new(Threads::new(|body| body()));
    let wanted = Wanted {
        path: "[ds] a.vmdk".to_owned(),
        write: true,
        compression: config.compression,
        buffers: Buffers::default(),
        client_name: "vddk".to_owned(),
    };
    let door = Arc::new(OpenDoor(Arc::clone(lines)));
    let connected = Client::behind(door, wanted, &options(config), Log::none(), Arc::clone(&threads));
    let Ok(client) = connected else { return Vec::new() };
    let size = client.opened().capacity;
    let mut reads = Vec::new();
    for (offset, len) in reads_of(config.size) {
        let mut buf = vec![0xa5; len];
        if client.read(&mut buf, offset).is_ok() {
            reads.push((offset, buf));
        }
    }
    let _ = client.write(&[7; 1000], 500);
    let _ = client.write(&[9; 1024], 1024);
    let range = 0..size.min(1 << 30);
    let mut at = None;
    let told = client.allocation(range.clone(), &mut |part| {
        assert!(at < Some(part.start) && part.start < part.end, "{part:?} after {at:?}");
        assert!(part.end <= range.end, "{part:?} passes the end");
        at = Some(part.end);
    });
    assert!(!matches!(told, Ok(false)) || at.is_none(), "something was told by one who does not tell");
    let _ = client.key("uuid");
    let _ = client.flush();
    if config.starts {
        start(&client, &reads_of(config.size), &mut reads);
    }
    client.close();
    drop(client);
    threads.join_all();
    reads
}

/// Starts reads; each must end exactly once, at the latest by closing.
fn start(client: &Arc<Client>, wanted: &[(u64, usize)], reads: &mut Vec<(u64, Vec<u8>)>) {
    let (tell, told) = mpsc::channel();
    let mut begun = 0;
    for &(offset, len) in wanted {
        let tell = tell.clone();
        let finish =
            Box::new(move |transfer, result: Result<()>| tell.send((offset, transfer, result)).unwrap());
        begun += usize::from(client.start(Transfer::ReadOwned(vec![0x5a; len]), offset, finish).is_none());
    }
    drop(tell);
    client.close();
    let ends: Vec<_> = told.iter().collect();
    assert_eq!(ends.len(), begun, "each transfer ends once");
    for (offset, transfer, result) in ends {
        if let (Transfer::ReadOwned(bytes), Ok(())) = (transfer, result) {
            reads.push((offset, bytes));
        }
    }
}

fn message(kind: u32, at: usize, value: u32) -> Vec<u8> {
    let mut bytes = vec![0; 264];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    bytes
}

fn frame(kind: u32, op: u32, payload: &[u8], more: &[u8]) -> Vec<u8> {
    let head = [0xA100_DA7A, kind, payload.len() as u32, op].map(u32::to_le_bytes).concat();
    [&head[..], payload, more].concat()
}

const HANDLE: u64 = 77;
/// Values that a client asks for when it connects for the first time.
const KEYS: u32 = 21;

/// What an honest host says up to the first request; values are asked for on the first connection.
fn opening(size: u64, first: bool) -> Vec<u8> {
    let mut opened = vec![0; 60];
    opened[8..16].copy_from_slice(&HANDLE.to_le_bytes());
    opened[28..36].copy_from_slice(&size.to_le_bytes());
    let mut words = [message(36, 16, 1), message(51, 4, 11), message(52, 4, 0)].concat();
    words.extend(frame(2, 0, &[0; 16], &[]));
    words.extend(frame(9, 1, &[0; 12], &[]));
    words.extend(frame(22, 2, &[1, 0, 0, 0], &[]));
    words.extend(frame(4, 3, &opened, &[]));
    let keys = if first { KEYS } else { 0 };
    (4..4 + keys).for_each(|op| words.extend(frame(11, op, &[0; 16], &[])));
    words
}

/// Little-endian numbers, one after the other; `None` at the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self, len: usize) -> Option<u64> {
        let bytes = self.bytes(len)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes.get(at..).and_then(|rest| Reader(rest).number(len)).unwrap_or(0)
}

/// A fragment that a host sent.
struct Part {
    place: u64,
    data: Vec<u8>,
}

impl Part {
    fn proves(&self, place: u64, got: &[u8]) -> bool {
        let at = place.checked_sub(self.place).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.data.get(at..)).is_some_and(|data| data.starts_with(got))
    }
}

/// The fragments in what a host said, as far as it can be read.
fn what_was_sent(words: &[u8]) -> Vec<Part> {
    let mut reader = Reader(words);
    let mut parts = Vec::new();
    while reader.number(4) == Some(0xA100_DA7A) {
        let Some((kind, part)) = next_frame(&mut reader) else { break };
        if kind == 7 {
            parts.extend(part);
        }
    }
    parts
}

fn next_frame(reader: &mut Reader<'_>) -> Option<(u64, Option<Part>)> {
    let (kind, size) = (reader.number(4)?, reader.number(4)?);
    reader.number(4)?;
    let payload = reader.bytes(usize::try_from(size).ok()?)?;
    let more = match kind {
        1 if size == 16 && number(payload, 8, 4) == 0 => number(payload, 12, 4),
        7 if number(payload, 0, 8) == 0 && number(payload, 8, 4) == 1 => number(payload, 36, 4),
        11 => number(payload, 12, 4),
        13 if number(payload, 0, 8) == 0 => number(payload, 32, 8).div_ceil(32).checked_mul(4)?,
        _ => 0,
    };
    let data = reader.bytes(usize::try_from(more).ok()?)?;
    if kind != 7 || more == 0 {
        return Some((kind, None));
    }
    let place = number(payload, 16, 8).wrapping_add(number(payload, 28, 4));
    let length = number(payload, 32, 4) as usize;
    let data = match number(payload, 12, 4) {
        _ if length > 1 << 20 => None,
        0 => Some(data.to_vec()),
        1 => {
            let mut plain = vec![0; length];
            libdeflater::Decompressor::new().zlib_decompress(data, &mut plain).ok().map(|_| plain)
        }
        2 => unpack_fastlz(data),
        _ => unpack_skipz(data, length),
    };
    Some((kind, data.map(|data| Part { place, data })))
}

fn unpack_skipz(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut reader = Reader(packed);
    reader.bytes(8)?;
    let mut plain = vec![0; length];
    while let Some(at) = reader.number(4) {
        let run = reader.number(4)? as usize;
        let data = reader.bytes(run)?;
        plain.get_mut(at as usize..)?.get_mut(..run)?.copy_from_slice(data);
    }
    Some(plain)
}

fn unpack_fastlz(packed: &[u8]) -> Option<Vec<u8>> {
    let second = packed.first()? >> 5 == 1;
    let mut reader = Reader(packed);
    let mut control = reader.number(1)? & 31;
    let mut plain: Vec<u8> = Vec::new();
    loop {
        if control < 32 {
            plain.extend(reader.bytes(control as usize + 1)?);
        } else {
            let (mut length, mut distance) = ((control >> 5) - 1, (control & 31) << 8);
            if length == 6 {
                loop {
                    let more = reader.number(1)?;
                    length += more;
                    if !second || more < 255 {
                        break;
                    }
                }
            }
            let low = reader.number(1)?;
            if second && low == 255 && distance == 31 << 8 {
                distance = reader.number(1)? * 256 + reader.number(1)? + 8191;
            } else {
                distance += low;
            }
            let from = plain.len().checked_sub(distance as usize + 1)?;
            for at in from..from + length as usize + 3 {
                plain.push(*plain.get(at)?);
            }
        }
        match reader.number(1) {
            None => return Some(plain),
            Some(_) if plain.len() > 1 << 20 => return None,
            Some(next) => control = next,
        }
    }
}

/// Inputs that an honest host would be: what the client asks is found out by asking it, one answer after the other.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let whole = |byte: u8, shape: Shape| {
        let config = Config::of(byte);
        let before = if config.opens { opening(config.size, true) } else { Vec::new() };
        [&[byte][..], &before, &honest(config, shape)].concat()
    };
    vec![
        ("plain", whole(0, Shape::Usual)),
        ("zlib", whole(1, Shape::Usual)),
        ("fastlz", whole(2, Shape::Usual)),
        ("skipz", whole(3, Shape::Usual)),
        ("silent", whole(4, Shape::Usual)),
        ("portions", whole(8 + 3, Shape::Usual)),
        ("started", whole(16, Shape::Usual)),
        ("twice", whole(32, Shape::Usual)),
        ("two-fragments", whole(64 + 1, Shape::Reversed)),
        ("opening", whole(128, Shape::Usual)),
        ("refusals", whole(0, Shape::Refusing)),
    ]
}

/// What an honest host may be like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Usual,
    /// The last fragment comes first.
    Reversed,
    /// Every other request is refused.
    Refusing,
}

fn honest(config: Config, shape: Shape) -> Vec<u8> {
    // Started reads are not waited for, so their answers could not be told from none.
    let asked = Config { starts: false, portions: false, twice: false, then: Then::Close, ..config };
    let mut words = Vec::new();
    for answered in 0..64 {
        let lines = Lines::new(asked, vec![[opening(config.size, true), words.clone()].concat()]);
        let reads = session(&lines, asked);
        let heard = lines.heard.lock().unwrap().take().unwrap().lock().unwrap().clone();
        let Some(request) = requests(&heard).nth(answered) else {
            let expected = if shape == Shape::Refusing { 2 } else { reads_of(config.size).len() };
            assert_eq!(reads.len(), expected, "every read of an honest host succeeds");
            break;
        };
        words.extend(match shape {
            Shape::Refusing if answered % 2 == 1 => refusal(&request),
            shape => answer(config, shape, &request),
        });
    }
    words
}

struct Request {
    kind: u64,
    op: u32,
    payload: Vec<u8>,
}

/// The requests behind the opening that are answered once.
fn requests(heard: &[u8]) -> impl Iterator<Item = Request> {
    let mut reader = Reader(heard);
    reader.bytes(264 * 6 + "vddknbdmode".len());
    let next = move || {
        loop {
            if reader.number(4)? != 0xA100_DA7A {
                return None; // the farewell
            }
            let (kind, size, op) = (reader.number(4)?, reader.number(4)?, reader.number(4)? as u32);
            let payload = reader.bytes(size as usize)?.to_vec();
            let writes = kind == 7 && number(&payload, 8, 4) == 0;
            let more = match kind {
                4 => number(&payload, 0, 4),
                11 => number(&payload, 8, 4),
                7 if writes => number(&payload, 36, 4),
                _ => 0,
            };
            reader.bytes(more as usize)?;
            if op >= 4 + KEYS {
                return Some(Request { kind, op, payload });
            }
        }
    };
    std::iter::from_fn(next)
}

fn refusal(request: &Request) -> Vec<u8> {
    let text = b"not today";
    let reason = [&9_u64.to_le_bytes()[..], &[0; 4], &(text.len() as u32).to_le_bytes()].concat();
    let mut payload = request.payload.clone();
    payload[..8].copy_from_slice(&1_u64.to_le_bytes());
    if request.kind == 11 {
        payload[12..].fill(0);
    }
    [frame(1, request.op, &reason, text), frame(request.kind as u32, request.op, &payload, &[])].concat()
}

fn answer(config: Config, shape: Shape, request: &Request) -> Vec<u8> {
    let Request { kind, op, payload } = request;
    match kind {
        7 if number(payload, 8, 4) == 1 => {
            let (offset, total) = (number(payload, 16, 8), number(payload, 24, 4));
            let byte = |at: u64| if (at / 512).is_multiple_of(3) { (at / 700) as u8 } else { 0 };
            let data: Vec<u8> = (offset..offset + total).map(byte).collect();
            let mut fragments: Vec<Vec<u8>> = data
                .chunks(65536)
                .enumerate()
                .map(|(i, part)| fragment(config.compression, *op, payload, i * 65536, part))
                .collect();
            if shape == Shape::Reversed {
                fragments.reverse();
            }
            fragments.concat()
        }
        7 => {
            let mut payload = payload.clone();
            payload[..8].fill(0);
            frame(7, *op, &payload, &[])
        }
        11 => frame(11, *op, &[&[0; 12][..], &[4, 0, 0, 0]].concat(), b"60 0"),
        13 => {
            let chunks = number(payload, 32, 8);
            let answer = [&[0; 32][..], &chunks.to_le_bytes(), &[0; 8]].concat();
            frame(13, *op, &answer, &vec![0b0101_0011; chunks.div_ceil(32) as usize * 4])
        }
        kind => frame(*kind as u32, *op, payload, &[]),
    }
}

fn fragment(compression: Compression, op: u32, request: &[u8], at: usize, data: &[u8]) -> Vec<u8> {
    let packed = vixDiskLib::net::nfc::pack::Packer::new(compression).pack(data).map(<[u8]>::to_vec);
    let kind = if packed.is_some() { compression.number() } else { 0 };
    let sent = packed.unwrap_or_else(|| data.to_vec());
    let mut payload = request.to_vec();
    payload[..8].fill(0);
    payload[12..16].copy_from_slice(&kind.to_le_bytes());
    for (place, value) in [(28, at), (32, data.len()), (36, sent.len())] {
        payload[place..place + 4].copy_from_slice(&(value as u32).to_le_bytes());
    }
    frame(7, op, &payload, &sent)
}
