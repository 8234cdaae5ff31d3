use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use parking_lot::Mutex;

use super::*;
use crate::logging::Sink;

const NO_WAIT: Duration = Duration::ZERO;

/// A folder with a disk file in it.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("d.vmdk"), "").unwrap();
        Scene { folder }
    }

    fn disk(&self) -> PathBuf {
        self.folder.path().join("d.vmdk")
    }

    fn locks(&self) -> PathBuf {
        fs::canonicalize(self.folder.path()).unwrap().join("d.vmdk.lck")
    }

    fn lock(&self) -> Result<DiskLock> {
        DiskLock::acquire(&self.disk(), NO_WAIT, &Log::none())
    }

    /// Puts a foreign member file beside the disk.
    fn put(&self, name: &str, text: &[u8]) -> PathBuf {
        fs::create_dir_all(self.locks()).unwrap();
        let path = self.locks().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn put_member(&self, change: impl FnOnce(&mut Member)) -> PathBuf {
        let mut member = Owner::current().member(1, location_hash(&self.locks()));
        change(&mut member);
        self.put("M00000.lck", &member.to_bytes().unwrap())
    }

    fn left(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.locks()) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn make_old(path: &Path) {
    let file = fs::File::open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
}

/// The start time of a process that lives as long as this test.
fn other_process() -> (std::process::Child, String) {
    let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let start = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().to_owned();
    let execution = format!("{}-{start}(sleep)", child.id());
    (child, execution)
}

#[test]
fn a_held_lock_is_one_file_of_512_bytes_that_names_this_process() {
    let scene = Scene::new();
    let lock = scene.lock().unwrap();
    let names = scene.left();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].len() == 10 && names[0].starts_with('M') && names[0].ends_with(".lck"), "{names:?}");
    let text = fs::read(scene.locks().join(&names[0])).unwrap();
    assert_eq!(text.len(), 512);
    let text = String::from_utf8(text).unwrap();
    let text = text.trim_end_matches('\0');
    let fields: Vec<_> = text.split(' ').collect();
    assert_eq!(fields.len(), 6, "{text}");
    assert_eq!(fields[0].len(), 16);
    assert!(fields[1].starts_with(&format!("{}-", std::process::id())) && fields[1].ends_with(')'), "{text}");
    assert_eq!((fields[2], fields[3]), ("1", "X"));
    assert!(fields[1].contains(&format!("-{}(", fields[4])), "{text}");
    assert_eq!(fields[5], format!("lc={}", location_hash(&scene.locks())));
    lock.release();
    assert!(!scene.locks().exists());
}

#[test]
fn the_hash_of_the_folder_is_djb2() {
    assert_eq!(location_hash(Path::new("")), 5381);
    assert_eq!(location_hash(Path::new("a")), 177_670);
    assert_eq!(location_hash(Path::new("é")), (5381u32 * 33 - 61) * 33 - 87); // bytes c3 a9 as signed
}

#[test]
fn a_second_opening_in_the_same_process_is_refused_by_name() {
    let scene = Scene::new();
    let first = scene.lock().unwrap();
    let error = scene.lock().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    let text = error.to_string();
    assert!(text.contains(&format!("{}-", std::process::id())) && text.contains(".lck"), "{text}");
    assert_eq!(scene.left().len(), 1, "the refused one leaves nothing behind");
    drop(first);
    scene.lock().unwrap();
}

#[test]
fn another_name_of_the_file_leads_to_the_same_lock() {
    let scene = Scene::new();
    let link = scene.folder.path().join("link.vmdk");
    std::os::unix::fs::symlink(scene.disk(), &link).unwrap();
    let _first = scene.lock().unwrap();
    assert_eq!(DiskLock::acquire(&link, NO_WAIT, &Log::none()).unwrap_err().kind(), ErrorKind::Locked);
}

#[test]
fn releasing_twice_is_harmless() {
    let scene = Scene::new();
    let lock = scene.lock().unwrap();
    lock.release();
    let second = scene.lock().unwrap();
    lock.release();
    drop(lock);
    assert_eq!(scene.left().len(), 1);
    drop(second);
}

#[test]
fn a_forked_copy_releases_nothing() {
    let scene = Scene::new();
    let mut copy = scene.lock().unwrap();
    let parent = copy.pid;
    copy.pid += 1; // as if the lock had been taken by the process we were forked from
    copy.release();
    assert_eq!(scene.left().len(), 1);
    (copy.pid, copy.held) = (parent, AtomicBool::new(true));
    drop(copy);
    assert!(!scene.locks().exists());
}

#[test]
fn waiting_ends_when_the_holder_leaves() {
    let scene = Scene::new();
    let first = scene.lock().unwrap();
    let started = Instant::now();
    std::thread::scope(|threads| {
        let second =
            threads.spawn(|| DiskLock::acquire(&scene.disk(), Duration::from_secs(20), &Log::none()));
        while scene.left().iter().filter(|name| name.starts_with('M')).count() < 2 && !second.is_finished() {
            std::thread::yield_now();
        }
        first.release();
        second.join().unwrap().unwrap();
    });
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn only_one_at_a_time_gets_in() {
    let scene = Scene::new();
    let inside = AtomicU32::new(0);
    let served = AtomicU32::new(0);
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                for _ in 0..4 {
                    let lock =
                        DiskLock::acquire(&scene.disk(), Duration::from_secs(60), &Log::none()).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    lock.release();
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(served.into_inner(), 32);
    assert!(!scene.locks().exists());
}

#[test]
fn a_member_whose_process_is_gone_is_removed() {
    for execution in ["4194305-77(gone)", "4194305-0", "4194305"] {
        let scene = Scene::new();
        let stale = scene.put_member(|member| member.execution = execution.into());
        let _lock = scene.lock().expect(execution);
        assert!(!stale.exists());
    }
}

#[test]
fn a_member_whose_process_number_was_given_away_is_removed() {
    let (mut child, execution) = other_process();
    let scene = Scene::new();
    let pid = child.id();
    let stale = scene.put_member(|member| member.execution = format!("{pid}-1(old)"));
    let gone = scene.lock().map(|_| stale.exists());
    let living = scene.put_member(|member| member.execution = execution);
    let held = scene.lock().map_err(|e| (e.kind(), living.exists()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!gone.unwrap());
    assert_eq!(held.unwrap_err(), (ErrorKind::Locked, true));
}

#[test]
fn a_folder_that_moved_under_a_living_process_stays_locked() {
    let (mut child, execution) = other_process();
    let scene = Scene::new();
    let member = scene.put_member(|member| (member.execution, member.location) = (execution, Some(1)));
    let held = scene.lock().map_err(|e| e.kind());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(held.unwrap_err(), ErrorKind::Locked);
    assert!(member.exists());
}

#[test]
fn a_copy_of_our_own_lock_is_removed() {
    let scene = Scene::new();
    let copy = scene.put_member(|member| member.location = Some(1));
    let _lock = scene.lock().unwrap();
    assert!(!copy.exists());
}

#[test]
fn a_member_of_another_machine_is_never_removed() {
    for machine in ["uuid=00-11-22", "AAAAAAAAAAAAAAAA"] {
        let scene = Scene::new();
        let foreign = scene.put_member(|member| {
            (member.machine, member.execution) = (machine.into(), "4194305-77(gone)".into());
        });
        make_old(&foreign);
        let error = scene.lock().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.to_string().contains(machine), "{error}");
        assert!(foreign.exists());
    }
}

#[test]
fn a_shared_member_excludes_as_well() {
    let (mut child, execution) = other_process();
    let scene = Scene::new();
    scene.put_member(|member| (member.execution, member.exclusive) = (execution, false));
    let held = scene.lock().map_err(|e| e.kind());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(held.unwrap_err(), ErrorKind::Locked);
}

#[test]
fn a_member_file_without_sense_locks_until_it_is_old() {
    let mut padded = b"machine 12-34(x) notanumber X 5".to_vec();
    padded.resize(512, 0);
    for text in [&b""[..], b"short", &[0; 512], &[0xff; 512], &padded] {
        let scene = Scene::new();
        let garbage = scene.put("M00007.lck", text);
        assert_eq!(scene.lock().unwrap_err().kind(), ErrorKind::Locked);
        assert!(garbage.exists());
        make_old(&garbage);
        let _lock = scene.lock().unwrap();
        assert!(!garbage.exists());
    }
}

#[test]
fn an_entry_without_progress_is_removed_with_its_file() {
    let scene = Scene::new();
    let entry = scene.locks().join("D00009.lck");
    fs::create_dir_all(&entry).unwrap();
    let file = scene.put("E00009.lck", b"");
    make_old(&entry);
    let _lock = scene.lock().unwrap();
    assert!(!entry.exists() && !file.exists());
}

#[test]
fn somebody_entering_is_waited_for_even_without_time_to_wait() {
    let scene = Scene::new();
    let entry = scene.locks().join("D00009.lck");
    fs::create_dir_all(&entry).unwrap();
    let started = Instant::now();
    let error = scene.lock().unwrap_err();
    assert!(started.elapsed() >= ENTERING);
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("D00009.lck"), "{error}");
    std::thread::scope(|threads| {
        let waiting =
            threads.spawn(|| DiskLock::acquire(&scene.disk(), Duration::from_secs(20), &Log::none()));
        while !scene.left().iter().any(|name| name.starts_with('M')) && !waiting.is_finished() {
            std::thread::yield_now();
        }
        fs::remove_dir(&entry).unwrap();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn an_entry_left_behind_a_moment_ago_is_outlived() {
    let scene = Scene::new();
    fs::create_dir_all(scene.locks().join("D00009.lck")).unwrap();
    DiskLock::acquire(&scene.disk(), Duration::from_millis(3500), &Log::none()).unwrap();
    fs::create_dir_all(scene.locks().join("D00009.lck")).unwrap();
    let held = DiskLock::acquire_abandoned(&scene.disk(), &Log::none()).unwrap();
    let began = Instant::now();
    assert_eq!(
        DiskLock::acquire_abandoned(&scene.disk(), &Log::none()).unwrap_err().kind(),
        ErrorKind::Locked
    );
    assert!(began.elapsed() < ENTERING, "a holder is not waited for");
    held.release();
}

#[test]
fn numbers_go_up_and_end_at_the_largest() {
    let scene = Scene::new();
    let (mut child, execution) = other_process();
    let member = scene.put_member(|member| (member.execution, member.lamport) = (execution, u32::MAX));
    let error = scene.lock().map_err(|e| e.kind());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(error.unwrap_err(), ErrorKind::Locked);
    assert!(member.exists());
}

#[test]
fn other_names_in_the_folder_are_left_alone() {
    let scene = Scene::new();
    let note = scene.put("README", b"keep me");
    let odd = scene.put("M0001.lck", b"four digits");
    let lock = scene.lock().unwrap();
    lock.release();
    assert!(note.exists() && odd.exists());
}

#[test]
fn a_file_in_place_of_the_folder_is_an_old_lock() {
    let scene = Scene::new();
    fs::write(scene.locks(), "").unwrap();
    assert_eq!(scene.lock().unwrap_err().kind(), ErrorKind::Locked);
    fs::remove_file(scene.locks()).unwrap();
    std::os::unix::fs::symlink("/nonexistent", scene.locks()).unwrap();
    assert_eq!(scene.lock().unwrap_err().kind(), ErrorKind::NotAFile);
}

#[test]
fn a_disk_that_does_not_exist_has_no_lock() {
    let scene = Scene::new();
    let missing = scene.folder.path().join("none.vmdk");
    assert_eq!(DiskLock::acquire(&missing, NO_WAIT, &Log::none()).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!scene.folder.path().join("none.vmdk.lck").exists());
}

#[test]
fn a_folder_that_takes_no_files_is_told_to_the_log() {
    struct Lines(Mutex<Vec<(Level, String)>>);
    impl Sink for Lines {
        fn line(&self, level: Level, text: &str) {
            self.0.lock().push((level, text.to_owned()));
        }
    }
    // Nobody, not even root, makes folders in sysfs.
    let path = Path::new("/sys/kernel/uevent_seqnum");
    if !path.exists() {
        eprintln!("skipped: there is no sysfs to try it on");
        return;
    }
    let lines = Arc::new(Lines(Mutex::new(Vec::new())));
    let error = DiskLock::acquire(path, NO_WAIT, &Log::new(lines.clone(), Level::Debug)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied);
    let lines = lines.0.lock();
    let (level, line) = &lines[0];
    assert_eq!((*level, lines.len()), (Level::Error, 1));
    assert!(line.starts_with(
        "FILE: FileLockCreateEntryDirectory creation failure on '/sys/kernel/uevent_seqnum.lck': "
    ));
    assert!(line.ends_with("Permission denied") || line.ends_with("Operation not permitted"), "{line}");
}
