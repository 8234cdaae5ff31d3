//! Messages byte by byte, as captures and published descriptions have them: a file with the handle 0x0000560412345678,
//! `[ds] vm/vm.vmdk`.

use crate::net::nfc::Compression;
use crate::net::nfc::aio::Header;
use crate::net::nfc::aio::Kind;
use crate::net::nfc::blocks;
use crate::net::nfc::blocks::Query;
use crate::net::nfc::classic;
use crate::net::nfc::classic::Message;
use crate::net::nfc::ddb;
use crate::net::nfc::io::Io;
use crate::net::nfc::open;
use crate::net::nfc::open::OpenFile;
use crate::net::nfc::open::OpenSession;
use crate::net::nfc::open::Opened;
use crate::net::nfc::open::SocketOptions;

const HANDLE: u64 = 0x0000_5604_1234_5678;
const PATH: &str = "[ds] vm/vm.vmdk";

/// Bytes from hexadecimal text.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn made(make: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    make(&mut bytes);
    bytes
}

fn header(bytes: &[u8]) -> (Kind, u32) {
    let header = Header::parse(&bytes[..16]).unwrap();
    (header.kind, header.op)
}

#[test]
fn the_handshake_has_the_published_bytes() {
    for (message, front) in [
        (Message::Hello(classic::PLAIN_TEXT), "2b 00 00 00 50 6c 61 69 6e 54 65 78 74 00 00 00"),
        (Message::Parameters, "21 00 00 00"),
        (
            Message::ParametersReply { versions: 1 },
            "24 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00",
        ),
        (Message::Version { number: 11, second: 0 }, "33 00 00 00 0b 00 00 00 00"),
        (Message::Names { client: 4, operation: 7 }, "36 00 00 00 04 00 00 00 07 00 00 00 00"),
        (Message::Features(classic::FEATURES), "37 00 00 00 03 00 00 00 00"),
        (Message::Frames, "34 00 00 00 00"),
        (Message::Complete, "04 00 00 00 00"),
    ] {
        let mut expected = hex(front);
        expected.resize(classic::LENGTH, 0);
        assert_eq!(message.encode().as_slice(), expected);
        assert_eq!(Message::parse(&expected).unwrap(), message);
    }
    let names = [classic::CLIENT, classic::OPERATION].concat();
    assert_eq!(names.as_bytes(), hex("76 64 64 6b  6e 62 64 6d 6f 64 65"));
}

#[test]
fn a_session_opens_with_the_published_bytes() {
    let request = hex(
        "7a da 00 a1 02 00 00 00 10 00 00 00 00 00 00 00  00 00 00 00 00 00 01 00 04 00 00 00 00 00 00 00",
    );
    let session = OpenSession { buffer: open::USUAL_BUFFER, count: open::USUAL_BUFFERS };
    assert_eq!(made(|into| session.encode(0, into)), request);
    assert_eq!(OpenSession::parse(&request[16..]).unwrap(), session);
    let mut reply = hex("7a da 00 a1 02 00 00 00 10 00 00 00 00 00 00 00");
    reply.resize(32, 0);
    assert_eq!(made(|into| open::answer(Kind::OpenSession, 0, 16, 0, into)), reply);

    let mut request = hex("7a da 00 a1 09 00 00 00 0c 00 00 00 01 00 00 00");
    request.resize(28, 0);
    assert_eq!(made(|into| SocketOptions::default().encode(1, into)), request);
    let reply = hex("7a da 00 a1 09 00 00 00 0c 00 00 00 01 00 00 00  00 00 04 00 00 00 04 00 01 00 00 00");
    let options = SocketOptions { send: 262_144, receive: 262_144, flag: 1 };
    assert_eq!(made(|into| options.encode(1, into)), reply);
    assert_eq!(SocketOptions::parse(&reply[16..]).unwrap(), options);

    let pool = hex("7a da 00 a1 16 00 00 00 04 00 00 00 02 00 00 00  01 00 00 00");
    assert_eq!(made(|into| open::resource_pool(1, 2, into)), pool);
}

#[test]
fn a_file_opens_with_the_published_bytes() {
    let request = [
        hex("7a da 00 a1 04 00 00 00 3c 00 00 00 03 00 00 00  0f 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"),
        hex("02 00 00 00 1e 00 00 00"),
        vec![0; 36],
        hex("5b 64 73 5d 20 76 6d 2f 76 6d 2e 76 6d 64 6b"),
    ]
    .concat();
    assert_eq!(made(|into| OpenFile::encode(PATH, false, 3, into).unwrap()), request);
    let parsed = OpenFile::parse(&request[16..76]).unwrap();
    assert!(!parsed.writes() && parsed.path as usize == PATH.len());

    let reply = hex("7a da 00 a1 04 00 00 00 3c 00 00 00 03 00 00 00  00 00 00 00 00 00 00 00 78 56 34 12 04 56 00 00
                     02 00 00 00 1e 00 00 00 00 00 00 00 00 00 00 00  04 00 00 00 00 02 00 00 28 08 00 00 ff 00 00 00
                     3f 00 00 00 00 00 00 00 00 00 00 00");
    let opened = Opened {
        status: 0,
        handle: HANDLE,
        file_type: open::DISK,
        flags: open::READ_ONLY,
        capacity: 17_179_869_184,
        sector_size: 512,
        geometry: (2088, 255, 63),
    };
    assert_eq!(Opened::parse(&reply[16..]).unwrap(), opened);
    assert_eq!(made(|into| opened.encode(3, into)), reply);
}

#[test]
fn a_value_is_asked_for_with_the_published_bytes() {
    let request = hex(
        "7a da 00 a1 0b 00 00 00 10 00 00 00 04 00 00 00  78 56 34 12 04 56 00 00 0b 00 00 00 00 00 00 00
                       61 64 61 70 74 65 72 54 79 70 65",
    );
    assert_eq!(made(|into| ddb::Get::encode(HANDLE, "adapterType", 4, into).unwrap()), request);
    assert_eq!(ddb::Get::parse(&request[16..32]).unwrap(), ddb::Get { handle: HANDLE, key: 11 });
    let reply = hex(
        "7a da 00 a1 0b 00 00 00 10 00 00 00 04 00 00 00  00 00 00 00 00 00 00 00 00 00 00 00 08 00 00 00
                     6c 73 69 6c 6f 67 69 63",
    );
    assert_eq!(made(|into| ddb::answer("lsilogic", 4, into)), reply);
    assert_eq!(ddb::value_length(&reply[16..32]).unwrap(), 8);
}

#[test]
fn a_read_of_129_sectors_has_the_published_bytes() {
    let request = hex("7a da 00 a1 07 00 00 00 2c 00 00 00 12 00 00 00
                       78 56 34 12 04 56 00 00 01 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00 00 02 01 00 00 00 00 00
                       00 02 01 00 00 02 01 00 00 00 00 00");
    let read = Io::read(HANDLE, Compression::None, 0, 129 * 512);
    assert_eq!(read.encode(18).as_slice(), request);
    assert_eq!(Io::parse(&request[16..]).unwrap(), read);
    let first = hex("7a da 00 a1 07 00 00 00 2c 00 00 00 12 00 00 00
                     00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00 00 02 01 00 00 00 00 00
                     00 00 01 00 00 00 01 00 00 00 00 00");
    assert_eq!(read.fragment(0, 65536).encode(18).as_slice(), first);
    let second = hex("00 02 01 00 00 00 01 00 00 02 00 00 00 02 00 00 00 00 00 00");
    assert_eq!(read.fragment(65536, 512).encode(18)[40..], second);
}

#[test]
fn a_packed_read_has_the_published_bytes() {
    let request = hex("7a da 00 a1 07 00 00 00 2c 00 00 00 13 00 00 00
                       78 56 34 12 04 56 00 00 01 00 00 00 02 00 00 00  00 10 00 00 00 00 00 00 00 02 00 00 00 00 00 00
                       00 02 00 00 00 02 00 00 00 00 00 00");
    let read = Io::read(HANDLE, Compression::Fastlz, 8 * 512, 512);
    assert_eq!(read.encode(19).as_slice(), request);
    let reply = hex("7a da 00 a1 07 00 00 00 2c 00 00 00 13 00 00 00
                     00 00 00 00 00 00 00 00 01 00 00 00 02 00 00 00  00 10 00 00 00 00 00 00
                     00 02 00 00 00 00 00 00 00 02 00 00 0f 00 00 00 00 00 00 00");
    let fragment = read.fragment(0, 512).packed(Compression::Fastlz, 15);
    assert_eq!(fragment.encode(19).as_slice(), reply);
    assert_eq!(Io::parse(&reply[16..]).unwrap(), fragment);
}

#[test]
fn a_write_has_the_published_bytes() {
    let request = hex("7a da 00 a1 07 00 00 00 2c 00 00 00 14 00 00 00
                       78 56 34 12 04 56 00 00 00 00 00 00 00 00 00 00  00 00 10 00 00 00 00 00 00 02 00 00 00 00 00 00
                       00 02 00 00 00 02 00 00 00 00 00 00");
    let write = Io::write(HANDLE, 2048 * 512, 512, 0, 512);
    assert_eq!(write.encode(20).as_slice(), request);
    let reply = hex("7a da 00 a1 07 00 00 00 2c 00 00 00 14 00 00 00
                     00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  00 00 10 00 00 00 00 00
                     00 02 00 00 00 00 00 00 00 02 00 00 00 02 00 00 00 00 00 00");
    assert_eq!(write.answer(0).encode(20).as_slice(), reply);
}

#[test]
fn a_map_of_blocks_has_the_published_bytes() {
    let request = hex("7a da 00 a1 0d 00 00 00 30 00 00 00 15 00 00 00
                       78 56 34 12 04 56 00 00 00 00 00 00 00 00 00 00  00 00 01 00 00 00 00 00 00 00 03 00 00 00 00 00
                       10 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00");
    let query = Query { handle: HANDLE, chunk: 65536, start: 384 * 512, chunks: 16 };
    assert_eq!(made(|into| query.encode(21, into)), request);
    assert_eq!(Query::parse(&request[16..]).unwrap(), query);
    let mut bitmap = vec![0; blocks::bitmap_length(16).unwrap()];
    blocks::mark(&mut bitmap, 0..4);
    blocks::mark(&mut bitmap, 8..10);
    assert_eq!(bitmap, hex("0f 03 00 00"));
    let reply = made(|into| query.answer(&bitmap, 21, into));
    assert_eq!(reply[48..56], hex("10 00 00 00 00 00 00 00"));
    let mut found = Vec::new();
    blocks::runs(&reply[64..], 16, |run| found.push((384 + run.start * 128, (run.end - run.start) * 128)));
    assert_eq!(found, [(384, 512), (1408, 256)]);
}

#[test]
fn a_session_closes_with_the_published_bytes() {
    let file = hex("7a da 00 a1 05 00 00 00 08 00 00 00 16 00 00 00  78 56 34 12 04 56 00 00");
    assert_eq!(made(|into| open::close_file(HANDLE, 22, into)), file);
    assert_eq!((header(&file), open::file_to_close(&file[16..]).unwrap()), ((Kind::CloseFile, 22), HANDLE));
    let session = hex("7a da 00 a1 03 00 00 00 04 00 00 00 17 00 00 00  00 00 00 00");
    assert_eq!(made(|into| open::close_session(23, into)), session);
}
