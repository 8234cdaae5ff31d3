//! The n-th call on the file system fails, for every n and every way to fail, while disks are made, renamed, grown, copied
//! and deleted.
//!
//! The operation says so, with the cause. Everything is as before then, with nothing left over, and the operation works when
//! it is done again; or it is done all the same.
#![allow(clippy::unwrap_used)]
#![allow(unsafe_code, reason = "a thread is tied to one processor")]

#[path = "common/crash_storage.rs"]
mod crash_storage;
#[path = "common/power_cut.rs"]
mod power_cut;
#[path = "common/recorder.rs"]
mod recorder;
mod whole_disks;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use vixDiskLib::error::ErrorKind;

use power_cut::Tree;
use recorder::Can;
use recorder::Fault;
use recorder::Recorder;
use recorder::Struck;
use whole_disks::Home;
use whole_disks::Scenario;
use whole_disks::Site;
use whole_disks::State;
use whole_disks::complaint;
use whole_disks::listing;
use whole_disks::no_complaints;

/// What is there before an operation, and after it.
struct Subject<'a> {
    scenario: &'a Scenario,
    site: Site,
    tree: Tree,
    before: BTreeSet<String>,
    after: BTreeSet<String>,
    /// What noted the operation when nothing failed.
    calls: Option<Recorder>,
    complaints: RefCell<Vec<String>>,
}

impl<'a> Subject<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let site = Site::new();
        let home = Home::on(Arc::new(Recorder::new(&site.root, HashMap::new(), Can::ALL)));
        (scenario.prepare)(&home, &site.root);
        let (tree, before) = (Tree::read(&site.root).0, listing(&site.root));
        let (after, calls) = (BTreeSet::new(), None);
        let mut subject = Self { scenario, site, tree, before, after, calls, complaints: RefCell::default() };
        let (recorder, home) = subject.begin();
        (scenario.act)(&home, &subject.site.root).unwrap_or_else(|e| panic!("{}: {e}", scenario.name));
        subject.after = listing(&subject.site.root);
        subject.calls = Some(recorder);
        subject
    }

    /// Everything as before the operation.
    fn begin(&self) -> (Recorder, Home) {
        self.site.fill(&self.tree);
        let ids = Tree::read(&self.site.root).1;
        let recorder = Recorder::new(&self.site.root, ids, self.scenario.can);
        let home = Home::on(Arc::new(recorder.clone()));
        (recorder, home)
    }

    /// Lets each call fail, or each third one and all that follow. How many that were.
    fn fail_each(&self, fault: Fault, forever: bool) -> usize {
        let targets = self.calls.as_ref().unwrap().targets(fault);
        let targets: Vec<usize> = targets.into_iter().step_by(if forever { 3 } else { 1 }).collect();
        targets.iter().for_each(|&at| self.try_fault(at, fault, forever));
        targets.len()
    }

    fn try_fault(&self, at: usize, fault: Fault, forever: bool) {
        let root = self.site.root.clone();
        let (recorder, home) = self.begin();
        recorder.fail(at, fault, forever);
        let result = (self.scenario.act)(&home, &root);
        let Some(Struck { what, removal, .. }) = recorder.heal() else {
            assert!(result.is_ok(), "{}: {result:?}", self.scenario.name);
            return;
        };
        // Where taking away fails, something stays; and what may not be gone for good is needed for what may come back.
        let may_leave = removal || forever && fault == Fault::Eio || what.starts_with("listing");
        let complaint = complaint(|| self.check(&home, &root, &result, may_leave, &what));
        if let Some(text) = complaint {
            self.complaints.borrow_mut().push(format!(
                "{}, call {at} ({what}), {fault:?}, forever {forever}: {result:?}, then {:?}: {text}",
                self.scenario.name,
                listing(&root)
            ));
        }
    }

    fn check(
        &self,
        home: &Home,
        root: &Path,
        result: &vixDiskLib::error::Result<()>,
        may_leave: bool,
        what: &str,
    ) {
        let state = (self.scenario.judge)(root);
        let left = listing(root);
        match (result, state) {
            (Ok(()), State::New) => {}
            (Ok(()), _) => panic!("success without effect"),
            (Err(e), _) => assert!(e.to_string().contains("(os error"), "no cause: {e}"),
        }
        if !may_leave {
            match state {
                State::Old => assert_eq!(left, self.before, "nothing is left over"),
                State::New if result.is_err() && what.starts_with("flushing the folder") => {}
                State::New => {
                    // A copy whose files cannot get the names of those that it replaced keeps the numbered ones.
                    let plain = |names: &BTreeSet<String>| -> BTreeSet<String> {
                        names.iter().map(|name| name.replacen("t-1-", "t-", 1)).collect()
                    };
                    assert_eq!(plain(&left), plain(&self.after), "nothing is left over");
                }
                State::Both => panic!("two names"),
            }
        }
        if state == State::Old {
            match (self.scenario.act)(home, root) {
                Err(e) if may_leave && e.kind() == ErrorKind::AlreadyExists => {}
                again => {
                    again.unwrap_or_else(|e| panic!("a second time: {e}"));
                    assert_eq!((self.scenario.judge)(root), State::New, "a second time");
                }
            }
        }
    }
}

fn fail_everywhere(scenarios: &[Scenario]) {
    let mut complaints = Vec::new();
    for scenario in scenarios {
        let subject = Subject::new(scenario);
        let start = std::time::Instant::now();
        let single = [Fault::Eio, Fault::Enospc, Fault::Short].map(|fault| subject.fail_each(fault, false));
        let lasting = [Fault::Eio, Fault::Enospc].map(|fault| subject.fail_each(fault, true));
        let count: usize = single.iter().chain(&lasting).sum();
        println!("{}: {count} faults, {:?}", scenario.name, start.elapsed());
        complaints.append(&mut subject.complaints.borrow_mut());
    }
    no_complaints(&complaints);
}

/// On one processor a copy reads and writes in one order, so that the n-th call is the same one every time.
fn on_one_processor() {
    // SAFETY: the set is a plain bit field, valid for its size; the call concerns this thread only.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let size = size_of::<libc::cpu_set_t>();
        assert_eq!(libc::sched_getaffinity(0, size, &raw mut set), 0);
        let first = (0..libc::CPU_SETSIZE as usize).find(|&n| libc::CPU_ISSET(n, &set)).unwrap();
        libc::CPU_ZERO(&mut set);
        libc::CPU_SET(first, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size, &raw const set), 0);
    }
}

#[test]
fn a_failing_call_in_creation_leaves_nothing() {
    fail_everywhere(&whole_disks::creations());
    fail_everywhere(&whole_disks::children());
}

#[test]
fn a_failing_call_in_renaming_leaves_the_old_or_the_new_name() {
    fail_everywhere(&whole_disks::renamings());
}

#[test]
fn a_failing_call_in_deletion_leaves_the_disk_or_nothing() {
    fail_everywhere(&whole_disks::deletions());
}

#[test]
fn a_failing_call_in_copying_leaves_the_target_as_it_was() {
    on_one_processor();
    fail_everywhere(&whole_disks::copies());
}

#[test]
fn a_failing_call_in_growing_leaves_the_old_or_the_new_size() {
    fail_everywhere(&whole_disks::growths());
}

#[test]
fn a_failing_call_in_changing_leaves_the_old_or_the_new_chain() {
    fail_everywhere(&whole_disks::changes());
}
