//! SIGTERM and SIGINT, told to all who wait for them, on whichever shard.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::bell::Bell;
use super::shard::shard;

/// Whether a signal came.
static COME: AtomicBool = AtomicBool::new(false);

/// The shards on which someone waits; `None` until the first does: until then, signals do what they
/// do by default.
static LISTENING: Mutex<Option<Vec<Arc<Bell>>>> = Mutex::new(None);

pub(super) fn has_come() -> bool {
    COME.load(SeqCst)
}

pub(crate) async fn termination() {
    let shard = shard();
    if !shard.hears_signals.replace(true) {
        let mut listening = lock();
        if listening.is_none() {
            // Without it the process could not be stopped in order, so better not begin.
            listen().unwrap_or_else(|error| panic!("cannot listen for signals: {error}"));
        }
        listening.get_or_insert_default().push(Arc::clone(&shard.bell));
    }
    // The bell is known by now, so a signal after this look will ring it.
    if !has_come() {
        shard.terminated.notified().await;
    }
}

fn lock() -> MutexGuard<'static, Option<Vec<Arc<Bell>>>> {
    LISTENING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread that waits for the first signal. The second does what it does by default: it ends a
/// process whose orderly end hangs.
fn listen() -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in &mut signals {
            if COME.swap(true, SeqCst) {
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            lock().iter().flatten().for_each(|bell| bell.ring());
        }
    })?;
    Ok(())
}
