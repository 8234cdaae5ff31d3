//! What only system calls can do to a process: limits, identity, what it used.
#![allow(unsafe_code)] // system calls of a test's own process

use std::path::Path;

/// Bounds the address space of this process.
pub fn limit_address_space(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: a plain structure that is read.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(result, 0, "setrlimit: {}", std::io::Error::last_os_error());
}

/// Sets a variable of this process, which no other test shares.
pub fn set_variable(name: &str, value: &Path) {
    // SAFETY: the other thread of this process waits for the one that runs the test.
    unsafe { std::env::set_var(name, value) };
}

/// True for root, to whom permission bits do not apply.
pub fn is_root() -> bool {
    // SAFETY: reads the identity.
    unsafe { libc::geteuid() == 0 }
}

/// Gives up root for good; permission bits apply from here on. Nothing to do for everybody else.
pub fn drop_privileges() {
    const NOBODY: u32 = 65534;
    if !is_root() {
        return;
    }
    // SAFETY: changes the identity of this process, which no other test shares.
    let results =
        unsafe { [libc::setgroups(0, std::ptr::null()), libc::setgid(NOBODY), libc::setuid(NOBODY)] };
    assert_eq!(results, [0, 0, 0], "dropping privileges: {}", std::io::Error::last_os_error());
}

/// Runs the body as the unprivileged identity, in all threads of this process, and is root again afterwards. As it is for
/// everybody else.
pub fn unprivileged<T>(body: impl FnOnce() -> T) -> T {
    const NOBODY: u32 = 65534;
    let change = |id: u32| {
        // SAFETY: changes the effective identity of this process, which no other test shares. The group goes first while
        // this is root, and comes back last when it is root again.
        let results = unsafe {
            if id == 0 {
                [libc::seteuid(0), libc::setegid(0)]
            } else {
                [libc::setegid(id), libc::seteuid(id)]
            }
        };
        assert_eq!(results, [0, 0], "changing the identity: {}", std::io::Error::last_os_error());
    };
    if !is_root() {
        return body();
    }
    change(NOBODY);
    let result = body();
    change(0);
    result
}

/// Gives a file or folder to the unprivileged identity.
pub fn give_away(path: &Path) {
    if is_root() {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).expect("chown");
    }
}

/// The largest resident size so far, in bytes.
pub fn peak_resident() -> u64 {
    kib("VmHWM:") * 1024
}

/// The size of the address space, in bytes.
pub fn address_space() -> u64 {
    kib("VmSize:") * 1024
}

/// The resident size, in bytes.
pub fn resident() -> u64 {
    kib("VmRSS:") * 1024
}

fn kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of /proc/self/status");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

/// Makes [`peak_resident`] start again from the present size.
pub fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").expect("resetting the peak");
}

/// Mounts a file system of so many bytes on a folder, seen by this process alone and gone with it.
pub fn mount_small(folder: &Path, bytes: u64) -> Result<(), String> {
    own_mounts()?;
    let (size, folder) = (format!("size={bytes}"), folder.to_str().expect("text"));
    tool("mount", &["-t", "tmpfs", "-o", &size, "none", folder])
}

/// The same with a file system of a certain kind, which stands in the new file `image`.
pub fn mount_made(folder: &Path, image: &Path, bytes: u64, make: &[&str]) -> Result<(), String> {
    own_mounts()?;
    std::fs::File::create_new(image).and_then(|file| file.set_len(bytes)).map_err(|e| e.to_string())?;
    let (image, folder) = (image.to_str().expect("text"), folder.to_str().expect("text"));
    let (program, arguments) = make.split_first().expect("a program");
    tool(program, &[arguments, &[image]].concat())?;
    tool("mount", &["-o", "loop", image, folder])
}

/// Gives this process, which no other test shares, a mount table of its own.
fn own_mounts() -> Result<(), String> {
    // SAFETY: changes what this process sees, nothing else.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(std::io::Error::last_os_error().to_string());
    }
    tool("mount", &["--make-rprivate", "/"])
}

fn tool(name: &str, arguments: &[&str]) -> Result<(), String> {
    super::scratch::program(name)?;
    let outcome = super::tools::run(std::process::Command::new(name).args(arguments));
    if outcome.status.success() { Ok(()) } else { Err(outcome.text()) }
}

/// Nothing can be written below a folder of [`mount_small`] any more, or it can again.
pub fn make_read_only(folder: &Path, read_only: bool) {
    let how = if read_only { "remount,ro" } else { "remount,rw" };
    super::tools::check(std::process::Command::new("mount").args(["-o", how]).arg(folder));
}

/// Free bytes of the file system a folder is on.
pub fn free_space(folder: &Path) -> u64 {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes()).expect("a path without NUL");
    // SAFETY: a valid path and a structure that is only filled.
    unsafe {
        let mut about: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(path.as_ptr(), &raw mut about) == 0 { about.f_bavail * about.f_frsize } else { 0 }
    }
}

/// True on a file system where files can share their blocks.
pub fn can_share_blocks(folder: &Path) -> bool {
    let [one, other] = ["one", "other"].map(|name| folder.join(format!("can-share-{name}")));
    std::fs::write(&one, [1; 4096]).expect("a file");
    let mut copy = std::process::Command::new("cp");
    let outcome = super::tools::run(copy.arg("--reflink=always").args([&one, &other]));
    [one, other].iter().for_each(|file| drop(std::fs::remove_file(file)));
    outcome.status.success()
}

/// Number of threads of this process.
pub fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("/proc").count()
}

/// Names of the threads of this process.
pub fn thread_names() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc");
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect()
}

/// Open file descriptors of this process and what they are.
pub fn descriptors() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("/proc");
    entries
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .map(|to| to.to_string_lossy().into_owned())
        .filter(|to| !to.starts_with("/proc/"))
        .collect()
}

/// Sends standard output and error of this process to a file; returns the old ones as files.
pub fn capture_output(to: &std::fs::File) -> [std::fs::File; 2] {
    use std::os::fd::AsRawFd;
    use std::os::fd::FromRawFd;
    [1, 2].map(|fd| {
        // SAFETY: duplicates a descriptor of this process and puts the file in its place; the copy is owned from here.
        unsafe {
            let old = libc::dup(fd);
            assert!(old >= 0, "dup");
            assert_eq!(libc::dup2(to.as_raw_fd(), fd), fd, "dup2");
            std::fs::File::from_raw_fd(old)
        }
    })
}

/// Puts standard output and error back.
pub fn restore_output(old: [std::fs::File; 2]) {
    use std::os::fd::AsRawFd;
    for (fd, file) in [1, 2].into_iter().zip(old) {
        // SAFETY: puts the saved descriptor back in its place.
        unsafe { assert_eq!(libc::dup2(file.as_raw_fd(), fd), fd, "dup2") };
    }
}

/// The dispositions of every signal: the handler's address, 0 for the default.
pub fn signal_handlers() -> Vec<(i32, usize)> {
    (1..=64)
        .filter(|signal| *signal != libc::SIGKILL && *signal != libc::SIGSTOP)
        .filter_map(|signal| {
            // SAFETY: only reads the disposition into a structure of the right type.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                (libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0)
                    .then_some((signal, action.sa_sigaction))
            }
        })
        .collect()
}

/// Makes a signal act as a fresh C program has it.
pub fn default_signal(signal: i32) {
    // SAFETY: sets the default disposition.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Runs the closure in a fork child, which ends with its result as exit status; gives that status, or the signal negated.
pub fn in_fork(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child only runs the body and leaves by _exit; the parent waits for it.
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0, "fork");
        if pid == 0 {
            libc::alarm(20); // a child that hangs ends by SIGALRM
            let status = body();
            libc::_exit(status);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid, "waitpid");
        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
    }
}

/// Ends this process as the system does when it has to: nothing runs any more.
pub fn kill_self() {
    // SAFETY: a signal that cannot be caught, to this process.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}
