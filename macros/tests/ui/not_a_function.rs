use callboard_macros::task;

#[task(every = "5m")]
struct Sweep;

fn main() {}
