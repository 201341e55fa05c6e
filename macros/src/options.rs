//! The options in the parentheses: read, checked, and written as calls of `Task`'s methods.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, Ident, Lit, LitStr, Path, Token};

use crate::table::{task_options, task_policies};
use crate::text;

/// What stands after the `=` of an option.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Any text.
    Text,
    /// The name of something: not empty.
    Name,
    /// `true`, `false`, or nothing for `true`.
    Flag,
    /// At least 1, in so many bits.
    Count(u32),
    /// A length of time, or an expression.
    Grace,
    /// The name of a zone, or an expression.
    Zone,
    /// A variant of an enum, by its word, or an expression.
    Word(&'static str, &'static [(&'static str, &'static str)]),
    /// `"skip"`, `"queue 3"`, …, or an expression.
    Overlap,
    /// How many further attempts, or an expression.
    Retry,
    /// A method without arguments.
    Mark,
    /// An expression.
    Any,
    /// One of the four ways to say when.
    When,
    /// Not of the task but of the declaration.
    Outer,
}

macro_rules! of_tasks {
    ($(
            $(#[doc = $doc:literal])+
            $name:ident: ($type:ty), $whose:ident($default:expr), $field:literal;
            serde($($serde:tt)*);
            set($arg:ident: $arg_type:ty) ($set:expr);
            check($check:ident); file($file:ident);
            attribute($kind:expr, $example:literal $(,)?); shown($shown:expr);
        )*) => {
        /// The options of the table.
        const OF_TASKS: &[(&str, Kind)] = &[$((stringify!($name), $kind)),*];
    };
}
task_options!(of_tasks);

/// What the attribute and new tasks have besides them.
const BESIDES: &[(&str, Kind)] = &[
    ("cron", Kind::When),
    ("every", Kind::When),
    ("at", Kind::When),
    ("trigger", Kind::When),
    ("id", Kind::Name),
    ("timezone", Kind::Zone),
    ("store", Kind::Name),
    ("first_run", Kind::Any),
    ("first_run_now", Kind::Mark),
    ("paused", Kind::Flag),
    ("spread", Kind::Flag),
    ("replace_existing", Kind::Flag),
    ("handler", Kind::Name),
    ("crate", Kind::Outer),
];

/// All that there are.
fn all() -> impl Iterator<Item = &'static (&'static str, Kind)> {
    BESIDES.iter().chain(OF_TASKS)
}

const OVERLAP: &str = "is one of \"skip\", \"queue 3\", \"cancel_running\", \"allow\"";

/// `key = value`, or a flag alone.
struct Item {
    key: Ident,
    value: Option<Expr>,
}

impl Parse for Item {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let key = Ident::parse_any(input)?;
        let value = input.parse::<Option<Token![=]>>()?.map(|_| input.parse()).transpose()?;
        Ok(Self { key, value })
    }
}

/// What a method of `Task` is called with.
enum Value {
    Tokens(TokenStream),
    /// The name of a zone.
    Zone(LitStr),
    /// What stands in the module `task` of the library.
    Task(TokenStream),
}

/// One attribute.
#[derive(Default)]
pub(crate) struct Options {
    /// The methods that make the task, in order.
    calls: Vec<(&'static str, Value)>,
    pub(crate) handler: Option<LitStr>,
    pub(crate) krate: Option<Path>,
    /// Where arguments are given.
    pub(crate) args: Option<Span>,
    /// The id and the store, where they are text.
    id: Option<LitStr>,
    store: Option<LitStr>,
}

impl Options {
    /// Reads an attribute whose path ends at `place`; says everything that is wrong with it.
    pub(crate) fn read(tokens: TokenStream, place: Span) -> syn::Result<Self> {
        let items = syn::parse::Parser::parse2(Punctuated::<Item, Token![,]>::parse_terminated, tokens)?;
        let mut options = Self::default();
        let mut problems: Option<Error> = None;
        let mut problem = |error: Error| match &mut problems {
            Some(all) => all.combine(error),
            none => *none = Some(error),
        };
        let mut seen: Vec<String> = Vec::new();
        let mut when: Option<Ident> = None;
        for item in items {
            let key = item.key.unraw().to_string();
            let Some((option, kind)) = all().find(|(name, _)| *name == key) else {
                let known: Vec<&str> = all().map(|(name, _)| *name).collect();
                let known = known.join(", ");
                problem(Error::new(
                    item.key.span(),
                    format!("there is no option `{key}`; there are {known}"),
                ));
                continue;
            };
            if seen.contains(&key) {
                problem(Error::new(item.key.span(), format!("`{key}` is given twice")));
                continue;
            }
            seen.push(key);
            if *kind == Kind::When
                && let Some(other) = when.replace(item.key.clone())
            {
                let message = format!("a task has one trigger, and `{other}` is given already");
                problem(Error::new(item.key.span(), message));
                continue;
            }
            if let Err(error) = options.take(option, *kind, item) {
                problem(error);
            }
        }
        if when.is_none() {
            let message = "when does it run? give it one of `cron = \"0 8 * * *\"`, `every = \"5m\"`, \
                           `at = \"2027-05-01T12:00:00\"`, `trigger = …`";
            problem(Error::new(place, message));
        }
        problems.map_or(Ok(options), Err)
    }

    fn take(&mut self, option: &'static str, kind: Kind, item: Item) -> syn::Result<()> {
        let key = item.key.span();
        let Some(value) = item.value else {
            if kind == Kind::Mark {
                self.calls.push((option, Value::Tokens(TokenStream::new())));
                return Ok(());
            }
            if kind == Kind::Flag {
                self.calls.push((option, Value::Tokens(quote!(true))));
                return Ok(());
            }
            return Err(Error::new(key, format!("`{option}` needs a value: `{option} = …`")));
        };
        let value = ungrouped(value);
        let literal = match &value {
            Expr::Lit(ExprLit { lit, .. }) => Some(lit),
            _ => None,
        };
        let wrong = |what: &str| Err(Error::new_spanned(&value, format!("`{option}` {what}")));
        let checked = |text: &LitStr, result: Result<(), String>| {
            result.map_err(|message| Error::new(text.span(), format!("`{option}`: {message}")))
        };
        let mut given = Value::Tokens(quote!(#value));
        match (kind, literal) {
            (Kind::Name, Some(Lit::Str(text))) => {
                checked(text, text::name(&text.value()))?;
                match option {
                    "handler" => self.handler = Some(text.clone()),
                    "id" => self.id = Some(text.clone()),
                    "store" => self.store = Some(text.clone()),
                    _ => {}
                }
            }
            (Kind::Text, Some(Lit::Str(_))) => {}
            (Kind::Name | Kind::Text, Some(_)) => {
                return wrong(&format!("is text: `{option} = \"…\"`"));
            }
            (Kind::Flag, Some(Lit::Bool(_))) => {}
            (Kind::Mark, Some(Lit::Bool(given))) => {
                if given.value {
                    self.calls.push((option, Value::Tokens(TokenStream::new())));
                }
                return Ok(());
            }
            (Kind::Mark, _) => return wrong("is `true` or `false`"),
            // `true` and `false` have their words, too.
            (Kind::Word("Coalesce", _), Some(Lit::Bool(_))) => {}
            (Kind::Word(kind, words), Some(literal)) => {
                let word = match literal {
                    Lit::Str(text) => words.iter().find(|(word, _)| *word == text.value()),
                    _ => None,
                };
                let Some((_, variant)) = word else {
                    let words: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
                    return wrong(&format!("is one of {}", words.join(", ")));
                };
                let (kind, variant) = (Ident::new(kind, value.span()), Ident::new(variant, value.span()));
                given = Value::Task(quote!(#kind::#variant));
            }
            (Kind::Overlap, Some(Lit::Str(text))) => {
                let words = text.value();
                let queue = words.strip_prefix("queue ").and_then(|number| number.trim().parse::<u32>().ok());
                given = Value::Task(match (words.as_str(), queue) {
                    ("skip", _) => quote!(Overlap::Skip),
                    ("cancel_running", _) => quote!(Overlap::CancelRunning),
                    ("allow", _) => quote!(Overlap::Allow),
                    (_, Some(length @ 1..)) => quote!(Overlap::Queue(#length)),
                    _ => return wrong(OVERLAP),
                });
            }
            (Kind::Overlap, Some(_)) => return wrong(OVERLAP),
            (Kind::Retry, Some(Lit::Int(times))) => match times.base10_parse::<u32>() {
                Ok(times) => given = Value::Task(quote!(Retry::times(#times))),
                Err(_) => return wrong("is a whole number of 32 bits"),
            },
            (Kind::Retry, Some(_)) => {
                return wrong("is how many further attempts there are: `retry = 3`, or a `Retry`");
            }
            (Kind::Flag, Some(_)) => return wrong("is `true` or `false`"),
            (Kind::Count(bits), Some(Lit::Int(count))) => match count.base10_parse::<u64>() {
                Ok(0) => return wrong("is at least 1"),
                Ok(count) if count <= u64::MAX >> (64 - bits) => {}
                _ => return wrong(&format!("is a whole number of {bits} bits")),
            },
            (Kind::Count(_), Some(_)) => return wrong("is a whole number"),
            (Kind::Grace, Some(Lit::Str(text))) => {
                let grace = text::duration(&text.value());
                let grace = grace.map_err(|message| Error::new(text.span(), message))?;
                let (seconds, nanos) = (grace.as_secs(), grace.subsec_nanos());
                given = Value::Tokens(quote!(::core::time::Duration::new(#seconds, #nanos)));
            }
            (Kind::Grace, Some(_)) => return wrong("is a length of time: \"30s\", or a `Duration`"),
            (Kind::Zone, Some(Lit::Str(text))) => match text::is_zone(&text.value()) {
                true => given = Value::Zone(text.clone()),
                false => return wrong("is the name of a zone: \"Europe/Lisbon\""),
            },
            (Kind::Zone, Some(_)) => return wrong("is the name of a zone: \"Europe/Lisbon\", or a `Zone`"),
            (Kind::When, Some(Lit::Str(text))) => {
                let pattern = text.value();
                match option {
                    "cron" => checked(text, text::crontab(&pattern))?,
                    "every" => checked(text, text::interval(&pattern))?,
                    _ if pattern.trim().is_empty() => {
                        return wrong("is empty");
                    }
                    _ => {}
                }
                let pattern = match option {
                    "every" => format!("every {pattern}"),
                    "at" => format!("once at {pattern}"),
                    _ => pattern,
                };
                let pattern = LitStr::new(&pattern, text.span());
                given = Value::Tokens(quote!(#pattern));
            }
            (Kind::When, other) if option != "trigger" || other.is_some() => {
                let what = match option {
                    "cron" => {
                        "is a crontab line: `cron = \"0 8 * * *\"`; use `trigger = …` for anything else"
                    }
                    "every" => "is a length of time: `every = \"5m\"`; use `trigger = …` for anything else",
                    "at" => "is a time: `at = \"2027-05-01T12:00:00\"`; use `trigger = …` for anything else",
                    _ => "is text or an expression, as `trigger = Interval::minutes(5)`",
                };
                return wrong(what);
            }
            (Kind::Outer, _) => {
                let Expr::Path(path) = &value else { return wrong("is a path: `crate = my::callboard`") };
                self.krate = Some(path.path.clone());
            }
            (Kind::Name, None) if option == "handler" => {
                return wrong("is text: `handler = \"…\"`");
            }
            (Kind::When | Kind::Any | Kind::Name | Kind::Text, _) => {}
            (
                Kind::Flag
                | Kind::Count(_)
                | Kind::Grace
                | Kind::Zone
                | Kind::Word(..)
                | Kind::Overlap
                | Kind::Retry,
                None,
            ) => {}
        }
        match option {
            "handler" | "crate" => return Ok(()),
            "args" => self.args = Some(value.span()),
            _ => {}
        }
        let method = if kind == Kind::When { "trigger" } else { option };
        self.calls.push((method, given));
        Ok(())
    }

    /// `task.id("weekly").trigger("0 8 * * mon")…`
    pub(crate) fn calls(&self, krate: &Path) -> TokenStream {
        let given = |name| self.calls.iter().any(|(method, _)| *method == name);
        let replaces = (given("id") && !given("replace_existing")).then(|| quote!(.replace_existing(true)));
        let calls = self.calls.iter().map(|(method, value)| {
            let method = Ident::new(method, Span::call_site());
            match value {
                Value::Tokens(tokens) => quote!(.#method(#tokens)),
                Value::Zone(name) => quote!(.timezone_named(#name)),
                Value::Task(value) => quote!(.#method(#krate::task::#value)),
            }
        });
        quote!(#(#calls)* #replaces)
    }

    /// The id that is written as text, its store, and where it stands.
    pub(crate) fn names(&self) -> Option<(String, Option<String>, Span)> {
        let id = self.id.as_ref()?;
        Some((id.value(), self.store.as_ref().map(LitStr::value), id.span()))
    }
}

/// Without the invisible groups that `macro_rules!` puts around what it passes on.
fn ungrouped(mut value: Expr) -> Expr {
    while let Expr::Group(group) = value {
        value = *group.expr;
    }
    value
}
