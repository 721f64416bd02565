//! SIGTERM and SIGINT, told to all who wait for them, on whichever shard.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::mail::{Mailer, mailbox};

static WAITING: Mutex<State> = Mutex::new(State::Deaf);

enum State {
    /// No one asked yet: signals do what they do by default.
    Deaf,
    /// A thread listens.
    Listening(Vec<Mailer<()>>),
    /// A signal came.
    Ending,
}

pub(crate) async fn termination() {
    let (mailer, mut news) = mailbox(1);
    let before = news.try_recv(); // From here on the mailbox is this shard's.
    assert!(before.is_none());
    {
        let mut state = lock();
        match &mut *state {
            State::Ending => return,
            State::Listening(waiting) => waiting.push(mailer),
            State::Deaf => {
                // Without it the process could not be stopped in order, so better not begin.
                listen().unwrap_or_else(|error| panic!("cannot listen for signals: {error}"));
                *state = State::Listening(vec![mailer]);
            }
        }
    }
    news.recv().await;
}

fn lock() -> MutexGuard<'static, State> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread that waits for the first signal. The second does what it does by default: it ends a
/// process whose orderly end hangs.
fn listen() -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in &mut signals {
            match std::mem::replace(&mut *lock(), State::Ending) {
                State::Listening(waiting) => {
                    for mailer in waiting {
                        let _ = mailer.send(()); // Full: it knows.
                    }
                }
                State::Ending => {
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
                State::Deaf => unreachable!("set to listening before the lock was let go"),
            }
        }
    })?;
    Ok(())
}
