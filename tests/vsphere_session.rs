//! Logins and tickets over time, through the C interface, on the simulator.

mod common;

use std::time::Duration;
use std::time::Instant;

use common::child::in_child;
use common::stage::SECTORS;
use common::stage::Stage;
use common::stage::configured;
use common::stage::connect;
use common::stage::content;
use common::stage::expected;
use common::vix;
use common::vix::Server;
use common::vix::code;
use common::vix::flags;
use common::vix::logged;
use vixDiskLib::sim::options::Options;

/// A session of the server ends when nobody calls for so long.
const LIFE: Duration = Duration::from_secs(2);

/// Reads for some lives of a session, during which nothing has to be asked of the server. How many logins it took to open
/// another disk afterwards.
fn logins_of_a_long_read(settings: &str) -> usize {
    configured(settings);
    let stage = Stage::start(Options { session_life: LIFE, ..Options::default() });
    let connection = connect(&stage.server());
    let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY);
    let begin = Instant::now();
    for start in (0..SECTORS).step_by(64).cycle() {
        let at = (start * 512) as usize;
        assert!(disk.must_read(start, 64) == expected(true)[at..at + 64 * 512]);
        if begin.elapsed() > LIFE * 3 {
            break;
        }
    }
    drop(connection.must_open(&stage.disk(1), flags::READ_ONLY));
    drop(disk);
    assert_eq!(connection.disconnect(), code::OK);
    logged("logged in to")
}

#[test]
fn a_session_is_kept_alive_while_disks_are_read() {
    in_child(|| {
        assert_eq!(logins_of_a_long_read("vixDiskLib.vim.keepAliveSeconds=1\n"), 1, "{}", vix::log_text());
    });
}

#[test]
fn a_session_that_is_not_kept_alive_ends_and_is_made_again() {
    in_child(|| {
        assert_eq!(logins_of_a_long_read("vixDiskLib.vim.keepAliveSeconds=0\n"), 2, "{}", vix::log_text());
    });
}

#[test]
fn a_ticket_without_a_host_leads_to_the_host_of_the_login() {
    in_child(|| {
        let stage = Stage::vcenter();
        let port = stage.sim.address().port();
        // The ticket would name the host by its address.
        let server = Server { name: format!("localhost:{port}"), ..stage.server() };
        for (setting, host) in [("ticket-host=yes", "127.0.0.1"), ("ticket-host=no", "localhost")] {
            stage.sim.knobs().set(setting).expect("a setting");
            for (mode, service) in [("nbdssl", "vpxa-nfcssl"), ("nbd", "vpxa-nfc")] {
                vix::forget_log();
                let connection = connect(&server.clone().over(mode));
                let disk = connection.must_open(&stage.disk(0), flags::READ_ONLY);
                assert!(content(&disk) == expected(true), "{setting}, {mode}");
                let path = stage.disk(0).display().to_string();
                let place = format!("{service}://{path}@{host}:{}", stage.sim.ready().nfc_port);
                let lines = logged(&format!("attempting to create connection to {place}"));
                assert_eq!(lines, 1, "{place}: {}", vix::log_text());
            }
        }
    });
}
