//! Where the runs of tasks are in their files: of as many runs as may be remembered.

use rustc_hash::FxHashMap;

use super::runs::Index;

/// So many places of records are remembered.
const REMEMBERED: usize = 250_000;

/// By task.
#[derive(Debug, Default)]
pub(super) struct Indices {
    of: FxHashMap<String, Index>,
    /// How many places that are.
    places: usize,
}

impl Indices {
    pub(super) fn get(&self, task: &str) -> Option<&Index> {
        self.of.get(task)
    }

    pub(super) fn take(&mut self, task: &str) -> Option<Index> {
        let index = self.of.remove(task)?;
        self.places -= index.places();
        Some(index)
    }

    /// Remembers one more. The others are forgotten when there are too many: they can be read again.
    pub(super) fn keep(&mut self, task: String, index: Index) {
        self.take(&task);
        if self.places + index.places() > REMEMBERED {
            *self = Self::default();
        }
        self.places += index.places();
        self.of.insert(task, index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_also_where_there_is_nothing() {
        let mut indices = Indices::default();
        for task in 0..REMEMBERED + 10 {
            indices.keep(task.to_string(), Index::default());
            indices.keep("again".to_owned(), Index::default());
        }
        assert!(indices.of.len() < 100 && indices.places == indices.of.len());
        assert!(indices.get("again").is_some() && indices.take("again").is_some());
        assert!(indices.get("again").is_none() && indices.places == indices.of.len());
    }
}
