//! Handles: numbers that name a slot of a table, never addresses.
//!
//! ```text
//!  63    56 55   44 43           16 15     0
//!  ┌───────┬───────┬───────────────┬────────┐
//!  │ kind  │ epoch │  generation   │  slot  │
//!  └───────┴───────┴───────────────┴────────┘
//! ```
//!
//! The kind tells disks from connections, and no address of a user's process has it. The epoch counts forks, so that a
//! parent's handles mean nothing in a child. The generation counts the uses of a slot: it is never the same twice, a slot
//! whose generations are used up is retired. Looking a handle up takes one slot's lock for reading and clones an `Arc`,
//! which keeps the object alive for the call although another thread closes it.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use parking_lot::RwLock;

const SLOT_BITS: u32 = 16;
const GENERATION_BITS: u32 = 28;
const EPOCH_BITS: u32 = 12;
const GENERATION_SHIFT: u32 = SLOT_BITS;
const EPOCH_SHIFT: u32 = GENERATION_SHIFT + GENERATION_BITS;
const KIND_SHIFT: u32 = EPOCH_SHIFT + EPOCH_BITS;

/// Slots in a chunk. Chunks are made when needed and never go away.
const CHUNK: usize = 256;
const CHUNKS: usize = (1 << SLOT_BITS) / CHUNK;

/// What a handle of a table names; the top byte of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection.
    Connection = 0x5c,
    /// An open disk.
    Disk = 0x5d,
}

/// A handle's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// The value a caller passes in.
    pub fn of<T>(handle: *mut T) -> Self {
        Self(handle.addr() as u64)
    }

    /// The value to hand out.
    pub fn to_handle<T>(self) -> *mut T {
        std::ptr::without_provenance_mut(self.0 as usize)
    }

    /// True for NULL.
    pub fn is_null(self) -> bool {
        self.0 == 0
    }

    fn slot(self) -> usize {
        (self.0 & ((1 << SLOT_BITS) - 1)) as usize
    }
}

/// Who an object belongs to, for closing all of somebody's at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The number of the initialisation it was made under.
    pub library: u64,
    /// The connection it was opened on, if any.
    pub connection: Option<Token>,
}

/// What a handle names at the moment.
#[derive(Debug)]
pub enum Found<T> {
    /// A live object.
    Live(Arc<T>),
    /// A live object that a defect of this library has left in an unknown state.
    Broken(Arc<T>),
    /// The library closed it on its own; a Close by the caller is still welcome.
    Closed,
    /// Nothing: closed, garbage, of another kind or from another process.
    Nothing,
}

enum State<T> {
    Free,
    Live(Arc<T>, Owner),
    Closed(Owner),
}

struct Content<T> {
    token: Token,
    state: State<T>,
}

/// One handle's place, on cache lines of its own.
#[repr(align(128))]
struct Slot<T> {
    content: RwLock<Content<T>>,
    broken: AtomicBool,
}

/// All handles of one kind.
pub struct Table<T> {
    kind: Kind,
    epoch: u64,
    chunks: [OnceLock<Box<[Slot<T>]>>; CHUNKS],
    free: Mutex<FreeSlots>,
}

#[derive(Default)]
struct FreeSlots {
    returned: Vec<usize>,
    never_used: usize,
}

impl<T> Table<T> {
    /// An empty table. Tables of one kind with different epochs refuse each other's handles.
    pub fn new(kind: Kind, epoch: u64) -> Self {
        Self {
            kind,
            epoch: epoch & ((1 << EPOCH_BITS) - 1),
            chunks: [const { OnceLock::new() }; CHUNKS],
            free: Mutex::new(FreeSlots::default()),
        }
    }

    /// A new handle for `object`, `None` when there are too many.
    pub fn insert(&self, object: Arc<T>, owner: Owner) -> Option<Token> {
        let number = {
            let mut free = self.free.lock();
            match free.returned.pop() {
                Some(number) => number,
                None if free.never_used < CHUNK * CHUNKS => {
                    free.never_used += 1;
                    free.never_used - 1
                }
                None => return None,
            }
        };
        let chunk = self.chunks.get(number / CHUNK)?.get_or_init(|| self.chunk(number / CHUNK));
        let slot = chunk.get(number % CHUNK)?;
        slot.broken.store(false, Ordering::Relaxed);
        let mut content = slot.content.write();
        content.state = State::Live(object, owner);
        Some(content.token)
    }

    fn chunk(&self, number: usize) -> Box<[Slot<T>]> {
        let first = number * CHUNK;
        let slot = |at: usize| {
            let fixed = (self.kind as u64) << KIND_SHIFT | self.epoch << EPOCH_SHIFT | at as u64;
            let token = Token(fixed | 1 << GENERATION_SHIFT);
            Slot {
                content: RwLock::new(Content { token, state: State::Free }),
                broken: AtomicBool::new(false),
            }
        };
        (first..first + CHUNK).map(slot).collect()
    }

    #[inline]
    fn slot(&self, token: Token) -> Option<&Slot<T>> {
        let number = token.slot();
        self.chunks.get(number / CHUNK)?.get()?.get(number % CHUNK)
    }

    /// What a handle names.
    #[inline]
    pub fn get(&self, token: Token) -> Found<T> {
        let Some(slot) = self.slot(token) else { return Found::Nothing };
        let content = slot.content.read();
        if content.token != token {
            return Found::Nothing;
        }
        match &content.state {
            State::Live(object, _) if slot.broken.load(Ordering::Relaxed) => {
                Found::Broken(Arc::clone(object))
            }
            State::Live(object, _) => Found::Live(Arc::clone(object)),
            State::Closed(_) => Found::Closed,
            State::Free => Found::Nothing,
        }
    }

    /// Makes a handle name another object. False if it has ended meanwhile.
    pub fn replace(&self, token: Token, object: Arc<T>) -> bool {
        let Some(slot) = self.slot(token) else { return false };
        let mut content = slot.content.write();
        if content.token != token {
            return false;
        }
        match &mut content.state {
            State::Live(place, _) => {
                *place = object;
                true
            }
            _ => false,
        }
    }

    /// Ends a handle whose owner may still close it once.
    pub fn retire(&self, token: Token) {
        let Some(slot) = self.slot(token) else { return };
        let mut content = slot.content.write();
        if content.token == token
            && let State::Live(_, owner) = &content.state
        {
            content.state = State::Closed(*owner);
        }
    }

    /// Ends a handle and gives what it named. Of several threads exactly one gets it.
    pub fn take(&self, token: Token) -> Found<T> {
        let Some(slot) = self.slot(token) else { return Found::Nothing };
        let mut content = slot.content.write();
        if content.token != token {
            return Found::Nothing;
        }
        let broken = slot.broken.load(Ordering::Relaxed);
        match self.release(&mut content) {
            State::Live(object, _) if broken => Found::Broken(object),
            State::Live(object, _) => Found::Live(object),
            State::Closed(_) => Found::Closed,
            State::Free => Found::Nothing,
        }
    }

    /// Empties a slot for its next use, or for none when its generations are used up.
    fn release(&self, content: &mut Content<T>) -> State<T> {
        if matches!(content.state, State::Free) {
            return State::Free;
        }
        let generations = (1_u64 << GENERATION_BITS) - 1;
        let generation = content.token.0 >> GENERATION_SHIFT & generations;
        let number = content.token.slot();
        if generation < generations {
            content.token = Token(content.token.0 + (1 << GENERATION_SHIFT));
            self.free.lock().returned.push(number);
        } else {
            content.token = Token(0);
        }
        std::mem::replace(&mut content.state, State::Free)
    }

    /// Ends everything that `library` owns, without a trace, and gives it.
    pub fn drain(&self, library: u64) -> Vec<Arc<T>> {
        let mut objects = Vec::new();
        for slot in self.slots() {
            let mut content = slot.content.write();
            if matches!(&content.state, State::Live(_, owner) | State::Closed(owner) if owner.library == library)
                && let State::Live(object, _) = self.release(&mut content)
            {
                objects.push(object);
            }
        }
        objects
    }

    /// Ends everything opened on `connection` and gives it; a Close of each is still welcome once.
    pub fn close_all_of(&self, connection: Token) -> Vec<Arc<T>> {
        let mut objects = Vec::new();
        for slot in self.slots() {
            let mut content = slot.content.write();
            if let State::Live(_, owner) = &content.state
                && owner.connection == Some(connection)
            {
                let closed = State::Closed(*owner);
                if let State::Live(object, _) = std::mem::replace(&mut content.state, closed) {
                    objects.push(object);
                }
            }
        }
        objects
    }

    /// Marks what a handle names as unfit for use.
    pub fn mark_broken(&self, token: Token) {
        if let Some(slot) = self.slot(token)
            && slot.content.read().token == token
        {
            slot.broken.store(true, Ordering::Relaxed);
        }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot<T>> {
        self.chunks.iter().filter_map(OnceLock::get).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { library: 1, connection: None };

    fn table() -> Table<u32> {
        Table::new(Kind::Disk, 0)
    }

    fn live(table: &Table<u32>, token: Token) -> Option<u32> {
        match table.get(token) {
            Found::Live(object) => Some(*object),
            _ => None,
        }
    }

    #[test]
    fn a_handle_names_its_object_until_it_is_taken() {
        let table = table();
        let (a, b) = (table.insert(Arc::new(1), OWNER).unwrap(), table.insert(Arc::new(2), OWNER).unwrap());
        assert_eq!((live(&table, a), live(&table, b)), (Some(1), Some(2)));
        assert!(matches!(table.take(a), Found::Live(object) if *object == 1));
        assert!(matches!(table.take(a), Found::Nothing));
        let c = table.insert(Arc::new(3), OWNER).unwrap();
        assert_eq!((a.slot(), live(&table, a), live(&table, c)), (c.slot(), None, Some(3)), "a reused slot");
    }

    #[test]
    fn garbage_names_nothing() {
        let table = table();
        let token = table.insert(Arc::new(1), OWNER).unwrap();
        for bit in 0..64 {
            assert!(matches!(table.get(Token(token.0 ^ 1 << bit)), Found::Nothing), "bit {bit}");
            assert!(matches!(table.take(Token(token.0 ^ 1 << bit)), Found::Nothing), "bit {bit}");
        }
        for value in [0, 1, u64::MAX, 0x7fff_0000_1000, 1 << 63] {
            assert!(matches!(table.get(Token(value)), Found::Nothing));
        }
        assert_eq!(live(&table, token), Some(1));
        let (other_kind, other_epoch) = (Table::new(Kind::Connection, 0), Table::new(Kind::Disk, 1));
        let connection = other_kind.insert(Arc::new(1), OWNER).unwrap();
        let inherited = other_epoch.insert(Arc::new(1), OWNER).unwrap();
        assert!(
            matches!(table.get(connection), Found::Nothing) && matches!(table.get(inherited), Found::Nothing)
        );
    }

    #[test]
    fn of_many_closing_threads_one_wins() {
        let table = table();
        for _ in 0..200 {
            let token = table.insert(Arc::new(7), OWNER).unwrap();
            let won = std::thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..4).map(|_| scope.spawn(|| matches!(table.take(token), Found::Live(_)))).collect();
                threads.into_iter().map(|t| usize::from(t.join().unwrap())).sum::<usize>()
            });
            assert_eq!(won, 1);
        }
    }

    #[test]
    fn disks_of_a_closed_connection_may_be_closed_once() {
        let table = table();
        let connection = Token(99);
        let owner = Owner { library: 1, connection: Some(connection) };
        let (mine, other) =
            (table.insert(Arc::new(1), owner).unwrap(), table.insert(Arc::new(2), OWNER).unwrap());
        assert_eq!(table.close_all_of(connection).len(), 1);
        assert!(matches!(table.get(mine), Found::Closed) && live(&table, other) == Some(2));
        assert!(matches!(table.take(mine), Found::Closed));
        assert!(matches!(table.take(mine), Found::Nothing));
    }

    #[test]
    fn draining_leaves_what_belongs_to_others() {
        let table = table();
        let mine = table.insert(Arc::new(1), OWNER).unwrap();
        let other = table.insert(Arc::new(2), Owner { library: 2, connection: None }).unwrap();
        assert_eq!(table.drain(1).len(), 1);
        assert_eq!((live(&table, mine), live(&table, other)), (None, Some(2)));
        assert!(matches!(table.take(mine), Found::Nothing));
    }

    #[test]
    fn the_table_fills_up_and_recovers() {
        let table = table();
        let tokens: Vec<Token> = std::iter::from_fn(|| table.insert(Arc::new(0), OWNER)).collect();
        assert_eq!(tokens.len(), 1 << SLOT_BITS);
        assert!(matches!(table.take(tokens[5]), Found::Live(_)));
        assert!(table.insert(Arc::new(0), OWNER).is_some() && table.insert(Arc::new(0), OWNER).is_none());
    }

    #[test]
    fn a_slot_with_used_up_generations_is_retired() {
        let table = table();
        let first = table.insert(Arc::new(1), OWNER).unwrap();
        let last = Token(first.0 | ((1 << GENERATION_BITS) - 1) << GENERATION_SHIFT);
        table.slot(first).unwrap().content.write().token = last;
        assert!(matches!(table.take(last), Found::Live(_)));
        assert_ne!(table.insert(Arc::new(2), OWNER).unwrap().slot(), first.slot());
        assert!(matches!(table.get(Token(0)), Found::Nothing) && matches!(table.get(last), Found::Nothing));
    }

    #[test]
    fn a_broken_object_says_so_until_it_is_closed() {
        let table = table();
        let token = table.insert(Arc::new(1), OWNER).unwrap();
        table.mark_broken(token);
        assert!(matches!(table.get(token), Found::Broken(_)));
        assert!(matches!(table.take(token), Found::Broken(_)));
        assert_eq!(live(&table, table.insert(Arc::new(2), OWNER).unwrap()), Some(2));
    }
}
