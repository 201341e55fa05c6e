//! What the embedded stores have in common for those who use them.

/// The settings every store around an [`Engine`](super::Engine) has, and how it is started. The
/// type has the fields `place`, `rules` and `source`.
macro_rules! embedded_store {
    ($store:ident) => {
        impl $store {
            /// When a change is acknowledged. Default:
            /// [`Durability::Fsync`](crate::store::Durability::Fsync).
            pub fn durability(mut self, durability: $crate::store::Durability) -> Self {
                self.rules.durability = durability;
                self
            }

            /// The most run records of a task that are kept; the oldest go first, those of runs that
            /// went wrong last. Default: no such limit, as many as
            /// [`history_age`](Self::history_age) and [`history_size`](Self::history_size) leave.
            pub fn history(mut self, runs: usize) -> Self {
                self.rules.retention.most = Some(runs);
                self
            }

            /// How many records of a task stay however old they are and however little room there is,
            /// and how many of its runs that went wrong: its latest. With 0, age and size count alone.
            /// Default: 20.
            pub fn history_least(mut self, runs: usize) -> Self {
                self.rules.retention.least = runs;
                self
            }

            /// How long run records are kept, but for the latest of each task
            /// ([`history_least`](Self::history_least)); counted from the submission of a run. Old ones
            /// go when runs are recorded, a few with each, so that they may stay for a while longer; runs
            /// that have not ended are always kept. Default: 7 days.
            pub fn history_age(mut self, age: std::time::Duration) -> Self {
                self.rules.retention.age = chrono::TimeDelta::from_std(age).ok();
                self
            }

            /// How large the run records of all tasks together may be, removed tasks included, in bytes of
            /// what is written down (what the files take beside is more). When there are more, the oldest
            /// go of runs that went well, then the oldest of the others, but for the latest of each task
            /// ([`history_least`](Self::history_least)): those are kept even when they are larger
            /// together. Each record that is kept takes some 32 to 60 bytes of memory (files: 150 to 240).
            /// Default: 256 MiB.
            pub fn history_size(mut self, bytes: u64) -> Self {
                self.rules.retention.size = bytes;
                self
            }

            /// How many removed tasks keep their run records; when more are removed, the records of
            /// those removed first go. Default: 10,000.
            pub fn history_of_removed(mut self, tasks: usize) -> Self {
                self.rules.removed = tasks;
                self
            }

            /// How long the opening may take, in real time; zero is no limit. When it takes longer, the
            /// store is [`Unavailable`](crate::store::StoreError::Unavailable), and is opened again like
            /// one that failed; the thread that hangs is left behind. While four hang, no more are begun.
            /// Default: 60 s.
            pub fn open_limit(mut self, limit: std::time::Duration) -> Self {
                self.rules.open_limit = limit;
                self
            }

            /// What is done with a directory whose data was lost or cannot be read any more. By default
            /// (`false`) the store stays down with [`Damaged`](crate::store::StoreError::Damaged), until
            /// somebody has restored the directory: with an empty store instead, tasks would be gone
            /// without a trace. With `true` the directory is renamed to `<path>.damaged-<UTC time>` and
            /// a fresh one is begun, which
            /// [`StoreSetAside`](crate::event::Event::StoreSetAside) tells and the log says as an error.
            /// Nothing is deleted. Directories of another program or of a newer version are never set
            /// aside.
            pub fn set_aside(mut self, damaged: bool) -> Self {
                self.rules.set_aside = damaged;
                self
            }

            /// Exports that are taken while the store runs. Default: none.
            pub fn exports(mut self, exports: $crate::store::Exports) -> Self {
                self.rules.exports = Some(exports);
                self
            }

            /// Encrypts what the store keeps of tasks, their states and their runs. Their ids, and
            /// how many records there are and when they change, remain visible. Records that are
            /// plain are read, and written encrypted when they change, or all at once by
            /// [`Rekey`](crate::store::message::Rekey). Default: nothing is encrypted.
            #[cfg(feature = "encryption")]
            pub fn encrypt(mut self, keys: impl Into<$crate::store::Keys>) -> Self {
                self.rules.keys = Some(keys.into());
                self
            }

            /// In an encrypted store: whether records that are plain are left alone as unreadable.
            /// Whoever can write to the directory could otherwise put plain records there. Turn it
            /// on when everything is encrypted. Default: false.
            #[cfg(feature = "encryption")]
            pub fn refuse_plain(mut self, refuse: bool) -> Self {
                self.rules.refuse_plain = refuse;
                self
            }

            /// Opens the store for maintenance, while nobody runs it.
            ///
            /// # Errors
            /// As when it is started.
            pub fn vault(&self) -> Result<$crate::store::Vault, $crate::store::StoreError> {
                $crate::store::Vault::open(&self.place, &self.rules)
            }
        }

        impl $crate::store::StoreSource for $store {
            fn start(&mut self, keep: $crate::store::Keep) -> $crate::store::StoreAddr {
                let (place, rules) = (&self.place, &self.rules);
                self.source
                    .get_or_insert_with(|| {
                        let (place, rules) = (place.clone(), rules.clone());
                        $crate::store::BackendSource::new(move || {
                            $crate::store::engine::Engine::new(place.clone(), rules.clone())
                        })
                    })
                    .start(keep)
            }

            fn keeps_closures(&self) -> Option<bool> {
                Some(false)
            }
        }

        impl std::fmt::Debug for $store {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($store))
                    .field("place", &self.place)
                    .field("rules", &self.rules)
                    .finish()
            }
        }
    };
}

/// The setting of stores around a database.
#[cfg(any(feature = "sled", feature = "redb"))]
macro_rules! cache_setting {
    ($store:ident) => {
        impl $store {
            /// The size of the database's own cache in bytes. Default: 16 MiB.
            pub fn cache(mut self, bytes: u64) -> Self {
                self.place.cache = bytes;
                self
            }
        }
    };
}

#[cfg(any(feature = "sled", feature = "redb"))]
pub(in crate::store) use cache_setting;
pub(in crate::store) use embedded_store;
