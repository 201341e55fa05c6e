#![allow(unused_variables)]
use callboard_macros::task;

struct TaskContext;

#[task(every = "5m")]
async fn three(run: TaskContext, first: u8, second: u8) {}

#[task(every = "5m")]
async fn order(text: String, run: TaskContext) {}

#[task(every = "5m")]
async fn reference(text: &str) {}

#[task(every = "5m")]
async fn generic<T>(value: T) {}

#[task(every = "5m")]
unsafe fn dangerous() {}

#[task(every = "5m", args = "letters")]
async fn without(run: TaskContext) {}

impl TaskContext {
    #[task(every = "5m")]
    fn method(&self) {}
}

fn main() {}
