//! streamOptimized files: golden images, hostile ones, streams written here with every oddity.
#![allow(clippy::unwrap_used, reason = "a test ends where its expectations do")]

mod packed;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use libdeflater::CompressionLvl;
use libdeflater::Compressor;
use packed::Rng;
use packed::content;
use packed::image;
use packed::memory;
use packed::patch;
use packed::pattern;
use packed::qemu_raw;
use packed::scan_agrees_with_map;
use packed::scanned;
use packed::sha256;
use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::format::Image;
use vixDiskLib::format::Mapping;
use vixDiskLib::format::Presence;
use vixDiskLib::format::stream::Stream;
use vixDiskLib::format::stream::StreamOptions;
use vixDiskLib::logging::Log;
use vixDiskLib::storage::Storage;

fn options(cache_bytes: usize) -> StreamOptions {
    StreamOptions { cache_bytes, log: Log::none(), name: "d.vmdk".into() }
}

fn open(bytes: Vec<u8>) -> Result<Stream> {
    Stream::open(memory(bytes), &options(4 << 20))
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(CompressionLvl::new(1).unwrap());
    let mut out = vec![0; compressor.zlib_compress_bound(plain.len())];
    let len = compressor.zlib_compress(plain, &mut out).unwrap();
    out.truncate(len);
    out
}

/// How a stream is written.
#[derive(Clone, Copy)]
struct Style {
    sectors: u64,
    grain: u64,
    footer: bool,
    redundant: bool,
    zero_grains: bool,
}

const PLAIN: Style = Style { sectors: 1024, grain: 128, footer: false, redundant: false, zero_grains: false };

/// A stream in the making: grains first, tables and directory behind them.
struct Writer {
    style: Style,
    file: Vec<u8>,
    tables: Vec<[u32; 512]>,
}

impl Writer {
    fn new(style: Style) -> Self {
        let tables = style.sectors.div_ceil(512 * style.grain) as usize;
        let mut file = vec![0; 8 * 512];
        patch(&mut file, 512, b"# Disk DescriptorFile\nversion=1\n");
        Self { style, file, tables: vec![[0; 512]; tables] }
    }

    fn pad(&mut self) {
        self.file.resize(self.file.len().next_multiple_of(512), 0);
    }

    fn entry(&mut self, number: u64, entry: u32) {
        self.tables[(number / 512) as usize][(number % 512) as usize] = entry;
    }

    /// A grain whose marker and data are given; its place in the file.
    fn packed(&mut self, number: u64, lba: u64, size: u32, data: &[u8]) -> usize {
        let at = self.file.len();
        self.entry(number, (at / 512) as u32);
        self.file.extend(lba.to_le_bytes());
        self.file.extend(size.to_le_bytes());
        self.file.extend(data);
        self.pad();
        at
    }

    fn grain(&mut self, number: u64, plain: &[u8]) -> usize {
        let data = zlib(plain);
        self.packed(number, number * self.style.grain, data.len() as u32, &data)
    }

    fn marker(&mut self, sectors: u64, kind: u32) {
        self.file.extend(sectors.to_le_bytes());
        self.file.extend(0u32.to_le_bytes());
        self.file.extend(kind.to_le_bytes());
        self.pad();
    }

    /// Tables that are not empty and a directory over them; the sector of the directory.
    fn directory(&mut self) -> u64 {
        let mut directory = Vec::new();
        for table in self.tables.clone() {
            if table.iter().all(|&entry| entry == 0) {
                directory.extend(0u32.to_le_bytes());
                continue;
            }
            self.marker(4, 1);
            directory.extend(((self.file.len() / 512) as u32).to_le_bytes());
            self.file.extend(table.iter().flat_map(|entry| entry.to_le_bytes()));
        }
        self.marker(directory.len().div_ceil(512) as u64, 2);
        let sector = self.file.len() as u64 / 512;
        self.file.extend(directory);
        self.pad();
        sector
    }

    fn header(&self, directory: u64, redundant: u64) -> Vec<u8> {
        let mut header = vec![0; 512];
        let style = self.style;
        patch(&mut header, 0, b"KDMV");
        patch(&mut header, 4, &3u32.to_le_bytes());
        let flags = 0x3_0001 | if style.redundant { 2 } else { 0 } | if style.zero_grains { 4u32 } else { 0 };
        patch(&mut header, 8, &flags.to_le_bytes());
        for (at, value) in [(12, style.sectors), (20, style.grain), (28, 1), (36, 1), (64, 8)] {
            patch(&mut header, at, &value.to_le_bytes());
        }
        patch(&mut header, 44, &512u32.to_le_bytes());
        patch(&mut header, 48, &redundant.to_le_bytes());
        patch(&mut header, 56, &directory.to_le_bytes());
        patch(&mut header, 73, &[0x0a, 0x20, 0x0d, 0x0a, 1, 0]);
        header
    }

    fn finish(mut self) -> Vec<u8> {
        let redundant = if self.style.redundant { self.directory() } else { 0 };
        let directory = self.directory();
        let real = self.header(directory, redundant);
        if self.style.footer {
            self.marker(1, 3);
            self.file.extend(&real);
            self.marker(0, 0);
            let first = self.header(u64::MAX, redundant);
            patch(&mut self.file, 0, &first);
        } else {
            patch(&mut self.file, 0, &real);
        }
        self.file
    }
}

/// A stream of one grain table with grains 0 to 7, all there.
fn eight_grains(style: Style) -> Vec<u8> {
    let mut writer = Writer::new(style);
    for number in 0..8 {
        writer.grain(number, &pattern(number, 65536));
    }
    writer.finish()
}

#[test]
fn the_golden_images_give_their_content() {
    let table = [
        (
            "ws-streamOptimized/streamOptimized.vmdk",
            "a3bcf05f07a1c06a3380eeca8571f0efb2b85afafa1e21662b8cad436d1f7727",
        ),
        (
            "stream-converter/streamOptimizedWithMarkers.vmdk",
            "92c0f8b4280377437056f57c51ef51a5f8aeb1462ac630ef0633febcbfc3db4e",
        ),
        (
            "qemu-64k/vmdk-streamoptimized.img",
            "de2f256064a0af797747c2b97505dc0b9f3df0de4f489eac731c23ae9ca9cc31",
        ),
        (
            "synthetic/stream/so-ooo-incompressible.vmdk",
            "376ecb513ee8fcbad674922267f08eb8d09e568a3dc30fd8966294da6d700aa2",
        ),
    ];
    for (name, expected) in table {
        let Some(bytes) = image(name) else { continue };
        for (cache, step) in [(4 << 20, 1 << 20), (4 << 20, 4096), (0, 65536), (1 << 18, 12_345), (0, 99_999)]
        {
            let stream = Stream::open(memory(bytes.clone()), &options(cache)).unwrap();
            assert_eq!(sha256(&[&stream], step), expected, "{name} by {step} bytes, cache {cache}");
            scan_agrees_with_map(&stream);
        }
        let (text, area) = open(bytes).unwrap().embedded_descriptor().unwrap().unwrap();
        assert!(String::from_utf8_lossy(&text).contains("streamOptimized"), "{name}");
        assert_eq!(text.len() as u64, area.end - area.start);
    }
}

#[test]
fn a_stream_cut_short_is_refused_for_its_missing_footer() {
    let Some(cut) = image("hostile/ttylinux-truncated-stream.vmdk") else { return };
    let error = open(cut).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADisk);
    assert!(error.to_string().contains("file ends without footer"), "{error}");
}

/// Every packed part of the image, read; the first error.
fn read_all(stream: &Stream) -> Result<()> {
    let mut buf = vec![0; stream.capacity() as usize];
    packed::read(&[stream], 0, &mut buf)
}

#[test]
fn hostile_grains_are_errors() {
    for name in ["so-bomb", "so-size-huge", "so-short-grain"] {
        let Some(hostile) = image(&format!("hostile/{name}.vmdk")) else { continue };
        let stream = open(hostile).unwrap();
        let error = read_all(&stream).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
        let mut byte = [0];
        let first = scanned(&stream, 0..stream.capacity());
        let (part, _) = first.iter().find(|(_, presence)| *presence == Presence::Data).unwrap();
        assert_eq!(stream.read_packed(part.start + 5, &mut byte).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(stream.prefetch(part.start, 1).unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(!stream.try_read_packed(part.start + 5, &mut byte).unwrap());
    }
}

#[test]
fn other_hostile_files_are_refused() {
    for name in
        ["afl9", "capacity-2e62", "grainsize-zero", "gtes-huge", "newline-mangled", "unknown-incompat-flag"]
    {
        let Some(hostile) = image(&format!("hostile/{name}.vmdk")) else { continue };
        open(hostile).map(drop).unwrap_err();
    }
    // The file has the magic, but everything behind the header is shifted by a byte, and it ends inside its metadata.
    let Some(invalid) = image("hostile/vmdk-invalid.img") else { return };
    assert_eq!(open(invalid).unwrap_err().kind(), ErrorKind::NotADisk);
}

#[test]
fn random_streams_give_what_was_put_in() {
    let mut rng = Rng(7);
    for round in 0..60u64 {
        let grain = [128, 8, 16, 128, 256, 2048][(round % 6) as usize];
        let style = Style {
            sectors: 1 + rng.below(if grain > 128 { 4 * grain } else { 700 * grain.min(16) }),
            grain,
            footer: rng.below(2) == 0,
            redundant: rng.below(3) == 0,
            zero_grains: rng.below(2) == 0,
        };
        let bytes = grain as usize * 512;
        let numbers = style.sectors.div_ceil(grain);
        let mut expected = vec![0; style.sectors as usize * 512];
        let mut order: Vec<u64> = (0..numbers).filter(|_| rng.below(3) > 0).collect();
        if rng.below(2) == 0 {
            for i in (1..order.len()).rev() {
                order.swap(i, rng.below(i as u64 + 1) as usize);
            }
        }
        let mut writer = Writer::new(style);
        for number in order {
            let mut plain = match rng.below(4) {
                0 => rng.bytes(bytes),
                1 => vec![number as u8; bytes],
                _ => pattern(number, bytes),
            };
            if style.zero_grains && rng.below(8) == 0 {
                writer.entry(number, 1);
                continue;
            }
            let at = number as usize * bytes;
            let end = expected.len().min(at + bytes);
            expected[at..end].copy_from_slice(&plain[..end - at]);
            if end - at < bytes && rng.below(2) == 0 {
                plain.truncate(end - at);
            }
            writer.grain(number, &plain);
        }
        let file = writer.finish();
        for (cache, step) in [(4 << 20, 1 << 20), (1 << 17, 10_001), (0, 3 * bytes - 512)] {
            let stream = Stream::open(memory(file.clone()), &options(cache)).unwrap();
            assert!(content(&[&stream], step) == expected, "round {round}, steps of {step}, cache {cache}");
            scan_agrees_with_map(&stream);
        }
    }
}

#[test]
fn qemu_reads_the_same() {
    let mut writer = Writer::new(Style { sectors: 128 * 600 + 77, footer: true, ..PLAIN });
    for number in [0, 1, 2, 511, 512, 599, 600] {
        writer.grain(number, &pattern(number, 65536));
    }
    let mut noise = Rng(3);
    writer.grain(300, &noise.bytes(65536));
    let mut file = writer.finish();
    let text = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
                createType=\"streamOptimized\"\nRDONLY 76877 SPARSE \"d.vmdk\"\n";
    patch(&mut file, 512, text.as_bytes());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("d.vmdk"), &file).unwrap();
    let Some(raw) = qemu_raw(&folder.path().join("d.vmdk")) else { return };
    assert!(content(&[&open(file).unwrap()], 1 << 20) == raw);
}

#[test]
fn what_qemu_writes_gives_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, vmdk) = (folder.path().join("raw"), folder.path().join("d.vmdk"));
    let mut rng = Rng(99);
    let mut bytes = vec![0; (5 << 20) + 200 * 512];
    for (number, part) in bytes.chunks_mut(50_000).enumerate() {
        match number % 3 {
            0 => part.copy_from_slice(&pattern(number as u64, part.len())),
            1 => part.copy_from_slice(&rng.bytes(part.len())),
            _ => {}
        }
    }
    std::fs::write(&raw, &bytes).unwrap();
    if !convert(&raw, &vmdk) {
        return;
    }
    let stream = open(std::fs::read(&vmdk).unwrap()).unwrap();
    for step in [1 << 20, 65536, 4096, 77_777] {
        assert!(content(&[&stream], step) == bytes, "steps of {step}");
    }
    scan_agrees_with_map(&stream);
}

/// Packs a raw file with qemu-img; false with a printed reason where that is missing.
fn convert(raw: &Path, vmdk: &Path) -> bool {
    let run = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"])
        .args([raw, vmdk])
        .status();
    match run {
        Ok(status) => {
            assert!(status.success());
            true
        }
        Err(e) => {
            println!("skipped: qemu-img cannot be run: {e}");
            false
        }
    }
}

#[test]
fn each_corrupt_header_field_leads_to_one_kind() {
    use ErrorKind::NotADisk;
    use ErrorKind::UnsupportedFeature;
    use ErrorKind::UnsupportedVersion;
    let with = |footer: bool, at: usize, value: &[u8]| {
        let mut file = eight_grains(Style { footer, ..PLAIN });
        let at = if footer { file.len() - 1024 + at } else { at };
        patch(&mut file, at, value);
        open(file).map(|stream| read_all(&stream).unwrap())
    };
    let q = |v: u64| v.to_le_bytes().to_vec();
    let d = |v: u32| v.to_le_bytes().to_vec();
    let table: &[(&str, usize, Vec<u8>, ErrorKind)] = &[
        ("magic", 0, b"KDMW".to_vec(), NotADisk),
        ("version 4", 4, d(4), UnsupportedVersion),
        ("version 0", 4, d(0), UnsupportedVersion),
        ("not compressed", 8, d(0x2_0001), NotADisk),
        ("flag 19", 8, d(0xb_0001), UnsupportedFeature),
        ("capacity 0", 12, q(0), NotADisk),
        ("capacity 2^62", 12, q(1 << 62), NotADisk),
        ("capacity past the directory", 12, q(1 << 40), NotADisk),
        ("grain 0", 20, q(0), NotADisk),
        ("grain 127", 20, q(127), NotADisk),
        ("entries", 44, d(1024), NotADisk),
        ("descriptor past the end", 28, q(1 << 40), NotADisk),
        ("directory 0", 56, q(0), NotADisk),
        ("directory past the end", 56, q(1 << 30), NotADisk),
        ("metadata past the end", 64, q(1 << 20), NotADisk),
        ("metadata max", 64, q(u64::MAX), NotADisk),
        ("newline", 73, vec![0x0d], NotADisk),
        ("algorithm 0", 77, vec![0, 0], UnsupportedFeature),
        ("algorithm 2", 77, vec![2, 0], UnsupportedFeature),
    ];
    for (name, at, value, kind) in table {
        assert_eq!(with(false, *at, value).unwrap_err().kind(), *kind, "{name} in the header");
        assert_eq!(with(true, *at, value).unwrap_err().kind(), *kind, "{name} in the footer");
    }
    assert_eq!(with(false, 8, &d(0x1_0001)).unwrap_err().kind(), UnsupportedFeature, "no markers");
    assert_eq!(with(true, 8, &d(0x1_0001)).unwrap_err().kind(), NotADisk, "footer differs");
    assert_eq!(with(true, 12, &q(1023)).unwrap_err().kind(), NotADisk, "capacity differs");
    assert_eq!(with(true, 20, &q(256)).unwrap_err().kind(), NotADisk, "grain differs");
    assert_eq!(with(true, 4, &d(1)).unwrap_err().kind(), NotADisk, "version differs");
    assert_eq!(with(true, 56, &q(u64::MAX)).unwrap_err().kind(), NotADisk, "footer names a footer");
    with(false, 64, &q(0)).unwrap();
    with(false, 4, &d(1)).unwrap();
}

#[test]
fn the_last_three_sectors_are_all_needed() {
    let good = eight_grains(Style { footer: true, ..PLAIN });
    let end = good.len();
    for at in [end - 1536 + 8, end - 1536 + 12, end - 1024, end - 512, end - 512 + 8, end - 512 + 12] {
        let mut file = good.clone();
        file[at] ^= 0x41;
        let error = open(file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotADisk);
        assert!(error.to_string().contains("file ends without footer"), "{error}");
    }
    for len in [end - 1, end - 512, end - 1024, end - 1536, 4096, 1536, 1024, 512] {
        let error = open(good[..len].to_vec()).unwrap_err();
        assert!(error.kind() == ErrorKind::NotADisk, "{len} bytes: {error}");
    }
    for len in [0, 3, 511] {
        assert_eq!(open(good[..len].to_vec()).unwrap_err().kind(), ErrorKind::NotADisk);
    }
    assert!(open([good, vec![0; 512]].concat()).is_err(), "padding behind the end");
}

/// A stream whose grain 3 is written by `write`, read whole and in part; the other grains must be right.
fn with_grain_3(write: impl FnOnce(&mut Writer)) -> Error {
    let mut writer = Writer::new(PLAIN);
    for number in [0, 1, 2, 4, 5] {
        writer.grain(number, &pattern(number, 65536));
    }
    write(&mut writer);
    for number in [6, 7] {
        writer.grain(number, &pattern(number, 65536));
    }
    let stream = open(writer.finish()).unwrap();
    let mut buf = vec![0; 65536];
    for number in [0, 1, 2, 4, 5, 6, 7] {
        stream.read_packed(number * 65536, &mut buf).unwrap();
        assert!(buf == pattern(number, 65536), "grain {number}");
    }
    assert_eq!(scanned(&stream, 0..8 * 65536), [(0..8 * 65536, Presence::Data)]);
    let part = packed::read(&[&stream], 3 * 65536 + 512, &mut [0; 512]).unwrap_err();
    let whole = packed::read(&[&stream], 2 * 65536, &mut [0; 4 * 65536]).unwrap_err();
    assert_eq!(part.kind(), whole.kind());
    assert!(!stream.try_read_packed(3 * 65536, &mut [0; 1]).unwrap_or(false), "nothing of it may be kept");
    whole
}

#[test]
fn a_bad_grain_is_corrupt_and_the_others_are_read() {
    let plain = pattern(3, 65536);
    let good = zlib(&plain);
    let cut = |len: usize| zlib(&plain[..len]);
    let bomb = zlib(&vec![0; 64 << 20]);
    let longer = zlib(&[plain.clone(), vec![0]].concat());
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    let mut checksum = good.clone();
    *checksum.last_mut().unwrap() ^= 1;
    let mut wrapper = good.clone();
    wrapper[0] = 0x79;
    let size = good.len() as u32;
    let mut padded = good.clone();
    padded.resize(131_073, 0);
    let table: &[(&str, u64, u32, &[u8])] = &[
        ("another grain's lba", 4 * 128, size, &good),
        ("lba off by one", 3 * 128 + 1, size, &good),
        ("lba huge", u64::MAX, size, &good),
        ("size 0", 3 * 128, 0, &good),
        ("size 1", 3 * 128, 1, &good),
        ("size cut", 3 * 128, size - 1, &good),
        ("size 2 grains and 1", 3 * 128, 131_073, &padded),
        ("size max", 3 * 128, u32::MAX, &good),
        ("short by one", 3 * 128, cut(65535).len() as u32, &cut(65535)),
        ("nothing", 3 * 128, cut(0).len() as u32, &cut(0)),
        ("longer by one", 3 * 128, longer.len() as u32, &longer),
        ("bomb", 3 * 128, bomb.len() as u32, &bomb),
        ("flipped bit", 3 * 128, size, &flipped),
        ("checksum", 3 * 128, size, &checksum),
        ("wrapper", 3 * 128, size, &wrapper),
        ("not deflate", 3 * 128, 600, &[0xff; 600]),
    ];
    for &(name, lba, size, data) in table {
        let error = with_grain_3(|writer| {
            writer.packed(3, lba, size, data);
        });
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
        assert!(error.to_string().contains("grain 3 (disk byte 0x30000)"), "{name}: {error}");
    }
    for entry in [1, 2, 7, 8, 100_000, u32::MAX] {
        let error = with_grain_3(|writer| writer.entry(3, entry));
        assert_eq!(error.kind(), ErrorKind::Corrupt, "entry {entry}: {error}");
    }
}

#[test]
fn a_size_that_passes_the_end_is_corrupt() {
    let mut writer = Writer::new(Style { sectors: 128, ..PLAIN });
    let directory = writer.directory();
    let plain = Rng(1).bytes(65536);
    let at = writer.grain(0, &plain) as u64 / 512;
    let header = writer.header(directory, 0);
    let mut file = writer.file;
    patch(&mut file, 0, &header);
    let table = file.len();
    file.splice(at as usize * 512..at as usize * 512, vec![]);
    // The table goes in front of the grain: into the unused sectors behind the descriptor.
    patch(&mut file, 4 * 512, &(at as u32).to_le_bytes());
    patch(&mut file, directory as usize * 512, &4u32.to_le_bytes());
    let stream = open(file.clone()).unwrap();
    assert!(content(&[&stream], 65536) == plain);
    for cut in [512, 600, 60_000, 65_500] {
        let error = read_all(&open(file[..table - cut].to_vec()).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "cut by {cut}: {error}");
    }
}

#[test]
fn only_the_last_grain_may_be_short() {
    let style = Style { sectors: 128 + 50, ..PLAIN };
    for (last, good) in [(50 * 512, true), (65536, true), (50 * 512 - 1, false), (65537, false)] {
        let mut writer = Writer::new(style);
        writer.grain(0, &pattern(0, 65536));
        writer.grain(1, &pattern(1, last));
        let stream = open(writer.finish()).unwrap();
        assert_eq!(read_all(&stream).is_ok(), good, "last grain of {last} bytes");
        let mut tail = [0; 512];
        if good {
            stream.read_packed(65536 + 49 * 512, &mut tail).unwrap();
            assert!(tail == pattern(1, 65536)[49 * 512..50 * 512]);
        }
        let past = stream.read_packed(65536 + 50 * 512 - 511, &mut tail).unwrap_err();
        assert_eq!(past.kind(), ErrorKind::OutOfRange);
    }
}

#[test]
fn a_damaged_directory_is_replaced_by_the_redundant_one() {
    #[derive(Default)]
    struct Lines(std::sync::Mutex<Vec<String>>);
    impl vixDiskLib::logging::Sink for Lines {
        fn line(&self, _: vixDiskLib::logging::Level, text: &str) {
            self.0.lock().unwrap().push(text.into());
        }
    }
    let good = eight_grains(Style { redundant: true, ..PLAIN });
    let expected = content(&[&open(good.clone()).unwrap()], 1 << 20);
    let directory = u64::from_le_bytes(good[56..64].try_into().unwrap()) as usize * 512;
    for (at, value) in [(directory, 0), (directory, 0x7fff_ffff), (56, 0x7fff_ffff)] {
        let mut file = good.clone();
        patch(&mut file, at, &u32::to_le_bytes(value));
        let lines = Arc::new(Lines::default());
        let log = Log::new(Arc::clone(&lines) as _, vixDiskLib::logging::Level::Warning);
        let stream = Stream::open(memory(file), &StreamOptions { log, ..options(0) }).unwrap();
        assert!(content(&[&stream], 1 << 20) == expected, "{value:#x} at {at}");
        scan_agrees_with_map(&stream);
        let lines = lines.0.lock().unwrap();
        assert!(lines.len() == 1 && lines[0].contains("redundant"), "{lines:?}");
    }
    let mut file = eight_grains(PLAIN);
    let directory = u64::from_le_bytes(file[56..64].try_into().unwrap()) as usize * 512;
    patch(&mut file, directory, &0x7fff_ffff_u32.to_le_bytes());
    assert_eq!(open(file).unwrap().map(0, 512).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn long_runs_are_merged_wherever_their_grains_stand() {
    let mut writer = Writer::new(Style { sectors: 128 * 1024, ..PLAIN });
    for number in (100..164).rev() {
        writer.grain(number, &pattern(number, 65536));
    }
    let stream = open(writer.finish()).unwrap();
    let (mapping, run) = stream.map(100 * 65536 + 7, u64::MAX).unwrap();
    assert!(matches!(mapping, Mapping::Packed));
    assert_eq!(run, 64 * 65536 - 7);
    let (mapping, run) = stream.map(164 * 65536, u64::MAX).unwrap();
    assert!(matches!(mapping, Mapping::Unallocated));
    assert_eq!(run, (1024 - 164) * 65536, "the absent second table belongs to the run");
}

/// Counts reads of a storage.
#[derive(Debug)]
struct Counting(Arc<dyn Storage>, AtomicUsize);

impl Storage for Counting {
    fn size(&self) -> Result<u64> {
        self.0.size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, _: &[u8], _: u64) -> Result<()> {
        unreachable!("nothing is written")
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn label(&self) -> String {
        "counting".into()
    }
}

#[test]
fn grains_that_stand_together_are_read_together() {
    let mut writer = Writer::new(Style { sectors: 128 * 64, ..PLAIN });
    let mut rng = Rng(5);
    let mut expected = Vec::new();
    for number in 0..64 {
        let plain = [rng.bytes(32768), vec![0; 32768]].concat();
        writer.grain(number, &plain);
        expected.extend(plain);
    }
    let counting = Arc::new(Counting(memory(writer.finish()), AtomicUsize::new(0)));
    let stream = Stream::open(Arc::clone(&counting) as _, &options(4 << 20)).unwrap();
    stream.map(0, 1).unwrap();
    let reads = |body: &mut dyn FnMut()| {
        let before = counting.1.load(Ordering::SeqCst);
        body();
        counting.1.load(Ordering::SeqCst) - before
    };
    let mut buf = vec![0; 12 * 65536];
    assert_eq!(reads(&mut || stream.read_packed(0, &mut buf).unwrap()), 1, "12 grains");
    assert!(buf == expected[..12 * 65536]);
    assert_eq!(reads(&mut || stream.read_packed(20 * 65536 + 512, &mut buf[..512]).unwrap()), 1, "a part");
    let sixteen = |buf: &mut [u8]| {
        for part in 0..16 {
            stream.read_packed(40 * 65536 + part * 4096, &mut buf[..4096]).unwrap();
        }
    };
    assert_eq!(reads(&mut || sixteen(&mut buf)), 1, "sixteen parts of a grain");
    assert!(stream.try_read_packed(40 * 65536 + 1, &mut buf[..65535]).unwrap());
    assert!(buf[..65535] == expected[40 * 65536 + 1..41 * 65536]);
    assert!(!stream.try_read_packed(40 * 65536 + 1, &mut buf[..65536]).unwrap());
    assert_eq!(reads(&mut || stream.prefetch(50 * 65536, 4 * 65536).unwrap()), 1);
    assert_eq!(reads(&mut || stream.read_packed(50 * 65536, &mut buf[..4 * 65536]).unwrap()), 0);
    assert!(buf[..4 * 65536] == expected[50 * 65536..54 * 65536]);
}

#[test]
fn threads_read_disjoint_and_equal_parts_at_once() {
    let mut writer = Writer::new(Style { sectors: 128 * 64, ..PLAIN });
    let mut expected = Vec::new();
    for number in 0..64 {
        writer.grain(number, &pattern(number, 65536));
        expected.extend(pattern(number, 65536));
    }
    let stream = Stream::open(memory(writer.finish()), &options(512 << 10)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (stream, expected) = (&stream, &expected);
            scope.spawn(move || {
                let mut rng = Rng(thread + 1);
                let mut buf = vec![0; 200_000];
                for _ in 0..1500 {
                    let most = [200_000, 5000, 5000, 5000][rng.below(4) as usize];
                    let len = 1 + rng.below(most) as usize;
                    let at = rng.below((expected.len() - len) as u64) as usize;
                    let buf = &mut buf[..len];
                    match rng.below(8) {
                        0 => stream.prefetch(at as u64, len as u64).unwrap(),
                        1 if !stream.try_read_packed(at as u64, buf).unwrap() => continue,
                        1 => {}
                        _ => stream.read_packed(at as u64, buf).unwrap(),
                    }
                    stream.read_packed(at as u64, buf).unwrap();
                    assert!(*buf == expected[at..at + len]);
                }
            });
        }
    });
}

#[test]
fn writing_is_refused_with_the_reason() {
    let stream = open(eight_grains(PLAIN)).unwrap();
    for error in [stream.begin_writing().unwrap_err(), stream.prepare(0, 512).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::ReadOnly);
        assert!(error.to_string().contains("written once"));
    }
}

#[test]
fn a_range_without_packed_data_is_not_read_as_such() {
    let mut writer = Writer::new(Style { sectors: 256, ..PLAIN });
    writer.grain(0, &pattern(0, 65536));
    let stream = open(writer.finish()).unwrap();
    assert_eq!(stream.read_packed(65536, &mut [0; 512]).unwrap_err().kind(), ErrorKind::Internal);
    for offset in [131_072, 131_071, u64::MAX] {
        assert_eq!(stream.read_packed(offset, &mut [0; 2]).unwrap_err().kind(), ErrorKind::OutOfRange);
        stream.prefetch(offset, u64::MAX).unwrap();
        stream.prefetch(offset, 0).unwrap();
    }
}

#[test]
fn a_grain_larger_than_the_cache_is_kept_alone() {
    let mut writer = Writer::new(Style { sectors: 8192, grain: 2048, ..PLAIN });
    for number in 0..4 {
        writer.grain(number, &pattern(number, 1 << 20));
    }
    let counting = Arc::new(Counting(memory(writer.finish()), AtomicUsize::new(0)));
    let stream = Stream::open(Arc::clone(&counting) as _, &options(1)).unwrap();
    let mut buf = [0; 4096];
    stream.read_packed(0, &mut buf).unwrap();
    let before = counting.1.load(Ordering::SeqCst);
    for at in (0..1 << 20).step_by(4096) {
        assert!(stream.try_read_packed(at, &mut buf).unwrap());
    }
    assert_eq!(counting.1.load(Ordering::SeqCst), before);
    assert!(buf == pattern(0, 1 << 20)[(1 << 20) - 4096..]);
    stream.read_packed(1 << 20, &mut buf).unwrap();
    assert!(!stream.try_read_packed(0, &mut buf).unwrap());
}

/// A storage whose `n`-th read fails, once.
#[derive(Debug)]
struct Faulty(Arc<dyn Storage>, AtomicUsize);

impl Storage for Faulty {
    fn size(&self) -> Result<u64> {
        self.0.size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self.1.fetch_sub(1, Ordering::SeqCst) {
            0 => Err(Error::new(ErrorKind::Io, "the disk is on fire")),
            _ => self.0.read_at(buf, offset),
        }
    }
    fn write_at(&self, _: &[u8], _: u64) -> Result<()> {
        unreachable!("nothing is written")
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn label(&self) -> String {
        "faulty".into()
    }
}

#[test]
fn a_fault_of_the_file_is_told_and_does_not_stick() {
    let file = eight_grains(Style { footer: true, ..PLAIN });
    let expected = content(&[&open(file.clone()).unwrap()], 1 << 20);
    let mut faults = 0;
    for nth in 0..20 {
        let storage = Arc::new(Faulty(memory(file.clone()), AtomicUsize::new(nth)));
        let stream = match Stream::open(storage, &options(1 << 20)) {
            Ok(stream) => stream,
            Err(e) => {
                assert!(nth < 2 && e.kind() == ErrorKind::Io, "{e}");
                continue;
            }
        };
        let mut buf = vec![0; expected.len()];
        for _ in 0..2 {
            for (number, part) in buf.chunks_mut(40_000).enumerate() {
                if let Err(e) = packed::read(&[&stream], number as u64 * 40_000, part) {
                    assert_eq!(e.kind(), ErrorKind::Io);
                    faults += 1;
                    packed::read(&[&stream], number as u64 * 40_000, part).unwrap();
                }
            }
            assert!(buf == expected, "read {nth}");
        }
    }
    assert!(faults > 5, "{faults} faults");
}

/// Reads all that can be read of a file with a few bytes changed: anything but a panic is good.
#[test]
fn damaged_files_never_panic() {
    let mut rng = Rng(2026);
    for round in 0..4000 {
        let style = Style { footer: round % 2 == 0, redundant: round % 3 == 0, zero_grains: true, ..PLAIN };
        let mut file = damaged_seed(style);
        let metadata = [0..512, file.len() - 1536..file.len(), 4096..file.len()];
        for _ in 0..1 + rng.below(3) {
            let part = metadata[rng.below(3) as usize].clone();
            let at = part.start + rng.below(part.len() as u64) as usize;
            file[at] = [0, 1, 0x7f, 0x80, 0xff, rng.next() as u8][rng.below(6) as usize];
        }
        if rng.below(8) == 0 {
            file.truncate(rng.below(file.len() as u64) as usize);
        }
        let Ok(stream) = open(file) else { continue };
        let capacity = stream.capacity();
        let mut buf = vec![0; 100_000];
        for at in [0, 4096, 50_000, capacity / 2, capacity.saturating_sub(100_000)] {
            let len = buf.len().min((capacity - at.min(capacity)) as usize);
            let _ = packed::read(&[&stream], at.min(capacity), &mut buf[..len]);
        }
        let _ = stream.scan(0..capacity.min(1 << 40), &mut |_, _| ());
        let _ = stream.embedded_descriptor();
    }
}

/// A small stream with every kind of entry.
fn damaged_seed(style: Style) -> Vec<u8> {
    let mut writer = Writer::new(Style { sectors: 60, grain: 8, ..style });
    for number in [0, 1, 5, 3, 7] {
        writer.grain(number, &pattern(number, 4096));
    }
    writer.entry(2, 1);
    writer.finish()
}
