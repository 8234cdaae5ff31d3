//! Many threads on shared and own handles, at random: reads, writes, asynchronous requests, queries, metadata, opening and
//! closing. Every thread knows what its own sectors hold.

#[macro_use]
mod common;

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use common::child::in_child;
use common::model;
use common::model::Rng;
use common::model::stamps;
use common::process;
use common::scratch;
use common::tools;
use common::tools::check;
use common::tools::qemu_img;
use common::vix;
use common::vix::Completions;
use common::vix::Connection;
use common::vix::Disk;
use common::vix::Kind;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;

const THREADS: u64 = 64;
/// Sectors of each thread; not a multiple of the grain, so that neighbours share grains.
const SHARE: u64 = 1037;
const RUN_FOR: Duration = Duration::from_secs(3);

/// One thread's part of a disk and what it holds.
struct Part {
    from: u64,
    versions: Vec<u64>,
    rng: Rng,
}

impl Part {
    fn range(&mut self) -> (u64, u64) {
        let count = self.rng.between(1, 200);
        (self.rng.below(SHARE - count + 1), count)
    }

    fn expect(&self, at: u64, bytes: &[u8], how: &str) {
        for (n, part) in bytes.chunks(512).enumerate() {
            let index = at as usize + n;
            let sector = self.from + index as u64;
            let found = model::version_of(sector, part).unwrap_or_else(|e| panic!("{how}: {e}"));
            assert_eq!(found, self.versions[index], "{how}: sector {sector}");
        }
    }

    fn write(&mut self, disk: &Disk<'_>, version: u64) {
        let (at, count) = self.range();
        disk.must_write(self.from + at, &stamps(self.from + at, count, version));
        self.versions[at as usize..(at + count) as usize].fill(version);
    }

    fn write_async(&mut self, disk: &Disk<'_>, version: u64) {
        let completions = Completions::default();
        let mut pieces = Vec::new();
        let step = SHARE / 4;
        for n in 0..4 {
            let count = self.rng.between(1, step);
            pieces.push((n * step, stamps(self.from + n * step, count, version)));
        }
        for (n, (at, data)) in pieces.iter().enumerate() {
            let (start, count) = (self.from + at, (data.len() / 512) as u64);
            #[allow(unsafe_code)] // the data and the collector outlive the wait below
            // SAFETY: as said; the pieces are disjoint.
            let result = unsafe { disk.write_async(start, data.as_ptr(), count, n as u64, &completions) };
            assert_eq!(result, code::ASYNC);
        }
        completions.wait_for(4);
        let mut done = completions.take();
        done.sort_unstable();
        assert_eq!(done, [(0, 0), (1, 0), (2, 0), (3, 0)]);
        for (at, data) in &pieces {
            self.versions[*at as usize..*at as usize + data.len() / 512].fill(version);
        }
    }

    fn read(&mut self, disk: &Disk<'_>) {
        let (at, count) = self.range();
        self.expect(at, &disk.must_read(self.from + at, count), "read");
    }

    fn read_async(&mut self, disk: &Disk<'_>) {
        let (at, count) = self.range();
        let pieces: Vec<(u64, u64)> = (0..count).map(|n| (self.from + at + n, 1)).collect();
        let shift = self.rng.below(64) as usize;
        let bytes = disk.read_many(&pieces, 8, shift).expect("reads");
        self.expect(at, &bytes, "asynchronous read");
    }

    /// What holds data must be listed.
    fn query(&mut self, disk: &Disk<'_>, capacity: u64) {
        let first = self.from / 128 * 128;
        let count = SHARE.div_ceil(128) * 128 + 128;
        let blocks =
            disk.allocated(first, count.min((capacity - first).div_ceil(128) * 128), 128).expect("a query");
        for (index, version) in self.versions.iter().enumerate().step_by(13) {
            let sector = self.from + index as u64;
            let listed = blocks.iter().any(|(start, n)| (*start..start + n).contains(&sector));
            assert!(
                listed || *version == 0,
                "sector {sector} of version {version} is not listed: {blocks:?}"
            );
        }
    }
}

fn work(
    part: &mut Part,
    disk: &Disk<'_>,
    own: &mut dyn FnMut(),
    thread: u64,
    until: Instant,
    calls: &AtomicU64,
) {
    let capacity = disk.info().capacity;
    let mut version = 1;
    while Instant::now() < until {
        version += 1;
        match part.rng.below(20) {
            0..=6 => part.read(disk),
            7..=11 => part.write(disk, version),
            12 => part.read_async(disk),
            13 | 14 => part.write_async(disk, version),
            15 => part.query(disk, capacity),
            16 => {
                let key = format!("vixtest.thread{thread}");
                if version % 4 == 0 {
                    assert_eq!(
                        disk.set_metadata(&key, &version.to_string()),
                        code::OK,
                        "{}",
                        vix::log_text()
                    );
                    assert_eq!(disk.metadata(&key), Ok(version.to_string()));
                }
                // Asked for in one call: keys of other threads come in between two.
                let (result, _, keys) = disk.metadata_keys_raw(16_384);
                assert_eq!(result, code::OK);
                assert!(keys.split(|b| *b == 0).any(|k| k == b"adapterType"));
            }
            17 => assert_eq!(disk.info().capacity, capacity),
            18 => assert_eq!(if version % 8 == 0 { disk.flush() } else { disk.wait() }, code::OK),
            _ => own(),
        }
        calls.fetch_add(1, Ordering::Relaxed);
        if thread == 0 {
            vix::forget_log();
        }
    }
}

/// Runs all threads on one disk; gives what each part holds.
fn torture(connection: &Connection<'_>, path: &Path, fixed: &Path, initial: u64) -> Vec<Part> {
    let disk = connection.must_open(path, flags::READ_WRITE);
    let until = Instant::now() + RUN_FOR;
    let calls = AtomicU64::new(0);
    let parts = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (disk, calls) = (&disk, &calls);
                scope.spawn(move || {
                    let mut part = Part {
                        from: thread * SHARE,
                        versions: vec![initial; SHARE as usize],
                        rng: Rng::new(1000 + thread),
                    };
                    // A handle of its own on another disk, opened and closed again and again.
                    let mut own = || {
                        let other = connection.must_open(fixed, flags::READ_ONLY);
                        let at = thread * 17;
                        assert_eq!(other.must_read(at, 16), stamps(at, 16, 5));
                        assert_eq!(other.close(), code::OK);
                    };
                    work(&mut part, disk, &mut own, thread, until, calls);
                    part
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).collect::<Vec<Part>>()
    });
    let calls = calls.into_inner();
    assert!(calls > THREADS * 5, "the threads got somewhere: {calls} calls");
    for part in &parts {
        part.expect(0, &disk.must_read(part.from, SHARE), "before Close");
    }
    assert_eq!(disk.close(), code::OK);
    parts
}

fn verify(connection: &Connection<'_>, path: &Path, parts: &[Part]) {
    let disk = connection.must_open(path, flags::READ_ONLY);
    for part in parts {
        part.expect(0, &disk.must_read(part.from, SHARE), "after a reopen");
    }
    assert_eq!(disk.close(), code::OK);
    if scratch::program("qemu-img").is_ok() {
        tools::qemu_check(path);
    }
}

fn fixed_disk(connection: &Connection<'_>, folder: &Path) -> std::path::PathBuf {
    let fixed = folder.join("fixed.vmdk");
    connection.must_create(&fixed, Spec::new(Kind::Sparse, 4096));
    let disk = connection.must_open(&fixed, flags::READ_WRITE);
    disk.must_write(0, &stamps(0, 4096, 5));
    assert_eq!(disk.close(), code::OK);
    fixed
}

#[test]
fn sixty_four_threads_on_one_sparse_handle_disturb_nobody() {
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(false).expect("a connection");
        let (path, fixed) = (folder.path().join("d.vmdk"), fixed_disk(&connection, folder.path()));
        connection.must_create(&path, Spec::new(Kind::Sparse, THREADS * SHARE + 55));
        let parts = torture(&connection, &path, &fixed, 0);
        verify(&connection, &path, &parts);
        assert!(process::threads() < 40, "a bounded number of workers: {:?}", process::thread_names());
    });
}

#[test]
fn sixty_four_threads_on_one_flat_handle_disturb_nobody() {
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(false).expect("a connection");
        let (path, fixed) = (folder.path().join("d.vmdk"), fixed_disk(&connection, folder.path()));
        connection.must_create(&path, Spec::new(Kind::Flat, THREADS * SHARE));
        let parts = torture(&connection, &path, &fixed, 0);
        verify(&connection, &path, &parts);
    });
}

#[test]
fn sixty_four_threads_on_a_child_disturb_nobody() {
    requires!("qemu-img");
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(false).expect("a connection");
        let (base, path) = (folder.path().join("b.vmdk"), folder.path().join("c.vmdk"));
        let fixed = fixed_disk(&connection, folder.path());
        connection.must_create(&base, Spec::new(Kind::Sparse, THREADS * SHARE));
        let disk = connection.must_open(&base, flags::READ_WRITE);
        disk.must_write(0, &stamps(0, THREADS * SHARE, 1));
        assert_eq!(disk.close(), code::OK);
        let options = ["create", "-q", "-f", "vmdk", "-o", "backing_fmt=vmdk,backing_file=b.vmdk"];
        check(qemu_img(options).arg(&path).current_dir(folder.path()));
        let parts = torture(&connection, &path, &fixed, 1);
        verify(&connection, &path, &parts);
    });
}

/// Two threads close the same handle: one of them wins, the other gets the code of a dead handle.
#[test]
fn a_handle_closed_by_two_threads_is_closed_once() {
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(false).expect("a connection");
        let fixed = fixed_disk(&connection, folder.path());
        for _ in 0..200 {
            let disk = connection.must_open(&fixed, flags::READ_ONLY);
            let barrier = std::sync::Barrier::new(3);
            let results = std::thread::scope(|scope| {
                let closers = [(); 2].map(|()| {
                    scope.spawn(|| {
                        barrier.wait();
                        disk.close_again()
                    })
                });
                barrier.wait();
                let read = disk.read(0, &mut [0; 512]);
                assert!(read == code::OK || read == code::INVALID_HANDLE, "{read}");
                closers.map(|closer| closer.join().expect("a closer"))
            });
            disk.leak();
            let mut sorted = results;
            sorted.sort_unstable();
            assert_eq!(sorted, [code::OK, code::INVALID_HANDLE]);
            vix::forget_log();
        }
    });
}

/// Several handles of one disk, as a client with many connections has them.
#[test]
fn overlapping_reads_of_many_handles_of_one_disk_agree() {
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(true).expect("a connection");
        let fixed = fixed_disk(&connection, folder.path());
        let handles: Vec<_> = (0..16).map(|_| connection.must_open(&fixed, flags::READ_ONLY)).collect();
        std::thread::scope(|scope| {
            for (n, disk) in handles.iter().enumerate() {
                scope.spawn(move || {
                    let mut rng = Rng::new(n as u64);
                    for _ in 0..200 {
                        let count = rng.between(1, 500);
                        let start = rng.below(4096 - count);
                        assert_eq!(disk.must_read(start, count), stamps(start, count, 5));
                    }
                });
            }
        });
    });
}
