//! From attributes and a function to the function and its declaration.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Ident, ItemFn, LitStr, Meta, Path, parse_quote};

use crate::options::Options;
use crate::signature::Signature;

/// The function as it was, then its declaration, or what is wrong with it.
pub(crate) fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut function = match syn::parse2::<ItemFn>(item.clone()) {
        Ok(function) => function,
        Err(_) => {
            let message = "this stands next to a function: `async fn`, or `fn` for code that blocks";
            let error = Error::new_spanned(&item, message).into_compile_error();
            return quote!(#error #item);
        }
    };
    // The attribute that is expanded comes first, with the others below it.
    let (others, kept) = function.attrs.drain(..).partition(is_ours);
    function.attrs = kept;
    let declaration = declaration(options, others, &function).unwrap_or_else(Error::into_compile_error);
    quote!(#function #declaration)
}

fn is_ours(attribute: &Attribute) -> bool {
    let path: Vec<_> = attribute.path().segments.iter().map(|segment| segment.ident.to_string()).collect();
    matches!(path.iter().map(String::as_str).collect::<Vec<_>>()[..], ["task"] | ["callboard", "task"])
}

fn declaration(first: TokenStream, others: Vec<Attribute>, function: &ItemFn) -> syn::Result<TokenStream> {
    let mut problems = Vec::new();
    let mut attributes = Vec::new();
    let mut read = |tokens, place| match Options::read(tokens, place) {
        Ok(options) => attributes.push(options),
        Err(error) => problems.push(error),
    };
    read(first, function.sig.ident.span().located_at(Span::call_site()));
    for other in others {
        match &other.meta {
            Meta::List(list) => read(list.tokens.clone(), other.path().span()),
            meta => read(TokenStream::new(), meta.span()),
        }
    }
    let signature = Signature::of(function).map_err(|error| problems.push(error)).ok();
    if let Some(signature) = &signature
        && !signature.takes_args()
    {
        let message = "the function takes no arguments";
        problems
            .extend(attributes.iter().filter_map(|options| options.args).map(|at| Error::new(at, message)));
    }
    let handler = once(&attributes, "handler", |options| options.handler.clone(), &mut problems);
    let krate = once(&attributes, "crate", |options| options.krate.clone(), &mut problems);
    let mut ids = Vec::new();
    for (id, store, span) in attributes.iter().filter_map(Options::names) {
        if ids.contains(&(id.clone(), store.clone())) {
            problems.push(Error::new(span, format!("two tasks have the id `{id}`; give each its own")));
        }
        ids.push((id, store));
    }
    let mut problems = problems.into_iter();
    match (problems.next(), signature) {
        (None, Some(signature)) => Ok(write(&attributes, handler, krate, &signature, function)),
        (Some(mut first), _) => {
            first.extend(problems);
            Err(first)
        }
        (None, None) => unreachable!("without a signature there is a problem"),
    }
}

/// An option of the function as a whole, from whichever attribute has it.
fn once<T: ToTokens>(
    attributes: &[Options],
    name: &str,
    of: impl Fn(&Options) -> Option<T>,
    problems: &mut Vec<Error>,
) -> Option<T> {
    let mut given = attributes.iter().filter_map(of);
    let first = given.next();
    let message = format!("`{name}` holds for the whole function; say it once");
    problems.extend(given.map(|again| Error::new_spanned(again, &message)));
    first
}

fn write(
    attributes: &[Options],
    handler: Option<LitStr>,
    krate: Option<Path>,
    signature: &Signature,
    function: &ItemFn,
) -> TokenStream {
    let name = &function.sig.ident;
    let visible = &function.vis;
    let krate = krate.unwrap_or_else(|| parse_quote!(::callboard));
    let handler = handler.unwrap_or_else(|| LitStr::new(&name.unraw().to_string(), name.span()));
    let conditions: Vec<_> = function.attrs.iter().filter(|attr| attr.path().is_ident("cfg")).collect();
    let code = signature.code(function, &krate);
    let tasks = attributes.iter().map(|options| options.calls(&krate));
    let task = Ident::new("task", Span::mixed_site());
    let doc = format!("The tasks declared next to the function [`{name}()`].");
    // An enum without variants has no value, so that the function keeps its name for itself.
    quote! {
        #(#conditions)*
        #[doc = #doc]
        #[allow(non_camel_case_types, missing_debug_implementations)]
        #visible enum #name {}

        #(#conditions)*
        impl #name {
            /// The handler and its tasks.
            #visible fn declaration() -> #krate::declare::Declaration {
                #krate::declare::Declaration::new(#handler, #code)
                    #(.task(|#task| #task #tasks))*
            }
        }
    }
}
