//! callboard beside a former revision of itself.
//!
//! ```text
//! callboard-versus-before w1                             wall time of each build, and the ratio
//! callboard-versus-before w1 count BUILD ZONE ROUNDS     work for a tool that counts instructions
//! ```
//!
//! A workload is a module: it does the same work with each build in turn, asserts that it was the
//! same, and prints a table.

mod w1;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["w1"] => {
            w1::wall();
            w1::load();
        }
        ["w1", "count", build, zone, rounds] => w1::count(build, zone, rounds),
        _ => {
            eprintln!("usage: callboard-versus-before w1 [count present|before ZONE ROUNDS]");
            std::process::exit(2);
        }
    }
}
