use callboard_macros::task;

#[task(every = "5m", id = "a", id = "b")]
fn twice() {}

#[task(every = "5m", cron = "@daily")]
fn two_triggers() {}

#[task(every = "5m", id = "a")]
#[task(every = "6m", id = "a")]
fn one_id() {}

#[task(every = "5m", id = "a", handler = "x")]
#[task(every = "6m", id = "b", handler = "y")]
fn two_names() {}

fn main() {}
