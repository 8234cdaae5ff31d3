//! Whole disks on every kind of NBD server, plain and with TLS, synchronous and asynchronous, over connections that
//! break: all through the C interface.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use common::child::in_child;
use common::model::Rng;
use common::model::is_zero;
use common::model::stamps;
use common::pieces::compare_async;
use common::pieces::compare_sync;
use common::pieces::part;
use common::pieces::pieces;
use common::pieces::write_async;
use common::pki::Pki;
use common::proxy::Fate;
use common::proxy::Lane;
use common::proxy::Proxy;
use common::scratch;
use common::servers;
use common::servers::Door;
use common::tools;
use common::vix;
use common::vix::Disk;
use common::vix::Server;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;
use vixDiskLib::logging::Log;
use vixDiskLib::net::nbd::Replies;
use vixDiskLib::net::nbd::client::Client;
use vixDiskLib::net::nbd::client::Dial;
use vixDiskLib::net::nbd::client::Options;
use vixDiskLib::threads::Threads;

/// Sectors of the exports: 8 MiB and a little.
const SECTORS: u64 = 16 * 1024 + 7;

/// The kinds of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nbdkit,
    Qemu,
    NbdServer,
}

fn serve(kind: Kind, door: Door<'_>, image: &Path) -> servers::Server {
    let path = image.display().to_string();
    match kind {
        // One thread: with more, nbdkit 1.32 ends by an assertion of its own when a connection breaks under its replies.
        Kind::Nbdkit => servers::nbdkit(door, &["--threads=1"], &["file", &path]),
        Kind::Qemu => servers::qemu_nbd(door, "e", &["-f", "raw", "--cache=writeback"], image),
        Kind::NbdServer => servers::nbd_server(door, &[("e", image)], "flush = true\nfua = true"),
    }
}

/// The server as a program names it; the certificates of a folder if there is one.
fn named(server: &servers::Server, certificates: Option<&Path>) -> Server {
    let uri = server.uri("");
    let name = match certificates {
        Some(folder) => format!("{uri}?tls-certificates={}", folder.display()),
        None => uri,
    };
    Server::named(name)
}

fn try_open(server: &Server, how: u32) -> Result<Disk<'static>, u64> {
    let connection = Vix::started().connect_to(server).expect("ConnectEx does not fail for a server's sake");
    connection.leaked().open(Path::new("e"), how)
}

#[track_caller]
fn open(server: &Server, how: u32) -> Disk<'static> {
    try_open(server, how).unwrap_or_else(|e| panic!("Open = {e}\n{}", vix::log_text()))
}

fn image(folder: &Path) -> PathBuf {
    let path = folder.join("image");
    std::fs::File::create(&path).and_then(|file| file.set_len(SECTORS * 512)).expect("an image");
    path
}

#[track_caller]
fn verify(disk: &Disk<'_>, whole: &[u8], seed: u64) {
    compare_sync(disk, &pieces(SECTORS, seed), whole);
    compare_async(disk, &pieces(SECTORS, seed + 1), 16, whole);
}

/// Everything is written and read twice: once by synchronous calls, once by asynchronous ones.
fn fill_and_verify(kind: Kind, pki: Option<&Pki>) {
    let folder = scratch::folder();
    let image = image(folder.path());
    let server = serve(kind, pki.map_or(Door::TCP, Door::tls), &image);
    let client = pki.map(Pki::client);
    let name = named(&server, client.as_deref());
    let mode = if pki.is_some() { "nbdssl" } else { "nbd" };
    for (version, synchronous) in [(1, true), (2, false)] {
        let disk = open(&name, flags::READ_WRITE);
        assert_eq!((disk.transport().as_str(), disk.info().capacity), (mode, SECTORS), "{kind:?}");
        let (pieces, whole) = (pieces(SECTORS, version), stamps(0, SECTORS, version));
        if synchronous {
            pieces.iter().for_each(|piece| disk.must_write(piece.0, part(&whole, *piece)));
        } else {
            write_async(&disk, &pieces, &whole);
        }
        verify(&disk, &whole, 10);
        assert_eq!(disk.flush(), code::OK);
        let written = std::fs::read(&image).expect("the image");
        assert!(written == whole, "{kind:?}, {mode}: the server's file");
        assert_eq!(disk.close(), code::OK);
        let disk = open(&name, flags::READ_ONLY);
        verify(&disk, &whole, 20);
        assert_eq!(disk.close(), code::OK);
    }
}

#[test]
fn a_disk_of_nbdkit_keeps_what_is_written() {
    requires!("nbdkit");
    in_child(|| fill_and_verify(Kind::Nbdkit, None));
}

#[test]
fn a_disk_of_nbdkit_with_tls_keeps_what_is_written() {
    requires!("nbdkit", "certtool");
    in_child(|| fill_and_verify(Kind::Nbdkit, Some(&Pki::new())));
}

#[test]
fn a_disk_of_qemu_keeps_what_is_written() {
    requires!("qemu-nbd");
    in_child(|| fill_and_verify(Kind::Qemu, None));
}

#[test]
fn a_disk_of_qemu_with_tls_keeps_what_is_written() {
    requires!("qemu-nbd", "certtool");
    in_child(|| fill_and_verify(Kind::Qemu, Some(&Pki::new())));
}

#[test]
fn a_disk_of_nbd_server_keeps_what_is_written() {
    requires!("nbd-server");
    in_child(|| fill_and_verify(Kind::NbdServer, None));
}

#[test]
fn a_disk_of_nbd_server_with_tls_keeps_what_is_written() {
    requires!("nbd-server", "certtool");
    in_child(|| fill_and_verify(Kind::NbdServer, Some(&Pki::new())));
}

/// A chain of qcow2 images behind qemu-nbd: what the child does not have is read from its backing file.
#[test]
fn a_disk_may_be_a_chain_of_images_of_a_virtual_machine() {
    requires!("qemu-nbd", "qemu-img");
    in_child(|| {
        let folder = scratch::folder();
        let (base, child) = (folder.path().join("base.qcow2"), folder.path().join("child.qcow2"));
        let raw = image(folder.path());
        let whole = stamps(0, SECTORS, 1);
        std::fs::write(&raw, &whole).expect("an image");
        tools::check(tools::qemu_img(["convert", "-f", "raw", "-O", "qcow2"]).arg(&raw).arg(&base));
        let backing = base.display().to_string();
        tools::check(
            tools::qemu_img(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &backing]).arg(&child),
        );
        let server = servers::qemu_nbd(Door::UNIX, "e", &["-f", "qcow2"], &child);
        let disk = open(&named(&server, None), flags::READ_WRITE);
        verify(&disk, &whole, 1);
        disk.must_write(5000, &stamps(5000, 500, 2));
        assert_eq!(disk.flush(), code::OK);
        assert!(
            disk.must_read(4999, 502)
                == [stamps(4999, 1, 1), stamps(5000, 500, 2), stamps(5500, 1, 1)].concat()
        );
        assert_eq!(disk.close(), code::OK);
    });
}

#[test]
fn a_server_may_want_a_certificate_too() {
    requires!("nbdkit", "certtool");
    in_child(|| {
        let pki = Pki::new();
        let server = servers::nbdkit(Door::mutual(&pki), &[], &["memory", "1M"]);
        let disk = open(&named(&server, Some(&pki.client())), flags::READ_ONLY);
        assert!(is_zero(&disk.must_read(0, 2048)));
        assert_eq!(disk.close(), code::OK);
        let anonymous = scratch::folder();
        std::fs::copy(pki.ca(), anonymous.path().join("ca-cert.pem")).expect("an authority");
        assert!(try_open(&named(&server, Some(anonymous.path())), flags::READ_ONLY).is_err());
    });
}

#[test]
fn certificates_of_strangers_are_refused_with_code_1() {
    requires!("nbdkit", "certtool");
    in_child(|| {
        let pki = Pki::new();
        let server = servers::nbdkit(Door::tls(&pki), &[], &["memory", "1M"]);
        let refused = try_open(&named(&server, Some(&pki.stranger())), flags::READ_ONLY).unwrap_err();
        assert_eq!(refused, code::FAIL, "{}", vix::log_text());
        // Nobody vouches for it in the system's store either, and the name does not demand TLS: it is used all the same.
        let refused = try_open(&named(&server, None).over("nbdssl"), flags::READ_ONLY).unwrap_err();
        assert_eq!(refused, code::FAIL, "{}", vix::log_text());
    });
}

/// In the words that programs look for.
#[test]
fn thumbprints_are_compared_and_a_wrong_one_is_logged_with_the_right_one() {
    requires!("nbdkit", "certtool");
    in_child(|| {
        let pki = Pki::new();
        let server = servers::nbdkit(Door::tls(&pki), &[], &["memory", "1M"]);
        let colons = |digits: &str| {
            let pairs: Vec<_> =
                digits.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair)).collect();
            pairs.join(":").to_uppercase()
        };
        let (sha1, sha256) = (colons(&pki.thumbprint("sha1")), colons(&pki.thumbprint("sha256")));
        assert_eq!((sha1.len(), sha256.len()), (59, 95));
        for given in [sha1.clone(), sha1.to_lowercase(), sha256] {
            let pinned = Server { thumbprint: Some(given), ..named(&server, None) };
            let disk = open(&pinned, flags::READ_ONLY);
            assert_eq!(disk.transport(), "nbdssl");
            assert_eq!(disk.close(), code::OK);
        }
        let wrong = sha1.replace(&sha1[..2], if sha1.starts_with("00") { "01" } else { "00" });
        vix::forget_log();
        let pinned = Server { thumbprint: Some(wrong.clone()), ..named(&server, None) };
        assert_eq!(try_open(&pinned, flags::READ_ONLY).unwrap_err(), code::FAIL);
        let words = format!(
            "VixDiskLibVim: Failed to verify SSL certificate: actual thumbprint={sha1} expected={wrong}"
        );
        let lines = vix::log_lines();
        assert!(lines.iter().any(|(_, line)| line.contains(&words)), "{words}\n{}", vix::log_text());
    });
}

/// Connections that break at positions of their own until enough have.
fn breaking(upstream: &servers::Server, cuts: usize, seed: u64) -> Proxy {
    let rng = Mutex::new(Rng::new(seed));
    Proxy::new(upstream.address(), move |n| {
        let mut rng = rng.lock().expect("the generator");
        // The first connection has to come about; the others may break while they are negotiated.
        let least = if n == 0 { 400_000 } else { 1 };
        let cut = Lane::cut_after(rng.between(least, 450_000));
        match rng.below(3) {
            _ if n >= cuts => Fate::default(),
            0 => Fate { up: cut, ..Fate::default() },
            _ => Fate { down: cut, ..Fate::default() },
        }
    })
}

/// Every piece is written once, whenever its turn comes, and read again and again. A connection that breaks may leave a
/// write behind that the server carries out late, so nothing is written twice with different content.
fn survive(cuts: usize, kind: Kind, pki: Option<&Pki>) {
    let folder = scratch::folder();
    let image = image(folder.path());
    let server = serve(kind, pki.map_or(Door::TCP, Door::tls), &image);
    let proxy = breaking(&server, cuts, 4711);
    let certificates = pki.map(|pki| format!("?tls-certificates={}", pki.client().display()));
    let name = Server::named(proxy.uri(pki.is_some(), "") + &certificates.unwrap_or_default());
    let disk = open(&name, flags::READ_WRITE);
    let (mut waiting, whole) = (pieces(SECTORS, 1), stamps(0, SECTORS, 1));
    let mut written: Vec<(u64, u64)> = Vec::new();
    let mut rng = Rng::new(2);
    let start = Instant::now();
    while proxy.seen() <= cuts || !waiting.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(100), "{} connections after 100 s", proxy.seen());
        let batch = waiting.split_off(waiting.len().saturating_sub(1 + rng.below(6) as usize));
        if rng.below(2) == 0 {
            write_async(&disk, &batch, &whole);
        } else {
            batch.iter().for_each(|piece| disk.must_write(piece.0, part(&whole, *piece)));
        }
        written.extend(batch);
        let again: Vec<_> = (0..12).map(|_| written[rng.below(written.len() as u64) as usize]).collect();
        compare_async(&disk, &again, 8, &whole);
        assert!(disk.must_read(again[0].0, again[0].1) == part(&whole, again[0]), "a synchronous read");
    }
    // A loss after writes is told once.
    if disk.flush() != code::OK {
        assert_eq!(disk.flush(), code::OK, "{}", vix::log_text());
    }
    verify(&disk, &whole, 30);
    assert_eq!(disk.close(), code::OK);
    assert!(std::fs::read(&image).expect("the image") == whole, "the server's file");
}

#[test]
fn two_hundred_cuts_change_nothing() {
    requires!("nbdkit");
    in_child(|| survive(200, Kind::Nbdkit, None));
}

#[test]
fn cuts_change_nothing_with_extended_headers() {
    requires!("qemu-nbd");
    if agreed_with_qemu() != Replies::Extended {
        scratch::skip("this qemu-nbd, older than 8.2, has no extended headers");
        return;
    }
    in_child(|| survive(40, Kind::Qemu, None));
}

/// What a client agrees on with the server that [`serve`] starts.
fn agreed_with_qemu() -> Replies {
    let folder = scratch::folder();
    let server = serve(Kind::Qemu, Door::TCP, &image(folder.path()));
    let dial = Dial { address: server.address(), export: "e".to_owned(), tls: None };
    let patience = Duration::from_secs(30);
    let options = Options {
        connect: patience,
        request: patience,
        reconnect: Duration::ZERO,
        connections: 1,
        window: 0,
        write: false,
    };
    let threads = Arc::new(Threads::new(|body| body()));
    let client = Client::connect(dial, &options, Log::none(), threads).expect("a client");
    client.export().replies
}

#[test]
fn cuts_change_nothing_with_tls() {
    requires!("nbdkit", "certtool");
    in_child(|| survive(40, Kind::Nbdkit, Some(&Pki::new())));
}

/// nbdkit with its plugin on this library on another nbdkit, with TLS between the two.
#[test]
fn a_program_on_nbdkits_plugin_writes_to_an_export_with_tls() {
    requires!("nbdkit", "nbdcopy", "certtool");
    let pki = Pki::new();
    let folder = scratch::folder();
    let source = folder.path().join("source");
    std::fs::write(&source, stamps(0, SECTORS, 3)).expect("a source");
    for version in common::nbd::PLUGINS {
        let plugin = common::nbd::plugin(version);
        if !plugin.exists() {
            scratch::skip(&format!("{version}'s vddk plugin is not there"));
            continue;
        }
        let image = image(folder.path());
        let below = servers::nbdkit(Door::tls(&pki), &[], &["file", &image.display().to_string()]);
        let install = common::nbd::Installation::new();
        let parameters = [
            format!("server={}", below.uri("")),
            format!(
                "thumbprint={}",
                pki.thumbprint("sha1")
                    .as_bytes()
                    .chunks(2)
                    .map(|pair| String::from_utf8_lossy(pair))
                    .collect::<Vec<_>>()
                    .join(":")
            ),
            "transports=nbdssl".to_owned(),
            "file=".to_owned(),
            "user=any".to_owned(),
            "password=any".to_owned(),
            "vm=moref=any".to_owned(),
        ];
        let above = common::nbd::Server::start(&install, &plugin, &[], &parameters);
        tools::check(Command::new("nbdcopy").arg("--flush").arg(&source).arg(above.uri()));
        let copy = folder.path().join("copy");
        tools::check(Command::new("nbdcopy").arg(above.uri()).arg(&copy));
        assert!(std::fs::read(&copy).expect("the copy") == stamps(0, SECTORS, 3), "{version}");
        above.finish();
        assert!(
            std::fs::read(&image).expect("the image") == stamps(0, SECTORS, 3),
            "{version}: the server's file"
        );
    }
}
