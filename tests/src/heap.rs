//! Counts what this thread has on the heap: a test or tool that declares [`Counting`] as its global
//! allocator can say how many bytes a call took at once, and how many it kept.

#![expect(unsafe_code, reason = "an allocator cannot be written otherwise; it hands all on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes on the heap since `measure` began; less than nothing where older ones are freed.
    static NOW: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

/// The allocator of the system, with a count for each thread.
#[derive(Debug)]
pub struct Counting;

fn count(more: usize, less: usize) {
    let change = isize::try_from(more).unwrap_or(0) - isize::try_from(less).unwrap_or(0);
    // A thread that ends has no counters any more.
    let now = NOW.try_with(|now| {
        now.set(now.get().saturating_add(change));
        now.get()
    });
    if let Ok(now) = now {
        MOST.try_with(|most| most.set(most.get().max(now))).unwrap_or_default();
    }
}

// SAFETY: every call goes on to the system's allocator as it came; counting takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both may be there for a moment.
        count(new_size, 0);
        count(0, layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// Runs something; says how many bytes it kept, and how many it had at once.
pub fn measure<T>(run: impl FnOnce() -> T) -> (T, usize, usize) {
    NOW.set(0);
    MOST.set(0);
    let out = run();
    let (kept, most) = (NOW.get(), MOST.get());
    let or_none = |n: isize| usize::try_from(n).unwrap_or(0);
    (out, or_none(kept), or_none(most))
}

/// Only the most that was there at once.
pub fn most(run: &mut dyn FnMut()) -> usize {
    measure(run).2
}
