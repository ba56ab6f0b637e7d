//! Panics of other people's libraries, kept from ending the program or writing to its streams.
//!
//! *What must stay true.* Only the calling thread is silenced, and only while it runs the contained work;
//! every other panic reaches the hook that was installed before. Needs `panic = "unwind"`, the default.

use std::{
    any::Any,
    cell::Cell,
    error::Error,
    panic::{self, AssertUnwindSafe},
    sync::Once,
    thread,
};

use super::Fault;

/// The error type of the libraries that are contained.
pub(super) type Failure = Box<dyn Error + Send + Sync>;

thread_local! {
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// An error on its way past a caller that would discard it, see [`carry`].
struct Carried(Failure);

/// Runs `work`; a panic is its error.
pub(super) fn contain<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Fault> {
    match catch(work) {
        Ok(result) => result.map_err(|source| Fault::Error { source }),
        Err(payload) => Err(match payload.downcast::<Carried>() {
            Ok(carried) => Fault::Error { source: carried.0 },
            Err(payload) => Fault::Panic { message: message(&*payload) },
        }),
    }
}

/// Ends the contained work of this thread with `error`, for where a library discards what is returned.
pub(super) fn carry(error: Failure) -> ! {
    panic::resume_unwind(Box::new(Carried(error)))
}

/// Runs `work` without the panic hook's message; a panic is its error.
pub(super) fn catch<T>(work: impl FnOnce() -> T) -> thread::Result<T> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !SILENT.get() {
                before(info);
            }
        }));
    });
    let outer = SILENT.replace(true);
    // What a panic leaves behind is a cache of the library or is dropped with the work.
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    SILENT.set(outer);
    result
}

/// The text of a panic.
pub(super) fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}
