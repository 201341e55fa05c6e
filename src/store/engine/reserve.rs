//! File descriptors that a store keeps back: when everything else in the process has taken the rest, it still
//! gets at its files.

use std::fs::File;
use std::io;

use crate::store::StoreError;

/// What stands for a descriptor.
const NOTHING: &str = if cfg!(windows) { "NUL" } else { "/dev/null" };

/// Descriptors that are kept for the moment when there are no others.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    kept: Vec<File>,
    size: usize,
}

impl Reserve {
    /// Keeps so many, as far as there are.
    pub(super) fn new(size: usize) -> Self {
        let mut reserve = Self { kept: Vec::with_capacity(size), size };
        reserve.fill();
        reserve
    }

    /// Takes back what was lent, as far as there is some.
    pub(super) fn fill(&mut self) {
        while self.kept.len() < self.size
            && let Ok(file) = self.another()
        {
            self.kept.push(file);
        }
    }

    /// Gives everything back.
    pub(super) fn release(&mut self) {
        self.size = 0;
        self.kept.clear();
    }

    fn another(&self) -> io::Result<File> {
        match self.kept.first() {
            Some(file) => file.try_clone(),
            None => File::open(NOTHING),
        }
    }

    /// Sees to it that so many can be opened, from the reserve if need be, until the loan is dropped. An error
    /// says that there are not so many.
    pub(super) fn lend(&mut self, needed: usize) -> io::Result<Loan<'_>> {
        let mut probe = Vec::with_capacity(needed);
        while probe.len() < needed {
            match self.another() {
                Ok(file) => probe.push(file),
                Err(error) if probe.len() + self.kept.len() < needed => return Err(error),
                Err(_) => {
                    self.kept.clear();
                    break;
                }
            }
        }
        Ok(Loan(self))
    }
}

/// Descriptors that are there to be opened.
#[derive(Debug)]
pub(super) struct Loan<'a>(&'a mut Reserve);

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.0.fill();
    }
}

/// Whether an error says that there are no descriptors left.
pub(in crate::store) fn is_out_of_descriptors(error: &StoreError) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
                return [Errno::MFILE, Errno::NFILE].iter().any(|errno| errno.raw_os_error() == code);
            }
            source = error.source();
        }
    }
    #[cfg(not(unix))]
    let _ = error;
    false
}
