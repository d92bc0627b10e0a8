//! A queue that keeps its first item in place: nearly all queues of a channel hold one or none,
//! and there may be a million of them.

use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Queue<T> {
    first: Option<T>,
    /// What comes after `first`; given back when the queue is empty.
    #[expect(
        clippy::box_collection,
        reason = "an empty queue takes a fourth of the room"
    )]
    rest: Option<Box<VecDeque<T>>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            first: None,
            rest: None,
        }
    }
}

impl<T> Queue<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.as_ref().map_or(0, |rest| rest.len())
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.first.as_ref()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut T> {
        self.first.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first
            .iter()
            .chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let rest = self.rest.iter_mut().flat_map(|rest| rest.iter_mut());
        self.first.iter_mut().chain(rest)
    }

    pub(super) fn push_back(&mut self, item: T) {
        if self.first.is_none() {
            self.first = Some(item);
        } else {
            self.rest.get_or_insert_default().push_back(item);
        }
    }

    pub(super) fn push_front(&mut self, item: T) {
        if let Some(second) = self.first.replace(item) {
            self.rest.get_or_insert_default().push_front(second);
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<T> {
        let second = match &mut self.rest {
            Some(rest) => rest.pop_front(),
            None => None,
        };
        if second.is_none() {
            self.rest = None;
        }
        std::mem::replace(&mut self.first, second)
    }

    pub(super) fn pop_back(&mut self) -> Option<T> {
        let last = self.rest.as_mut().and_then(|rest| rest.pop_back());
        if self.rest.as_ref().is_some_and(|rest| rest.is_empty()) {
            self.rest = None;
        }
        last.or_else(|| self.first.take())
    }

    /// Moves the first item to the end.
    pub(super) fn rotate(&mut self) {
        if self.rest.is_some()
            && let Some(first) = self.pop_front()
        {
            self.push_back(first);
        }
    }

    /// Removes the first item for which `which` holds.
    pub(super) fn remove_first(&mut self, which: impl Fn(&T) -> bool) -> Option<T> {
        if self.first.as_ref().is_some_and(&which) {
            return self.pop_front();
        }
        let rest = self.rest.as_mut()?;
        let place = rest.iter().position(which)?;
        rest.remove(place)
    }

    /// Takes all items out.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        let first = self.first.take();
        let rest = self.rest.take().map(|rest| *rest).unwrap_or_default();
        first.into_iter().chain(rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_queue(steps in proptest::collection::vec(0_u8..8, 0..200)) {
            let mut queue = Queue::default();
            let mut model = VecDeque::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => {
                        queue.push_back(number);
                        model.push_back(number);
                    }
                    2 => {
                        queue.push_front(number);
                        model.push_front(number);
                    }
                    3 => prop_assert_eq!(queue.pop_front(), model.pop_front()),
                    6 => prop_assert_eq!(queue.pop_back(), model.pop_back()),
                    4 => {
                        queue.rotate();
                        if !model.is_empty() {
                            model.rotate_left(1);
                        }
                    }
                    5 => {
                        let third = |item: &usize| item.is_multiple_of(3);
                        let place = model.iter().position(third);
                        let removed = place.and_then(|place| model.remove(place));
                        prop_assert_eq!(queue.remove_first(third), removed);
                    }
                    _ => {
                        for item in queue.iter_mut().chain(model.iter_mut()) {
                            *item += 1;
                        }
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.is_empty(), model.is_empty());
                prop_assert_eq!(queue.front(), model.front());
                prop_assert!(queue.iter().eq(model.iter()));
                prop_assert!(queue.rest.is_none() || !queue.is_empty(), "storage is given back");
            }
            prop_assert!(queue.take_all().eq(model));
            prop_assert!(queue.is_empty());
        }
    }
}
