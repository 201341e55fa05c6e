//! Who may know whom: the layers of `src/guide/architecture.md`, checked against the source.
//!
//! The table of layers is read from the guide, so the guide cannot be wrong about it. What deviates
//! from it is listed in [`EXCEPTIONS`] with a reason; an exception that nobody needs any more fails,
//! too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A path that a file may name although the table says otherwise.
struct Exception {
    file: &'static str,
    path: &'static str,
    reason: &'static str,
}

const EXCEPTIONS: &[Exception] = &[
    Exception { file: "timer.rs", path: "clock", reason: "it waits on the clock" },
    Exception { file: "lock.rs", path: "private_file", reason: "it opens the file that it locks" },
    Exception {
        file: "scheduler/builder.rs",
        path: "store::MemoryStore",
        reason: "a scheduler that was given no store has this one",
    },
    Exception {
        file: "scheduler/builder.rs",
        path: "executor::AsyncExecutor",
        reason: "a scheduler that was given no executor has this one",
    },
];

/// Of `store` and `executor`, layer 5 may name messages, addresses and what those carry.
const ADDRESSES: &[&str] = &[
    "store::message",
    "store::StoreAddr",
    "store::StoreSource",
    "store::StoreError",
    "store::Capabilities",
    "executor::message",
    "executor::ExecutorAddr",
    "executor::ExecutorSource",
];

/// The longest a file may be.
const LONGEST: usize = 700;

#[test]
fn every_file_uses_only_the_layers_below_it() {
    let layers = Layers::of_the_guide();
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for file in sources() {
        let from = layers.place(&file.name, &file.module);
        for path in &file.code.paths {
            let excused = EXCEPTIONS
                .iter()
                .position(|exception| exception.file == file.name && covers(exception.path, path));
            if let Some(problem) = layers.problem(&from, path) {
                match excused {
                    Some(index) => drop(used.insert(index)),
                    None => wrong.push(format!("{} names crate::{path}: {problem}", file.name)),
                }
            }
        }
    }
    for (index, Exception { file, path, reason }) in EXCEPTIONS.iter().enumerate() {
        if !used.contains(&index) {
            wrong.push(format!("{file} does not need its exception for {path} any more ({reason})"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A type of zones that prints the hour of the table compiled into `chrono-tz` is taken, as a name, and
/// never handed out: nothing but the edge where names are read knows it.
#[test]
fn no_time_is_told_by_the_table_of_chrono_tz() {
    // Where a `Tz` becomes a name, where a database without a version is compared with that table, and
    // where next runs are read that an earlier version worked out by it.
    const EDGE: [&str; 3] = ["trigger/zones.rs", "timezones.rs", "trigger/reread.rs"];
    let mut met = BTreeSet::new();
    for file in sources() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(&file.name);
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            let handed_out = line.contains("DateTime<Tz>") || line.contains("DateTime<chrono_tz::");
            assert!(!handed_out, "{}: {line}", file.name);
            if words.contains(&"chrono_tz") || words.contains(&"Tz") {
                assert!(EDGE.contains(&file.name.as_str()), "{}: {line}", file.name);
                let returned =
                    line.contains("pub fn") && line.split("->").nth(1).is_some_and(|it| it.contains("Tz"));
                assert!(!returned, "{}: {line}", file.name);
                met.insert(file.name.clone());
            }
        }
    }
    assert_eq!(met.len(), EDGE.len(), "{met:?}");
}

#[test]
fn decisions_know_neither_actix_nor_tokio() {
    let layers = Layers::of_the_guide();
    let mut wrong = Vec::new();
    let mut plain = 0;
    for file in sources() {
        let decides = layers.place(&file.name, &file.module).layer <= 2 && file.name != "timer.rs";
        if decides || file.name == "supervision/policy.rs" || file.name.starts_with("scheduler/plan/") {
            plain += 1;
            for word in ["actix", "actix_rt", "tokio"] {
                if file.code.words.contains(word) {
                    wrong.push(format!("{} mentions {word}", file.name));
                }
            }
        }
    }
    assert!(plain > 20, "only {plain} files were looked at");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_guide_names_files_that_are_there() {
    let guide = std::fs::read_to_string(source_root().join("guide/architecture.md")).unwrap();
    let root = source_root().parent().unwrap().to_owned();
    let mut looked = 0;
    for line in guide.lines().filter(|line| line.starts_with("| `src/") || line.starts_with("| `tests/")) {
        let (mut folder, mut cells) = (root.clone(), line.split('|'));
        let is_path = |word: &&str| word.ends_with(".rs") || word.ends_with('/');
        for path in cells.nth(1).unwrap().split('`').filter(is_path) {
            assert!(root.join(path).exists(), "there is no {path}");
            folder = root.join(path);
        }
        for path in cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).filter(is_path) {
            looked += 1;
            assert!(folder.join(path).exists(), "there is no {path} in {}", folder.display());
        }
    }
    assert!(looked > 40, "only {looked} files were looked for");
}

#[test]
fn one_door_to_the_time_and_one_to_the_terminal() {
    let mut wrong = Vec::new();
    for file in sources() {
        let name = file.name.as_str();
        for (call, allowed) in [
            ("Utc::now(", name == "clock.rs"),
            ("Local::now(", name == "clock.rs"),
            ("SystemTime::now", name == "clock.rs"),
            ("Instant::now", name == "clock.rs"),
            ("println!", is_program(name)),
            ("print!", is_program(name)),
            ("eprintln!", is_program(name)),
            ("eprint!", is_program(name)),
            ("dbg!", false),
        ] {
            if !allowed && file.code.mentions(call) {
                wrong.push(format!("{name} uses {call}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn is_program(file: &str) -> bool {
    file == "main.rs" || file.starts_with("cli/")
}

#[test]
fn no_file_is_too_long_to_read() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter(|file| file.lines > LONGEST)
        .map(|file| format!("{} has {} lines", file.name, file.lines))
        .collect();
    assert!(long.is_empty(), "{long:?}: a file has at most {LONGEST} lines");
}

#[test]
fn the_layout_in_the_crate_documentation_names_every_module() {
    let text = std::fs::read_to_string(source_root().join("lib.rs")).unwrap();
    let (docs, code) = text.split_once("\npub mod ").expect("lib.rs has modules");
    let modules = std::iter::once(code)
        .chain(code.split("\npub mod ").skip(1))
        .filter_map(|rest| rest.split(';').next())
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
    let missing: Vec<&str> = modules.filter(|name| !docs.contains(&format!("//! - [`{name}`]"))).collect();
    assert!(missing.is_empty(), "`# Layout` in lib.rs leaves out {missing:?}");
}

/// Whether `path` is `prefix` or lies in it.
fn covers(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The table of the guide: module paths and their layers.
struct Layers(BTreeMap<String, u32>);

/// Where a file belongs.
struct Place {
    file: String,
    /// The entry of the table that it comes under.
    module: String,
    layer: u32,
}

impl Layers {
    fn of_the_guide() -> Self {
        Self::of(&std::fs::read_to_string(source_root().join("guide/architecture.md")).unwrap())
    }

    /// Rows look like `| 4 | `store` · `executor` | … |`.
    fn of(guide: &str) -> Self {
        let mut layers = BTreeMap::new();
        for line in guide.lines() {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            if let [_, layer, modules, ..] = cells[..]
                && let Ok(layer) = layer.parse()
            {
                for module in modules.split('`').skip(1).step_by(2) {
                    layers.insert(module.to_owned(), layer);
                }
            }
        }
        assert!(layers.len() > 10, "the guide has no table of layers");
        Self(layers)
    }

    /// The entry for a module path or for anything in it.
    fn find(&self, path: &str) -> Option<(&str, u32)> {
        let entry =
            self.0.iter().filter(|(module, _)| covers(module, path)).max_by_key(|(module, _)| module.len());
        entry.map(|(module, layer)| (module.as_str(), *layer))
    }

    fn place(&self, file: &str, module: &str) -> Place {
        let (module, layer) = match file {
            // The root names everything: that is what it is for.
            "lib.rs" | "main.rs" | "guide/mod.rs" => ("", u32::MAX),
            _ => self.find(module).unwrap_or_else(|| {
                panic!("{file} is in no layer: add `{module}` to the table in architecture.md")
            }),
        };
        Place { file: file.to_owned(), module: module.to_owned(), layer }
    }

    /// Why `from` must not name `path`; `None` when it may.
    fn problem(&self, from: &Place, path: &str) -> Option<String> {
        // The root hands out the users' error under its own name.
        let path = if path == "Error" { "error::Error" } else { path };
        let Some((module, layer)) = self.find(path) else {
            return (from.layer != u32::MAX).then(|| "it is in no layer".to_owned());
        };
        if module == from.module || from.layer == u32::MAX {
            return None;
        }
        let same = layer == from.layer;
        let friends = ["scheduler", "error"];
        let together = friends.contains(&module) && friends.contains(&from.module.as_str());
        // What tests use is one whole, in several places.
        let for_tests = layer == 6 && same && module != "config" && from.module != "config";
        if layer > from.layer || (same && !together && !for_tests) {
            return Some(format!("{} is in layer {}, {module} in layer {layer}", from.file, from.layer));
        }
        let erased = ["store", "executor"].contains(&module);
        if from.layer == 5 && erased && !ADDRESSES.iter().any(|allowed| covers(allowed, path)) {
            return Some("of stores and executors layer 5 knows messages and addresses only".to_owned());
        }
        None
    }
}

struct Source {
    /// Relative to `src`, with `/`.
    name: String,
    module: String,
    lines: usize,
    code: Code,
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The library's and the program's files, without those that only hold unit tests.
fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    collect(&source_root(), &mut files);
    let mut sources = Vec::new();
    let mut only_tests = BTreeSet::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let relative = path.strip_prefix(source_root()).unwrap();
        let name = relative
            .components()
            .map(|part| part.as_os_str().to_str().unwrap())
            .collect::<Vec<_>>()
            .join("/");
        let module = module_of(&name);
        let code = Code::read(&text, &module);
        only_tests.extend(code.test_modules.iter().cloned());
        sources.push(Source { name, module, lines: text.lines().count(), code });
    }
    assert!(sources.len() > 50, "only {} source files were found", sources.len());
    sources.retain(|source| !only_tests.iter().any(|test| covers(test, &source.module)));
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

/// `store/sled/mod.rs` is `store::sled`, `store/memory.rs` is `store::memory`.
fn module_of(name: &str) -> String {
    let stem = name.strip_suffix(".rs").unwrap_or(name);
    stem.strip_suffix("/mod").unwrap_or(stem).replace('/', "::")
}

fn child(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

/// What a file says outside of comments, texts and unit tests.
#[derive(Debug, Default)]
struct Code {
    /// Paths from the root of the crate that it names, without `crate::`.
    paths: BTreeSet<String>,
    words: BTreeSet<String>,
    /// Modules in files of their own that exist for unit tests.
    test_modules: Vec<String>,
    tokens: Vec<String>,
}

impl Code {
    fn read(text: &str, module: &str) -> Self {
        let mut code = Self { tokens: tokens(text), ..Self::default() };
        code.drop_tests(module);
        code.words = code.tokens.iter().cloned().collect();
        let mut scopes: Vec<Option<String>> = Vec::new();
        let mut at = 0;
        while at < code.tokens.len() {
            let token = |at: usize| code.tokens.get(at).map_or("", String::as_str);
            match (token(at), token(at + 1), token(at + 2)) {
                ("mod", name, "{") => {
                    scopes.push(Some(name.to_owned()));
                    at += 3;
                    continue;
                }
                ("{", ..) => scopes.push(None),
                ("}", ..) => drop(scopes.pop()),
                ("crate", "::", _) => {
                    at = tree(&code.tokens, at + 2, "", &mut code.paths);
                    continue;
                }
                ("super", "::", _) if at == 0 || token(at - 1) != "::" => {
                    let inner: String = scopes.iter().flatten().fold(module.to_owned(), |m, s| child(&m, s));
                    let mut scope: Vec<&str> = inner.split("::").collect();
                    while token(at) == "super" && token(at + 1) == "::" {
                        scope.pop();
                        at += 2;
                    }
                    at = tree(&code.tokens, at, &scope.join("::"), &mut code.paths);
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        code
    }

    /// Removes what stands behind `#[cfg(test)]`.
    fn drop_tests(&mut self, module: &str) {
        const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
        let mut kept = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            if !self.tokens[at..].iter().zip(MARK).all(|(token, mark)| token == mark)
                || self.tokens.len() - at < 7
            {
                kept.push(self.tokens[at].clone());
                at += 1;
                continue;
            }
            at += MARK.len();
            if let [keyword, name, end] = &self.tokens[at..self.tokens.len().min(at + 3)]
                && keyword == "mod"
                && end == ";"
            {
                self.test_modules.push(child(module, name));
            }
            let mut depth = 0;
            while let Some(token) = self.tokens.get(at) {
                at += 1;
                match token.as_str() {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    ";" if depth == 0 => break,
                    _ => continue,
                }
                if depth == 0 && token == "}" {
                    break;
                }
            }
        }
        self.tokens = kept;
    }

    /// Whether a piece of code such as `Utc::now(` or `dbg!` occurs.
    fn mentions(&self, piece: &str) -> bool {
        let piece = tokens(piece);
        self.tokens.windows(piece.len()).any(|window| window == piece)
    }
}

/// Reads `a::{b::c, d}` from `at` on; answers where it ends.
fn tree(tokens: &[String], mut at: usize, prefix: &str, paths: &mut BTreeSet<String>) -> usize {
    let mut path = prefix.to_owned();
    while let Some(token) = tokens.get(at) {
        if token == "{" {
            at += 1;
            while tokens.get(at).is_some_and(|token| token != "}") {
                let end = tree(tokens, at, &path, paths);
                // A comma, or `as name`.
                at = end.max(at + 1);
            }
            return at + 1;
        }
        if token == "*" || !is_word(token) || token == "as" {
            break;
        }
        path = child(&path, token);
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            break;
        }
        at += 1;
    }
    let all = tokens.get(at).is_some_and(|token| token == "*");
    if path != prefix || (all && !path.is_empty()) {
        paths.insert(path.strip_suffix("::self").unwrap_or(&path).to_owned());
    }
    match tokens.get(at).map(String::as_str) {
        Some("*") => at + 1,
        Some("as") => at + 2,
        _ => at,
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Words, `::`, and every other sign by itself. Comments, texts and characters are left out.
fn tokens(text: &str) -> Vec<String> {
    let signs: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    let is = |at: usize, sign: char| signs.get(at) == Some(&sign);
    while at < signs.len() {
        let sign = signs[at];
        if sign == '/' && is(at + 1, '/') {
            while at < signs.len() && !is(at, '\n') {
                at += 1;
            }
        } else if sign == '/' && is(at + 1, '*') {
            let mut depth = 0;
            loop {
                if is(at, '/') && is(at + 1, '*') {
                    (depth, at) = (depth + 1, at + 2);
                } else if is(at, '*') && is(at + 1, '/') {
                    (depth, at) = (depth - 1, at + 2);
                } else {
                    at += 1;
                }
                if depth == 0 || at >= signs.len() {
                    break;
                }
            }
        } else if sign == '"' {
            at += 1;
            while at < signs.len() && !is(at, '"') {
                at += if is(at, '\\') { 2 } else { 1 };
            }
            at += 1;
        } else if sign == '\'' && (is(at + 1, '\\') || is(at + 2, '\'')) {
            // A character, and not a lifetime.
            at += if is(at + 1, '\\') { 3 } else { 2 };
            while at < signs.len() && !is(at, '\'') {
                at += 1;
            }
            at += 1;
        } else if sign.is_alphanumeric() || sign == '_' {
            let start = at;
            while at < signs.len() && (signs[at].is_alphanumeric() || signs[at] == '_') {
                at += 1;
            }
            let word: String = signs[start..at].iter().collect();
            // A raw text ends where its hashes do.
            let hashes = signs[at..].iter().take_while(|sign| **sign == '#').count();
            if ["r", "br"].contains(&word.as_str()) && is(at + hashes, '"') {
                at += hashes + 1;
                while at < signs.len() && !(is(at, '"') && (1..=hashes).all(|n| is(at + n, '#'))) {
                    at += 1;
                }
                at += hashes + 1;
            } else {
                tokens.push(word);
            }
        } else if sign == ':' && is(at + 1, ':') {
            tokens.push("::".to_owned());
            at += 2;
        } else {
            if !sign.is_whitespace() {
                tokens.push(sign.to_string());
            }
            at += 1;
        }
    }
    tokens
}

#[test]
fn the_reader_sees_code_and_nothing_else() {
    let code = Code::read(
        r###"
        //! crate::not::this, and println!
        use crate::{clock::{Busy, Clock}, task::*, timer};
        use super::{Backend, message::Put as P};
        use super::super::event::Event;
        /* crate::nor /* crate::nested */ crate::this */
        fn f<'a>(x: &'a str, y: crate::error::Error) -> char {
            let _ = "crate::in_a_text \" crate::still";
            let _ = r#"crate::raw " text"#;
            let _ = crate::store::StoreError::unavailable('"');
            '\''
        }
        mod inner {
            use super::super::sibling;
        }
        #[cfg(test)]
        use crate::only::in_tests;
        #[cfg(test)]
        mod more;
        #[cfg(test)]
        mod tests {
            use crate::testing::VirtualClock;
            fn g() { println!("{}", Utc::now()); }
        }
        pub(in crate::store) fn last() { dbg!(Instant::now()) }
        "###,
        "store::sled",
    );
    let paths: Vec<&str> = code.paths.iter().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "clock::Busy",
            "clock::Clock",
            "error::Error",
            "event::Event",
            "store",
            "store::Backend",
            "store::StoreError::unavailable",
            "store::message::Put",
            "store::sibling",
            "task",
            "timer",
        ]
    );
    assert_eq!(code.test_modules, ["store::sled::more"]);
    assert!(code.mentions("dbg!") && code.mentions("Instant::now("));
    assert!(!code.mentions("println!") && !code.mentions("Utc::now("));
}

#[test]
fn the_rules_forbid_what_they_are_there_to_forbid() {
    let layers = Layers::of_the_guide();
    let problem = |file: &str, path: &str| layers.problem(&layers.place(file, &module_of(file)), path);
    for (file, path) in [
        ("trigger/cron/mod.rs", "task::TaskId"),
        ("task/spec.rs", "event::Event"),
        ("event/actor.rs", "store::StoreAddr"),
        ("store/memory.rs", "executor::message::Submit"),
        ("executor/actor.rs", "supervision::Guardian"),
        ("supervision/guardian.rs", "scheduler::Handle"),
        ("scheduler/tick.rs", "store::MemoryStore"),
        ("scheduler/tick.rs", "executor::ExecutorActor"),
        ("scheduler/tick.rs", "config::Settings"),
        ("store/memory.rs", "Error"),
        ("store/memory.rs", "testing::VirtualClock"),
        ("config/mod.rs", "cli::run"),
        ("config/mod.rs", "nowhere::Thing"),
    ] {
        assert!(problem(file, path).is_some(), "{file} may name {path}");
    }
    for (file, path) in [
        ("trigger/mod.rs", "trigger::Cron"),
        ("task/context.rs", "clock::Clock"),
        ("scheduler/tick.rs", "store::message::Commit"),
        ("scheduler/handle.rs", "Error"),
        ("error.rs", "store::StoreError"),
        ("store/contract/mod.rs", "testing::VirtualClock"),
        ("cli/serve.rs", "store::SledStore"),
        ("lib.rs", "executor::AsyncExecutor"),
    ] {
        assert_eq!(problem(file, path), None, "{file} must not name {path}");
    }
}
