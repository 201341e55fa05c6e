use callboard_macros::task;

#[task(every: "5m")]
fn colon() {}

#[task(every = "5m" id = "a")]
fn comma() {}

fn main() {}
