//! The queue of connections with something to read, and the threads that serve them.
//!
//! A worker is counted from before it is started until it ends or takes up an operation that may last. The
//! rule that keeps a burst from waiting: after each push there are at least as many idle workers as queued
//! connections, or the pool is at its cap, or the kernel refused a thread (and [`staff`] tries again).
//! An idle worker is counted as idle until it has taken its connection, which is why the comparison is
//! with the queue's length and not with zero.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::{Connection, Core, exchange, lock};

/// How long a worker waits for work before it ends. The last one stays.
const IDLE: Duration = Duration::from_secs(5);

pub(super) struct Pool {
    state: Mutex<State>,
    ready: Condvar,
    /// Whether connections wait although every worker is busy.
    is_pressed: AtomicBool,
    cap: usize,
    stack_bytes: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Connection>,
    workers: usize,
    idle: usize,
    is_closed: bool,
}

impl Pool {
    pub(super) fn new(cap: usize, stack_bytes: usize) -> Pool {
        Pool {
            state: Mutex::default(),
            ready: Condvar::new(),
            is_pressed: AtomicBool::new(false),
            cap: cap.max(1),
            stack_bytes,
        }
    }

    /// Whether a busy connection should let others have its worker.
    pub(super) fn is_pressed(&self) -> bool {
        self.is_pressed.load(Ordering::Relaxed)
    }

    /// Ends idle workers; busy ones end with their connection. What is queued is closed.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        drop(queue);
        self.ready.notify_all();
    }

    /// Whether one more worker is needed; counts it if so.
    fn hire(&self, state: &mut State) -> bool {
        let is_short = state.queue.len() > state.idle;
        let hire = is_short && state.workers < self.cap;
        self.is_pressed.store(is_short && !hire, Ordering::Relaxed);
        state.workers += usize::from(hire);
        hire
    }

    /// The next connection, or `None` when the worker should end; it is then no longer counted.
    fn next(&self) -> Option<Connection> {
        let mut state = lock(&self.state);
        loop {
            if let Some(connection) = state.queue.pop_front() {
                let is_short = state.queue.len() > state.idle;
                self.is_pressed.store(is_short && state.workers >= self.cap, Ordering::Relaxed);
                return Some(connection);
            }
            if state.is_closed {
                return None;
            }
            state.idle += 1;
            let (woken, waited) =
                self.ready.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if waited.timed_out() && state.queue.is_empty() && state.workers > 1 {
                return None;
            }
        }
    }
}

/// A worker's place in the count, given up when it is dropped.
pub(super) struct Place<'a> {
    pool: &'a Pool,
    is_counted: bool,
}

impl Place<'_> {
    /// Leaves the count for an operation that may last; true if a successor must be started.
    fn leave(&mut self) -> bool {
        if !std::mem::take(&mut self.is_counted) {
            return false;
        }
        let mut state = lock(&self.pool.state);
        state.workers -= 1;
        self.pool.hire(&mut state)
    }

    /// Joins the count again; false if there are workers enough.
    pub(super) fn rejoin(&mut self) -> bool {
        if !self.is_counted {
            let mut state = lock(&self.pool.state);
            self.is_counted = state.workers < self.pool.cap && !state.is_closed;
            state.workers += usize::from(self.is_counted);
        }
        self.is_counted
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.is_counted {
            lock(&self.pool.state).workers -= 1;
        }
    }
}

/// Leaves the pool's count, so that this thread may be held for long.
pub(super) fn leave<S: Send + Sync + 'static>(core: &Arc<Core<S>>, place: &mut Place<'_>) {
    if place.leave() && !start(core) {
        core.control.wake();
    }
}

/// Queues a connection that has something to read.
pub(super) fn submit<S: Send + Sync + 'static>(core: &Arc<Core<S>>, connection: Connection) {
    let mut state = lock(&core.pool.state);
    if state.is_closed {
        drop(state);
        drop(connection);
        return;
    }
    state.queue.push_back(connection);
    let hire = core.pool.hire(&mut state);
    drop(state);
    if !hire {
        core.pool.ready.notify_one();
    } else if !start(core) {
        // The poller tries again.
        core.control.wake();
    }
}

/// Starts a worker if one is needed; true if it is still needed after that.
pub(super) fn staff<S: Send + Sync + 'static>(core: &Arc<Core<S>>) -> bool {
    let mut state = lock(&core.pool.state);
    let hire = core.pool.hire(&mut state);
    drop(state);
    hire && !start(core)
}

/// Starts a worker that is counted already; false, and no longer counted, if the kernel refuses.
fn start<S: Send + Sync + 'static>(core: &Arc<Core<S>>) -> bool {
    let shared = core.clone();
    let builder =
        std::thread::Builder::new().name("http-worker".to_owned()).stack_size(core.pool.stack_bytes);
    let started = builder.spawn(move || work(&shared));
    if let Err(cause) = &started {
        log::warn!("start a worker thread: {cause}");
        lock(&core.pool.state).workers -= 1;
    }
    started.is_ok()
}

fn work<S: Send + Sync + 'static>(core: &Arc<Core<S>>) {
    let mut place = Place { pool: &core.pool, is_counted: true };
    while place.rejoin() {
        let Some(connection) = core.pool.next() else { return };
        exchange::serve(core, connection, &mut place);
    }
}
