//! Negotiating with the NBD servers that others wrote.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use common::model;
use common::scratch;
use common::servers;
use common::servers::Door;
use common::servers::Server;
use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::net::nbd::Export;
use vixDiskLib::net::nbd::Replies;
use vixDiskLib::net::nbd::handshake;
use vixDiskLib::net::nbd::handshake::Wants;
use vixDiskLib::net::nbd::uri::NbdUri;
use vixDiskLib::net::socket::Socket;

const SIZE: u64 = 1 << 20;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn connect(server: &Server, export: &str) -> (Socket, String) {
    let uri = NbdUri::parse(&server.uri(export)).unwrap().unwrap();
    assert_eq!(uri.address, server.address());
    (Socket::connect(&uri.address, soon()).unwrap(), uri.export.unwrap_or_default())
}

fn negotiated(server: &Server, export: &str) -> Result<Export, Error> {
    let (socket, export) = connect(server, export);
    handshake::negotiate(Box::new(socket), &Wants::all_of(export), None, soon()).map(|(_, export)| export)
}

fn exports(server: &Server) -> Vec<String> {
    handshake::list(Box::new(connect(server, "").0), None, soon()).unwrap()
}

fn image(folder: &Path) -> PathBuf {
    let path = folder.join("image.raw");
    std::fs::write(&path, model::stamps(0, SIZE / 512, 1)).unwrap();
    path
}

#[test]
fn nbdkit_gives_an_export_in_every_style_it_has() {
    requires!("nbdkit");
    let memory = &["memory", "1M"][..];
    for (options, replies, allocation) in [
        (&[][..], Replies::Structured, true),
        (&["--no-sr"], Replies::Simple, false),
        (&["--mask-handshake=1"], Replies::Structured, true),
        (&["--mask-handshake=2"], Replies::Simple, false),
        (&["--mask-handshake=0"], Replies::Simple, false),
        (&["--oldstyle"], Replies::Simple, false),
    ] {
        for door in [Door::UNIX, Door::TCP] {
            let server = servers::nbdkit(door, options, memory);
            let export = negotiated(&server, "").unwrap();
            assert_eq!((export.size, export.flags & 3), (SIZE, 1), "{options:?}");
            assert_eq!(export.allocation.is_some(), allocation, "{options:?}");
            // Versions from 1.48 on may have extended headers.
            let expected = [replies, if allocation { Replies::Extended } else { replies }];
            assert!(expected.contains(&export.replies), "{options:?}: {:?}", export.replies);
        }
    }
}

#[test]
fn nbdkit_tells_its_block_sizes() {
    requires!("nbdkit");
    let options = ["--filter=blocksize-policy"];
    let policy = ["blocksize-minimum=4k", "blocksize-preferred=64k", "blocksize-maximum=1M"];
    let plugin = [&["memory", "1M"][..], &policy].concat();
    let blocks = negotiated(&servers::nbdkit(Door::UNIX, &options, &plugin), "").unwrap().blocks;
    assert_eq!((blocks.minimum, blocks.preferred, blocks.maximum), (4096, 65536, 1 << 20));
    let blocks = negotiated(&servers::nbdkit(Door::UNIX, &[], &["memory", "1M"]), "").unwrap().blocks;
    assert_eq!(blocks.minimum, 1);
}

#[test]
fn an_unknown_export_is_not_found_and_the_others_are_named() {
    requires!("nbdkit");
    let listing = ["exportname=one", "exportname=two", "exportname-list=explicit", "exportname-strict=true"];
    let plugin = [&["memory", "1M"][..], &listing].concat();
    let server = servers::nbdkit(Door::TCP, &["--filter=exportname"], &plugin);
    assert_eq!(exports(&server), ["one", "two"]);
    assert_eq!(negotiated(&server, "two").unwrap().size, SIZE);
    let error = negotiated(&server, "three").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let told = "the exports \"one\" (1048576 bytes), \"two\" (1048576 bytes)";
    assert!(error.to_string().contains(told), "{error}");
}

#[test]
fn a_server_that_demands_tls_says_how_to_reach_it() {
    requires!("nbdkit", "certtool");
    let pki = common::pki::Pki::new();
    let server = servers::nbdkit(Door::tls(&pki), &[], &["memory", "1M"]);
    let error = negotiated(&server, "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    assert!(error.to_string().contains("nbdssl"), "{error}");
}

#[test]
fn qemu_nbd_gives_an_export() {
    requires!("qemu-nbd");
    let folder = scratch::folder();
    let image = image(folder.path());
    for (door, options, read_only) in
        [(Door::UNIX, &["-f", "raw"][..], 0), (Door::TCP, &["-f", "raw", "-r"][..], 2)]
    {
        let server = servers::qemu_nbd(door, "disk", options, &image);
        let export = negotiated(&server, "disk").unwrap();
        assert_eq!((export.size, export.flags & 3), (SIZE, 1 | read_only));
        assert!(export.allocation.is_some());
        assert_ne!(export.replies, Replies::Simple);
        assert_eq!(exports(&server), ["disk"]);
        let error = negotiated(&server, "disc").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("the export \"disk\""), "{error}");
    }
}

#[test]
fn nbd_server_gives_an_export() {
    requires!("nbd-server");
    let folder = scratch::folder();
    let image = image(folder.path());
    for door in [Door::UNIX, Door::TCP] {
        let all = [("disk", image.as_path()), ("other", image.as_path())];
        let server = servers::nbd_server(door, &all, "readonly = true");
        let export = negotiated(&server, "disk").unwrap();
        assert_eq!((export.size, export.flags & 3), (SIZE, 3));
        let mut names = exports(&server);
        names.sort();
        assert_eq!(names, ["disk", "other"]);
        let error = negotiated(&server, "third").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("\"disk\""), "{error}");
    }
}
