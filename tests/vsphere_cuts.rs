//! Connections to hosts that break again and again: whole copies and many writes over them, and when there is no hope.

mod common;

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
use common::stage::SECTORS;
use common::stage::Stage;
use common::stage::configured;
use common::stage::connect;
use common::stage::expected;
use common::vix;
use common::vix::Disk;
use common::vix::code;
use common::vix::flags;
use common::vix::logged;

/// Operations are short, so that some end between two cuts.
const SHORT: &str = "vixDiskLib.nfc.operationSizeInKB=16\n";

/// Bytes between two cuts, all connections together and both ways. An encrypted connection needs about 10 KB before the
/// first sector. The disk is of 8 MiB.
const STEP: &str = "cut-every=66000";

/// Connections that were made since the log was forgotten.
fn connections() -> usize {
    logged("NBD_ClientOpen: attempting to create connection to ")
}

/// Begins to cut.
fn cutting(stage: &Stage) {
    vix::forget_log();
    stage.sim.knobs().set(STEP).expect("a setting");
}

/// Ends it.
fn calm(stage: &Stage) {
    stage.sim.knobs().set("cut-every=default").expect("a setting");
}

fn open(stage: &Stage, mode: &str, number: usize, how: u32) -> Disk<'static> {
    connect(&stage.server().over(mode)).leaked().must_open(&stage.disk(number), how)
}

/// One copy of the whole disk, in the course of which so many connections break.
fn copy_over_cuts(mode: &str, synchronous: bool) {
    configured(SHORT);
    let (stage, whole) = (Stage::vcenter(), expected(true));
    let disk = open(&stage, mode, 0, flags::READ_ONLY);
    cutting(&stage);
    let pieces = in_order(SECTORS, 512);
    match synchronous {
        true => compare_sync(&disk, &pieces, &whole),
        false => compare_async(&disk, &pieces, 8, &whole),
    }
    let cuts = connections();
    assert!(cuts >= 100, "only {cuts} connections broke");
    assert_eq!(disk.transport(), mode);
    calm(&stage);
    assert_eq!(disk.close(), code::OK);
}

#[test]
fn a_synchronous_copy_with_a_hundred_cuts_is_whole() {
    in_child(|| copy_over_cuts("nbd", true));
}

#[test]
fn an_asynchronous_copy_with_a_hundred_cuts_is_whole() {
    in_child(|| copy_over_cuts("nbd", false));
}

#[test]
fn a_synchronous_copy_with_a_hundred_cuts_and_tls_is_whole() {
    in_child(|| copy_over_cuts("nbdssl", true));
}

#[test]
fn an_asynchronous_copy_with_a_hundred_cuts_and_tls_is_whole() {
    in_child(|| copy_over_cuts("nbdssl", false));
}

/// Every piece is written once, whenever its turn comes, and read again and again. A connection that breaks may leave a
/// write behind that the host carries out late, so nothing is written twice with different content.
fn write_over_cuts(mode: &str, packing: u32) {
    configured(SHORT);
    let (stage, whole) = (Stage::vcenter(), stamps(0, SECTORS, 3));
    let disk = open(&stage, mode, 1, flags::READ_WRITE | packing);
    cutting(&stage);
    let mut waiting = pieces(SECTORS, 1);
    let mut written: Vec<Piece> = Vec::new();
    let mut rng = Rng::new(2);
    while !waiting.is_empty() {
        let batch = waiting.split_off(waiting.len().saturating_sub(1 + rng.below(6) as usize));
        if rng.below(2) == 0 {
            write_async(&disk, &batch, &whole);
        } else {
            batch.iter().for_each(|piece| disk.must_write(piece.0, part(&whole, *piece)));
        }
        written.extend(batch);
        let again: Vec<Piece> = (0..3).map(|_| written[rng.below(written.len() as u64) as usize]).collect();
        compare_async(&disk, &again, 8, &whole);
    }
    let cuts = connections();
    assert!(cuts >= 50, "only {cuts} connections broke");
    calm(&stage);
    assert_eq!(disk.flush(), code::OK, "{}", vix::log_text());
    compare_sync(&disk, &in_order(SECTORS, 2048), &whole);
    assert_eq!(disk.close(), code::OK);
    stage.left_behind("b.vmdk", |disk| compare_sync(disk, &in_order(SECTORS, 2048), &whole));
}

#[test]
fn every_acknowledged_write_is_there_after_many_cuts() {
    in_child(|| write_over_cuts("nbd", 0));
}

#[test]
fn every_acknowledged_write_is_there_after_many_cuts_with_tls() {
    in_child(|| write_over_cuts("nbdssl", 0));
}

#[test]
fn every_acknowledged_packed_write_is_there_after_many_cuts() {
    in_child(|| write_over_cuts("nbd", flags::FASTLZ));
}

/// Nothing gets through any more: every call ends in time, with the same code, and the disk can be closed.
fn storm(end: &str, begin: &dyn Fn(&Stage)) {
    configured("vixDiskLib.nfc.reconnectTimeoutMs=2000\nvixDiskLib.nfc.AcceptTimeoutMs=3000\n");
    let stage = Stage::vcenter();
    let reading = open(&stage, "nbdssl:nbd", 0, flags::READ_ONLY);
    let writing = open(&stage, "nbdssl:nbd", 1, flags::READ_WRITE);
    reading.must_read(0, 64);
    writing.must_write(0, &stamps(0, 64, 1));
    begin(&stage);
    let started = Instant::now();
    let lost = [code::CONN_LOST, code::CONN_REFUSED];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let got = reading.read_many(&in_order(4096, 256), 16, 0).map(|_| ());
            assert!(got.is_err_and(|e| lost.contains(&e)), "{got:?}\n{}", vix::log_text());
        });
        scope.spawn(|| {
            let got = writing.write(64, &stamps(64, 64, 1));
            assert!(lost.contains(&got), "{got}\n{}", vix::log_text());
        });
    });
    let took = started.elapsed();
    assert!(took < Duration::from_secs(40), "{took:?}");
    let closing = Instant::now();
    assert_eq!(reading.close(), code::OK);
    // What was acknowledged may not be there: who wrote is told.
    let closed = writing.close();
    assert!(closed == code::OK || lost.contains(&closed), "{closed}\n{}", vix::log_text());
    assert!(closing.elapsed() < Duration::from_secs(5), "{:?}", closing.elapsed());
    assert!(logged(end) >= 2, "the other way was tried: {}", vix::log_text());
}

#[test]
fn connections_that_break_at_their_first_byte_are_given_up() {
    in_child(|| {
        storm("no other transport helps", &|stage| {
            stage.fault("authd.connect=cut");
            stage.sim.cut_nfc();
        });
    });
}

#[test]
fn connections_that_break_before_the_first_sector_are_given_up() {
    in_child(|| {
        storm("no other transport helps", &|stage| {
            stage.fault("nfc.open=cut");
            stage.sim.cut_nfc();
        });
    });
}

#[test]
fn connections_that_break_at_every_operation_are_given_up() {
    in_child(|| {
        storm("goes on by nbd", &|stage| {
            stage.fault("nfc.read=cut");
            stage.fault("nfc.write=cut");
        });
    });
}
