use callboard_macros::task;

#[task(id = "sweep")]
fn sweep() {}

#[task]
fn nothing() {}

#[task(every = "5m")]
#[task(id = "second")]
fn second() {}

fn main() {}
