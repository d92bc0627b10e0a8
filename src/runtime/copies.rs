//! Other copies of this library in the process, such as one that a Python package has brought and one that
//! the program is linked with. Each has statics of its own, and so brokers of `memory://` of its own.
//!
//! Symbols do not tell: a copy that was loaded with `RTLD_LOCAL`, or linked statically, exports none. A note
//! of ELF is in each that is in memory.

use std::ffi::{CStr, c_int, c_void};
use std::slice;

use super::forks::without_forks;

const NAME: &[u8; 16] = b"channel_layer\0\0\0";
const NAME_BYTES: u32 = 14; // with one NUL, without what fills up to 4 bytes
const KIND: u32 = 1;

/// A note as ELF has it: the sizes of name and contents, a kind, the name, the contents.
#[repr(C)]
struct Note {
    name_bytes: u32,
    content_bytes: u32,
    kind: u32,
    name: [u8; NAME.len()],
}

#[used]
#[unsafe(link_section = ".note.channel_layer")]
static NOTE: Note = Note {
    name_bytes: NAME_BYTES,
    content_bytes: 0,
    kind: KIND,
    name: *NAME,
};

/// The files of the other copies; that of the program itself is empty.
pub(crate) fn others() -> Vec<String> {
    let mut found = Vec::new();
    // The loader's lock is held meanwhile.
    without_forks(|| {
        // SAFETY: `look` gets what it expects as its last argument, and keeps nothing.
        unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
    });
    found
}

/// Adds to the `Vec<String>` at `found` the name of an object that has our note at another place.
extern "C" fn look(object: *mut libc::dl_phdr_info, _: usize, found: *mut c_void) -> c_int {
    // SAFETY: the loader gives an object that is in memory, and stays there during the call.
    let (object, found) = unsafe { (&*object, &mut *found.cast::<Vec<String>>()) };
    if object.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the object has so many program headers.
    let headers = unsafe { slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    for header in headers
        .iter()
        .filter(|header| header.p_type == libc::PT_NOTE)
    {
        let start = (object.dlpi_addr + header.p_vaddr) as usize;
        // SAFETY: the header says that these bytes are loaded, to be read.
        let notes = unsafe { slice::from_raw_parts(start as *const u8, header.p_memsz as usize) };
        for offset in ours(notes, header.p_align as usize) {
            if start + offset != (&raw const NOTE).addr() {
                // SAFETY: the loader gives a name that ends with NUL, or NULL.
                let name = (!object.dlpi_name.is_null())
                    .then(|| unsafe { CStr::from_ptr(object.dlpi_name) });
                found.push(name.unwrap_or_default().to_string_lossy().into_owned());
            }
        }
    }
    0
}

/// Where in `notes` those of this library begin. Each part of a note is filled up to `align`.
fn ours(notes: &[u8], align: usize) -> Vec<usize> {
    let up = |bytes: u32| (bytes as usize).next_multiple_of(align.max(4));
    let number = |at: usize| {
        let bytes = notes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(bytes))
    };
    let mut found = Vec::new();
    let mut at = 0;
    while let (Some(name), Some(content), Some(kind)) = (number(at), number(at + 4), number(at + 8))
    {
        let text = notes.get(at + 12..at + 12 + name as usize);
        if kind == KIND && text == NAME.get(..NAME_BYTES as usize) {
            found.push(at);
        }
        at += 12 + up(name) + up(content);
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::super::forks::in_forked_child;
    use super::*;

    fn note(name: &[u8], content: &[u8], kind: u32) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [name.len() as u32, content.len() as u32, kind] {
            note.extend(number.to_ne_bytes());
        }
        for part in [name, content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn a_process_with_one_copy_has_no_others() {
        assert_eq!(others(), Vec::<String>::new());
    }

    /// In the child, the loader's lock must not be held by a thread that is not there.
    #[test]
    fn a_child_that_is_forked_while_another_thread_looks_can_look_too() {
        let stop = AtomicBool::new(false);
        let in_time = thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        others();
                    }
                });
            }
            let children = (0..300).map(|_| in_forked_child(|| others().is_empty()));
            let in_time = children.into_iter().all(|right| right);
            stop.store(true, Ordering::Relaxed);
            in_time
        });
        assert!(in_time);
    }

    #[test]
    fn our_note_is_found_behind_those_of_others_and_nothing_else_is() {
        let mut notes = note(b"GNU\0", &[1; 20], 3);
        let first = notes.len();
        notes.extend(note(b"channel_layer\0", b"", KIND));
        notes.extend(note(b"channel_layer\0", b"", 2));
        notes.extend(note(b"channel_laxer\0", &[7], KIND));
        let second = notes.len();
        notes.extend(note(b"channel_layer\0", &[9; 3], KIND));
        assert_eq!(ours(&notes, 4), [first, second]);
    }

    #[test]
    fn notes_that_are_cut_or_lie_about_their_size_are_not_read_beyond_their_end() {
        let notes = note(b"channel_layer\0", b"1234", KIND);
        for length in 0..notes.len() {
            ours(&notes[..length], 4);
        }
        let mut lying = notes.clone();
        lying[..4].fill(0xFF);
        assert!(ours(&lying, 4).is_empty());
    }
}
