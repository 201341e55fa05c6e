//! Where the runs of tasks are in their files: of as many runs as may be remembered.

use rustc_hash::FxHashMap;

use super::runs::Index;

/// So many places of records are remembered: more than there are by default. Each takes some 100 bytes.
const REMEMBERED: usize = if cfg!(test) { 100_000 } else { 1_000_000 };

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

    /// Remembers one more. Some of the others are forgotten when there are too many: they can be read again.
    pub(super) fn keep(&mut self, task: String, index: Index) {
        self.take(&task);
        while self.places + index.places() > REMEMBERED
            && let Some(other) = self.of.keys().next().cloned()
        {
            self.take(&other);
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
        assert!(indices.of.len() == REMEMBERED && indices.places == indices.of.len());
        assert!(indices.get("again").is_some() && indices.take("again").is_some());
        assert!(indices.get("again").is_none() && indices.places == indices.of.len());
    }
}
