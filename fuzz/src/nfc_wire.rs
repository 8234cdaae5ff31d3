//! Targets for the codec of NFC: lines of authd, frames as a client reads them, and packed fragments.
//!
//! What the library makes of the bytes is held against second readers in this file, which are slow and share no code with
//! it.

use vixDiskLib::net::nfc::Compression;
use vixDiskLib::net::nfc::aio::Header;
use vixDiskLib::net::nfc::aio::Kind;
use vixDiskLib::net::nfc::authd;
use vixDiskLib::net::nfc::authd::Command;
use vixDiskLib::net::nfc::authd::Reply;
use vixDiskLib::net::nfc::blocks;
use vixDiskLib::net::nfc::blocks::Query;
use vixDiskLib::net::nfc::classic;
use vixDiskLib::net::nfc::classic::Message;
use vixDiskLib::net::nfc::ddb;
use vixDiskLib::net::nfc::io::Direction;
use vixDiskLib::net::nfc::io::Fragments;
use vixDiskLib::net::nfc::io::Io;
use vixDiskLib::net::nfc::open;
use vixDiskLib::net::nfc::open::Opened;
use vixDiskLib::net::nfc::pack::Packer;
use vixDiskLib::net::nfc::pack::Unpacker;
use vixDiskLib::net::nfc::refusal::Heard;
use vixDiskLib::net::nfc::refusal::Refusal;

/// Lines, as both sides read them.
pub fn nfc_authd(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(length)) = authd::line_length(rest) {
        assert!((1..=authd::MOST_LINE).contains(&length) && rest[length - 1] == b'\n');
        let (line, behind) = rest.split_at(length);
        reply(line);
        command(line);
        rest = behind;
    }
}

fn reply(line: &[u8]) {
    let Ok(reply) = Reply::parse(line) else { return };
    let digits = std::str::from_utf8(&line[..3]).expect("digits");
    assert_eq!(Ok(reply.code), digits.parse());
    assert!(reply.text.chars().all(|c| !c.is_control()) && matches!(line[3], b' ' | b'\r' | b'\n'));
    assert_eq!(Reply::parse(&reply.encode()).expect("its own line"), reply);
    authd::Banner::of(&reply);
}

fn command(line: &[u8]) {
    let Ok(command) = Command::parse(line) else { return };
    match command.encode() {
        Ok(again) => assert!(Command::parse(&again).expect("its own line") == command),
        Err(_) => assert!(line.len() + 1 > authd::MOST_LINE, "a line that fits is sent"),
    }
}

/// The one read that the frames of [`nfc_frames`] may answer: its offset, and most bytes of a fragment.
const OFFSET: u64 = 1 << 20;
const BUFFER: u32 = 16 << 10;
const SECTORS: usize = 64;

/// What a server says after a read was asked for. The first byte chooses the packing that was asked for.
pub fn nfc_frames(data: &[u8]) {
    let Some((&first, mut rest)) = data.split_first() else { return };
    let wanted = Compression::ALL[usize::from(first % 4)];
    let request = Io::read(7, wanted, OFFSET, SECTORS as u32 * 512);
    let mut fragments = Fragments::of_read(&request, BUFFER);
    let mut came = [false; SECTORS];
    let mut unpacker = Unpacker::new();
    if first & 0x80 != 0 && rest.len() >= classic::LENGTH {
        let (message, behind) = rest.split_at(classic::LENGTH);
        handshake(message);
        rest = behind;
    }
    while let Some((header, payload, behind)) = frame(rest) {
        rest = behind;
        let more = match header.kind {
            Kind::Refusal => refusal(payload, rest),
            Kind::DdbGet => ddb::value_length(payload).ok().map(|length| length as usize),
            Kind::Blocks => Query::parse(payload).ok().and_then(|q| map(&q, payload, rest)),
            Kind::OpenFile => opened(payload),
            Kind::Io => match Io::parse(payload) {
                Ok(io) => read(&io, payload, wanted, &mut fragments, &mut came),
                Err(_) => {
                    let (direction, packing) = (number(payload, 8, 4), number(payload, 12, 4));
                    assert!(direction > 1 || packing > 3, "a structure that is refused without a reason");
                    None
                }
            },
            _ => Some(0),
        };
        let Some(more) = more.filter(|more| *more <= rest.len()) else { return };
        let (more, behind) = rest.split_at(more);
        if header.kind == Kind::Io
            && let Ok(io) = Io::parse(payload)
        {
            let mut plain = vec![0; io.length as usize];
            if io.direction == Direction::Read && unpacker.unpack(io.compression, more, &mut plain).is_err() {
                assert_ne!(io.compression, Compression::None, "raw data of the right length");
                return;
            }
        }
        rest = behind;
        assert_eq!(fragments.is_complete(), came.iter().all(|came| *came));
    }
}

/// A little-endian number of the message.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// The next frame, by the library and by hand.
fn frame(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let (head, behind) = bytes.split_at_checked(16)?;
    let header = Header::parse(head).ok()?;
    assert_eq!(head[..4], [0x7a, 0xda, 0x00, 0xa1]);
    assert_eq!(u64::from(header.kind.number()), number(head, 4, 4));
    assert_eq!((u64::from(header.size), u64::from(header.op)), (number(head, 8, 4), number(head, 12, 4)));
    assert!(header.size <= 4096 && header.encode() == head);
    let (payload, behind) = behind.split_at_checked(header.size as usize)?;
    Some((header, payload, behind))
}

fn handshake(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    assert_eq!(u64::from(message.number()), number(bytes, 0, 4));
    assert_eq!(Message::parse(&message.encode()).expect("its own bytes"), message);
}

fn refusal(payload: &[u8], rest: &[u8]) -> Option<usize> {
    let heard = Heard::parse(payload).ok()?;
    let follows = heard.follows as usize;
    assert!(follows <= 4096);
    let refusal = heard.with(rest.get(..follows)?);
    assert!(refusal.text.chars().all(|c| !c.is_control()));
    if payload.len() == 16 && number(payload, 8, 4) == 0 {
        assert_eq!((refusal.code, follows as u64), (number(payload, 0, 8), number(payload, 12, 4)));
    }
    let _ = refusal.error();
    Some(follows)
}

fn opened(payload: &[u8]) -> Option<usize> {
    let opened = Opened::parse(payload).ok()?;
    assert_eq!((opened.handle, opened.capacity), (number(payload, 8, 8), number(payload, 28, 8)));
    Some(0)
}

fn map(query: &Query, payload: &[u8], rest: &[u8]) -> Option<usize> {
    assert_eq!(query.chunks, number(payload, 32, 8));
    let length = blocks::bitmap_length(query.chunks).ok()?;
    let bitmap = rest.get(..length)?;
    let mut marked = vec![false; query.chunks as usize];
    blocks::runs(bitmap, query.chunks, |run| {
        assert!(run.start < run.end);
        marked[run.start as usize..run.end as usize].fill(true);
    });
    for (i, marked) in marked.iter().enumerate() {
        assert_eq!(*marked, bitmap[i / 8] >> (i % 8) & 1 == 1, "chunk {i}");
    }
    Some(length)
}

/// A fragment is taken exactly if it is one by hand. Its data follow; `None`: it was refused.
fn read(
    io: &Io,
    payload: &[u8],
    wanted: Compression,
    fragments: &mut Fragments,
    came: &mut [bool; SECTORS],
) -> Option<usize> {
    let field = |at: usize| number(payload, at, 4) as usize;
    let (at, length, wire, packing) = (field(28), field(32), field(36), field(12));
    let sectors = at / 512..at.saturating_add(length) / 512;
    let aligned = at.is_multiple_of(512) && length.is_multiple_of(512);
    let is_mine = field(8) == 1 && number(payload, 16, 8) == OFFSET && field(24) == SECTORS * 512;
    let fits = (1..=BUFFER as usize).contains(&length) && at + length <= SECTORS * 512 && aligned;
    let data = match packing {
        0 => wire == length,
        _ => packing == wanted.number() as usize && (1..=BUFFER as usize + 65536).contains(&wire),
    };
    let is_new = came.get(sectors.clone()).is_some_and(|sectors| !sectors.contains(&true));
    let taken = fragments.take(io);
    assert_eq!(taken.is_ok(), is_mine && fits && data && is_new, "{io:?}");
    let place = taken.ok()?;
    assert_eq!((place.start as usize, place.end as usize), (at, at + length));
    came[sectors].fill(true);
    Some(wire)
}

/// A packed fragment: the first byte says how, the next two how many bytes it should give.
pub fn nfc_packed(data: &[u8]) {
    let Some((&[how, low, high], packed)) = data.split_first_chunk::<3>() else { return };
    let compression = Compression::ALL[usize::from(how % 4)];
    let length = usize::from(u16::from_le_bytes([low, high])) * if how & 0x80 == 0 { 1 } else { 4 };
    let mut plain = vec![0xee; length];
    let done = Unpacker::new().unpack(compression, packed, &mut plain);
    match compression {
        Compression::None => assert_eq!(done.is_ok(), packed.len() == length),
        Compression::Zlib => {}
        Compression::Fastlz => same(done.is_ok().then_some(&plain[..]), slow_fastlz(packed, length)),
        Compression::Skipz => same(done.is_ok().then_some(&plain[..]), slow_skipz(packed, length)),
    }
    if done.is_ok() {
        round_trip(compression, &plain);
    }
    round_trip(compression, packed);
}

fn same(ours: Option<&[u8]>, theirs: Option<Vec<u8>>) {
    assert!(
        ours == theirs.as_deref(),
        "ours {:?}, theirs {:?}",
        ours.map(<[u8]>::len),
        theirs.map(|t| t.len())
    );
}

/// What is packed can be unpacked, also by the slow readers.
fn round_trip(compression: Compression, plain: &[u8]) {
    let mut packer = Packer::new(compression);
    let Some(packed) = packer.pack(plain) else { return };
    assert!(packed.len() < plain.len());
    let mut again = vec![0xee; plain.len()];
    Unpacker::new().unpack(compression, packed, &mut again).expect("what was packed");
    assert!(again == plain, "{compression:?}");
    let slow = match compression {
        Compression::Fastlz => slow_fastlz(packed, plain.len()),
        Compression::Skipz => slow_skipz(packed, plain.len()),
        _ => return,
    };
    same(Some(plain), slow);
}

/// FastLZ as its description has it, byte by byte.
fn slow_fastlz(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut out: Vec<u8> = Vec::new();
    let mut at = 1;
    let level = packed.first()? >> 5;
    if level > 1 {
        return None;
    }
    let mut control = usize::from(packed[0] & 31);
    loop {
        if control < 32 {
            out.extend(packed.get(at..at + control + 1)?);
            at += control + 1;
        } else {
            let mut next = || {
                at += 1;
                packed.get(at - 1).map(|byte| usize::from(*byte))
            };
            let (mut run, mut distance) = ((control >> 5) - 1, (control & 31) << 8);
            if run == 6 {
                let mut more = next()?;
                run += more;
                while level == 1 && more == 255 {
                    more = next()?;
                    run += more;
                }
            }
            let low = next()?;
            if level == 1 && low == 255 && distance == 31 << 8 {
                distance = next()? * 256 + next()? + 8191;
            } else {
                distance += low;
            }
            if out.len() + run + 3 > length {
                return None;
            }
            for _ in 0..run + 3 {
                out.push(*out.get(out.len().checked_sub(distance + 1)?)?);
            }
        }
        if out.len() > length {
            return None;
        }
        if at == packed.len() {
            return Some(out).filter(|out| out.len() == length);
        }
        control = usize::from(*packed.get(at)?);
        at += 1;
    }
}

/// The list of what is not zero, as its description has it.
fn slow_skipz(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let field = |at: usize| packed.get(at..at + 4).map(|bytes| number(bytes, 0, 4) as usize);
    if field(0)? != length || field(4)? != 0 {
        return None;
    }
    let mut out = vec![0; length];
    let (mut at, mut end) = (8, 0);
    while at < packed.len() {
        let (offset, run) = (field(at)?, field(at + 4)?);
        let data = packed.get(at + 8..at + 8 + run)?;
        if offset < end {
            return None;
        }
        out.get_mut(offset..offset + run)?.copy_from_slice(data);
        end = offset + run;
        at += 8 + run;
    }
    Some(out)
}

/// Conversations that went well.
pub fn seeds_authd() -> Vec<(&'static str, Vec<u8>)> {
    let banner = authd::Banner { tls: true, secure_data: true, sha256: true }.reply().encode();
    let replies = b"220 hello\r\n200 AA:BB\r\n200 Connect ha-nfcssl\r\n530 Login incorrect\r\n501 Invalid arguments\r\n200\n";
    let commands = [
        Command::Session("52cdebc5-b7ee-359a-1dec-76f0bc105ac5"),
        Command::Banner,
        Command::Thumbprint,
        Command::Proxy("vpxa-nfcssl"),
        Command::Other("USER root"),
    ];
    let commands = commands.iter().flat_map(|command| command.encode().expect("short").to_vec()).collect();
    vec![("banner", banner), ("replies", replies.to_vec()), ("commands", commands)]
}

/// Answers that went well, and one that did not.
pub fn seeds_frames() -> Vec<(&'static str, Vec<u8>)> {
    let mut whole = vec![0];
    let request = Io::read(7, Compression::None, OFFSET, SECTORS as u32 * 512);
    for at in [16_384, 0] {
        whole.extend(request.fragment(at, 16_384).encode(1));
        whole.extend((0..16_384_u32).map(|i| (i / 700) as u8));
    }
    let mut packed = vec![3];
    let mut packer = Packer::new(Compression::Skipz);
    for at in (0..32_768).step_by(8192) {
        let data = packer.pack(&[0; 8192]).expect("zeros").to_vec();
        let fragment = request.fragment(at, 8192).packed(Compression::Skipz, data.len() as u32);
        packed.extend(fragment.encode(1));
        packed.extend(data);
    }
    let mut others = vec![0x80];
    others.extend(Message::Version { number: 11, second: 1 }.encode());
    open::answer(Kind::OpenSession, 0, 16, 0, &mut others);
    open::SocketOptions { send: 1, receive: 2, flag: 3 }.encode(1, &mut others);
    let opened = Opened {
        status: 0,
        handle: 7,
        file_type: 2,
        flags: 30,
        capacity: 1 << 30,
        sector_size: 512,
        geometry: (1, 2, 3),
    };
    opened.encode(2, &mut others);
    ddb::answer("lsilogic", 3, &mut others);
    Query { handle: 7, chunk: 65536, start: 0, chunks: 40 }.answer(
        &[0x0f, 3, 0xff, 0, 0x80, 1, 2, 3],
        4,
        &mut others,
    );
    Refusal { code: 11, text: "permission check failed".to_owned() }.encode(5, &mut others);
    others.extend(request.answer(11).encode(5));
    vec![("reversed", whole), ("skipz", packed), ("others", others)]
}

/// Fragments in every packing.
pub fn seeds_packed() -> Vec<(&'static str, Vec<u8>)> {
    let text: Vec<u8> = b"abcdefgh".repeat(12).into_iter().chain([0; 400]).chain(*b"the end").collect();
    let long: Vec<u8> = (0..70_000_u32).map(|i| (i / 3000 * 7 + i % 5) as u8).collect();
    let of = |compression: Compression, plain: &[u8]| {
        let packed = Packer::new(compression).pack(plain).expect("it shrinks").to_vec();
        let (scale, flag) = if plain.len() < 65536 { (1, 0) } else { (4, 0x80) };
        let length = (plain.len() / scale) as u16;
        let mut input = vec![compression.number() as u8 | flag];
        input.extend(length.to_le_bytes());
        input.extend(packed);
        input
    };
    vec![
        ("zlib", of(Compression::Zlib, &text)),
        ("fastlz-1", of(Compression::Fastlz, &text)),
        ("fastlz-2", of(Compression::Fastlz, &long)),
        ("skipz", of(Compression::Skipz, &text)),
        ("raw", [&[0, 3, 0][..], b"abc"].concat()),
    ]
}
