//! The log of a host that gave no `log` function: a file in a folder that others cannot play tricks with.
//!
//! Made at the first line, never fatal: a log that cannot be had is done without. Each line is one `write`, so that threads
//! need no lock. Before each line the descriptor is compared with what was opened: hosts that become daemons close every
//! descriptor, and the number may be somebody else's by then.

use std::ffi::CString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::config::Config;
use crate::logging::Level;

/// A file that is opened at the first line.
pub struct LogFile {
    folder: PathBuf,
    name: PathBuf,
    /// The folder is under a directory that everybody can write to, so it must be ours alone.
    shared_parent: bool,
    opened: OnceLock<Option<Opened>>,
}

impl LogFile {
    /// The file that `config` names; nothing is made yet.
    pub fn new(config: &Config) -> Self {
        let chosen = config.tmp_directory().map(Path::to_path_buf);
        let shared_parent = chosen.is_none();
        let folder = chosen.unwrap_or_else(|| format!("/tmp/vmware-{}", user()).into());
        let default = || format!("vixDiskLib-{}.log", std::process::id()).into();
        let name = config.log_file().map_or_else(default, Path::to_path_buf);
        Self { folder, name, shared_parent, opened: OnceLock::new() }
    }

    /// Appends a line, if it can be done.
    pub fn line(&self, level: Level, text: &str) {
        if let Some(file) = self.opened.get_or_init(|| self.open()) {
            file.append(level, text);
        }
    }

    fn open(&self) -> Option<Opened> {
        let file = self.folder.join(&self.name); // an absolute name stands alone
        let (folder, name) = (file.parent()?, file.file_name()?);
        let _ = std::fs::DirBuilder::new().mode(0o700).create(folder);
        let folder = CString::new(folder.as_os_str().as_bytes()).ok()?;
        let name = CString::new(name.as_bytes()).ok()?;
        let follow = if self.shared_parent { libc::O_NOFOLLOW } else { 0 };
        // SAFETY: a terminated path and plain flags.
        let dir = unsafe {
            libc::open(folder.as_ptr(), libc::O_DIRECTORY | libc::O_RDONLY | libc::O_CLOEXEC | follow)
        };
        if dir < 0 {
            return None;
        }
        let private = !self.shared_parent || status(dir).is_some_and(|s| ours(&s) && s.st_mode & 0o022 == 0);
        let file = if private { open_in(dir, &name) } else { None };
        // SAFETY: `dir` was opened above and is used by nobody else.
        unsafe { libc::close(dir) };
        file
    }
}

/// Opens `name` for appending, made anew or ours already; never through a symbolic or hard link, never a pipe or device.
fn open_in(dir: i32, name: &CString) -> Option<Opened> {
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: `dir` is open, the name is terminated, the mode is given as O_CREAT demands.
    let mut fd = unsafe { libc::openat(dir, name.as_ptr(), flags | libc::O_CREAT | libc::O_EXCL, 0o600) };
    if fd < 0 {
        // SAFETY: as above, without O_CREAT.
        fd = unsafe { libc::openat(dir, name.as_ptr(), flags) };
    }
    if fd < 0 {
        return None;
    }
    match status(fd) {
        Some(s) if ours(&s) && s.st_mode & libc::S_IFMT == libc::S_IFREG && s.st_nlink == 1 => {
            Some(Opened { fd, dev: s.st_dev, ino: s.st_ino })
        }
        _ => {
            // SAFETY: `fd` was opened above and is used by nobody else.
            unsafe { libc::close(fd) };
            None
        }
    }
}

/// An open log file, and what it was when it was opened.
struct Opened {
    fd: i32,
    dev: libc::dev_t,
    ino: libc::ino_t,
}

impl Opened {
    fn still_ours(&self) -> bool {
        status(self.fd).is_some_and(|s| s.st_dev == self.dev && s.st_ino == self.ino)
    }

    fn append(&self, level: Level, text: &str) {
        if !self.still_ours() {
            return;
        }
        let mut line = String::with_capacity(text.len() + 48);
        stamp(&mut line, SystemTime::now());
        let _ = write!(line, " {level:?}: ");
        line.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
        line.push('\n');
        // SAFETY: the pointer and length are those of one live string. A short write loses the end of a line.
        unsafe { libc::write(self.fd, line.as_ptr().cast(), line.len()) };
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if self.still_ours() {
            // SAFETY: the descriptor is still the file that was opened here.
            unsafe { libc::close(self.fd) };
        }
    }
}

fn status(fd: i32) -> Option<libc::stat> {
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the buffer is a `stat`; any descriptor number may be asked about.
    if unsafe { libc::fstat(fd, status.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: fstat succeeded and has filled it.
    Some(unsafe { status.assume_init() })
}

fn ours(status: &libc::stat) -> bool {
    // SAFETY: always succeeds.
    status.st_uid == unsafe { libc::geteuid() }
}

/// The user's name for the folder: from the environment, which costs nothing and loads nothing, else the number.
fn user() -> String {
    let plain = |name: &String| {
        !name.is_empty()
            && name.len() <= 64
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    // SAFETY: always succeeds.
    match unsafe { libc::geteuid() } {
        0 => "root".to_owned(),
        number => std::env::var("USER").ok().filter(plain).unwrap_or_else(|| number.to_string()),
    }
}

/// The time as `2024-02-29T23:59:59.123Z`.
fn stamp(line: &mut String, time: SystemTime) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // The civil calendar in eras of 400 years that begin in March, so that leap days come last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let _ = write!(
        line,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        since.subsec_millis()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn log_in(folder: &Path) -> LogFile {
        let text = format!("tmpDirectory = \"{}\"\nlog.fileName = x.log", folder.display());
        LogFile::new(&Config::parse(&text).0)
    }

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
        ] {
            let mut line = String::new();
            stamp(&mut line, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(line, text);
        }
    }

    #[test]
    fn lines_are_appended_to_a_private_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.log");
        log_in(folder.path()).line(Level::Info, "one\nforged");
        log_in(folder.path()).line(Level::Error, "two");
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines.len() == 2 && lines[0].ends_with("Info: one forged") && lines[1].ends_with("Error: two")
        );
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn links_and_pipes_are_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (target, name) = (folder.path().join("target"), folder.path().join("x.log"));
        std::fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, &name).unwrap();
        log_in(folder.path()).line(Level::Info, "through a symbolic link");
        std::fs::remove_file(&name).unwrap();
        std::fs::hard_link(&target, &name).unwrap();
        log_in(folder.path()).line(Level::Info, "through a hard link");
        assert_eq!(std::fs::read(&target).unwrap(), b"");
    }

    #[test]
    fn a_descriptor_that_became_another_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let other = std::fs::File::create(folder.path().join("other")).unwrap();
        let opened = Opened { fd: std::os::fd::AsRawFd::as_raw_fd(&other), dev: 1, ino: 1 };
        opened.append(Level::Info, "not here");
        drop(opened);
        assert_eq!(other.metadata().unwrap().len(), 0, "neither written to nor closed");
    }
}
