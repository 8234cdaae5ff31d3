//! Writing at its edges: direct I/O with unaligned buffers, refused writes, a full file system, completions that submit.

#[macro_use]
mod common;

use std::path::Path;
use std::path::PathBuf;

use common::child::in_child;
use common::model::Rng;
use common::model::is_zero;
use common::model::stamps;
use common::process;
use common::scratch;
use common::tools;
use common::vix;
use common::vix::Completions;
use common::vix::Connection;
use common::vix::Kind;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;

const BOTH: [Kind; 2] = [Kind::Sparse, Kind::Flat];

fn create(connection: &Connection<'_>, folder: &Path, kind: Kind, capacity: u64) -> PathBuf {
    let path = folder.join(format!("{kind:?}.vmdk"));
    connection.must_create(&path, Spec::new(kind, capacity));
    path
}

#[test]
fn unbuffered_writes_from_unaligned_buffers_read_back() {
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in BOTH {
            let path = create(&connection, folder.path(), kind, 20_001);
            let mut model = vec![0u8; 20_001 * 512];
            let disk = connection.must_open(&path, flags::UNBUFFERED);
            let mut rng = Rng::new(41);
            for version in 1..80 {
                let count = rng.between(1, 300);
                let start = rng.below(20_001 - count + 1);
                let shift = rng.below(600) as usize;
                let data = stamps(start, count, version);
                let mut unaligned = vec![0u8; shift];
                unaligned.extend_from_slice(&data);
                disk.must_write(start, &unaligned[shift..]);
                model[(start * 512) as usize..][..data.len()].copy_from_slice(&data);
                let from = start.saturating_sub(2);
                let got = disk.read_many(&[(from, count.min(20_001 - from))], 1, shift).expect("a read");
                assert!(got == model[(from * 512) as usize..][..got.len()], "{kind:?}: at {from}");
            }
            disk.must_write(20_000, &stamps(20_000, 1, 99));
            assert_eq!(disk.close(), code::OK);
            model[20_000 * 512..].copy_from_slice(&stamps(20_000, 1, 99));
            let disk = connection.must_open(&path, flags::READ_ONLY);
            assert!(disk.must_read(0, 20_001) == model, "{kind:?}");
        }
    });
}

/// A file system in memory may know no direct I/O.
#[test]
fn unbuffered_works_where_the_file_system_has_no_direct_io() {
    let Ok(folder) = tempfile::Builder::new().prefix("vixtest-").tempdir_in("/dev/shm") else {
        return scratch::note("there is no /dev/shm");
    };
    drop(folder);
    in_child(|| {
        let folder = tempfile::Builder::new().prefix("vixtest-").tempdir_in("/dev/shm").expect("a folder");
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in BOTH {
            let path = create(&connection, folder.path(), kind, 4097);
            let disk = connection.must_open(&path, flags::UNBUFFERED);
            disk.must_write(4000, &stamps(4000, 97, 1));
            assert_eq!(disk.must_read(4000, 97), stamps(4000, 97, 1), "{kind:?}");
            assert_eq!(disk.close(), code::OK);
        }
    });
}

#[test]
fn refused_writes_change_nothing() {
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in BOTH {
            let path = create(&connection, folder.path(), kind, 1000);
            let disk = connection.must_open(&path, flags::READ_WRITE);
            assert_eq!(disk.write(999, &[1; 1024]), code::OUT_OF_RANGE);
            assert_eq!(disk.write(1000, &[1; 512]), code::OUT_OF_RANGE);
            assert_eq!(disk.write(u64::MAX, &[1; 512]), code::OUT_OF_RANGE);
            assert_eq!(disk.write(1000, &[]), code::OK, "nothing at the end");
            assert_eq!(disk.write(1001, &[]), code::OUT_OF_RANGE, "nothing behind the end");
            assert!(is_zero(&disk.must_read(0, 1000)), "{kind:?}");
            assert_eq!(disk.close(), code::OK);
            let reader = connection.must_open(&path, flags::READ_ONLY);
            assert_eq!(reader.write(0, &[1; 512]), code::FILE_READ_ONLY);
            assert_eq!(reader.flush(), code::OK);
            let completions = Completions::default();
            let data = [1u8; 512];
            #[allow(unsafe_code)] // the data outlives the refusal
            // SAFETY: as said; a wrong acceptance is waited for below.
            let result = unsafe { reader.write_async(0, data.as_ptr(), 1, 0, &completions) };
            if result == code::ASYNC {
                completions.wait_for(1);
                assert_eq!(completions.take(), [(0, code::FILE_READ_ONLY)]);
            } else {
                assert_eq!(result, code::FILE_READ_ONLY);
                assert_eq!(reader.wait(), code::OK);
                assert_eq!(completions.count(), 0, "a refused request has no completion");
            }
            assert!(is_zero(&reader.must_read(0, 1000)), "{kind:?}");
            assert_eq!(reader.close(), code::OK);
        }
    });
}

#[test]
fn asynchronous_requests_out_of_range_answer_once() {
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(false).expect("a connection");
        let path = create(&connection, folder.path(), Kind::Sparse, 1000);
        let disk = connection.must_open(&path, flags::READ_WRITE);
        for pieces in [[(999, 2)], [(1000, 1)], [(1 << 60, 1)]] {
            assert_eq!(disk.read_many(&pieces, 1, 0), Err(code::OUT_OF_RANGE));
        }
        assert_eq!(disk.wait(), code::OK, "nothing is pending");
        assert_eq!(disk.close(), code::OK);
    });
}

#[test]
fn many_asynchronous_writes_complete_exactly_once_and_read_back() {
    requires!("qemu-img");
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in BOTH {
            let path = create(&connection, folder.path(), kind, 90_000);
            let disk = connection.must_open(&path, flags::READ_WRITE);
            let completions = Completions::default();
            let data: Vec<Vec<u8>> = (0..600).map(|n| stamps(n * 150, 100, 3)).collect();
            for (n, bytes) in data.iter().enumerate() {
                #[allow(unsafe_code)] // the data and the collector outlive the wait below
                // SAFETY: as said.
                let result =
                    unsafe { disk.write_async(n as u64 * 150, bytes.as_ptr(), 100, n as u64, &completions) };
                assert_eq!(result, code::ASYNC, "{kind:?}, request {n}");
            }
            assert_eq!(disk.wait(), code::OK);
            assert_eq!(completions.count(), 600, "Wait returns after every completion has returned");
            let mut done = completions.take();
            done.sort_unstable();
            assert!(done.iter().copied().eq((0..600).map(|n| (n, code::OK))));
            assert_eq!(disk.flush(), code::OK);
            for n in 0..600 {
                assert_eq!(disk.must_read(n * 150, 100), data[n as usize], "{kind:?}, request {n}");
                assert!(is_zero(&disk.must_read(n * 150 + 100, 50)), "{kind:?}, behind request {n}");
            }
            assert_eq!(disk.close(), code::OK);
            tools::qemu_check(&path);
        }
    });
}

/// Close without Wait finishes what is in flight.
#[test]
fn closing_with_writes_in_flight_completes_them() {
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(false).expect("a connection");
        let path = create(&connection, folder.path(), Kind::Sparse, 60_000);
        for round in 1..=10 {
            let disk = connection.must_open(&path, flags::READ_WRITE);
            let completions = Completions::default();
            let data: Vec<Vec<u8>> = (0..100).map(|n| stamps(n * 600, 100, round)).collect();
            for (n, bytes) in data.iter().enumerate() {
                #[allow(unsafe_code)] // the data outlives Close, which completes everything
                // SAFETY: as said.
                let result =
                    unsafe { disk.write_async(n as u64 * 600, bytes.as_ptr(), 100, n as u64, &completions) };
                assert_eq!(result, code::ASYNC);
            }
            assert_eq!(disk.close(), code::OK);
            assert_eq!(completions.count(), 100, "round {round}");
            let disk = connection.must_open(&path, flags::READ_ONLY);
            for (n, bytes) in data.iter().enumerate() {
                assert_eq!(&disk.must_read(n as u64 * 600, 100), bytes, "round {round}");
            }
        }
    });
}

/// A file system that fills up: the code says so, nothing acknowledged is lost, and with room again writing goes on.
#[test]
fn a_full_file_system_is_an_error_and_loses_nothing() {
    requires!("mount", "qemu-img");
    in_child(|| {
        let folder = scratch::folder();
        if let Err(reason) = process::mount_small(folder.path(), 8 << 20) {
            // Not a missing program: containers often may not mount.
            return scratch::note(&format!("a small file system cannot be mounted here: {reason}"));
        }
        let connection = Vix::started().connect(false).expect("a connection");
        let ballast = folder.path().join("ballast");
        std::fs::write(&ballast, vec![1u8; 2 << 20]).expect("ballast");
        let path = create(&connection, folder.path(), Kind::Sparse, 100_000);
        let disk = connection.must_open(&path, flags::READ_WRITE);
        let mut written = 0;
        let failed = (0..780).find_map(|n| {
            let result = disk.write(n * 128, &stamps(n * 128, 128, 1));
            written += u64::from(result == code::OK);
            (result != code::OK).then_some(result)
        });
        assert_eq!(failed, Some(code::DISK_FULL), "after {written} grains\n{}", vix::log_text());
        assert!(written > 20, "{written}");
        for n in 0..written {
            assert_eq!(disk.must_read(n * 128, 128), stamps(n * 128, 128, 1), "grain {n}");
        }
        assert_ne!(disk.write(written * 128, &stamps(written * 128, 128, 1)), code::OK, "still full");
        std::fs::remove_file(&ballast).expect("room again");
        disk.must_write(written * 128, &stamps(written * 128, 128, 2));
        assert_eq!(disk.close(), code::OK);
        let disk = connection.must_open(&path, flags::READ_WRITE);
        assert_eq!(disk.must_read(written * 128, 128), stamps(written * 128, 128, 2));
        assert_eq!(disk.must_read(0, 128), stamps(0, 128, 1));
        assert_eq!(disk.close(), code::OK);
        tools::qemu_check(&path);
        // A flat disk that does not fit is refused and leaves nothing.
        let flat = folder.path().join("big.vmdk");
        assert_eq!(connection.create(&flat, Spec::new(Kind::Flat, 100_000)), code::DISK_FULL);
        assert!(!flat.exists() && !folder.path().join("big-flat.vmdk").exists());
    });
}

/// A write of zeros over data is data; over nothing it may stay nothing, and it always reads as zeros.
#[test]
fn zeros_written_over_data_read_as_zeros() {
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in BOTH {
            let path = create(&connection, folder.path(), kind, 2000);
            let disk = connection.must_open(&path, flags::READ_WRITE);
            disk.must_write(0, &stamps(0, 1000, 1));
            disk.must_write(100, &vec![0; 700 * 512]);
            disk.must_write(1500, &vec![0; 300 * 512]);
            assert_eq!(disk.close(), code::OK);
            let disk = connection.must_open(&path, flags::READ_ONLY);
            let all = disk.must_read(0, 2000);
            assert_eq!(all[..100 * 512], stamps(0, 100, 1));
            assert!(is_zero(&all[100 * 512..800 * 512]));
            assert_eq!(all[800 * 512..1000 * 512], stamps(800, 200, 1));
            assert!(is_zero(&all[1000 * 512..]));
        }
    });
}
