//! From one transport to the next: which faults lead on while a disk is opened and while it is in use, how long a host that is
//! full is waited for, and what the error tells in the end.

mod common;

use std::net::TcpListener;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use common::child::in_child;
use common::model::stamps;
use common::pieces::compare_async;
use common::pieces::compare_sync;
use common::pieces::in_order;
use common::stage::SECTORS;
use common::stage::Stage;
use common::stage::configured;
use common::stage::connect;
use common::stage::content;
use common::stage::expected;
use common::stage::refused;
use common::stage::until;
use common::vix;
use common::vix::Server;
use common::vix::code;
use common::vix::flags;
use common::vix::logged;
use vixDiskLib::sim::options::Options;

/// Short times, so that the end of every wait is seen; short operations, so that a copy has many.
const TIMES: &str = "vixDiskLib.nfc.AcceptTimeoutMs=2000\nvixDiskLib.nfc.RequestTimeoutMs=1500\n\
                     vixDiskLib.nfc.ReadTimeoutMs=1000\nvixDiskLib.nfc.WriteTimeoutMs=1000\n\
                     vixDiskLib.nfc.reconnectTimeoutMs=1000\nvixDiskLib.nfc.operationSizeInKB=16\n";

/// With these times, nothing takes longer. The machine may be busy.
const LONGEST: Duration = Duration::from_secs(20);

/// Does something that has to end in time.
#[track_caller]
fn in_time<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let done = act();
    assert!(begin.elapsed() < LONGEST, "{what}: {:?}\n{}", begin.elapsed(), vix::log_text());
    done
}

/// Reads on after the host refuses every ticket.
#[test]
fn tickets_that_are_refused_from_some_time_on_lead_to_the_next_transport() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        let disk = stage.open_over("nbdssl:https", 0, flags::READ_ONLY);
        disk.must_read(0, 64);
        stage.fault("authd.proxy=refuse");
        stage.sim.cut_nfc();
        in_time("reading on", || assert!(content(&disk) == expected(true), "{}", vix::log_text()));
        assert_eq!((disk.transport().as_str(), logged("goes on by https")), ("https", 1));
        assert!(logged("530 Login incorrect") > 0, "{}", vix::log_text());
    });
}

#[test]
fn tickets_that_are_refused_from_some_time_on_are_told_where_there_is_no_other_transport() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        let disk = stage.open_over("nbdssl", 0, flags::READ_ONLY);
        stage.fault("authd.proxy=refuse");
        stage.sim.cut_nfc();
        let got = in_time("giving up", || disk.read(8192, &mut [0; 512]));
        assert_eq!(got, code::HANDSHAKE, "{}", vix::log_text());
        assert!(logged("530 Login incorrect") > 0, "{}", vix::log_text());
        stage.heal();
        until("it is asked again", || disk.read(8192, &mut [0; 512]) == code::OK);
        assert!(content(&disk) == expected(true));
    });
}

/// The permission that the server takes away while a disk is read.
#[test]
fn rights_that_are_taken_away_lead_to_the_next_transport() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        for fault in ["fault(NoPermission,privilege=x)", "fault(TaskInProgress)", "fault(NobodyKnowsIt)"] {
            let disk = stage.open_over("nbdssl:https", 0, flags::READ_ONLY);
            stage.fault(&format!("soap.NfcGetVmFiles={fault}"));
            stage.sim.cut_nfc();
            in_time(fault, || assert!(content(&disk) == expected(true), "{fault}\n{}", vix::log_text()));
            assert_eq!(disk.transport(), "https", "{fault}");
            stage.heal();
        }
    });
}

/// In the middle of a copy the host's door is shut for good.
fn copy_with_a_shut_door(synchronous: bool) {
    configured(TIMES);
    let (stage, whole) = (Stage::vcenter(), expected(true));
    let disk = stage.open_over("nbdssl:https", 0, flags::READ_ONLY);
    stage.fault("nfc.read:100=cut");
    stage.fault("authd.*=cut");
    let pieces = in_order(SECTORS, 512);
    in_time("the copy", || match synchronous {
        true => compare_sync(&disk, &pieces, &whole),
        false => compare_async(&disk, &pieces, 8, &whole),
    });
    assert_eq!((disk.transport().as_str(), logged("goes on by https")), ("https", 1), "{}", vix::log_text());
    assert_eq!(disk.close(), code::OK);
}

#[test]
fn a_synchronous_copy_goes_on_over_another_protocol() {
    in_child(|| copy_with_a_shut_door(true));
}

#[test]
fn an_asynchronous_copy_goes_on_over_another_protocol() {
    in_child(|| copy_with_a_shut_door(false));
}

#[test]
fn a_disk_that_is_written_does_not_become_one_that_is_only_read() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        let disk = stage.open_over("nbdssl:https", 1, flags::READ_WRITE);
        disk.must_write(0, &stamps(0, 64, 1));
        stage.fault("nfc.write:1=cut");
        stage.fault("authd.*=cut");
        let lost = [code::CONN_REFUSED, code::CONN_LOST];
        let got = in_time("giving up", || disk.write(64, &stamps(64, 64, 1)));
        assert!(lost.contains(&got), "{got}\n{}", vix::log_text());
        assert!(logged("files of a datastore can only be read over https") > 0, "{}", vix::log_text());
        assert!(logged("goes on by") == 0, "{}", vix::log_text());
        let (read, wrote) = (disk.read(8192, &mut [0; 512]), disk.write(64, &stamps(64, 64, 1)));
        assert!(lost.contains(&read) && lost.contains(&wrote), "{read} {wrote}");
        let asynchronous = disk.write_many(&[(128, &stamps(128, 64, 1)[..])], 1);
        assert!(lost.contains(&asynchronous), "{asynchronous}");
        in_time("closing", || disk.close());
    });
}

#[test]
fn every_fault_of_a_host_or_of_its_tickets_leads_to_the_next_transport() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        for rule in [
            "soap.NfcGetVmFiles=fault(NoPermission,privilege=VirtualMachine.Provisioning.GetVmFiles)",
            "soap.NfcGetVmFiles=fault(InsufficientResourcesFault)",
            "soap.NfcGetVmFiles=fault(NobodyKnowsIt)",
            "soap.NfcGetVmFiles=fault(HostNotConnected)",
            "soap.NfcGetVmFiles=fault(NotSupported)",
            "soap.NfcGetVmFiles=silence",
            "soap.NfcGetVmFiles=cut",
            "authd.connect=refuse",
            "authd.proxy=refuse",
            "authd.tls=silence",
            "nfc.session=refuse",
            "nfc.session=magic",
            "nfc.open=error(5)",
            "nfc.open=error(13)",
            "nfc.open=error(99,\"on fire\")",
            "nfc.open=cut",
            "nfc.ddb=silence",
        ] {
            stage.fault(rule);
            let connection = connect(&stage.server().over("nbdssl:https"));
            let opened = in_time(rule, || connection.open(&stage.disk(0), flags::READ_ONLY));
            let disk = opened.unwrap_or_else(|code| panic!("{rule}: {code}\n{}", vix::log_text()));
            assert_eq!(disk.transport(), "https", "{rule}");
            assert!(disk.must_read(0, 64) == expected(true)[..64 * 512], "{rule}");
            stage.heal();
        }
    });
}

#[test]
fn what_is_not_there_or_not_trusted_is_not_looked_for_another_way() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        let server = stage.server().over("nbdssl:nbd:https");
        for (rule, code) in [
            ("nfc.open=error(4)", code::FILE_NOT_FOUND),
            (
                "soap.NfcGetVmFiles=fault(ManagedObjectNotFound,obj=VirtualMachine:vm-7)",
                code::MACHINE_NOT_FOUND,
            ),
            ("soap.NfcGetVmFiles=fault(InvalidArgument,invalidProperty=vm)", code::INVALID_ARG),
            ("soap.Login=fault(InvalidLogin)", code::PERMISSIONS),
        ] {
            vix::forget_log();
            stage.fault(rule);
            assert_eq!(
                refused(&server, &stage.disk(0), flags::READ_ONLY),
                code,
                "{rule}\n{}",
                vix::log_text()
            );
            assert_eq!(logged("is not reached by"), 0, "{rule}\n{}", vix::log_text());
            stage.heal();
        }
    });
}

#[test]
fn the_error_in_the_end_tells_the_cause_of_each_transport() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        let server = stage.server().over("nbdssl:nbd:https");
        stage.fault("nfc.open=error(99,\"on fire\")");
        stage.fault("folder=status(403)");
        assert_eq!(
            refused(&server, &stage.disk(0), flags::READ_ONLY),
            code::PERMISSIONS,
            "{}",
            vix::log_text()
        );
        let text = vix::log_text();
        let told = |line: &&str| {
            let parts = ["is not reached by nbdssl: ", "nor by nbd: ", "nor by https: ", "on fire", "403"];
            parts.iter().all(|part| line.contains(part))
        };
        assert_eq!(text.lines().filter(told).count(), 1, "{text}");
        // That https cannot write is no reason to hide why the host does not.
        let denied = "soap.NfcRandomAccessOpenDisk=fault(NoPermission,privilege=x.y)";
        stage.fault(denied);
        let code = refused(&stage.server().over("nbdssl:https"), &stage.disk(1), flags::READ_WRITE);
        assert_eq!(code, code::PERMISSIONS, "{}", vix::log_text());
        assert!(logged("can only be read over https") > 0 && logged("x.y") > 0, "{}", vix::log_text());
    });
}

#[test]
fn one_connection_that_is_lost_while_a_disk_is_opened_is_made_again() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        for rule in [
            "authd.connect:1=cut",
            "authd.session:1=cut",
            "authd.proxy:1=cut",
            "authd.tls:1=cut",
            "nfc.session:1=cut",
            "nfc.open:1=cut",
            "nfc.open:1=short",
            "nfc.ddb:1=cut",
        ] {
            for (number, how) in [(0, flags::READ_ONLY), (1, flags::READ_WRITE)] {
                stage.fault(rule);
                let connection = connect(&stage.server().over("nbdssl"));
                let opened = in_time(rule, || connection.open(&stage.disk(number), how));
                let disk = opened.unwrap_or_else(|code| panic!("{rule}: {code}\n{}", vix::log_text()));
                disk.must_read(0, 64);
                assert_eq!(disk.close(), code::OK);
                stage.heal();
            }
        }
    });
}

#[test]
fn a_machine_that_moves_while_its_disk_is_opened_is_found_at_its_next_host() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::start(Options { hosts: 2, ..Options::default() });
        for rule in ["nfc.open:1=move(2)", "nfc.session:1=move(2)", "nfc.ddb:1=move(2)"] {
            for (number, how) in [(0, flags::READ_ONLY), (1, flags::READ_WRITE)] {
                stage.sim.relocate("vm", 0).expect("a move");
                vix::forget_log();
                stage.fault(rule);
                let disk = stage.open_over("nbdssl", number, how);
                disk.must_read(0, 64);
                let there = format!("@127.0.0.1:{}' (", stage.sim.ready().hosts[1].nfc_port);
                assert_eq!(logged(&there), 1, "{rule}\n{}", vix::log_text());
                assert_eq!(disk.close(), code::OK);
                stage.heal();
            }
        }
    });
}

/// A host that serves one client at a time and refuses others, and the one that it serves: none of this process.
fn full_host() -> (Stage, TcpStream) {
    let stage = Stage::vcenter();
    for setting in ["connections=1", "excess=refuse"] {
        stage.sim.knobs().set(setting).expect("a setting");
    }
    let occupant = TcpStream::connect(stage.sim.nfc_address()).expect("a connection");
    until("the host is taken", || stage.sim.served() == 1);
    (stage, occupant)
}

#[test]
fn a_host_that_is_full_of_other_programs_is_waited_for() {
    in_child(|| {
        configured("vixDiskLib.nfc.AcceptTimeoutMs=60000\n");
        let (stage, occupant) = full_host();
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| stage.open_over("nbdssl", 0, flags::READ_ONLY));
            until("it waits", || logged("waits for room on its host") > 0 || opening.is_finished());
            drop(occupant);
            let disk = opening.join().expect("the disk");
            assert!(content(&disk) == expected(true));
        });
    });
}

#[test]
fn the_wait_for_a_full_host_has_an_end() {
    in_child(|| {
        configured(TIMES);
        let (stage, occupant) = full_host();
        let server = stage.server().over("nbdssl");
        let code = in_time("giving up", || refused(&server, &stage.disk(0), flags::READ_ONLY));
        assert_eq!(code, code::CONN_REFUSED, "{}", vix::log_text());
        assert!(logged("none of it is open here") > 0, "{}", vix::log_text());
        drop(occupant);
    });
}

#[test]
fn a_port_that_nobody_listens_on_is_not_waited_for() {
    in_child(|| {
        configured("vixDiskLib.nfc.AcceptTimeoutMs=600000\n");
        let stage = Stage::vcenter();
        let nobody =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let server = Server { nfc_port: u32::from(nobody.port()), ..stage.server().over("nbdssl") };
        let code = in_time("giving up", || refused(&server, &stage.disk(0), flags::READ_ONLY));
        assert_eq!((code, logged("waits for room")), (code::CONN_REFUSED, 0), "{}", vix::log_text());
    });
}

#[test]
fn a_server_that_gives_no_ticket_is_waited_for_as_long_as_a_host() {
    in_child(|| {
        configured("vixDiskLib.nfc.AcceptTimeoutMs=1000\nvixDiskLib.nfc.RequestTimeoutMs=600000\n");
        let stage = Stage::vcenter();
        let server = stage.server().over("nbdssl");
        for (rule, number, how) in [
            ("soap.NfcGetVmFiles=silence", 0, flags::READ_ONLY),
            ("soap.NfcRandomAccessOpenDisk=silence", 1, flags::READ_WRITE),
        ] {
            stage.fault(rule);
            let code = in_time(rule, || refused(&server, &stage.disk(number), how));
            assert_eq!(code, code::SOCKET_ERROR, "{rule}\n{}", vix::log_text());
            stage.heal();
        }
    });
}
