//! Work done ahead by other threads and taken in order by one: what makes a start judge one
//! hundred thousand stored entries on more than one core.
//!
//! The rules of trust look at items one after the other, since each changes what the next one
//! means. Reading an item and checking its signatures depends on nothing, and takes longer. So
//! threads do that a bounded number of items ahead; the one that judges helps them while what it
//! needs is not ready.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Items that a thread takes at a time.
const PART: usize = 64;
/// Parts that may be ready or under way before they are asked for: what bounds the memory.
const AHEAD: usize = 32;
/// Threads, the one that judges included.
const THREADS_MAX: usize = 8;

/// Where everybody is.
struct State<R> {
    /// The part that nobody has taken yet.
    next: usize,
    /// The part that is judged.
    now: usize,
    ready: BTreeMap<usize, Vec<R>>,
    /// A thread has panicked: nothing is awaited any more.
    broken: bool,
}

struct Shared<'a, T, R> {
    parts: Vec<&'a [T]>,
    state: Mutex<State<R>>,
    changed: Condvar,
}

impl<T, R> Shared<'_, T, R> {
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A part to work on, if there is one within the bound.
    fn take(&self, state: &mut State<R>) -> Option<usize> {
        let free = state.next < self.parts.len() && state.next < state.now + AHEAD;
        free.then(|| {
            state.next += 1;
            state.next - 1
        })
    }

    fn work(&self, part: usize, prepare: &impl Fn(&T) -> R) {
        let items = self.parts.get(part).copied().unwrap_or_default();
        let done = items.iter().map(prepare).collect();
        self.lock().ready.insert(part, done);
        self.changed.notify_all();
    }

    /// What another thread does, until nothing is left.
    fn run(&self, prepare: &impl Fn(&T) -> R) {
        let _told = TellOfPanic(self);
        let mut state = self.lock();
        while state.next < self.parts.len() && !state.broken {
            if let Some(part) = self.take(&mut state) {
                drop(state);
                self.work(part, prepare);
                state = self.lock();
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// The part, as soon as it is ready; meanwhile others are worked on. None after a panic.
    fn await_part(&self, part: usize, prepare: &impl Fn(&T) -> R) -> Option<Vec<R>> {
        let mut state = self.lock();
        state.now = part;
        self.changed.notify_all();
        loop {
            if let Some(done) = state.ready.remove(&part) {
                return Some(done);
            }
            if state.broken {
                return None;
            }
            if let Some(other) = self.take(&mut state) {
                drop(state);
                self.work(other, prepare);
                state = self.lock();
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// Wakes all that wait when its thread ends by a panic, or the one that judges does.
struct TellOfPanic<'a, 'b, T, R>(&'a Shared<'b, T, R>);

impl<T, R> Drop for TellOfPanic<'_, '_, T, R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().broken = true;
            self.0.changed.notify_all();
        }
    }
}

/// Hands each item to `each`, in order and by this thread, with what `prepare` made of it. That is
/// called by any thread, in any order, some items ahead.
pub(crate) fn in_order<T: Sync, R: Send>(
    items: &[T],
    prepare: impl Fn(&T) -> R + Sync,
    mut each: impl FnMut(&T, R),
) {
    let state = State { next: 0, now: 0, ready: BTreeMap::new(), broken: false };
    let parts = items.chunks(PART).collect::<Vec<_>>();
    let shared = Shared { parts, state: Mutex::new(state), changed: Condvar::new() };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Less than two parts are not worth a thread.
    let threads = cores.min(THREADS_MAX).min(shared.parts.len());
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| shared.run(&prepare));
        }
        let _told = TellOfPanic(&shared);
        for (number, part) in shared.parts.iter().enumerate() {
            let Some(ready) = shared.await_part(number, &prepare) else { return };
            part.iter().zip(ready).for_each(|(item, made)| each(item, made));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Whatever takes how long, items come in order, each once, and never is much more prepared
    /// than was taken.
    #[test]
    fn in_order_and_bounded() {
        for len in [0, 1, PART, PART + 1, 100 * PART + 7] {
            let items: Vec<usize> = (0..len).collect();
            let (made, mut taken) = (AtomicUsize::new(0), Vec::new());
            let prepare = |n: &usize| {
                made.fetch_add(1, Ordering::SeqCst);
                n * 2
            };
            in_order(&items, prepare, |n, twice| {
                assert_eq!(twice, n * 2);
                let ahead = made.load(Ordering::SeqCst) - taken.len();
                assert!(ahead <= (AHEAD + 1) * PART, "{ahead} ahead of {n}");
                taken.push(*n);
            });
            assert_eq!(taken, items);
        }
    }

    /// A panic in another thread ends the whole instead of leaving it waiting.
    #[test]
    fn a_panic_is_no_wait_for_ever() {
        let items: Vec<usize> = (0..10 * PART).collect();
        let prepare = |n: &usize| assert!(*n != 3 * PART, "as asked");
        let outcome = std::panic::catch_unwind(|| in_order(&items, prepare, |_, ()| {}));
        assert!(outcome.is_err());
    }
}
