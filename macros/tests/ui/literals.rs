use callboard_macros::task;

#[task(every = 5, id = 7, coalesce = "yes", max_instances = "2", misfire_grace = 30, timezone = 1)]
fn types() {}

#[task(trigger = 5, max_instances = 0, max_catch_up = 5_000_000_000, id = "", name, store = 'x')]
fn values() {}

#[task(cron = DAILY, handler = NAME, crate = "callboard")]
fn expressions() {}

fn main() {}
