//! The table of a task's options: each is declared here, once.
//!
//! What follows from a row: the field of [`TaskSpec`](super::TaskSpec) and its JSON, that of
//! [`TaskDefaults`](super::TaskDefaults) for those of the first table, the method of
//! [`Task`](super::Task) and [`TaskChanges`](super::TaskChanges), the key of a configuration, the option of
//! the attribute `#[callboard::task]` with its line in the documentation, and the line of `inspect`.
//! The attribute's crate reads this very file.
//!
//! A row, part by part:
//!
//! - the documentation of the method, and the option's name;
//! - the type of its field;
//! - whose the default is: `scheduler(…)` for one that [`TaskDefaults`](super::TaskDefaults) begin with,
//!   `task(…)` for a fixed one;
//! - the documentation of its field;
//! - `serde`: how the field is written down;
//! - `set`: what the method takes, and what the field becomes of it;
//! - `check`: what is refused, as a function of `check.rs`;
//! - `file`: whether the configuration reads it by its type ([`Setting`](crate::config)), or by hand;
//! - `attribute`: how the attribute takes it, and an example;
//! - `shown`: how `inspect` shows it.

/// The options that the scheduler has defaults for, after the rows of `more`.
macro_rules! task_policies {
    ($then:ident $($more:tt)*) => {
        $then! {
            $($more)*

            /// The alias of the executor. Default: [`TaskDefaults::executor`].
            executor: (Alias), scheduler(Alias::default_alias()),
                "The executor. Default: `default`.";
                serde();
                set(alias: impl TryInto<Alias, Error: Into<TaskError>>) (alias.try_into().map_err(Into::into));
                check(anything); file(typed);
                attribute(Kind::Name, "executor = \"…\""); shown(Shown::Always);

            /// Which of the run times that are due together run: a [`Coalesce`], or `true` for the
            /// latest and `false` for all. Default: [`TaskDefaults::coalesce`].
            coalesce: (Coalesce), scheduler(Coalesce::Latest),
                "Which of the run times that are due together run. Default: the latest.";
                serde();
                set(coalesce: impl Into<Coalesce>) (Ok(coalesce.into()));
                check(anything); file(typed);
                attribute(
                    Kind::Word("Coalesce", &[("latest", "Latest"), ("earliest", "Earliest"), ("all", "All")]),
                    "coalesce = \"earliest\""
                );
                shown(Shown::Always);

            /// Without coalescing: how many of the run times that are due together run; the others
            /// count as missed. At least 1 and at most 10,000. Default: [`TaskDefaults::max_catch_up`].
            max_catch_up: (u32), scheduler(100),
                "Without coalescing, how many of the run times that are due together run, the latest ones. \
                 Default: 100.";
                serde();
                set(runs: u32) (Ok(runs));
                check(some_catch_up); file(typed);
                attribute(Kind::Count(32), "max_catch_up = 10"); shown(Shown::Always);

            /// Runs of the task at once; at least 1. Default: [`TaskDefaults::max_instances`].
            max_instances: (u32), scheduler(1),
                "How many runs of one task may be going on at once. Default: 1.";
                serde();
                set(instances: u32) (Ok(instances));
                check(some); file(typed);
                attribute(Kind::Count(32), "max_instances = 2"); shown(Shown::Always);

            /// What becomes of a run that is due when `max_instances` are going on. Default:
            /// [`TaskDefaults::overlap`].
            overlap: (Overlap), scheduler(Overlap::Skip),
                "What becomes of a run that is due when so many are going on. Default: it is refused.";
                serde(default);
                set(overlap: Overlap) (Ok(overlap));
                check(some_queue); file(typed);
                attribute(Kind::Overlap, "overlap = \"queue 3\""); shown(Shown::Always);

            /// How late a run may start. Default: [`TaskDefaults::misfire_grace`].
            misfire_grace: (MisfireGrace), scheduler(MisfireGrace::Unlimited),
                "How late a run may start. Default: however late.";
                serde();
                set(grace: impl Into<MisfireGrace>) (Ok(grace.into()));
                check(anything); file(typed);
                attribute(Kind::Grace, "misfire_grace = \"30s\""); shown(Shown::LengthOr("unlimited"));

            /// How long a run may take, from its start, to the millisecond; `None` for however long.
            /// Default: [`TaskDefaults::timeout`].
            timeout: (Option<Duration>), scheduler(None),
                "How long a run may take; in milliseconds when encoded. Default: however long.";
                serde(default, with = "millis", skip_serializing_if = "Option::is_none");
                set(timeout: impl Into<Option<Duration>>) (Ok(timeout.into()));
                check(some_time); file(typed);
                attribute(Kind::Grace, "timeout = \"5m\""); shown(Shown::Length);

            /// What is done about runs that fail, panic or time out; `None` for nothing. Default:
            /// [`TaskDefaults::retry`].
            retry: (Option<Retry>), scheduler(None),
                "What is done about runs that fail, panic or time out. Default: nothing.";
                serde(default, skip_serializing_if = "Option::is_none");
                set(retry: impl Into<Option<Retry>>) (Ok(retry.into()));
                check(anything); file(typed);
                attribute(Kind::Retry, "retry = 3"); shown(Shown::Times);

            /// Whether a run that was interrupted, by a crash of the program or the death of its
            /// executor, is run again: its code must bear being run twice. Default:
            /// [`TaskDefaults::recover`].
            recover: (bool), scheduler(false),
                "Whether a run that was interrupted is run again. Default: false.";
                serde(default);
                set(recover: bool) (Ok(recover));
                check(anything); file(typed);
                attribute(Kind::Flag, "recover"); shown(Shown::Always);
        }
    };
}

/// All options.
macro_rules! task_options {
    ($then:ident) => {
        task_policies! {
            $then
            /// A label for people.
            name: (Option<Arc<str>>), task(None),
                "A label for people; the handler's name when none was given.";
                serde(default, skip_serializing_if = "Option::is_none");
                set(name: impl Into<String>) (Ok(Some(name.into().into())));
                check(anything); file(typed);
                attribute(Kind::Text, "name = \"…\""); shown(Shown::Given);

            /// Free text for people: what it is for, whom to call.
            description: (Option<Arc<str>>), task(None),
                "Free text for people.";
                serde(default, skip_serializing_if = "Option::is_none");
                set(text: impl Into<String>) (Ok(Some(text.into().into())));
                check(anything); file(typed);
                attribute(Kind::Text, "description = \"…\""); shown(Shown::Given);

            /// What the code is given: anything that can be written as JSON.
            args: (Value), task(Value::Null),
                "What the code is given, as JSON.";
                serde(default);
                set(args: impl Serialize) (json(args));
                check(anything); file(by_hand);
                attribute(Kind::Any, "args = EXPR"); shown(Shown::Always);

            /// The first instant a run time may have; `None` for any. Default: any.
            start_at: (Option<DateTime<Utc>>), task(None),
                "Run times before this are none.";
                serde(default, skip_serializing_if = "Option::is_none");
                set(at: impl Into<Option<DateTime<Utc>>>) (Ok(at.into()));
                check(anything); file(typed);
                attribute(Kind::Any, "start_at = EXPR"); shown(Shown::Time);

            /// The last instant a run time may have; `None` for any. Default: any.
            end_at: (Option<DateTime<Utc>>), task(None),
                "Run times after this are none: the schedule ends with it.";
                serde(default, skip_serializing_if = "Option::is_none");
                set(at: impl Into<Option<DateTime<Utc>>>) (Ok(at.into()));
                check(anything); file(typed);
                attribute(Kind::Any, "end_at = EXPR"); shown(Shown::Time);

            /// After how many scheduled runs the schedule ends, at least 1; `None` for no end. Runs on
            /// request and further attempts do not count. Default: no end.
            max_runs: (Option<u64>), task(None),
                "The schedule ends after so many scheduled runs.";
                serde(default, skip_serializing_if = "Option::is_none");
                set(runs: impl Into<Option<u64>>) (Ok(runs.into()));
                check(some_runs); file(typed);
                attribute(Kind::Count(64), "max_runs = 100"); shown(Shown::OfRuns);

            /// What becomes of the task when its schedule has ended. Default: it is removed.
            when_finished: (WhenFinished), task(WhenFinished::Remove),
                "What becomes of the task when its schedule has ended.";
                serde(default, skip_serializing_if = "WhenFinished::is_remove");
                set(finished: WhenFinished) (Ok(finished));
                check(anything); file(typed);
                attribute(
                    Kind::Word("WhenFinished", &[("remove", "Remove"), ("keep", "Keep")]),
                    "when_finished = \"keep\""
                );
                shown(Shown::Given);

            /// Anything the application wants to keep with the task, as JSON.
            userdata: (Value), task(Value::Null),
                "Anything the application wants to keep with the task.";
                serde(default, skip_serializing_if = "Value::is_null");
                set(userdata: impl Serialize) (json(userdata));
                check(anything); file(by_hand);
                attribute(Kind::Any, "userdata = EXPR"); shown(Shown::Given);
        }
    };
}

pub(crate) use {task_options, task_policies};
