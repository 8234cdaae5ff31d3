use std::collections::BTreeMap;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use super::file::HttpsFile;
use super::*;
use crate::disk::open::OpenOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::format::stream::PackOptions;
use crate::logging::Log;
use crate::net::http::Dial;
use crate::net::http::Hidden;
use crate::net::socket::Address;
use crate::net::socket::Socket;
use crate::net::stream::Stream;
use crate::secret::Secret;
use crate::storage::Storage;
use crate::transfer::Finish;
use crate::transfer::Transfer;
use crate::transport::Line;
use crate::transport::blocks::Blocks;
use crate::transport::blocks::Reads;

/// A request as the server got it.
#[derive(Clone, Debug)]
struct Asked {
    method: String,
    target: String,
    /// First and last byte.
    range: Option<(u64, u64)>,
    cookie: String,
}

/// What the server says: bytes, and whether the connection goes on.
enum Say {
    Bytes(Vec<u8>),
    Last(Vec<u8>),
    /// Nothing, until the client goes.
    Silence,
}

type Answer = dyn Fn(&Asked, &Files) -> Option<Say> + Send + Sync;
type Files = BTreeMap<&'static str, Vec<u8>>;

/// A server of files that tells the truth unless `odd` says something else first.
struct Peer {
    port: u16,
    heard: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
}

impl Peer {
    fn new(files: Files, odd: impl Fn(&Asked, &Files) -> Option<Say> + Send + Sync + 'static) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let peer = Peer { port, heard: Arc::default(), connections: Arc::default() };
        let (heard, connections) = (peer.heard.clone(), peer.connections.clone());
        let (files, odd): (_, Arc<Answer>) = (Arc::new(files), Arc::new(odd));
        std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                connections.fetch_add(1, Ordering::SeqCst);
                let (files, odd, heard) = (files.clone(), odd.clone(), heard.clone());
                std::thread::spawn(move || drop(serve(socket, &files, &*odd, &heard)));
            }
        });
        peer
    }

    fn honest(files: Files) -> Peer {
        Peer::new(files, |_, _| None)
    }

    fn heard(&self) -> Vec<Asked> {
        self.heard.lock().clone()
    }

    fn site_with(&self, pass: Arc<FakePass>, spellings: Arc<Spellings>) -> Arc<Site> {
        let options = SiteOptions {
            datacenter: "Nord/DC".to_owned(),
            spelling: Spelling::Twice,
            tries_other: true,
            connect: LONG,
            request: LONG,
        };
        Arc::new(Site::new(Box::new(Plain(self.port)), pass, options, spellings, Log::none()))
    }

    fn site(&self) -> Arc<Site> {
        self.site_with(Arc::new(FakePass::default()), Arc::default())
    }

    fn file(&self) -> Result<HttpsFile> {
        HttpsFile::open(self.site(), FilePath::parse("[ds] vm/f").unwrap())
    }

    /// Reads past the small ones of a file.
    fn read(&self) -> Result<Vec<u8>> {
        let mut buf = vec![0; 100_000];
        self.file()?.read_at(&mut buf, 7).map(|()| buf)
    }
}

const LONG: Duration = Duration::from_secs(60);

fn serve(
    mut socket: TcpStream,
    files: &Files,
    odd: &Answer,
    heard: &Mutex<Vec<Asked>>,
) -> std::io::Result<()> {
    let _ = socket.set_nodelay(true);
    while let Some(asked) = hear(&mut socket)? {
        heard.lock().push(asked.clone());
        match odd(&asked, files).unwrap_or_else(|| honest(&asked, files)) {
            Say::Bytes(bytes) => socket.write_all(&bytes)?,
            Say::Last(bytes) => return socket.write_all(&bytes),
            Say::Silence => return socket.read(&mut [0]).map(drop),
        }
    }
    Ok(())
}

fn hear(socket: &mut TcpStream) -> std::io::Result<Option<Asked>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if socket.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).unwrap();
    let mut first = text.split(' ');
    let (method, target) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
    let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let range = header("Range: bytes=").map(|range| {
        let (first, last) = range.split_once('-').unwrap();
        (first.parse().unwrap(), last.parse().unwrap())
    });
    Ok(Some(Asked { method, target, range, cookie: header("Cookie: ").unwrap_or_default() }))
}

fn http(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn status(status: &str, body: &str) -> Option<Say> {
    Some(Say::Bytes(http(status, "", body.as_bytes())))
}

fn file<'a>(asked: &Asked, files: &'a Files) -> Option<&'a Vec<u8>> {
    files.get(asked.target.strip_prefix("/folder/")?.split('?').next()?)
}

fn honest(asked: &Asked, files: &Files) -> Say {
    let Some(bytes) = file(asked, files) else {
        return Say::Bytes(http("404 Not Found", "", b"no such file"));
    };
    if asked.method == "HEAD" {
        return Say::Bytes(
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).into_bytes(),
        );
    }
    let (first, last) = asked.range.unwrap();
    let Some(part) = bytes.get(first as usize..=(last as usize).min(bytes.len().saturating_sub(1))) else {
        let about = format!("Content-Range: bytes */{}\r\n", bytes.len());
        return Say::Bytes(http("416 Range Not Satisfiable", &about, b""));
    };
    let last = first + part.len() as u64 - 1;
    let about = format!("Content-Range: bytes {first}-{last}/{}\r\n", bytes.len());
    Say::Bytes(http("206 Partial Content", &about, part))
}

#[derive(Debug)]
struct Plain(u16);

impl Dial for Plain {
    fn dial(&self, until: Instant) -> Result<Box<dyn Stream>> {
        let address = Address::Tcp { host: "127.0.0.1".into(), port: self.0 };
        Ok(Box::new(Socket::connect(&address, until)?))
    }

    fn host(&self) -> String {
        "peer".into()
    }
}

/// A session whose cookie has a number that every renewal raises.
#[derive(Debug, Default)]
struct FakePass {
    number: AtomicUsize,
    renewals: AtomicUsize,
    /// The session is good, whatever the server of files says.
    is_good: bool,
}

impl Pass for FakePass {
    fn cookie(&self) -> Result<Secret> {
        Ok(Secret::from(format!("canary-{}", self.number.load(Ordering::SeqCst))))
    }

    fn renew(&self, stale: &Secret) -> Result<Option<Secret>> {
        self.renewals.fetch_add(1, Ordering::SeqCst);
        if self.is_good {
            return Ok(None);
        }
        if stale.expose() == self.cookie()?.expose() {
            self.number.fetch_add(1, Ordering::SeqCst);
        }
        self.cookie().map(Some)
    }

    fn hidden(&self) -> Result<Hidden> {
        let hidden = Hidden::default();
        hidden.keep(&self.cookie()?);
        Ok(hidden)
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n / 251 + n) as u8).collect()
}

fn one_file() -> Files {
    Files::from([("vm/f", pattern(300_000))])
}

/// What reading a file of such a server ends with.
#[track_caller]
fn refused(odd: impl Fn(&Asked, &Files) -> Option<Say> + Send + Sync + 'static) -> (ErrorKind, String) {
    let e = Peer::new(one_file(), odd).read().unwrap_err();
    let text = e.to_string();
    assert!(!text.contains("canary"), "{text}");
    assert!(text.contains("[ds] vm/f"), "{text}");
    (e.kind(), text)
}

/// The answer to a range is made of the honest one.
fn changed(
    change: impl Fn(&str) -> String + Send + Sync + 'static,
) -> impl Fn(&Asked, &Files) -> Option<Say> {
    move |asked, files| {
        asked.range?;
        let Say::Bytes(bytes) = honest(asked, files) else { return None };
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = change(std::str::from_utf8(&bytes[..end]).unwrap());
        Some(Say::Last([head.as_bytes(), &bytes[end..]].concat()))
    }
}

#[test]
fn a_file_is_read_in_ranges_with_the_cookie_of_the_session() {
    let peer = Peer::honest(one_file());
    assert!(peer.read().unwrap() == pattern(300_000)[7..100_007]);
    let heard = peer.heard();
    let said: Vec<_> = heard.iter().map(|asked| (asked.method.as_str(), asked.range)).collect();
    assert_eq!(said, [("HEAD", None), ("GET", Some((7, 100_006)))]);
    assert!(heard.iter().all(|asked| asked.cookie == "vmware_soap_session=canary-0"));
    assert!(heard.iter().all(|asked| asked.target == "/folder/vm/f?dcPath=Nord%252FDC&dsName=ds"));
    assert_eq!(peer.connections.load(Ordering::SeqCst), 1, "the connection is kept");
}

#[test]
fn reads_past_the_end_and_writes_are_refused_without_asking() {
    let peer = Peer::honest(one_file());
    let file = peer.file().unwrap();
    for (at, len) in [(299_999, 2), (300_000, 1), (u64::MAX, 2), (0, 300_001)] {
        assert_eq!(file.read_at(&mut vec![0; len], at).unwrap_err().kind(), ErrorKind::EndOfFile);
    }
    assert_eq!(file.write_at(&[1], 0).unwrap_err().kind(), ErrorKind::ReadOnly);
    file.read_at(&mut [], 300_000).unwrap();
    assert_eq!(peer.heard().len(), 1);
}

#[test]
fn a_server_that_ignores_ranges_is_left_at_once() {
    let (kind, text) = refused(|asked, files| {
        asked.range?;
        Some(Say::Bytes(http("200 OK", "", file(asked, files)?)))
    });
    assert_eq!(kind, ErrorKind::Protocol);
    assert!(text.contains("ignores ranges"), "{text}");
}

#[test]
fn a_range_that_is_not_the_one_that_was_asked_for_is_refused() {
    for (from, to) in [
        ("bytes 7-", "bytes 8-"),
        ("-100006/", "-100005/"),
        ("/300000", "/*"),
        ("Content-Range", "X-Range"),
        ("Content-Range: bytes", "Content-Range: items"),
        ("Content-Range: bytes 7-100006/300000", "Content-Type: multipart/byteranges; boundary=x"),
        ("Content-Range", "Content-Range: bytes 7-100006/300000\r\nContent-Range"),
    ] {
        let (kind, text) = refused(changed(move |head| head.replace(from, to)));
        assert_eq!(kind, ErrorKind::Protocol, "{from} {to}: {text}");
    }
    let (kind, _) = refused(changed(|head| head.replace("Content-Length: 100000", "Content-Length: 99999")));
    assert_eq!(kind, ErrorKind::Protocol);
}

#[test]
fn a_file_that_changes_its_length_is_not_read_on() {
    for total in ["299999", "300001", "5"] {
        let to = format!("/{total}");
        let (kind, text) = refused(changed(move |head| head.replace("/300000", &to)));
        let expected = if total == "5" { ErrorKind::Protocol } else { ErrorKind::Io };
        assert_eq!(kind, expected, "{text}");
    }
    let (kind, text) = refused(|asked, _| {
        asked.range?;
        Some(Say::Bytes(http("416 Range Not Satisfiable", "Content-Range: bytes */5\r\n", b"")))
    });
    assert_eq!(kind, ErrorKind::Io);
    assert!(text.contains("5 bytes, and had 300000 before"), "{text}");
}

#[test]
fn a_body_that_ends_early_is_asked_for_again_but_not_for_ever() {
    let cut = |asked: &Asked, files: &Files| {
        let Say::Bytes(bytes) = honest(asked, files) else { return None };
        Some(Say::Last(bytes[..bytes.len() / 2].to_vec()))
    };
    let times = AtomicUsize::new(0);
    let peer = Peer::new(one_file(), move |asked, files| {
        asked.range?;
        if times.fetch_add(1, Ordering::SeqCst) == 0 { cut(asked, files) } else { None }
    });
    assert!(peer.read().unwrap() == pattern(300_000)[7..100_007]);
    let peer = Peer::new(one_file(), move |asked, files| asked.range.and_then(|_| cut(asked, files)));
    assert_eq!(peer.read().unwrap_err().kind(), ErrorKind::ConnectionLost);
    assert_eq!(peer.heard().len(), 5, "HEAD, the read, and three times more");
}

#[test]
fn redirections_are_not_followed() {
    let (kind, text) = refused(|asked, _| {
        asked.range?;
        Some(Say::Bytes(http(
            "302 Found",
            "Location: https://elsewhere/?vmware_soap_session=canary-0\r\n",
            b"",
        )))
    });
    assert_eq!(kind, ErrorKind::Protocol);
    assert!(text.contains("redirects with 302"), "{text}");
}

#[test]
fn a_session_that_expired_is_renewed_once() {
    let expired = |asked: &Asked, _: &Files| match asked.cookie.ends_with("canary-0") {
        true => status("401 Unauthorized", ""),
        false => None,
    };
    let (peer, pass) = (Peer::new(one_file(), expired), Arc::new(FakePass::default()));
    let site = peer.site_with(pass.clone(), Arc::default());
    assert_eq!(site.length(&FilePath::parse("[ds] vm/f").unwrap()).unwrap(), 300_000);
    assert_eq!((pass.renewals.load(Ordering::SeqCst), peer.heard().len()), (1, 2));

    let peer = Peer::new(one_file(), |_, _| status("401 Unauthorized", "vmware_soap_session=canary-1"));
    let pass = Arc::new(FakePass::default());
    let e = peer.site_with(pass.clone(), Arc::default()).length(&FilePath::parse("[ds] vm/f").unwrap());
    let e = e.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unauthorised);
    assert!(!e.to_string().contains("canary"), "{e}");
}

#[test]
fn a_good_session_that_may_not_read_files_is_told_so() {
    let peer = Peer::new(one_file(), |_, _| status("401 Unauthorized", "no right to browse"));
    let pass = Arc::new(FakePass { is_good: true, ..FakePass::default() });
    let site = peer.site_with(pass.clone(), Arc::default());
    let e = site.length(&FilePath::parse("[ds] vm/f").unwrap()).unwrap_err();
    assert_eq!((e.kind(), pass.renewals.load(Ordering::SeqCst)), (ErrorKind::Unauthorised, 1));
    let e = site.fetch(&FilePath::parse("[ds] vm/f").unwrap(), 9, &mut [0; 9], 0).unwrap_err();
    assert!(e.to_string().contains("no right to browse"), "{e}");
}

/// Takes names that are encoded once.
fn once_only(asked: &Asked, _: &Files) -> Option<Say> {
    if asked.target.contains("%25") { status("404 Not Found", "") } else { None }
}

#[test]
fn the_other_spelling_is_tried_for_a_file_that_is_not_found_and_remembered() {
    let peer = Peer::new(one_file(), once_only);
    let spellings = Arc::new(Spellings::default());
    let site = peer.site_with(Arc::default(), spellings.clone());
    let path = FilePath::parse("[ds] vm/f").unwrap();
    assert_eq!(site.length(&path).unwrap(), 300_000);
    assert_eq!((spellings.known("peer"), peer.heard().len()), (Some(Spelling::Once), 2));
    assert_eq!(peer.site_with(Arc::default(), spellings).length(&path).unwrap(), 300_000);
    assert_eq!(peer.heard().len(), 3, "another disk of the server begins with it");
    let missing = FilePath::parse("[ds] vm/none").unwrap();
    assert_eq!(site.length(&missing).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_file_that_neither_spelling_finds_is_not_there() {
    let peer = Peer::honest(Files::new());
    assert_eq!(peer.file().unwrap_err().kind(), ErrorKind::NotFound);
    let targets: Vec<_> = peer.heard().into_iter().map(|asked| (asked.method, asked.target)).collect();
    assert_eq!(targets[0].1, "/folder/vm/f?dcPath=Nord%252FDC&dsName=ds");
    assert_eq!(targets[1].1, "/folder/vm/f?dcPath=Nord%2FDC&dsName=ds");
}

#[test]
fn a_server_that_is_not_available_is_waited_for_but_not_for_ever() {
    let times = AtomicUsize::new(0);
    let busy = || Some(Say::Bytes(http("503 Service Unavailable", "Retry-After: 0\r\n", b"")));
    let peer = Peer::new(one_file(), move |asked, _| {
        asked.range?;
        if times.fetch_add(1, Ordering::SeqCst) < 3 { busy() } else { None }
    });
    assert!(peer.read().unwrap() == pattern(300_000)[7..100_007]);
    let peer = Peer::new(one_file(), move |asked, _| asked.range.and_then(|_| busy()));
    assert_eq!(peer.read().unwrap_err().kind(), ErrorKind::HostUnavailable);
    assert_eq!(peer.heard().len(), 7, "HEAD, the read, and five times more");
}

#[test]
fn the_length_is_found_without_head() {
    for odd in ["405 Method Not Allowed", "501 Not Implemented", "400 Bad Request"] {
        let no_head = move |asked: &Asked, _: &Files| match asked.method.as_str() {
            "HEAD" => Some(Say::Bytes(format!("HTTP/1.1 {odd}\r\nContent-Length: 9\r\n\r\n").into_bytes())),
            _ => None,
        };
        assert_eq!(Peer::new(one_file(), no_head).file().unwrap().size().unwrap(), 300_000);
        let empty = Files::from([("vm/f", Vec::new())]);
        assert_eq!(Peer::new(empty.clone(), no_head).file().unwrap().size().unwrap(), 0);
        let go = move |asked: &Asked, files: &Files| no_head(asked, files).or_else(|| status("200 OK", ""));
        assert_eq!(Peer::new(empty, go).file().unwrap().size().unwrap(), 0);
    }
    let whole = |asked: &Asked, files: &Files| match asked.method.as_str() {
        "HEAD" => {
            status("405 No", "").filter(|_| false).or(Some(Say::Bytes(b"HTTP/1.1 405 No\r\n\r\n".to_vec())))
        }
        _ => Some(Say::Bytes(http("200 OK", "", file(asked, files)?))),
    };
    assert_eq!(Peer::new(one_file(), whole).file().unwrap_err().kind(), ErrorKind::Protocol);
}

#[test]
fn a_locked_file_is_told_with_the_words_of_the_server() {
    let e = Peer::new(one_file(), |asked, _| match asked.method.as_str() {
        "HEAD" => {
            Some(Say::Bytes(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 77\r\n\r\n".to_vec()))
        }
        _ => status("500 Internal Server Error", "Device or resource busy"),
    });
    let e = e.file().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Locked);
    assert!(e.to_string().contains("Device or resource busy"), "{e}");
}

/// Options of a disk.
fn options() -> OpenOptions {
    OpenOptions {
        write: false,
        direct: false,
        single_link: false,
        table_cache: 1 << 20,
        grain_cache: 1 << 20,
        pack: PackOptions::without_threads(1),
        log: Log::none(),
    }
}

const SIZE: usize = 6 << 20;

fn descriptor(extent: &str, more: &str) -> Vec<u8> {
    let sectors = SIZE / 512;
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"vmfs\"\n{more}\
         RW {sectors} VMFS \"{extent}\"\nddb.adapterType = \"lsilogic\"\nddb.uuid = \"60 00\"\n"
    )
    .into_bytes()
}

fn flat_disk() -> Files {
    Files::from([("vm/d.vmdk", descriptor("d-flat.vmdk", "")), ("vm/d-flat.vmdk", pattern(SIZE))])
}

fn open(peer: &Peer, path: &str) -> Result<ServedDisk> {
    ServedDisk::open(peer.site(), FilePath::parse(path).unwrap(), &options())
}

#[test]
fn a_disk_is_read_in_pieces_of_any_length_over_several_connections() {
    let peer = Peer::honest(flat_disk());
    let disk = open(&peer, "[ds] vm/d.vmdk").unwrap();
    assert_eq!((disk.size(), disk.chain().links, disk.chain().parent), (SIZE as u64, 1, None));
    assert_eq!(
        disk.database(),
        [("adapterType", "lsilogic"), ("uuid", "60 00")].map(|(a, b)| (a.into(), b.into()))
    );
    let content = pattern(SIZE);
    for (at, len) in
        [(0, SIZE), (512, 512), (1 << 20, 3 << 20), (SIZE - 4096, 4096), (77 * 512, 1 << 20), (0, 0)]
    {
        let mut buf = vec![0xA5; len];
        disk.read(&mut buf, at as u64).unwrap();
        assert!(buf == content[at..at + len], "{len} at {at}");
    }
    assert!(peer.connections.load(Ordering::SeqCst) > 1);
    let longest =
        peer.heard().iter().filter_map(|asked| asked.range).map(|(first, last)| last + 1 - first).max();
    assert!(longest.unwrap() <= 1 << 20);
    let mut told = Vec::new();
    assert!(disk.allocation(0..SIZE as u64, &mut |part, reads| told.push((part, reads))).unwrap());
    assert_eq!(told, [(0..SIZE as u64, Reads::Anything)]);
}

#[test]
fn reads_that_go_on_by_themselves_end_once_each() {
    let peer = Peer::honest(flat_disk());
    let disk = open(&peer, "[ds] vm/d.vmdk").unwrap();
    let (tell, told) = mpsc::channel();
    let parts = [(0, 3 << 20), (3 << 20, 1 << 20), (4 << 20, 512), (5 << 20, 1 << 20)];
    for (at, len) in parts {
        let tell = tell.clone();
        let finish: Finish = Box::new(move |transfer, result| {
            let Transfer::ReadOwned(buf) = transfer else { return };
            tell.send((at, buf, result)).unwrap();
        });
        assert!(disk.start(Transfer::ReadOwned(vec![0; len]), at as u64, finish).is_none());
    }
    drop(tell);
    let content = pattern(SIZE);
    let mut count = 0;
    for (at, buf, result) in told {
        assert!(result.is_ok() && buf == content[at..at + buf.len()], "{at}");
        count += 1;
    }
    assert_eq!(count, parts.len());
    assert!(disk.start(Transfer::Write(&[0; 512]), 0, Box::new(|_, _| ())).is_some());
    assert_eq!(disk.write(&[0; 512], 0).unwrap_err().kind(), ErrorKind::ReadOnly);
}

#[test]
fn closing_ends_reads_that_a_silent_server_keeps_waiting() {
    let peer = Peer::new(flat_disk(), |asked, _| {
        (asked.range.is_some() && asked.target.contains("flat")).then_some(Say::Silence)
    });
    let disk = Arc::new(open(&peer, "[ds] vm/d.vmdk").unwrap());
    let (tell, told) = mpsc::channel();
    for at in 0..20 {
        let tell = tell.clone();
        let finish: Finish =
            Box::new(move |_, result: Result<()>| tell.send(result.map_err(|e| e.kind())).unwrap());
        let _ = disk.start(
            Transfer::ReadOwned(vec![0; if at % 2 == 0 { 65536 } else { 2 << 20 }]),
            at << 16,
            finish,
        );
    }
    drop(tell);
    let reader = Arc::clone(&disk);
    let reading = std::thread::spawn(move || reader.read(&mut vec![0; 2 << 20], 0).map_err(|e| e.kind()));
    while peer.heard().iter().filter(|asked| asked.range.is_some()).count() < 5 {
        std::thread::yield_now();
    }
    let started = Instant::now();
    disk.cut();
    assert_eq!(reading.join().unwrap(), Err(ErrorKind::Cancelled));
    assert_eq!(told.iter().collect::<Vec<_>>(), vec![Err(ErrorKind::Cancelled); 20]);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(disk.read(&mut [0; 512], 0).unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn names_inside_images_lead_to_their_own_datastore_only() {
    for (extent, kind) in [
        ("../other/d-flat.vmdk", ErrorKind::AccessDenied),
        ("../../../etc/shadow", ErrorKind::AccessDenied),
        ("/vmfs/volumes/other/vm/d-flat.vmdk", ErrorKind::AccessDenied),
        ("vsan://52ab-cd", ErrorKind::UnsupportedFeature),
        ("gone-flat.vmdk", ErrorKind::NotFound),
    ] {
        let mut files = flat_disk();
        files.insert("vm/d.vmdk", descriptor(extent, ""));
        files.insert("other/d-flat.vmdk", pattern(SIZE));
        let peer = Peer::honest(files);
        assert_eq!(open(&peer, "[ds] vm/d.vmdk").unwrap_err().kind(), kind, "{extent}");
        assert!(peer.heard().iter().all(|asked| asked.target.starts_with("/folder/vm/")), "{extent}");
    }
}

#[test]
fn an_encrypted_disk_is_refused() {
    let mut files = flat_disk();
    let key = "encryptionKeys=\"vmware:key/list/(pair/(fqid/<VMWARE-NULL>/x))\"\n";
    files.insert("vm/d.vmdk", descriptor("d-flat.vmdk", key));
    let e = open(&Peer::honest(files), "[ds] vm/d.vmdk").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Encrypted, "{e}");
}

#[test]
fn a_disk_that_is_its_own_parent_is_refused() {
    let child = "parentFileNameHint=\"/vmfs/volumes/ds/vm/d.vmdk\"\n";
    let text = String::from_utf8(descriptor("d-flat.vmdk", child)).unwrap().replace("ffffffff", "12345678");
    let files = Files::from([("vm/d.vmdk", text.into_bytes()), ("vm/d-flat.vmdk", pattern(SIZE))]);
    let e = open(&Peer::honest(files), "[ds] vm/d.vmdk").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidChain, "{e}");
}

#[test]
fn an_error_of_the_session_is_told_as_it_is() {
    #[derive(Debug)]
    struct Gone;
    impl Pass for Gone {
        fn cookie(&self) -> Result<Secret> {
            Err(Error::new(ErrorKind::SessionInvalid, "over"))
        }
        fn renew(&self, _: &Secret) -> Result<Option<Secret>> {
            self.cookie().map(Some)
        }
        fn hidden(&self) -> Result<Hidden> {
            Ok(Hidden::default())
        }
    }
    let options = SiteOptions {
        datacenter: "ha-datacenter".to_owned(),
        spelling: Spelling::Once,
        tries_other: false,
        connect: LONG,
        request: LONG,
    };
    let site = Site::new(Box::new(Plain(1)), Arc::new(Gone), options, Arc::default(), Log::none());
    let e = site.length(&FilePath::parse("[ds] f").unwrap()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::SessionInvalid);
}
