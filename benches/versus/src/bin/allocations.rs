//! Counts the allocations that searching makes: none. A program of its own, because counting
//! slows down those who allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use callboard::trigger::{Context, Trigger};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const TRIGGERS: [&str; 13] = [
    "* * * * *",
    "*/5 * * * *",
    "0 0 * * *",
    "30 8 * * 1-5",
    "0 0 29 2 *",
    "*/10 * * * * *",
    "0 22 * * 5L",
    "H H(2-5) * * *",
    "0 9 * * * jitter 60s",
    "every 90s",
    "calendar 1mo at 02:30",
    "or(@daily; @hourly)",
    "and(0 9 13 * *; 0 9 * * fri)",
];

fn main() {
    let first = DateTime::from_timestamp(1_767_225_600, 0).unwrap();
    let starts: Vec<DateTime<Utc>> = (0..1024).map(|n| first + TimeDelta::seconds(n * 92_821)).collect();
    let cx = Context::new(Tz::America__New_York, first, "task");
    let mut searches = 0;
    for line in TRIGGERS {
        let trigger: Trigger = line.parse().unwrap();
        // The table of the zone is made once.
        black_box(trigger.next(first, &cx)).unwrap();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for from in &starts {
            let run = trigger.after(*from, &cx).unwrap().unwrap();
            black_box(trigger.due(run, &cx));
            searches += 1;
        }
        let made = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(made, 0, "{line}");
    }
    println!("{searches} searches, no allocation");
}
