//! The NBD client against servers that others wrote, and through a proxy that delays and cuts.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use common::model;
use common::proxy::Fate;
use common::proxy::Lane;
use common::proxy::Proxy;
use common::scratch;
use common::servers;
use common::servers::Door;
use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::logging::Log;
use vixDiskLib::net::nbd::client::Client;
use vixDiskLib::net::nbd::client::Dial;
use vixDiskLib::net::nbd::client::Options;
use vixDiskLib::net::socket::Address;
use vixDiskLib::threads::Threads;
use vixDiskLib::transfer::Finish;
use vixDiskLib::transfer::Transfer;

const MIB: usize = 1 << 20;

fn options() -> Options {
    Options {
        connect: Duration::from_secs(30),
        request: Duration::from_secs(30),
        reconnect: Duration::from_secs(30),
        connections: 0,
        window: 0,
        write: true,
    }
}

fn connect(address: Address, options: &Options) -> Arc<Client> {
    let dial = Dial { address, export: String::new(), tls: None };
    Client::connect(dial, options, Log::none(), Arc::new(Threads::new(|body| body()))).unwrap()
}

/// Writes and reads in pieces of many sizes, synchronously and started, and compares everything at the end.
fn exercise(client: &Client, len: usize) {
    let mut expected = vec![0; len];
    client.read(&mut expected, 0).unwrap();
    let sizes = [1 << 20, 512, 4096, 70_000, 300_000, 65_536];
    let mut at = 1024;
    for (i, size) in sizes.into_iter().cycle().enumerate().take(30) {
        let size = size.min(len - at);
        let data: &'static [u8] = Box::leak(vec![i as u8 + 1; size].into_boxed_slice());
        expected[at..at + size].copy_from_slice(data);
        if i % 2 == 0 {
            client.write(data, at as u64).unwrap();
        } else {
            started(client, Transfer::Write(data), at).recv_timeout(Duration::from_secs(60)).unwrap();
        }
        at = (at + size + 4096) % (len - MIB);
    }
    client.zero(100_000..200_000).map(|zeroed| assert!(zeroed)).unwrap();
    expected[100_000..200_000].fill(0);
    client.flush().unwrap();
    let mut whole = vec![1; len];
    client.read(&mut whole, 0).unwrap();
    assert!(whole == expected);
    let parts: Vec<_> = (0..len)
        .step_by(200_000)
        .map(|at| (at, started(client, Transfer::ReadOwned(vec![0; 200_000.min(len - at)]), at)))
        .collect();
    for (at, part) in parts {
        let Transfer::ReadOwned(data) = part.recv_timeout(Duration::from_secs(60)).unwrap() else { panic!() };
        assert!(data == expected[at..at + data.len()]);
    }
}

fn started(client: &Client, transfer: Transfer, at: usize) -> mpsc::Receiver<Transfer> {
    let (told, finished) = mpsc::channel();
    let finish: Finish = Box::new(move |transfer, result| {
        result.unwrap();
        told.send(transfer).unwrap();
    });
    assert!(client.start(transfer, at as u64, finish).is_none());
    finished
}

#[test]
fn what_is_written_is_read_through_nbdkit_in_every_style() {
    requires!("nbdkit");
    for (options_of_server, filter) in [
        (&[][..], "--filter=noextents"),
        (&["--no-sr"], "--filter=noextents"),
        (&["--threads=1"], "--filter=noparallel"),
        (&["--mask-handshake=0"], "--filter=noextents"),
    ] {
        let arguments = [options_of_server, &[filter]].concat();
        let server = servers::nbdkit(Door::TCP, &arguments, &["memory", "8M"]);
        let client = connect(server.address(), &options());
        exercise(&client, 8 * MIB);
        client.close();
        server.finish();
    }
}

#[test]
fn what_is_written_is_read_through_qemu_nbd() {
    requires!("qemu-nbd");
    let folder = scratch::folder();
    let path = folder.path().join("image.raw");
    std::fs::write(&path, model::stamps(0, 8 * 2048, 1)).unwrap();
    let server = servers::qemu_nbd(Door::TCP, "", &["-f", "raw"], &path);
    let client = connect(server.address(), &options());
    exercise(&client, 8 * MIB);
    let mut covered = 0;
    assert!(
        client
            .allocation(0..8 << 20, &mut |part| {
                assert_eq!(part.range.start, covered);
                covered = part.range.end;
            })
            .unwrap()
    );
    assert_eq!(covered, 8 << 20);
    client.close();
}

/// Another client's copy and map of data that lies here and there.
#[test]
fn what_is_scattered_is_read_and_mapped_as_others_do() {
    requires!("nbdkit", "nbdcopy");
    let plugin = ["sparse-random", "size=64M", "percent=20", "runlength=65536", "seed=7"];
    let server = servers::nbdkit(Door::TCP, &[], &plugin);
    let folder = scratch::folder();
    let copy = folder.path().join("copy");
    common::tools::check(std::process::Command::new("nbdcopy").arg(server.uri("")).arg(&copy));
    let expected = std::fs::read(&copy).unwrap();
    let client = connect(server.address(), &options());
    let mut whole = vec![1; 64 * MIB];
    client.read(&mut whole, 0).unwrap();
    assert!(whole == expected);
    let (mut covered, mut data) = (0, 0);
    let told = client.allocation(0..64 << 20, &mut |part| {
        assert_eq!(part.range.start, covered);
        covered = part.range.end;
        let content = &expected[part.range.start as usize..part.range.end as usize];
        assert_eq!(part.zero, content.iter().all(|byte| *byte == 0), "{part:?}");
        data += if part.zero { 0 } else { content.len() };
    });
    assert!(told.unwrap() && covered == 64 << 20);
    assert!((2 * MIB..40 * MIB).contains(&data), "{data} bytes of data");
}

/// The storage behind the server takes its time: what is started is on its way at once.
#[test]
fn slow_storage_is_given_many_requests() {
    requires!("nbdkit");
    let plugin = ["memory", "16M", "rdelay=50ms"];
    let server = servers::nbdkit(Door::TCP, &["--threads=16", "--filter=delay"], &plugin);
    let client = connect(server.address(), &options());
    let began = Instant::now();
    let parts: Vec<_> =
        (0..64).map(|i| started(&client, Transfer::ReadOwned(vec![1; 65_536]), i * 65_536)).collect();
    for part in parts {
        let Transfer::ReadOwned(data) = part.recv_timeout(Duration::from_secs(60)).unwrap() else { panic!() };
        assert!(data.iter().all(|byte| *byte == 0));
    }
    assert!(began.elapsed() < Duration::from_millis(50) * 64 / 2, "{:?}", began.elapsed());
}

/// A server that ends with its last client is let go when the client closes, with all of its connections.
#[test]
fn a_server_that_waits_for_the_last_client_ends() {
    requires!("nbdkit");
    let server = servers::nbdkit(Door::TCP, &["--filter=exitlast"], &["memory", "16M"]);
    let client = connect(server.address(), &options());
    let parts: Vec<_> =
        (0..32).map(|i| started(&client, Transfer::ReadOwned(vec![1; 262_144]), i * 262_144)).collect();
    for part in parts {
        part.recv_timeout(Duration::from_secs(60)).unwrap();
    }
    client.close();
    server.wait();
}

#[test]
fn errors_of_the_storage_come_back_and_the_rest_goes_on() {
    requires!("nbdkit");
    let arguments = ["--filter=error"];
    let server =
        servers::nbdkit(Door::TCP, &arguments, &["memory", "8M", "error-pread-rate=50%", "error=ENOSPC"]);
    let client = connect(server.address(), &options());
    let results: Vec<_> = (0..200).map(|i| client.read(&mut [1; 512], i * 512)).collect();
    assert!(results.iter().any(Result::is_ok));
    let error = results.into_iter().find_map(Result::err).unwrap();
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
    client.write(&[1; 512], 0).unwrap();
}

/// A storage that fails changes of one kind as long as a file exists.
fn while_it_exists(folder: &Path, kind: &str) -> (PathBuf, servers::Server) {
    let trouble = folder.join(kind);
    let server = if kind == "flush" {
        // The filter has no trouble for flushes.
        let fail = format!("[ ! -e '{}' ] || {{ echo EIO no way >&2; exit 1; }}", trouble.display());
        let disk = folder.join("disk");
        std::fs::write(&disk, vec![0; MIB]).unwrap();
        let dd = "dd conv=notrunc iflag=count_bytes,skip_bytes oflag=seek_bytes status=none";
        let plugin = [
            "eval".to_owned(),
            "get_size=echo 1048576".to_owned(),
            format!("pread={dd} if='{}' skip=$4 count=$3", disk.display()),
            format!("pwrite={dd} of='{}' seek=$4", disk.display()),
            format!("flush={fail}"),
        ];
        servers::nbdkit(Door::TCP, &[], &plugin.each_ref().map(String::as_str))
    } else {
        let rate = format!("error-{kind}-rate=100%");
        let file = format!("error-{kind}-file={}", trouble.display());
        servers::nbdkit(Door::TCP, &["--filter=error"], &["memory", "1M", "error=EIO", &rate, &file])
    };
    (trouble, server)
}

#[test]
fn changes_that_the_storage_refuses_fail_and_later_ones_do_not() {
    requires!("nbdkit");
    const DATA: &[u8; 8192] = &[7; 8192];
    let folder = scratch::folder();
    type Change = fn(&Client) -> Result<(), Error>;
    let changes: &[(&str, Change)] = &[
        ("pwrite", |client| client.write(DATA, 4096)),
        ("pwrite", |client| {
            let (told, finished) = mpsc::channel();
            let finish: Finish = Box::new(move |_, result| told.send(result).unwrap());
            assert!(client.start(Transfer::Write(DATA), 4096, finish).is_none());
            finished.recv_timeout(Duration::from_secs(60)).unwrap()
        }),
        ("zero", |client| client.zero(0..4096).map(|zeroed| assert!(zeroed))),
        ("trim", |client| client.trim(0..4096).map(drop)),
        ("flush", |client| client.flush()),
    ];
    for (kind, change) in changes {
        let (trouble, server) = while_it_exists(folder.path(), kind);
        let client = connect(server.address(), &Options { connections: 1, ..options() });
        client.write(&[1; 512], 0).unwrap();
        std::fs::write(&trouble, "").unwrap();
        for _ in 0..3 {
            let error = change(&client).expect_err(kind);
            assert_eq!(error.kind(), ErrorKind::Io, "{kind}: {error}");
            let mut first = [0; 512];
            client.read(&mut first, 0).unwrap();
            assert_eq!(first, [1; 512], "{kind}: what was refused changed nothing");
        }
        std::fs::remove_file(&trouble).unwrap();
        change(&client).unwrap_or_else(|e| panic!("{kind} after the trouble: {e}"));
        client.write(DATA, 4096).unwrap();
        let mut back = [0; 8192];
        client.read(&mut back, 4096).unwrap();
        assert_eq!(&back, DATA, "{kind}");
        client.flush().unwrap();
    }
}

/// nbdkit's eval plugin notes the flags of every change.
#[test]
fn a_server_with_fua_and_without_flush_gets_stable_writes() {
    requires!("nbdkit");
    let folder = scratch::folder();
    let noted = folder.path().join("flags");
    let note = |verb: &str, before: &str| format!("{verb}={before}echo $1 $5 >>'{}'", noted.display());
    let plugin = [
        "eval".to_owned(),
        "get_size=echo 1048576".to_owned(),
        "pread=head -c $3 /dev/zero".to_owned(),
        note("pwrite", "cat >/dev/null; "),
        note("zero", ""),
        note("trim", ""),
        "can_fua=echo native".to_owned(),
        "can_flush=exit 3".to_owned(),
    ];
    let server = servers::nbdkit(Door::TCP, &[], &plugin.each_ref().map(String::as_str));
    let client = connect(server.address(), &Options { connections: 1, ..options() });
    client.write(&[1; 4096], 0).unwrap();
    started(&client, Transfer::Write(&[2; 4096]), 4096).recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(client.zero(8192..12288).unwrap());
    client.trim(12288..16384).unwrap();
    client.flush().unwrap();
    let noted = std::fs::read_to_string(&noted).unwrap();
    let verbs: Vec<_> = noted.lines().filter_map(|line| line.split_once(' ')).collect();
    let (verbs, flags): (Vec<_>, Vec<_>) = verbs.into_iter().unzip();
    assert_eq!(verbs, ["pwrite", "pwrite", "zero", "trim"]);
    assert!(flags.iter().all(|flags| flags.split(',').any(|flag| flag == "fua")), "{noted}");
}

#[test]
fn cuts_of_a_real_connection_are_made_up_for() {
    requires!("nbdkit");
    let server = servers::nbdkit(Door::TCP, &[], &["memory", "4M"]);
    // the first connections die after an odd number of bytes of one direction, later ones live
    let proxy = Proxy::new(server.address(), |n| match n {
        0..12 if n % 2 == 0 => Fate { up: Lane::cut_after(700 + 60_001 * n as u64), ..Fate::default() },
        0..12 => Fate { down: Lane::cut_after(900 + 100_003 * n as u64), ..Fate::default() },
        _ => Fate::default(),
    });
    let client = connect(proxy.address(), &Options { connections: 1, ..options() });
    let data: Vec<u8> = (0..3 * MIB).map(|i| (i / 512 * 17 + i) as u8).collect();
    for (i, part) in data.chunks(100_000).enumerate() {
        client.write(part, i as u64 * 100_000).unwrap();
        let mut back = vec![0; (i * 100_000 + part.len()).min(500_000)];
        let at = i * 100_000 + part.len() - back.len();
        client.read(&mut back, at as u64).unwrap();
        assert!(back == data[at..][..back.len()]);
    }
    assert!(proxy.seen() > 12, "{} connections", proxy.seen());
}

/// Requests of half a MiB one after the other would take 128 round trips, and the window that it begins with 85.
#[test]
fn a_long_round_trip_is_filled_with_requests() {
    requires!("nbdkit");
    let server = servers::nbdkit(Door::TCP, &[], &["memory", "64M"]);
    let trip = Duration::from_millis(20);
    let proxy = Proxy::new(server.address(), move |_| Fate::round_trip(trip));
    let client = connect(proxy.address(), &options());
    let mut buf = vec![1; 64 * MIB];
    client.read(&mut buf, 0).unwrap(); // opens the window
    assert!(buf.iter().all(|b| *b == 0));
    let began = Instant::now();
    client.read(&mut buf, 0).unwrap();
    assert!(began.elapsed() < trip * 48, "{:?}", began.elapsed());
}

#[test]
fn closing_while_the_server_is_gone_is_quick() {
    requires!("nbdkit");
    let mut server = servers::nbdkit(Door::TCP, &[], &["memory", "8M"]);
    let client = connect(server.address(), &options());
    client.write(&[1; 4096], 0).unwrap();
    server.kill();
    let waiting = started_raw(&client);
    let began = Instant::now();
    client.close();
    assert!(began.elapsed() < Duration::from_secs(2));
    waiting.recv_timeout(Duration::from_secs(10)).unwrap().unwrap_err();
}

fn started_raw(client: &Client) -> mpsc::Receiver<Result<(), vixDiskLib::error::Error>> {
    let (told, finished) = mpsc::channel();
    let finish: Finish = Box::new(move |_, result| told.send(result).unwrap());
    assert!(client.start(Transfer::ReadOwned(vec![0; 4096]), 0, finish).is_none());
    finished
}
