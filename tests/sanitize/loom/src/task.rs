//! What `futures_util::task` and `tokio::task` are to the library.

use std::marker::PhantomData;
use std::task::Waker;

use crate::sync::Mutex;

/// One task that can be woken: the last that was registered, once.
#[derive(Debug, Default)]
pub(crate) struct AtomicWaker(Mutex<Option<Waker>>);

impl AtomicWaker {
    pub(crate) fn register(&self, waker: &Waker) {
        let waker = waker.clone();
        let before = self.0.lock().replace(waker);
        drop(before);
    }

    pub(crate) fn wake(&self) {
        let waker = self.0.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Only kept, never used.
pub(crate) struct JoinHandle<T>(PhantomData<T>);
