//! The lock that VMware programs take on a disk file: a folder `d.vmdk.lck` next to it, with one file per holder.
//!
//! ```text
//! d.vmdk.lck/D12345.lck/    somebody is choosing a number (made first, removed when the member is there)
//! d.vmdk.lck/E12345.lck     his member file while it is written
//! d.vmdk.lck/M12345.lck     a member: holds the lock when no other member has a lower number
//! ```
//!
//! It is Lamport's bakery: whoever enters takes a number above all he sees, and is served when everybody with a lower
//! number has left. It works on network file systems and between machines; a member whose process is gone can only be
//! recognised on its own machine, members of other machines are never removed. Names that are none of these are left alone.
//!
//! VMware programs treat the threads of a process alike, this lock does not: two openings in one process exclude each other.

mod member;
mod owner;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::logging::Level;
use crate::logging::Log;
use crate::storage::lock::member::Member;
use crate::storage::lock::owner::Owner;

/// An exclusive lock that is held. Released by [`DiskLock::release`] or by dropping it, at any time, also while the process
/// ends. A copy of it in a forked child releases nothing.
#[derive(Debug)]
pub struct DiskLock {
    folder: PathBuf,
    /// The name of the member file in `folder`.
    name: String,
    lamport: u32,
    /// The process that took the lock.
    pid: u32,
    held: AtomicBool,
    log: Log,
}

impl DiskLock {
    /// Locks the file `path`, waiting at most `wait` for others to leave. `Locked` names who holds it.
    pub fn acquire(path: &Path, wait: Duration, log: &Log) -> Result<DiskLock> {
        Self::acquire_within(path, wait, wait.max(ENTERING), log)
    }

    /// Locks a file that probably nobody holds any more: does not wait for a holder, but outlives what somebody left who
    /// was killed while taking the lock.
    pub fn acquire_abandoned(path: &Path, log: &Log) -> Result<DiskLock> {
        Self::acquire_within(path, Duration::ZERO, ENTRY_AGE + ENTERING, log)
    }

    fn acquire_within(path: &Path, wait: Duration, entering: Duration, log: &Log) -> Result<DiskLock> {
        let folder = folder_of(path)?;
        let me = Owner::current();
        let story = || format!("locking {}", path.display());
        let entry = Entry::enter(folder, log).context(story)?;
        let lock = entry.become_member(&me, log).context(story)?;
        lock.wait_for_turn(&me, wait, entering).context(story)?;
        Ok(lock)
    }

    /// Gives the lock back. The second time, and in a forked child, nothing happens. A lock file that cannot be removed is
    /// told to the log: it stops nothing that is being closed, and is recognised as a leftover when this process is gone.
    pub fn release(&self) {
        if !self.held.swap(false, Ordering::AcqRel) || self.pid != std::process::id() {
            return;
        }
        let member = self.folder.join(&self.name);
        if let Err(e) = remove(&member) {
            self.log.warning(|| format!("the lock file {} cannot be removed: {e}", member.display()));
        }
        let _ = fs::remove_dir(&self.folder); // stays while others are in it
    }

    /// Returns when nobody is in front of this member, after waiting at most so long for holders and for who is entering.
    fn wait_for_turn(&self, me: &Owner, wait: Duration, entering: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let Some(obstacle) = self.obstacle(me, start.elapsed())? else { break };
            let limit = match obstacle {
                Obstacle::Entering(_) => entering,
                Obstacle::Holder(_) => wait,
            };
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(obstacle.into_error());
            }
            std::thread::sleep(left.min(POLL));
        }
        // Whoever took it for a leftover would not wait for it either.
        fs::symlink_metadata(self.folder.join(&self.name))
            .context(|| "the lock file was removed by somebody else")?;
        Ok(())
    }

    /// Who is in front, if anybody, `waited` after this member was made. Removes what is left over from processes that are
    /// gone.
    fn obstacle(&self, me: &Owner, waited: Duration) -> Result<Option<Obstacle>> {
        // First those who are choosing, then the members: a member appears before its entry goes away.
        for name in names(&self.folder, 'D')? {
            if self.is_older(&name, waited, ENTRY_AGE) {
                self.log.info(|| {
                    format!("lock {}: removing {name}, which makes no progress", self.folder.display())
                });
                remove(&self.folder.join(name.replacen('D', "E", 1)))
                    .context(|| format!("removing entry {name}"))?;
                let _ = fs::remove_dir(self.folder.join(&name)); // if not now, at the next look
            } else {
                return Ok(Some(Obstacle::Entering(self.folder.join(name))));
            }
        }
        for name in names(&self.folder, 'M')? {
            if name != self.name
                && let Some(obstacle) = self.judge(&name, me, waited)?
            {
                return Ok(Some(obstacle));
            }
        }
        Ok(None)
    }

    /// What the member `name` means for this one.
    fn judge(&self, name: &str, me: &Owner, waited: Duration) -> Result<Option<Obstacle>> {
        let path = self.folder.join(name);
        let reason = match read_member(&path) {
            Found::Gone => return Ok(None),
            Found::Unreadable(why) => {
                let message = format!("the lock file {} cannot be read: {why}", path.display());
                return Ok(Some(Obstacle::Holder(message)));
            }
            Found::Garbage if self.is_older(name, waited, GARBAGE_AGE) => "it is no lock file",
            Found::Garbage => {
                return Ok(Some(Obstacle::Holder(format!("the lock file {} is incomplete", path.display()))));
            }
            Found::Member(member) => match me.why_stale(&member, location_hash(&self.folder)) {
                Some(reason) => reason,
                None if (member.lamport, name) < (self.lamport, &self.name) => {
                    return Ok(Some(Obstacle::Holder(me.describe(&member, &path))));
                }
                None => return Ok(None), // it waits for us
            },
        };
        self.log.info(|| format!("lock {}: removing {name}: {reason}", self.folder.display()));
        remove(&path).context(|| format!("removing the stale lock file {}", path.display()))?;
        Ok(None)
    }

    /// True when `name` is at least `age` old, `waited` after this member was made. What was before is told by the file
    /// system's own clock, which may be another machine's.
    fn is_older(&self, name: &str, waited: Duration, age: Duration) -> bool {
        let modified = |name: &str| -> io::Result<SystemTime> {
            fs::symlink_metadata(self.folder.join(name)).and_then(|data| data.modified())
        };
        let (Ok(theirs), Ok(mine)) = (modified(name), modified(&self.name)) else { return false };
        (mine + waited).duration_since(theirs).is_ok_and(|older| older >= age)
    }
}

impl Drop for DiskLock {
    fn drop(&mut self) {
        self.release();
    }
}

/// What a member waits for.
enum Obstacle {
    /// Somebody is choosing a number.
    Entering(PathBuf),
    /// Somebody is in front; the sentence that says who.
    Holder(String),
}

impl Obstacle {
    fn into_error(self) -> Error {
        let message = match self {
            Obstacle::Entering(path) => {
                format!("somebody is taking the lock at this moment ({})", path.display())
            }
            Obstacle::Holder(message) => message,
        };
        Error::new(ErrorKind::Locked, message)
    }
}

/// An entry that was announced: its number is ours. Dropping it takes everything back.
struct Entry {
    folder: PathBuf,
    number: u32,
}

impl Entry {
    fn enter(folder: PathBuf, log: &Log) -> Result<Entry> {
        for _ in 0..ATTEMPTS {
            make_folder(&folder, log)?;
            let number = next_number();
            let entry = folder.join(name('D', number));
            match fs::create_dir(&entry) {
                Ok(()) => {}
                // Taken, or the last holder has just removed the folder.
                Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                    continue;
                }
                Err(e) => return Err(cannot_create(e, &folder, log)),
            }
            // The number may belong to a member whose entry is gone.
            match fs::symlink_metadata(folder.join(name('M', number))) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Entry { folder, number }),
                _ => drop(fs::remove_dir(&entry)),
            }
        }
        let message = format!("no free entry in {} after {ATTEMPTS} attempts", folder.display());
        Err(Error::new(ErrorKind::Locked, message))
    }

    /// Takes a number above all others and shows it.
    fn become_member(self, me: &Owner, log: &Log) -> Result<DiskLock> {
        let (entry, member) = (self.path('E'), self.path('M'));
        let highest = names(&self.folder, 'M')?.into_iter().filter_map(|name| {
            match read_member(&self.folder.join(name)) {
                Found::Member(member) => Some(member.lamport),
                _ => None,
            }
        });
        let lamport = highest.max().unwrap_or(0).saturating_add(1);
        let text = me.member(lamport, location_hash(&self.folder)).to_bytes()?;
        let written = fs::File::create_new(&entry).and_then(|mut file| file.write_all(&text));
        written.context(|| format!("writing the lock file {}", entry.display()))?;
        fs::rename(&entry, &member).context(|| format!("renaming the lock file {}", entry.display()))?;
        Ok(DiskLock {
            name: name('M', self.number),
            folder: self.folder.clone(),
            lamport,
            pid: me.pid(),
            held: AtomicBool::new(true),
            log: log.clone(),
        })
    }

    fn path(&self, kind: char) -> PathBuf {
        self.folder.join(name(kind, self.number))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // After the rename there is no E; the folder stays because of the member.
        let _ = fs::remove_file(self.path('E'));
        let _ = fs::remove_dir(self.path('D'));
        let _ = fs::remove_dir(&self.folder);
    }
}

/// What a member file turned out to be.
enum Found {
    Member(Member),
    Garbage,
    Gone,
    Unreadable(io::Error),
}

fn read_member(path: &Path) -> Found {
    let read = || -> io::Result<Option<Vec<u8>>> {
        let data = fs::symlink_metadata(path)?;
        if !data.is_file() || data.len() != member::LEN as u64 {
            return Ok(None); // a FIFO would block the opening
        }
        let mut text = Vec::with_capacity(member::LEN);
        fs::File::open(path)?.take(member::LEN as u64).read_to_end(&mut text)?;
        Ok(Some(text))
    };
    match read() {
        Ok(text) => text.and_then(|text| Member::parse(&text)).map_or(Found::Garbage, Found::Member),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Found::Gone,
        Err(e) => Found::Unreadable(e),
    }
}

/// `path` with all links resolved, plus `.lck`.
fn folder_of(path: &Path) -> Result<PathBuf> {
    let real = fs::canonicalize(path).context(|| format!("locking {}", path.display()))?;
    let mut folder = OsString::from(real);
    folder.push(SUFFIX);
    Ok(folder.into())
}

/// Makes the lock folder if it is missing. Who may write beside the disk may also take part in its lock.
fn make_folder(folder: &Path, log: &Log) -> Result<()> {
    match fs::create_dir(folder) {
        Ok(()) => {
            let parent = folder.parent().map(fs::metadata);
            if let Some(Ok(parent)) = parent {
                let mode = fs::Permissions::from_mode(parent.permissions().mode() & 0o3777 | 0o700);
                let _ = fs::set_permissions(folder, mode); // some file systems have no modes
            }
            Ok(())
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match fs::symlink_metadata(folder) {
            Ok(data) if data.is_dir() => Ok(()),
            Ok(data) if data.is_file() => {
                let message = format!("{} is a file, a lock of an old program", folder.display());
                Err(Error::new(ErrorKind::Locked, message))
            }
            Ok(_) => Err(Error::new(ErrorKind::NotAFile, format!("{} is not a folder", folder.display()))),
            Err(_) => Ok(()), // gone already: the caller tries again
        },
        Err(e) => Err(cannot_create(e, folder, log)),
    }
}

/// The line in the log is one that users and programs search for.
fn cannot_create(error: io::Error, folder: &Path, log: &Log) -> Error {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    let denied = matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem);
    let place = folder.display();
    log.say(Level::Error, || {
        let text = error.to_string();
        let reason = text.split(" (os error").next().unwrap_or(&text);
        format!("FILE: FileLockCreateEntryDirectory creation failure on '{place}': {reason}")
    });
    let error = Error::from_io(error, format!("making the lock folder {place}"));
    if denied { error.with_kind(ErrorKind::AccessDenied) } else { error }
}

fn name(kind: char, number: u32) -> String {
    format!("{kind}{number:05}{SUFFIX}")
}

/// The names `X12345.lck` in the lock folder. A folder that is gone has none.
fn names(folder: &Path, kind: char) -> Result<Vec<String>> {
    let story = || format!("reading the lock folder {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(story)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.context(story)?.file_name();
        let Some(name) = name.to_str() else { continue };
        let digits = name.strip_prefix(kind).and_then(|rest| rest.strip_suffix(SUFFIX));
        if digits.is_some_and(|digits| digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit())) {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// 16 bits that differ between processes and calls; a collision is found out and costs another attempt.
fn next_number() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mixed = (now.subsec_nanos() ^ std::process::id().rotate_left(16))
        .wrapping_add(count)
        .wrapping_mul(0x9e37_79b1);
    mixed >> 16
}

/// The hash by which VMware recognises a lock folder that was copied or moved: of its path, bytes taken as signed.
fn location_hash(folder: &Path) -> u32 {
    let bytes = folder.as_os_str().as_bytes();
    bytes
        .iter()
        .fold(5381u32, |hash, &b| hash.wrapping_mul(33).wrapping_add_signed(i32::from(b.cast_signed())))
}

const SUFFIX: &str = ".lck";
/// How often the folder is looked at while waiting.
const POLL: Duration = Duration::from_millis(50);
/// Entering takes microseconds: worth waiting for even when there is no time to wait for a holder.
const ENTERING: Duration = Duration::from_secs(1);
/// An entry older than this was left behind: less than what callers wait for a holder, so that the one after a crash is let in.
const ENTRY_AGE: Duration = Duration::from_millis(2500);
/// A member file without sense may still be being written for this long.
const GARBAGE_AGE: Duration = Duration::from_secs(8);
/// Attempts to get an entry; more than enough for as many collisions.
const ATTEMPTS: u32 = 100;

#[cfg(test)]
mod tests;
