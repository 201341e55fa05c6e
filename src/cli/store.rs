//! `store`: what is done with stores: check, export, import, migrate, rekey. By the running service
//! where it can do it, else with the files themselves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, json};

use super::args::{
    Filling, Store, StoreCheck, StoreExport, StoreImport, StoreMigrate, StorePlace, StoreRekey,
};
use super::client::ask_patiently;
use super::exit::{Exit, Failure};
use super::protocol::Request;
use super::{data, means, out, render};
use crate::config::{Directory, KeySettings, Settings, StoreSettings};
use crate::lock::FileLock;
use crate::store::{ExportReader, ImportMode, Progress, Vault, holds_store, is_key};
use crate::task::Alias;

pub(super) fn run(command: Store) -> Result<(), Failure> {
    means::check_clock()?;
    match command {
        Store::Check(args) => check(args),
        Store::Export(args) => export(args),
        Store::Import(args) => import(args),
        Store::Migrate(args) => migrate(args),
        Store::Rekey(args) => rekey(args),
    }
}

/// A store that was named on the command line.
struct Named {
    settings: StoreSettings,
    /// Its directory.
    path: PathBuf,
    /// The alias, of one that is in the configuration.
    alias: Option<Alias>,
    /// Whether it has its keys from the command line.
    keys_given: bool,
}

impl Named {
    /// `text` is an alias, or a type and a path.
    fn find(text: &str, place: &StorePlace, settings: &Settings) -> Result<Self, Failure> {
        let invalid = |message: String| Failure::new(Exit::Invalid, message);
        let alias = Alias::new(text).ok().filter(|alias| settings.stores.contains_key(alias));
        let (mut found, alias) = match (alias, text.split_once(':')) {
            (Some(alias), _) => (settings.stores.get(&alias).cloned(), Some(alias)),
            (None, Some((kind, path))) => {
                let path = std::path::absolute(path).map_err(|error| invalid(format!("{path}: {error}")))?;
                let directory = Directory::new(path);
                let store = match kind {
                    "sled" => Some(StoreSettings::Sled(directory)),
                    "redb" => Some(StoreSettings::Redb(directory)),
                    "file" => Some(StoreSettings::File(directory)),
                    _ => None,
                };
                (store, None)
            }
            (None, None) => (None, None),
        };
        let mut keys_given = false;
        if place.key_file.as_ref().and_then(|file| file.to_str()).is_some_and(is_key) {
            return Err(invalid("--key-file takes the name of a file, and was given a key".to_owned()));
        }
        if let (Some(file), Some(directory)) = (&place.key_file, found.as_mut().and_then(directory_mut))
            && directory.keys.is_none()
        {
            let file =
                std::path::absolute(file).map_err(|error| invalid(format!("{}: {error}", file.display())))?;
            directory.keys = Some(KeySettings::File(file));
            keys_given = true;
        }
        let known: Vec<&str> = settings.stores.keys().map(Alias::as_str).collect();
        let settings = found.ok_or_else(|| {
            let message = format!(
                "there is no store `{text}`; name one of the configuration ({}), or a type and a directory \
                 such as sled:data/store, redb:PATH or file:PATH",
                known.join(", ")
            );
            Failure::new(Exit::NotFound, message)
        })?;
        let path = settings.path(&place.data).ok_or_else(|| {
            invalid(format!("the store `{text}` is in memory: while nobody runs it there is nothing"))
        })?;
        Ok(Self { settings, path, alias, keys_given })
    }

    /// The only store of a command.
    fn only(text: &str, place: &StorePlace, settings: &Settings) -> Result<Self, Failure> {
        let named = Self::find(text, place, settings)?;
        check_keys_used(place, &[&named])?;
        Ok(named)
    }

    /// Opens the files, which have to be there unless they are to be made.
    fn open(&self, place: &StorePlace, make: bool) -> Result<Vault, Failure> {
        // What is in it is believed.
        data::check_owner(&self.path, place.trust_data)?;
        if !make && !holds_store(&self.path) {
            let message = format!(
                "there is no store in {}; name another with --store, or the configuration that says where it is \
                 with --config",
                self.path.display()
            );
            return Err(Failure::new(Exit::NotFound, message));
        }
        Ok(self.settings.vault(&place.data)?)
    }
}

/// Keys that are given for nothing are most likely not what is used instead.
fn check_keys_used(place: &StorePlace, stores: &[&Named]) -> Result<(), Failure> {
    if place.key_file.is_none() || stores.iter().any(|named| named.keys_given) {
        return Ok(());
    }
    let message = "the configuration says where the keys are; leave --key-file out, or --config and name the \
                   store by its type and directory";
    Err(Failure::new(Exit::Invalid, message))
}

fn directory_mut(settings: &mut StoreSettings) -> Option<&mut Directory> {
    match settings {
        StoreSettings::Sled(directory) | StoreSettings::Redb(directory) | StoreSettings::File(directory) => {
            Some(directory)
        }
        StoreSettings::Memory(_) => None,
    }
}

fn settings(place: &StorePlace) -> Result<Settings, Failure> {
    match &place.config {
        Some(file) => Settings::read(file).map_err(|error| Failure::new(Exit::Invalid, error)),
        None => Ok(Settings::default()),
    }
}

/// Asks the service for a store of its own; `None` when no service runs, or the store is nobody's.
fn ask_service(
    place: &StorePlace,
    named: &Named,
    request: impl FnOnce(String) -> Request,
) -> Result<Option<Value>, Failure> {
    let Some(alias) = &named.alias else { return Ok(None) };
    let _busy = data::socket(&place.data)
        .is_ok_and(|socket| socket.exists())
        .then(|| Busy::show("waiting for the service"));
    match ask_patiently(&place.data, request(alias.to_string())) {
        Ok(answer) => Ok(Some(answer)),
        Err(failure) if failure.exit == Exit::NotRunning => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Keeps services away from the data directory of a store that is one's.
fn lock(place: &StorePlace, named: &Named) -> Result<Option<FileLock>, Failure> {
    match &named.alias {
        Some(_) if place.data.is_dir() => {
            data::check_owner(&place.data, place.trust_data)?;
            data::lock(&place.data).map(Some)
        }
        _ => Ok(None),
    }
}

/// A bar on standard error, where that is a terminal.
fn bar(what: &'static str) -> impl FnMut(Progress) {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10))
        .with_message(what)
        // What is left unfinished makes room for the reason.
        .with_finish(ProgressFinish::AndClear);
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3}% {eta}") {
        bar.set_style(style);
    }
    move |Progress { done, total }| {
        bar.set_length(total);
        bar.set_position(done);
        if done >= total {
            bar.finish_and_clear();
        }
    }
}

/// Shows on a terminal that something takes its time, until it is dropped.
struct Busy(ProgressBar);

impl Busy {
    fn show(what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        if bar.is_hidden() {
            return Self(bar);
        }
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A file must have a name of its own: an export is renamed to it, an import reads it more than once.
fn check_file(file: &Path, use_instead: &str) -> Result<(), Failure> {
    if file == Path::new("-") {
        let message = format!("`-` is no file here; {use_instead}");
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(())
}

fn as_json(answer: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(answer).map_err(|error| Failure::new(Exit::Failed, error))
}

fn say(place: &StorePlace, answer: &Value, text: impl FnOnce() -> Vec<String>) {
    if place.json {
        out::json(answer);
    } else {
        text().iter().for_each(|line| out::line(line));
    }
}

fn check(args: StoreCheck) -> Result<(), Failure> {
    let place = &args.place;
    let named = Named::only(&args.store, place, &settings(place)?)?;
    let answer = match ask_service(place, &named, |store| Request::CheckStore { store })? {
        Some(answer) => answer,
        None => {
            let _lock = lock(place, &named)?;
            let mut vault = named.open(place, false)?;
            let checked = vault.check(bar("checking"))?;
            vault.close()?;
            as_json(&checked)?
        }
    };
    say(place, &answer, || render::checked(&answer));
    match answer["quarantine"].as_array().map_or(0, Vec::len) {
        0 => Ok(()),
        bad => Err(Failure::new(
            Exit::Partly,
            format!("{}; nothing was changed", render::unreadable(bad as u64)),
        )),
    }
}

fn export(args: StoreExport) -> Result<(), Failure> {
    let StoreExport { file, store, plain, place } = &args;
    check_file(file, "name the file to write")?;
    let named = Named::only(store, place, &settings(place)?)?;
    let path = std::path::absolute(file)
        .map_err(|error| Failure::new(Exit::Invalid, format!("{}: {error}", file.display())))?;
    let request = |store| Request::ExportStore { store, path: path.clone(), plain: *plain };
    let answer = match ask_service(place, &named, request)? {
        Some(answer) => answer,
        None => {
            let _lock = lock(place, &named)?;
            let mut vault = named.open(place, false)?;
            let exported = vault.export(&path, *plain, bar("exporting"))?;
            vault.close()?;
            as_json(&exported)?
        }
    };
    say(place, &answer, || {
        vec![format!(
            "{} tasks and {} run records are in {} (SHA-256 {})",
            answer["tasks"],
            answer["runs"],
            file.display(),
            answer["sha256"].as_str().unwrap_or("?")
        )]
    });
    match answer["unreadable"].as_u64() {
        Some(bad @ 1..) => Err(Failure::new(
            Exit::Partly,
            format!(
                "{}; the export is complete and has them as they are. `callboard store check` lists them and says \
                 what each needs",
                render::unreadable(bad)
            ),
        )),
        _ => Ok(()),
    }
}

fn mode(filling: &Filling) -> ImportMode {
    match (filling.replace, filling.merge) {
        (true, _) => ImportMode::Replace,
        (_, true) => ImportMode::Merge,
        _ => ImportMode::IntoEmpty,
    }
}

fn import(args: StoreImport) -> Result<(), Failure> {
    let StoreImport { file, store, filling, place } = &args;
    check_file(file, "name a file, which is read more than once")?;
    let named = Named::only(store, place, &settings(place)?)?;
    // Before anything is made.
    let export = {
        let _busy = Busy::show("reading the export");
        ExportReader::open(file)?
    };
    if named.alias.is_some() {
        data::create(&place.data, place.trust_data)?;
    }
    let _lock = lock(place, &named)?;
    let mut vault = named.open(place, true)?;
    let imported = vault.import_export(&export, mode(filling), &mut bar("importing"))?;
    vault.close()?;
    filled(place, &named, &as_json(&imported)?)
}

fn migrate(args: StoreMigrate) -> Result<(), Failure> {
    let StoreMigrate { from, to, filling, place } = &args;
    let settings = settings(place)?;
    let (from, to) = (Named::find(from, place, &settings)?, Named::find(to, place, &settings)?);
    check_keys_used(place, &[&from, &to])?;
    if is_same(&from.path, &to.path) {
        return Err(Failure::new(Exit::Invalid, "that is the same directory twice; name two stores"));
    }
    if to.alias.is_some() {
        data::create(&place.data, place.trust_data)?;
    }
    let _lock = lock(place, if from.alias.is_some() { &from } else { &to })?;
    let mut source = from.open(place, false)?;
    let mut target = to.open(place, true)?;
    let imported = target.import_from(&mut source, mode(filling), bar("migrating"))?;
    target.close()?;
    source.close()?;
    filled(place, &to, &as_json(&imported)?)
}

/// Whether two paths lead to one directory.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn filled(place: &StorePlace, named: &Named, answer: &Value) -> Result<(), Failure> {
    say(place, answer, || {
        let kept = match answer["kept"].as_u64() {
            Some(kept @ 1..) => format!("; {kept} tasks were there already and stayed"),
            _ => String::new(),
        };
        let restored = match answer["restored"].as_u64() {
            Some(restored @ 1..) => format!("; {restored} damaged records are as in the export again"),
            _ => String::new(),
        };
        vec![format!(
            "{} tasks and {} run records were written to {} and compared{kept}{restored}",
            answer["tasks"],
            answer["runs"],
            named.path.display()
        )]
    });
    let count = |what: &str| answer[what].as_u64().unwrap_or(0);
    let message = match (count("unreadable"), count("left_out")) {
        (0, 0) => return Ok(()),
        (bad, 0) => format!(
            "{}; they were written as they are, and everything else is there. \
             `callboard store check` lists them and says what each needs",
            render::unreadable(bad)
        ),
        (_, bad) => format!(
            "{} and were left out; everything else is there. Keep what they came from: \
             into an empty store, or with `--replace`, they are written as they are, and `callboard store check` \
             says what each needs",
            render::unreadable(bad)
        ),
    };
    Err(Failure::new(Exit::Partly, message))
}

fn rekey(args: StoreRekey) -> Result<(), Failure> {
    let place = &args.place;
    let named = Named::only(&args.store, place, &settings(place)?)?;
    let answer = match ask_service(place, &named, |store| Request::RekeyStore { store })? {
        Some(answer) => answer,
        None => {
            let _lock = lock(place, &named)?;
            let mut vault = named.open(place, false)?;
            let rekeyed = vault.rekey(bar("rekeying"))?;
            vault.close()?;
            as_json(&rekeyed)?
        }
    };
    say(place, &answer, || {
        vec![format!(
            "{} records were written with the key {}; {} had it already",
            answer["rewritten"],
            answer["key"].as_str().unwrap_or("?"),
            answer["current"]
        )]
    });
    match answer["unreadable"].as_u64() {
        Some(bad @ 1..) => Err(Failure::new(
            Exit::Partly,
            format!(
                "{} and were left as they are; keep the keys that they need. `callboard store check` lists them",
                render::unreadable(bad)
            ),
        )),
        _ => Ok(()),
    }
}

/// The answers of the service.
pub(super) async fn answer(handle: &crate::scheduler::Handle, request: Request) -> Result<Value, Failure> {
    match request {
        Request::CheckStore { store } => Ok(json!(handle.check_store(store).await?)),
        Request::ExportStore { store, path, plain } => {
            Ok(json!(handle.export_store(store, path, plain).await?))
        }
        Request::RekeyStore { store } => Ok(json!(handle.rekey_store(store).await?)),
        _ => Err(Failure::new(Exit::Usage, "this is no request about a store")),
    }
}
