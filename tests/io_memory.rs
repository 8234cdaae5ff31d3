//! What an open disk costs in memory, and C programs under valgrind.

#[macro_use]
mod common;

use std::process::Command;

use common::abi::Bench;
use common::abi::Language;
use common::abi::under_valgrind;
use common::child::in_child;
use common::model::Rng;
use common::model::is_zero;
use common::model::stamps;
use common::process;
use common::scratch;
use common::tools::check;
use common::tools::qemu_img;
use common::vix::Kind;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;

/// What one open handle may take, with a little for the test itself.
const ALLOWED: u64 = (16 << 20) + (1 << 20);

/// A sparse file of nearly 2 TiB, the most its 32-bit sector numbers allow with its own tables inside: 32 MiB per table.
const TABLE: u64 = 65_536;
const TABLES: u64 = 65_520;

#[test]
fn reading_all_over_a_disk_of_2_tib_takes_little_memory() {
    in_child(|| {
        let folder = scratch::folder_in_memory();
        let connection = Vix::started().connect(false).expect("a connection");
        let path = folder.path().join("big.vmdk");
        connection.must_create(&path, Spec::new(Kind::Sparse, TABLES * TABLE));
        // Something in every eighth table, so that tables cannot all be remembered as empty.
        let disk = connection.must_open(&path, flags::READ_WRITE);
        process::forget_peak();
        let before = process::resident();
        for table in (0..TABLES).step_by(8) {
            disk.must_write(table * TABLE + table % 500 * 128, &stamps(table, 1, 1));
        }
        assert_eq!(disk.flush(), code::OK);
        let writing = process::peak_resident().saturating_sub(before);
        assert!(writing <= ALLOWED, "writing took {writing} bytes");
        assert_eq!(disk.close(), code::OK);

        process::forget_peak();
        let before = process::resident();
        let disk = connection.must_open(&path, flags::READ_ONLY);
        let mut buf = vec![0u8; 4096];
        for table in 0..TABLES {
            let start = table * TABLE + table % 500 * 128;
            assert_eq!(disk.read(start, &mut buf), code::OK);
            if table % 8 == 0 {
                assert_eq!(buf[..512], stamps(table, 1, 1), "table {table}");
            } else {
                assert!(is_zero(&buf), "table {table}");
            }
        }
        let mut rng = Rng::new(51);
        for _ in 0..50_000 {
            assert_eq!(disk.read(rng.below(TABLES * TABLE - 8), &mut buf), code::OK);
        }
        let reading = process::peak_resident().saturating_sub(before);
        assert!(reading <= ALLOWED, "reading took {reading} bytes");
        let listed: u64 = disk.allocated_all(128).iter().map(|(_, count)| count / 128).sum();
        assert_eq!(listed, TABLES.div_ceil(8));
        assert_eq!(disk.close(), code::OK);
        let kept = process::resident().saturating_sub(before);
        assert!(kept <= ALLOWED, "{kept} bytes are kept after Close");
    });
}

#[test]
fn reading_a_compressed_disk_takes_little_memory() {
    requires!("qemu-img");
    in_child(|| {
        let folder = scratch::folder();
        let (raw, path) = (folder.path().join("in.raw"), folder.path().join("s.vmdk"));
        let sectors: u64 = 48 << 11;
        {
            // Half of it compresses.
            let mut rng = Rng::new(52);
            let bytes: Vec<u8> = (0..sectors / 128)
                .flat_map(
                    |grain| {
                        if grain % 2 == 0 { rng.bytes(65_536) } else { stamps(grain * 128, 128, 1) }
                    },
                )
                .collect();
            std::fs::write(&raw, bytes).expect("the raw file");
        }
        let options = ["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"];
        check(qemu_img(options).arg(&raw).arg(&path));
        let connection = Vix::started().connect(true).expect("a connection");
        process::forget_peak();
        let before = process::resident();
        let disk = connection.must_open(&path, flags::READ_ONLY);
        let mut buf = vec![0u8; 1 << 20];
        for start in (0..sectors).step_by(2048) {
            assert_eq!(disk.read(start, &mut buf), code::OK);
        }
        let mut rng = Rng::new(53);
        for _ in 0..3000 {
            let start = rng.below(sectors / 128) * 128 + 8;
            assert_eq!(disk.read(start, &mut buf[..4096]), code::OK);
            if start / 128 % 2 == 1 {
                assert_eq!(buf[..4096], stamps(start, 8, 1));
            }
        }
        let took = process::peak_resident().saturating_sub(before);
        assert!(took <= ALLOWED + (1 << 20), "reading took {took} bytes");
        assert_eq!(disk.close(), code::OK);
    });
}

#[test]
fn opening_and_closing_again_and_again_keeps_no_memory() {
    in_child(|| {
        let folder = scratch::folder_in_memory();
        let connection = Vix::started().connect(false).expect("a connection");
        let path = folder.path().join("d.vmdk");
        connection.must_create(&path, Spec::new(Kind::Sparse, 100_000));
        let once = || {
            let disk = connection.must_open(&path, flags::READ_WRITE);
            disk.must_write(77, &stamps(77, 3, 1));
            disk.read_many(&[(0, 128), (77, 3)], 2, 0).expect("reads");
            assert_eq!(disk.close(), code::OK);
            common::vix::forget_log();
        };
        (0..50).for_each(|_| once());
        let before = process::resident();
        (0..500).for_each(|_| once());
        let grown = process::resident().saturating_sub(before);
        assert!(grown < 1 << 20, "{grown} bytes after 500 rounds");
    });
}

#[test]
fn a_c_program_creates_writes_reads_and_queries() {
    requires!("gcc");
    let bench = Bench::new();
    let program = bench.compile("io_roundtrip", Language::C);
    let said = check(Command::new(&program).arg(bench.folder.path())).text();
    assert!(said.contains("all is well"), "{said}");
}

#[test]
fn a_c_program_is_clean_under_valgrind() {
    requires!("gcc", "valgrind");
    let bench = Bench::new();
    let program = bench.compile("io_roundtrip", Language::C);
    let said = check(under_valgrind(&program).arg(bench.folder.path())).text();
    assert!(said.contains("all is well"), "{said}");
}
