//! Negotiating with NBD servers whose every word is written down here: good ones of each age, and bad ones.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/src/peer.rs"]
mod peer;

use std::cell::Cell;
use std::time::Duration;
use std::time::Instant;

use peer::Scripted;
use peer::Then;
use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::net::nbd::BlockSizes;
use vixDiskLib::net::nbd::Export;
use vixDiskLib::net::nbd::Replies;
use vixDiskLib::net::nbd::handshake;
use vixDiskLib::net::nbd::handshake::Wants;
use vixDiskLib::net::stream::Stream;

const EXPORT_NAME: u32 = 1;
const ABORT: u32 = 2;
const LIST: u32 = 3;
const STARTTLS: u32 = 5;
const OPT_INFO: u32 = 6;
const GO: u32 = 7;
const STRUCTURED: u32 = 8;
const CONTEXT: u32 = 10;
const EXTENDED: u32 = 11;

const ACK: u32 = 1;
const SERVER: u32 = 2;
const INFO: u32 = 3;
const META: u32 = 4;
const UNSUP: u32 = 0x8000_0001;
const POLICY: u32 = 0x8000_0002;
const INVALID: u32 = 0x8000_0003;
const TLS_REQD: u32 = 0x8000_0005;
const UNKNOWN: u32 = 0x8000_0006;
const SHUTDOWN: u32 = 0x8000_0007;

const SIZE: u64 = 0x1234_5600;
const FLAGS: u16 = 0x0d;

/// The words of a server.
#[derive(Clone, Default)]
struct Words(Vec<u8>);

impl Words {
    fn newstyle(flags: u16) -> Self {
        Self([&b"NBDMAGICIHAVEOPT"[..], &flags.to_be_bytes()].concat())
    }

    fn fixed() -> Self {
        Self::newstyle(3)
    }

    fn then(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn reply(self, option: u32, kind: u32, payload: &[u8]) -> Self {
        self.head(option, kind, payload.len().try_into().unwrap()).then(payload)
    }

    fn head(self, option: u32, kind: u32, length: u32) -> Self {
        self.then(&0x0003_e889_0455_65a9u64.to_be_bytes())
            .then(&option.to_be_bytes())
            .then(&kind.to_be_bytes())
            .then(&length.to_be_bytes())
    }

    fn ack(self, option: u32) -> Self {
        self.reply(option, ACK, &[])
    }

    fn refuse(self, option: u32, kind: u32) -> Self {
        self.reply(option, kind, b"not\x07 today")
    }

    fn export(self, size: u64, flags: u16) -> Self {
        self.export_told(GO, size, flags)
    }

    fn export_told(self, option: u32, size: u64, flags: u16) -> Self {
        self.reply(option, INFO, &[&[0, 0][..], &size.to_be_bytes(), &flags.to_be_bytes()].concat())
    }

    fn blocks(self, minimum: u32, preferred: u32, maximum: u32) -> Self {
        let sizes = [minimum, preferred, maximum].map(u32::to_be_bytes).concat();
        self.reply(GO, INFO, &[&[0, 3][..], &sizes].concat())
    }

    fn context(self, id: u32, name: &str) -> Self {
        self.reply(CONTEXT, META, &[&id.to_be_bytes(), name.as_bytes()].concat())
    }

    fn listed(self, name: &str) -> Self {
        let length = u32::try_from(name.len()).unwrap();
        self.reply(LIST, SERVER, &[&length.to_be_bytes(), name.as_bytes(), b"words about it"].concat())
    }

    /// A current server that has everything.
    fn all() -> Self {
        Self::fixed()
            .ack(EXTENDED)
            .context(7, "base:allocation")
            .ack(CONTEXT)
            .blocks(512, 4096, 1 << 20)
            .reply(GO, INFO, b"\0\x02a description")
            .export(SIZE, FLAGS)
            .ack(GO)
    }

    /// A server that refuses everything up to `GO`.
    fn simple() -> Self {
        Self::fixed().refuse(EXTENDED, UNSUP).refuse(STRUCTURED, UNSUP)
    }
}

/// What came of it, and what the server heard.
struct Talked {
    result: Result<Export>,
    heard: Vec<u8>,
}

impl Talked {
    #[track_caller]
    fn export(self) -> Export {
        self.result.unwrap()
    }

    #[track_caller]
    fn error(self) -> Error {
        self.result.unwrap_err()
    }

    /// The options that were sent and their payloads.
    fn options(&self) -> Vec<(u32, Vec<u8>)> {
        let mut rest = self.heard.get(4..).unwrap_or_default();
        let mut options = Vec::new();
        while !rest.is_empty() {
            assert_eq!(&rest[..8], b"IHAVEOPT");
            let number = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().unwrap());
            let end = 16 + usize::try_from(number(12)).unwrap();
            options.push((number(8), rest[16..end].to_vec()));
            rest = &rest[end..];
        }
        options
    }

    fn numbers(&self) -> Vec<u32> {
        self.options().into_iter().map(|(number, _)| number).collect()
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn talk_as(words: &Words, wants: &Wants, then: Then, portion: usize) -> Talked {
    let stream = Scripted::new(&words.0, then).in_portions(portion);
    let heard = stream.heard();
    let result = handshake::negotiate(Box::new(stream), wants, None, soon());
    let heard = heard.lock().unwrap().clone();
    Talked { result: result.map(|(_, export)| export), heard }
}

fn talk(words: &Words) -> Talked {
    talk_as(words, &Wants::all_of("disk"), Then::Close, usize::MAX)
}

#[test]
fn a_current_server_gives_everything() {
    let talked = talk(&Words::all());
    assert_eq!(talked.heard[..4], [0, 0, 0, 3]);
    let go = b"\0\0\0\x04disk\0\x01\0\x03".to_vec();
    let context = b"\0\0\0\x04disk\0\0\0\x01\0\0\0\x0fbase:allocation".to_vec();
    assert_eq!(talked.options(), [(EXTENDED, vec![]), (CONTEXT, context), (GO, go)]);
    let blocks = BlockSizes { minimum: 512, preferred: 4096, maximum: 1 << 20 };
    let export = talked.export();
    assert_eq!((export.size, export.flags, export.blocks), (SIZE, FLAGS, blocks));
    assert_eq!((export.replies, export.allocation), (Replies::Extended, Some(7)));
}

#[test]
fn each_refusal_takes_away_one_thing() {
    let structured = Words::fixed()
        .refuse(EXTENDED, UNSUP)
        .ack(STRUCTURED)
        .refuse(CONTEXT, INVALID)
        .export(SIZE, FLAGS)
        .ack(GO);
    let talked = talk(&structured);
    assert_eq!(talked.numbers(), [EXTENDED, STRUCTURED, CONTEXT, GO]);
    let export = talked.export();
    assert_eq!((export.replies, export.allocation), (Replies::Structured, None));
    assert_eq!(export.blocks, BlockSizes { minimum: 1, preferred: 4096, maximum: 32 << 20 });

    let none = Words::fixed().ack(EXTENDED).ack(CONTEXT).export(SIZE, FLAGS).ack(GO);
    assert_eq!(talk(&none).export().allocation, None);

    let talked = talk(&Words::simple().export(SIZE, FLAGS).ack(GO));
    assert_eq!(talked.numbers(), [EXTENDED, STRUCTURED, GO]);
    assert_eq!(talked.export().replies, Replies::Simple);
}

#[test]
fn what_is_not_wanted_is_not_asked_for() {
    let wants = Wants { export: String::new(), structured: true, extended: false, allocation: false };
    let words = Words::fixed().ack(STRUCTURED).export(SIZE, FLAGS).ack(GO);
    let talked = talk_as(&words, &wants, Then::Close, usize::MAX);
    assert_eq!(talked.numbers(), [STRUCTURED, GO]);
    assert_eq!(talked.export().replies, Replies::Structured);
}

#[test]
fn servers_without_go_are_asked_by_name() {
    let answer = [&SIZE.to_be_bytes()[..], &FLAGS.to_be_bytes()].concat();
    let fixed = Words::simple().refuse(GO, UNSUP).listed("other").listed("disk").ack(LIST).then(&answer);
    let talked = talk(&fixed);
    assert_eq!(talked.options().last(), Some(&(EXPORT_NAME, b"disk".to_vec())));
    assert_eq!(talked.export().size, SIZE);

    let secretive = Words::simple().refuse(GO, UNSUP).refuse(LIST, POLICY).then(&answer);
    assert_eq!(talk(&secretive).export().size, SIZE);

    let padded = Words::newstyle(1)
        .refuse(EXTENDED, UNSUP)
        .ack(STRUCTURED)
        .context(1, "base:allocation")
        .ack(CONTEXT)
        .refuse(GO, UNSUP)
        .listed("disk")
        .ack(LIST)
        .then(&answer)
        .then(&[0; 124]);
    let export = talk(&padded).export();
    assert_eq!((export.replies, export.allocation), (Replies::Structured, Some(1)));
    let short = Words(padded.0[..padded.0.len() - 1].to_vec());
    assert_eq!(talk(&short).error().kind(), ErrorKind::ConnectionLost);
}

#[test]
fn servers_without_options_or_negotiation_still_work() {
    let answer = [&SIZE.to_be_bytes()[..], &FLAGS.to_be_bytes(), &[0; 124]].concat();
    let talked = talk(&Words::newstyle(0).then(&answer));
    assert_eq!(talked.options(), [(EXPORT_NAME, b"disk".to_vec())]);
    assert_eq!(talked.heard[..4], [0; 4]);
    assert_eq!(talked.export().replies, Replies::Simple);

    let old = Words(b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53".to_vec())
        .then(&SIZE.to_be_bytes())
        .then(&[0, 0, 0, 3])
        .then(&[0; 124]);
    let talked = talk_as(&old, &Wants::all_of(""), Then::Close, usize::MAX);
    assert!(talked.heard.is_empty());
    let export = talked.export();
    assert_eq!((export.size, export.flags), (SIZE, 3));
    assert_eq!(talk(&old).error().kind(), ErrorKind::NotFound, "an oldstyle server has no names");
}

#[test]
fn an_unknown_name_is_answered_with_the_known_ones() {
    let words = Words::simple().refuse(GO, UNKNOWN).listed("a").listed("b\n").ack(LIST);
    let talked = talk(&words);
    assert_eq!(talked.numbers(), [EXTENDED, STRUCTURED, GO, LIST, OPT_INFO, ABORT]);
    let error = talked.error();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    for part in ["\"disk\"", "a scripted peer", "exports \"a\", \"b?\"", "\"not? today\""] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    let silent = Words::simple().refuse(GO, UNKNOWN);
    assert_eq!(talk(&silent).error().kind(), ErrorKind::NotFound);
    let older = Words::simple().refuse(GO, UNSUP).listed("other").ack(LIST);
    let error = talk(&older).error();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("export \"other\""), "{error}");
}

#[test]
fn known_exports_are_told_with_what_they_are() {
    let words = Words::simple()
        .refuse(GO, UNKNOWN)
        .listed("a")
        .listed("secret")
        .listed("odd")
        .listed("z")
        .ack(LIST)
        .reply(OPT_INFO, INFO, b"\0\x02a description")
        .export_told(OPT_INFO, 1 << 30, 3)
        .ack(OPT_INFO)
        .refuse(OPT_INFO, POLICY)
        .export_told(OPT_INFO, 512, 2) // without the flag that gives the others a meaning
        .ack(OPT_INFO);
    let whole = words.clone().export_told(OPT_INFO, 7, 1).ack(OPT_INFO);
    let talked = talk(&whole);
    let named =
        |name: &str| [&(name.len() as u32).to_be_bytes()[..], name.as_bytes(), &[0, 1, 0, 3]].concat();
    let asked: Vec<_> = talked.options().into_iter().filter(|(option, _)| *option == OPT_INFO).collect();
    assert_eq!(asked, ["a", "secret", "odd", "z"].map(|name| (OPT_INFO, named(name))));
    assert_eq!(talked.numbers().last(), Some(&ABORT));
    let error = talked.error();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let told =
        "\"a\" (1073741824 bytes, read-only), \"secret\", \"odd\" (512 bytes, read-only), \"z\" (7 bytes)";
    assert!(error.to_string().contains(told), "{error}");
    // What goes wrong meanwhile costs the rest, not the names.
    for broken in [words.clone(), words.clone().refuse(OPT_INFO, UNSUP), words.reply(OPT_INFO, INFO, &[0])] {
        let error = talk(&broken).error();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("read-only), \"z\""), "{error}");
    }
    // A server that lists without end is asked about few of them.
    let mut many =
        (0..100).fold(Words::simple().refuse(GO, UNKNOWN), |words, i| words.listed(&i.to_string()));
    many = (0..100).fold(many.ack(LIST), |words, _| words.export_told(OPT_INFO, 5, 1).ack(OPT_INFO));
    let talked = talk(&many);
    assert_eq!(talked.numbers().iter().filter(|option| **option == OPT_INFO).count(), 20);
}

#[test]
fn refusals_have_kinds() {
    for (code, kind) in [
        (POLICY, ErrorKind::AccessDenied),
        (INVALID, ErrorKind::Protocol),
        (0x8000_0004, ErrorKind::Protocol),
        (TLS_REQD, ErrorKind::Protocol),
        (SHUTDOWN, ErrorKind::ConnectionLost),
        (0x8000_0008, ErrorKind::Protocol),
        (0x8000_0009, ErrorKind::Protocol),
        (0x8000_000a, ErrorKind::Protocol),
        (0xffff_ffff, ErrorKind::Protocol),
    ] {
        let error = talk(&Words::simple().refuse(GO, code)).error();
        assert_eq!(error.kind(), kind, "{code:#x}: {error}");
        assert!(error.to_string().contains("not? today"), "{error}");
    }
    // What every option would be refused for ends it at the first.
    let talked = talk(&Words::fixed().refuse(EXTENDED, TLS_REQD));
    assert_eq!(talked.numbers(), [EXTENDED]);
    assert!(talked.error().to_string().contains("nbdssl"));
}

/// What must be refused as a fault of the peer.
#[test]
fn lies_are_protocol_errors() {
    let go = Words::simple;
    let chunked = || Words::fixed().ack(EXTENDED);
    let long = vec![b'x'; 20_000];
    for (what, words) in [
        ("a web server", Words(b"HTTP/1.1 400 Bad Request\r\n".to_vec())),
        ("an ESXi host", Words(b"220 VMware Authentication Daemon Version 1.10".to_vec())),
        ("TLS", Words(vec![0x15, 3, 3, 0, 2, 2, 10, 0])),
        ("a wrong style", Words(b"NBDMAGICIHAVEOPS".to_vec())),
        ("a wrong reply magic", Words::fixed().then(&[0; 20])),
        ("a reply to another option", Words::fixed().ack(GO)),
        ("an unknown reply", Words::fixed().reply(EXTENDED, 9, &[])),
        ("an ACK with a payload", Words::fixed().reply(EXTENDED, ACK, b"x")),
        ("INFO out of place", Words::fixed().reply(EXTENDED, INFO, &[0; 12])),
        ("a length of 2^32-1", Words::fixed().head(EXTENDED, UNSUP, u32::MAX)),
        ("a long text", Words::fixed().reply(EXTENDED, UNSUP, &long)),
        ("an unasked context", chunked().context(1, "qemu:dirty-bitmap:x").ack(CONTEXT)),
        (
            "a context twice",
            chunked().context(1, "base:allocation").context(2, "base:allocation").ack(CONTEXT),
        ),
        ("a context cut short", chunked().reply(CONTEXT, META, &[0; 3])),
        ("no size", go().ack(GO)),
        ("a size cut short", go().reply(GO, INFO, &[0; 11]).ack(GO)),
        ("a size with more", go().reply(GO, INFO, &[0; 13]).ack(GO)),
        ("empty information", go().reply(GO, INFO, &[]).ack(GO)),
        ("a size of 2^64-1", go().export(u64::MAX, FLAGS).ack(GO)),
        ("a size of 2^63", go().export(1 << 63, FLAGS).ack(GO)),
        ("a smallest block of 0", go().blocks(0, 4096, 4096).export(SIZE, FLAGS).ack(GO)),
        ("a smallest block of 513", go().blocks(513, 4096, 4096).export(SIZE, FLAGS).ack(GO)),
        ("a smallest block of 128 KiB", go().blocks(1 << 17, 1 << 17, 1 << 20).export(SIZE, FLAGS).ack(GO)),
        ("a largest below the smallest", go().blocks(4096, 4096, 4095).export(SIZE, FLAGS).ack(GO)),
        ("extended headers without GO", chunked().ack(CONTEXT).refuse(GO, UNSUP)),
        ("a list entry that is too long", go().refuse(GO, UNSUP).reply(LIST, SERVER, &[0, 0, 0, 1])),
    ] {
        let error = talk(&words).error();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{what}: {error}");
        assert!(error.to_string().len() < 1000, "{what}: {error}");
    }
}

#[test]
fn sizes_that_contradict_each_other_are_brought_into_line() {
    for (said, meant) in [
        ((1, 1, u32::MAX), (1, 1, u32::MAX)),
        ((512, 4096, u32::MAX), (512, 4096, u32::MAX - 511)),
        ((4096, 512, 65536), (4096, 4096, 65536)),
        ((512, 3000, 65536), (512, 2048, 65536)),
        ((512, 1 << 20, 65000), (512, 32768, 64512)),
    ] {
        let export =
            talk(&Words::simple().blocks(said.0, said.1, said.2).export(SIZE, FLAGS).ack(GO)).export();
        let blocks = BlockSizes { minimum: meant.0, preferred: meant.1, maximum: meant.2 };
        assert_eq!(export.blocks, blocks, "{said:?}");
    }
}

#[test]
fn flags_count_only_when_the_first_one_is_set() {
    for (said, meant) in [(0xfffe, 2), (0xfffc, 0), (0, 0), (0xffff, 0xffff)] {
        assert_eq!(talk(&Words::simple().export(SIZE, said).ack(GO)).export().flags, meant);
    }
}

#[test]
fn endless_replies_end() {
    let mut informed = Words::simple();
    let mut listed = Words::simple().refuse(GO, UNKNOWN);
    for _ in 0..20_000 {
        informed = informed.reply(GO, INFO, b"\0\x02x");
        listed = listed.listed("again");
    }
    assert_eq!(talk(&informed).error().kind(), ErrorKind::Protocol);
    let error = talk(&listed).error();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().len() < 1000, "{error}");
}

/// The end of the stream, and silence, at every byte of every kind of server.
#[test]
fn every_end_is_an_error_in_time() {
    let answer = [&SIZE.to_be_bytes()[..], &FLAGS.to_be_bytes()].concat();
    let named = Words::simple().refuse(GO, UNSUP).listed("disk").ack(LIST).then(&answer);
    for words in [Words::all(), named] {
        for cut in 0..words.0.len() {
            let words = Words(words.0[..cut].to_vec());
            for (then, kind) in
                [(Then::Close, ErrorKind::ConnectionLost), (Then::Silence, ErrorKind::TimedOut)]
            {
                let error = talk_as(&words, &Wants::all_of("disk"), then, usize::MAX).error();
                assert_eq!(error.kind(), kind, "cut at {cut}: {error}");
            }
        }
        let whole = talk_as(&words, &Wants::all_of("disk"), Then::Silence, 1);
        assert_eq!(whole.export().size, SIZE, "one byte at a time");
    }
}

#[test]
fn time_that_is_up_ends_a_talkative_server() {
    let stream = Scripted::new(&Words::all().0, Then::Close).in_portions(1);
    let result = handshake::negotiate(Box::new(stream), &Wants::all_of("disk"), None, Instant::now());
    assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn impossible_names_are_never_sent() {
    for name in ["a\0b".to_owned(), "x".repeat(4097)] {
        let talked = talk_as(&Words::all(), &Wants::all_of(name), Then::Close, usize::MAX);
        assert!(talked.heard.is_empty());
        assert_eq!(talked.error().kind(), ErrorKind::InvalidArgument);
    }
}

/// Negotiates with TLS wanted: `inside` is what the server says after it.
fn talk_tls(outside: &Words, inside: &Words) -> (Talked, Vec<u8>, bool) {
    let stream = Scripted::new(&outside.0, Then::Close);
    let plain = stream.heard();
    let secret = Scripted::new(&inside.0, Then::Close);
    let heard = secret.heard();
    let secret = Cell::new(Some(secret));
    let upgrade = |_: Box<dyn Stream>| Ok(Box::new(secret.take().unwrap()) as Box<dyn Stream>);
    let result = handshake::negotiate(Box::new(stream), &Wants::all_of("disk"), Some(&upgrade), soon());
    let upgraded = secret.take().is_none();
    let plain = plain.lock().unwrap().clone();
    let heard = [&[0; 4][..], &heard.lock().unwrap()].concat();
    (Talked { result: result.map(|(_, export)| export), heard }, plain, upgraded)
}

#[test]
fn everything_but_the_greeting_goes_over_tls() {
    let inside = Words(Words::all().0.split_off(18));
    let (talked, plain, upgraded) = talk_tls(&Words::fixed().ack(STARTTLS), &inside);
    assert!(upgraded);
    assert_eq!(plain, b"\0\0\0\x03IHAVEOPT\0\0\0\x05\0\0\0\0");
    assert_eq!(talked.numbers(), [EXTENDED, CONTEXT, GO]);
    assert_eq!(talked.export().size, SIZE);
}

/// What stands before the answer to `STARTTLS` is refused, what stands after it is left to TLS, which cannot read it.
#[test]
fn tls_is_never_given_up() {
    let rest = Words::all().0.split_off(18);
    let old = [&b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53"[..], &[0; 136]].concat();
    for (what, outside) in [
        ("not known", Words::fixed().refuse(STARTTLS, UNSUP).then(&rest)),
        ("forbidden", Words::fixed().refuse(STARTTLS, POLICY).then(&rest)),
        ("an ACK with a payload", Words::fixed().reply(STARTTLS, ACK, b"x").then(&rest)),
        ("injected answers", Words::fixed().then(&rest)),
        ("injected information", Words::fixed().export(SIZE, FLAGS).ack(STARTTLS)),
        ("not fixed", Words::newstyle(2).ack(STARTTLS)),
        ("oldstyle", Words(old)),
    ] {
        let (talked, plain, upgraded) = talk_tls(&outside, &Words::default());
        assert!(!upgraded, "{what}");
        assert!(plain.len() <= 4 + 2 * 16, "{what}: {} bytes in the clear", plain.len());
        let error = talked.error();
        let kind = if what == "forbidden" { ErrorKind::AccessDenied } else { ErrorKind::Protocol };
        assert_eq!(error.kind(), kind, "{what}: {error}");
    }
    let injected = Words::fixed().ack(STARTTLS).then(&rest);
    let (talked, _, upgraded) = talk_tls(&injected, &Words::default());
    assert!(upgraded);
    assert_eq!(talked.error().kind(), ErrorKind::ConnectionLost, "nothing of the injected answers counts");
}

#[test]
fn a_failed_upgrade_is_the_end() {
    let stream = Scripted::new(&Words::fixed().ack(STARTTLS).then(&Words::all().0).0, Then::Close);
    let plain = stream.heard();
    let refuse = |_: Box<dyn Stream>| Err(Error::new(ErrorKind::CertificateRefused, "a stranger"));
    let result = handshake::negotiate(Box::new(stream), &Wants::all_of("disk"), Some(&refuse), soon());
    assert_eq!(result.unwrap_err().kind(), ErrorKind::CertificateRefused);
    assert_eq!(plain.lock().unwrap().len(), 4 + 16);
}

#[test]
fn a_server_lists_its_exports() {
    let list = |words: &Words| handshake::list(Box::new(Scripted::new(&words.0, Then::Close)), None, soon());
    let words = Words::fixed().listed("").listed("disk").ack(LIST);
    assert_eq!(list(&words).unwrap(), ["", "disk"]);
    assert_eq!(list(&Words::fixed().refuse(LIST, POLICY)).unwrap_err().kind(), ErrorKind::NotSupported);
    assert_eq!(list(&Words::newstyle(0)).unwrap_err().kind(), ErrorKind::Protocol);
}
