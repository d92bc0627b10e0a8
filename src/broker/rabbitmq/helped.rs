//! Work that has a task of its own, and that any thread may do which has the time: it spares the
//! hop to the task's thread and back.

use std::task::{Context, Poll, Waker};

use futures_util::task::AtomicWaker;

use crate::sync::Mutex;

/// What a [`Helped`] does.
pub(super) trait Work: Send {
    /// Does all there is to do. Ready with the reason when there will be no more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String>;
}

/// Work with its task, which goes on where nobody helps.
pub(super) struct Helped<W> {
    state: Mutex<State<W>>,
    task: AtomicWaker,
}

struct State<W> {
    /// `None` once it was taken back.
    work: Option<W>,
    /// `None` before the first poll of the task.
    task: Option<Waker>,
    /// Why the work has ended in the hands of a helper.
    ended: Option<String>,
}

/// Somebody who can be helped.
pub(super) trait Help: Send + Sync {
    /// Does all there is to do, on this thread; or where somebody else is at it, who may have looked
    /// already, has the task look again.
    fn help(&self);
}

impl<W: Work> Helped<W> {
    pub(super) fn new(work: W) -> Self {
        Self {
            state: Mutex::new(State {
                work: Some(work),
                task: None,
                ended: None,
            }),
            task: AtomicWaker::default(),
        }
    }

    /// The task's part. Ready with the reason when the work has ended.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<String> {
        // Before it looks: who finds it at work then wakes it for another look.
        self.task.register(cx.waker());
        let state = &mut *self.state.lock();
        if let Some(reason) = state.ended.take() {
            return Poll::Ready(reason);
        }
        match &mut state.task {
            Some(task) => task.clone_from(cx.waker()),
            None => state.task = Some(cx.waker().clone()),
        }
        match &mut state.work {
            Some(work) => work.poll(cx),
            None => Poll::Pending,
        }
    }

    /// Takes the work back: nobody helps any more.
    pub(super) fn take(&self) -> Option<W> {
        self.state.lock().work.take()
    }
}

impl<W: Work> Help for Helped<W> {
    fn help(&self) {
        let Some(mut state) = self.state.try_lock() else {
            self.task.wake();
            return;
        };
        let State { work, task, ended } = &mut *state;
        // What has not begun has its first look before it; what has ended, none.
        if let (Some(work), Some(task), None) = (work, task, &ended)
            && let Poll::Ready(reason) = work.poll(&mut Context::from_waker(task))
        {
            *ended = Some(reason);
            task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    /// Ends with its third poll.
    struct Three(usize);

    impl Work for Three {
        fn poll(&mut self, _: &mut Context<'_>) -> Poll<String> {
            self.0 += 1;
            if self.0 < 3 {
                Poll::Pending
            } else {
                Poll::Ready("three".to_owned())
            }
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_helper_does_the_work_and_the_task_hears_of_its_end() {
        let woken = Arc::new(Count::default());
        let waker = Arc::clone(&woken).into();
        let mut cx = Context::from_waker(&waker);
        let helped = Helped::new(Three(0));
        helped.help(); // Its task has not begun.
        assert!(helped.poll(&mut cx).is_pending());
        helped.help();
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        helped.help();
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        helped.help(); // It has ended.
        assert_eq!(helped.poll(&mut cx), Poll::Ready("three".to_owned()));
    }

    #[test]
    fn who_finds_somebody_at_it_wakes_the_task_and_what_is_over_is_not_helped() {
        let woken = Arc::new(Count::default());
        let waker = Arc::clone(&woken).into();
        let mut cx = Context::from_waker(&waker);
        let helped = Helped::new(Three(0));
        assert!(helped.poll(&mut cx).is_pending());
        let at_it = helped.state.lock();
        helped.help();
        drop(at_it);
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(helped.take().is_some_and(|work| work.0 == 1));
        helped.help();
        assert!(helped.poll(&mut cx).is_pending());
    }
}
