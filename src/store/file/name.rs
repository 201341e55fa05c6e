//! The names of files: readable for ids that are simple, safe for any id.
//!
//! ```text
//! a-z 0-9 - _ .     themselves, but for a dot at the beginning
//! A-Z               + and the small letter: not every system tells them apart in names
//! anything else     % and two digits for each byte
//! con, nul, …       their first letter as %xx: some systems have devices of these names
//! too long          what fits, then ~ and a number made from the whole id
//! ```

use rustc_hash::FxHashMap;

use crate::task::TaskId;

/// The longest name, without what is appended to it (`.runs.jsonl.new`); systems allow 255 bytes.
const LONGEST: usize = 200;
/// How much of an id is in a name that would be longer.
const BEGINNING: usize = 140;

/// Which name stands for which id.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The ids of the names that do not say them, and the other way round.
    ids: FxHashMap<String, String>,
    names: FxHashMap<String, String>,
}

impl Names {
    /// The name for an id.
    pub(super) fn of(&mut self, id: &str) -> String {
        match self.find(id) {
            Ok(name) => name,
            Err(shortened) => {
                // Two ids of the same number: the later one is told apart.
                let taken = |name: &String| self.ids.contains_key(name);
                let mut others = (2_u64..).map(|number| format!("{shortened}~{number}"));
                let name = if taken(&shortened) { others.find(|name| !taken(name)) } else { None };
                let name = name.unwrap_or(shortened);
                self.learn(&name, id);
                name
            }
        }
    }

    /// The name for an id, if it has one already or needs none of its own; otherwise the name it
    /// would be given.
    pub(super) fn find(&self, id: &str) -> Result<String, String> {
        if let Some(name) = self.names.get(id) {
            return Ok(name.clone());
        }
        let name = encoded(id);
        if name.len() <= LONGEST { Ok(name) } else { Err(shortened(&name, id)) }
    }

    /// The file `name` says inside that it is that of `id`. Answers whether that can be: an id that has a
    /// name of its own is in no other file, and one that has not is in one file.
    pub(super) fn meet(&mut self, name: &str, id: &str) -> bool {
        if let Some(known) = self.names.get(id) {
            return known == name;
        }
        let own = encoded(id);
        let number = name.strip_prefix(&*shortened(&own, id));
        let is_its =
            own.len() > LONGEST && number.is_some_and(|rest| rest.is_empty() || rest.starts_with('~'));
        if is_its {
            self.learn(name, id);
        }
        is_its
    }

    /// From now on `name` stands for `id`.
    pub(super) fn learn(&mut self, name: &str, id: &str) {
        self.ids.insert(name.to_owned(), id.to_owned());
        self.names.insert(id.to_owned(), name.to_owned());
    }

    /// The id that a name stands for; `None` when it is none of ours, or not known.
    pub(super) fn id(&self, name: &str) -> Option<String> {
        match self.ids.get(name) {
            Some(id) => Some(id.clone()),
            None => decoded(name),
        }
    }
}

/// Whether a name is one that does not say its id.
pub(super) fn is_short_for(name: &str) -> bool {
    let mut parts = name.split('~');
    let [beginning, number, more] = [parts.next(), parts.next(), parts.next()];
    let digits =
        |text: &str| text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let safe = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'+' | b'%');
    beginning.is_some_and(|text| text.bytes().all(safe))
        && number.is_some_and(digits)
        && more.is_none_or(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        && parts.next().is_none()
}

/// Whether a name is one that is given to files of tasks.
pub(super) fn is_ours(name: &str) -> bool {
    is_short_for(name) || decoded(name).is_some()
}

fn encoded(id: &str) -> String {
    let stem = id.split('.').next().unwrap_or_default();
    let device = |name: &str| stem.eq_ignore_ascii_case(name);
    let port = stem
        .get(..3)
        .zip(stem.get(3..))
        .is_some_and(|(word, n)| matches!(word.to_ascii_lowercase().as_str(), "com" | "lpt") && n.len() == 1);
    let reserved = port || ["con", "prn", "aux", "nul"].into_iter().any(device);
    let mut name = String::with_capacity(id.len());
    for (index, byte) in id.bytes().enumerate() {
        match byte {
            _ if index == 0 && (reserved || byte == b'.') => name.push_str(&format!("%{byte:02x}")),
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => name.push(byte.into()),
            b'A'..=b'Z' => {
                name.push('+');
                name.push(byte.to_ascii_lowercase().into());
            }
            other => name.push_str(&format!("%{other:02x}")),
        }
    }
    name
}

fn shortened(name: &str, id: &str) -> String {
    // FNV-1a of 128 bits.
    let number = id.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    // Not in the midst of a letter.
    let whole = |end: &usize| !name.as_bytes()[end - 2..*end].iter().any(|byte| b"%+".contains(byte));
    let end = (2..=BEGINNING.min(name.len())).rev().find(whole).unwrap_or(0);
    format!("{}~{number:032x}", &name[..end])
}

/// The id of a name, if [`encoded`] makes that name from it.
fn decoded(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => rest.next()?.to_ascii_uppercase(),
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                u8::try_from(digit(rest.next()?)? * 16 + digit(rest.next()?)?).ok()?
            }
            other => other,
        });
    }
    let id = String::from_utf8(bytes).ok()?;
    (TaskId::new(&id).is_ok() && encoded(&id) == name && name.len() <= LONGEST).then_some(id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn simple_ids_are_their_own_names() {
        let name = |id: &str| Names::default().of(id);
        assert_eq!(name("nightly-backup_2.v1"), "nightly-backup_2.v1");
        assert_eq!(name("NightlyBackup"), "+nightly+backup");
        assert_eq!(name("a/b\\c:d"), "a%2fb%5cc%3ad");
        assert_eq!(name(".."), "%2e.");
        assert_eq!(name("con"), "%63on");
        assert_eq!(name("Com1.txt"), "%43om1.txt");
        assert_eq!(name("console"), "console");
        assert_eq!(name("день"), "%d0%b4%d0%b5%d0%bd%d1%8c");
    }

    #[test]
    fn what_is_too_long_is_shortened_and_told_apart() {
        let mut names = Names::default();
        let [a, b] = ["a", "b"].map(|end| format!("{}{end}", "Ж".repeat(120)));
        let (first, second) = (names.of(&a), names.of(&b));
        assert!(first != second && first.len() <= LONGEST && is_short_for(&first));
        assert_eq!(names.id(&first), Some(a.clone()));
        // The same number for another id.
        let mut taken = Names::default();
        taken.learn(&first, "somebody else");
        let third = taken.of(&a);
        assert_eq!(third, format!("{first}~2"));
        assert_eq!((taken.of(&a), taken.id(&third)), (third, Some(a)));
    }

    #[test]
    fn names_of_others_mean_nothing() {
        for name in ["", "A", "%41", "%zz", "%4", "+", "a b", "%", "%ff", "a~b", "%0a", "con"] {
            assert_eq!(Names::default().id(name), None, "{name}");
            assert!(!is_ours(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_id_has_a_safe_name_of_its_own(ids in prop::collection::btree_set("\\PC{1,80}", 1..30)) {
            let mut names = Names::default();
            let ids: BTreeSet<_> = ids.into_iter().filter(|id| TaskId::new(id).is_ok()).collect();
            let made: BTreeSet<_> = ids.iter().map(|id| names.of(id)).collect();
            prop_assert_eq!(made.len(), ids.len());
            for name in &made {
                prop_assert!(name.len() <= LONGEST + 4 && !name.starts_with('.'));
                prop_assert!(name.bytes().all(|b| matches!(b,
                    b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'+' | b'%' | b'~')), "{}", name);
            }
            for id in &ids {
                prop_assert_eq!(names.id(&names.find(id).unwrap()), Some(id.clone()));
            }
        }
    }
}
