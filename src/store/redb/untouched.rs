//! A file that redb may open and that stays as it is.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Mutex, MutexGuard};

use ::redb::StorageBackend;

const PAGE: u64 = 4096;

/// Reads the file, and keeps what is written in memory. redb writes little when it opens a database:
/// its head, and which pages are free.
#[derive(Debug)]
pub(super) struct Untouched(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    length: u64,
    /// So much of the file counts: what was cut off does not come back.
    original: u64,
    written: HashMap<u64, Box<[u8]>>,
}

impl Untouched {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self(Mutex::new(Inner { file, length, original: length, written: HashMap::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Inner {
    /// Fills `out` with what the file has from `offset` on, and with zeros after its end.
    fn read_original(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(self.original.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (there, beyond) = out.split_at_mut(there.min(out.len()));
        if !there.is_empty() {
            self.file.seek(SeekFrom::Start(offset))?;
            self.file.read_exact(there)?;
        }
        beyond.fill(0);
        Ok(())
    }

    fn read(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.written.is_empty() {
            return self.read_original(offset, out);
        }
        each_page(offset, out.len(), |page, within, range| {
            let out = out.get_mut(range).unwrap_or_default();
            match self.written.get(&page) {
                Some(bytes) => out.copy_from_slice(bytes.get(within..within + out.len()).unwrap_or_default()),
                None => self.read_original(page * PAGE + within as u64, out)?,
            }
            Ok(())
        })
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(data.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.length = self.length.max(end);
        each_page(offset, data.len(), |page, within, range| {
            let data = data.get(range).unwrap_or_default();
            let mut bytes = match self.written.remove(&page) {
                Some(bytes) => bytes,
                None => {
                    let mut bytes = vec![0; PAGE as usize];
                    self.read_original(page * PAGE, &mut bytes)?;
                    bytes.into_boxed_slice()
                }
            };
            if let Some(place) = bytes.get_mut(within..within + data.len()) {
                place.copy_from_slice(data);
            }
            self.written.insert(page, bytes);
            Ok(())
        })
    }

    fn set_len(&mut self, length: u64) {
        self.length = length;
        self.original = self.original.min(length);
        self.written.retain(|page, bytes| {
            let kept = length.saturating_sub(page * PAGE).min(PAGE) as usize;
            bytes.iter_mut().skip(kept).for_each(|byte| *byte = 0);
            kept > 0
        });
    }
}

/// Shows `visit` each page that a range touches: its number, where in it that begins, and what part of
/// the range lies in it.
fn each_page(
    offset: u64,
    length: usize,
    mut visit: impl FnMut(u64, usize, std::ops::Range<usize>) -> io::Result<()>,
) -> io::Result<()> {
    let mut done = 0;
    while done < length {
        let at = offset + done as u64;
        let within = (at % PAGE) as usize;
        let part = (PAGE as usize - within).min(length - done);
        visit(at / PAGE, within, done..done + part)?;
        done += part;
    }
    Ok(())
}

impl StorageBackend for Untouched {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.lock().read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.lock().set_len(length);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.lock().write(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        Length(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let write = (0..20_000_u64, prop::collection::vec(any::<u8>(), 0..9000));
        let step = prop_oneof![
            write.prop_map(|(offset, data)| Step::Write(offset, data)),
            (0..30_000_u64).prop_map(Step::Length),
        ];
        prop::collection::vec(step, 0..12)
    }

    proptest! {
        #[test]
        fn it_is_a_file_whose_changes_nobody_else_sees(steps in steps(), original in 0..20_000_usize) {
            let before: Vec<u8> = (0..original).map(|at| (at % 251) as u8 + 1).collect();
            let mut file = tempfile::tempfile().unwrap();
            io::Write::write_all(&mut file, &before).unwrap();
            let untouched = Untouched::new(file.try_clone().unwrap()).unwrap();
            let mut model = before.clone();
            for step in steps {
                match step {
                    Step::Write(offset, data) => {
                        untouched.write(offset, &data).unwrap();
                        let end = offset as usize + data.len();
                        model.resize(model.len().max(end), 0);
                        model[offset as usize..end].copy_from_slice(&data);
                    }
                    Step::Length(length) => {
                        untouched.set_len(length).unwrap();
                        model.resize(length as usize, 0);
                    }
                }
                let mut found = vec![7; untouched.len().unwrap() as usize];
                untouched.read(0, &mut found).unwrap();
                prop_assert!(found == model);
                let beyond = untouched.read(model.len() as u64, &mut [0]).unwrap_err();
                prop_assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
            }
            let mut after = Vec::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_end(&mut after).unwrap();
            prop_assert!(after == before);
        }
    }
}
