//! Target for the NBD client: the bytes of a server are the input.
//!
//! The first byte says how they are used (see [`Config`]), the rest is what the server says: with or without the
//! negotiation, in one connection or two. The client makes a fixed row of calls. What a read returns must be what the
//! server sent for one of its requests, put together by a second reader of the protocol in this file.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Log;
use vixDiskLib::net::nbd::Export;
use vixDiskLib::net::nbd::client::Client;
use vixDiskLib::net::nbd::client::Dialler;
use vixDiskLib::net::nbd::client::Options;
use vixDiskLib::net::nbd::handshake;
use vixDiskLib::net::nbd::handshake::Wants;
use vixDiskLib::net::stream::Stream;
use vixDiskLib::threads::Threads;
use vixDiskLib::transfer::Transfer;

use super::peer::Scripted;
use super::peer::Then;

/// The reads of the session for an export of this size: offset and length.
fn reads_of(size: u64) -> [(u64, usize); 4] {
    [(1024, 1024), (size - 100, 100), (100, 4000), (0, size as usize)]
}

/// What replies look like; the last one leaves the negotiation to the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Simple,
    Structured,
    Extended,
    Negotiated,
}

/// How an input is used: the bits of its first byte.
#[derive(Clone, Copy, Debug)]
struct Config {
    /// Bits 0 and 1.
    style: Style,
    /// Bit 2: silence instead of the end of the stream.
    then: Then,
    /// Bit 3: a few bytes at a time.
    portions: bool,
    /// Bit 4: transfers are started too.
    starts: bool,
    /// Bit 5: the second half of the bytes is a second connection.
    twice: bool,
    /// Bytes of the export that is negotiated for the input, not a whole number of sectors. Bit 6: more than the client
    /// receives together with the head of a reply.
    size: u64,
}

impl Config {
    fn of(byte: u8) -> Self {
        let bit = |n: u8| byte & 1 << n != 0;
        let style = match byte & 3 {
            0 => Style::Simple,
            1 => Style::Structured,
            2 => Style::Extended,
            _ => Style::Negotiated,
        };
        let then = if bit(2) { Then::Silence } else { Then::Close };
        let size = if bit(6) { 65_636 } else { 5_220 };
        Self { style, then, portions: bit(3), starts: bit(4), twice: bit(5), size }
    }
}

/// Words of a server.
pub fn nbd_client(data: &[u8]) {
    let Some((&first, words)) = data.split_first() else { return };
    let config = Config::of(first);
    let halves = if config.twice { words.split_at(words.len() / 2) } else { (words, &[][..]) };
    let lines = [halves.0, halves.1]
        .iter()
        .take(1 + usize::from(config.twice))
        .map(|half| [&negotiation(config), *half].concat())
        .collect();
    let reads = session(&Lines::new(config, lines), config);
    if config.style == Style::Negotiated {
        return; // blocks that are negotiated make pieces that the second reader does not know
    }
    let mut sent = what_was_sent(halves.0, config.style);
    sent.extend(what_was_sent(halves.1, config.style));
    for (offset, got) in reads {
        let proven = sent.iter().any(|reply| reply.proves(offset, &got));
        assert!(proven, "{} bytes at {offset:#x} are not what the server sent", got.len());
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
struct Dial(Arc<Lines>);

impl Dialler for Dial {
    fn dial(&self, until: Instant) -> Result<(Box<dyn Stream>, Export)> {
        let line = self.0.lines.lock().unwrap().next();
        let line = line.ok_or_else(|| Error::new(ErrorKind::ConnectionRefused, "no more words"))?;
        let portion = if self.0.config.portions { 7 } else { usize::MAX };
        let stream = Scripted::new(&line, self.0.config.then).in_portions(portion);
        *self.0.heard.lock().unwrap() = Some(stream.heard());
        handshake::negotiate(Box::new(stream), &Wants::all_of("x"), None, until)
    }

    fn label(&self) -> String {
        "a fuzzed server".to_owned()
    }
}

fn options(config: Config) -> Options {
    let request = Duration::from_millis(1);
    let reconnect = if config.twice { Duration::from_millis(5) } else { Duration::ZERO };
    Options { connect: Duration::from_secs(1), request, reconnect, connections: 1, window: 0, write: true }
}

/// Makes the calls; what the reads returned.
fn session(lines: &Arc<Lines>, config: Config) -> Vec<(u64, Vec<u8>)> {
    let threads = Arc::new(Threads::new(|body| body()));
    let dial = Dial(Arc::clone(lines));
    let connected = Client::connect(dial, &options(config), Log::none(), Arc::clone(&threads));
    let Ok(client) = connected else { return Vec::new() };
    let size = client.export().size;
    let mut reads = Vec::new();
    for (offset, len) in reads_of(config.size) {
        let mut buf = vec![0xa5; len];
        if client.read(&mut buf, offset).is_ok() {
            reads.push((offset, buf));
        }
    }
    let _ = client.write(&[7; 1000], 500);
    let mut at = 0;
    let told = client.allocation(0..size, &mut |extent| {
        assert!(
            extent.range.start == at && extent.range.end > at,
            "extents have a gap at {at:#x}: {extent:?}"
        );
        at = extent.range.end;
    });
    assert!(!matches!(told, Ok(true)) || at == size, "extents end at {at:#x} of {size:#x}");
    let _ = client.zero(0..size.min(5000));
    let _ = client.trim(0..size.min(5000));
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
    for &(offset, len) in wanted {
        let tell = tell.clone();
        let finish =
            Box::new(move |transfer, result: Result<()>| tell.send((offset, transfer, result)).unwrap());
        if client.start(Transfer::ReadOwned(vec![0x5a; len]), offset, finish).is_some() {
            return; // it does not fit the server's blocks
        }
    }
    drop(tell);
    client.close();
    let ends: Vec<_> = told.iter().collect();
    assert_eq!(ends.len(), wanted.len(), "each transfer ends once");
    for (offset, transfer, result) in ends {
        if let (Transfer::ReadOwned(bytes), Ok(())) = (transfer, result) {
            reads.push((offset, bytes));
        }
    }
}

fn reply(option: u32, kind: u32, payload: &[u8]) -> Vec<u8> {
    let head = [option, kind, payload.len() as u32].map(u32::to_be_bytes).concat();
    [&0x0003_e889_0455_65a9_u64.to_be_bytes()[..], &head, payload].concat()
}

/// What an honest server says up to the first request. Nothing if that is left to the input.
fn negotiation(config: Config) -> Vec<u8> {
    const ACK: u32 = 1;
    const UNKNOWN: u32 = 0x8000_0001;
    let context = [&9_u32.to_be_bytes()[..], b"base:allocation"].concat();
    let chosen = [reply(10, 4, &context), reply(10, ACK, &[])].concat();
    let options = match config.style {
        Style::Negotiated => return Vec::new(),
        Style::Simple => [reply(11, UNKNOWN, &[]), reply(8, UNKNOWN, &[])].concat(),
        Style::Structured => [reply(11, UNKNOWN, &[]), reply(8, ACK, &[]), chosen].concat(),
        Style::Extended => [reply(11, ACK, &[]), chosen].concat(),
    };
    let flags: u16 = 1 | 4 | 8 | 32 | 64 | 128 | 2048;
    let export = [&[0, 0][..], &config.size.to_be_bytes(), &flags.to_be_bytes()].concat();
    [b"NBDMAGICIHAVEOPT\0\x03".to_vec(), options, reply(7, 3, &export), reply(7, ACK, &[])].concat()
}

/// Big-endian numbers, one after the other; `None` at the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self, len: usize) -> Option<u64> {
        let bytes = self.bytes(len)?;
        Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }
}

/// Everything that a server sent for one request.
#[derive(Debug)]
enum Sent<'a> {
    /// Data without an offset: it begins where the request does. It may be longer than the request.
    Plain(&'a [u8]),
    /// Where something belongs, and what.
    Chunks(Vec<(u64, Part<'a>)>),
}

#[derive(Clone, Copy, Debug)]
enum Part<'a> {
    Data(&'a [u8]),
    Hole(usize),
}

impl Sent<'_> {
    /// A read of these bytes at this offset may have been answered by this.
    fn proves(&self, offset: u64, got: &[u8]) -> bool {
        let chunks = match self {
            Sent::Plain(data) => return data.starts_with(got),
            Sent::Chunks(chunks) => chunks,
        };
        let mut whole: Vec<Option<u8>> = vec![None; got.len()];
        for (at, part) in chunks {
            let at = at.checked_sub(offset).and_then(|at| usize::try_from(at).ok());
            let Some(places) = at.and_then(|at| whole.get_mut(at..)) else { continue };
            match part {
                Part::Data(data) => {
                    places.iter_mut().zip(*data).for_each(|(place, byte)| *place = Some(*byte));
                }
                Part::Hole(len) => places.iter_mut().take(*len).for_each(|place| *place = Some(0)),
            }
        }
        whole.iter().zip(got).all(|(sent, got)| *sent == Some(*got))
    }
}

/// The replies of a server, which begin with the first byte.
fn what_was_sent(words: &[u8], style: Style) -> Vec<Sent<'_>> {
    if style == Style::Simple {
        // Their lengths are not known here: each may begin anywhere and go on to the end.
        let heads = words.windows(4).enumerate().filter(|(_, bytes)| *bytes == 0x6744_6698_u32.to_be_bytes());
        return heads.filter_map(|(at, _)| words.get(at + 16..).map(Sent::Plain)).collect();
    }
    let mut chunks: BTreeMap<u64, Vec<(u64, Part<'_>)>> = BTreeMap::new();
    let mut over = BTreeSet::new();
    let mut reader = Reader(words);
    while let Some(sent) = next_chunk(&mut reader) {
        // What comes for a request after its last chunk is for none.
        if let Some(placed) = sent.placed.filter(|_| !over.contains(&sent.cookie)) {
            chunks.entry(sent.cookie).or_default().push(placed);
        }
        if sent.done {
            over.insert(sent.cookie);
        }
    }
    chunks.into_values().map(Sent::Chunks).collect()
}

/// A reply or a part of one.
struct Chunk<'a> {
    cookie: u64,
    done: bool,
    /// Where something belongs, and what.
    placed: Option<(u64, Part<'a>)>,
}

/// The next one. `None`: nothing that could be a reply follows.
fn next_chunk<'a>(reader: &mut Reader<'a>) -> Option<Chunk<'a>> {
    let extended = match reader.number(4)? {
        0x6744_6698 => {
            reader.bytes(4)?;
            return Some(Chunk { cookie: reader.number(8)?, done: true, placed: None });
        }
        0x668e_33ef => false,
        0x6e8a_278c => true,
        _ => return None,
    };
    let (flags, kind) = (reader.number(2)?, reader.number(2)?);
    let cookie = reader.number(8)?;
    if extended {
        reader.number(8)?;
    }
    let length = usize::try_from(reader.number(if extended { 8 } else { 4 })?).ok()?;
    let mut payload = Reader(reader.bytes(length)?);
    let placed = match (kind, payload.number(8)) {
        (1, Some(offset)) => Some((offset, Part::Data(payload.0))),
        (2, Some(offset)) => payload.number(4).map(|len| (offset, Part::Hole(len as usize))),
        _ => None,
    };
    Some(Chunk { cookie, done: flags & 1 != 0, placed })
}

/// Inputs that an honest server would be: what the client asks is found out by asking it, one answer after the other.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let whole = |byte: u8| {
        let config = Config::of(byte);
        let style = if config.style == Style::Negotiated { Style::Structured } else { config.style };
        let honest = honest(Config { style, ..config });
        let before = if config.style == style { Vec::new() } else { negotiation(Config { style, ..config }) };
        [&[byte][..], &before, &honest].concat()
    };
    vec![
        ("simple", whole(0)),
        ("structured", whole(1)),
        ("extended", whole(2)),
        ("negotiated", whole(3)),
        ("silent", whole(4 + 2)),
        ("portions", whole(8 + 1)),
        ("started", whole(16 + 1)),
        ("twice", whole(32)),
        ("big-simple", whole(64)),
        ("big-structured", whole(64 + 1)),
    ]
}

fn honest(config: Config) -> Vec<u8> {
    let config = Config { twice: false, ..config };
    // Started reads are not waited for, so their answers could not be told from none.
    let asked = Config { starts: false, portions: false, ..config };
    let mut words = Vec::new();
    for answered in 0..64 {
        let lines = Lines::new(asked, vec![[negotiation(config), words.clone()].concat()]);
        let reads = session(&lines, asked);
        let heard = lines.heard.lock().unwrap().take().unwrap().lock().unwrap().clone();
        let Some(request) = requests(&heard, config.style == Style::Extended).nth(answered) else {
            assert_eq!(reads.len(), reads_of(config.size).len(), "every read of an honest server succeeds");
            break;
        };
        words.extend(answer(config.style, &request));
    }
    words
}

struct Request {
    verb: u64,
    cookie: u64,
    offset: u64,
    length: u64,
}

/// The requests behind the negotiation, without the farewell.
fn requests(heard: &[u8], extended: bool) -> impl Iterator<Item = Request> {
    let mut reader = Reader(heard);
    reader.bytes(4);
    while reader.bytes(8) == Some(b"IHAVEOPT") {
        let option = reader.number(4);
        let length = reader.number(4).unwrap_or(0);
        reader.bytes(length as usize);
        if option == Some(7) {
            break;
        }
    }
    let next = move || {
        let verb = reader.number(8)? & 0xffff;
        let (cookie, offset) = (reader.number(8)?, reader.number(8)?);
        let length = reader.number(if extended { 8 } else { 4 })?;
        if verb == 1 {
            reader.bytes(length as usize)?;
        }
        (verb != 2).then_some(Request { verb, cookie, offset, length })
    };
    std::iter::from_fn(next)
}

fn answer(style: Style, request: &Request) -> Vec<u8> {
    let data: Vec<u8> = (request.offset..request.offset + request.length).map(|at| (at / 7) as u8).collect();
    let data = if request.verb == 0 { data } else { Vec::new() };
    let cookie = request.cookie.to_be_bytes();
    if style == Style::Simple {
        return [&0x6744_6698_u32.to_be_bytes()[..], &[0; 4], &cookie, &data].concat();
    }
    let part = |done: u16, kind: u16, payload: &[u8]| match style {
        Style::Extended => {
            let head =
                [&0x6e8a_278c_u32.to_be_bytes()[..], &done.to_be_bytes(), &kind.to_be_bytes(), &cookie];
            let length = (payload.len() as u64).to_be_bytes();
            [&head.concat()[..], &request.offset.to_be_bytes(), &length, payload].concat()
        }
        _ => {
            let head =
                [&0x668e_33ef_u32.to_be_bytes()[..], &done.to_be_bytes(), &kind.to_be_bytes(), &cookie];
            [&head.concat()[..], &(payload.len() as u32).to_be_bytes(), payload].concat()
        }
    };
    match request.verb {
        0 if request.length > 2000 => {
            let (hole, rest) = data.split_at(512);
            let at = request.offset + 512;
            let hole = [&request.offset.to_be_bytes()[..], &(hole.len() as u32).to_be_bytes()].concat();
            [part(0, 1, &[&at.to_be_bytes()[..], rest].concat()), part(1, 2, &hole)].concat()
        }
        0 => part(1, 1, &[&request.offset.to_be_bytes()[..], &data].concat()),
        7 => {
            let (first, rest) = (4096_u64, request.length - 4096);
            let mut payload = 9_u32.to_be_bytes().to_vec();
            if style == Style::Extended {
                payload.extend([0, 0, 0, 2]);
                payload.extend([first, 3, rest, 0].map(u64::to_be_bytes).concat());
                part(1, 6, &payload)
            } else {
                payload.extend([first as u32, 3, rest as u32, 0].map(u32::to_be_bytes).concat());
                part(1, 5, &payload)
            }
        }
        // Servers that cannot trim say so.
        4 => part(1, 0x8001, &[&95_u32.to_be_bytes()[..], &[0, 2], b"no"].concat()),
        _ => part(1, 0, &[]),
    }
}
