use super::*;

use std::sync::atomic::Ordering;

use crate::transport::vsphere::fakes::FakeServer;
use crate::transport::vsphere::fakes::Lines;
use crate::transport::vsphere::fakes::entrance;

fn sessions() -> (Arc<FakeServer>, Sessions, Arc<Lines>) {
    let server = FakeServer::new();
    let (lines, log) = Lines::log();
    (server.clone(), Sessions::new(Arc::new(server), log), lines)
}

fn soap(lease: &Lease) -> Result<(), ErrorKind> {
    lease.session().soap().map(drop).map_err(|e| e.kind())
}

#[test]
fn connections_that_log_in_alike_share_one_session_and_the_last_logs_out() {
    let (server, sessions, _) = sessions();
    let (first, second) = (sessions.lease(entrance("vc", "a")), sessions.lease(entrance("vc", "a")));
    assert_eq!(server.count(""), 0, "nothing is sent before a call needs it");
    assert_eq!((soap(&first), soap(&second)), (Ok(()), Ok(())));
    drop(first);
    assert_eq!((server.count("login"), server.count("logout")), (1, 0));
    assert_eq!(soap(&second), Ok(()));
    second.end_by(Instant::now() + Duration::from_secs(60));
    assert_eq!((server.count("login"), server.count("logout")), (1, 1));
    let again = sessions.lease(entrance("vc", "a"));
    assert_eq!((soap(&again), server.count("login")), (Ok(()), 2));
}

#[test]
fn other_servers_passwords_and_trust_have_sessions_of_their_own() {
    let (server, sessions, _) = sessions();
    let mut pinned = entrance("vc", "a");
    pinned.server.tls.thumbprint = Some("AA:BB".to_owned());
    let mut cookie = entrance("vc", "a");
    cookie.login = Login::Cookie("a".to_owned().into());
    let entrances = [entrance("vc", "a"), entrance("vc", "b"), entrance("esx", "a"), pinned, cookie];
    let leases: Vec<_> = entrances.into_iter().map(|entrance| sessions.lease(entrance)).collect();
    leases.iter().for_each(|lease| soap(lease).unwrap());
    assert_eq!(server.count("login"), 5);
    drop(leases);
    assert_eq!(server.count("logout"), 5);
}

#[test]
fn a_session_that_was_never_needed_is_not_ended() {
    let (server, sessions, _) = sessions();
    drop(sessions.lease(entrance("vc", "a")));
    assert_eq!(server.count(""), 0);
}

#[test]
fn a_refused_login_is_tried_once_for_all_who_wait_for_it() {
    let (server, sessions, _) = sessions();
    server.refusals.lock().push_back(ErrorKind::Unauthorised);
    server.held.store(true, Ordering::SeqCst);
    let lease = sessions.lease(entrance("vc", "wrong"));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let session = Arc::clone(lease.session());
            std::thread::spawn(move || session.soap().map(drop).map_err(|e| e.kind()))
        })
        .collect();
    server.wait_for("login", 1);
    // Whoever comes late logs in for himself, and succeeds.
    server.held.store(false, Ordering::SeqCst);
    let results: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
    assert!(results.contains(&Err(ErrorKind::Unauthorised)), "{results:?}");
    assert!(server.count("login") <= 2, "an account must not be locked by one wrong password");
    assert_eq!(soap(&lease), Ok(()));
}

#[test]
fn a_session_that_opens_when_nobody_wants_it_any_more_is_ended() {
    let (server, sessions, _) = sessions();
    server.held.store(true, Ordering::SeqCst);
    let lease = sessions.lease(entrance("vc", "a"));
    let session = Arc::clone(lease.session());
    let caller = std::thread::spawn(move || session.soap().map(drop).map_err(|e| e.kind()));
    server.wait_for("login", 1);
    drop(lease);
    server.held.store(false, Ordering::SeqCst);
    assert_eq!(caller.join().unwrap(), Err(ErrorKind::InvalidConnection));
    assert_eq!(server.count("logout"), 1);
}

#[test]
fn a_closed_connection_logs_nobody_in() {
    let (server, sessions, _) = sessions();
    let lease = sessions.lease(entrance("vc", "a"));
    let session = Arc::clone(lease.session());
    drop(lease);
    assert_eq!(session.soap().unwrap_err().kind(), ErrorKind::InvalidConnection);
    assert_eq!(server.count(""), 0);
}

#[test]
fn idle_sessions_are_kept_alive_while_they_are_in_use_and_no_longer() {
    let (server, sessions, lines) = sessions();
    let mut patient = entrance("vc", "a");
    patient.keep_alive = Duration::from_millis(1);
    let lease = sessions.lease(patient);
    soap(&lease).unwrap();
    server.wait_for("alive", 3);
    server.faults.lock().push(("alive", ErrorKind::ConnectionLost));
    let before = server.count("alive");
    server.wait_for("alive", before + 2);
    assert!(lines.has("keeping the session alive"));
    drop(lease);
    assert!(sessions.0.threads.join_until(Instant::now() + Duration::from_secs(60)));
    assert!(!sessions.0.known.lock().keeping);
    sessions.end();
}

#[test]
fn no_thread_exists_where_nothing_is_kept_alive() {
    let (_, sessions, _) = sessions();
    let lease = sessions.lease(entrance("vc", "a"));
    soap(&lease).unwrap();
    assert!(!sessions.0.known.lock().keeping);
}

#[test]
fn without_time_the_farewell_is_left_to_a_thread() {
    let (server, sessions, _) = sessions();
    let lease = sessions.lease(entrance("vc", "a"));
    soap(&lease).unwrap();
    lease.end_by(Instant::now() + Duration::from_millis(1500)); // less than the two seconds for farewells
    assert_eq!(server.count("logout"), 1);
}
