//! Machines that move from one host to another while their disks are read and written; hosts that do not take them; how disks
//! are counted where there are several hosts.

mod common;

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use common::child::in_child;
use common::model::Rng;
use common::model::stamps;
use common::pieces::Piece;
use common::pieces::compare_async;
use common::pieces::compare_sync;
use common::pieces::in_order;
use common::pieces::part;
use common::pieces::pieces;
use common::pieces::write_async;
use common::pki;
use common::pki::Pki;
use common::scratch;
use common::stage::SECTORS;
use common::stage::Stage;
use common::stage::configured;
use common::stage::connect;
use common::stage::content;
use common::stage::expected;
use common::vix;
use common::vix::Disk;
use common::vix::Kind;
use common::vix::Server;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;
use common::vix::logged;
use vixDiskLib::sim::certificate::CertificateFiles;
use vixDiskLib::sim::options::MachineOptions;
use vixDiskLib::sim::options::Options;

/// Operations are short, so that a machine moves in the middle of a call, and often.
const SHORT: &str = "vixDiskLib.nfc.operationSizeInKB=16\n";

/// Short times, so that the end of every wait is seen.
const TIMES: &str = "vixDiskLib.nfc.AcceptTimeoutMs=3000\nvixDiskLib.nfc.RequestTimeoutMs=1500\n\
                     vixDiskLib.nfc.ReadTimeoutMs=1000\nvixDiskLib.nfc.WriteTimeoutMs=1000\n\
                     vixDiskLib.nfc.reconnectTimeoutMs=2000\nvixDiskLib.nfc.operationSizeInKB=16\n";

/// With these times, nothing takes longer. The machine may be busy.
const LONGEST: Duration = Duration::from_secs(15);

/// A vCenter with two hosts.
fn two_hosts() -> Stage {
    Stage::start(Options { hosts: 2, ..Options::default() })
}

fn open(stage: &Stage, mode: &str, number: usize, how: u32) -> Disk<'static> {
    connect(&stage.server().over(mode)).leaked().must_open(&stage.disk(number), how)
}

/// A host as the log names it.
fn host(stage: &Stage, at: usize) -> String {
    format!("127.0.0.1:{}", stage.sim.ready().hosts[at].nfc_port)
}

/// How often a disk was found at this host after it had been at the other one.
fn arrivals(stage: &Stage, at: usize) -> usize {
    logged(&format!("served by host {} instead of {}", host(stage, at), host(stage, 1 - at)))
}

/// Reads all of a disk again and again, one by one and with many under way.
fn read_again_and_again(disk: &Disk<'_>, rounds: u64) {
    let whole = expected(true);
    for round in 0..rounds {
        compare_async(disk, &pieces(SECTORS, round), 8, &whole);
        compare_sync(disk, &in_order(SECTORS, 512), &whole);
    }
}

/// Writes every piece of a disk once, and reads what was written before again.
fn write_everything(disk: &Disk<'_>, whole: &[u8]) {
    let (mut waiting, mut written, mut rng) = (pieces(SECTORS, 1), Vec::<Piece>::new(), Rng::new(2));
    while !waiting.is_empty() {
        let batch = waiting.split_off(waiting.len().saturating_sub(1 + rng.below(12) as usize));
        if rng.below(2) == 0 {
            write_async(disk, &batch, whole);
        } else {
            batch.iter().for_each(|piece| disk.must_write(piece.0, part(whole, *piece)));
        }
        written.extend(batch);
        let again: Vec<Piece> = (0..2).map(|_| written[rng.below(written.len() as u64) as usize]).collect();
        compare_async(disk, &again, 8, whole);
    }
}

fn copy_while_it_moves(mode: &str) {
    configured(SHORT);
    let (stage, whole) = (two_hosts(), stamps(0, SECTORS, 3));
    let (reading, writing) =
        (open(&stage, mode, 0, flags::READ_ONLY), open(&stage, mode, 1, flags::READ_WRITE));
    vix::forget_log();
    // In the middle of reads and of writes of either disk: both belong to one machine.
    stage.fault("nfc.read:/300=move");
    stage.fault("nfc.write:/100=move");
    std::thread::scope(|scope| {
        scope.spawn(|| read_again_and_again(&reading, 2));
        scope.spawn(|| write_everything(&writing, &whole));
    });
    stage.heal();
    let moves = [arrivals(&stage, 0), arrivals(&stage, 1)];
    assert!(moves.iter().all(|count| *count >= 4), "{moves:?}\n{}", vix::log_text());
    assert_eq!((reading.transport(), writing.transport()), (mode.to_owned(), mode.to_owned()));
    compare_sync(&writing, &in_order(SECTORS, 2048), &whole);
    assert_eq!((reading.close(), writing.close()), (code::OK, code::OK), "{}", vix::log_text());
    stage.left_behind("b.vmdk", |disk| compare_sync(disk, &in_order(SECTORS, 2048), &whole));
}

#[test]
fn a_machine_may_move_again_and_again_while_it_is_read_and_written() {
    in_child(|| copy_while_it_moves("nbd"));
}

#[test]
fn a_machine_may_move_again_and_again_while_it_is_read_and_written_with_tls() {
    in_child(|| copy_while_it_moves("nbdssl"));
}

#[test]
fn a_machine_that_moves_again_before_it_is_found_is_looked_for_again() {
    in_child(|| {
        configured(SHORT);
        let stage = two_hosts();
        let disk = open(&stage, "nbdssl", 0, flags::READ_ONLY);
        for rule in ["nfc.read:2=move", "nfc.session:1=move", "nfc.open:1=move"] {
            stage.fault(rule);
        }
        assert!(content(&disk) == expected(true), "{}", vix::log_text());
        assert_eq!(arrivals(&stage, 1), 1, "three moves: {}", vix::log_text());
    });
}

#[test]
fn a_disk_that_nobody_reads_at_that_moment_is_found_at_its_next_host() {
    in_child(|| {
        configured("");
        let stage = two_hosts();
        let disk = open(&stage, "nbdssl", 0, flags::READ_ONLY);
        for at in [1, 0, 1] {
            stage.sim.relocate("vm", at).expect("a move");
            assert!(content(&disk) == expected(true), "{}", vix::log_text());
        }
        assert_eq!([arrivals(&stage, 0), arrivals(&stage, 1)], [1, 2], "{}", vix::log_text());
        assert_eq!(disk.allocated_all(128), allocated_before_any_move());
    });
}

/// Allocated blocks of the same disk where nothing ever moved.
fn allocated_before_any_move() -> Vec<(u64, u64)> {
    open(&Stage::vcenter(), "nbdssl", 0, flags::READ_ONLY).allocated_all(128)
}

#[test]
fn where_there_is_one_host_nothing_moves() {
    in_child(|| {
        configured(SHORT);
        let stage = Stage::vcenter();
        let disk = open(&stage, "nbdssl", 0, flags::READ_ONLY);
        vix::forget_log();
        stage.fault("nfc.read=move");
        assert!(content(&disk) == expected(true), "{}", vix::log_text());
        assert_eq!((logged("connected again"), logged("attempting to create connection")), (0, 0));
    });
}

/// The second host takes nobody.
fn shut(stage: &Stage) {
    let knobs = stage.sim.knobs_of(1).expect("a second host");
    for setting in ["connections=0", "excess=refuse"] {
        knobs.set(setting).expect("a setting");
    }
}

#[test]
fn a_host_that_refuses_is_named_in_the_end() {
    in_child(|| {
        configured(TIMES);
        let stage = two_hosts();
        shut(&stage);
        for (number, how) in [(0, flags::READ_ONLY), (1, flags::READ_WRITE)] {
            stage.sim.relocate("vm", 0).expect("a move");
            let disk = open(&stage, "nbdssl:nbd", number, how);
            vix::forget_log();
            stage.fault("nfc.read:1=move(2)");
            stage.fault("nfc.write:1=move(2)");
            let begin = Instant::now();
            let got = match how {
                flags::READ_ONLY => disk.read(0, &mut [0; 65536]),
                _ => disk.write(0, &stamps(0, 128, 5)),
            };
            assert_eq!(got, code::CONN_REFUSED, "{}", vix::log_text());
            assert!(begin.elapsed() < LONGEST, "{:?}", begin.elapsed());
            let told = format!("{}: the host closes the connection without a greeting", host(&stage, 1));
            assert!(logged(&told) > 0, "{told}\n{}", vix::log_text());
            assert!(logged("no other transport helps") > 0, "{}", vix::log_text());
            stage.heal();
        }
    });
}

#[test]
fn when_the_new_host_refuses_the_next_transport_of_the_list_goes_on() {
    in_child(|| {
        configured(TIMES);
        let stage = two_hosts();
        shut(&stage);
        let disk = open(&stage, "nbdssl:nbd:https", 0, flags::READ_ONLY);
        assert_eq!(disk.transport(), "nbdssl");
        stage.fault("nfc.read:2=move(2)");
        let begin = Instant::now();
        assert!(content(&disk) == expected(true), "{}", vix::log_text());
        assert!(begin.elapsed() < LONGEST, "{:?}", begin.elapsed());
        assert_eq!((disk.transport().as_str(), logged("goes on by https")), ("https", 1));
    });
}

#[test]
fn a_machine_that_comes_back_in_time_is_not_missed() {
    in_child(|| {
        configured(TIMES);
        let stage = two_hosts();
        shut(&stage);
        let disk = open(&stage, "nbdssl", 0, flags::READ_ONLY);
        vix::forget_log();
        stage.fault("nfc.read:2=move(2)");
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| content(&disk));
            let begin = Instant::now();
            let knocked = format!("attempting to create connection to vpxa-nfcssl://{}", at_host(&stage, 1));
            while logged(&knocked) == 0 && !reader.is_finished() {
                assert!(begin.elapsed() < Duration::from_secs(60), "{}", vix::log_text());
                std::thread::yield_now();
            }
            stage.sim.relocate("vm", 0).expect("a move");
            assert!(reader.join().expect("the reader") == expected(true), "{}", vix::log_text());
        });
    });
}

/// The end of a connection's name.
fn at_host(stage: &Stage, at: usize) -> String {
    format!("{}@{}", stage.disk(0).display(), host(stage, at))
}

#[test]
fn the_certificate_is_that_of_the_host_that_the_ticket_names() {
    in_child(|| {
        configured(TIMES);
        let stage = two_hosts();
        // Whatever tickets say, the caller sends everybody to the first host.
        let port = u32::from(stage.sim.nfc_address().port());
        for mode in ["nbd", "nbdssl"] {
            stage.sim.relocate("vm", 0).expect("a move");
            let server = Server { nfc_port: port, ..stage.server().over(mode) };
            let disk = connect(&server).leaked().must_open(&stage.disk(0), flags::READ_ONLY);
            disk.must_read(0, 64);
            vix::forget_log();
            stage.sim.relocate("vm", 1).expect("a move");
            let begin = Instant::now();
            assert_eq!(disk.read(8192, &mut [0; 512]), code::FAIL, "{}", vix::log_text());
            assert!(begin.elapsed() < LONGEST, "{:?}", begin.elapsed());
            assert!(logged("thumbprint") > 0, "{}", vix::log_text());
            assert_eq!((logged("served by host"), logged("connected again")), (0, 0), "{}", vix::log_text());
        }
    });
}

#[test]
fn a_ticket_is_worth_nothing_with_another_host() {
    requires!(pki::PROGRAM);
    in_child(|| {
        configured(TIMES);
        let pki = Pki::new();
        let file = |name: &str| pki.server().join(name);
        let files = CertificateFiles { certificate: file("server-cert.pem"), key: file("server-key.pem") };
        // One certificate for both hosts, so that nothing but the ticket is wrong.
        let stage = Stage::start(Options { hosts: 2, certificate: Some(files), ..Options::default() });
        stage.sim.relocate("vm", 1).expect("a move");
        let port = u32::from(stage.sim.nfc_address().port());
        let astray = Server { nfc_port: port, ..stage.server() };
        let refused = connect(&astray).open(&stage.disk(0), flags::READ_ONLY).map(|_| ());
        assert_eq!(refused, Err(code::HANDSHAKE), "{}", vix::log_text());
        assert!(logged("530 Login incorrect") > 0, "{}", vix::log_text());
        let disk = connect(&stage.server()).leaked().must_open(&stage.disk(0), flags::READ_ONLY);
        assert!(content(&disk) == expected(true));
    });
}

/// A vCenter with two hosts and the machine `vm` on the first one, another machine on the second, whose disk is at the path.
fn two_machines(other: &Path) -> (Stage, Server, std::path::PathBuf) {
    let here = Vix::started().connect(false).expect("a local connection");
    here.must_create(other, Spec::new(Kind::Flat, SECTORS));
    let machine =
        MachineOptions { name: "other".to_owned(), disks: vec![other.to_owned()], powered_on: false };
    let stage = Stage::start(Options { hosts: 2, machines: vec![machine], ..Options::default() });
    stage.sim.relocate("other", 1).expect("a move");
    let ready = stage.sim.ready();
    let vm = ready.vms.iter().find(|vm| vm.name == "other").expect("the other machine");
    let server = Server { machine: Some(format!("moref={}", vm.moref)), ..stage.server() };
    (stage, server, vm.disks[0].path.clone().into())
}

#[test]
fn disks_are_counted_by_host_and_all_together_by_vcenter() {
    in_child(|| {
        configured("");
        let folder = scratch::folder();
        let (stage, server, path) = two_machines(&folder.path().join("c.vmdk"));
        let (one, two) = (connect(&stage.server().over("nbd")), connect(&server.over("nbd")));
        let on_host = |at: usize| logged(&format!("50 disks are open on host {}:", host(&stage, at)));
        let on_vcenter = || logged("52 disks are open on vCenter 127.0.0.1:");
        let first = |count: usize| -> Vec<Disk<'_>> {
            (0..count).map(|_| one.must_open(&stage.disk(0), flags::READ_ONLY)).collect()
        };
        let mut disks = first(30);
        let others: Vec<_> = (0..21).map(|_| two.must_open(&path, flags::READ_ONLY)).collect();
        assert_eq!((on_host(0), on_host(1), on_vcenter()), (0, 0, 0), "51 in all");
        disks.extend(first(1));
        assert_eq!((on_host(0), on_host(1), on_vcenter()), (0, 0, 1), "52 in all, and 31 at most on a host");
        disks.extend(first(19));
        assert_eq!((on_host(0), on_host(1), on_vcenter()), (1, 0, 1), "50 on the first host");
        // They move, and are counted where they are found.
        stage.sim.relocate("vm", 1).expect("a move");
        for disk in &disks {
            assert!(disk.must_read(4000, 200) == expected(true)[4000 * 512..4200 * 512]);
        }
        assert_eq!((on_host(0), on_host(1), on_vcenter()), (1, 1, 1), "71 on the second host");
        assert_eq!(stage.sim.served(), 71);
        drop(others);
    });
}
