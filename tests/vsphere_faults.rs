//! What goes wrong between the library and vSphere, rule by rule of the simulator's fault language: what the caller gets,
//! what stands in the log, and that it has an end.

mod common;

use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use common::child::in_child;
use common::model::stamps;
use common::stage::Stage;
use common::stage::configured;
use common::stage::connect;
use common::stage::content;
use common::stage::expected;
use common::stage::until;
use common::vix;
use common::vix::Disk;
use common::vix::Server;
use common::vix::code;
use common::vix::flags;
use common::vix::logged;
use vixDiskLib::sim::fault::duration;

/// Short times, so that the end of every wait is seen.
const TIMES: &str = "vixDiskLib.nfc.AcceptTimeoutMs=3000\nvixDiskLib.nfc.RequestTimeoutMs=1500\n\
                     vixDiskLib.nfc.ReadTimeoutMs=1000\nvixDiskLib.nfc.WriteTimeoutMs=1000\n\
                     vixDiskLib.nfc.reconnectTimeoutMs=2000\nvixDiskLib.nfc.operationSizeInKB=64\n";

/// With these times, nothing takes longer. The machine may be busy.
const LONGEST: Duration = Duration::from_secs(15);

/// What is done while a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Open,
    OpenToWrite,
    Read,
    Write,
    /// Which blocks are allocated.
    Query,
    Close,
}
use Call::Close;
use Call::Open;
use Call::OpenToWrite;
use Call::Query;
use Call::Read;
use Call::Write;

/// A rule, what is done while it holds, the code that comes of it, and words that the log must have. That the rule made
/// something happen is looked at in any case, and that a delay delayed.
type Row = (&'static str, Call, u64, &'static [&'static str]);

/// Does the call, which begins when the rule does.
fn outcome(stage: &Stage, mode: &str, rule: &str, call: Call) -> u64 {
    let connection = connect(&stage.server().over(mode));
    let open =
        |how| connection.open(&stage.disk(1), how).map_or_else(|code| (code, None), |d| (code::OK, Some(d)));
    if matches!(call, Open | OpenToWrite) {
        stage.fault(rule);
        return open(if call == Open { flags::READ_ONLY } else { flags::READ_WRITE }).0;
    }
    let (opened, disk) = open(if call == Write { flags::READ_WRITE } else { flags::READ_ONLY });
    let Some(disk) = disk else { panic!("Open = {opened}\n{}", vix::log_text()) };
    stage.fault(rule);
    work(&disk, call)
}

fn work(disk: &Disk<'_>, call: Call) -> u64 {
    match call {
        Read => disk.read(64, &mut vec![0; 64 * 512]),
        Write => disk.write(64, &stamps(64, 64, 7)),
        Query => disk.allocated(0, 16384, 128).map_or_else(|code| code, |_| code::OK),
        Close => disk.close_again(),
        Open | OpenToWrite => unreachable!("the disk is open"),
    }
}

/// All rows on one machine; what is wrong is told of all of them at once.
fn check(mode: &str, rows: &[Row]) {
    let stage = Stage::vcenter();
    let mut wrong = Vec::new();
    for (rule, call, code, words) in rows {
        vix::forget_log();
        let before = stage.sim.faults().acted();
        let begin = Instant::now();
        let got = outcome(&stage, mode, rule, *call);
        let took = begin.elapsed();
        // The other side of a farewell may hear of it a moment later.
        until(&format!("{rule} makes something happen"), || stage.sim.faults().acted() > before);
        stage.heal();
        stage.sim.cut_nfc(); // connections that hang would hold the disk
        until("the host has noticed the end", || stage.sim.served() == 0);
        let missing: Vec<_> = words.iter().filter(|word| logged(word) == 0).collect();
        if got != *code || !missing.is_empty() || took > LONGEST || took < delay_of(rule) {
            let log = vix::log_text();
            wrong.push(format!(
                "{rule}, {call:?}: {got} instead of {code} after {took:?}, without {missing:?}:\n{log}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// How much later a rule makes an answer.
fn delay_of(rule: &str) -> Duration {
    let time = rule.split_once("=delay(").and_then(|(_, rest)| rest.strip_suffix(')'));
    time.map_or(Duration::ZERO, |time| duration(time).expect("a time"))
}

const DOOR: &[Row] = &[
    ("authd.connect=refuse", Open, code::CONN_REFUSED, &["closes the connection without a greeting"]),
    ("authd.connect=cut", Open, code::CONN_REFUSED, &["closes the connection without a greeting"]),
    ("authd.connect=silence", Open, code::SOCKET_ERROR, &["the first line of"]),
    ("authd.connect=delay(300ms)", Open, code::OK, &[]),
    ("authd.session=refuse", Open, code::CONN_LOST, &["waiting for the answer to"]),
    ("authd.session=cut", Open, code::CONN_LOST, &["waiting for the answer to"]),
    ("authd.session=silence", Open, code::SOCKET_ERROR, &["waiting for the answer to"]),
    ("authd.proxy=refuse", Open, code::HANDSHAKE, &["530 Login incorrect", "vpxa-nfcssl"]),
    ("authd.proxy:1=refuse", Open, code::OK, &["trying with another ticket"]),
    ("authd.proxy=cut", Open, code::CONN_LOST, &["waiting for the answer to"]),
    ("authd.tls=refuse", Open, code::CONN_LOST, &["the TLS of the data"]),
    ("authd.tls=silence", Open, code::SOCKET_ERROR, &["the TLS of the data"]),
    ("authd.tls=delay(300ms)", Open, code::OK, &[]),
];

#[test]
fn the_door_of_a_host_may_be_shut_in_every_way() {
    in_child(|| {
        configured(TIMES);
        check("nbdssl", DOOR);
    });
}

const OPENING: &[Row] = &[
    (
        "nfc.session=error(3,\"no such buffers\")",
        Open,
        code::INVALID_ARG,
        &["NFC error 3", "no such buffers"],
    ),
    ("nfc.session=refuse", Open, code::FAIL, &["vixsim: refused"]),
    ("nfc.session=cut", Open, code::CONN_LOST, &["OpenSession"]),
    ("nfc.session=silence", Open, code::SOCKET_ERROR, &["OpenSession"]),
    ("nfc.session=short", Open, code::CONN_LOST, &["OpenSession"]),
    ("nfc.session=short(silence)", Open, code::SOCKET_ERROR, &["OpenSession"]),
    ("nfc.session=magic", Open, code::HANDSHAKE, &["OpenSession"]),
    ("nfc.session=stray", Open, code::HANDSHAKE, &["Other(14)"]),
    ("nfc.options=error(6)", Open, code::OK, &[]),
    ("nfc.options=refuse", Open, code::OK, &[]),
    ("nfc.options=cut", Open, code::CONN_LOST, &["SocketOptions"]),
    ("nfc.pool=error(6)", Open, code::OK, &[]),
    ("nfc.pool=magic", Open, code::HANDSHAKE, &["ResourcePool"]),
    ("nfc.pool=delay(200ms)", Open, code::OK, &[]),
    ("nfc.open=error(4)", Open, code::FILE_NOT_FOUND, &["NFC error 4"]),
    ("nfc.open=error(6,\"not this\")", Open, code::NOT_SUPPORTED, &["NFC error 6", "not this"]),
    ("nfc.open=error(11)", Open, code::FILE_READ_ONLY, &["NFC error 11"]),
    (
        "nfc.open=error(11,\"NfcAioProcessOpenFileMsg: permission check failed\")",
        Open,
        code::ACCESS_ERROR,
        &["NFC error 11", "permission check failed"],
    ),
    (
        "nfc.open=error(16392,\"DiskLib error 16392: Failed to lock the file\")",
        OpenToWrite,
        code::ALREADY_LOCKED,
        &["NFC error 16392", "Failed to lock the file"],
    ),
    ("nfc.open=error(99,\"on fire\")", Open, code::FAIL, &["NFC error 99", "on fire"]),
    ("nfc.open=refuse", Open, code::FAIL, &["vixsim: refused"]),
    ("nfc.open=cut", Open, code::CONN_LOST, &["OpenFile"]),
    ("nfc.open=silence", Open, code::SOCKET_ERROR, &["OpenFile"]),
    ("nfc.open=short", Open, code::CONN_LOST, &["OpenFile"]),
    ("nfc.open=magic", Open, code::HANDSHAKE, &["OpenFile"]),
    ("nfc.open=stray", Open, code::HANDSHAKE, &["Other(14)"]),
    ("nfc.ddb=error(4)", Open, code::OK, &[]),
    ("nfc.ddb=cut", Open, code::CONN_LOST, &["well-known values of the disk"]),
    ("nfc.ddb=silence", Open, code::SOCKET_ERROR, &["well-known values of the disk"]),
    ("nfc.ddb=magic", Open, code::HANDSHAKE, &["well-known values of the disk"]),
];

#[test]
fn opening_a_disk_may_fail_at_each_of_its_steps() {
    in_child(|| {
        configured(TIMES);
        check("nbdssl", OPENING);
    });
}

const READING: &[Row] = &[
    ("nfc.read=error(4,\"gone\")", Read, code::FILE_NOT_FOUND, &["NFC error 4 from server: gone"]),
    (
        "nfc.read=error(13,\"you may not\")",
        Read,
        code::ACCESS_ERROR,
        &["NFC error 13 from server: you may not"],
    ),
    ("nfc.read=error(99,\"on fire\")", Read, code::FAIL, &["NFC error 99 from server: on fire"]),
    ("nfc.read=refuse", Read, code::FAIL, &["vixsim: refused"]),
    (
        "nfc.read:1-3=error(5,\"Failed to allocate the requested 32792 bytes\")",
        Read,
        code::OK,
        &["NFC error 5"],
    ),
    ("nfc.read:1=cut", Read, code::OK, &["connected again"]),
    ("nfc.read:1=silence", Read, code::OK, &["connected again"]),
    ("nfc.read:1=short", Read, code::OK, &["connected again"]),
    ("nfc.read:1=short(silence)", Read, code::OK, &["connected again"]),
    ("nfc.read:1=stray", Read, code::OK, &["unknown kind Other(14)", "connected again"]),
    ("nfc.read=delay(300ms)", Read, code::OK, &[]),
    ("nfc.read=cut", Read, code::CONN_LOST, &["connected again"]),
    ("nfc.read=short", Read, code::CONN_LOST, &["connected again"]),
    ("nfc.read=stray", Read, code::CONN_LOST, &["unknown kind Other(14)"]),
    ("nfc.read=silence", Read, code::SOCKET_ERROR, &["connected again"]),
    ("nfc.read=magic", Read, code::HANDSHAKE, &["a frame begins with"]),
    ("nfc.read=shutdown", Read, code::HOST_NOT_AVAILABLE, &["HostNotConnected"]),
    ("nfc.query=error(6,\"not here\")", Query, code::OK, &["NFC error 6 from server: not here"]),
    ("nfc.query=refuse", Query, code::OK, &["vixsim: refused"]),
    ("nfc.query:1=cut", Query, code::OK, &["connected again"]),
    ("nfc.query=cut", Query, code::CONN_LOST, &["connected again"]),
    ("nfc.query=magic", Query, code::OK, &["a frame begins with", "so all of it counts"]),
];

#[test]
fn reading_makes_up_for_what_passes_and_tells_what_stays() {
    in_child(|| {
        configured(TIMES);
        check("nbdssl", READING);
    });
}

const WRITING: &[Row] = &[
    (
        "nfc.write=error(8,\"No space left\")",
        Write,
        code::DISK_FULL,
        &["NFC error 8 from server: No space left"],
    ),
    ("nfc.write=error(11)", Write, code::FILE_READ_ONLY, &["NFC error 11"]),
    ("nfc.write=error(99,\"on fire\")", Write, code::FAIL, &["NFC error 99 from server: on fire"]),
    ("nfc.write=refuse", Write, code::FAIL, &["vixsim: refused"]),
    ("nfc.write:1-3=error(5)", Write, code::OK, &["NFC error 5"]),
    ("nfc.write:1=cut", Write, code::OK, &["connected again"]),
    ("nfc.write:1=silence", Write, code::OK, &["connected again"]),
    ("nfc.write:1=short", Write, code::OK, &["connected again"]),
    ("nfc.write:1=stray", Write, code::OK, &["unknown kind Other(14)", "connected again"]),
    ("nfc.write=delay(300ms)", Write, code::OK, &[]),
    ("nfc.write=cut", Write, code::CONN_LOST, &["connected again"]),
    ("nfc.write=silence", Write, code::SOCKET_ERROR, &["connected again"]),
    ("nfc.write=magic", Write, code::HANDSHAKE, &["a frame begins with"]),
    ("nfc.write=shutdown", Write, code::HOST_NOT_AVAILABLE, &["HostNotConnected"]),
    (
        "soap.NfcRandomAccessOpenDisk=fault(FileLocked,file=x)",
        OpenToWrite,
        code::ALREADY_LOCKED,
        &["FileLocked"],
    ),
    (
        "soap.NfcRandomAccessOpenDisk=fault(NoPermission,privilege=VirtualMachine.Provisioning.DiskRandomAccess)",
        OpenToWrite,
        code::PERMISSIONS,
        &["NoPermission", "VirtualMachine.Provisioning.DiskRandomAccess"],
    ),
];

#[test]
fn writing_makes_up_for_what_passes_and_tells_what_stays() {
    in_child(|| {
        configured(TIMES);
        check("nbdssl", WRITING);
    });
}

const CLOSING: &[Row] = &[
    ("nfc.close=error(99,\"on fire\")", Close, code::OK, &[]),
    ("nfc.close=cut", Close, code::OK, &[]),
    ("nfc.close=silence", Close, code::OK, &[]),
    ("nfc.close=magic", Close, code::OK, &[]),
    ("nfc.end=refuse", Close, code::OK, &[]),
    ("nfc.end=short(silence)", Close, code::OK, &[]),
    ("nfc.end=shutdown", Close, code::OK, &[]),
];

#[test]
fn a_disk_is_closed_whatever_the_host_makes_of_it() {
    in_child(|| {
        configured(TIMES);
        let begin = Instant::now();
        check("nbdssl", CLOSING);
        let most = 3 * u32::try_from(CLOSING.len()).expect("a few");
        assert!(begin.elapsed() < Duration::from_secs(1) * most, "{:?}", begin.elapsed());
    });
}

const SOAP: &[Row] = &[
    ("soap.Login=fault(InvalidLogin)", Open, code::PERMISSIONS, &["refuses Login with InvalidLogin"]),
    ("soap.Login=fault(NoPermission,privilege=System.View)", Open, code::PERMISSIONS, &["System.View"]),
    ("soap.Login=status(503)", Open, code::HOST_NOT_AVAILABLE, &["503"]),
    ("soap.Login=refuse", Open, code::HOST_NOT_AVAILABLE, &["503"]),
    ("soap.Login=cut", Open, code::CONN_LOST, &["Login"]),
    ("soap.Login=silence", Open, code::SOCKET_ERROR, &["Login"]),
    ("soap.Login=short", Open, code::CONN_LOST, &["Login"]),
    ("soap.Login=delay(300ms)", Open, code::OK, &[]),
    ("soap.RetrieveServiceContent=cut", Open, code::CONN_LOST, &["RetrieveServiceContent"]),
    ("soap.RetrieveServiceContent=status(404)", Open, code::SERVER_NOT_FOUND, &["404", "no vSphere server"]),
    ("soap.NfcGetVmFiles:1=fault(NotAuthenticated)", Open, code::OK, &["logged in to"]),
    ("soap.NfcGetVmFiles=fault(NotAuthenticated)", Open, code::SESSION, &["NotAuthenticated"]),
    (
        "soap.NfcGetVmFiles=fault(NoPermission,privilege=VirtualMachine.Provisioning.GetVmFiles,object=VirtualMachine:vm-7)",
        Open,
        code::PERMISSIONS,
        &["VirtualMachine.Provisioning.GetVmFiles", "VirtualMachine vm-7"],
    ),
    (
        "soap.NfcGetVmFiles=fault(RestrictedByAdministrator)",
        Open,
        code::PERMISSIONS,
        &["RestrictedByAdministrator"],
    ),
    (
        "soap.NfcGetVmFiles=fault(ManagedObjectNotFound,obj=VirtualMachine:vm-7)",
        Open,
        code::MACHINE_NOT_FOUND,
        &["ManagedObjectNotFound", "vm-7"],
    ),
    (
        "soap.NfcGetVmFiles=fault(ManagedObjectNotFound,obj=Datastore:datastore-7)",
        Open,
        code::OBJECT_NOT_FOUND,
        &["datastore-7"],
    ),
    (
        "soap.NfcGetVmFiles=fault(FileNotFound,file=a.vmdk)",
        Open,
        code::FILE_NOT_FOUND,
        &["FileNotFound", "a.vmdk"],
    ),
    (
        "soap.NfcGetVmFiles=fault(CannotAccessFile,file=a.vmdk)",
        Open,
        code::ACCESS_ERROR,
        &["CannotAccessFile"],
    ),
    ("soap.NfcGetVmFiles=fault(FileLocked)", Open, code::ALREADY_LOCKED, &["FileLocked"]),
    (
        "soap.NfcGetVmFiles=fault(InvalidArgument,invalidProperty=vm)",
        Open,
        code::INVALID_ARG,
        &["InvalidArgument", "invalidProperty"],
    ),
    ("soap.NfcGetVmFiles=fault(TaskInProgress)", Open, code::BUSY, &["TaskInProgress"]),
    ("soap.NfcGetVmFiles=fault(MethodDisabled)", Open, code::BUSY, &["MethodDisabled"]),
    ("soap.NfcGetVmFiles=fault(NotSupported)", Open, code::NOT_SUPPORTED, &["NotSupported"]),
    ("soap.NfcGetVmFiles=fault(MethodNotFound)", Open, code::NOT_SUPPORTED, &["MethodNotFound"]),
    ("soap.NfcGetVmFiles=fault(NoDiskSpace)", Open, code::DISK_FULL, &["NoDiskSpace"]),
    (
        "soap.NfcGetVmFiles=fault(HostNotConnected,text=it is in maintenance)",
        Open,
        code::HOST_NOT_AVAILABLE,
        &["HostNotConnected", "it is in maintenance"],
    ),
    ("soap.NfcGetVmFiles=fault(InvalidHostState)", Open, code::HOST_NOT_AVAILABLE, &["InvalidHostState"]),
    ("soap.NfcGetVmFiles=fault(Timedout)", Open, code::SOCKET_ERROR, &["Timedout"]),
    ("soap.NfcGetVmFiles=fault(NobodyKnowsIt)", Open, code::FAIL, &["NobodyKnowsIt"]),
    (
        "soap.NfcGetVmFiles=fault(InsufficientResourcesFault)",
        Open,
        code::OUT_OF_MEMORY,
        &["InsufficientResourcesFault", "open fewer at a time"],
    ),
    ("soap.NfcGetVmFiles=silence", Open, code::SOCKET_ERROR, &["NfcGetVmFiles"]),
    ("soap.NfcGetVmFiles=cut", Open, code::CONN_LOST, &["NfcGetVmFiles"]),
    ("soap.Logout=silence", Open, code::OK, &[]),
    ("soap.Logout=fault(NobodyKnowsIt)", Open, code::OK, &[]),
    (
        "authd.connect=shutdown",
        Open,
        code::HOST_NOT_AVAILABLE,
        &["closes the connection without a greeting", "HostNotConnected"],
    ),
];

#[test]
fn every_fault_of_the_server_has_its_code_and_its_words() {
    in_child(|| {
        configured(TIMES);
        check("nbdssl", SOAP);
    });
}

const FOLDER: &[Row] = &[
    ("folder=status(503)", Open, code::HOST_NOT_AVAILABLE, &["503"]),
    ("folder=refuse", Open, code::HOST_NOT_AVAILABLE, &["503"]),
    ("folder=status(404)", Open, code::FILE_NOT_FOUND, &["404"]),
    (
        "folder=cut",
        Open,
        code::CONN_LOST,
        &["HEAD /folder/", "is asked for once more", "the connection ended without a farewell"],
    ),
    ("folder=silence", Open, code::SOCKET_ERROR, &["HEAD /folder/", "the server says nothing more"]),
    (
        "folder=short",
        Open,
        code::CONN_LOST,
        &["GET /folder/", "is asked for once more", "the connection ended without a farewell"],
    ),
    ("folder=delay(200ms)", Open, code::OK, &[]),
    ("folder:1=cut", Read, code::OK, &[]),
    ("folder:1=short", Read, code::OK, &["is asked for once more"]),
    ("folder:1=status(503)", Read, code::OK, &[]),
    ("folder=status(503)", Read, code::HOST_NOT_AVAILABLE, &["503"]),
    ("folder=status(404)", Read, code::FILE_NOT_FOUND, &["404"]),
    ("folder=status(403)", Read, code::PERMISSIONS, &["403"]),
    (
        "folder=cut",
        Read,
        code::CONN_LOST,
        &["b-flat.vmdk is asked for once more", "the connection ended without a farewell"],
    ),
    ("folder=silence", Read, code::SOCKET_ERROR, &["b-flat.vmdk over HTTPS", "the server says nothing more"]),
    ("folder=status(200)", Read, code::HANDSHAKE, &["the server ignores ranges"]),
];

#[test]
fn files_of_a_datastore_may_be_out_of_reach_in_every_way() {
    in_child(|| {
        configured(TIMES);
        check("https", FOLDER);
    });
}

#[test]
fn a_host_in_maintenance_is_not_available_and_serves_again_afterwards() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        let connection = connect(&stage.server());
        stage.sim.knobs().set("maintenance=yes").expect("a setting");
        let refused = connection.open(&stage.disk(0), flags::READ_ONLY).map(|_| ());
        assert_eq!(refused, Err(code::HOST_NOT_AVAILABLE), "{}", vix::log_text());
        assert!(logged("Unable to communicate with the remote host, since it is disconnected.") > 0);
        stage.heal();
        let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY);
        // It goes down in the middle, and is back before the patience of the reader ends.
        stage.fault("nfc.read:3=shutdown");
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| content(&disk));
            until("the host is missed", || logged("HostNotConnected") > 0 || reader.is_finished());
            stage.heal();
            assert!(reader.join().expect("the reader") == expected(true), "{}", vix::log_text());
        });
    });
}

#[test]
fn a_host_that_never_has_memory_is_asked_for_a_bounded_time() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        let disk = connect(&stage.server()).leaked().must_open(&stage.disk(0), flags::READ_ONLY);
        stage.fault("nfc.read=error(5,\"Failed to allocate the requested 65560 bytes\")");
        let begin = Instant::now();
        assert_eq!(disk.read(0, &mut [0; 65536]), code::OUT_OF_MEMORY, "{}", vix::log_text());
        assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
        assert!(
            logged("open fewer disks of it at once, or ask for smaller buffers") > 0,
            "{}",
            vix::log_text()
        );
        stage.heal();
        assert!(content(&disk) == expected(true), "it has memory again");
    });
}

#[test]
fn a_host_short_of_memory_makes_nobody_fail() {
    in_child(|| {
        configured("");
        let stage = Stage::vcenter();
        let connection = connect(&stage.server());
        // Two disks share room for less than two operations of the usual size.
        stage.sim.knobs().set("memory=1500000").expect("a setting");
        let disks = [0, 1].map(|_| connection.must_open(&stage.disk(0), flags::READ_ONLY));
        vix::forget_log();
        std::thread::scope(|scope| {
            for disk in &disks {
                scope.spawn(|| {
                    let pieces: Vec<(u64, u64)> = (0..16384).step_by(2048).map(|at| (at, 2048)).collect();
                    let read =
                        disk.read_many(&pieces, 8, 0).unwrap_or_else(|e| panic!("{e}\n{}", vix::log_text()));
                    assert!(read == expected(true), "asynchronous");
                    assert!(content(disk) == expected(true), "synchronous");
                });
            }
        });
        assert!(
            logged("NfcFssrvrProcessErrorMsg: received NFC error 5 from server") >= 1,
            "{}",
            vix::log_text()
        );
    });
}

#[test]
fn a_host_that_refuses_more_connections_is_waited_for() {
    in_child(|| {
        configured("vixDiskLib.nfc.AcceptTimeoutMs=60000\n");
        let stage = Stage::vcenter();
        stage.sim.knobs().set("connections=2").expect("a setting");
        stage.sim.knobs().set("excess=refuse").expect("a setting");
        let connection = connect(&stage.server());
        let first = connection.must_open(&stage.disk(0), flags::READ_ONLY);
        let second = connection.must_open(&stage.disk(0), flags::READ_ONLY);
        std::thread::scope(|scope| {
            let third = scope.spawn(|| connection.open(&stage.disk(0), flags::READ_ONLY));
            until("the third waits", || logged("waits for room on its host") > 0 || third.is_finished());
            assert_eq!(first.close(), code::OK);
            let third = third.join().expect("the third");
            let third = third.unwrap_or_else(|e| panic!("Open = {e}\n{}", vix::log_text()));
            assert!(content(&third) == expected(true));
        });
        assert!(content(&second) == expected(true));
    });
}

#[test]
fn a_host_that_queues_more_connections_is_waited_for() {
    in_child(|| {
        configured("vixDiskLib.nfc.AcceptTimeoutMs=60000\n");
        let stage = Stage::vcenter();
        stage.sim.knobs().set("connections=1").expect("a setting");
        let connection = connect(&stage.server());
        let first = connection.must_open(&stage.disk(0), flags::READ_ONLY);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| connection.must_open(&stage.disk(0), flags::READ_ONLY));
            until("the second knocks", || logged("NBD_ClientOpen: attempting to create connection") == 2);
            assert!(content(&first) == expected(true), "who is in is not disturbed");
            assert_eq!(first.close(), code::OK);
            assert!(content(&second.join().expect("the second")) == expected(true));
        });
    });
}

#[test]
fn fifty_disks_at_once_are_warned_of_and_work() {
    in_child(|| {
        configured("");
        let stage = Stage::vcenter();
        let connection = connect(&stage.server());
        let disks: Vec<Disk<'_>> =
            (0..52).map(|_| connection.must_open(&stage.disk(0), flags::READ_ONLY)).collect();
        assert_eq!(logged("50 disks are open on host 127.0.0.1"), 1, "{}", vix::log_text());
        assert_eq!(logged("52 disks are open on vCenter 127.0.0.1"), 1, "{}", vix::log_text());
        assert_eq!(stage.sim.served(), 52);
        for disk in &disks {
            assert!(disk.must_read(4000, 200) == expected(true)[4000 * 512..4200 * 512]);
        }
    });
}

#[test]
fn a_session_that_ends_again_and_again_is_not_noticed_by_who_reads() {
    in_child(|| {
        configured("");
        let stage = Stage::vcenter();
        let disk = connect(&stage.server()).leaked().must_open(&stage.disk(0), flags::READ_ONLY);
        vix::forget_log();
        let all = expected(true);
        // Backwards, so that nothing is there because it was read ahead.
        for at in (0..16_u64).rev().map(|piece| piece * 1024) {
            stage.sim.end_sessions();
            stage.sim.cut_nfc();
            let same = disk.must_read(at, 1024) == all[at as usize * 512..(at as usize + 1024) * 512];
            assert!(same, "sector {at}");
        }
        let again = (logged("connected again"), logged("logged in to"));
        assert_eq!(again, (16, 16), "{}", vix::log_text());
    });
}

#[test]
fn the_end_of_a_session_that_was_lent_is_told_when_a_connection_is_lost() {
    use vixDiskLib::logging::Log;
    use vixDiskLib::net::tls::TlsSettings;
    use vixDiskLib::net::vim::Login;
    use vixDiskLib::net::vim::Server as Place;
    use vixDiskLib::net::vim::Session;
    use vixDiskLib::net::vim::Times;
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        let given = stage.server();
        let (name, password) = given.login.clone().expect("a login");
        let place = Place {
            host: "127.0.0.1".to_owned(),
            port: stage.sim.address().port(),
            tls: TlsSettings { thumbprint: given.thumbprint.clone(), ..TlsSettings::default() },
        };
        let login = Login::User { name, password: password.into() };
        let session = Session::open(place, login, Times::default(), Log::none()).expect("a session");
        let cookie = session.cookie().expose_text().expect("text").to_owned();
        let server = Server { login: None, cookie: Some(cookie), ..given };
        let disk = connect(&server).leaked().must_open(&stage.disk(0), flags::READ_ONLY);
        stage.sim.end_sessions();
        assert!(disk.must_read(0, 64) == expected(true)[..64 * 512], "a connection outlives its session");
        stage.sim.cut_nfc();
        let begin = Instant::now();
        assert_eq!(disk.read(0, &mut [0; 512]), code::SESSION, "{}", vix::log_text());
        assert!(begin.elapsed() < LONGEST, "{:?}", begin.elapsed());
        assert!(logged("NotAuthenticated") > 0, "{}", vix::log_text());
    });
}

#[test]
fn tickets_that_are_always_too_old_are_refused_in_the_end() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        stage.sim.set_ticket_life(Duration::ZERO);
        let connection = connect(&stage.server());
        let refused = connection.open(&stage.disk(0), flags::READ_ONLY).map(|_| ());
        assert_eq!(refused, Err(code::HANDSHAKE), "{}", vix::log_text());
        assert!(logged("530 Login incorrect") > 0, "{}", vix::log_text());
        stage.sim.set_ticket_life(Duration::from_secs(120));
        assert!(content(&connection.must_open(&stage.disk(0), flags::READ_ONLY)) == expected(true));
    });
}

#[test]
fn when_a_way_is_lost_for_good_the_next_of_the_list_is_taken() {
    in_child(|| {
        configured(TIMES);
        let stage = Stage::vcenter();
        let server = stage.server().over("nbdssl:nbd");
        let disk = connect(&server).leaked().must_open(&stage.disk(0), flags::READ_ONLY);
        assert_eq!(disk.transport(), "nbdssl");
        stage.fault("authd.tls=cut"); // which plain connections do not come to
        stage.sim.cut_nfc();
        assert!(content(&disk) == expected(true), "{}", vix::log_text());
        assert_eq!(disk.transport(), "nbd");
        assert!(logged("goes on by nbd") == 1, "{}", vix::log_text());
    });
}

/// The disk to look at when asking what a release can do.
fn of_release(name: &str) -> (Stage, PathBuf) {
    use vixDiskLib::sim::options::Options;
    use vixDiskLib::sim::personality::Release;
    let release = Release::named(name).expect("a release");
    let stage = Stage::start(Options { release, ..Options::default() });
    let path = stage.disk(0);
    (stage, path)
}

#[test]
fn releases_from_7_0_on_read_write_and_tell_their_blocks() {
    in_child(|| {
        configured("");
        for release in ["7.0", "8.0", "9.0"] {
            let (stage, path) = of_release(release);
            for mode in ["nbd", "nbdssl"] {
                for packing in [0, flags::FASTLZ] {
                    let connection = connect(&stage.server().over(mode));
                    let disk = connection.must_open(&path, flags::READ_ONLY | packing);
                    assert!(content(&disk) == expected(true), "{release}, {mode}, {packing}");
                    assert!(disk.allocated_all(128).len() > 1, "{release}, {mode}, {packing}");
                    let other = connection.must_open(&stage.disk(1), flags::READ_WRITE | packing);
                    other.must_write(100, &stamps(100, 300, 5));
                    assert!(other.must_read(100, 300) == stamps(100, 300, 5), "{release}, {mode}, {packing}");
                    assert_eq!(other.close(), code::OK);
                }
            }
        }
    });
}

#[test]
fn older_releases_are_told_apart_from_broken_hosts_and_other_ways_are_tried() {
    in_child(|| {
        configured("");
        for release in ["6.5", "6.7"] {
            let (stage, path) = of_release(release);
            for mode in ["nbd", "nbdssl", "nbdssl:nbd"] {
                vix::forget_log();
                let connection = connect(&stage.server().over(mode));
                let refused = connection.open(&path, flags::READ_ONLY).map(|_| ());
                assert_eq!(refused, Err(code::NOT_SUPPORTED), "{release}, {mode}: {}", vix::log_text());
                let tried = logged("does not know the asynchronous kind of session");
                assert!(tried >= mode.split(':').count(), "{release}, {mode}: {}", vix::log_text());
            }
            let connection = connect(&stage.server().over("nbdssl:nbd:https"));
            let disk = connection.must_open(&path, flags::READ_ONLY);
            assert_eq!(disk.transport(), "https", "{release}");
            assert!(content(&disk) == expected(true), "{release}");
        }
    });
}
