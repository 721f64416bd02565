//! A panic on one of our threads ends the process: a broker of which a part is dead is worse than none.

use std::cell::Cell;
use std::panic;
use std::sync::Once;
use std::thread;

/// What Rust's own `main` returns after a panic.
const STATUS: i32 = 101;

thread_local! {
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// Makes panics of this thread end the process: at once, in the panic hook, before anything unwinds;
/// and should someone have replaced the hook, at the latest when this value is dropped.
pub(crate) struct EndOnPanic(());

impl EndOnPanic {
    pub(crate) fn on_this_thread() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                before(panic);
                if IS_OURS.get() {
                    end(&panic.to_string());
                }
            }));
        });
        IS_OURS.set(true);
        Self(())
    }
}

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        IS_OURS.set(false);
        if thread::panicking() {
            end("panicked");
        }
    }
}

/// Straight to the descriptor: standard error may be captured, and would die with us.
fn end(what: &str) -> ! {
    let thread = thread::current();
    let name = thread.name().unwrap_or("unnamed");
    let line = format!("flowstone: thread '{name}' {what}\nthe process ends (status {STATUS})\n");
    let _ = rustix::io::write(std::io::stderr(), line.as_bytes());
    // SAFETY: ends the process without running destructors or exit handlers, on a state that a bug
    // may have broken.
    unsafe { libc::_exit(STATUS) }
}
