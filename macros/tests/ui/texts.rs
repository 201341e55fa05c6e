use callboard_macros::task;

#[task(cron = "0 8 * *", misfire_grace = "soon", timezone = "Mars (south)", executor = "a\nb")]
fn fields() {}

#[task(every = "5 minutes")]
fn unit() {}

#[task(every = "0s in UTC")]
fn zero() {}

#[task(at = " ")]
fn never() {}

fn main() {}
