use callboard_macros::task;

#[task(every = "5m", max_instance = 2)]
fn sweep() {}

fn main() {}
