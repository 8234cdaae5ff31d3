//! A process that writes is killed at random moments; what it was told to be written must be there afterwards.
//!
//! The writer stamps every sector with its number and a version, says before each write what it will do and after each
//! write that it was acknowledged, through a pipe. The verifier knows from that, for every sector, which versions it may
//! hold. Reopening needs no manual step, and qemu's check finds nothing wrong.

#[macro_use]
mod common;

use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use common::child;
use common::child::in_child;
use common::model;
use common::model::Rng;
use common::scratch;
use common::tools;
use common::tools::check;
use common::tools::qemu_img;
use common::vix;
use common::vix::Connection;
use common::vix::Kind;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;

/// Two grain tables and a last grain that is not whole.
const SECTORS: u64 = 65_536 + 5000 + 77;

/// How long acknowledged writes of a child may wait for their tables, with the delays of a busy machine.
const CHILD_DELAY: Duration = Duration::from_millis(1500);

const DISK: &str = "VIX_CRASH_DISK";
const SEED: &str = "VIX_CRASH_SEED";
const THREADS: &str = "VIX_CRASH_THREADS";
const CYCLES: &str = "VIX_CRASH_CYCLES";

// -------------------------------------------------------------------------------------------------- the report

/// What the writer says: a record of four numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// It will write this version to these sectors.
    Begins { version: u64, start: u64, count: u64 },
    /// The write of this version was acknowledged at this time (milliseconds).
    Acknowledged { version: u64, at: u64 },
    /// A flush that began after `version` was acknowledged has returned.
    Flushed { version: u64 },
}

impl Said {
    fn encode(self) -> [u8; 32] {
        let words = match self {
            Said::Begins { version, start, count } => [1, version, start, count],
            Said::Acknowledged { version, at } => [2, version, at, 0],
            Said::Flushed { version } => [3, version, 0, 0],
        };
        let mut out = [0; 32];
        for (part, word) in out.chunks_exact_mut(8).zip(words) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    fn decode(record: &[u8]) -> Self {
        let word = |n: usize| u64::from_le_bytes(record[n * 8..n * 8 + 8].try_into().expect("eight bytes"));
        match word(0) {
            1 => Said::Begins { version: word(1), start: word(2), count: word(3) },
            2 => Said::Acknowledged { version: word(1), at: word(2) },
            3 => Said::Flushed { version: word(1) },
            other => panic!("a record of kind {other}"),
        }
    }
}

fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
    u64::try_from(since.as_millis()).expect("a time that fits")
}

// -------------------------------------------------------------------------------------------------- the writer

/// Writes until killed. Several threads write different thirds of the disk, so that their order does not matter.
fn write_for_ever(path: &str) -> ! {
    let number =
        |name| std::env::var(name).expect("the writer's variables").parse::<u64>().expect("a number");
    let (seed, threads) = (number(SEED), number(THREADS));
    let connection = Vix::started().connect(false).expect("a connection");
    let disk = connection.must_open(Path::new(path), flags::READ_WRITE);
    let report = Mutex::new(child::report());
    if std::env::var_os(CYCLES).is_some() {
        drop(disk);
        open_and_close_for_ever(&connection, Path::new(path), seed, &report);
    }
    let say = |said: Said| report.lock().expect("the report").write_all(&said.encode()).expect("the pipe");
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (disk, say) = (&disk, &say);
            scope.spawn(move || {
                let mut rng = Rng::new(seed * 16 + thread);
                let (from, to) = (SECTORS * thread / threads, SECTORS * (thread + 1) / threads);
                // Versions are unique over all rounds and threads, and rise within a thread.
                for n in 1.. {
                    let version = (seed << 32) | (n * threads + thread);
                    let count = if rng.below(10) == 0 { rng.between(1, 700) } else { rng.between(1, 20) };
                    let start = from + rng.below(to - from - count);
                    say(Said::Begins { version, start, count });
                    disk.must_write(start, &model::stamps(start, count, version));
                    say(Said::Acknowledged { version, at: milliseconds() });
                    if threads == 1 && rng.below(200) == 0 {
                        assert_eq!(disk.flush(), code::OK);
                        say(Said::Flushed { version });
                    }
                }
            });
        }
    });
    unreachable!("the writer is killed");
}

/// Opens, writes a little and closes until killed, so that most kills hit the opening, the closing and the locks.
fn open_and_close_for_ever(connection: &Connection<'_>, path: &Path, seed: u64, report: &Mutex<File>) -> ! {
    let mut rng = Rng::new(seed);
    let say = |said: Said| report.lock().expect("the report").write_all(&said.encode()).expect("the pipe");
    let mut n = 0;
    loop {
        let disk = connection.must_open(path, flags::READ_WRITE);
        for _ in 0..rng.below(4) {
            n += 1;
            let version = (seed << 32) | n;
            let count = rng.between(1, 200);
            let start = rng.below(SECTORS - count);
            say(Said::Begins { version, start, count });
            disk.must_write(start, &model::stamps(start, count, version));
            say(Said::Acknowledged { version, at: milliseconds() });
        }
        assert_eq!(disk.close(), code::OK);
        vix::forget_log();
    }
}

// ------------------------------------------------------------------------------------------------ the verifier

/// What each sector may hold.
struct Ledger {
    /// Versions each sector may hold, the newest last; the first is the one that is surely on disk.
    allowed: Vec<Vec<u64>>,
}

impl Ledger {
    fn new(versions: impl Iterator<Item = u64>) -> Self {
        Self { allowed: versions.map(|version| vec![version]).collect() }
    }

    /// Adds a round's report. `durable` says which acknowledged versions nothing excuses losing.
    fn add(&mut self, report: &[Said], durable: impl Fn(u64, u64) -> bool) {
        let acknowledged: std::collections::HashMap<u64, u64> = report
            .iter()
            .filter_map(|said| match said {
                Said::Acknowledged { version, at } => Some((*version, *at)),
                _ => None,
            })
            .collect();
        for said in report {
            let Said::Begins { version, start, count } = said else { continue };
            let kept = acknowledged.get(version).is_some_and(|at| durable(*version, *at));
            for sector in *start..start + count {
                let allowed = &mut self.allowed[sector as usize];
                if kept {
                    allowed.clear();
                }
                allowed.push(*version);
            }
        }
    }

    /// Compares with the disk, and takes its content as the new truth.
    fn verify(&mut self, connection: &Connection<'_>, path: &Path, what: &str) {
        let disk = connection.must_open(path, flags::READ_ONLY);
        for start in (0..SECTORS).step_by(8192) {
            let count = 8192.min(SECTORS - start);
            let bytes = disk.must_read(start, count);
            for (sector, part) in (start..).zip(bytes.chunks(512)) {
                let found = model::version_of(sector, part).unwrap_or_else(|e| panic!("{what}: {e}"));
                let allowed = &mut self.allowed[sector as usize];
                assert!(
                    allowed.contains(&found),
                    "{what}: sector {sector} holds version {found:#x}, allowed are {allowed:x?}"
                );
                *allowed = vec![found];
            }
        }
    }
}

struct Round {
    seed: u64,
    cycles: bool,
    threads: u64,
    run_for: Duration,
}

/// Starts a writer, kills it, and gives its report and when it was killed. The time to run counts from its first write,
/// so that a slow start does not make the round empty.
fn kill_a_writer(test: &str, path: &Path, round: &Round) -> (Vec<Said>, u64) {
    let disk = path.to_str().expect("a path that is text");
    let (seed, threads) = (round.seed.to_string(), round.threads.to_string());
    let mut variables = vec![(DISK, disk), (SEED, seed.as_str()), (THREADS, threads.as_str())];
    if round.cycles {
        variables.push((CYCLES, "1"));
    }
    let mut writer = child::start_reporting(test, &variables);
    let mut first = [0u8; 32];
    if writer.report.read_exact(&mut first).is_err() {
        let status = writer.child.wait().expect("the writer");
        panic!("the writer of round {seed} ended before its first write: {status}");
    }
    let mut report = writer.report;
    let reader = std::thread::spawn(move || {
        let mut all = Vec::from(first);
        report.read_to_end(&mut all).expect("the report");
        all
    });
    std::thread::sleep(round.run_for);
    assert!(writer.child.try_wait().expect("the writer").is_none(), "round {seed}: the writer still runs");
    let killed_at = milliseconds();
    writer.child.kill().expect("killing the writer");
    writer.child.wait().expect("the writer");
    let bytes = reader.join().expect("the reader");
    // The last record may be cut short by the end of the process.
    (bytes.chunks_exact(32).map(Said::decode).collect(), killed_at)
}

/// Reading without a repair. What was in flight may show only after the repair, so the ledger is not narrowed by this.
fn look(ledger: &Ledger, connection: &Connection<'_>, path: &Path, what: &str) {
    let mut copy = Ledger { allowed: ledger.allowed.clone() };
    copy.verify(connection, path, &format!("{what}, before a repair"));
}

/// Opening for writing again needs no manual step, and after a clean close the disk calls itself clean.
fn reopen_for_writing(connection: &Connection<'_>, path: &Path, what: &str) {
    let started = Instant::now();
    let disk = connection.must_open(path, flags::READ_WRITE);
    assert!(started.elapsed() < Duration::from_secs(5), "{what}: opening took {:?}", started.elapsed());
    assert_eq!(disk.close(), code::OK, "{what}");
}

fn is_unclean(path: &Path) -> bool {
    let mut header = [0u8; 512];
    File::open(path).and_then(|mut file| file.read_exact(&mut header)).expect("the header");
    assert_eq!(&header[..4], b"KDMV");
    header[72] != 0
}

/// Lengths of the rounds: many short ones, spread so that kills hit every phase.
fn short_rounds(count: u64, threads: u64, first_seed: u64) -> Vec<Round> {
    let mut rng = Rng::new(first_seed);
    (0..count)
        .map(|n| Round {
            seed: first_seed + n,
            cycles: false,
            threads,
            run_for: Duration::from_micros(rng.between(0, 160_000)),
        })
        .collect()
}

fn torture_base(test: &str, kind: Kind, rounds: &[Round]) {
    if let Ok(disk) = std::env::var(DISK) {
        write_for_ever(&disk);
    }
    let folder = scratch::folder();
    let path = folder.path().join("d.vmdk");
    let connection = Vix::started().connect(false).expect("a connection");
    connection.must_create(&path, Spec::new(kind, SECTORS));
    let mut ledger = Ledger::new((0..SECTORS).map(|_| 0));
    let mut writes = 0;
    for round in rounds {
        let what = format!("{kind:?}, round {}", round.seed);
        let (report, _) = kill_a_writer(test, &path, round);
        writes += report.iter().filter(|said| matches!(said, Said::Acknowledged { .. })).count();
        // Everything acknowledged is there: the process died, not the machine.
        ledger.add(&report, |_, _| true);
        if round.seed % 3 == 0 {
            look(&ledger, &connection, &path, &what);
        }
        reopen_for_writing(&connection, &path, &what);
        ledger.verify(&connection, &path, &what);
        if kind == Kind::Sparse {
            assert!(!is_unclean(&path), "{what}: clean after a clean close");
            if scratch::program("qemu-img").is_ok() {
                tools::qemu_check(&path);
            }
        }
        vix::forget_log();
    }
    assert!(writes > rounds.len(), "the writers wrote ({writes} writes in {} rounds)", rounds.len());
}

#[test]
fn a_killed_process_loses_nothing_of_a_sparse_disk() {
    in_child(|| {
        let test = "a_killed_process_loses_nothing_of_a_sparse_disk";
        torture_base(test, Kind::Sparse, &short_rounds(24, 1, 100));
    });
}

#[test]
fn a_killed_process_with_three_threads_loses_nothing_of_a_sparse_disk() {
    in_child(|| {
        let test = "a_killed_process_with_three_threads_loses_nothing_of_a_sparse_disk";
        torture_base(test, Kind::Sparse, &short_rounds(12, 3, 200));
    });
}

#[test]
fn a_process_killed_while_opening_and_closing_loses_nothing_of_a_sparse_disk() {
    in_child(|| {
        let test = "a_process_killed_while_opening_and_closing_loses_nothing_of_a_sparse_disk";
        let mut rounds = short_rounds(25, 1, 500);
        rounds.iter_mut().for_each(|round| round.cycles = true);
        torture_base(test, Kind::Sparse, &rounds);
    });
}

#[test]
fn a_process_killed_while_opening_and_closing_loses_nothing_of_a_flat_disk() {
    in_child(|| {
        let test = "a_process_killed_while_opening_and_closing_loses_nothing_of_a_flat_disk";
        let mut rounds = short_rounds(12, 1, 600);
        rounds.iter_mut().for_each(|round| round.cycles = true);
        torture_base(test, Kind::Flat, &rounds);
    });
}

#[test]
fn a_killed_process_loses_nothing_of_a_flat_disk() {
    in_child(|| {
        let test = "a_killed_process_loses_nothing_of_a_flat_disk";
        torture_base(test, Kind::Flat, &short_rounds(10, 2, 300));
    });
}

#[test]
fn a_killed_process_loses_at_most_the_last_second_of_a_child() {
    requires!("qemu-img");
    in_child(|| {
        if let Ok(disk) = std::env::var(DISK) {
            write_for_ever(&disk);
        }
        let folder = scratch::folder();
        let (base, path) = (folder.path().join("b.vmdk"), folder.path().join("c.vmdk"));
        let connection = Vix::started().connect(false).expect("a connection");
        connection.must_create(&base, Spec::new(Kind::Sparse, SECTORS));
        // The parent holds data in every second piece of 1000 sectors, so that grains are copied up partly.
        let in_parent = |sector: u64| (sector / 1000).is_multiple_of(2);
        let disk = connection.must_open(&base, flags::READ_WRITE);
        for start in (0..SECTORS).step_by(1000).filter(|start| in_parent(*start)) {
            let count = 1000.min(SECTORS - start);
            disk.must_write(start, &model::stamps(start, count, 1));
        }
        assert_eq!(disk.close(), code::OK);
        let options = ["create", "-q", "-f", "vmdk", "-o", "backing_fmt=vmdk,backing_file=b.vmdk"];
        check(qemu_img(options).arg(&path).current_dir(folder.path()));
        let base_before = std::fs::read(&base).expect("the parent");

        let mut ledger = Ledger::new((0..SECTORS).map(|sector| u64::from(in_parent(sector))));
        let mut rounds = short_rounds(8, 1, 400);
        for (seed, run_for) in [(420, 1900), (421, 2600), (422, 3300)] {
            rounds.push(Round { seed, cycles: false, threads: 1, run_for: Duration::from_millis(run_for) });
        }
        let test = "a_killed_process_loses_at_most_the_last_second_of_a_child";
        for round in &rounds {
            let what = format!("child, round {}", round.seed);
            let (report, killed_at) = kill_a_writer(test, &path, round);
            let flushed = report.iter().rev().find_map(|said| match said {
                Said::Flushed { version } => Some(*version),
                _ => None,
            });
            let limit = killed_at - u64::try_from(CHILD_DELAY.as_millis()).expect("a small number");
            ledger.add(&report, |version, at| at < limit || flushed.is_some_and(|f| version <= f));
            if round.seed % 2 == 0 {
                look(&ledger, &connection, &path, &what);
            }
            reopen_for_writing(&connection, &path, &what);
            ledger.verify(&connection, &path, &what);
            assert!(!is_unclean(&path), "{what}: clean after a clean close");
            tools::qemu_check(&path);
            vix::forget_log();
        }
        assert!(std::fs::read(&base).expect("the parent") == base_before, "the parent is untouched");
    });
}

/// A lock of a live process holds, that of a killed one is taken over at once.
#[test]
fn the_lock_of_a_killed_process_is_taken_over() {
    in_child(|| {
        if let Ok(disk) = std::env::var(DISK) {
            write_for_ever(&disk);
        }
        let folder = scratch::folder();
        let path = folder.path().join("d.vmdk");
        let connection = Vix::started().connect(false).expect("a connection");
        connection.must_create(&path, Spec::new(Kind::Sparse, SECTORS));
        let test = "the_lock_of_a_killed_process_is_taken_over";
        let disk = path.to_str().expect("text");
        let mut writer = child::start_reporting(test, &[(DISK, disk), (SEED, "1"), (THREADS, "1")]);
        let mut first = [0u8; 32];
        writer.report.read_exact(&mut first).expect("its first write");
        let drain = std::thread::spawn(move || std::io::copy(&mut writer.report, &mut std::io::sink()));
        assert_eq!(
            connection.open(&path, flags::READ_WRITE).err(),
            Some(code::ALREADY_LOCKED),
            "while it lives"
        );
        assert!(path.with_extension("vmdk.lck").is_dir(), "the VMware-compatible lock is there");
        writer.child.kill().expect("killing the writer");
        writer.child.wait().expect("the writer");
        let _ = drain.join();
        reopen_for_writing(&connection, &path, "after it died");
        assert!(!path.with_extension("vmdk.lck").exists(), "the lock is gone after Close");
    });
}
