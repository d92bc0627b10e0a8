//! How far the end of a layer has come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::task::JoinHandle as Task;

#[derive(Default)]
pub(super) struct Progress {
    pub(super) done: bool,
    /// All ended in time.
    pub(super) in_time: bool,
    /// Nobody will poll any more: what is due is run here.
    pub(super) abandoned: bool,
    pub(super) worker: Option<JoinHandle<()>>,
    /// Tasks that end with the layer.
    pub(super) tasks: Vec<Task<()>>,
}

/// How far the end of a layer has come.
pub(super) struct Closing {
    begun: AtomicBool,
    pub(super) progress: Mutex<Progress>,
    pub(super) changed: Condvar,
}

impl Closing {
    pub(super) fn new() -> Self {
        Self {
            begun: AtomicBool::new(false),
            progress: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Begins the end; `false` if it has begun.
    pub(super) fn begin(&self) -> bool {
        !self.begun.swap(true, Ordering::AcqRel)
    }

    pub(super) fn not_begun(&self) -> bool {
        !self.begun.load(Ordering::Acquire)
    }

    pub(super) fn done(&self) -> bool {
        self.progress.lock().done
    }

    /// A task that ends with the layer.
    pub(super) fn stops(&self, task: Task<()>) {
        self.progress.lock().tasks.push(task);
    }
}
