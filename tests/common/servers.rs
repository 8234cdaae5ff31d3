//! NBD servers that others wrote: nbdkit, qemu-nbd and nbd-server, each on a port or socket of its own.
//!
//! nbdkit and qemu-nbd are handed a socket that listens already, the way service managers do it, so there is no port to
//! guess and no moment at which they are not ready. nbd-server cannot, is waited for, and serves more than one connection
//! only as a daemon.

use std::fmt::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;
use vixDiskLib::net::socket::Address;

use super::pki::Pki;
use super::scratch;
use super::tools;

/// How a server is reached.
#[derive(Clone, Copy, Debug)]
pub struct Door<'a> {
    /// By a Unix socket instead of TCP.
    pub unix: bool,
    /// With TLS only.
    pub tls: Option<&'a Pki>,
    /// Only with a client certificate.
    pub asks_back: bool,
}

impl<'a> Door<'a> {
    /// A Unix socket.
    pub const UNIX: Door<'static> = Door { unix: true, tls: None, asks_back: false };

    /// A TCP port of this machine.
    pub const TCP: Door<'static> = Door { unix: false, tls: None, asks_back: false };

    /// A TCP port with TLS.
    pub fn tls(pki: &'a Pki) -> Self {
        Self { unix: false, tls: Some(pki), asks_back: false }
    }

    /// A TCP port with TLS for those who have a certificate too.
    pub fn mutual(pki: &'a Pki) -> Self {
        Self { unix: false, tls: Some(pki), asks_back: true }
    }
}

/// A running server; ended by its id on drop.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: Address,
    tls: bool,
    folder: TempDir,
    command: String,
    /// The process that the child left behind, leader of its process group.
    daemon: Option<u32>,
}

/// nbdkit with these options (filters too) and this plugin with its parameters.
pub fn nbdkit(door: Door<'_>, options: &[&str], plugin: &[&str]) -> Server {
    let mut arguments = vec!["-f".to_owned()];
    if let Some(pki) = door.tls {
        arguments.push("--tls=require".to_owned());
        arguments.push(format!("--tls-certificates={}", pki.server().display()));
        if door.asks_back {
            arguments.push("--tls-verify-peer".to_owned());
        }
    }
    arguments.extend(options.iter().chain(plugin).map(|&argument| argument.to_owned()));
    activated("nbdkit", &arguments, door)
}

/// qemu-nbd with this image under this export name. The options come before the image.
pub fn qemu_nbd(door: Door<'_>, name: &str, options: &[&str], image: &Path) -> Server {
    let mut arguments: Vec<String> = ["-t", "-e", "64", "-x", name].map(str::to_owned).into();
    if let Some(pki) = door.tls {
        let verify = if door.asks_back { "on" } else { "off" };
        let folder = pki.server();
        let object =
            format!("tls-creds-x509,id=tls,endpoint=server,verify-peer={verify},dir={}", folder.display());
        arguments.extend(["--object".to_owned(), object, "--tls-creds".to_owned(), "tls".to_owned()]);
    }
    arguments.extend(options.iter().map(|&option| option.to_owned()));
    arguments.push(image.display().to_string());
    activated("qemu-nbd", &arguments, door)
}

/// nbd-server with these exports; `settings` go into each of them.
pub fn nbd_server(door: Door<'_>, exports: &[(&str, &Path)], settings: &str) -> Server {
    // It cannot be handed a socket: the port may be taken by somebody else before it binds, which is tried again.
    (0..5).find_map(|_| try_nbd_server(door, exports, settings)).expect("nbd-server does not start")
}

fn try_nbd_server(door: Door<'_>, exports: &[(&str, &Path)], settings: &str) -> Option<Server> {
    let folder = scratch::folder();
    let mut text = "[generic]\nallowlist = true\n".to_owned();
    let address = if door.unix {
        let path = folder.path().join("s");
        writeln!(text, "unixsock = {}", path.display()).expect("text");
        Address::Unix(path)
    } else {
        let port = free_port();
        writeln!(text, "listenaddr = 127.0.0.1\nport = {port}").expect("text");
        tcp(port)
    };
    if let Some(pki) = door.tls {
        let at = pki.server();
        writeln!(text, "certfile = {}", at.join("server-cert.pem").display()).expect("text");
        writeln!(text, "keyfile = {}", at.join("server-key.pem").display()).expect("text");
        writeln!(text, "cacertfile = {}", at.join("ca-cert.pem").display()).expect("text");
        writeln!(text, "force_tls = true\ntlsprio = NORMAL").expect("text");
    }
    for (name, path) in exports {
        writeln!(text, "[{name}]\nexportname = {}\n{settings}", path.display()).expect("text");
    }
    let configuration = folder.path().join("conf");
    std::fs::write(&configuration, text).expect("a configuration");
    let mut command = Command::new("nbd-server");
    let id = folder.path().join("id");
    command.arg("-C").arg(&configuration).arg("-p").arg(&id);
    let mut server = started(command, Stdio::null(), address, door.tls.is_some(), folder);
    let (status, _) = tools::wait_within(&mut server.child, Duration::from_secs(30));
    if !status.success() {
        return None;
    }
    let start = Instant::now();
    while server.daemon.is_none() || !server.answers() {
        assert!(start.elapsed() < Duration::from_secs(30), "nbd-server is not ready: {}", server.said());
        std::thread::sleep(Duration::from_millis(2));
        server.daemon = std::fs::read_to_string(&id).ok().and_then(|text| text.trim().parse().ok());
    }
    Some(server)
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

fn tcp(port: u16) -> Address {
    Address::Tcp { host: "127.0.0.1".to_owned(), port }
}

/// Starts a program that takes its listening socket as descriptor 3 (`sd_listen_fds`).
fn activated(program: &str, arguments: &[String], door: Door<'_>) -> Server {
    let folder = scratch::folder();
    let (socket, address): (OwnedFd, Address) = if door.unix {
        let path = folder.path().join("s");
        (UnixListener::bind(&path).expect("a Unix socket").into(), Address::Unix(path))
    } else {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        (listener.into(), tcp(port))
    };
    // The shell becomes the program, so that the process id is known beforehand, as the convention wants it.
    let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", program]).args(arguments);
    started(command, socket.into(), address, door.tls.is_some(), folder)
}

fn started(mut command: Command, stdin: Stdio, address: Address, tls: bool, folder: TempDir) -> Server {
    let said = std::fs::File::create(folder.path().join("said")).expect("a file for its messages");
    let shown = format!("{command:?}");
    let child = command.stdin(stdin).stdout(Stdio::null()).stderr(said).spawn();
    let child = child.unwrap_or_else(|e| panic!("cannot start {shown}: {e}"));
    Server { child, address, tls, folder, command: shown, daemon: None }
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> Address {
        self.address.clone()
    }

    /// The URI of an export, whose name must need no escapes.
    pub fn uri(&self, export: &str) -> String {
        uri(&self.address, self.tls, export)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.daemon.unwrap_or(self.child.id())
    }

    /// A folder that lives as long as the server.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// What it wrote to standard error.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("said")).unwrap_or_default()
    }

    /// Ends it and waits for that.
    pub fn kill(&mut self) {
        if let Some(id) = self.daemon.take() {
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{id}")]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops it where it is, and waits until each of its threads has: the signal alone may be late.
    #[track_caller]
    pub fn silence(&self) {
        let id = self.id().to_string();
        tools::check(Command::new("kill").args(["-STOP", &id]));
        let start = Instant::now();
        while !is_stopped(&id) {
            assert!(start.elapsed() < Duration::from_secs(30), "{} does not stop", self.command);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Asks it to end in order and waits. Not for nbd-server.
    #[track_caller]
    pub fn finish(mut self) {
        let id = self.child.id().to_string();
        tools::check(Command::new("kill").args(["-TERM", &id]));
        let (status, late) = tools::wait_within(&mut self.child, Duration::from_secs(30));
        assert!(!late, "{} does not end: {}", self.command, self.said());
        assert!(status.success(), "{} ended with {status}: {}", self.command, self.said());
    }

    /// Waits for it to end by itself, in order.
    #[track_caller]
    pub fn wait(mut self) {
        let (status, late) = tools::wait_within(&mut self.child, Duration::from_secs(30));
        assert!(!late && status.success(), "{} ended with {status}: {}", self.command, self.said());
    }

    fn answers(&self) -> bool {
        match &self.address {
            Address::Tcp { port, .. } => TcpStream::connect(("127.0.0.1", *port)).is_ok(),
            Address::Unix(path) => UnixStream::connect(path).is_ok(),
        }
    }
}

/// Each thread of the process is in the state `T`, which stands behind its name in brackets.
fn is_stopped(id: &str) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).expect("the threads of a server");
    threads.flatten().all(|thread| {
        let about = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        about.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        let gone = self.child.try_wait();
        self.kill();
        if std::thread::panicking() {
            eprintln!("{} ({gone:?}) said:\n{}", self.command, self.said());
        }
    }
}

/// The URI of an export at an address.
pub fn uri(address: &Address, tls: bool, export: &str) -> String {
    let s = if tls { "s" } else { "" };
    match address {
        Address::Tcp { host, port } => format!("nbd{s}://{host}:{port}/{export}"),
        Address::Unix(path) => format!("nbd{s}+unix:///{export}?socket={}", path.display()),
    }
}
