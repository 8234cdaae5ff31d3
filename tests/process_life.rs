//! The library inside a process: starting and ending it again and again, open handles at the end, fork, unloading, signals,
//! silence on the standard streams.

#[macro_use]
mod common;

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use common::abi::Bench;
use common::abi::Language;
use common::abi::under_valgrind;
use common::child::in_child;
use common::model;
use common::model::stamps;
use common::process;
use common::scratch;
use common::tools;
use common::tools::check;
use common::vix;
use common::vix::Completions;
use common::vix::Kind;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;

/// A sparse disk of 8 MiB with stamps in every second grain.
fn sample(vix: &Vix, folder: &Path) -> PathBuf {
    let path = folder.join("d.vmdk");
    let connection = vix.connect(false).expect("a connection");
    connection.must_create(&path, Spec::new(Kind::Sparse, 16_384));
    let disk = connection.must_open(&path, flags::READ_WRITE);
    for start in (0..16_384).step_by(256) {
        disk.must_write(start, &stamps(start, 128, 2));
    }
    assert_eq!(disk.close(), code::OK);
    path
}

/// Opens, reads asynchronously, queries and closes.
fn some_work(vix: &Vix, path: &Path) {
    let connection = vix.connect(true).expect("a connection");
    let disk = connection.must_open(path, flags::READ_ONLY);
    let pieces: Vec<(u64, u64)> = (0..64).map(|n| (n * 256, 128)).collect();
    let bytes = disk.read_many(&pieces, 8, 3).expect("reads");
    for (n, part) in bytes.chunks(512).enumerate() {
        let sector = n as u64 / 128 * 256 + n as u64 % 128;
        assert_eq!(model::version_of(sector, part), Ok(2));
    }
    assert_eq!(disk.allocated_all(128).len(), 64);
    assert_eq!(disk.close(), code::OK);
    assert_eq!(connection.disconnect(), code::OK);
}

/// Waits for a condition that another thread of the kernel or library makes true.
fn settles(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > Duration::from_secs(2) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

#[test]
fn a_hundred_starts_and_ends_leave_no_thread_and_no_descriptor() {
    in_child(|| {
        let folder = scratch::folder();
        let vix = Vix::load();
        assert_eq!(vix.init(), code::OK);
        let path = sample(&vix, folder.path());
        some_work(&vix, &path);
        vix.exit();
        let (threads, descriptors) = (process::threads(), process::descriptors());
        for round in 0..100 {
            assert_eq!(vix.init(), code::OK, "round {round}");
            some_work(&vix, &path);
            vix.exit();
            let names = process::thread_names();
            assert!(!names.iter().any(|name| name.starts_with("vix-")), "round {round}: {names:?}");
            assert_eq!(process::threads(), threads, "round {round}: {names:?}");
            assert_eq!(process::descriptors(), descriptors, "round {round}");
            vix::forget_log();
        }
    });
}

#[test]
fn no_thread_exists_before_a_connection() {
    in_child(|| {
        let before = process::threads();
        let vix = Vix::load();
        assert_eq!(process::threads(), before, "loading starts no thread");
        assert_eq!(vix.init(), code::OK);
        assert_eq!(process::threads(), before, "InitEx starts no thread");
        vix.exit();
    });
}

#[test]
fn starts_are_counted_and_only_the_last_end_ends() {
    in_child(|| {
        let folder = scratch::folder();
        let vix = Vix::load();
        for (major, minor) in [(6, 5), (1, 0), (8, 0)] {
            assert_eq!(vix.init_version(major, minor), code::OK);
        }
        let path = sample(&vix, folder.path());
        let connection = vix.connect(true).expect("a connection");
        let disk = connection.must_open(&path, flags::READ_ONLY);
        vix.exit();
        vix.exit();
        assert_eq!(model::version_of(0, &disk.must_read(0, 1)), Ok(2), "still started");
        vix.exit();
        assert_ne!(disk.read(0, &mut [0; 512]), code::OK, "ended");
        vix.exit(); // one too many is harmless
        assert_eq!(vix.init(), code::OK);
        some_work(&vix, &path);
        vix.exit();
    });
}

#[test]
fn a_version_above_ours_is_refused_and_leaves_the_library_usable() {
    in_child(|| {
        let vix = Vix::load();
        assert_ne!(vix.init_version(99, 0), code::OK);
        assert_eq!(vix.connect(true).err(), Some(code::NOINIT));
        assert_eq!(vix.init_version(8, 0), code::OK);
        assert!(vix.connect(true).is_ok());
        vix.exit();
    });
}

#[test]
fn what_was_written_survives_an_end_with_open_handles() {
    in_child(|| {
        let folder = scratch::folder();
        let vix = Vix::load();
        let path = folder.path().join("d.vmdk");
        for round in 1..=3 {
            assert_eq!(vix.init(), code::OK);
            let connection = vix.connect(false).expect("a connection");
            if round == 1 {
                connection.must_create(&path, Spec::new(Kind::Sparse, 100_000));
            }
            let disk = connection.must_open(&path, flags::READ_WRITE);
            for start in (0..90_000).step_by(1000) {
                disk.must_write(start, &stamps(start, 7, round));
            }
            vix.exit();
            assert_ne!(disk.read(0, &mut [0; 512]), code::OK, "the handle is dead");
            assert_ne!(disk.write(0, &[0; 512]), code::OK, "the handle is dead");
            disk.leak();
            connection.leak();
            assert!(!path.with_extension("vmdk.lck").exists(), "the lock is released");
            assert_eq!(vix.init(), code::OK);
            let connection = vix.connect(false).expect("a connection");
            let disk = connection.must_open(&path, flags::READ_WRITE);
            for start in (0..90_000).step_by(1000) {
                assert_eq!(disk.must_read(start, 7), stamps(start, 7, round), "round {round}");
            }
            assert_eq!(disk.close(), code::OK);
            drop(connection);
            vix.exit();
        }
    });
}

/// Exit while requests are in flight: each completes exactly once, before Exit returns, and an acknowledged write is there.
#[test]
fn an_end_with_requests_in_flight_completes_each_exactly_once() {
    in_child(|| {
        let folder = scratch::folder();
        let vix = Vix::load();
        let path = folder.path().join("d.vmdk");
        for round in 1..=20 {
            assert_eq!(vix.init(), code::OK);
            let connection = vix.connect(false).expect("a connection");
            if round == 1 {
                connection.must_create(&path, Spec::new(Kind::Sparse, 100_000));
            }
            let disk = connection.must_open(&path, flags::READ_WRITE);
            let completions = Completions::default();
            let data: Vec<Vec<u8>> = (0..64).map(|n| stamps(n * 1000, 128, round)).collect();
            let mut accepted = Vec::new();
            for (n, bytes) in data.iter().enumerate() {
                let start = n as u64 * 1000;
                #[allow(unsafe_code)] // the data outlives Exit, which completes everything
                // SAFETY: as said.
                let result = unsafe { disk.write_async(start, bytes.as_ptr(), 128, start, &completions) };
                if result == code::ASYNC {
                    accepted.push(start);
                }
            }
            vix.exit();
            let mut done = completions.take();
            done.sort_unstable();
            let ids: Vec<u64> = done.iter().map(|(id, _)| *id).collect();
            assert_eq!(ids, accepted, "round {round}: exactly once, before Exit returns");
            disk.leak();
            connection.leak();
            assert_eq!(vix.init(), code::OK);
            let connection = vix.connect(true).expect("a connection");
            let disk = connection.must_open(&path, flags::READ_ONLY);
            for (start, result) in done {
                if result == code::OK {
                    assert_eq!(disk.must_read(start, 128), stamps(start, 128, round), "round {round}");
                }
            }
            drop((disk, connection));
            vix.exit();
        }
    });
}

/// Exit races with calls of other threads: no crash, no hang, and each call answers.
#[test]
fn an_end_during_calls_of_other_threads_is_clean() {
    in_child(|| {
        let folder = scratch::folder();
        let vix = Vix::load();
        assert_eq!(vix.init(), code::OK);
        let path = sample(&vix, folder.path());
        vix.exit();
        for round in 0..30u64 {
            assert_eq!(vix.init(), code::OK);
            let connection = vix.connect(true).expect("a connection");
            let disk = connection.must_open(&path, flags::READ_ONLY);
            let calls = std::sync::atomic::AtomicU64::new(0);
            std::thread::scope(|scope| {
                for n in 0..4 {
                    let (disk, connection, path, calls) = (&disk, &connection, &path, &calls);
                    scope.spawn(move || {
                        let mut buf = vec![0u8; 128 * 512];
                        loop {
                            let result = match n {
                                0 => disk.read(256, &mut buf),
                                1 => disk.allocated(0, 16_384, 128).err().unwrap_or(code::OK),
                                2 => disk.read_many(&[(0, 128), (256, 128)], 2, 0).err().unwrap_or(code::OK),
                                _ => match connection.open(path, flags::READ_ONLY) {
                                    Ok(disk) => {
                                        drop(disk);
                                        code::OK
                                    }
                                    Err(e) => e,
                                },
                            };
                            if result != code::OK {
                                return;
                            }
                            calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    });
                }
                assert!(settles(|| calls.load(std::sync::atomic::Ordering::Relaxed) > round * 3));
                vix.exit();
            });
            disk.leak();
            connection.leak();
            vix::forget_log();
        }
        assert!(settles(|| !process::thread_names().iter().any(|name| name.starts_with("vix-"))));
    });
}

#[test]
fn a_connection_that_ends_first_takes_its_disks_along() {
    in_child(|| {
        let folder = scratch::folder();
        let vix = Vix::started();
        let path = sample(vix, folder.path());
        let connection = vix.connect(false).expect("a connection");
        let disk = connection.must_open(&path, flags::READ_WRITE);
        disk.must_write(3, &stamps(3, 1, 7));
        assert_eq!(connection.disconnect_again(), code::OK);
        assert_eq!(disk.read(0, &mut [0; 512]), code::INVALID_HANDLE, "the disk went with it");
        assert_eq!(disk.close_again(), code::OK, "Close after Disconnect is what some programs do");
        assert_eq!(disk.close_again(), code::INVALID_HANDLE, "but once");
        assert_eq!(connection.disconnect_again(), code::INVALID_CONNECTION, "Disconnect works once");
        disk.leak();
        connection.leak();
        let connection = vix.connect(true).expect("a connection");
        let disk = connection.must_open(&path, flags::READ_ONLY);
        assert_eq!(disk.must_read(3, 1), stamps(3, 1, 7));
        assert_eq!(disk.close(), code::OK);
    });
}

#[test]
fn a_closed_handle_is_dead_for_every_call() {
    in_child(|| {
        let folder = scratch::folder();
        let vix = Vix::started();
        let path = sample(vix, folder.path());
        let connection = vix.connect(true).expect("a connection");
        let disk = connection.must_open(&path, flags::READ_ONLY);
        assert_eq!(disk.close_again(), code::OK);
        assert_eq!(disk.close_again(), code::INVALID_HANDLE);
        assert_eq!(disk.read(0, &mut [0; 512]), code::INVALID_HANDLE);
        assert_eq!(disk.write(0, &[0; 512]), code::INVALID_HANDLE);
        assert_eq!(disk.flush(), code::INVALID_HANDLE);
        assert_eq!(disk.wait(), code::INVALID_HANDLE);
        assert_eq!(disk.allocated(0, 128, 128).err(), Some(code::INVALID_HANDLE));
        assert_eq!(disk.set_metadata("a", "b"), code::INVALID_HANDLE);
        assert_eq!(disk.metadata("adapterType").err(), Some(code::INVALID_HANDLE));
        assert_eq!(disk.read_many(&[(0, 1)], 1, 0).err(), Some(code::INVALID_HANDLE));
        assert_eq!(disk.transport(), "");
        // A disk opened now must not answer to the old handle.
        let other = connection.must_open(&path, flags::READ_ONLY);
        assert_eq!(disk.read(0, &mut [0; 512]), code::INVALID_HANDLE);
        disk.leak();
        assert_eq!(other.close(), code::OK);
    });
}

// --------------------------------------------------------------------------------------------------------- fork

/// The child of a fork sees clean errors from what it inherited, can start anew, and the parent does not notice.
#[test]
fn a_fork_child_gets_clean_errors_and_can_start_anew() {
    in_child(|| {
        let folder = scratch::folder();
        let vix = Vix::load();
        assert_eq!(vix.init(), code::OK);
        let path = sample(&vix, folder.path());
        let connection = vix.connect(false).expect("a connection");
        let disk = connection.must_open(&path, flags::READ_WRITE);
        disk.must_write(1, &stamps(1, 1, 3));
        // Make the workers exist before the fork.
        disk.read_many(&[(0, 128), (256, 128)], 2, 0).expect("reads");
        let status = process::in_fork(|| {
            let refused = |result: u64| result == code::INVALID_HANDLE || result == code::NOINIT;
            let checks = [
                refused(disk.read(0, &mut [0; 512])),
                refused(disk.write(0, &[9; 512])),
                refused(disk.flush()),
                disk.read_many(&[(0, 1)], 1, 0).is_err(),
                connection.open(&path, flags::READ_ONLY).is_err(),
                disk.close_again() != code::OK,
                connection.disconnect_again() != code::OK,
            ];
            if let Some(n) = checks.iter().position(|ok| !ok) {
                return 10 + n as i32;
            }
            vix.exit(); // must not wait for threads that are not there
            if vix.init() != code::OK {
                return 30;
            }
            let Ok(connection) = vix.connect(true) else { return 31 };
            let Ok(disk) = connection.open(&path, flags::READ_ONLY) else { return 32 };
            if disk.read_many(&[(0, 128)], 1, 0).is_err() {
                return 33;
            }
            if disk.close() != code::OK {
                return 34;
            }
            drop(connection);
            vix.exit();
            0
        });
        assert_eq!(status, 0, "the fork child (negative: a signal, SIGALRM = -14 is a hang)");
        disk.must_write(2, &stamps(2, 1, 3));
        assert_eq!(disk.must_read(1, 2), stamps(1, 2, 3), "the parent works on");
        assert!(path.with_extension("vmdk.lck").exists(), "the child has not released the parent's lock");
        assert_eq!(disk.close(), code::OK);
        drop(connection);
        vix.exit();
    });
}

/// Forks while other threads are inside the library: no lock is found held for ever in the child.
#[test]
fn a_fork_during_calls_of_other_threads_does_not_hang_the_child() {
    in_child(|| {
        let folder = scratch::folder();
        let vix = Vix::load();
        assert_eq!(vix.init(), code::OK);
        let path = sample(&vix, folder.path());
        let connection = vix.connect(true).expect("a connection");
        let disk = connection.must_open(&path, flags::READ_ONLY);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for n in 0..3 {
                let (disk, connection, path, stop) = (&disk, &connection, &path, &stop);
                scope.spawn(move || {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        match n {
                            0 => assert_eq!(disk.read(0, &mut [0; 512]), code::OK),
                            1 => drop(connection.must_open(path, flags::READ_ONLY)),
                            _ => drop(disk.read_many(&[(0, 128); 4], 4, 0)),
                        }
                        vix::forget_log();
                    }
                });
            }
            let statuses: Vec<i32> = (0..40)
                .map(|_| {
                    process::in_fork(|| {
                        vix::mute(); // the lock of the capture may be held at the moment of the fork
                        let read = disk.read(0, &mut [0; 512]);
                        if read == code::OK {
                            return 1;
                        }
                        if disk.close_again() == code::OK {
                            return 2;
                        }
                        0
                    })
                })
                .collect();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(statuses.iter().all(|status| *status == 0), "{statuses:?}");
        });
        drop((disk, connection));
        vix.exit();
    });
}

#[test]
fn a_fork_child_that_never_starts_the_library_can_run_a_program() {
    in_child(|| {
        let folder = scratch::folder();
        let vix = Vix::started();
        let path = sample(vix, folder.path());
        let connection = vix.connect(false).expect("a connection");
        let disk = connection.must_open(&path, flags::READ_WRITE);
        disk.read_many(&[(0, 128)], 1, 0).expect("a read");
        let said = check(Command::new("ls").arg("-l").arg("/proc/self/fd")).out();
        let inherited: Vec<_> = said.lines().filter(|line| line.contains(".vmdk")).collect();
        assert!(inherited.is_empty(), "descriptors are closed on exec: {inherited:?}");
        assert_eq!(disk.close(), code::OK);
    });
}

// --------------------------------------------------------------------------------------- unloading, signals, streams

#[test]
fn the_library_unloads_after_its_end_and_loads_again() {
    in_child(|| {
        let folder = scratch::folder();
        let path = {
            let vix = Vix::load();
            assert_eq!(vix.init(), code::OK);
            let path = sample(&vix, folder.path());
            vix.exit();
            path
        };
        for _ in 0..20 {
            let vix = Vix::load();
            assert_eq!(vix.init(), code::OK);
            some_work(&vix, &path);
            vix.exit();
            drop(vix);
            vix::forget_log();
        }
        // Loaded and unloaded without ever being started, as nbdkit does before it runs itself again.
        for _ in 0..5 {
            drop(Vix::load());
        }
    });
}

#[test]
fn no_signal_handler_and_no_process_state_changes() {
    in_child(|| {
        process::default_signal(libc::SIGPIPE);
        let state = || {
            let folder = std::env::current_dir().expect("a folder");
            let mask = std::fs::read_to_string("/proc/thread-self/status").expect("/proc");
            let lines = ["Umask:", "SigBlk:", "SigIgn:", "SigCgt:"];
            let mask: Vec<String> =
                mask.lines().filter(|l| lines.iter().any(|n| l.starts_with(n))).map(str::to_owned).collect();
            let environment: Vec<_> = std::env::vars_os().collect();
            (folder, mask, environment, process::signal_handlers())
        };
        let before = state();
        let folder = scratch::folder();
        let vix = Vix::load();
        assert_eq!(vix.init(), code::OK);
        let path = sample(&vix, folder.path());
        some_work(&vix, &path);
        assert_eq!(state(), before, "while it runs");
        let connection = vix.connect(true).expect("a connection");
        assert!(connection.open(Path::new("/nonexistent/x.vmdk"), flags::READ_ONLY).is_err());
        drop(connection);
        vix.exit();
        assert_eq!(state(), before, "after its end");
    });
}

#[test]
fn nothing_is_written_to_the_standard_streams() {
    in_child(|| {
        let folder = scratch::folder();
        let path = folder.path().join("streams");
        let file = std::fs::File::create(&path).expect("a file");
        let old = process::capture_output(&file);
        let vix = Vix::load();
        assert_eq!(vix.init(), code::OK);
        let disk = sample(&vix, folder.path());
        some_work(&vix, &disk);
        let connection = vix.connect(false).expect("a connection");
        for wrong in ["/nonexistent/x.vmdk", "/dev/null", "/", ""] {
            assert!(connection.open(Path::new(wrong), flags::READ_ONLY).is_err(), "{wrong}");
        }
        std::fs::write(folder.path().join("no.vmdk"), vec![0xFFu8; 5000]).expect("a file");
        assert!(connection.open(&folder.path().join("no.vmdk"), flags::READ_WRITE).is_err());
        drop(connection);
        vix.exit();
        process::restore_output(old);
        let said = std::fs::read_to_string(&path).expect("the file");
        assert_eq!(said, "", "standard output and error stay empty");
    });
}

#[test]
fn library_threads_take_no_signals_of_the_host() {
    in_child(|| {
        let folder = scratch::folder();
        let vix = Vix::started();
        let path = sample(vix, folder.path());
        let connection = vix.connect(true).expect("a connection");
        let disk = connection.must_open(&path, flags::READ_ONLY);
        let pieces: Vec<(u64, u64)> = (0..64).map(|n| (n * 256, 128)).collect();
        disk.read_many(&pieces, 16, 0).expect("reads");
        let mut looked_at = 0;
        for task in std::fs::read_dir("/proc/self/task").expect("/proc") {
            let folder = task.expect("a task").path();
            let Ok(status) = std::fs::read_to_string(folder.join("status")) else { continue };
            let value = |name: &str| {
                status.lines().find_map(|line| line.strip_prefix(name)).expect("a line").trim().to_owned()
            };
            if value("Name:").starts_with("vix-") {
                looked_at += 1;
                let blocked = u64::from_str_radix(&value("SigBlk:"), 16).expect("a mask");
                for signal in
                    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGCHLD, libc::SIGALRM, libc::SIGUSR1]
                {
                    assert!(blocked & (1 << (signal - 1)) != 0, "{}: signal {signal}", value("Name:"));
                }
            }
        }
        if looked_at == 0 {
            // Completing on the submitting thread needs no thread, which is as good.
            assert!(!process::thread_names().iter().any(|name| name.starts_with("vix-io")));
        }
        assert_eq!(disk.close(), code::OK);
    });
}

// ------------------------------------------------------------------------------------------------- C programs

/// The program that tears everything down as Bareos does, and the disk it makes.
fn tearing_down(bench: &Bench) -> (PathBuf, PathBuf) {
    (bench.compile("process_atexit", Language::C), bench.path("d.vmdk"))
}

/// The order of Bareos: everything is torn down from an `atexit` handler, with the parameters still set.
#[test]
fn tearing_down_in_an_atexit_handler_works() {
    requires!("gcc");
    let bench = Bench::new();
    let (program, path) = tearing_down(&bench);
    let said = check(Command::new(&program).arg(&path)).text();
    assert!(said.contains("torn down"), "{said}");
}

#[test]
fn tearing_down_in_an_atexit_handler_is_clean_under_valgrind() {
    requires!("gcc", "valgrind");
    let bench = Bench::new();
    let (program, path) = tearing_down(&bench);
    check(under_valgrind(&program).arg(&path));
}

/// A process that ends without Exit, as Bareos does on early errors.
#[test]
fn a_process_that_ends_without_exit_loses_nothing() {
    requires!("gcc", "qemu-img");
    let bench = Bench::new();
    let (program, path) = tearing_down(&bench);
    let outcome = tools::run(Command::new(&program).arg(&path).arg("leave"));
    assert_eq!(outcome.status.code(), Some(7), "{}", outcome.text());
    in_child_check(&path);
}

fn in_child_check(path: &Path) {
    // The disk was left open: its content is read without a repair, then it is opened for writing.
    let vix = Vix::load();
    assert_eq!(vix.init(), code::OK);
    let connection = vix.connect(false).expect("a connection");
    for flag in [flags::READ_ONLY, flags::READ_WRITE] {
        let disk = connection.must_open(path, flag);
        let bytes = disk.must_read(300, 200);
        assert!(bytes.iter().all(|b| *b == 0x5A), "flags {flag}");
        assert_eq!(disk.close(), code::OK);
    }
    drop(connection);
    vix.exit();
    tools::qemu_check(path);
}
