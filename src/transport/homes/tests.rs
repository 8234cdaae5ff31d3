use super::*;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use crate::logging::Level;
use crate::logging::Sink;

/// What a host does with its disk: every byte is the number of its way.
#[derive(Debug)]
struct Host {
    byte: u8,
    size: u64,
    identity: Identity,
    /// The kind of fault that every call ends with, once it is set.
    fault: Mutex<Option<ErrorKind>>,
    cut: AtomicBool,
    /// Transfers that were started and wait for [`Host::lose`].
    started: Mutex<Vec<Pending>>,
    holds: bool,
}

impl Host {
    fn result(&self) -> Result<()> {
        match *self.fault.lock() {
            Some(kind) => Err(Error::new(kind, format!("host {} is gone", self.byte))),
            None => Ok(()),
        }
    }

    /// Everything under way ends with the fault, and so does what comes.
    fn lose(&self, kind: ErrorKind) {
        *self.fault.lock() = Some(kind);
        for Pending { transfer, finish, .. } in std::mem::take(&mut *self.started.lock()) {
            finish(transfer, self.result());
        }
    }
}

impl Blocks for Host {
    fn size(&self) -> u64 {
        self.size
    }
    fn read(&self, buf: &mut [u8], _offset: u64) -> Result<()> {
        buf.fill(self.byte);
        self.result()
    }
    fn write(&self, _buf: &[u8], _offset: u64) -> Result<()> {
        self.result()
    }
    fn zero(&self, _range: Range<u64>) -> Result<bool> {
        self.result().map(|()| false)
    }
    fn flush(&self) -> Result<()> {
        self.result()
    }
    fn allocation(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>, Reads)) -> Result<bool> {
        let middle = range.start.midpoint(range.end);
        sink(range.start..middle, Reads::Anything);
        self.result()?;
        sink(middle..range.end, Reads::Zeros);
        Ok(true)
    }
    fn start(&self, mut transfer: Transfer, offset: u64, finish: Finish) -> Option<(Transfer, Finish)> {
        if self.holds {
            self.started.lock().push(Pending { transfer, offset, finish });
            return None;
        }
        let result = transfer.to_fill().map_or(Ok(()), |buf| self.read(buf, offset));
        finish(transfer, result);
        None
    }
    fn key(&self, key: &str) -> Result<Option<String>> {
        self.result().map(|()| Some(format!("{key} of {}", self.byte)))
    }
}

impl Line for Host {
    fn mode(&self) -> Mode {
        [Mode::NbdSsl, Mode::Nbd, Mode::Https][usize::from(self.byte) - 1]
    }
    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }
    fn probe(&self, answered: Box<dyn FnOnce() + Send>) {
        answered();
    }
}

/// A way that leads to a host once the gate is open.
#[derive(Debug)]
struct Road {
    host: Arc<Host>,
    fault: Option<ErrorKind>,
    /// How many attempts end with the fault, if there is one.
    closed: usize,
    gate: Mutex<Option<mpsc::Receiver<()>>>,
    taken: AtomicUsize,
}

impl Way for Road {
    type Opened = Home;

    fn mode(&self) -> Mode {
        self.host.mode()
    }

    fn open(&self) -> Result<Home> {
        let before = self.taken.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.lock().take();
        gate.map(|gate| gate.recv());
        match self.fault.filter(|_| before < self.closed) {
            Some(kind) => Err(Error::new(kind, "the road is closed")),
            None => Ok(home(&self.host)),
        }
    }
}

fn home(host: &Arc<Host>) -> Home {
    Home { blocks: host.clone(), line: host.clone(), identity: host.identity.clone() }
}

fn host(byte: u8, size: u64, holds: bool) -> Arc<Host> {
    host_of("6000c291", byte, size, holds)
}

/// A host whose disk has this id.
fn host_of(uuid: &str, byte: u8, size: u64, holds: bool) -> Arc<Host> {
    let (fault, cut, started) = (Mutex::new(None), AtomicBool::new(false), Mutex::default());
    let identity = Identity::of(&[("uuid".to_owned(), uuid.to_owned())], false);
    Arc::new(Host { byte, size, identity, fault, cut, started, holds })
}

fn road(host: &Arc<Host>) -> Road {
    let (gate, taken) = (Mutex::new(None), AtomicUsize::new(0));
    Road { host: host.clone(), fault: None, closed: usize::MAX, gate, taken }
}

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Sink for Lines {
    fn line(&self, _level: Level, text: &str) {
        self.0.lock().push(text.to_owned());
    }
}

struct Scene {
    first: Arc<Host>,
    second: Arc<Host>,
    road: Arc<Road>,
    homes: Homes,
    lines: Arc<Lines>,
}

/// A disk that was reached by the first of two ways; the second one is as told.
fn scene(second: impl FnOnce(Arc<Host>) -> Road) -> Scene {
    let (first, other) = (host(1, 4096, true), host(2, 4096, false));
    let road_there = Arc::new(second(other.clone()));
    let ways: Vec<Arc<dyn Route>> = vec![Arc::new(road(&first)), road_there.clone()];
    let lines = Arc::new(Lines::default());
    let log = Log::new(lines.clone(), Level::Debug);
    let patience = Duration::from_secs(60);
    let homes = Homes::new(ways, 0, home(&first), "[ds] a.vmdk".into(), patience, log);
    Scene { first, second: other, road: road_there, homes, lines }
}

fn read(homes: &Homes) -> Result<u8, ErrorKind> {
    let mut buf = [0; 16];
    homes.read(&mut buf, 0).map(|()| buf[0]).map_err(|e| e.kind())
}

/// Starts a read and gives where its end will be told.
fn start(homes: &Homes) -> mpsc::Receiver<Result<u8, ErrorKind>> {
    let (done, ended) = mpsc::channel();
    let finish: Finish = Box::new(move |mut transfer, result| {
        let byte = transfer.to_fill().map_or(0, |buf| buf[0]);
        done.send(result.map(|()| byte).map_err(|e| e.kind())).unwrap();
    });
    assert!(homes.start(Transfer::ReadOwned(vec![0; 16]), 0, finish).is_none());
    ended
}

#[test]
fn a_disk_that_is_locked_for_the_lost_connection_is_asked_for_again() {
    let scene = scene(|host| Road { fault: Some(ErrorKind::Locked), closed: 2, ..road(&host) });
    scene.first.lose(ErrorKind::ConnectionLost);
    assert_eq!(read(&scene.homes), Ok(2));
    assert_eq!(scene.road.taken.load(Ordering::SeqCst), 3);
}

#[test]
fn closing_a_disk_ends_the_wait_for_its_lock() {
    let scene = scene(|host| Road { fault: Some(ErrorKind::Locked), ..road(&host) });
    let ended = start(&scene.homes);
    scene.first.lose(ErrorKind::ConnectionLost);
    let begin = Instant::now();
    scene.homes.cut();
    assert!(ended.recv().unwrap().is_err());
    assert!(begin.elapsed() < HELD, "{:?}", begin.elapsed());
}

#[test]
fn what_is_lost_for_good_goes_on_by_the_next_way() {
    let scene = scene(|second| road(&second));
    assert_eq!((read(&scene.homes), scene.homes.mode()), (Ok(1), Mode::NbdSsl));
    scene.first.lose(ErrorKind::ConnectionLost);
    assert_eq!((read(&scene.homes), scene.homes.mode()), (Ok(2), Mode::Nbd));
    assert_eq!(scene.homes.key("uuid").unwrap().as_deref(), Some("uuid of 2"));
    assert!(scene.first.cut.load(Ordering::SeqCst), "the host is told to let the disk go");
    let said = scene.lines.0.lock().clone();
    assert_eq!(said, ["[ds] a.vmdk is lost by nbdssl: host 1 is gone", "[ds] a.vmdk goes on by nbd"]);
}

#[test]
fn what_was_under_way_is_done_again_once() {
    let scene = scene(|second| road(&second));
    let ends: Vec<_> = (0..20).map(|_| start(&scene.homes)).collect();
    scene.first.lose(ErrorKind::TimedOut);
    for end in &ends {
        assert_eq!(end.recv().unwrap(), Ok(2));
        assert!(end.recv().is_err(), "the end is told once");
    }
    assert_eq!(scene.road.taken.load(Ordering::SeqCst), 1);
    assert_eq!(start(&scene.homes).recv().unwrap(), Ok(2));
}

#[test]
fn without_another_way_the_error_is_that_of_the_loss() {
    for fault in [Some(ErrorKind::Unauthorised), None] {
        let scene = scene(|second| Road { fault, ..road(&second) });
        scene.first.lose(ErrorKind::ConnectionLost);
        if fault.is_none() {
            assert_eq!(read(&scene.homes), Ok(2));
            scene.second.lose(ErrorKind::HostUnavailable);
            assert_eq!(read(&scene.homes), Err(ErrorKind::HostUnavailable));
            assert_eq!(start(&scene.homes).recv().unwrap(), Err(ErrorKind::HostUnavailable));
            continue;
        }
        for _ in 0..2 {
            match scene.homes.flush() {
                Ok(()) => panic!("nothing is there to flush to"),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::ConnectionLost);
                    assert!(e.to_string().contains("the road is closed"), "{e}");
                }
            }
        }
        assert_eq!(start(&scene.homes).recv().unwrap(), Err(ErrorKind::ConnectionLost));
    }
}

#[test]
fn a_disk_of_another_size_is_not_the_same_disk() {
    let scene = scene(|_| road(&host(2, 8192, false)));
    scene.first.lose(ErrorKind::ConnectionLost);
    assert_eq!(read(&scene.homes), Err(ErrorKind::ConnectionLost));
    assert!(scene.road.host.cut.load(Ordering::SeqCst));
    assert!(scene.lines.0.lock().iter().any(|line| line.contains("8192 bytes instead of 4096")));
}

#[test]
fn a_disk_of_the_same_size_with_another_id_is_not_the_same_disk() {
    let scene = scene(|_| road(&host_of("6000c292", 2, 4096, false)));
    scene.first.lose(ErrorKind::ConnectionLost);
    assert_eq!(read(&scene.homes), Err(ErrorKind::ConnectionLost));
    assert!(scene.road.host.cut.load(Ordering::SeqCst));
    let told = "its uuid is 6000c292, and was 6000c291";
    assert!(scene.lines.0.lock().iter().any(|line| line.contains(told)), "{:?}", scene.lines.0.lock());
}

#[test]
fn a_disk_whose_holder_tells_no_id_goes_on_by_its_size() {
    let scene = scene(|_| road(&host_of("", 2, 4096, false)));
    scene.first.lose(ErrorKind::ConnectionLost);
    assert_eq!(read(&scene.homes), Ok(2));
}

#[test]
fn a_host_that_is_lost_is_not_waited_for_again_where_a_way_goes_past_it() {
    for (loss, past) in
        [(ErrorKind::HostFull, true), (ErrorKind::TimedOut, true), (ErrorKind::TicketRefused, false)]
    {
        let hosts = [host(1, 4096, false), host(2, 4096, false), host(3, 4096, false)];
        let roads: Vec<Arc<Road>> = hosts.iter().map(|host| Arc::new(road(host))).collect();
        let ways = roads.iter().map(|road| road.clone() as Arc<dyn Route>).collect();
        let patience = Duration::from_secs(60);
        let homes = Homes::new(ways, 0, home(&hosts[0]), "[ds] a.vmdk".into(), patience, Log::none());
        hosts[0].lose(loss);
        assert_eq!(read(&homes), Ok(if past { 3 } else { 2 }), "{loss:?}");
        assert_eq!(roads[1].taken.load(Ordering::SeqCst), usize::from(!past));
        assert_eq!(homes.mode(), if past { Mode::Https } else { Mode::Nbd });
    }
}

#[test]
fn permission_that_is_not_given_again_is_a_loss() {
    for kind in [ErrorKind::TicketRefused, ErrorKind::HostFull, ErrorKind::Unauthorised, ErrorKind::Protocol]
    {
        let scene = scene(|second| road(&second));
        scene.first.lose(kind);
        assert_eq!(read(&scene.homes), Ok(2), "{kind:?}");
    }
}

#[test]
fn faults_of_the_disk_or_of_trust_are_told_as_they_are() {
    let scene = scene(|second| road(&second));
    for kind in [ErrorKind::CertificateRefused, ErrorKind::OutOfMemory, ErrorKind::Io] {
        scene.first.lose(kind);
        assert_eq!(read(&scene.homes), Err(kind));
        assert_eq!(scene.homes.mode(), Mode::NbdSsl);
    }
}

#[test]
fn what_was_told_of_the_allocation_is_not_told_again() {
    let scene = scene(|second| road(&second));
    *scene.first.fault.lock() = Some(ErrorKind::ConnectionLost);
    let mut told = Vec::new();
    assert!(scene.homes.allocation(0..1024, &mut |part, reads| told.push((part, reads))).unwrap());
    assert_eq!(told, [(0..512, Reads::Anything), (512..768, Reads::Anything), (768..1024, Reads::Zeros)]);
}

#[test]
fn closing_does_not_wait_for_another_way_to_be_found() {
    let (open, gate) = mpsc::channel::<()>();
    let scene = scene(|second| Road { gate: Mutex::new(Some(gate)), ..road(&second) });
    let under_way = start(&scene.homes);
    scene.first.lose(ErrorKind::ConnectionLost);
    while scene.road.taken.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    let later = start(&scene.homes);
    scene.homes.cut();
    assert_eq!(under_way.recv().unwrap(), Err(ErrorKind::Cancelled));
    assert_eq!(later.recv().unwrap(), Err(ErrorKind::Cancelled));
    assert_eq!(read(&scene.homes), Err(ErrorKind::Cancelled));
    drop(open);
    while !scene.second.cut.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    scene.homes.cut();
}

#[test]
fn who_asks_meanwhile_waits_for_the_new_home() {
    let (open, gate) = mpsc::channel::<()>();
    let scene = scene(|second| Road { gate: Mutex::new(Some(gate)), ..road(&second) });
    let under_way = start(&scene.homes);
    scene.first.lose(ErrorKind::ConnectionLost);
    let reader = {
        let homes = scene.homes.clone();
        std::thread::spawn(move || read(&homes))
    };
    while scene.road.taken.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    open.send(()).unwrap();
    assert_eq!(reader.join().unwrap(), Ok(2));
    assert_eq!(under_way.recv().unwrap(), Ok(2));
}
