//! Power cuts and kills at every moment of the operations that make, rename, grow, copy and delete whole disks.
//!
//! Whatever arrived of names and data: the old disk opens with its old content, or the new one with its new content, and
//! every other disk is what it was.
#![allow(clippy::unwrap_used)]

#[path = "common/crash_storage.rs"]
mod crash_storage;
#[path = "common/power_cut.rs"]
mod power_cut;
#[path = "common/recorder.rs"]
mod recorder;
mod whole_disks;

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use vixDiskLib::error::ErrorKind;

use crash_storage::Random;
use power_cut::Tree;
use power_cut::after_kill;
use power_cut::after_power_cut;
use power_cut::telling_positions;
use recorder::Can;
use recorder::Fault;
use recorder::Recorder;
use whole_disks::Home;
use whole_disks::Scenario;
use whole_disks::Site;
use whole_disks::State;
use whole_disks::complaint;
use whole_disks::listing;
use whole_disks::no_complaints;

/// What is left after every cut, each state once.
struct Replay<'a> {
    scenario: &'a Scenario,
    site: &'a Site,
    /// Names before the operation, and after it.
    before: BTreeSet<String>,
    after: BTreeSet<String>,
    known: HashMap<u64, State>,
    /// What is looked at are operations that failed: only some of them are done again.
    failed: bool,
    complaints: Vec<String>,
}

impl Replay<'_> {
    /// Looks at what is left. `over`: the operation has returned, its effect must be there.
    fn judge(&mut self, tree: &Tree, over: bool, what: &str) {
        let fingerprint = tree.fingerprint();
        if let Some(known) = self.known.get(&fingerprint) {
            if over && *known != State::New {
                self.complaints.push(format!("{}, {what}: returned, but {known:?}", self.scenario.name));
            }
            return;
        }
        self.site.fill(tree);
        let root = &self.site.root;
        let left = listing(root);
        let again = !self.failed || self.known.len().is_multiple_of(4);
        let mut found = State::New; // what is wrong already is complained about once
        let complaint = complaint(|| {
            found = (self.scenario.judge)(root);
            assert!(!over || found == State::New, "returned, but {found:?}");
            // What a copy took away of a disk that it replaced may come back.
            assert!(!over || left == self.after || self.scenario.replaces, "returned, but left over");
            if again {
                self.go_on(found, root);
            }
        });
        self.known.insert(fingerprint, found);
        if let Some(text) = complaint {
            self.complaints.push(format!("{}, {what}: left were {left:?}: {text}", self.scenario.name));
        }
    }

    /// What was cut short can be done again, or was done.
    fn go_on(&self, state: State, root: &Path) {
        let home = Home::on(Arc::new(Recorder::new(root, HashMap::new(), Can::ALL)));
        if state == State::Old {
            match (self.scenario.act)(&home, root) {
                // Files without a description: no disk, but in the way until somebody takes them away.
                Err(e) if e.kind() == ErrorKind::AlreadyExists && self.scenario.in_the_way => {
                    self.clear_away(&home, root);
                }
                result => {
                    result.unwrap_or_else(|e| panic!("a second time: {e}"));
                    assert_eq!((self.scenario.judge)(root), State::New, "after the second time");
                }
            }
        }
        (self.scenario.after)(&home, root);
    }

    /// Something of the same name is in the way. Deleting it is possible, as a disk or file by file, and harms nothing.
    fn clear_away(&self, home: &Home, root: &Path) {
        for name in listing(root).difference(&self.before) {
            let path = root.join(name);
            if name.starts_with(".vmdk-copy-") || home.connection.unlink(&path).is_ok() || !path.exists() {
                continue;
            }
            assert!(self.after.contains(name), "left over: {name}");
            std::fs::remove_file(path).unwrap();
        }
        assert_eq!((self.scenario.judge)(root), State::Old, "something was in the way");
        (self.scenario.act)(home, root).unwrap_or_else(|e| panic!("nothing in the way: {e}"));
        assert_eq!((self.scenario.judge)(root), State::New, "nothing in the way");
    }
}

fn cut_everywhere(scenarios: &[Scenario]) {
    let mut complaints = Vec::new();
    for scenario in scenarios {
        complaints.append(&mut cut(scenario));
    }
    no_complaints(&complaints);
}

/// Does the operation once, and looks at what every cut would have left of it.
fn cut(scenario: &Scenario) -> Vec<String> {
    let site = Site::new();
    let root = site.root.clone();
    (scenario.prepare)(&Home::host(), &root);
    let before = listing(&root);
    let (initial, ids) = Tree::read(&root);
    let recorder = Recorder::new(&root, ids, scenario.can);
    let home = Home::on(Arc::new(recorder.clone()));
    (scenario.act)(&home, &root).unwrap_or_else(|e| panic!("{}: {e}", scenario.name));
    let (ops, after) = (recorder.ops(), listing(&root));
    let end = after_kill(&initial, &ops, ops.len()).fingerprint();
    assert_eq!(end, Tree::read(&root).0.fingerprint(), "{}: what was recorded happened", scenario.name);

    let (known, complaints) = (HashMap::new(), Vec::new());
    let mut replay = Replay { scenario, site: &site, before, after, known, failed: false, complaints };
    for now in 0..=ops.len() {
        let tree = after_kill(&initial, &ops, now);
        replay.judge(&tree, now == ops.len(), &format!("killed after {now} of {}", ops.len()));
    }
    let kills = replay.known.len();
    let mut random = Random(seed_of(&scenario.name));
    for now in telling_positions(&ops) {
        let what = format!("cut after {now} of {}, {:?}", ops.len(), ops.get(now));
        after_power_cut(&initial, &ops, now, &mut random, SAMPLES, &mut |tree| {
            replay.judge(&tree, now == ops.len(), &what);
        });
    }
    let states: HashSet<State> = replay.known.values().copied().collect();
    assert!(states.contains(&State::Old) && states.contains(&State::New), "{}: {states:?}", scenario.name);
    let cuts = replay.known.len() - kills;
    let failures = fail_and_cut(&mut replay, &initial);
    println!(
        "{}: {} changes, states: {kills} killed, {cuts} cut, {failures} failed",
        scenario.name,
        ops.len()
    );
    replay.complaints
}

/// Lets calls of the operation fail, and looks at what cuts would leave of what it does then. How many states that were.
fn fail_and_cut(replay: &mut Replay<'_>, initial: &Tree) -> usize {
    let (known, scenario) = (replay.known.len(), replay.scenario);
    let step = if scenario.replaces { LONG_STEP } else { STEP };
    replay.failed = true;
    let mut random = Random(seed_of(&scenario.name));
    for at in (random.below(step) as usize..).step_by(step as usize) {
        let root = &replay.site.root;
        replay.site.fill(initial);
        let (tree, ids) = Tree::read(root);
        let recorder = Recorder::new(root, ids, scenario.can);
        let home = Home::on(Arc::new(recorder.clone()));
        recorder.fail(at, Fault::Eio, false);
        let done = (scenario.act)(&home, root).is_ok();
        let Some(struck) = recorder.heal() else { break };
        let ops = recorder.ops();
        // The failure itself may be that the effect is not there for good.
        let over = done && !struck.removal && !struck.what.starts_with("flushing the folder");
        for now in telling_positions(&ops).into_iter().filter(|now| *now >= struck.position) {
            let what =
                format!("{} failed, cut after {now} of {}, {:?}", struck.what, ops.len(), ops.get(now));
            after_power_cut(&tree, &ops, now, &mut random, 0, &mut |tree| {
                replay.judge(&tree, over && now == ops.len(), &what);
            });
        }
    }
    replay.known.len() - known
}

/// Of so many calls one fails; of operations with many calls.
const STEP: u64 = 3;
const LONG_STEP: u64 = 17;
/// Random parts of the data for each combination of names.
const SAMPLES: usize = 2;

fn seed_of(name: &str) -> u64 {
    name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte))
}

#[test]
fn a_disk_cut_short_in_creation_is_there_or_not() {
    cut_everywhere(&whole_disks::creations());
}

#[test]
fn a_child_cut_short_in_creation_is_there_or_not() {
    cut_everywhere(&whole_disks::children());
}

#[test]
fn a_disk_cut_short_in_renaming_has_its_old_or_its_new_name_or_both() {
    cut_everywhere(&whole_disks::renamings());
}

#[test]
fn a_disk_cut_short_in_deletion_is_there_or_gone() {
    cut_everywhere(&whole_disks::deletions());
}

#[test]
fn a_copy_cut_short_leaves_the_old_target_or_the_new_one() {
    cut_everywhere(&whole_disks::copies());
}

#[test]
fn a_disk_cut_short_in_growing_has_its_old_or_its_new_size() {
    cut_everywhere(&whole_disks::growths());
}

#[test]
fn a_chain_or_a_description_cut_short_in_changing_is_the_old_or_the_new_one() {
    cut_everywhere(&whole_disks::changes());
}
