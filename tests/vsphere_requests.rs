//! Requests of every size at any place, from any buffer, on many disks at once: what arrives is right.

mod common;

use common::child::in_child;
use common::model::Rng;
use common::model::stamps;
use common::pieces::Piece;
use common::pieces::compare_async;
use common::pieces::compare_sync;
use common::pieces::part;
use common::pieces::pieces;
use common::stage::SECTORS;
use common::stage::Stage;
use common::stage::configured;
use common::stage::connect;
use common::stage::content;
use common::stage::expected;
use common::vix;
use common::vix::Disk;
use common::vix::code;
use common::vix::flags;

/// Sectors of a request: 4 KiB to 4 MiB, and what lies around the limits of operations and buffers.
const SIZES: [u64; 19] =
    [1, 7, 8, 9, 63, 127, 128, 129, 255, 1000, 1023, 2047, 2048, 2049, 4095, 4097, 8191, 8192, 8193];

/// Where requests of a size are made: at both ends and at odd places between.
fn places(count: u64) -> Vec<Piece> {
    let mut rng = Rng::new(count);
    let last = SECTORS - count;
    [0, 1, last, rng.below(last + 1), rng.below(last + 1) | 1].map(|at| (at.min(last), count)).to_vec()
}

/// Reads into a buffer that begins `shift` bytes into a page.
fn read_shifted(disk: &Disk<'_>, piece: Piece, shift: usize) -> Vec<u8> {
    let mut buf = vec![0xa5; (piece.1 * 512) as usize + 4096 + shift];
    let at = buf.as_ptr().align_offset(4096) + shift;
    let end = at + (piece.1 * 512) as usize;
    assert_eq!(disk.read(piece.0, &mut buf[at..end]), code::OK, "{piece:?}\n{}", vix::log_text());
    let around = buf[..at].iter().chain(&buf[end..]);
    assert!(around.copied().all(|byte| byte == 0xa5), "{piece:?}: nothing around the buffer is touched");
    buf[at..end].to_vec()
}

#[test]
fn requests_of_every_size_read_what_is_there() {
    in_child(|| {
        configured("");
        let (stage, whole) = (Stage::vcenter(), expected(true));
        for mode in ["nbd", "nbdssl"] {
            for packing in [0, flags::ZLIB, flags::FASTLZ, flags::SKIPZ] {
                let connection = connect(&stage.server().over(mode));
                let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY | packing);
                for count in SIZES {
                    compare_async(&disk, &places(count), 3, &whole);
                    for (piece, shift) in places(count).into_iter().zip([0, 1, 511, 513, 4095]) {
                        let read = read_shifted(&disk, piece, shift);
                        assert!(read == part(&whole, piece), "{mode}, {packing}, {piece:?} + {shift}");
                    }
                }
            }
        }
    });
}

#[test]
fn requests_of_every_size_write_what_was_meant() {
    in_child(|| {
        configured("");
        let stage = Stage::vcenter();
        for (version, mode, packing) in
            [(1, "nbd", 0), (2, "nbdssl", 0), (3, "nbd", flags::ZLIB), (4, "nbdssl", flags::FASTLZ)]
        {
            let connection = connect(&stage.server().over(mode));
            let disk = connection.must_open(&stage.disk(1), flags::READ_WRITE | packing);
            let mut model = content(&disk);
            for count in SIZES {
                for (n, (at, count)) in places(count).into_iter().enumerate() {
                    let mut bytes = vec![0; n]; // an odd address
                    bytes.extend(stamps(at, count, version * 100 + n as u64));
                    disk.must_write(at, &bytes[n..]);
                    model[(at * 512) as usize..((at + count) * 512) as usize].copy_from_slice(&bytes[n..]);
                }
            }
            assert!(content(&disk) == model, "{mode}, {packing}");
            assert_eq!(disk.close(), code::OK);
            let disk = connection.must_open(&stage.disk(1), flags::READ_ONLY);
            assert!(content(&disk) == model, "{mode}, {packing}: opened again");
        }
    });
}

#[test]
fn the_hosts_way_of_answering_makes_no_difference() {
    in_child(|| {
        configured("vixDiskLib.nfcAio.Session.BufSizeIn64KB=2\nvixDiskLib.nfcAio.Session.BufCount=4\n");
        let (stage, whole) = (Stage::vcenter(), expected(true));
        for order in ["reversed", "random", "interleaved"] {
            for packing in [0, flags::FASTLZ] {
                for setting in [&format!("order={order}"), "unpacked=40"] {
                    stage.sim.knobs().set(setting).expect("a setting");
                }
                let connection = connect(&stage.server());
                let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY | packing);
                compare_async(&disk, &pieces(SECTORS, 5), 12, &whole);
                compare_sync(&disk, &pieces(SECTORS, 6), &whole);
            }
        }
    });
}

/// Handles that are used at once.
const HANDLES: usize = 32;

/// Reads a part of the first disk by each of these handles at once.
fn read_all_at_once(disks: &[Disk<'_>]) {
    let whole = expected(true);
    std::thread::scope(|scope| {
        for (n, disk) in disks.iter().enumerate() {
            let whole = &whole;
            scope.spawn(move || {
                let mine: Vec<Piece> = pieces(SECTORS, n as u64).into_iter().take(40).collect();
                compare_async(disk, &mine, 6, whole);
                compare_sync(disk, &mine, whole);
            });
        }
    });
}

#[test]
fn many_disks_of_one_connection_are_read_at_once() {
    in_child(|| {
        configured("");
        let stage = Stage::vcenter();
        let connection = connect(&stage.server());
        let disks: Vec<Disk<'_>> =
            (0..HANDLES).map(|_| connection.must_open(&stage.disk(0), flags::READ_ONLY)).collect();
        read_all_at_once(&disks);
        drop(disks);
        assert_eq!(connection.disconnect(), code::OK);
    });
}

#[test]
fn many_connections_open_read_and_close_at_once() {
    in_child(|| {
        configured("");
        let stage = Stage::vcenter();
        let modes = ["nbd", "nbdssl"];
        std::thread::scope(|scope| {
            for n in 0..HANDLES {
                let (stage, mode) = (&stage, modes[n % modes.len()]);
                scope.spawn(move || {
                    let connection = connect(&stage.server().over(mode));
                    let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY);
                    assert_eq!(disk.transport(), mode);
                    read_all_at_once(std::slice::from_ref(&disk));
                    assert_eq!(disk.close(), code::OK);
                    assert_eq!(connection.disconnect(), code::OK);
                });
            }
        });
    });
}

#[test]
fn threads_that_share_a_handle_write_their_own_sectors() {
    in_child(|| {
        configured("");
        let stage = Stage::vcenter();
        let connection = connect(&stage.server());
        let disk = connection.must_open(&stage.disk(1), flags::READ_WRITE);
        let whole = stamps(0, SECTORS, 8);
        let all = pieces(SECTORS, 9);
        std::thread::scope(|scope| {
            for mine in all.chunks(all.len().div_ceil(HANDLES)) {
                let (disk, whole) = (&disk, &whole);
                scope.spawn(move || {
                    for piece in mine {
                        disk.must_write(piece.0, part(whole, *piece));
                        assert!(disk.must_read(piece.0, piece.1) == part(whole, *piece), "{piece:?}");
                    }
                });
            }
        });
        assert!(content(&disk) == whole);
    });
}
